"""Normal distributions carried from a tangent space to the manifold."""

import math
from collections.abc import Callable
from functools import singledispatch
from typing import NoReturn, Self

import torch
from torch import Tensor

from manifolds import SE3, SO3, FlatTorus, Manifold, Power, Product, Sphere
from manifolds.numerics.constants import Constants
from rfm.arrays import points_of
from rfm.sources.base import Source, checked_point, checked_scale, draws


class WrappedNormal(Source, Constants):
    """A normal distribution in the tangent space at a point, carried to the manifold by the exponential map.

    Where the exponential map is one-to-one, on Euclidean, hyperbolic and symmetric positive definite spaces, the
    density is ``N(log_m(x); 0, scale^2) / |det d(exp_m)|``. On the flat torus it is the sum of that over all images
    ``log_m(x) + 2 pi k`` of a point, a product of wrapped normals on circles. Elsewhere it is refused.

    Args:
        manifold: a manifold of infinite injectivity radius, or a flat torus. For another one whose density you know,
            register it with `wrapped_log_density`.
        mean: the point it is centred at, ``event_shape``.
        scale: standard deviation in every direction, in the unit of the metric.

    Raises:
        ValueError: if the density is not known on this manifold, ``scale`` is not positive and finite, or ``mean`` is
            not one point.

    References:
        Mathieu, Nickel: Riemannian Continuous Normalizing Flows, 2020, arXiv:2006.10605, section 3.
        Mardia, Jupp: Directional Statistics, 2000, doi:10.1002/9780470316979, equations 3.5.61 and 3.5.64 (circle).
    """

    mean: Tensor

    def __init__(self, manifold: Manifold, mean: Tensor, scale: float = 1.0) -> None:
        super().__init__(manifold)
        wrapped_log_density(manifold)  # raises where there is none
        self.scale = checked_scale("WrappedNormal", "scale", scale)
        self.constant("mean", checked_point("WrappedNormal", "mean", manifold, mean))

    @classmethod
    def fit(cls, manifold: Manifold, points: Tensor) -> Self:
        """Return the one about the mean of the points, with their root mean square distance per dimension as scale.

        Args:
            manifold: where they live.
            points: ``(n, *event_shape)``.

        Raises:
            ValueError: if the density is not known on this manifold.
        """
        points = points_of("WrappedNormal", manifold, points, torch.float64).detach()
        centre = manifold.projx(points.mean(0))
        if manifold.injectivity_radius != math.inf:
            # The projected mean depends on where the seam is; the mean along geodesics does not.
            for _ in range(_MEAN_STEPS):
                centre = manifold.expmap(centre, manifold.logmap(centre, points).mean(0))
        u = manifold.logmap(centre, points)
        scale = (manifold.inner(centre, u, u).mean() / manifold.dim).sqrt()
        return cls(manifold, centre, float(scale) or 1.0)

    def sample(
        self,
        shape: int | tuple[int, ...],
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        shape = draws(self, shape, dtype)
        mean = self.mean.to(dtype=dtype or torch.get_default_dtype(), device=device)
        basis = self.manifold.tangent_basis(mean)
        coefficients = torch.randn(*shape, self.manifold.dim, generator=generator, dtype=mean.dtype, device=mean.device)
        return self.manifold.expmap(mean, self.scale * torch.tensordot(coefficients, basis, dims=1))

    def log_prob(self, x: Tensor) -> Tensor:
        x = points_of("WrappedNormal", self.manifold, x)
        return wrapped_log_density(self.manifold)(self.mean, self.scale, x)

    def extra_repr(self) -> str:
        return f"scale={self.scale:g}"


@singledispatch
def wrapped_log_density(manifold: Manifold) -> Callable[[Tensor, float, Tensor], Tensor]:
    """Return the log-density ``(mean, scale, x) -> (*batch)`` of a wrapped normal on a manifold.

    A generic function: ``wrapped_log_density.register(MyManifold)`` adds one, or a refusal.

    Args:
        manifold: the manifold.

    Raises:
        ValueError: where it is not known, naming the source to use instead.
    """
    if manifold.injectivity_radius != math.inf:
        _refuse(manifold, "use Uniform where the volume is finite, or a source of your own")

    def log_density(mean: Tensor, scale: float, x: Tensor) -> Tensor:
        mean = mean.to(x)
        u = manifold.logmap(mean, x)
        constant = manifold.dim * math.log(scale * math.sqrt(2 * math.pi))
        return -manifold.inner(mean, u, u) / scale**2 / 2 - constant - manifold.log_det_expmap(mean, u)

    return log_density


@wrapped_log_density.register
def _(manifold: FlatTorus) -> Callable[[Tensor, float, Tensor], Tensor]:
    def log_density(mean: Tensor, scale: float, x: Tensor) -> Tensor:
        # In float64: an angle given in float32 is exact, its difference from the mean would not be.
        u = manifold.logmap(mean.to(x.device), x.double())
        return _log_wrapped_normal(u, scale).sum(-1).to(x.dtype)

    return log_density


@wrapped_log_density.register
def _(manifold: Sphere) -> NoReturn:
    _refuse(manifold, "use VonMisesFisher, or Uniform")


@wrapped_log_density.register
def _(manifold: SO3) -> NoReturn:
    _refuse(manifold, "use IsotropicGaussianSO3, or Uniform")


@wrapped_log_density.register
def _(manifold: SE3) -> NoReturn:
    _refuse(manifold, "use RigidMotionSource, with IsotropicGaussianSO3 or Uniform for the rotations")


@wrapped_log_density.register
def _(manifold: Product) -> Callable[[Tensor, float, Tensor], Tensor]:
    if manifold.injectivity_radius != math.inf:
        _refuse(manifold, "use ProductSource, with one source per factor")
    return wrapped_log_density.dispatch(Manifold)(manifold)


@wrapped_log_density.register
def _(manifold: Power) -> Callable[[Tensor, float, Tensor], Tensor]:
    if manifold.injectivity_radius != math.inf:
        _refuse(manifold, f"use PowerSource, with a source on {manifold.m}")
    return wrapped_log_density.dispatch(Manifold)(manifold)


def _refuse(manifold: Manifold, remedy: str) -> NoReturn:
    raise ValueError(
        f"WrappedNormal: the exponential map of {manifold} is not one-to-one and the sum over images is not written; "
        f"{remedy}"
    )


def _log_wrapped_normal(angle: Tensor, scale: float) -> Tensor:
    """Return the log-density at ``angle`` in [-pi, pi) of a normal wrapped round the circle, mean 0.

    Two forms of one theta function. The images left out lie at least 7 pi away, below e^-59 of the largest; the waves
    left out have amplitude below e^-50, and those kept cannot cancel the constant.
    """
    if scale < _WAVES_FROM:
        turns = 2 * math.pi * torch.arange(-3, 4, dtype=angle.dtype, device=angle.device)
        images = -(((angle[..., None] + turns) / scale) ** 2) / 2
        return torch.logsumexp(images, dim=-1) - math.log(scale * math.sqrt(2 * math.pi))
    waves = torch.zeros_like(angle)
    for m in range(1, 5):
        waves = waves + 2 * math.exp(-((m * scale) ** 2) / 2) * torch.cos(m * angle)
    return torch.log1p(waves) - math.log(2 * math.pi)


_WAVES_FROM = 2.0

_MEAN_STEPS = 20
