"""Flow maps that are known in closed form, as fields with a second time."""

from collections.abc import Callable
from typing import Any

import torch
from random_fields import normal, points
from torch import Tensor

from manifolds import Manifold
from rfm import FlowMap


class KnownMap(FlowMap):
    """The average velocity of a map ``carried(x, s, t)``, and the velocity of its derivative in t."""

    def __init__(self, manifold: Manifold, carried: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        self.manifold, self.carried = manifold, carried

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        # By the logarithm: where points are classes, what a map returns is no neighbour of the same representative.
        def ahead(end: Tensor) -> Tensor:
            return self.manifold.logmap(x, self.carried(x, t, end))

        t = t.contiguous()
        return torch.func.jvp(ahead, (t,), (torch.ones_like(t),))[1]

    def average_velocity(self, x: Tensor, s: Tensor, t: Tensor, **condition: Any) -> Tensor:
        span = self.manifold.lift(t - s)
        ahead = self.manifold.logmap(x, self.carried(x, s, t)) / torch.where(span == 0, 1.0, span)
        return torch.where(span == 0, self.velocity(x, t), ahead)


def clock(t: Tensor) -> Tensor:
    """Return a time that runs faster and faster, so that velocities depend on time."""
    return t + t.square() / 2


def spiral(m: Manifold, size: float = 0.5) -> KnownMap:
    """Return a flow that is linear in the normal coordinates of a point: neither geodesic nor an isometry."""
    centre = points(m, 1, seed=11)[0]
    basis = m.tangent_basis(centre)
    rate = size * normal(m.dim, m.dim, seed=12) / m.dim**0.5

    def carried(x: Tensor, s: Tensor, t: Tensor) -> Tensor:
        ahead = m.logmap(centre, x)
        coordinates = torch.stack([m.inner(centre, e, ahead) for e in basis], dim=-1)
        turned = torch.linalg.matrix_exp((clock(t) - clock(s))[..., None, None] * rate) @ coordinates[..., None]
        return m.expmap(centre, (m.lift(turned[..., 0]) * basis).sum(-1 - len(m.event_shape)))

    return KnownMap(m, carried)


def contraction(m: Manifold) -> KnownMap:
    """Return the flow of conditional geodesics to one point, which all points reach at time 2."""
    centre = points(m, 1, seed=11)[0]

    def carried(x: Tensor, s: Tensor, t: Tensor) -> Tensor:
        return m.expmap(x, m.lift((t - s) / (2 - s)) * m.logmap(x, centre))

    return KnownMap(m, carried)


def near(m: Manifold, n: int, seed: int = 0, radius: float = 0.4) -> Tensor:
    """Return points within a ball about the centre of `spiral` and `contraction`, short of any cut locus."""
    centre = points(m, 1, seed=11)[0]
    u = m.proju(centre.expand(n, *m.event_shape), normal(n, *m.event_shape, seed=seed))
    length = m.norm(centre, u)
    share = torch.linspace(0.3, 1.0, n, dtype=torch.float64)
    return m.expmap(centre, m.lift(radius * share / length) * u)
