"""Full-rank correlation matrices."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from manifolds.arguments import integer
from manifolds.base import Manifold
from manifolds.kernel import Kernel
from manifolds.matrices.spectral import eigh, symmetrise
from manifolds.numerics import differentiated, safe_sqrt


class Correlation(Manifold):
    """Positive definite matrices ``(n, n)`` with unit diagonal, with the Euclidean-Cholesky metric.

    With ``C = L L'`` and every row of L divided by its diagonal entry, the entries below the diagonal are n (n - 1) / 2
    numbers, any numbers, one for each pair of variables. The metric makes this map, `to_flat`, an isometry to Euclidean
    space: the space is flat, geodesics are images of straight lines, one between any two matrices; the border, where
    a matrix is singular, is infinitely far. ``injectivity_radius`` is infinite. The volume has density
    ``2^(-d / 2) det(C)^(-(n + 1) / 2)``, d the dimension, with respect to the Euclidean one, in which a unit of an
    entry counts sqrt 2. Other than correlation, the metric depends on the order of the variables: row i tells of
    variable i given those before it.

    Points are symmetric with unit diagonal, tangent vectors symmetric with zero diagonal. Documented domain: condition
    numbers up to 1e3 in float32, 1e8 in float64. A matrix that is not positive definite gives NaN, for itself only.

    Args:
        n: number of variables, at least 2.

    References:
        Thanwerdas, Pennec: Theoretically and computationally convenient geometries on full-rank correlation matrices,
        2022, arXiv:2201.06282, section 3.3 (the metric).
    """

    injectivity_radius = math.inf

    def __init__(self, n: int) -> None:
        n = integer(type(self).__name__, "n", n)
        if n < 2:
            raise ValueError(f"Correlation: n must be at least 2, got {n}; one variable has no correlations")
        super().__init__(n * (n - 1) // 2, (n, n))
        self.n = n

    @property
    def other_forms(self) -> Mapping[tuple[int, ...], str]:
        return {(self.dim,): "put the entries below the diagonal in both halves, with torch.tril_indices, and 1 on it"}

    # The isometry to flat space.

    def to_flat(self, x: Tensor) -> Tensor:
        """Return the coordinates ``(*batch, n (n - 1) / 2)`` in which the metric is Euclidean, row by row."""
        root = _cholesky(x)
        return self._lower(root / torch.diagonal(root, dim1=-2, dim2=-1)[..., None])

    def from_flat(self, a: Tensor) -> Tensor:
        """Return the matrix that has these coordinates."""
        root, _ = self._rows(a)
        return self._unit_diagonal(root @ root.mT)

    # Projections.

    def projx(self, x: Tensor) -> Tensor:
        """Return the symmetric part with ones on the diagonal, mixed with the identity where it is not definite.

        Eigenvalues below eight epsilons times n are so raised to sixteen. The step between is what rounding may move
        them: a second projection mixes nothing.
        """
        x = self._unit_diagonal(symmetrise(x))
        least = eigh(x)[0][..., :1, None]
        floor = 16 * self.n * torch.finfo(x.dtype).eps
        eye = torch.eye(self.n, dtype=x.dtype, device=x.device)
        share = torch.where(least < floor / 2, (floor - least) / (1 - least), 0.0)
        mixed = x + share * (eye - x)
        return self._unit_diagonal(mixed) if differentiated(x) else torch.where(share > 0, mixed, x)

    def outside(self, x: Tensor) -> Tensor:
        """Return whether the symmetric part with unit diagonal has no Cholesky factor."""
        return torch.linalg.cholesky_ex(self._unit_diagonal(symmetrise(x))).info != 0

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """Return the symmetric part of ``u`` with zeros on the diagonal."""
        u = symmetrise(u)
        return (u * self._off_diagonal(u)).expand(torch.broadcast_shapes(x.shape, u.shape))

    # Metric.

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        root = _cholesky(x)
        return (self._push(root, u) * self._push(root, v)).sum(-1)

    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        step = self.to_flat(y) - self.to_flat(x)
        return safe_sqrt((step * step).sum(-1))

    # Geodesics.

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        root = _cholesky(x)
        return self.from_flat(self.to_flat(x) + self._push(root, u))

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        a = self.to_flat(x)
        return self._pull(a, self.to_flat(y) - a)

    def shoot(self, x: Tensor, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return self._straight(self.to_flat(x), self._push(_cholesky(x), u), t)

    def geodesic(self, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        a = self.to_flat(x)
        return self._straight(a, self.to_flat(y) - a, t)

    def transp(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        """Carry ``u`` to ``y`` (parallel transport, along any path): its flat coordinates stay the same."""
        return self._pull(self.to_flat(y), self._push(_cholesky(x), u))

    # Bases and volume.

    def tangent_basis(self, x: Tensor) -> Tensor:
        eye = torch.eye(self.dim, dtype=x.dtype, device=x.device)
        return self._pull(self.to_flat(x)[..., None, :], eye)

    def divergence_frame(self, x: Tensor) -> tuple[Tensor, Tensor]:
        rows, columns = torch.tril_indices(self.n, self.n, offset=-1, device=x.device)
        eye = torch.eye(self.n, dtype=x.dtype, device=x.device)
        units = eye[rows][:, :, None] * eye[columns][:, None, :]
        basis = (math.sqrt(0.5) * (units + units.mT)).expand(*self.batch_shape(x), self.dim, self.n, self.n)
        return basis, basis

    def log_volume_derivative(self, x: Tensor, u: Tensor) -> Tensor:
        whitened = torch.cholesky_solve(u, _cholesky(x).expand(torch.broadcast_shapes(x.shape, u.shape)))
        return -(self.n + 1) / 2 * torch.diagonal(whitened, dim1=-2, dim2=-1).sum(-1)

    def log_det_expmap(self, x: Tensor, u: Tensor) -> Tensor:
        """Zero: the space is flat."""
        return torch.zeros_like((x + u)[..., 0, 0])

    @property
    def kernel(self) -> Kernel:
        """Images of normal densities of variance ``1 / concentration``: `embed` is an isometry to flat space."""
        return _FlatNormal(self)

    # Coordinates for networks.

    def embed(self, x: Tensor) -> Tensor:
        """Return `to_flat`."""
        return self.to_flat(x)

    @property
    def embed_dim(self) -> int:
        return self.dim

    def tangent_from_vector(self, x: Tensor, w: Tensor) -> Tensor:
        """Return the tangent vector with flat coordinates ``w``."""
        return self._pull(self.to_flat(x), w)

    @property
    def field_dim(self) -> int:
        return self.dim

    # Checks, for the borders.

    def check_point(self, x: Tensor, tol: float | None = None) -> None:
        """Raise ValueError unless every entry of ``x`` is symmetric with unit diagonal to ``tol`` and definite."""
        super().check_point(x, tol)
        bad = self.outside(x)
        if bool(bad.any()):
            raise ValueError(
                f"points of {self}: {int(bad.sum())} of {bad.numel()} are not positive definite in {x.dtype}; project "
                "them with Correlation.projx, or drop variables that others determine"
            )

    def extra_repr(self) -> str:
        return str(self.n)

    # Parts.

    def _straight(self, a: Tensor, da: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        a_t = a + t[..., None] * da
        return self.from_flat(a_t), self._pull(a_t, da)

    def _push(self, root: Tensor, u: Tensor) -> Tensor:
        """Return the flat coordinates of tangent vectors ``u`` at the matrix that has this Cholesky factor."""
        half = torch.linalg.solve_triangular(root, u, upper=False)
        whitened = torch.linalg.solve_triangular(root, half.mT, upper=False)
        eye = torch.eye(self.n, dtype=u.dtype, device=u.device)
        d_root = root @ (torch.tril(whitened) - eye * whitened / 2)
        diagonal = torch.diagonal(root, dim1=-2, dim2=-1)[..., None]
        d_diagonal = torch.diagonal(d_root, dim1=-2, dim2=-1)[..., None]
        return self._lower((d_root - root * (d_diagonal / diagonal)) / diagonal)

    def _pull(self, a: Tensor, da: Tensor) -> Tensor:
        """Return the tangent vectors with flat coordinates ``da`` at the matrix with flat coordinates ``a``."""
        root, length = self._rows(a)
        step = self._matrix(da)
        d_root = (step - root * (root * step).sum(-1, keepdim=True)) / length
        product = d_root @ root.mT
        return self.proju(product, 2 * product)

    def _rows(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """Return the Cholesky factor of the matrix with flat coordinates ``a``, and by what its rows were divided."""
        rows = self._matrix(a) + torch.eye(self.n, dtype=a.dtype, device=a.device)
        length = torch.sqrt((rows * rows).sum(-1, keepdim=True))
        return rows / length, length

    def _matrix(self, a: Tensor) -> Tensor:
        """Return coordinates as strictly lower triangular matrices."""
        rows, columns = torch.tril_indices(self.n, self.n, offset=-1, device=a.device)
        eye = torch.eye(self.n, dtype=a.dtype, device=a.device)
        return torch.tensordot(a, eye[rows][:, :, None] * eye[columns][:, None, :], dims=1)

    def _lower(self, a: Tensor) -> Tensor:
        rows, columns = torch.tril_indices(self.n, self.n, offset=-1, device=a.device)
        return a[..., rows, columns]

    def _off_diagonal(self, like: Tensor) -> Tensor:
        return 1 - torch.eye(self.n, dtype=like.dtype, device=like.device)

    def _unit_diagonal(self, x: Tensor) -> Tensor:
        off = self._off_diagonal(x)
        return x * off + (1 - off)


class _FlatNormal(Kernel):
    manifold: Correlation

    def log_normaliser(self, concentration: Tensor) -> Tensor:
        """The Gaussian integral."""
        return self.manifold.dim / 2 * torch.log(2 * math.pi / concentration)

    def sample(self, x: Tensor, concentration: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return images of normal vectors with mean ``to_flat(x)`` and variance ``1 / concentration``."""
        batch = torch.broadcast_shapes(x.shape[:-2], concentration.shape)
        normal = torch.randn(*batch, self.manifold.dim, generator=generator, dtype=x.dtype, device=x.device)
        width = torch.rsqrt(concentration).to(x.dtype)[..., None]
        return self.manifold.from_flat(self.manifold.to_flat(x) + width * normal)


def _cholesky(x: Tensor) -> Tensor:
    """Return the lower Cholesky factor, or NaN for a matrix that has none: raising would end a batch for one entry."""
    root, info = torch.linalg.cholesky_ex(x)
    return torch.where((info == 0)[..., None, None], root, torch.nan)
