"""The plane densities that tutorials show, each with its exact log-density, so that their entropies are known.

Sizes are such that all have a spread of about one in each direction.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor


class PlaneDensity(ABC):
    """A density of the plane that can be drawn from and evaluated."""

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Return points ``(n, 2)``, float64."""

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """Return log-densities ``(*batch)`` in nats per unit of area."""

    def entropy(self, n: int = 1_000_000, seed: int = 17) -> tuple[float, float]:
        """Return the entropy in nats and its standard error, by the mean of so many log-densities."""
        generator = torch.Generator().manual_seed(seed)
        values = torch.cat([-self.log_prob(self.sample(n // 20, generator)) for _ in range(20)])
        return float(values.mean()), float(values.std() / math.sqrt(len(values)))


class Mixture(PlaneDensity):
    """Equal normal distributions about given centres, or about the nodes of a curve.

    Args:
        centres: ``(k, 2)``.
        spread: standard deviation of each.
    """

    def __init__(self, centres: Tensor, spread: float) -> None:
        self.centres, self.spread = centres.double(), spread

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(self.centres), (n,), generator=generator)
        noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        return self.centres[rows] + self.spread * noise

    def log_prob(self, x: Tensor) -> Tensor:
        squared = (x[..., None, :] - self.centres).square().sum(-1) / self.spread**2
        constant = math.log(2 * math.pi * self.spread**2 * len(self.centres))
        return torch.logsumexp(-squared / 2, -1) - constant


def ring(count: int, radius: float, spread: float) -> Mixture:
    """Return normal distributions at equal distances on a circle."""
    angle = 2 * math.pi * torch.arange(count, dtype=torch.float64) / count
    return Mixture(radius * torch.stack([angle.cos(), angle.sin()], -1), spread)


def two_moons(spread: float = 0.07, nodes: int = 100) -> Mixture:
    """Return two half circles of radius 1 that interlock, blurred.

    Points on the arcs lie at nodes a third of the blur apart, so that the density is that of the continuous arcs but
    for less than rounding, and known exactly for the nodes.
    """
    angle = math.pi * (torch.arange(nodes, dtype=torch.float64) + 0.5) / nodes
    upper = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], -1)
    return Mixture(torch.cat([upper, -upper]), spread)


class Checkerboard(PlaneDensity):
    """Uniform on the eight dark squares of a board of four by four, of side 1."""

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        column = torch.randint(4, (n,), generator=generator)
        row = 2 * torch.randint(2, (n,), generator=generator) + column % 2
        inside = torch.rand(n, 2, generator=generator, dtype=torch.float64)
        return torch.stack([column, row], -1) + inside - 2

    def log_prob(self, x: Tensor) -> Tensor:
        cell = (x + 2).floor()
        dark = ((cell.sum(-1) % 2) == 0) & (cell >= 0).all(-1) & (cell < 4).all(-1)
        return torch.where(dark, -math.log(8.0), -math.inf)

    def entropy(self, n: int = 1_000_000, seed: int = 17) -> tuple[float, float]:
        return math.log(8.0), 0.0


class Circle(PlaneDensity):
    """A circle: uniform in the angle, normal in the radius.

    Args:
        radius: of the circle.
        spread: standard deviation of the radius, much smaller.
    """

    def __init__(self, radius: float = 1.5, spread: float = 0.1) -> None:
        self.radius, self.spread = radius, spread

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        angle = 2 * math.pi * torch.rand(n, generator=generator, dtype=torch.float64)
        radius = self.radius + self.spread * torch.randn(n, generator=generator, dtype=torch.float64)
        return radius[:, None] * torch.stack([angle.cos(), angle.sin()], -1)

    def log_prob(self, x: Tensor) -> Tensor:
        radius = x.norm(dim=-1)
        normal = -((radius - self.radius) ** 2) / (2 * self.spread**2) - math.log(math.sqrt(2 * math.pi) * self.spread)
        return normal - (2 * math.pi * radius).log()


class Pinwheel(PlaneDensity):
    """Five arms: normal distributions along rays, turned by an angle that grows with the distance from the centre.

    A turn that depends on the distance alone keeps areas and distances, so that the density stays that of the rays.
    """

    arms, reach, along, across, twist = 5, 1.2, 0.35, 0.12, 0.8

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        x = noise * torch.tensor([self.along, self.across], dtype=torch.float64)
        x = x + torch.tensor([self.reach, 0.0], dtype=torch.float64)
        arm = torch.randint(self.arms, (n,), generator=generator)
        return _turned(x, 2 * math.pi * arm / self.arms + self.twist * x.norm(dim=-1))

    def log_prob(self, x: Tensor) -> Tensor:
        arm = torch.arange(self.arms, dtype=torch.float64)
        angle = 2 * math.pi * arm / self.arms + self.twist * x.norm(dim=-1)[..., None]
        y = _turned(x[..., None, :].expand(*angle.shape, 2), -angle)
        squared = ((y[..., 0] - self.reach) / self.along) ** 2 + (y[..., 1] / self.across) ** 2
        constant = math.log(2 * math.pi * self.along * self.across * self.arms)
        return torch.logsumexp(-squared / 2, -1) - constant


def _turned(x: Tensor, angle: Tensor) -> Tensor:
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos * x[..., 0] - sin * x[..., 1], sin * x[..., 0] + cos * x[..., 1]], -1)


PLANES: dict[str, PlaneDensity] = {
    "two moons": two_moons(),
    "eight Gaussians": ring(8, 1.5, 0.15),
    "checkerboard": Checkerboard(),
    "pinwheel": Pinwheel(),
    "four clusters": ring(4, 1.4, 0.3),
    "circle": Circle(),
}
