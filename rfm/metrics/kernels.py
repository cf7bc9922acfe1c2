"""Positive definite kernels on manifolds, for comparing samples.

A kernel of the geodesic distance that looks like a Gaussian, ``exp(-dist^2 / (2 s^2))``, is positive definite for every
width s only on flat space (Feragen, Lauze & Hauberg, Geodesic Exponential Kernels: When Curvature and Linearity
Conflict, 2015, arXiv:1411.0296). Elsewhere a discrepancy built on it may be negative or zero between different
distributions. It is here for comparison with papers that used it.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import singledispatch
from typing import cast

import torch
from torch import Tensor

from manifolds import SO3, Euclidean, FlatTorus, Manifold, Power, Product, Sphere
from manifolds.arguments import check_instance, positive
from manifolds.numerics.precision import in_full_precision


class Kernel(ABC):
    """A symmetric function of two points."""

    manifold: Manifold

    @abstractmethod
    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Return values ``(*batch)`` at points ``(*batch, *event_shape)``, whose batch shapes broadcast."""


@dataclass(frozen=True)
class AmbientGaussianKernel(Kernel):
    """``exp(-|embed(x) - embed(y)|^2 / (2 scale^2))``: positive definite everywhere, because it is so in flat space.

    Args:
        manifold: where the points live.
        scale: width, in the unit of ``embed``; radians, for small distances on spheres and tori.
    """

    manifold: Manifold
    scale: float

    def __post_init__(self) -> None:
        _check_scale(self)

    @in_full_precision
    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        difference = self.manifold.embed(x) - self.manifold.embed(y)
        return torch.exp((difference * difference).sum(-1) / (-2 * self.scale**2))


@dataclass(frozen=True)
class HeatKernel(Kernel):
    """The density of Brownian motion that has moved by ``scale`` per direction, times ``scale^dim (2 pi)^(dim/2)``.

    That is the fundamental solution of ``dp/dt = laplacian(p) / 2`` at time ``scale^2``, scaled to be about 1 at
    coincident points while ``scale`` is small. It is positive definite, because it is the inner product of two such
    densities of half the time, about x and about y. Known in closed form on Euclidean space, flat tori, spheres,
    rotations, their products and powers; on a manifold of your own after ``heat_kernel.register(MyManifold)``.

    Args:
        manifold: where the points live.
        scale: standard deviation per direction for small ``scale``, in the unit of the metric.
    """

    manifold: Manifold
    scale: float

    def __post_init__(self) -> None:
        _check_scale(self)

    @in_full_precision
    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return heat_kernel(self.manifold, x, y, self.scale)


@dataclass(frozen=True)
class GeodesicGaussianKernel(Kernel):
    """``exp(-dist(x, y)^2 / (2 scale^2))``, which is not positive definite on curved spaces: to compare with papers.

    Args:
        manifold: where the points live.
        scale: width, in the unit of the metric.
    """

    manifold: Manifold
    scale: float

    def __post_init__(self) -> None:
        _check_scale(self)

    @in_full_precision
    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.exp(self.manifold.dist(x, y) ** 2 / (-2 * self.scale**2))


@singledispatch
def heat_kernel(manifold: Manifold, x: Tensor, y: Tensor, scale: float) -> Tensor:
    """Return the values of `HeatKernel`, ``(*batch)``; a generic function of the manifold's class.

    Args:
        manifold: where the points live.
        x: points ``(*batch, *event_shape)``.
        y: points, the same shape or one that broadcasts.
        scale: see `HeatKernel`.

    Raises:
        ValueError: for a manifold whose heat kernel is not known here.
    """
    raise ValueError(
        f"HeatKernel: {manifold} has none that is known here; take AmbientGaussianKernel, or register your own with "
        "rfm.metrics.heat_kernel.register"
    )


@heat_kernel.register
def _(manifold: Euclidean, x: Tensor, y: Tensor, scale: float) -> Tensor:
    return torch.exp(((x - y) ** 2).sum(-1) / (-2 * scale**2))


@heat_kernel.register
def _(manifold: FlatTorus, x: Tensor, y: Tensor, scale: float) -> Tensor:
    """A product of wrapped normals: by images while the width is below a radian or so, by its Fourier series above."""
    return _wrapped(manifold.logmap(x, y), scale).prod(-1)


