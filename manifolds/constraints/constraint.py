"""What a closed subset of a manifold with a border knows of itself."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from manifolds.base import Manifold
from manifolds.numerics.constants import Constants
from manifolds.numerics.precision import FullPrecision


class Constraint(FullPrecision, Constants):
    """A closed subset of a manifold, with an interior and a piecewise smooth border.

    **Required.** `check_manifold`, `depth`, `nearest`, `wall`, `damped`, `random_uniform`, ``volume`` and ``layer``.
    Points are those of the manifold, ``(*batch, *event_shape)``. A subclass keeps its constructor's arguments as
    attributes of the same names, so that it can be saved, and computes in float64 where differences near the border
    would cancel.
    """

    convex: bool = True
    """Whether shortest geodesics between points of the set stay in it."""

    volume: float | None = None
    """Riemannian volume of the set; None where it is infinite."""

    reach: float = 1.0
    """Largest coordinate of the border, to whose rounding points may be over it."""

    layer: float | Tensor
    """Distance from the border at which `damped` halves the normal component, unless told otherwise."""

    def check_manifold(self, manifold: Manifold) -> None:
        """Raise ValueError unless this is a subset of the manifold."""
        raise TypeError(f"{type(self).__name__} does not define check_manifold(manifold)")

    def contains(self, x: Tensor) -> Tensor:
        """Return which points lie in the set, its border included, ``(*batch)``."""
        return self.depth(x) >= 0

    def depth(self, x: Tensor) -> Tensor:
        """Return the geodesic distance to the border, negative outside, ``(*batch)``.

        Inside it is exact or a lower bound; outside, where a point beyond a corner is farther off, it may be nearer 0.
        """
        raise TypeError(f"{type(self).__name__} does not define depth(x)")

    def nearest(self, x: Tensor, margin: float) -> Tensor:
        """Return, for points outside, a point of the set next to the nearest one, ``margin`` inside the border."""
        raise TypeError(f"{type(self).__name__} does not define nearest(x, margin)")

    def wall(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the point of the border nearest to points of the set, and the inward unit normal there."""
        raise TypeError(f"{type(self).__name__} does not define wall(x)")

    def damped(self, x: Tensor, u: Tensor, layer: float | Tensor) -> Tensor:
        """Return ``D(x) u``: tangent vectors whose component normal to the border vanishes on it.

        ``D`` is a symmetric positive definite map of the tangent space, the identity far from the border, smooth inside
        and Lipschitz up to the border. Next to a wall at distance d with normal n it is ``I - n n' layer / (layer +
        d)``, and at a corner, where walls meet, it is zero. So flows of damped fields map the set to itself, one to
        one, the border to the border.

        Args:
            x: points ``(*batch, *event_shape)`` of the set.
            u: tangent vectors, of a shape that broadcasts.
            layer: distance at which the normal component is half of what it was.
        """
        raise TypeError(f"{type(self).__name__} does not define damped(x, u, layer)")

    def random_uniform(self, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """Return ``count`` points uniform in the volume, float64."""
        raise TypeError(f"{type(self).__name__} does not define random_uniform(count, generator, device)")

    # Ways inside, and components.

    def logmap(self, manifold: Manifold, x: Tensor, y: Tensor) -> Tensor:
        """Return the initial velocity of a shortest way from ``x`` to ``y``, inside where the set is `convex`."""
        return manifold.logmap(x, y)

    def dist(self, manifold: Manifold, x: Tensor, y: Tensor) -> Tensor:
        """Return the length of that way, ``(*batch)``."""
        return manifold.dist(x, y)

    def crosses(self, manifold: Manifold, x: Tensor, y: Tensor) -> Tensor:
        """Return whether the shortest geodesic from ``x`` to ``y`` leaves the set, ``(*batch)``.

        By default found from points along it; never where the set is convex.
        """
        x, y = torch.broadcast_tensors(x, y)
        batch = manifold.batch_shape(x)
        left = torch.zeros(batch, dtype=torch.bool, device=x.device)
        if self.convex:
            return left
        for share in torch.linspace(0, 1, _LOOKS + 2)[1:-1].tolist():
            left = left | ~self.contains(manifold.geodesic(x, y, torch.full(batch, share).to(x))[0])
        return left

    component_volumes: Tensor
    """Volumes of the connected components, ``(c,)``, 0 for numbers that are none; missing where there is but one."""

    @property
    def is_connected(self) -> bool:
        """Whether there is one connected component: no flow leads from one to another."""
        return True

    def components(self, x: Tensor) -> Tensor:
        """Return the number of the component that each point of the set is in, ``(*batch)``."""
        return torch.zeros(x.shape[:-1], dtype=torch.long, device=x.device)

    def random_in(self, components: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return a point in each of the components given by number ``(n,)``, uniform in it, float64."""
        return self.random_uniform(len(components), generator, components.device)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"


Drawing = Callable[[int, torch.Generator | None, torch.device], Tensor]
"""From a number of draws to those of them that are accepted."""


def vector(owner: str, name: str, value: Any) -> Tensor:
    """Return numbers as a float64 tensor ``(n,)``, n at least 1.

    Raises:
        ValueError: they are none, or NaN.
    """
    x = numbers(owner, name, value)
    if x.ndim != 1 or not len(x) or bool(x.isnan().any()):
        raise ValueError(
            f"{owner}: {name} must be one number for each coordinate, got shape {tuple(x.shape)}"
            f"{' with NaN' if bool(x.isnan().any()) else ''}; pass a list, such as [0.0, 1.0]"
        )
    return x


def numbers(owner: str, name: str, value: Any) -> Tensor:
    """Return numbers, nested in sequences or a tensor, as a float64 tensor.

    Raises:
        ValueError: they are none.
    """
    try:
        # Plain numbers with all of their digits.
        return (value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float64)).detach().double()
    except (TypeError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise ValueError(f"{owner}: {name} must be numbers, got what torch cannot convert ({reason})") from None


def by_rejection(
    owner: str, count: int, share: float, draw: Drawing, generator: torch.Generator | None, device: torch.device
) -> Tensor:
    """Return ``count`` points of those that are drawn and accepted.

    Args:
        owner: the constraint, for the message.
        count: how many.
        share: of the draws that is accepted on average.
        draw: from a number of draws, a generator and a device to those that are accepted, ``(k, *event_shape)``.
        generator: source of randomness.
        device: of the points.

    Raises:
        ValueError: hardly any draw would be accepted.
    """
    if not share > _LEAST_SHARE:
        raise ValueError(
            f"{owner}: fills {share:.2g} of the box around it, too little to draw uniform points by rejection; split "
            "it into parts, turn it along the axes, or pass source="
        )
    parts: list[Tensor] = []
    found = 0
    while found < count or not parts:
        accepted = draw(min(int(1.1 * (count - found) / share) + 16, _MOST_DRAWS), generator, device)
        parts.append(accepted)
        found += len(accepted)
    return torch.cat(parts)[:count]


_LOOKS = 15
_LEAST_SHARE = 1e-5
_MOST_DRAWS = 2**18
