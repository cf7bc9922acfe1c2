"""Pairs of points from the whole documented domain of a manifold, both ends of it included.

A rule maps a manifold, a dtype, a number and a generator to points and tangent vectors ``(x, y, u)`` in double
precision, ``u`` the logarithm unless stated otherwise.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from manifolds import SE3, SO3, SPD, Hyperboloid, LogEuclideanSPD, Manifold, PoincareBall

Triple = tuple[Tensor, Tensor, Tensor]
Pairs = Callable[[Manifold, int, torch.dtype, torch.Generator], Triple]

END = 0.999
"""Rounding must not lead across the end of the domain."""


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _joined(m: Manifold, x: Tensor, y: Tensor) -> Triple:
    return x, y, m.logmap(x, y)


# Any manifold.


def anywhere(m: Manifold, count: int, dtype: torch.dtype, generator: torch.Generator) -> Triple:
    """Two independent uniform points."""
    x, y = (m.random_uniform(count, generator=generator, dtype=torch.float64) for _ in range(2))
    return _joined(m, x, y)


def many_turns(m: Manifold, count: int, dtype: torch.dtype, generator: torch.Generator) -> Triple:
    """Two independent uniform points, and a tangent vector of length 100."""
    x, y, u = anywhere(m, count, dtype, generator)
    return x, y, u * m.lift(100 / m.norm(x, u))


# Flat space.


def far_positions(size: float) -> Pairs:
    """Positions of some size, in flat space or in poses."""

    def draw(m: Manifold, count: int, dtype: torch.dtype, generator: torch.Generator) -> Triple:
        if not isinstance(m, SE3):
            return _joined(m, *(size * _normal(generator, count, *m.event_shape) for _ in range(2)))
        poses = torch.eye(4, dtype=torch.float64).repeat(2, count, 1, 1)
        poses[..., :3, :3] = SO3().random_uniform(2, count, generator=generator, dtype=torch.float64)
        poses[..., :3, 3] = size * _normal(generator, 2, count, 3)
        return _joined(m, poses[0], poses[1])

    return draw


# Hyperbolic space.


def _hyperbolic(radius: float, other: float, turn: Callable[[Tensor, Tensor], Tensor]) -> Pairs:
    """Return pairs at shares of the largest radius, the second in a direction made of the first and a random one."""

    def draw(m: Manifold, count: int, dtype: torch.dtype, generator: torch.Generator) -> Triple:
        assert isinstance(m, Hyperboloid | PoincareBall)
        end = END * (10 if dtype == torch.float32 else 20)
        first, random = (torch.nn.functional.normalize(_normal(generator, count, m.n), dim=-1) for _ in range(2))
        second = torch.nn.functional.normalize(turn(first, random), dim=-1)
        return _joined(m, _at_radius(m, radius * end, first), _at_radius(m, other * end, second))

    return draw


def _at_radius(m: Hyperboloid | PoincareBall, r: float, direction: Tensor) -> Tensor:
    scale = 1 / math.sqrt(m.curvature)
    if isinstance(m, PoincareBall):
        return scale * math.tanh(r / 2) * direction
    return scale * torch.cat([torch.full_like(direction[:, :1], math.cosh(r)), math.sinh(r) * direction], dim=-1)


HYPERBOLIC: dict[str, Pairs] = {
    "both far": _hyperbolic(1.0, 1.0, lambda a, b: b),
    "opposite": _hyperbolic(1.0, 1.0, lambda a, b: -a),
    "far, by 0.01": _hyperbolic(1.0, 1.0, lambda a, b: a + 1e-2 * b),
    "far, by 1e-4": _hyperbolic(1.0, 0.97, lambda a, b: a + 1e-4 * b),
    "one ray": _hyperbolic(1.0, 0.9, lambda a, b: a),
    "near and far": _hyperbolic(1e-6, 1.0, lambda a, b: b),
}


# Positive definite matrices.


def _spread(n: int, dtype: torch.dtype) -> Tensor:
    """Return logarithms of eigenvalues, as far apart as is documented."""
    return END * (6.0 if dtype == torch.float32 else 15.0) * torch.linspace(-1, 1, n, dtype=torch.float64)


def _with_eigenvalues(basis: Tensor, logarithms: Tensor) -> Tensor:
    x = basis * torch.exp(logarithms) @ basis.mT
    return (x + x.mT) / 2


def _bases(n: int, count: int, generator: torch.Generator) -> Tensor:
    return torch.linalg.qr(_normal(generator, count, n, n)).Q


def both_spread(m: Manifold, count: int, dtype: torch.dtype, generator: torch.Generator) -> Triple:
    """Two independent matrices, both at the end of the domain."""
    assert isinstance(m, SPD | LogEuclideanSPD)
    d = _spread(m.n, dtype)
    x, y = (_with_eigenvalues(_bases(m.n, count, generator), d) for _ in range(2))
    return _joined(m, x, y)


def spread_near_each_other(m: Manifold, count: int, dtype: torch.dtype, generator: torch.Generator) -> Triple:
    """Matrices at the end of the domain, whose eigenbases differ by 1e-3."""
    assert isinstance(m, SPD | LogEuclideanSPD)
    d, basis = _spread(m.n, dtype), _bases(m.n, count, generator)
    a = 1e-3 * _normal(generator, count, m.n, m.n)
    return _joined(m, _with_eigenvalues(basis, d), _with_eigenvalues(basis @ torch.linalg.matrix_exp(a - a.mT), d))


MATRICES: dict[str, Pairs] = {"both spread": both_spread, "spread, by 1e-3": spread_near_each_other}
COMPACT: dict[str, Pairs] = {"anywhere": anywhere, "many turns": many_turns}
FLAT: dict[str, Pairs] = {"size 1e15": far_positions(1e15), "size 1e-15": far_positions(1e-15)}
POSES: dict[str, Pairs] = {"size 1e6": far_positions(1e6), "size 1e-6": far_positions(1e-6)}