@heat_kernel.register
def _(manifold: Sphere, x: Tensor, y: Tensor, scale: float) -> Tensor:
    """The zonal series with eigenvalues l (l + n - 1): Gegenbauer polynomials, Chebyshev's on the circle."""
    n, angle = manifold.n, manifold.dist(x, y)
    if n == 1:
        return _wrapped(angle[..., None], scale)[..., 0]
    # Addition theorem: the share of degree l is (2 l + n - 1) / (n - 1) C_l(cos) / volume, of order a = (n - 1) / 2.
    a, cos = (n - 1) / 2, torch.cos(angle)
    before, now = torch.zeros_like(cos), torch.ones_like(cos)
    total = torch.ones_like(cos)
    for degree in range(1, _terms(scale, n)):
        before, now = now, (2 * (degree + a - 1) * cos * now - (degree + 2 * a - 2) * before) / degree
        total = total + (degree / a + 1) * math.exp(-degree * (degree + n - 1) * scale**2 / 2) * now
    assert manifold.volume is not None
    return total / manifold.volume * _peak(scale, n)


@heat_kernel.register
def _(manifold: SO3, x: Tensor, y: Tensor, scale: float) -> Tensor:
    """The series of characters: ``sum_l (2 l + 1) exp(-l (l + 1) scale^2 / 2) sin((l + 1/2) a) / sin(a / 2)``."""
    half = manifold.dist(x, y) / 2
    # Characters by their recurrence in cos(a), which has no quotient: chi_{l+1} = 2 cos(a) chi_l - chi_{l-1}.
    twice = 2 * torch.cos(2 * half)
    before, now = torch.ones_like(half), 1 + twice
    total = before + 3 * math.exp(-(scale**2)) * now
    for degree in range(2, _terms(scale, 3)):
        before, now = now, twice * now - before
        total = total + (2 * degree + 1) * math.exp(-degree * (degree + 1) * scale**2 / 2) * now
    assert manifold.volume is not None
    return total / manifold.volume * _peak(scale, 3)


@heat_kernel.register
def _(manifold: Product, x: Tensor, y: Tensor, scale: float) -> Tensor:
    """Independent motions in the factors; a weight w stretches a factor by its square root."""
    value: Tensor | None = None
    parts = zip(manifold.factors, manifold.weights, manifold.split(x), manifold.split(y), strict=True)
    for factor, weight, a, b in parts:
        own = heat_kernel(cast(Manifold, factor), a, b, scale / math.sqrt(weight))
        value = own if value is None else value * own
    assert value is not None
    return value


@heat_kernel.register
def _(manifold: Power, x: Tensor, y: Tensor, scale: float) -> Tensor:
    return heat_kernel(manifold.m, x, y, scale).prod(-1)


def _wrapped(angle: Tensor, scale: float) -> Tensor:
    """Return ``scale sqrt(2 pi)`` times the wrapped normal density at angles in [-pi, pi], in radians."""
    if scale < _BY_IMAGES:
        turns = 2 * math.pi * torch.arange(-2, 3, dtype=angle.dtype, device=angle.device)
        return torch.exp((angle[..., None] + turns) ** 2 / (-2 * scale**2)).sum(-1)
    total = torch.ones_like(angle)
    for k in range(1, _terms(scale, 1)):
        total = total + 2 * math.exp(-(k**2) * scale**2 / 2) * torch.cos(k * angle)
    return total * scale / math.sqrt(2 * math.pi)


def _terms(scale: float, dim: int) -> int:
    """Return after how many degrees l the terms, below ``l^dim exp(-l^2 scale^2 / 2)``, are below 1e-16 of the sum."""
    degree = 1
    while dim * math.log(degree * scale + 1) - degree**2 * scale**2 / 2 > -37:
        degree += 1
    return degree + 1


def _peak(scale: float, dim: int) -> float:
    return (scale * math.sqrt(2 * math.pi)) ** dim


def _check_scale(kernel: AmbientGaussianKernel | HeatKernel | GeodesicGaussianKernel) -> None:
    check_instance(type(kernel).__name__, "manifold", kernel.manifold, Manifold, "Sphere(2)")
    object.__setattr__(kernel, "scale", positive(type(kernel).__name__, "scale", kernel.scale))


_BY_IMAGES = 2.0
