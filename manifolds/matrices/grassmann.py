"""The Grassmann manifold of subspaces."""

import math

import torch
from torch import Tensor

from manifolds.arguments import integer
from manifolds.base import Manifold
from manifolds.matrices.grassmann_volume import log_det
from manifolds.matrices.orthonormal import canonical_end, canonical_geodesic, canonical_transport, haar, polar
from manifolds.matrices.spectral import symmetrise
from manifolds.matrices.stiefel import out_of_span
from manifolds.numerics import differentiated, gauss_legendre, log_frames_volume


class Grassmann(Manifold):
    """Subspaces of dimension p of R^n, Gr(n, p), with the canonical metric, tr(U' V) on horizontal vectors.

    Points are ``(n, p)``, an orthonormal basis X of the subspace; X Q with Q orthogonal is the same point. Compare
    points by ``dist`` or ``embed``, the projector X X', never by coordinates. A tangent vector at X is a matrix U with
    ``X' U = 0``; at X Q the same vector is U Q. The distance is the root of the sum of squared principal angles, each
    in [0, pi / 2]; ``Grassmann(n, 1)`` is the sphere with antipodes taken as one. The volume is that of the classes:
    the product of the areas of the unit spheres in n, ... n - p + 1 dimensions, over that of those in p, ... 1
    dimensions.

    At the cut locus, where a principal angle is pi / 2, ``logmap`` takes of the shortest geodesics the one that the
    singular value decomposition of X' Y gives, which may differ between bases of one subspace; where two angles are
    pi / 2 it has no derivative, and gives a finite one. First and second derivatives of ``logmap``, ``dist`` and
    ``transp`` are exact; third ones are not.

    Args:
        n: dimension of the space.
        p: dimension of the subspaces, less than n.

    References:
        Edelman, Arias, Smith, The Geometry of Algorithms with Orthogonality Constraints, 1998,
        arXiv:physics/9806030, section 2.5.
        Bendokat, Zimmermann, Absil, A Grassmann Manifold Handbook, 2020, arXiv:2011.13699, algorithm 5.3 (logarithm).
    """

    injectivity_radius = math.pi / 2
    points_are_classes = True

    def __init__(self, n: int, p: int) -> None:
        n, p = (integer(type(self).__name__, name, value, None) for name, value in (("n", n), ("p", p)))
        if not 1 <= p < n:
            raise ValueError(
                f"Grassmann: needs 1 <= p < n, got n {n} and p {p}; take subspaces of dimension 1 to n - 1, "
                "there is only one of full dimension"
            )
        super().__init__(p * (n - p), (n, p))
        self.n = n
        self.p = p
        self.volume = math.exp(log_frames_volume(n, p) - log_frames_volume(p, p))

    # Projections.

    def projx(self, x: Tensor) -> Tensor:
        """Return the nearest orthonormal basis: the polar factor; one of them where it is not unique."""
        return polar(x)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """Return the horizontal part of ``u``, orthogonal to the subspace."""
        return u - x @ (x.mT @ u)

    # Geodesics.

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        u = self.proju(x, u)
        return canonical_end(x, torch.zeros_like(x.mT @ u), u)

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        return self._log(x, y)[0]

    def shoot(self, x: Tensor, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        u = self.proju(x, u)
        return canonical_geodesic(x, torch.zeros_like(x.mT @ u), u, self.lift(t))

    def transp(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        """Carry ``u`` along the geodesic of ``logmap(x, y)`` (parallel transport), to the basis that ``y`` is."""
        log, align = self._log(x, y)
        return self.proju(y, canonical_transport(x, log, self.proju(x, u)) @ align.mT)

    # Bases and volume.

    def tangent_basis(self, x: Tensor) -> Tensor:
        """Return the vectors of a basis of the complement, in each column's place."""
        return out_of_span(x)

    def log_det_expmap(self, x: Tensor, u: Tensor) -> Tensor:
        """With a the angles of ``u``, the singular values: each pair stretches by the sincs of sum and difference.

        ``sinc(a_i)`` has the power n - 2 p, also where that is negative: then 2 p - n of the p angles are zero, and the
        pairs with them count it too often. First and second derivatives are exact.
        """
        u = self.proju(x, u)
        return log_det(u.mT @ u, self.n - 2 * self.p)

    def random_uniform(
        self,
        *shape: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Return draws from the one distribution that no rotation changes."""
        return haar(*shape, self.n, self.p, generator=generator, dtype=dtype, device=device)

    # Coordinates for networks.

    def embed(self, x: Tensor) -> Tensor:
        """Return the independent entries of the projector X X', those off the diagonal times sqrt 2.

        Euclidean distances between the vectors are Frobenius distances between the projectors.
        """
        rows, columns = torch.triu_indices(self.n, self.n, device=x.device)
        return (x @ x.mT)[..., rows, columns] * _weights(rows, columns, x)

    @property
    def embed_dim(self) -> int:
        return self.n * (self.n + 1) // 2

    def tangent_from_vector(self, x: Tensor, w: Tensor) -> Tensor:
        """Return ``(I - X X') W X``, with W the symmetric matrix whose independent entries, as in `embed`, are ``w``.

        It is the gradient of ``<w, embed(x)> / 2``, and turns with the basis: where ``w`` depends on ``embed(x)`` only,
        the field at X Q is the field at X times Q.
        """
        rows, columns = torch.triu_indices(self.n, self.n, device=x.device)
        eye = torch.eye(self.n, dtype=w.dtype, device=w.device)
        units = eye[rows][:, :, None] * eye[columns][:, None, :] * (_weights(rows, columns, w) / 2)[:, None, None]
        return self.proju(x, torch.einsum("...m,mij->...ij", w, units + units.mT) @ x)

    @property
    def field_dim(self) -> int:
        return self.embed_dim

    def extra_repr(self) -> str:
        return f"{self.n}, {self.p}"

    # Parts.

    def _log(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logarithm U, and the orthogonal Q for which ``exp(x, U) = y Q``.

        With ``x'y Q = C`` symmetric, the matrix of cosines, and the sines in ``N Q``, N = (I - xx') y, it is
        ``N Q f(C)`` with f(cos a) = a / sin a, smooth at zero and at pi / 2. C and Q follow from the decomposition
        ``x'y = P D R'`` as P D P' and R P', where P and R are constants and what varies enters to second order, by
        the Sylvester equation that keeps C symmetric, solved twice, and by divided differences.
        """
        x, y = torch.broadcast_tensors(x, y)
        m = x.mT @ y
        finite = torch.isfinite(m).all(-1).all(-1)[..., None, None]
        left, d, right = torch.linalg.svd(torch.where(finite, m, 0.0).detach())
        d, right = d.clamp(max=1.0), right.mT
        core = torch.diag_embed(_angle_over_sine(d))
        if differentiated(m):
            turn, change = _symmetrised(d, left.mT @ (m - m.detach()) @ right)
            right, core = right @ turn, core + _expanded(d, change)
        # Of y - x and not of y: it keeps its digits where they are near.
        step = y - x
        sines = (step - x @ (x.mT @ step)) @ right
        align = right @ left.mT
        return self.proju(x, sines @ core @ left.mT), torch.where(finite, align, torch.nan)


def _symmetrised(d: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rotation W for which ``(D + E) W`` is symmetric, and ``(D + E) W - D``, to second order in ``E``.

    Args:
        d: the diagonal of D, ``(*batch, p)``, constants.
        e: E ``(*batch, p, p)``, zero in value.
    """
    sums = d[..., :, None] + d[..., None, :]
    safe = torch.where(sums > 0, sums, 1.0)
    first = (e.mT - e) / safe
    # What is left to turn when D + E was turned by 1 + first + first^2 / 2, which is a rotation to second order.
    once = e + d[..., :, None] * (first + first @ first / 2) + e @ first
    turn = first + first @ first / 2 + (once.mT - once) / safe
    return torch.eye(d.shape[-1], dtype=d.dtype, device=d.device) + turn, symmetrise(
        e + d[..., :, None] * turn + e @ first
    )


def _weights(rows: Tensor, columns: Tensor, like: Tensor) -> Tensor:
    diagonal = (rows == columns).to(like.dtype)
    return diagonal + (1 - diagonal) * math.sqrt(2)


def _angle_over_sine(c: Tensor) -> Tensor:
    """Return ``acos(c) / sqrt(1 - c^2)`` for c in [0, 1]: ``asin(s) / (s sqrt(1 - s^2))``, s the half angle's sine."""
    q = (1 - c) / 2
    zero = q <= 0
    s = torch.sqrt(torch.where(zero, 1.0, q))
    return torch.where(zero, 1.0, torch.asin(s) / s * torch.rsqrt(torch.where(zero, 1.0, 1 - q)))


def _expanded(d: Tensor, e: Tensor) -> Tensor:
    """Return ``f(D + E) - f(D)`` for f = `_angle_over_sine`, to second order in the symmetric ``E``.

    Divided differences of f are integrals of those of ``2 / (1 + t^2 + 2 t c)`` over t in [0, 1], which are products.
    With these nodes the error is that of rounding.
    """
    t, weights = (torch.tensor(a, dtype=d.dtype, device=d.device) for a in _GAUSS)
    resolvent = torch.reciprocal(1 + t * t + 2 * t * d[..., None])
    first = torch.einsum("k,...ik,...jk->...ij", -4 * weights * t, resolvent, resolvent)
    second = torch.einsum("k,...ik,...lk,...jk->...ilj", 8 * weights * t * t, resolvent, resolvent, resolvent)
    return first * e + torch.einsum("...ilj,...il,...lj->...ij", second, e, e)


_NODES, _WEIGHTS = gauss_legendre(14, torch.device("cpu"))
_GAUSS = ((1 + _NODES) / 2).tolist(), (_WEIGHTS / 2).tolist()
