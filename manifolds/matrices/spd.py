"""Symmetric positive definite matrices, with the affine-invariant and with the log-Euclidean metric."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from manifolds.arguments import integer
from manifolds.base import Manifold
from manifolds.kernel import Kernel
from manifolds.matrices.spectral import (
    eigh,
    gram_log,
    gram_sqrt,
    log_det_sinhc,
    log_det_sinhc_gradient,
    symmetric_exp,
    symmetric_exp_after,
    symmetric_exp_along,
    symmetric_exp_derivative,
    symmetric_log,
    symmetric_log_derivative,
    symmetric_log_difference,
    symmetrise,
)
from manifolds.numerics import differentiated, safe_sqrt


class _PositiveDefinite(Manifold):
    """What the two metrics share: the open cone of symmetric positive definite matrices ``(n, n)``."""

    injectivity_radius = math.inf

    def __init__(self, n: int) -> None:
        n = integer(type(self).__name__, "n", n)
        super().__init__(n * (n + 1) // 2, (n, n))
        self.n = n

    @property
    def other_forms(self) -> Mapping[tuple[int, ...], str]:
        if self.n == 1:
            return {}
        return {(self.dim,): "put the entries of a triangle in both halves of matrices, with torch.tril_indices"}

    # Projections.

    def projx(self, x: Tensor) -> Tensor:
        """Return the symmetric part, with eigenvalues below eight epsilons of the largest raised to sixteen.

        Inside the cone it is the symmetric part, bit for bit. A matrix of zeros counts as having size 1. The step from
        eight to sixteen is what rounding may move an eigenvalue: a second projection finds nothing to raise.
        """
        x = symmetrise(x)
        d, basis = eigh(x)
        size = d.abs().amax(-1, keepdim=True)
        floor = 16 * torch.finfo(x.dtype).eps * torch.where(size == 0, 1.0, size)
        low = d < floor / 2
        lift = torch.where(low, floor - d, 0.0)
        if not differentiated(x):
            return x + symmetrise((basis * lift[..., None, :]) @ basis.mT)
        gap = d[..., :, None] - d[..., None, :]
        flat = gap == 0
        slope = torch.where(
            flat, -low.to(x.dtype)[..., None], (lift[..., :, None] - lift[..., None, :]) / torch.where(flat, 1.0, gap)
        )
        core = torch.diag_embed(lift) + slope * (basis.mT @ (x - x.detach()) @ basis)
        return x + symmetrise(basis @ core @ basis.mT)

    def outside(self, x: Tensor) -> Tensor:
        """Return whether the symmetric part of ``x`` has no Cholesky factor: its eigenvalues are not all positive."""
        return torch.linalg.cholesky_ex(symmetrise(x)).info != 0

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """Return the symmetric part of ``u``."""
        return symmetrise(u).expand(torch.broadcast_shapes(x.shape, u.shape))

    # Bases and volume.

    def divergence_frame(self, x: Tensor) -> tuple[Tensor, Tensor]:
        basis = self._symmetric_basis(x).expand(*self.batch_shape(x), self.dim, self.n, self.n)
        return basis, basis

    # Coordinates for networks.

    def embed(self, x: Tensor) -> Tensor:
        """Return the independent entries of ``log x``, those off the diagonal times sqrt 2.

        Scales become shifts, a matrix and its inverse have opposite vectors, and Euclidean distances between the
        vectors are log-Euclidean distances.
        """
        rows, columns = torch.triu_indices(self.n, self.n, device=x.device)
        diagonal = (rows == columns).to(x.dtype)
        return symmetric_log(x)[..., rows, columns] * (diagonal + (1 - diagonal) * math.sqrt(2))

    @property
    def embed_dim(self) -> int:
        return self.dim

    # Checks, for the borders.

    def check_point(self, x: Tensor, tol: float | None = None) -> None:
        """Raise ValueError unless every entry of ``x`` is symmetric to ``tol`` and positive definite."""
        super().check_point(x, tol)
        bad = self.outside(x)
        if bool(bad.any()):
            raise ValueError(
                f"points of {self}: {int(bad.sum())} of {bad.numel()} are not positive definite in {x.dtype}; project "
                f"them with {type(self).__name__}.projx, or use float64 if their eigenvalues spread too far"
            )

    def extra_repr(self) -> str:
        return str(self.n)

    # Parts.

    def _symmetric_basis(self, x: Tensor) -> Tensor:
        """Return a basis of the symmetric matrices, orthonormal in the dot product of entries: ``(dim, n, n)``."""
        eye = torch.eye(self.n, dtype=x.dtype, device=x.device)
        rows, columns = torch.triu_indices(self.n, self.n, device=x.device)
        product = eye[rows][:, :, None] * eye[columns][:, None, :]
        diagonal = (rows == columns).to(x.dtype)[:, None, None]
        return (diagonal / 2 + (1 - diagonal) * math.sqrt(0.5)) * (product + product.mT)


class SPD(_PositiveDefinite):
    """Symmetric positive definite matrices with the affine-invariant metric tr(X^-1 U X^-1 V).

    Points are ``(n, n)``; ``X -> A X A'`` is an isometry for every invertible A. Curvature is non-positive, distances
    are not bounded. Documented domain: the logarithms of a point's eigenvalues spread over at most 12 in float32, 30 in
    float64. A matrix that is not positive definite gives NaN, for itself only.

    Every map whitens with the Cholesky factor L of X, ``U -> L^-1 U L^-T``, where the literature has the symmetric root
    of X: both carry X to the identity, so they differ by a rotation that drops out, and L is smooth and cheap. First
    and second derivatives of every map are exact, those of third order are not finite.

    Args:
        n: size of the matrices; the dimension is n (n + 1) / 2.

    References:
        Pennec, Fillard, Ayache: A Riemannian Framework for Tensor Computing, 2006, doi:10.1007/s11263-005-3222-z,
        section 3 (exp, log, distance). Sra, Hosseini: Conic Geometric Optimization on the Manifold of Positive Definite
        Matrices, 2015, arXiv:1312.1039, section 4 (parallel transport). Said et al.: Riemannian Gaussian Distributions
        on the Space of Symmetric Positive Definite Matrices, 2017, arXiv:1507.01760, proposition 3 (volume).
    """

    # Metric.

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        root = _cholesky(x)
        return (_whiten(root, u) * _whiten(root, v)).sum((-2, -1))

    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        log = gram_log(*_quotient(_cholesky(x), x, y))
        return safe_sqrt((log * log).sum((-2, -1)))

    # Geodesics.

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        root = _cholesky(x)
        return _congruence(root, symmetric_exp(_whiten(root, u)))

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        root = _cholesky(x)
        return _congruence(root, gram_log(*_quotient(root, x, y)))

    def shoot(self, x: Tensor, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        root = _cholesky(x)
        w = _whiten(root, u)
        step = symmetric_exp(self.lift(t) * w)
        return _congruence(root, step), _congruence(root, w @ step)

    def transp(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        """Carry ``u`` along the geodesic (parallel transport): ``E u E'`` with ``E = (y x^-1)^(1/2)``."""
        root = _cholesky(x)
        middle = gram_sqrt(*_quotient(root, x, y))
        return _congruence(root @ middle, _whiten(root, u))

    # Bases and volume.

    def tangent_basis(self, x: Tensor) -> Tensor:
        return _congruence(_cholesky(x)[..., None, :, :], self._symmetric_basis(x))

    def log_volume_derivative(self, x: Tensor, u: Tensor) -> Tensor:
        """The volume has density ``det(x)^(-(n+1)/2)``."""
        whitened = _whiten(_cholesky(x), u)
        return -(self.n + 1) / 2 * torch.diagonal(whitened, dim1=-2, dim2=-1).sum(-1)

    def log_det_expmap(self, x: Tensor, u: Tensor) -> Tensor:
        """With d the eigenvalues of ``x^-1 u``: the sum over pairs of ``log(sinh(a) / a)``, ``a = (d_i - d_j) / 2``."""
        return log_det_sinhc(_whiten(_cholesky(x), u))

    # Means.

    def frechet_mean(self, points: Tensor, weights: Tensor | None = None, steps: int = 50) -> Tensor:
        """Return the point with the least weighted sum of squared distances to ``points``; it is unique.

        Runs gradient descent from the log-Euclidean mean, always ``steps`` times, with the step length that minimises
        the bound on its rate. The result may be judged by ``logmap(mean, points)``, whose weighted sum is zero at the
        mean; points with logarithms within 6 of each other are at rounding error long before 50 steps.

        Args:
            points: ``(*batch, k, n, n)``, averaged over k.
            weights: ``(*batch, k)``, non-negative with a positive sum; equal by default.
            steps: number of iterations.

        References:
            Bini, Iannazzo: Computing the Karcher mean of symmetric positive definite matrices, 2013,
            doi:10.1016/j.laa.2011.08.052, section 3.
        """
        w = _normalised(points, weights)
        mean = symmetric_exp((w * symmetric_log(points)).sum(-3))
        for _ in range(steps):
            root = _cholesky(mean)[..., None, :, :]
            logs = gram_log(*_quotient(root, mean[..., None, :, :], points))
            d = eigh(logs)[0]
            # The Hessian of half the squared distance lies between 1 and a coth(a), a half the spread of the logs.
            half = ((d[..., -1] - d[..., 0]) / 2).clamp(min=1e-3)
            bound = (w[..., 0, 0] * half / torch.tanh(half)).sum(-1)
            step = 2 / (1 + bound)[..., None, None] * (w * logs).sum(-3)
            mean = _congruence(root[..., 0, :, :], symmetric_exp(step))
        return mean


