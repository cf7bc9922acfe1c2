"""Balls of R^n, and of the sphere."""

import math
from typing import Any

import torch
from torch import Tensor

from manifolds.arguments import check_instance, positive
from manifolds.base import Manifold
from manifolds.constraints.constraint import Constraint, vector
from manifolds.euclidean import Euclidean
from manifolds.numerics import log_sphere_area
from manifolds.sphere import Sphere

_LAYER = 0.25
"""Width of the border layer, as a share of the radius."""


class Ball(Constraint):
    """A ball of R^n: ``Ball([0.0, 0.0], 1.0)`` is the unit disc.

    Args:
        centre: ``(n,)``.
        radius: positive.
    """

    centre: Tensor

    def __init__(self, centre: Any, radius: float) -> None:
        super().__init__()
        self.constant("centre", vector("Ball", "centre", centre))
        self.radius = positive("Ball", "radius", radius)
        n = len(self.centre)
        self.reach = float(self.centre.abs().max()) + self.radius
        # The area of its sphere times the radius over n.
        self.volume = math.exp(log_sphere_area(n - 1) + n * math.log(self.radius)) / n if n > 1 else 2 * self.radius
        self.layer = _LAYER * self.radius

    def check_manifold(self, manifold: Manifold) -> None:
        n = len(self.centre)
        check_instance("Bounded with a Ball", "manifold", manifold, Euclidean, f"Euclidean({n}), or a Cap of a sphere")
        if manifold.dim != n:
            raise ValueError(f"Bounded: the centre of a Ball of {manifold} has {manifold.dim} coordinates, got {n}")

    def depth(self, x: Tensor) -> Tensor:
        return (self.radius - torch.linalg.vector_norm(x.double() - self.centre, dim=-1)).to(x.dtype)

    def nearest(self, x: Tensor, margin: float) -> Tensor:
        away = x.double() - self.centre
        length = torch.linalg.vector_norm(away, dim=-1, keepdim=True).clamp(min=_LEAST)
        inner = self.radius - min(margin, self.radius)
        return (self.centre + away * (length.clamp(max=inner) / length)).to(x.dtype)

    def wall(self, x: Tensor) -> tuple[Tensor, Tensor]:
        away = x.double() - self.centre
        # From the centre all of the border is as near.
        away = torch.where((away == 0).all(-1, keepdim=True), torch.eye(1, len(self.centre)).to(away), away)
        unit = away / torch.linalg.vector_norm(away, dim=-1, keepdim=True)
        return (self.centre + self.radius * unit).to(x.dtype), -unit.to(x.dtype)

    def damped(self, x: Tensor, u: Tensor, layer: float | Tensor) -> Tensor:
        """``I - g g' / (d / layer + |g|^2)`` with ``d = (r^2 - |x - c|^2) / 2 r`` and g its gradient, smooth at c."""
        away = x.double() - self.centre
        g = away / self.radius
        squared = (g * g).sum(-1, keepdim=True)
        d = (self.radius - self.radius * squared) / 2
        w = u.double()
        along = (g * w).sum(-1, keepdim=True)
        return (w - g * along / (d.clamp(min=0) / layer + squared)).to(u.dtype)

    def random_uniform(self, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        n = len(self.centre)
        direction = torch.randn(count, n, generator=generator, dtype=torch.float64, device=device)
        share = torch.rand(count, 1, generator=generator, dtype=torch.float64, device=device)
        unit = direction / torch.linalg.vector_norm(direction, dim=-1, keepdim=True)
        return self.centre.to(device) + self.radius * share ** (1 / n) * unit

    def extra_repr(self) -> str:
        return f"{self.centre.tolist()}, {self.radius:g}"


class Cap(Constraint):
    """A ball of the sphere S^n: all points at most an angle from its centre.

    Args:
        centre: a unit vector ``(n + 1,)``.
        radius: in radians, below pi. Above a right angle shortest ways may leave it, and it is not `convex`.
    """

    centre: Tensor

    def __init__(self, centre: Any, radius: float) -> None:
        super().__init__()
        centre = vector("Cap", "centre", centre)
        length = float(centre.norm())
        if len(centre) < 2 or abs(length - 1) > 1e-3:
            raise ValueError(f"Cap: centre must be a unit vector, got length {length:.4g}; divide it by its length")
        # As it is given where it is a unit vector, so that it is saved and loaded without a change.
        self.constant("centre", centre if abs(length - 1) < 1e-15 else centre / length)
        self.radius = positive("Cap", "radius", radius)
        if self.radius >= math.pi:
            raise ValueError(f"Cap: radius must be below pi radians, got {self.radius:g}; turn degrees into radians")
        self.convex = self.radius <= math.pi / 2
        self.volume = _cap_area(len(centre) - 1, self.radius)
        self.layer = _LAYER * math.sin(self.radius)

    def check_manifold(self, manifold: Manifold) -> None:
        n = len(self.centre) - 1
        check_instance("Bounded with a Cap", "manifold", manifold, Sphere, f"Sphere({n})")
        if manifold.dim != n:
            raise ValueError(f"Bounded: the centre of a Cap of {manifold} has {manifold.dim + 1} entries, got {n + 1}")

    def depth(self, x: Tensor) -> Tensor:
        y = x.double()
        angle = 2 * torch.atan2(
            torch.linalg.vector_norm(y - self.centre, dim=-1), torch.linalg.vector_norm(y + self.centre, dim=-1)
        )
        return (self.radius - angle).to(x.dtype)

    def nearest(self, x: Tensor, margin: float) -> Tensor:
        y = x.double()
        along = (y * self.centre).sum(-1, keepdim=True)
        across = y - along * self.centre
        # At the antipode of the centre all points of the border are as near.
        unit = across / torch.linalg.vector_norm(across, dim=-1, keepdim=True).clamp(min=_LEAST)
        inner = self.radius - min(margin, self.radius)
        moved = math.cos(inner) * self.centre + math.sin(inner) * unit
        return torch.where((self.depth(x) < 0)[..., None], moved.to(x.dtype), x)

    def wall(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = x.double()
        across = y - (y * self.centre).sum(-1, keepdim=True) * self.centre
        length = torch.linalg.vector_norm(across, dim=-1, keepdim=True)
        some = Sphere(len(self.centre) - 1).tangent_basis(self.centre)[0]
        unit = torch.where(length > 0, across / length.clamp(min=_LEAST), some)
        cos, sin = math.cos(self.radius), math.sin(self.radius)
        return (cos * self.centre + sin * unit).to(x.dtype), (sin * self.centre - cos * unit).to(x.dtype)

    def damped(self, x: Tensor, u: Tensor, layer: float | Tensor) -> Tensor:
        """``I - g g' / (d / layer + |g|^2)``, ``d = (cos a - cos r) / sin r`` at the angle a, and g its gradient."""
        y, w = x.double(), u.double()
        along = (y * self.centre).sum(-1, keepdim=True)
        g = (self.centre - along * y) / math.sin(self.radius)
        d = (along - math.cos(self.radius)) / math.sin(self.radius)
        product = (g * w).sum(-1, keepdim=True)
        return (w - g * product / (d.clamp(min=0) / layer + (g * g).sum(-1, keepdim=True))).to(u.dtype)

    def random_uniform(self, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        n = len(self.centre) - 1
        angle = _cap_angles(n, self.radius, count, generator, device)[:, None]
        centre = self.centre.to(device)
        normal = torch.randn(count, n + 1, generator=generator, dtype=torch.float64, device=device)
        across = normal - (normal @ centre)[:, None] * centre
        unit = across / torch.linalg.vector_norm(across, dim=-1, keepdim=True)
        return torch.cos(angle) * centre + torch.sin(angle) * unit

    def extra_repr(self) -> str:
        return f"{self.centre.tolist()}, {self.radius:g}"


def _cap_area(n: int, radius: float) -> float:
    """Return the integral of ``sin(a)^(n - 1)`` up to the radius, times the area of the equator."""
    _, shares = _angles(n, radius, torch.device("cpu"))
    return float(shares[-1]) * (2.0 if n == 1 else math.exp(log_sphere_area(n - 1)))


def _cap_angles(n: int, radius: float, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Return angles whose density is proportional to ``sin(a)^(n - 1)`` up to the radius."""
    u = torch.rand(count, generator=generator, dtype=torch.float64, device=device)
    if n == 1:
        return radius * u
    if n == 2:
        # 1 - cos(a) without cancellation.
        return 2 * torch.asin(torch.sqrt(u) * math.sin(radius / 2))
    a, integral = _angles(n, radius, device)
    place = torch.searchsorted(integral, u * integral[-1]).clamp(1, len(a) - 1)
    low, high = integral[place - 1], integral[place]
    return a[place - 1] + (u * integral[-1] - low) / (high - low) * (a[place] - a[place - 1])


def _angles(n: int, radius: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return angles from 0 to the radius, and the integral of ``sin(a)^(n - 1)`` up to each, by Simpson's rule."""
    a = torch.linspace(0, radius, 20_001, dtype=torch.float64, device=device)
    value = torch.sin(a) ** (n - 1)
    middle = torch.sin((a[1:] + a[:-1]) / 2) ** (n - 1)
    parts = (value[1:] + 4 * middle + value[:-1]) * (radius / (6 * (len(a) - 1)))
    return a, torch.cat([a.new_zeros(1), parts.cumsum(0)])


_LEAST = 1e-300
