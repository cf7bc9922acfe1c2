"""The distribution of given points: where a flow from data to data starts."""

import torch
from torch import Tensor

from manifolds import Manifold
from manifolds.checks import shape_remedy
from manifolds.numerics.constants import Constants
from rfm.arrays import tensor_of
from rfm.sources.base import Source, draws

_POINT_TOLERANCE = 1e-3
"""How far off the manifold points may be, relative to their size: tables round to a few digits."""


class Empirical(Source, Constants):
    """Draws with replacement from given points, with probabilities proportional to their weights.

    A sum of point masses: it has no density with respect to the volume, so neither has a flow that starts from it. A
    `KernelMixture` on the same points is the smooth source that has one.

    Args:
        manifold: where the points live.
        points: ``(n, *event_shape)``, at most 1e-3 off the manifold; they are projected to it.
        weights: relative mass of each point, ``(n,)``, not negative and not all zero; equal by default.

    Raises:
        ValueError: for points that are none, or weights that are not as said.
    """

    points: Tensor
    weights: Tensor | None
    _cumulative: Tensor | None

    def __init__(self, manifold: Manifold, points: Tensor, weights: Tensor | None = None) -> None:
        super().__init__(manifold)
        self.constant("points", _checked_points(manifold, points))
        self.register_buffer("weights", None)
        self.register_buffer("_cumulative", None)
        if weights is not None:
            shares = _checked_weights(weights, len(self.points))
            self.constant("weights", shares)
            self.constant("_cumulative", (shares / shares.sum()).cumsum(0))

    @property
    def has_density(self) -> bool:
        return False

    def sample(
        self,
        shape: int | tuple[int, ...],
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        size = draws(self, shape, dtype)
        points = self.points if device is None else self.points.to(device)
        if self._cumulative is None:
            index = torch.randint(len(points), size, generator=generator, device=points.device)
        else:
            uniform = torch.rand(size, generator=generator, dtype=torch.float64, device=points.device)
            cumulative = self._cumulative.to(points.device)
            # Right: a point of weight zero shares its entry with the one before it.
            index = torch.searchsorted(cumulative, uniform * cumulative[-1], right=True).clamp(max=len(points) - 1)
        return points[index].to(dtype or torch.get_default_dtype())

    def log_prob(self, x: Tensor) -> Tensor:
        """Raise ValueError: there is no density."""
        self.check_density("Empirical")
        raise AssertionError("a source without density passed check_density")

    def extra_repr(self) -> str:
        return f"{len(self.points)} points{'' if self.weights is None else ', weighted'}"


def _checked_points(manifold: Manifold, points: Tensor) -> Tensor:
    x = tensor_of("Empirical", "points", points, None if isinstance(points, Tensor) else torch.float64).detach()
    if x.ndim != 1 + len(manifold.event_shape) or x.shape[1:] != manifold.event_shape or len(x) == 0:
        raise ValueError(
            f"Empirical: points on {manifold} have shape (n, {', '.join(map(str, manifold.event_shape))}) with n at "
            f"least 1, got {tuple(x.shape)}; {shape_remedy(manifold, x)}"
        )
    try:
        manifold.check_point(x.double(), tol=_POINT_TOLERANCE)
    except ValueError as error:
        raise ValueError(f"Empirical: {error}") from None
    projected = manifold.projx(x.double())
    # Points that are exact stay as they are, bit for bit, so that saving and loading do not move them.
    exact = x.dtype == torch.float64 and _is_exact(manifold, x)
    return x if exact else projected


def _is_exact(manifold: Manifold, x: Tensor) -> bool:
    try:
        manifold.check_point(x)
    except ValueError:
        return False
    return True


def _checked_weights(weights: Tensor, count: int) -> Tensor:
    w = tensor_of("Empirical", "weights", weights, torch.float64).detach()
    if w.shape != (count,) or not bool((w.isfinite() & (w >= 0)).all()) or not bool((w > 0).any()):
        raise ValueError(
            f"Empirical: weights must be one finite number for each of the {count} points, none negative and not all "
            f"zero, got shape {tuple(w.shape)}; correct them"
        )
    return w
