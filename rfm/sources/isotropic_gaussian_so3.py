"""The heat kernel on the rotation group."""

import math

import numpy as np
import torch
from torch import Tensor

from manifolds import SO3
from manifolds.numerics import log_sinhc_of_root, sinc_of_root
from manifolds.numerics.constants import Constants
from manifolds.rotations import turn_rows
from rfm.arrays import points_of
from rfm.sources.base import Source, checked_point, checked_scale, draws


class IsotropicGaussianSO3(Source, Constants):
    """The distribution of a Brownian motion on SO(3), started at ``mean``, at time ``scale**2``.

    It is the heat kernel of ``d/dt = Laplacian`` at time ``scale**2 / 2``, in the metric of `SO3`, in which distances
    are angles. A small scale looks like N(0, scale^2 I_3) in the tangent space at the mean; a large one is uniform.
    The density, with respect to the volume of total mass 8 pi^2, depends on the angle a between x and the mean alone::

        8 pi^2 p(a) = sum_l (2 l + 1) exp(-l (l + 1) scale^2 / 2) sin((l + 1/2) a) / sin(a / 2)

    For small scales the terms of this series cancel, and rounding makes it negative where p is small. There we take
    its Poisson sum, over the images of the rotation vector, whose terms do not cancel; p is positive everywhere.

    Other parametrisations: the ``epsilon`` of Nikolayev & Savyolova and of Leach et al. is ``scale / sqrt(2)``; the
    ``eps`` and ``sigma`` of FrameDiff and FoldFlow are ``scale``, so that their prior IGSO3(1.5) is
    ``IsotropicGaussianSO3(torch.eye(3), 1.5)``. Densities there refer to a volume of total mass 1: 8 pi^2 times these.

    It is not `WrappedNormal`, the normal distribution of a rotation vector modulo whole turns: that has a singular
    density at angle 2 pi k. Nor is it the matrix Fisher distribution.

    Args:
        mean: a rotation matrix ``(3, 3)``.
        scale: standard deviation in every direction while it is small, radians.

    Raises:
        ValueError: if ``scale`` is not positive and finite, or ``mean`` is not one rotation.

    References:
        Nikolayev, Savyolova: Normal distribution on the rotation group SO(3), 1997, doi:10.1155/TSM.29.201 (also cited
        with the year 1970). Leach, Schmon, Degiacomi, Willcocks: Denoising diffusion probabilistic models on SO(3) for
        rotational alignment, 2022, ICLR workshop on geometrical and topological representation learning, equation 5.
        Yim et al.: SE(3) diffusion model with application to protein backbone generation (FrameDiff), 2023,
        arXiv:2302.02277, section 3.2 and appendix. Poisson's summation: DLMF 20.7.32.
    """

    mean: Tensor
    _roots: Tensor
    _slopes: Tensor

    def __init__(self, mean: Tensor, scale: float = 1.0) -> None:
        manifold = SO3()
        super().__init__(manifold)
        self.scale = checked_scale("IsotropicGaussianSO3", "scale", scale)
        self.constant("mean", checked_point("IsotropicGaussianSO3", "mean", manifold, mean))
        # A normal vector in three dimensions is longer than 9 standard deviations with probability 2e-17.
        self._step = min(math.pi, 9 * self.scale) / _INTERVALS
        nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(8))
        starts = self._step * torch.arange(_INTERVALS + 1, dtype=torch.float64)
        inside = starts[:-1, None] + self._step * (1 + nodes) / 2
        masses = self._step / 2 * (weights * _angle_density(inside, self.scale)).sum(-1)
        cdf = torch.cat([torch.zeros(1, dtype=torch.float64), torch.cumsum(masses, 0)])
        roots = (cdf / cdf[-1]) ** (1 / 3)
        # The derivative of the angle by the root: 3 root^2 / density, and at 0, where the density is 4 pi p(0) a^2, its
        # limit.
        at_zero = (4 * math.pi / 3 * torch.exp(log_heat_kernel(starts[:1], self.scale)) / cdf[-1]) ** (-1 / 3)
        slopes = 3 * roots[1:] ** 2 / (_angle_density(starts[1:], self.scale) / cdf[-1])
        self.constant("_roots", roots)
        self.constant("_slopes", torch.cat([at_zero, slopes]))

    def sample(
        self,
        shape: int | tuple[int, ...],
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        shape, mean = draws(self, shape, dtype), self.mean.to(device=device)
        u = torch.rand(shape, generator=generator, dtype=mean.dtype, device=mean.device)
        axis = torch.randn((*shape, 3), generator=generator, dtype=mean.dtype, device=mean.device)
        axis = axis / torch.linalg.vector_norm(axis, dim=-1, keepdim=True)
        angle = self._angle_of_quantile(u)[..., None]
        x = turn_rows(mean, torch.sin(angle), 2 * torch.sin(angle / 2) ** 2, axis)
        return x.to(dtype or torch.get_default_dtype())

    def log_prob(self, x: Tensor) -> Tensor:
        x = points_of("IsotropicGaussianSO3", self.manifold, x)
        angle = self.manifold.dist(self.mean.to(x.device), x.double())
        return log_heat_kernel(angle, self.scale).to(x.dtype)

    def extra_repr(self) -> str:
        return f"scale={self.scale:g}"

    def _angle_of_quantile(self, u: Tensor) -> Tensor:
        """Return the angle below which lies probability ``u``.

        Its cube root is proportional to the angle near 0, so the angle is a smooth function of it everywhere, which a
        cubic in each interval follows to 1e-9 of the scale.
        """
        root = u ** (1 / 3)
        roots, slopes = self._roots.to(u.device), self._slopes.to(u.device)
        index = (torch.searchsorted(roots, root, right=True) - 1).clamp(0, _INTERVALS - 1)
        start = roots[index]
        width = roots[index + 1] - start
        z = ((root - start) / torch.where(width > 0, width, 1.0)).clamp(0, 1)
        first, last = (width * slopes[i] / self._step for i in (index, index + 1))
        # In the far tail rounding of the table would leave the interval.
        z = (z * (first + z * (3 - 2 * first - last + z * (first + last - 2)))).clamp(0, 1)
        return self._step * (index + z)


def log_heat_kernel(angle: Tensor, scale: float) -> Tensor:
    """Return the log-density of `IsotropicGaussianSO3`, with respect to a volume of 8 pi^2, ``(*batch)``.

    Args:
        angle: in [0, pi] radians, ``(*batch)``; in float64 to be accurate for small scales.
        scale: of the distribution.
    """
    return _log_sum_over_images(angle, scale) if scale < _CHARACTERS_FROM else _log_sum_of_characters(angle, scale)


def _log_sum_of_characters(angle: Tensor, scale: float) -> Tensor:
    """The series of the class docstring, for scales from 1.

    With the characters as ``1 + 2 cos(a) + ... + 2 cos(l a)``, smooth at 0. At scale 1.5 the terms left out are below
    1e-18, and the least value, at angle pi, is 0.69: nothing cancels.
    """
    character, total = torch.ones_like(angle), torch.zeros_like(angle)
    for degree in range(1, 7):
        character = character + 2 * torch.cos(degree * angle)
        total = total + (2 * degree + 1) * math.exp(-degree * (degree + 1) * scale**2 / 2) * character
    return torch.log1p(total) - math.log(8 * math.pi**2)


def _log_sum_over_images(angle: Tensor, scale: float) -> Tensor:
    """The Poisson sum over k of ``(-1)^k (a - 2 pi k) exp(-(a - 2 pi k)^2 / (2 s^2))``, for scales up to 1.5.

    The images k and -k are taken together, relative to k = 0, as ``cosh(y) - c sinh(y) / y``, smooth at angle 0. Of
    these the first is positive, up to 1 at angle pi, and the second below 1e-5 of it. The third, below 1e-20, is left
    out.
    """
    images = torch.zeros_like(angle)
    for k in (1, 2):
        y = 2 * math.pi * k / scale**2 * angle
        decay = 2 * (math.pi * k / scale) ** 2
        log_cosh = y + torch.log1p(torch.exp(-2 * y)) - math.log(2)
        pair = torch.exp(log_cosh - decay) - 2 * decay * torch.exp(log_sinhc_of_root(y * y) - decay)
        images = images + 2 * (-1) ** k * pair
    constant = scale**2 / 8 - 3 * math.log(scale) - 1.5 * math.log(2 * math.pi)
    return constant - (angle / scale) ** 2 / 2 - torch.log(sinc_of_root(angle * angle / 4)) + torch.log1p(images)


def _angle_density(angle: Tensor, scale: float) -> Tensor:
    """Return the density of the angle on [0, pi]: the sphere of that radius has area 16 pi sin^2(a / 2)."""
    return 16 * math.pi * torch.sin(angle / 2) ** 2 * torch.exp(log_heat_kernel(angle, scale))


_CHARACTERS_FROM = 1.5
_INTERVALS = 2048
