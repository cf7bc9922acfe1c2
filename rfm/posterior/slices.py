"""Parts of a point that are known without error: slices of the joint density.

The density of the free part given the known one is the joint density on the slice, up to a constant. It has no field of
its own, so draws come from a source on the free part, reweighted: `rfm.posterior.Tempering`, `Chains` and `Importance`
do that as they do it for flows, exactly in the limit.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from manifolds import SO3, Euclidean, FlatTorus, Manifold, Power, Product
from manifolds.arguments import check_instance, shown
from rfm.arrays import points_of, tensor_of
from rfm.posterior.adaptive_importance import AdaptiveImportance
from rfm.posterior.likelihood import Likelihood
from rfm.posterior.sampler import Sampler
from rfm.posterior.tempering import Tempering
from rfm.sources import KernelMixture, Source, default_source

_NEAREST = 64
"""Draws of a flow whose free parts a slice's source is made of."""
_FEW_DIMENSIONS = 6
"""Up to as many, kernels about some hundred draws describe a density well enough to be drawn from."""


@dataclass(frozen=True)
class Slice:
    """Points that share a known part.

    Args:
        manifold: of the free part.
        join: from free parts ``(*batch, *manifold.event_shape)`` to points.
        free: from points to their free parts.
        source: a distribution of the free part, from which draws are reweighted; by default kernels about the draws of
            the flow that are nearest to the slice, with the usual source of its manifold as their background.
    """

    manifold: Manifold
    join: Callable[[Tensor], Tensor]
    free: Callable[[Tensor], Tensor]
    source: Source | None = None

    @classmethod
    def of_factors(cls, manifold: Product, known: Mapping[int, Any], source: Source | None = None) -> "Slice":
        """Return the points of a product some of whose factors are known.

        Args:
            manifold: the product.
            known: points of factors, by the factor's number from 0.
            source: of the product of the other factors.
        """
        check_instance("Slice.of_factors", "manifold", manifold, Product, "Product(SO3(), Euclidean(3))")
        factors = [cast(Manifold, factor) for factor in manifold.factors]
        free = _free("Slice.of_factors", known, len(factors), "factors")
        points = {i: _point("Slice.of_factors", factors[i], value) for i, value in known.items()}
        part = Product(*(factors[i] for i in free), weights=[manifold.weights[i] for i in free])

        def join(z: Tensor) -> Tensor:
            rest = iter(part.split(z))
            return manifold.join(*(points[i].to(z) if i in points else next(rest) for i in range(len(factors))))

        return cls(part, join, lambda x: part.join(*(manifold.split(x)[i] for i in free)), source)

    @classmethod
    def of_copies(cls, manifold: Power, known: Mapping[int, Any], source: Source | None = None) -> "Slice":
        """Return the points of a power some of whose copies are known, such as some frames of a chain.

        Args:
            manifold: the power.
            known: points of the copies' manifold, by the copy's number from 0.
            source: of the power of the other copies.
        """
        check_instance("Slice.of_copies", "manifold", manifold, Power, "Power(SO3(), 3)")
        free = _free("Slice.of_copies", known, manifold.k, "copies")
        rows = torch.tensor([*free, *known])
        held = torch.stack([_point("Slice.of_copies", manifold.m, value) for value in known.values()])
        rank = len(manifold.m.event_shape)

        def join(z: Tensor) -> Tensor:
            batch = z.shape[: z.ndim - rank - 1]
            both = torch.cat([z, held.to(z).expand(*batch, *held.shape)], dim=-1 - rank)
            return both.index_select(z.ndim - 1 - rank, rows.argsort().to(z.device))

        def parts(x: Tensor) -> Tensor:
            return x.index_select(x.ndim - 1 - rank, torch.tensor(free, device=x.device))

        return cls(Power(manifold.m, len(free)), join, parts, source)

    @classmethod
    def of_entries(cls, manifold: Manifold, known: Any, source: Source | None = None) -> "Slice":
        """Return the points of flat space, or of a flat torus, some of whose coordinates are known.

        Args:
            manifold: `Euclidean` or `FlatTorus`.
            known: the coordinates ``(n,)``, NaN where not known.
            source: of the others, on the same space of fewer dimensions.
        """
        if not isinstance(manifold, Euclidean | FlatTorus):
            raise ValueError(
                f"Slice.of_entries: coordinates are known without error on Euclidean and FlatTorus, got {manifold}"
            )
        values, free = _entries("Slice.of_entries", known, manifold.n)
        part = type(manifold)(len(free))
        return cls(part, lambda z: _filled(values.to(z), free, z), lambda x: x[..., free], source)

    @classmethod
    def of_position(cls, position: Any, source: Source | None = None) -> "Slice":
        """Return the poses, 4 x 4 matrices, at a known position; their rotations are free.

        Args:
            position: ``(3,)``; coordinates that are NaN are not known, and free besides.
            source: on `SO3`, or on its product with the space of the free coordinates.
        """
        values, free = _entries("Slice.of_position", position, 3, all_known=True)
        if not free:
            return cls(SO3(), lambda z: _poses(z, values.to(z)), lambda x: x[..., :3, :3], source)
        part = Product(SO3(), Euclidean(len(free)))

        def join(z: Tensor) -> Tensor:
            rotation, rest = part.split(z)
            return _poses(rotation, _filled(values.to(z), free, rest))

        return cls(part, join, lambda x: part.join(x[..., :3, :3], x[..., free, 3]), source)

    @classmethod
    def of_orientation(cls, orientation: Any, source: Source | None = None) -> "Slice":
        """Return the poses, 4 x 4 matrices, of a known orientation ``(3, 3)``; their positions are free."""
        known = _point("Slice.of_orientation", SO3(), orientation)
        return cls(Euclidean(3), lambda z: _poses(known.to(z), z), lambda x: x[..., :3, 3], source)

    def check(self, manifold: Manifold) -> None:
        """Raise ValueError unless points of the slice are points of a manifold."""
        probe = self.join(torch.zeros(1, *self.manifold.event_shape))
        if manifold.dim <= self.manifold.dim or probe.shape[1:] != manifold.event_shape:
            raise ValueError(
                f"Flow.posterior: the slice has a free part on {self.manifold}, which is no part of {manifold}"
            )

    def reweighted(self, joint: Callable[[Tensor], Tensor], source: Source, likelihood: Likelihood) -> Likelihood:
        """Return the likelihood that turns a source of the free part into the slice of a joint density.

        Args:
            joint: log-density of points, in nats.
            source: of the free part.
            likelihood: of the points besides.
        """
        return _Reweighted(self, joint, source, likelihood)


