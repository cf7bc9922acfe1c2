"""Inverse problems whose posterior is known: no training error hides in them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

import torch
from torch import Tensor

import rfm
from manifolds import SO3, Euclidean, FlatTorus, Manifold, Sphere
from rfm.integrators import FixedStep
from rfm.posterior import Measurement, operators, score_of_normal_noise
from rfm.sources import WrappedNormal

SOLVER = FixedStep(steps=8)
"""How flows carry points here, and how their own densities are evaluated."""


class Effort(Enum):
    """How many methods are tried on a problem, and with how many draws: what its velocity costs decides."""

    VARIANTS = auto()
    METHODS = auto()
    NETWORK = auto()


@dataclass(frozen=True)
class Problem:
    """A flow, a measurement, and exact draws of the posterior.

    Args:
        flow: the prior.
        measurement: the likelihood.
        exact: from a number and a generator to draws.
        modes: from points to the number of the mode they belong to, and the modes' weights; None where they are none.
        score: from points, times and velocities to the score; None for that of the flow's density.
        effort: of the comparison.
    """

    flow: rfm.Flow
    measurement: Measurement
    exact: Callable[[int, torch.Generator], Tensor]
    modes: tuple[Callable[[Tensor], Tensor], Tensor] | None = None
    score: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    effort: Effort = Effort.METHODS


@dataclass(frozen=True)
class Mixture:
    """Equally weighted normal distributions of one width, and the velocity of the linear path to them.

    Args:
        means: ``(k, d)``.
        width: standard deviation in every direction.
    """

    means: Tensor
    width: float

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the mean of ``x_1 - x_0`` given ``x_t = x``, for a standard normal ``x_0`` independent of ``x_1``."""
        t, means = t[..., None], self.means.to(x)
        variance = (t * self.width).square() + (1 - t).square()
        shares = torch.softmax(t * (x @ means.mT - t * means.square().sum(-1) / 2) / variance, -1)
        slope = (t * self.width**2 - (1 - t)) / variance
        return slope * x + (1 - slope * t) * (shares @ means)

    def flow(self) -> rfm.Flow:
        """Return the flow, which is that of the mixture up to its solver."""
        space = Euclidean(self.means.shape[1])
        return rfm.Flow(space, self.velocity, WrappedNormal(space, torch.zeros(space.dim), 1.0))

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Return draws of the mixture, ``(n, d)``."""
        k = torch.randint(len(self.means), (n,), generator=generator)
        return self.means[k] + self.width * torch.randn(n, self.means.shape[1], generator=generator)

    def posterior(self, rows: Tensor, y: Tensor, noise: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return weights ``(k,)``, means and common covariance of the posterior given ``y = rows x + noise``."""
        means, rows, y = self.means.double(), rows.double(), y.double()
        spread = self.width**2 * rows @ rows.T + noise**2 * torch.eye(len(rows), dtype=torch.float64)
        gain = self.width**2 * rows.T @ torch.linalg.inv(spread)
        off = y - means @ rows.T
        log_w = -(off * torch.linalg.solve(spread, off.T).T).sum(-1) / 2
        covariance = self.width**2 * (torch.eye(means.shape[1], dtype=torch.float64) - gain @ rows)
        return torch.softmax(log_w, 0), means + off @ gain.T, covariance


def mixture_problem(mixture: Mixture, rows: Tensor, y: Tensor, noise: float) -> Problem:
    """Return the problem of a mixture under a linear measurement."""
    weights, means, covariance = mixture.posterior(rows, y, noise)
    root = torch.linalg.cholesky(covariance)

    def exact(n: int, generator: torch.Generator) -> Tensor:
        k = torch.multinomial(weights, n, True, generator=generator)
        normal = torch.randn(n, len(root), dtype=torch.float64, generator=generator)
        return (means[k] + normal @ root.T).float()

    def nearest(x: Tensor) -> Tensor:
        return torch.cdist(x.double(), means).argmin(-1)

    flow, measurement = mixture.flow(), Measurement(operators.matrix(rows), y, noise)
    score = score_of_normal_noise(flow.source)
    return Problem(flow, measurement, exact, (nearest, weights), score, Effort.VARIANTS)


