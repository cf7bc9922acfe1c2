"""Several rigid bodies up to a common translation."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from manifolds.arguments import integer
from manifolds.checks import check_deviation, relative_size
from manifolds.composed.power import Power
from manifolds.coordinates import PowerCoordinates
from manifolds.kernel import Kernel, PowerKernel
from manifolds.rotations.special_euclidean import SE3


class CentredPoses(Power):
    """``k`` poses whose positions have mean zero: rigid bodies of which only the arrangement counts, not the place.

    A flat slice of ``Power(SE3(length), k)`` with the metric that it has there: geodesics, logarithms and distances are
    those of the power, which never leave it. Its dimension is ``6 k - 3``. Densities are with respect to the rotations'
    volume, of total mass ``(8 pi^2)^k``, times that of the ``3 k - 3`` dimensions left to the positions in units of
    ``length``; the volume is infinite. Cut locus and conventions at angle pi are those of `SO3`.

    It is no group: a product of motions moves the mean. Turning all bodies about the origin is an isometry. It is where
    flows of protein backbones live: Yim et al., SE(3) diffusion model with application to protein backbone generation,
    2023, arXiv:2302.02277, section 3.4.

    Args:
        k: number of bodies, at least 2.
        length: the distance that counts as much as a turn by one radian, in the units of the positions.
    """

    m: SE3

    def __init__(self, k: int, length: float = 1.0) -> None:
        k = integer("CentredPoses", "k", k)
        if k < 2:
            raise ValueError(
                f"CentredPoses: takes at least 2 poses, got {k}; one whose position is 0 is a point of SO3"
            )
        super().__init__(SE3(length), k)
        self.dim = 6 * k - 3
        self.length = self.m.length
        self._coordinates = _CentredCoordinates(self, self.m.coordinates, k)

    # Projections.

    def projx(self, x: Tensor) -> Tensor:
        """Return the poses with the nearest rotations, and the positions less their mean."""
        return centred(super().projx(x))

    def projx_jvp(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        y, dy = super().projx_jvp(x, v)
        return centred(y), centred(dy)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return centred(super().proju(x, u))

    # Bases and volume.

    def expmap_jvp(self, x: Tensor, u: Tensor, dx: Tensor, du: Tensor) -> tuple[Tensor, Tensor]:
        return super().expmap_jvp(x, u, dx, self.proju(x, du))

    def tangent_basis(self, x: Tensor) -> Tensor:
        """Return three turns of each body, then ``k - 1`` ways to move some bodies against others, along three axes."""
        return self._relative(super().tangent_basis(x))

    def divergence_frame(self, x: Tensor) -> tuple[Tensor, Tensor]:
        vectors, covectors = super().divergence_frame(x)
        return self._relative(vectors), self._relative(covectors)

    def divergence_probes(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        vectors, covectors = super().divergence_probes(x, noise)
        return centred(vectors), centred(covectors)

    @property
    def lie_group(self) -> None:
        """None: products of motions move the mean position."""
        return None

    @property
    def kernel(self) -> Kernel:
        """That of the power, on the slice."""
        return _CentredKernel(self, self.m.kernel, self.k)

    # Checks, for the borders.

    def check_point(self, x: Tensor, tol: float | None = None) -> None:
        """Raise ValueError unless every copy is a pose and the mean position is 0."""
        super().check_point(x, tol)
        self._check_mean("points", "position", "subtract it, or project with CentredPoses.projx", x, tol)

    def check_tangent(self, x: Tensor, u: Tensor, tol: float | None = None) -> None:
        """Raise ValueError unless every copy's vector is tangent and the mean velocity is 0."""
        super().check_tangent(x, u, tol)
        self._check_mean("tangent vectors", "velocity", "subtract it, or project with CentredPoses.proju", u, tol)

    def extra_repr(self) -> str:
        return f"{self.k}, length={self.length:g}"

    def _check_mean(self, what: str, of: str, remedy: str, x: Tensor, tol: float | None) -> None:
        deviation = relative_size(self, x - centred(x), x)
        check_deviation(self, deviation, x, tol, what, f"off the mean {of} 0 by", remedy)

    def _relative(self, vectors: Tensor) -> Tensor:
        """Return, from six vectors of each copy, the turns, and the moves of one copy against those before it.

        Helmert's orthonormal contrasts: row i has ``1 / sqrt(i (i + 1))`` for the first i copies, and balances it at
        the next.
        """
        each = vectors.unflatten(-4, (self.k, 6))
        turns, moves = each[..., :3, :, :, :].flatten(-5, -4), each[..., 3:, :, :, :]
        i = torch.arange(1, self.k, dtype=vectors.dtype, device=vectors.device)[:, None]
        j = torch.arange(self.k, device=vectors.device)
        contrast = torch.where(j < i, 1.0, torch.where(j == i, -i, 0.0)) / torch.sqrt(i * (i + 1))
        return torch.cat([turns, torch.einsum("ij,...jcabd->...icabd", contrast, moves).flatten(-5, -4)], dim=-4)


class _CentredCoordinates(PowerCoordinates):
    def tangent_from_vector(self, x: Tensor, w: Tensor) -> Tensor:
        return centred(super().tangent_from_vector(x, w))

    def tangent_from_vector_jvp(self, x: Tensor, w: Tensor, v: Tensor, dw: Tensor) -> tuple[Tensor, Tensor]:
        u, du = super().tangent_from_vector_jvp(x, w, v, dw)
        return centred(u), centred(du)


class _CentredKernel(PowerKernel):
    manifold: CentredPoses

    def log_normaliser(self, concentration: Tensor) -> Tensor:
        """The integral on all the rotations, times the Gaussian one in ``3 k - 3`` dimensions."""
        turns = self.manifold.m.rotations.kernel.log_normaliser(concentration)
        moves = self.kernel.log_normaliser(concentration) - turns
        return self.k * turns + (self.k - 1) * moves

    def sample(self, x: Tensor, concentration: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return centred(super().sample(x, concentration, generator))


def centred(x: Tensor) -> Tensor:
    """Return poses, or tangent vectors, ``(*batch, k, 4, 4)`` with the mean of their last columns subtracted."""
    mean = x[..., :3, 3].mean(-2, keepdim=True)
    return x - pad(mean[..., None], (3, 0, 0, 1))
