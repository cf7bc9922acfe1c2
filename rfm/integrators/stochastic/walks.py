"""Random steps on a manifold: along geodesics, or in ambient space and back."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from manifolds import Manifold

WalkStep = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor | None]]
"""From points ``(n, *event_shape)``, tangent vectors and the variance of these in every direction to new points, and
which left the domain ``(n)``, None if none can."""


class Walk(Protocol):
    """A way to follow tangent vectors that are drift and Gaussian noise."""

    def on(self, manifold: Manifold, x: Tensor) -> WalkStep:
        """Return what makes steps on a manifold from points like ``x``."""
        ...


@dataclass(frozen=True)
class GeodesicWalk:
    """The geodesic random walk ``expmap(x, w)``; its limit is Brownian motion with drift, in any metric.

    Joergensen, The central limit problem for geodesic random walks, 1975, doi:10.1007/BF00533088. Weak order 1.
    """

    def on(self, manifold: Manifold, x: Tensor) -> WalkStep:
        return lambda y, w, variance: (manifold.expmap(y, w), None)


@dataclass(frozen=True)
class ProjectedWalk:
    """The embedded form ``projx(x + w + variance c(x))`` with the Ito correction ``c``; weak order 1.

    To second order a geodesic is ``x + w + g(w, w) / 2`` and ``projx(x + w)`` is ``x + w + p(w, w) / 2``; noise has
    ``E[w w'] = variance``, and with orthonormal directions ``e_i`` the two differ in the mean by ``variance`` times
    ``c = sum_i (g(e_i, e_i) - p(e_i, e_i)) / 2``, which is tangent. It is zero where ``projx`` goes to the nearest
    point of the metric that the manifold has from its ambient space, or a multiple of it, as on spheres and SO(3). That
    is tried once for each solve, near the first point; elsewhere, as on a hyperboloid, it is computed by second
    derivatives.

    It is cheaper than the geodesic walk where ``projx`` is cheaper than ``expmap``. A manifold with a border in its
    ambient space, such as a ball, can be left by any step: take `GeodesicWalk` there.
    """

    def on(self, manifold: Manifold, x: Tensor) -> WalkStep:
        probes = _around(manifold, x)
        drift = ito_correction(manifold, probes)
        needed = bool((drift.abs() > torch.finfo(drift.dtype).eps ** 0.5).any())

        def step(y: Tensor, w: Tensor, variance: float) -> tuple[Tensor, Tensor | None]:
            end = y + w + variance * ito_correction(manifold, y) if needed else y + w
            return manifold.projx(end), manifold.outside(end)

        return step


def ito_correction(manifold: Manifold, x: Tensor) -> Tensor:
    """Return half the sum over orthonormal directions of a geodesic's acceleration less that of ``projx(x + s e)``.

    Args:
        manifold: where the points live.
        x: points ``(n, *event_shape)``.

    Returns:
        Tangent vectors ``(n, *event_shape)``, per unit of variance.
    """
    directions = manifold.tangent_basis(x).movedim(-1 - len(manifold.event_shape), 0).contiguous()
    starts = x.expand(directions.shape).contiguous()

    def gap(s: Tensor) -> Tensor:
        w = manifold.lift(s) * directions
        return manifold.expmap(starts, w) - manifold.projx(starts + w)

    zero = x.new_zeros(directions.shape[: directions.ndim - len(manifold.event_shape)])
    one = torch.ones_like(zero)

    def velocity(s: Tensor) -> Tensor:
        moved: Tensor = torch.func.jvp(gap, (s,), (one,))[1]
        return moved

    acceleration: Tensor = torch.func.jvp(velocity, (zero,), (one,))[1]
    return manifold.proju(x, acceleration.sum(0).to(x.dtype) / 2)


def _around(manifold: Manifold, x: Tensor) -> Tensor:
    """Return a few points near the first, none of which a symmetry sets apart, in float64."""
    start = manifold.projx(x[:1].detach().double()).expand(8 * min(1, len(x)), *manifold.event_shape)
    noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(x.device)
    w = manifold.proju(start, noise)
    return manifold.expmap(start, w / manifold.lift(2 * (1 + manifold.norm(start, w))))
