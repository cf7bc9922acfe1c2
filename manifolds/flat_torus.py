"""Products of circles."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from manifolds.arguments import integer
from manifolds.base import Manifold
from manifolds.coordinates import Coordinates
from manifolds.kernel import Kernel
from manifolds.lie_group import LieGroup, Translations
from manifolds.numerics.angles import wrap_radians, wrap_radians_
from manifolds.spectrum import PlaneWaves
from manifolds.von_mises_fisher import draw_versine


class FlatTorus(Manifold):
    """The product of n circles of circumference 2 pi, with the flat metric.

    Points are angles in radians in [-pi, pi), shape ``(n,)``; the volume is (2 pi)^n. ``dist`` goes the short way
    round. Where two angles are exactly half a turn apart, ``logmap`` returns -pi.

    Args:
        n: number of angles.
    """

    injectivity_radius = math.pi

    def __init__(self, n: int) -> None:
        n = integer(type(self).__name__, "n", n)
        super().__init__(n, (n,))
        self.n = n
        self.volume = (2 * math.pi) ** n

    @property
    def other_forms(self) -> Mapping[tuple[int, ...], str]:
        return {
            (self.n, 2): "cosines and sines become angles with torch.atan2(x[..., 1], x[..., 0])",
            (self.n + 1,): f"points are {self.n} angles in radians; unit vectors are points of Sphere({self.n})",
        }

    # Projections.

    def projx(self, x: Tensor) -> Tensor:
        return wrap_radians(x)

    def projx_jvp(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self.projx(x), v

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return u.expand(torch.broadcast_shapes(x.shape, u.shape))

    def _off(self, x: Tensor) -> Tensor:
        # Half a turn, which tables and grids hold as pi, is the same point as -pi, and no whole turn off.
        return (x.abs() - math.pi).clamp(min=0)

    @property
    def _off_remedy(self) -> str:
        return "turn degrees into radians with torch.deg2rad, and wrap radians with FlatTorus.projx"

    # Geodesics.

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return wrap_radians_(x + u)

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        return wrap_radians_(y - x)

    def shoot(self, x: Tensor, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        x_t = wrap_radians(torch.addcmul(x, self.lift(t), u))
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
        """Addition of angles."""
        return Translations(self.expmap)

    def log_det_expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return torch.zeros_like((x + u)[..., 0])

    def random_uniform(
        self,
        *shape: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        draw = torch.rand(*shape, self.n, generator=generator, dtype=dtype, device=device)
        return wrap_radians((2 * draw - 1) * math.pi)

    @property
    def kernel(self) -> Kernel:
        """Products of von Mises densities, one for each angle."""
        return _VonMises(self)

    @property
    def spectrum(self) -> PlaneWaves:
        return PlaneWaves(self.n)

    # Coordinates for networks.

    def embed(self, x: Tensor) -> Tensor:
        return torch.cat([torch.cos(x), torch.sin(x)], dim=-1)

    @property
    def embed_dim(self) -> int:
        return 2 * self.n

    @property
    def coordinates(self) -> Coordinates:
        """With the derivatives in closed form."""
        return _CosinesAndSines(self)

    def extra_repr(self) -> str:
        return str(self.n)


class _VonMises(Kernel):
    manifold: FlatTorus

    def log_normaliser(self, concentration: Tensor) -> Tensor:
        """The von Mises integral, (2 pi exp(-k) I_0(k))^n."""
        return self.manifold.n * torch.log(2 * math.pi * torch.special.i0e(concentration))

    def sample(self, x: Tensor, concentration: Tensor, generator: torch.Generator | None = None) -> Tensor:
        batch = torch.broadcast_shapes(x.shape[:-1], concentration.shape)
        versine = draw_versine(1, concentration[..., None].expand(*batch, self.manifold.n), generator)
        angle = 2 * torch.asin(torch.sqrt(versine / 2))
        side = torch.randint(0, 2, versine.shape, generator=generator, device=x.device) * 2 - 1
        return wrap_radians(x + (side * angle).to(x.dtype))


class _CosinesAndSines(Coordinates):
    def embed_jvp(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = torch.cos(x), torch.sin(x)
        return torch.cat([cos, sin], dim=-1), torch.cat([-sin * v, cos * v], dim=-1)

    def tangent_from_vector_jvp(self, x: Tensor, w: Tensor, v: Tensor, dw: Tensor) -> tuple[Tensor, Tensor]:
        return w, dw
