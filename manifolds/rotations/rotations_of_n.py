"""The groups of rotations of n dimensions."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from manifolds.arguments import integer
from manifolds.base import Manifold
from manifolds.coordinates import Coordinates
from manifolds.lie_group import LieGroup
from manifolds.matrices.orthonormal import haar, orthonormalised, polar
from manifolds.numerics import log_sphere_area, safe_sqrt
from manifolds.rotations.rotation_log import rotation_log, skew


class SpecialOrthogonal(Manifold):
    """The rotation group SO(n) with the bi-invariant metric ``<U, V> = tr(U' V) / 2``.

    Points are orthogonal matrices ``(n, n)`` with determinant +1. Tangent vectors at ``x`` are ``x S`` with S
    skew-symmetric. A rotation turns orthogonal planes by angles in [0, pi]; ``dist`` is the root of the sum of the
    squares of the angles of ``x' y``, at most ``pi sqrt(n // 2)``. The volume is the product of the areas of the unit
    spheres in 2, 3, ... n dimensions. For n = 3 it is `SO3`, which is many times faster and has a smoothing kernel.

    The cut locus is where the largest angle is pi. ``logmap`` takes one of the shortest geodesics there, with the
    plane that rounding tells, or always the same one where it tells none. ``injectivity_radius`` is pi. First and
    second derivatives of every map are exact; third ones of ``logmap`` and ``dist`` are not. Where two angles are pi,
    ``logmap`` has no derivative; there it has a finite one, of the directions in which it exists.

    Args:
        n: size of the matrices, at least 2; the dimension is n (n - 1) / 2.

    References:
        Edelman, Arias, Smith, The Geometry of Algorithms with Orthogonality Constraints, 1998,
        arXiv:physics/9806030, section 2.2.1.
    """

    injectivity_radius = math.pi

    def __init__(self, n: int) -> None:
        n = integer(type(self).__name__, "n", n)
        if n < 2:
            raise ValueError(f"SpecialOrthogonal: n must be at least 2, got {n}; the only rotation of a line is none")
        super().__init__(n * (n - 1) // 2, (n, n))
        self.n = n
        self.volume = math.exp(sum(log_sphere_area(k - 1) for k in range(2, n + 1)))

    @property
    def other_forms(self) -> Mapping[tuple[int, ...], str]:
        return {(self.dim,): "skew-symmetric coordinates become rotations with lie_group.translate(torch.eye(n), a)"}

    # Projections.

    def projx(self, x: Tensor) -> Tensor:
        """Return the nearest rotation, of determinant +1; one of them where it is not unique."""
        return polar(x, rotation=True)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return x @ skew(x.mT @ u)

    # Metric.

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return (u * v).sum((-2, -1)) / 2

    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        log = self._log(x, y)
        return safe_sqrt((log * log).sum((-2, -1)) / 2)

    # Geodesics.

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return _turned(x, skew(x.mT @ u))

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        return x @ self._log(x, y)

    def shoot(self, x: Tensor, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return self._follow(x, skew(x.mT @ u), t)

    def geodesic(self, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return self._follow(x, self._log(x, y), t)

    def transp(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        """Carry ``u`` along the geodesic of ``logmap(x, y)`` (parallel transport, an isometry).

        Left translation is not parallel: in the frame that turns along, the vector turns back by half of the way.
        """
        half = torch.linalg.matrix_exp(self._log(x, y) / 2)
        return y @ half.mT @ skew(x.mT @ u) @ half

    # Bases and volume.

    def tangent_basis(self, x: Tensor) -> Tensor:
        """Return ``x (E_ij - E_ji)`` for i > j: the left-invariant frame."""
        return x[..., None, :, :] @ _units(self.n, x)

    def divergence_frame(self, x: Tensor) -> tuple[Tensor, Tensor]:
        basis = self.tangent_basis(x)
        return basis, basis / 2

    def log_volume_derivative(self, x: Tensor, u: Tensor) -> Tensor:
        return torch.zeros_like((x * u)[..., 0, 0])

    def random_uniform(
        self,
        *shape: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Return Haar-distributed rotations."""
        x = haar(*shape, self.n, self.n, generator=generator, dtype=dtype, device=device)
        return torch.cat([x[..., :1] * torch.linalg.det(x).sign()[..., None, None], x[..., 1:]], dim=-1)

    @property
    def lie_group(self) -> LieGroup:
        """Products of rotations; algebra elements are the entries of ``x' u`` below the diagonal, row by row."""
        return _RotationsOfN(self.n)

    # Coordinates for networks.

    @property
    def coordinates(self) -> Coordinates:
        """With the derivatives in closed form."""
        return _Turns(self)

    def extra_repr(self) -> str:
        return str(self.n)

    # Parts.

    def _log(self, x: Tensor, y: Tensor) -> Tensor:
        return rotation_log(x.mT @ (y - x))

    def _follow(self, x: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        x_t = _turned(x, self.lift(t) * s)
        return x_t, x_t @ s


class _Turns(Coordinates):
    def tangent_from_vector_jvp(self, x: Tensor, w: Tensor, v: Tensor, dw: Tensor) -> tuple[Tensor, Tensor]:
        w, dw = (a.unflatten(-1, self.manifold.event_shape) for a in (w, dw))
        turn = skew(x.mT @ w)
        return x @ turn, v @ turn + x @ skew(v.mT @ w + x.mT @ dw)


class _RotationsOfN(LieGroup):
    """The group SO(n). Its metric is bi-invariant, so the group's exponential is ``expmap``."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.commutative = n == 2

    def to_algebra(self, x: Tensor, u: Tensor) -> Tensor:
        rows, columns = torch.tril_indices(self.n, self.n, offset=-1, device=x.device)
        return skew(x.mT @ u)[..., rows, columns]

    def from_algebra(self, x: Tensor, a: Tensor) -> Tensor:
        return x @ self._skew(a)

    def translate(self, x: Tensor, a: Tensor) -> Tensor:
        return _turned(x, self._skew(a))

    def bracket(self, a: Tensor, b: Tensor) -> Tensor:
        p, q = self._skew(a), self._skew(b)
        rows, columns = torch.tril_indices(self.n, self.n, offset=-1, device=p.device)
        return (p @ q - q @ p)[..., rows, columns]

    def _skew(self, a: Tensor) -> Tensor:
        return torch.tensordot(a, _units(self.n, a), dims=1)


def _units(n: int, like: Tensor) -> Tensor:
    """Return ``E_ij - E_ji`` for i > j, row by row, ``(n (n - 1) / 2, n, n)``."""
    rows, columns = torch.tril_indices(n, n, offset=-1, device=like.device)
    eye = torch.eye(n, dtype=like.dtype, device=like.device)
    units = eye[rows][:, :, None] * eye[columns][:, None, :]
    return units - units.mT


def _turned(x: Tensor, s: Tensor) -> Tensor:
    """Return ``x exp(s)``, orthogonal to rounding however often it is repeated."""
    return orthonormalised(x @ torch.linalg.matrix_exp(s))
