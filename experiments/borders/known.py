"""Known densities that are high at a border, with quadrature on their sets."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from manifolds import Ball, Bounded, Box, Euclidean, FlatTorus, JointLimits, Sphere, SphericalPolygon

Nodes = tuple[Tensor, Tensor]
"""Points ``(n, *event_shape)`` and weights ``(n,)``, which sum to the volume."""


@dataclass(frozen=True)
class Known:
    """A density on a bounded set, known up to its normaliser, which quadrature gives.

    Args:
        name: of the set, for tables.
        manifold: the set.
        log_weight: of points, unnormalised.
        nodes: of the quadrature.
    """

    name: str
    manifold: Bounded
    log_weight: Callable[[Tensor], Tensor]
    nodes: Nodes

    @property
    def log_normaliser(self) -> Tensor:
        """The logarithm of the integral of the weight."""
        x, w = self.nodes
        return (self.log_weight(x) + w.log()).logsumexp(0)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the true log-density."""
        return self.log_weight(x.double()) - self.log_normaliser

    def sample(self, count: int, seed: int) -> Tensor:
        """Return draws, by rejection from the uniform distribution, ``(count, *event_shape)``."""
        generator = torch.Generator().manual_seed(seed)
        bound = float(self.log_weight(self.nodes[0]).max()) + 0.1
        parts, found = list[Tensor](), 0
        while found < count:
            x = self.manifold.random_uniform(4 * count, generator=generator, dtype=torch.float64)
            u = torch.rand(len(x), generator=generator, dtype=torch.float64)
            log_weight = self.log_weight(x)
            assert float(log_weight.max()) < bound, "quadrature has seen the highest density"
            parts.append(x[u.log() < log_weight - bound])
            found += len(parts[-1])
        return torch.cat(parts)[:count]


def box() -> Known:
    """Return an exponential fall from a side, and a bump on another, on a rectangle."""

    def log_weight(x: Tensor) -> Tensor:
        side = -6 * x[:, 0]
        bump = -((x[:, 0] - 0.75) ** 2 + x[:, 1] ** 2) / (2 * 0.12**2) + 0.5
        return torch.stack([side, bump, torch.full_like(side, -4.0)]).logsumexp(0)

    a, w = _both_ends(_interval(28))
    x = torch.cartesian_prod(a, 2 * a)
    weights = (2 * w[:, None] * w).flatten()
    return Known("box", Bounded(Euclidean(2), Box([0.0, 0.0], [1.0, 2.0])), log_weight, (x, weights))


def disc() -> Known:
    """Return a density that rises to a side of a disc, with a bump on the other."""

    def log_weight(x: Tensor) -> Tensor:
        rise = 4 * x[:, 0] - 4
        bump = -((x[:, 0] + 0.7) ** 2 + (x[:, 1] - 0.7) ** 2) / (2 * 0.15**2)
        return torch.stack([rise, bump]).logsumexp(0)

    r, w = _upper_end(_interval(24))
    # As fitted densities at the border have it, which change faster along it than the true one.
    phase = torch.arange(_PHASES, dtype=torch.float64) * (2 * math.pi / _PHASES)
    x = torch.stack([r[:, None] * torch.cos(phase), r[:, None] * torch.sin(phase)], -1).reshape(-1, 2)
    weights = (r * w)[:, None].expand(-1, _PHASES).flatten() * (2 * math.pi / _PHASES)
    return Known("disc", Bounded(Euclidean(2), Ball([0.0, 0.0], 1.0)), log_weight, (x, weights))


def joints() -> Known:
    """Return a density at the stops of two joints."""

    def log_weight(x: Tensor) -> Tensor:
        return 3 * torch.cos(x[:, 0] + 2.0) + 4 * torch.cos(x[:, 1] - 1.5) + torch.cos(x[:, 0] - x[:, 1])

    m = Bounded(FlatTorus(2), JointLimits([-2.0, -1.0], [1.0, 1.5]))
    a, w = _both_ends(_interval(28))
    x = torch.cartesian_prod(-2.0 + 3 * a, -1.0 + 2.5 * a)
    return Known("joint limits", m, log_weight, (x, 7.5 * (w[:, None] * w).flatten()))


CORNERS = ((0.0, 0.0), (0.0, 40.0), (25.0, 55.0), (50.0, 30.0), (45.0, -10.0), (15.0, -20.0))
"""Latitudes and longitudes of a convex polygon of the size of a continent."""


def polygon() -> Known:
    """Return a density on a side of a convex spherical polygon, with a bump at a corner."""
    latitude, longitude = torch.tensor(CORNERS, dtype=torch.float64).unbind(-1)
    corners = Sphere.from_degrees(latitude, longitude)
    m = Bounded(Sphere(2), SphericalPolygon(corners))
    on_side = Sphere(2).projx(corners[0] + corners[1])
    at_corner = corners[3]

    def log_weight(x: Tensor) -> Tensor:
        side, corner = 15 * (x @ on_side - 1), 60 * (x @ at_corner - 1)
        return torch.stack([side, corner, torch.full_like(side, -4.0)]).logsumexp(0)

    middle = corners.mean(0)
    fans = [triangle(middle, a, b) for a, b in zip(corners, corners.roll(-1, 0), strict=True)]
    nodes = torch.cat([x for x, _ in fans]), torch.cat([w for _, w in fans])
    return Known("polygon on the sphere", m, log_weight, nodes)


def triangle(a: Tensor, b: Tensor, c: Tensor, order: int = 11) -> Nodes:
    """Return quadrature on the spherical triangle with corners in these directions, through the flat one."""
    (u, w), (s, q) = _upper_end(_interval(order)), _interval(order)
    u, v = torch.cartesian_prod(u, s).unbind(-1)
    flat = a + u[:, None] * ((b - a) + v[:, None] * (c - b))
    across = torch.linalg.cross(b - a, c - a)
    distance = flat.norm(dim=1)
    weights = (w[:, None] * q).flatten() * u * (flat @ across).abs() / distance**3
    return flat / distance[:, None], weights


def _both_ends(rule: Nodes) -> Nodes:
    """Return a rule on [0, 1] crowded at both ends, where flows have thin layers: for ``x = s^2 (3 - 2 s)``."""
    s, w = rule
    return s * s * (3 - 2 * s), w * 6 * s * (1 - s)


def _upper_end(rule: Nodes) -> Nodes:
    """Return a rule on [0, 1] crowded at 1: for ``x = 1 - (1 - s)^2``."""
    s, w = rule
    return 1 - (1 - s) ** 2, w * 2 * (1 - s)


def _interval(order: int) -> tuple[Tensor, Tensor]:
    """Return Gauss-Legendre nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(order)
    return torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)


_PHASES = 96

KNOWN: tuple[Callable[[], Known], ...] = (box, disc, joints, polygon)