class _Reweighted(Likelihood):
    def __init__(self, known: Slice, joint: Callable[[Tensor], Tensor], source: Source, likelihood: Likelihood) -> None:
        self.known, self.joint, self.source, self.likelihood = known, joint, source, likelihood

    def __call__(self, x: Tensor) -> Tensor:
        own = self.joint(x).double() - self.source.log_prob(self.known.free(x)).double()
        return own + self.likelihood(x).double()

    def doubts(self, draws: Tensor) -> tuple[str, ...]:
        return self.likelihood.doubts(draws)


class Unmeasured(Likelihood):
    """The likelihood of nothing measured: 0 everywhere."""

    def __init__(self, manifold: Manifold) -> None:
        self.manifold = manifold

    def __call__(self, x: Tensor) -> Tensor:
        return torch.zeros(self.manifold.batch_shape(x), dtype=torch.float64, device=x.device)


def slice_source(known: Slice, manifold: Manifold, draws: Tensor) -> Source:
    """Return the source of a slice's free part: its own, or kernels about the draws of the flow nearest to the slice.

    The usual source of the free part is their background, and all there is on a manifold without kernels: a density
    that is narrow on the slice would be missed by particles of the background alone.

    Args:
        known: the slice.
        manifold: of points.
        draws: of the flow ``(n, *event_shape)``.
    """
    if known.source is not None:
        return known.source
    free = known.free(draws)
    background = default_source(known.manifold, free)
    nearest = manifold.dist(draws, known.join(free)).argsort()[:_NEAREST]
    if known.manifold.kernel is None or not bool((known.manifold.dist(free[nearest], free[nearest[:1]]) > 0).any()):
        return background
    return KernelMixture.fit(known.manifold, free[nearest], background=background)


def slice_method(known: Slice, draws: int | None = None, progress: Callable[[int], Any] = lambda done: None) -> Sampler:
    """Return the method for a slice where none is requested: `AdaptiveImportance`, `Tempering` in many dimensions.

    Args:
        known: the slice.
        draws: of each round, or particles that are tempered; 512 or 64 by default.
        progress: called with how many more hundredths of the work are done; in all 100.
    """
    if known.manifold.dim <= _FEW_DIMENSIONS and known.manifold.kernel is not None:
        return AdaptiveImportance(draws=draws or 512, progress=progress)
    return Tempering(particles=draws or 64, progress=progress)


def _free(owner: str, known: Mapping[int, Any], count: int, what: str) -> list[int]:
    if not known or not all(isinstance(i, int) and 0 <= i < count for i in known) or len(known) == count:
        raise ValueError(
            f"{owner}: known must name some of the {what} by their numbers from 0 to {count - 1}, and not all of them, "
            f"got {list(known)}"
        )
    return [i for i in range(count) if i not in known]


def _entries(owner: str, known: Any, count: int, all_known: bool = False) -> tuple[Tensor, list[int]]:
    """Return coordinates, some of which are NaN, and the numbers of those; without any only where all may be known."""
    values = tensor_of(owner, "known", known, torch.float64)
    free = values.isnan().nonzero()[:, 0].tolist() if values.ndim == 1 else []
    finite = bool((values.isfinite() | values.isnan()).all())
    if values.shape != (count,) or not finite or len(free) == count or not (free or all_known):
        raise ValueError(
            f"{owner}: takes {count} coordinates, NaN where not known, at least one of them known"
            f"{'' if all_known else ' and one not'}, got {shown(values.tolist())}"
        )
    return values, free


def _filled(values: Tensor, free: list[int], rest: Tensor) -> Tensor:
    """Return coordinates ``(*batch, n)``, those that are free from ``rest`` ``(*batch, k)``."""
    parts = list(values.expand(*rest.shape[:-1], len(values)).unbind(-1))
    for i, own in zip(free, rest.unbind(-1), strict=True):
        parts[i] = own
    return torch.stack(parts, dim=-1)


def _point(owner: str, manifold: Manifold, value: Any) -> Tensor:
    point = points_of(owner, manifold, value, torch.float64)
    if point.shape != manifold.event_shape:
        raise ValueError(
            f"{owner}: takes one point of {manifold}, shape {tuple(manifold.event_shape)}, got {tuple(point.shape)}"
        )
    try:
        manifold.check_point(point, tol=1e-3)
    except ValueError as error:
        raise ValueError(f"{owner}: {error}") from None
    return manifold.projx(point)


def _poses(rotation: Tensor, position: Tensor) -> Tensor:
    batch = torch.broadcast_shapes(rotation.shape[:-2], position.shape[:-1])
    top = torch.cat([rotation.expand(*batch, 3, 3), position[..., None].expand(*batch, 3, 1)], dim=-1)
    last = torch.tensor([0.0, 0, 0, 1], dtype=top.dtype, device=top.device).expand(*batch, 1, 4)
    return torch.cat([top, last], dim=-2)
