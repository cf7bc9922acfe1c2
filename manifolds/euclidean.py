"""Flat space."""

import math

import torch
from torch import Tensor

from manifolds.arguments import integer
from manifolds.base import Manifold
from manifolds.coordinates import Coordinates
from manifolds.kernel import Kernel
from manifolds.lie_group import LieGroup, Translations


class Euclidean(Manifold):
    """The vector space R^n with its usual metric: points ``(n,)``, volume infinite.

    Args:
        n: dimension.
    """

    injectivity_radius = math.inf

    def __init__(self, n: int) -> None:
        n = integer(type(self).__name__, "n", n)
        super().__init__(n, (n,))
        self.n = n

    # Projections.

    def projx(self, x: Tensor) -> Tensor:
        return x

    def projx_jvp(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self.projx(x), v

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return u.expand(torch.broadcast_shapes(x.shape, u.shape))

    # Geodesics.

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return x + u

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        return y - x

    def shoot(self, x: Tensor, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        x_t = x + self.lift(t) * u
        return x_t, u.expand_as(x_t)

    def expmap_jvp(self, x: Tensor, u: Tensor, dx: Tensor, du: Tensor) -> tuple[Tensor, Tensor]:
        y, dy = self.expmap(x, u), dx + du
        return y, dy.expand(torch.broadcast_shapes(y.shape, dy.shape))

    def logmap_jvp(self, x: Tensor, y: Tensor, dx: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
        u, du = self.logmap(x, y), dy - dx
        return u, du.expand(torch.broadcast_shapes(u.shape, du.shape))

    @property
    def transp_is_isometric(self) -> bool:
        """True: all tangent spaces are one, and the default transport, the projection to it, is parallel."""
        return True

    # Bases and volume.

    def tangent_basis(self, x: Tensor) -> Tensor:
        return torch.eye(self.n, dtype=x.dtype, device=x.device).expand(*x.shape[:-1], self.n, self.n)

    @property
    def lie_group(self) -> LieGroup:
        """Addition."""
        return Translations(self.expmap)

    def log_det_expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return torch.zeros_like((x + u)[..., 0])

    @property
    def kernel(self) -> Kernel:
        """Normal densities of variance ``1 / concentration``."""
        return _Gaussian(self)

    # Coordinates for networks.

    @property
    def coordinates(self) -> Coordinates:
        """With the derivatives in closed form."""
        return _Straight(self)

    def extra_repr(self) -> str:
        return str(self.n)


class _Gaussian(Kernel):
    manifold: Euclidean

    def log_normaliser(self, concentration: Tensor) -> Tensor:
        return self.manifold.n / 2 * torch.log(2 * math.pi / concentration)

    def sample(self, x: Tensor, concentration: Tensor, generator: torch.Generator | None = None) -> Tensor:
        batch = torch.broadcast_shapes(x.shape[:-1], concentration.shape)
        normal = torch.randn(*batch, self.manifold.n, generator=generator, dtype=x.dtype, device=x.device)
        return x + normal * torch.rsqrt(concentration)[..., None].to(x.dtype)


class _Straight(Coordinates):
    def tangent_from_vector_jvp(self, x: Tensor, w: Tensor, v: Tensor, dw: Tensor) -> tuple[Tensor, Tensor]:
        return w, dw