def plane() -> Problem:
    """Return three clusters in the plane, two of which the measurement leaves possible."""
    mixture = Mixture(torch.tensor([[-2.0, 1.5], [2.0, 1.5], [0.0, -2.0]]), 0.4)
    return mixture_problem(mixture, torch.tensor([[0.2, 1.0]]), torch.tensor([1.4]), 0.5)


def eighty() -> Problem:
    """Return eight clusters in 80 dimensions, of which 4 are measured."""
    generator = torch.Generator().manual_seed(0)
    mixture = Mixture(torch.randn(8, 80, generator=generator), 0.5)
    rows = torch.randn(4, 80, generator=generator) / math.sqrt(80)
    # Between two clusters.
    y = rows @ (mixture.means[0] + mixture.means[1]) / 2
    return mixture_problem(mixture, rows, y, 0.3)


def smooth_flow(manifold: Manifold, seed: int = 0) -> rfm.Flow:
    """Return a flow of a smooth random field that moves points by about a radian."""
    generator = torch.Generator().manual_seed(seed)
    inner = torch.randn(manifold.embed_dim + 1, 6, generator=generator)
    outer = torch.randn(6, *manifold.event_shape, generator=generator) * 0.5

    def field(x: Tensor, t: Tensor) -> Tensor:
        read = torch.cat([manifold.embed(x), t[..., None]], dim=-1)
        return manifold.proju(x, torch.tensordot(torch.tanh(read @ inner), outer, dims=1))

    return rfm.Flow(manifold, field)


def quadrature_problem(
    manifold: Manifold, grid: Tensor, operator: Callable[[Tensor], Tensor], y: float, noise: float
) -> Problem:
    """Return a problem whose exact draws are of the flow's own density times the likelihood, on a fine grid.

    Args:
        manifold: of the flow.
        grid: points of equal shares of the volume.
        operator: what is measured.
        y: what was found.
        noise: of it.
    """
    flow, measurement = smooth_flow(manifold), Measurement(operator, y, noise)
    log_p = flow.log_prob(grid, solver=SOLVER).double() + measurement(grid).double()
    shares = torch.softmax(log_p, 0)
    return Problem(flow, measurement, lambda n, g: grid[torch.multinomial(shares, n, True, generator=g)])


def sphere(quick: bool) -> Problem:
    """Return a height that is measured on the sphere."""
    n = 4000 if quick else 50_000
    i = torch.arange(n) + 0.5
    z, phi = 1 - 2 * i / n, math.pi * (1 + 5**0.5) * i
    r = (1 - z * z).sqrt()
    grid = torch.stack([r * phi.cos(), r * phi.sin(), z], -1)
    return quadrature_problem(Sphere(2), grid, lambda x: x[..., 2], 0.4, 0.2)


def torus(quick: bool) -> Problem:
    """Return a function of two angles that is measured."""
    n = 60 if quick else 250
    line = torch.arange(n) * (2 * math.pi / n) - math.pi
    grid = torch.cartesian_prod(line, line)
    return quadrature_problem(FlatTorus(2), grid, lambda x: x[..., 0].sin() + x[..., 1].cos(), 0.5, 0.3)


def rotations(quick: bool) -> Problem:
    """Return the tilt of a rotation that is measured."""
    n = 12 if quick else 48
    angle = torch.arange(n) * (2 * math.pi / n)
    # Euler angles z, y, z with the cosine of the second even: the volume is flat in it.
    alpha, cosine, gamma = torch.cartesian_prod(angle, (torch.arange(n // 2) + 0.5) * 4 / n - 1, angle).unbind(-1)
    sine, zero, one = (1 - cosine * cosine).sqrt(), torch.zeros_like(alpha), torch.ones_like(alpha)

    def about_z(a: Tensor) -> Tensor:
        return torch.stack([a.cos(), -a.sin(), zero, a.sin(), a.cos(), zero, zero, zero, one], -1).reshape(-1, 3, 3)

    tilt = torch.stack([cosine, zero, sine, zero, one, zero, -sine, zero, cosine], -1).reshape(-1, 3, 3)
    grid = about_z(alpha) @ tilt @ about_z(gamma)
    return quadrature_problem(SO3(), grid, lambda x: x[..., 2, 2], 0.5, 0.3)
