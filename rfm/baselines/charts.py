"""Coordinates in which a normalising flow of vectors becomes a density on a manifold.

A chart cuts the manifold open: a density that is smooth in its coordinates has a seam where they end. On the torus
circular splines close it. On the sphere and the rotations two seams remain that no density of theirs heeds: the poles,
which are a whole side of the coordinates each, and where a density is torn to sectors, and the join of one pole to the
other. This is what charts cost, and what flows on the manifold avoid.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import singledispatch

import torch
from torch import Tensor

from manifolds import SO3, Euclidean, FlatTorus, Manifold, Sphere
from manifolds.numerics.angles import wrap_radians
from manifolds.rotations import euler_from_matrix, matrix_from_euler


class Chart(ABC):
    """Coordinates of a manifold, and the density of its volume in them."""

    circular: bool
    """Whether the coordinates lie in [-pi, pi) and go round; else they are any real numbers."""

    @abstractmethod
    def coordinates(self, x: Tensor) -> Tensor:
        """Return the coordinates ``(*batch, dim)`` of points ``(*batch, *event_shape)``."""

    @abstractmethod
    def point(self, v: Tensor) -> Tensor:
        """Return the points of coordinates."""

    log_scale: float
    """Log of the volume in coordinates that a unit of the manifold's volume takes, in nats: alike everywhere."""


@dataclass(frozen=True)
class AffineChart(Chart):
    """Euclidean space, shifted and scaled so that given points have mean 0 and standard deviation 1.

    Args:
        location: mean of the points, ``(dim,)``.
        scale: standard deviation, ``(dim,)``.
    """

    location: Tensor
    scale: Tensor
    circular = False

    @property
    def log_scale(self) -> float:  # type: ignore[override]
        return -float(self.scale.log().sum())

    def coordinates(self, x: Tensor) -> Tensor:
        return (x - self.location.to(x)) / self.scale.to(x)

    def point(self, v: Tensor) -> Tensor:
        return self.location.to(v) + self.scale.to(v) * v


class AngleChart(Chart):
    """The flat torus: its points are the coordinates."""

    circular = True
    log_scale = 0.0

    def coordinates(self, x: Tensor) -> Tensor:
        return x

    def point(self, v: Tensor) -> Tensor:
        return wrap_radians(v)


class CylinderChart(Chart):
    """The sphere in space: longitude, and pi times the height, which are equal in area (Lambert's cylinder)."""

    circular = True
    log_scale = math.log(math.pi)

    def coordinates(self, x: Tensor) -> Tensor:
        return torch.stack([torch.atan2(x[..., 1], x[..., 0]), math.pi * x[..., 2].clamp(-1, 1)], -1)

    def point(self, v: Tensor) -> Tensor:
        height = (v[..., 1] / math.pi).clamp(-1, 1)
        radius = ((1 - height) * (1 + height)).sqrt()
        return torch.stack([radius * v[..., 0].cos(), radius * v[..., 0].sin(), height], -1)


class EulerChart(Chart):
    """Rotations: the angles about z, x and z, the middle one by pi times its cosine, which are equal in volume."""

    circular = True
    log_scale = math.log(math.pi)

    def coordinates(self, x: Tensor) -> Tensor:
        first, _, last = euler_from_matrix(x, "zxz", "intrinsic").unbind(-1)
        return torch.stack([wrap_radians(first), math.pi * x[..., 2, 2].clamp(-1, 1), wrap_radians(last)], -1)

    def point(self, v: Tensor) -> Tensor:
        middle = (v[..., 1] / math.pi).clamp(-1, 1).acos()
        return matrix_from_euler(torch.stack([v[..., 0], middle, v[..., 2]], -1), "zxz", "intrinsic")


@singledispatch
def chart_of(manifold: Manifold, location: Tensor, scale: Tensor) -> Chart:
    """Return the coordinates in which normalising flows are fitted on a manifold.

    A generic function: ``chart_of.register(MyManifold)`` adds a chart.

    Args:
        manifold: the manifold.
        location: mean of the points to be fitted, ``event_shape``; only flat coordinates use it.
        scale: their standard deviation, likewise.

    Raises:
        ValueError: where there is no chart.
    """
    raise ValueError(
        f"normalising flows are fitted in coordinates, and none are known on {manifold}; use kernel densities, or "
        "register a chart with rfm.baselines.chart_of.register"
    )


@chart_of.register
def _(manifold: Euclidean, location: Tensor, scale: Tensor) -> Chart:
    return AffineChart(location, scale)


@chart_of.register
def _(manifold: FlatTorus, location: Tensor, scale: Tensor) -> Chart:
    return AngleChart()


@chart_of.register
def _(manifold: Sphere, location: Tensor, scale: Tensor) -> Chart:
    if manifold.dim != 2:
        raise ValueError(f"{manifold} has no chart for normalising flows, Sphere(2) has; use kernel densities")
    return CylinderChart()


@chart_of.register
def _(manifold: SO3, location: Tensor, scale: Tensor) -> Chart:
    return EulerChart()