class LogEuclideanSPD(_PositiveDefinite):
    """Symmetric positive definite matrices with the metric that makes the matrix logarithm an isometry to flat space.

    Points are ``(n, n)``; ``inner(X, U, V) = tr(Dlog_X[U] Dlog_X[V])``, with the derivative of the logarithm. The space
    is flat and geodesics are ``exp`` of straight lines; ``X -> s R X R'`` is an isometry for rotations R and numbers
    s > 0, ``X -> A X A'`` in general is not. Documented domain as for `SPD`.

    First and second derivatives of every map are exact, those of third order are not finite.

    Args:
        n: size of the matrices; the dimension is n (n + 1) / 2.

    References:
        Arsigny, Fillard, Pennec, Ayache: Geometric Means in a Novel Vector Space Structure on Symmetric
        Positive-Definite Matrices, 2007, doi:10.1137/050637996, section 3.
    """

    # Metric.

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return (symmetric_log_derivative(x, u) * symmetric_log_derivative(x, v)).sum((-2, -1))

    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        difference = symmetric_log_difference(x, y)
        return safe_sqrt((difference * difference).sum((-2, -1)))

    # Geodesics.

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return symmetric_exp_along(x, u)

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        return symmetric_exp_derivative(symmetric_log(x), symmetric_log_difference(x, y))

    def shoot(self, x: Tensor, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.expmap(x, self.lift(t) * u), self._velocity(x, symmetric_log_derivative(x, u), t)

    def geodesic(self, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        velocity = symmetric_log_difference(x, y)
        return symmetric_exp_after(x, self.lift(t) * velocity), self._velocity(x, velocity, t)

    def transp(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        """Carry ``u`` to ``y`` (parallel transport, along any path): its image under Dlog stays the same."""
        return symmetric_exp_derivative(symmetric_log(y), symmetric_log_derivative(x, u))

    # Bases and volume.

    def tangent_basis(self, x: Tensor) -> Tensor:
        return symmetric_exp_derivative(symmetric_log(x)[..., None, :, :], self._symmetric_basis(x))

    def log_volume_derivative(self, x: Tensor, u: Tensor) -> Tensor:
        """The volume has density ``det Dlog_x``: det(x)^(-(n+1)/2), less the determinant of `SPD.log_det_expmap`."""
        s = symmetric_log(x)
        v = symmetric_log_derivative(x, u)
        trace = torch.diagonal(v, dim1=-2, dim2=-1).sum(-1)
        return -(self.n + 1) / 2 * trace - (log_det_sinhc_gradient(s) * v).sum((-2, -1))

    def log_det_expmap(self, x: Tensor, u: Tensor) -> Tensor:
        """Zero: the space is flat."""
        return torch.zeros_like((x + u)[..., 0, 0])

    @property
    def kernel(self) -> Kernel:
        """Images of normal densities of variance ``1 / concentration``: `embed` is an isometry to flat space."""
        return _LogNormal(self)

    def _velocity(self, x: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
        """Return the velocity at ``t`` of the geodesic from ``x`` whose logarithm has a constant one."""
        return symmetric_exp_derivative(symmetric_log(x) + self.lift(t) * velocity, velocity)

    # Means.

    def frechet_mean(self, points: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the point with the least weighted sum of squared distances: ``exp`` of the mean logarithm.

        Args:
            points: ``(*batch, k, n, n)``, averaged over k.
            weights: ``(*batch, k)``, non-negative with a positive sum; equal by default.
        """
        return symmetric_exp((_normalised(points, weights) * symmetric_log(points)).sum(-3))


class _LogNormal(Kernel):
    manifold: LogEuclideanSPD

    def log_normaliser(self, concentration: Tensor) -> Tensor:
        """The Gaussian integral: `embed` is an isometry to flat space."""
        return self.manifold.dim / 2 * torch.log(2 * math.pi / concentration)

    def sample(self, x: Tensor, concentration: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return ``exp`` of normal matrices with mean ``log x`` and variance ``1 / concentration``."""
        batch = torch.broadcast_shapes(x.shape[:-2], concentration.shape)
        normal = torch.randn(*batch, self.manifold.dim, generator=generator, dtype=x.dtype, device=x.device)
        step = (normal[..., None, None] * self.manifold._symmetric_basis(x)).sum(-3)
        width = self.manifold.lift(torch.rsqrt(concentration)).to(x.dtype)
        return symmetric_exp_after(x.expand(*batch, *x.shape[-2:]), step * width)


def _cholesky(x: Tensor) -> Tensor:
    """Return the lower Cholesky factor, or NaN for a matrix that has none: raising would end a batch for one entry."""
    root, info = torch.linalg.cholesky_ex(x)
    return torch.where((info == 0)[..., None, None], root, torch.nan)


def _whiten(root: Tensor, u: Tensor) -> Tensor:
    """Return ``L^-1 u L^-T``."""
    half = torch.linalg.solve_triangular(root, u, upper=False)
    return symmetrise(torch.linalg.solve_triangular(root, half.mT, upper=False))


def _congruence(a: Tensor, w: Tensor) -> Tensor:
    """Return the symmetric matrix ``a w a'``."""
    return symmetrise(a @ w @ a.mT)


def _quotient(root: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the arguments of `gram_log` for ``L^-1 y L^-T``.

    They are ``b = L^-1 L_y``, ``b b' - I`` as a difference form, and how L and y move, relative to themselves.
    """
    root, other = root.detach(), _cholesky(y.detach())
    b = torch.linalg.solve_triangular(root, other, upper=False)
    e = _whiten(root, (y - x).detach())
    if not (differentiated(x) or differentiated(y)):
        zero = torch.zeros((), dtype=b.dtype, device=b.device)
        return b, e, zero, zero
    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    turn = torch.linalg.cholesky_ex(eye + _whiten(root, x - x.detach())).L
    left = torch.linalg.solve_triangular(turn, eye.expand_as(turn), upper=False) - eye
    return b, e, left, _whiten(other, y - y.detach())


def _normalised(points: Tensor, weights: Tensor | None) -> Tensor:
    """Return weights that add up to one, ``(*batch, k, 1, 1)``."""
    w = torch.ones_like(points[..., 0, 0]) if weights is None else weights
    return (w / w.sum(-1, keepdim=True))[..., None, None]
