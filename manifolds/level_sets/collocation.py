"""Curves as polynomials of their acceleration: two-point problems solved at Gauss-Legendre nodes.

The unknown of a two-point problem ``x'' = a(x, x')``, ``x(0) = x_0``, ``x(1) = x_1`` is the acceleration ``w`` at the
nodes. Position and velocity follow from it by integrals of Legendre polynomials, which are bounded: no differentiation
matrix, whose entries grow like the fourth power of the number of nodes, loses digits. The ends are met exactly whatever
``w`` is, and where the ends coincide the solution is zero, not a small number.

References:
    Ascher, Mattheij & Russell, Numerical Solution of Boundary Value Problems for Ordinary Differential Equations, 1995,
    doi:10.1137/1.9781611971231, chapter 5: collocation at Gauss points, and its order.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from manifolds.numerics.constants import Constants
from manifolds.numerics.linear_algebra import solve

_DAMPING = (1.0, 0.3, 0.05)

Acceleration = Callable[[Tensor, Tensor], Tensor]
"""Of positions and velocities ``(..., n)``: accelerations, the same shape."""

Slopes = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""Of the same: accelerations, and their derivatives by position and by velocity, ``(..., n, n)``."""


class Collocation(Constants):
    """The polynomials that ``count`` Gauss-Legendre nodes in [0, 1] determine, and what is fitted to a polyline.

    Args:
        count: number of nodes; positions are polynomials of degree ``count + 1``.
        segments: of the polyline that `fit` reads.
        smoothness: number of Legendre polynomials in the acceleration that `fit` returns.
    """

    nodes: Tensor
    transform: Tensor
    bend: Tensor
    slope: Tensor
    sweep: Tensor
    sweep_end: Tensor
    stations: Tensor
    fitted: Tensor
    between: Tensor
    between_times: Tensor

    def __init__(self, count: int, segments: int, smoothness: int = 7) -> None:
        super().__init__()
        self.count = count
        i = torch.arange(1, count, dtype=torch.float64)
        off = i / torch.sqrt(4 * i * i - 1)
        s, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
        t, weights = (s + 1) / 2, vectors[0] ** 2
        values = legendre(t, count)
        degrees = torch.arange(count, dtype=torch.float64)
        self.constant("nodes", t)
        # Values at the nodes to Legendre coefficients: exact, because the quadrature is.
        self.constant("transform", (2 * degrees + 1)[:, None] * weights * values.mT)
        bend, slope = bend_basis(t, count)
        self.constant("bend", bend @ self.transform)
        self.constant("slope", slope @ self.transform)
        self.constant("sweep", turn_basis(t, count) @ self.transform)
        self.constant("sweep_end", turn_basis(t.new_ones(1), count) @ self.transform)
        inner = torch.arange(1, segments, dtype=torch.float64) / segments
        low = min(smoothness, count)
        self.constant("stations", inner)
        self.constant("fitted", values[:, :low] @ torch.linalg.pinv(bend_basis(inner, count)[0][:, :low]))
        # Where a solution is assessed: not at the nodes, where it is right by construction.
        self.constant("between", bend_basis((t[1:] + t[:-1]) / 2, count)[0] @ self.transform)
        self.constant("between_times", (t[1:] + t[:-1]) / 2)

    def fit(self, x: Tensor, y: Tensor, polyline: Tensor) -> Tensor:
        """Return accelerations ``(*batch, count, n)`` of a smooth curve near the inner points of a polyline."""
        times = self.stations.to(x)[:, None]
        straight = x[..., None, :] + times * (y - x)[..., None, :]
        return self.fitted.to(x) @ (polyline - straight)

    def curve(self, x: Tensor, y: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """Return positions and velocities at the nodes, each ``(*batch, count, n)``."""
        chord = (y - x)[..., None, :]
        position = x[..., None, :] + self.nodes.to(x)[:, None] * chord + self.bend.to(x) @ w
        return position, chord + self.slope.to(x) @ w

    def curve_between(self, x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        """Return positions half-way between nodes, ``(*batch, count - 1, n)``."""
        chord = (y - x)[..., None, :]
        return x[..., None, :] + self.between_times.to(x)[:, None] * chord + self.between.to(x) @ w

    def at(self, x: Tensor, y: Tensor, w: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return position and velocity at times ``t`` ``(*batch)``, each ``(*batch, n)``."""
        coefficients = self.transform.to(w) @ w
        bend, slope = bend_basis(t, self.count)
        position = x + t[..., None] * (y - x) + (bend[..., None] * coefficients).sum(-2)
        return position, y - x + (slope[..., None] * coefficients).sum(-2)

    def start(self, x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        """Return the velocity at time 0, ``(*batch, n)``."""
        return self.at(x, y, w, x.new_zeros(x.shape[:-1]))[1]

    def residual(self, a: Acceleration, x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        """Return by how much ``w`` differs from the acceleration along its own curve, ``(*batch, count, n)``."""
        return w - a(*self.curve(x, y, w))

    def newton_step(self, slopes: Slopes, x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        """Return the Newton correction of ``w``; not finite where its matrix is singular."""
        n = x.shape[-1]
        value, by_position, by_velocity = slopes(*self.curve(x, y, w))
        bend, slope = self.bend.to(x), self.slope.to(x)
        # Blocks (node i, component; node j, component), in few passes: this is the largest tensor by far.
        size = self.count * n
        matrix = torch.eye(size, dtype=x.dtype, device=x.device).unflatten(0, (-1, n)).unflatten(-1, (-1, n))
        matrix = torch.addcmul(matrix, by_position[..., :, :, None, :], bend[:, None, :, None], value=-1)
        matrix = torch.addcmul(matrix, by_velocity[..., :, :, None, :], slope[:, None, :, None], value=-1)
        matrix = matrix.flatten(-2).flatten(-3, -2)
        right = (value - w).flatten(-2)
        return solve(matrix, right).unflatten(-1, (self.count, n))

    def transport(
        self, bend: Callable[[Tensor, Tensor, Tensor], Tensor], x: Tensor, y: Tensor, w: Tensor, u: Tensor
    ) -> Tensor:
        """Return ``v(1)`` ``(*batch, n)`` for ``v' = bend(position, velocity, v)``, linear in v, and ``v(0) = u``."""
        position, velocity = self.curve(x, y, w)
        n = x.shape[-1]
        units = torch.eye(n, dtype=x.dtype, device=x.device)[(slice(None), *(None,) * (position.ndim - 1))]
        many = (n, *position.shape)
        parts = (a.expand(many).contiguous() for a in (position, velocity, units))
        linear = bend(*parts).movedim(0, -1)
        blocks = linear[..., :, :, None, :] * self.sweep.to(x)[:, None, :, None]
        matrix = torch.eye(self.count * n, dtype=x.dtype, device=x.device) - blocks.flatten(-2).flatten(-3, -2)
        right = (linear @ u[..., None, :, None])[..., 0].flatten(-2)
        turned = solve(matrix, right).unflatten(-1, (self.count, n))
        return u + (self.sweep_end.to(x) @ turned)[..., 0, :]

    def solve(self, a: Acceleration, slopes: Slopes, x: Tensor, y: Tensor, w: Tensor, rounds: int) -> Tensor:
        """Return ``w`` after a number of Newton steps, each shortened until the residual falls, sample by sample."""
        for _ in range(rounds):
            step = self.newton_step(slopes, x, y, w).nan_to_num(0.0, 0.0, 0.0)
            shares = x.new_tensor((*_DAMPING, 0.0))[(..., *(None,) * w.ndim)]
            candidates = w + shares * step
            merit = self.residual(a, x, y, candidates).square().sum((-2, -1)).nan_to_num(math.inf)
            w = choose(candidates, merit, 2)
        return w


def choose(candidates: Tensor, merit: Tensor, axes: int) -> Tensor:
    """Return, sample by sample, the candidate of least merit.

    Args:
        candidates: ``(m, *batch, *event)``.
        merit: ``(m, *batch)``.
        axes: number of axes of an event.
    """
    best = merit.argmin(0, keepdim=True)[(..., *(None,) * axes)]
    return torch.take_along_dim(candidates, best.expand(1, *candidates.shape[1:]), dim=0)[0]


def legendre(t: Tensor, count: int) -> Tensor:
    """Return the first ``count`` Legendre polynomials at ``2 t - 1``, ``(*t.shape, count)``."""
    return torch.stack(_legendre(t, count), dim=-1)


def turn_basis(t: Tensor, count: int) -> Tensor:
    """Return the integrals from 0 to ``t`` of the first ``count`` Legendre polynomials, ``(*t.shape, count)``."""
    return torch.stack(_integrals(t, count), dim=-1)


def bend_basis(t: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the curves that are 0 at both ends and accelerate as Legendre polynomials, and their velocities."""
    once = _integrals(t, count + 1)
    bend, slope = [(t * t - t) / 2], [once[0] - 0.5]
    for k in range(1, count):
        twice = (once[k + 1] - once[k - 1]) / (2 * (2 * k + 1))
        # Only the first two polynomials have a double integral that is not 0 at the end.
        bend.append(twice + t / 6 if k == 1 else twice)
        slope.append(once[k] + 1 / 6 if k == 1 else once[k])
    return torch.stack(bend, dim=-1), torch.stack(slope, dim=-1)


def _legendre(t: Tensor, count: int) -> list[Tensor]:
    s = 2 * t - 1
    p = [torch.ones_like(s), s]
    for k in range(1, count - 1):
        p.append(((2 * k + 1) * s * p[k] - k * p[k - 1]) / (k + 1))
    return p[:count]


def _integrals(t: Tensor, count: int) -> list[Tensor]:
    p = _legendre(t, count + 1)
    return [t, *((p[k + 1] - p[k - 1]) / (2 * (2 * k + 1)) for k in range(1, count))]
