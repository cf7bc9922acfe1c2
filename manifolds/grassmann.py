"""The Grassmann manifold of subspaces."""

import math

import torch
from torch import Tensor

from manifolds.arguments import whole
from manifolds.base import Manifold
from manifolds.numerics import horner, safe_sqrt, sinc_of_root
from manifolds.orthonormal import canonical_end, canonical_geodesic, canonical_transport, haar, polar
from manifolds.spectral import eigh, symmetrise
from manifolds.stiefel import out_of_span, sphere_area


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
    pi / 2 it has no derivative, and gives a finite one. First derivatives of ``logmap``, ``dist`` and ``transp`` are
    exact; second ones are not.

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
        n, p = (whole(type(self).__name__, name, value, None) for name, value in (("n", n), ("p", p)))
        if not 1 <= p < n:
            raise ValueError(
                f"Grassmann: needs 1 <= p < n, got n {n} and p {p}; take subspaces of dimension 1 to n - 1, "
                "there is only one of full dimension"
            )
        super().__init__(p * (n - p), (n, p))
        self.n = n
        self.p = p
        frames = math.prod(sphere_area(k) for k in range(n - p + 1, n + 1))
        self.volume = frames / math.prod(sphere_area(k) for k in range(1, p + 1))

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

    def divergence_frame(self, x: Tensor) -> tuple[Tensor, Tensor]:
        basis = out_of_span(x)
        return basis, basis

    def log_det_expmap(self, x: Tensor, u: Tensor) -> Tensor:
        """With a the angles of ``u``, the singular values: each pair stretches by the sincs of sum and difference.

        ``sinc(a_i)`` has the power n - 2 p, also where that is negative: then 2 p - n of the p angles are zero, and the
        pairs with them count it too often. First derivatives are exact.
        """
        u = self.proju(x, u)
        gram = u.mT @ u
        q, basis = eigh(gram)
        q = q.clamp(min=0.0) + torch.diagonal(basis.mT @ (gram - gram.detach()) @ basis, dim1=-2, dim2=-1)
        rows, columns = torch.tril_indices(self.p, self.p, offset=-1, device=x.device)
        a = safe_sqrt(q)
        sums, gaps = a[..., rows] + a[..., columns], a[..., rows] - a[..., columns]
        pairs = torch.log(torch.abs(sinc_of_root(sums * sums))) + torch.log(torch.abs(sinc_of_root(gaps * gaps)))
        return pairs.sum(-1) + (self.n - 2 * self.p) * torch.log(torch.abs(sinc_of_root(q))).sum(-1)

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
        ``x'y = P D R'`` as P D P' and R P', where P and R are constants and what varies enters to first order, by
        the Sylvester equation that keeps C symmetric and by divided differences.
        """
        x, y = torch.broadcast_tensors(x, y)
        m = x.mT @ y
        finite = torch.isfinite(m).all(-1).all(-1)[..., None, None]
        left, d, right = torch.linalg.svd(torch.where(finite, m, 0.0).detach())
        d, right = d.clamp(max=1.0), right.mT
        e = left.mT @ (m - m.detach()) @ right
        sums = d[..., :, None] + d[..., None, :]
        turn = (e.mT - e) / torch.where(sums > 0, sums, 1.0)
        change = symmetrise(e + d[..., :, None] * turn)
        core = torch.diag_embed(_angle_over_sine(d)) + _divided(d) * change
        # Of y - x and not of y: it keeps its digits where they are near.
        step = y - x
        sines = (step - x @ (x.mT @ step)) @ (right + right @ turn)
        align = (right + right @ turn) @ left.mT
        return self.proju(x, sines @ core @ left.mT), torch.where(finite, align, torch.nan)


def _weights(rows: Tensor, columns: Tensor, like: Tensor) -> Tensor:
    diagonal = (rows == columns).to(like.dtype)
    return diagonal + (1 - diagonal) * math.sqrt(2)


def _angle_over_sine(c: Tensor) -> Tensor:
    """Return ``acos(c) / sqrt(1 - c^2)`` for c in [0, 1]: ``asin(s) / (s sqrt(1 - s^2))``, s the half angle's sine."""
    q = (1 - c) / 2
    zero = q <= 0
    s = torch.sqrt(torch.where(zero, 1.0, q))
    return torch.where(zero, 1.0, torch.asin(s) / s * torch.rsqrt(torch.where(zero, 1.0, 1 - q)))


def _slope(c: Tensor) -> Tensor:
    """Return the derivative of `_angle_over_sine`, which solves ``(1 - c^2) f' = c f - 1``."""
    q = (1 - c) / 2
    small = q < 0.1
    safe = torch.where(small, 0.5, c)
    far = (safe * _angle_over_sine(safe) - 1) / (1 - safe * safe)
    return torch.where(small, -horner(torch.where(small, q, 0.0), _SLOPE) / 2, far)


def _divided(c: Tensor) -> Tensor:
    """Return the divided differences of `_angle_over_sine`, ``(*batch, p, p)``."""
    a, b = torch.broadcast_tensors(c[..., :, None], c[..., None, :])
    close = (a - b).abs() < 0.02
    gauss = torch.zeros_like(a)
    for node, weight in _GAUSS:
        gauss = gauss + weight * _slope((a + b) / 2 + node * (a - b))
    return torch.where(close, gauss, (_angle_over_sine(a) - _angle_over_sine(b)) / torch.where(close, 1.0, a - b))


_SERIES = tuple(math.prod(2 * j / (2 * j + 1) for j in range(1, k + 1)) for k in range(18))
_SLOPE = tuple(k * coefficient for k, coefficient in enumerate(_SERIES))[1:]
_GAUSS = ((-math.sqrt(0.15), 5 / 18), (0.0, 8 / 18), (math.sqrt(0.15), 5 / 18))
