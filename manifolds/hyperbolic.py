"""Hyperbolic space: the hyperboloid and the Poincare ball, isometric pictures of one manifold.

Both documents call R = 1 / sqrt(c) the radius of curvature, and a point's distance from the origin its radius r.
Coordinates, or the metric, grow like e^(r / R) / 2; at r = 10 R a point stored in float32 is only defined to 7e-4 R
across the radius. That is the condition number of the representation, and what the maps below add to it is rounding.

References:
    Nickel, Kiela: Learning Continuous Hierarchies in the Lorentz Model of Hyperbolic Geometry, 2018, arXiv:1806.03417,
    section 3 (both models, exp and log). Ungar: Analytic Hyperbolic Geometry, 2005, sections 3 and 10 (addition,
    gyrations). Nagano et al.: A Wrapped Normal Distribution on Hyperbolic Space, 2019, arXiv:1902.02992, appendix A
    (the determinant of exp).
"""

import math

import torch
from torch import Tensor

from manifolds.base import Manifold
from manifolds.numerics import cosh_of_root, horner, log_sinhc_of_root, safe_sqrt, sinhc_of_root


class Hyperboloid(Manifold):
    """The upper sheet of the hyperboloid, H^n with curvature -c, in Minkowski space R^(1+n).

    Points ``(n + 1,)`` satisfy ``-x_0^2 + x_1^2 + ... + x_n^2 = -1 / c`` and ``x_0 > 0``; the metric is the Minkowski
    product ``-u_0 v_0 + u_1 v_1 + ... + u_n v_n`` of tangent vectors. The origin is ``(1 / sqrt(c), 0, ..., 0)``.
    Documented domain: radius 10 / sqrt(c) in float32, 20 / sqrt(c) in float64.

    Points and tangent vectors are held by their spatial part: ``projx`` recomputes ``x_0`` and ``proju`` recomputes
    ``u_0`` from the rest. The Minkowski-orthogonal projection multiplies rounding errors by ``c x_0^2``, 1e8 at radius
    10. For the same reason `check_point` compares ``x_0`` with the one that belongs to the spatial part, relative to
    ``|x|``: the residual of the quadratic equation is lost to rounding in a point that is as good as can be.

    Args:
        n: intrinsic dimension, at least 1.
        curvature: c > 0; the sectional curvature is -c.
    """

    injectivity_radius = math.inf

    def __init__(self, n: int, curvature: float = 1.0) -> None:
        super().__init__(n, (n + 1,))
        self.n = n
        self.curvature = _checked_curvature(type(self).__name__, curvature)

    # Projections.

    def projx(self, x: Tensor) -> Tensor:
        """Return the point with the same spatial part."""
        return self._point(x[..., 1:])

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """Return the tangent vector with the same spatial part: the derivative of ``projx``."""
        return self._tangent(x, u[..., 1:])

    # Metric.

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return (self._coefficients(x, u) * self._coefficients(x, v)).sum(-1)

    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        return 2 * self._radius * torch.asinh(safe_sqrt(self.curvature * self._chord2(x, y)) / 2)

    # Geodesics.

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        q = self.curvature * self.inner(x, u, u)[..., None]
        return self._point(cosh_of_root(q) * x[..., 1:] + sinhc_of_root(q) * u[..., 1:])

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        k = self.curvature * self._chord2(x, y)[..., None] / 4
        return self._tangent(x, _angle_over_sinh(k) * ((y - x)[..., 1:] - 2 * k * x[..., 1:]))

    def shoot(self, x: Tensor, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        s = t[..., None]
        q = self.curvature * self.inner(x, u, u)[..., None]
        cosh, sinhc = cosh_of_root(s * s * q), sinhc_of_root(s * s * q)
        x_t = self._point(cosh * x[..., 1:] + s * sinhc * u[..., 1:])
        return x_t, self._tangent(x_t, cosh * u[..., 1:] + s * q * sinhc * x[..., 1:])

    def transp(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        """Carry ``u`` along the geodesic (parallel transport).

        ``u + <y, u> / (1/c - <x, y>) (x + y)`` would cancel far from the origin. Coefficients in `tangent_basis` are
        turned instead, by the gyration of `PoincareBall.transp`.
        """
        r, xs, s = self._radius, x[..., 1:], x + y
        a, b = 2 * r / (x[..., :1] + r), 2 * r / (y[..., :1] + r)
        # The difference of the points in the unit ball, p = x_s / (x_0 + R), from that of their spatial parts.
        ball, d = xs / (x[..., :1] + r), (y - x)[..., 1:]
        d = (d - (d * s[..., 1:]).sum(-1, keepdim=True) / s[..., :1] * ball) / (y[..., :1] + r)
        return self._combination(y, _gyrate(ball, d, a, b, self._coefficients(x, u)))

    # Bases and volume.

    def tangent_basis(self, x: Tensor) -> Tensor:
        """Return the standard basis at the origin carried to ``x`` along the radius: all terms add, none cancel."""
        r, xs = self._radius, x[..., 1:]
        spatial = (
            torch.eye(self.n, dtype=x.dtype, device=x.device)
            + (xs / (r * (x[..., :1] + r)))[..., None] * (xs[..., None, :])
        )
        return torch.cat([(xs / r)[..., None], spatial], dim=-1)

    def divergence_frame(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the frame of the chart of spatial parts: ``e_i`` lifts the i-th axis, ``w_i`` reads it.

        With a Minkowski-orthonormal basis ``e_i`` and ``w_i = J e_i`` the sum is the same, but of terms of size
        ``c x_0^2`` that cancel.
        """
        eye = torch.eye(self.n, dtype=x.dtype, device=x.device).expand(*x.shape[:-1], self.n, self.n)
        slope = (x[..., 1:] / x[..., :1])[..., None]
        return torch.cat([slope, eye], dim=-1), torch.cat([torch.zeros_like(slope), eye], dim=-1)

    def log_volume_derivative(self, x: Tensor, u: Tensor) -> Tensor:
        """In the chart of spatial parts the volume has density ``1 / (sqrt(c) x_0)``."""
        return -(x[..., 1:] * u[..., 1:]).sum(-1) / (x[..., 0] * x[..., 0])

    def log_det_expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return (self.n - 1) * log_sinhc_of_root(self.curvature * self.inner(x, u, u))

    # Coordinates for networks.

    def embed(self, x: Tensor) -> Tensor:
        """Return normal coordinates at the origin: length ``dist(origin, x)``, direction of the spatial part.

        They grow like the radius, where the coordinates themselves grow exponentially.
        """
        xs = x[..., 1:]
        return _asinh_over_argument(self.curvature * (xs * xs).sum(-1, keepdim=True)) * xs

    @property
    def embed_dim(self) -> int:
        return self.n

    def to_poincare(self, x: Tensor) -> Tensor:
        """Return the same points in ``PoincareBall(n, curvature)``, ``(*batch, n)``: an isometry."""
        return x[..., 1:] * self._radius / (x[..., :1] + self._radius)

    def extra_repr(self) -> str:
        return f"{self.n}, curvature={self.curvature}"

    # Parts.

    @property
    def _radius(self) -> float:
        return 1 / math.sqrt(self.curvature)

    def _point(self, xs: Tensor) -> Tensor:
        return torch.cat([torch.sqrt(1 / self.curvature + (xs * xs).sum(-1, keepdim=True)), xs], dim=-1)

    def _tangent(self, x: Tensor, us: Tensor) -> Tensor:
        xs = x[..., 1:]
        u0 = (xs / x[..., :1] * us).sum(-1, keepdim=True)
        return torch.cat([u0, us.expand(*u0.shape[:-1], self.n)], dim=-1)

    def _coefficients(self, x: Tensor, u: Tensor) -> Tensor:
        """Return the coefficients of ``u`` in `tangent_basis`, ``(*batch, n)``."""
        r, xs, us = self._radius, x[..., 1:], u[..., 1:]
        x0, p2 = x[..., :1], (xs * xs).sum(-1, keepdim=True)
        xu = (xs * us).sum(-1, keepdim=True)
        # The part along the radius shrinks by R / x_0. Far from the origin it is taken apart first, and what rounding
        # leaves of it in the other part is removed once more.
        near = self.curvature * p2 < 1
        p2 = torch.where(near, 1.0, p2)
        across = us - xu / p2 * xs
        across = across - (xs * across).sum(-1, keepdim=True) / p2 * xs
        return torch.where(near, us - xu / (x0 * (x0 + r)) * xs, across + xu * r / (p2 * x0) * xs)

    def _combination(self, x: Tensor, w: Tensor) -> Tensor:
        """Return the tangent vector with coefficients ``w`` in `tangent_basis`; all terms add."""
        r, xs = self._radius, x[..., 1:]
        u0 = (xs * w).sum(-1, keepdim=True) / r
        return torch.cat([u0, w + u0 / (x[..., :1] + r) * xs], dim=-1)

    def _chord2(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the Minkowski square of ``y - x``, which is ``4 R^2 sinh^2(dist / 2R)``, without cancellation."""
        xs, ys, x0, y0 = x[..., 1:], y[..., 1:], x[..., 0], y[..., 0]
        d = ys - xs
        d2, x2, y2, xy = (d * d).sum(-1), (xs * xs).sum(-1), (ys * ys).sum(-1), (xs * ys).sum(-1)
        r2, s0 = 1 / self.curvature, x0 + y0
        d0 = (d * (xs + ys)).sum(-1) / s0
        # Close to the origin |d_0| is at most 0.87 |d|, and the plain difference loses nothing. Farther out, points in
        # different directions make sums of positive terms. In similar directions the parts along and across them are
        # taken apart, chord^2 (|x + y|^2 - d_0^2) = 4 |x ^ y|^2 + 4 R^2 d_0^2, with the area |x ^ y| from the longer of
        # x and y and the shortest side of the triangle, whose rounding is the least.
        close = s0 < 4 * self._radius
        apart = ~close & (2 * xy <= x0 * y0)
        plain = close | apart
        longer = torch.where((x2 >= y2)[..., None], xs, ys)
        side = torch.where((d2 < torch.minimum(x2, y2))[..., None], d, torch.where((x2 >= y2)[..., None], ys, xs))
        l2 = torch.where(plain, 1.0, torch.maximum(x2, y2))
        across = side - ((side * longer).sum(-1) / l2)[..., None] * longer
        area = 4 * l2 * (across * across).sum(-1) + 4 * r2 * d0 * d0
        along = area / torch.where(plain, 1.0, 2 * (x0 * y0 - r2 + xy))
        return torch.where(close, d2 - d0 * d0, torch.where(apart, 2 * (x0 * y0 - r2 - xy), along))


class PoincareBall(Manifold):
    """The ball ``c |x|^2 < 1`` in R^n with the metric ``lambda^2 <u, v>``, lambda = 2 / (1 - c |x|^2), curvature -c.

    Points are ``(n,)``, the origin is 0. Documented domain: radius 10 / sqrt(c) in float32, 20 / sqrt(c) in float64,
    where ``1 - sqrt(c) |x|`` has four and eight digits left. ``projx`` and ``expmap`` stop four epsilons short of the
    boundary; inside, ``projx`` is the identity.

    Args:
        n: intrinsic dimension, at least 1.
        curvature: c > 0; the sectional curvature is -c.
    """

    injectivity_radius = math.inf

    def __init__(self, n: int, curvature: float = 1.0) -> None:
        super().__init__(n, (n,))
        self.n = n
        self.curvature = _checked_curvature(type(self).__name__, curvature)

    # Projections.

    def projx(self, x: Tensor) -> Tensor:
        """Return ``x``, or the point on its ray four epsilons inside the boundary if ``x`` is beyond that."""
        bound = 1 - 4 * torch.finfo(x.dtype).eps
        size2 = self.curvature * (x * x).sum(-1, keepdim=True)
        beyond = size2 > bound * bound
        return torch.where(beyond, x * (bound / torch.sqrt(torch.where(beyond, size2, 1.0))), x)

    def outside(self, x: Tensor) -> Tensor:
        """Return whether ``x`` is on the boundary or beyond."""
        return ~(self.curvature * (x * x).sum(-1) < 1)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return u.expand(torch.broadcast_shapes(x.shape, u.shape))

    # Metric.

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        scale = 2 / self._gap(x)
        return ((scale * u) * (scale * v)).sum(-1)

    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        return 2 / math.sqrt(self.curvature) * torch.asinh(safe_sqrt(self._half_chord2(x, y)[..., 0]))

    # Geodesics.

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        a = self._gap(x)
        q = self.curvature * ((u / a) ** 2).sum(-1, keepdim=True)
        w, sech2 = sinhc_of_root(q) / cosh_of_root(q) * u / a, 1 / cosh_of_root(q) ** 2
        m = x + w
        m2 = self.curvature * (m * m).sum(-1, keepdim=True)
        # The Moebius sum of x and w, with its denominator 1 + 2c<x, w> + c^2 |x|^2 |w|^2 as a sum of positive terms. As
        # a step from x, because the derivative of the sum itself is left over from terms 1 / a times as large.
        w2 = self.curvature * (w * w).sum(-1, keepdim=True)
        return self.projx(x + a * (w + w2 * x) / (a * sech2 + m2))

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        d, a, b = y - x, self._gap(x), self._gap(y)
        d2 = self.curvature * (d * d).sum(-1, keepdim=True)
        return _angle_over_sinh(d2 / (a * b)) * (a * d - d2 * x) / b

    def shoot(self, x: Tensor, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        c, s, a = self.curvature, t[..., None], self._gap(x)
        q = c * ((u / a) ** 2).sum(-1, keepdim=True) * s * s
        w, sech2 = s * sinhc_of_root(q) / cosh_of_root(q) * u / a, 1 / cosh_of_root(q) ** 2
        dw, w2 = sech2 * u / a, (w * w).sum(-1, keepdim=True)
        m = x + w
        m2 = c * (m * m).sum(-1, keepdim=True)
        denominator = a * sech2 + m2
        step = w + c * w2 * x
        x_t = self.projx(x + a * step / denominator)
        # The derivative of that quotient.
        w_dw, m_dw = (w * dw).sum(-1, keepdim=True), (m * dw).sum(-1, keepdim=True)
        dx_t = a / denominator * (dw + 2 * c * w_dw * x_t - 2 * c * m_dw / denominator * step)
        return x_t, dx_t

    def transp(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        """Carry ``u`` along the geodesic (parallel transport): a gyration of ``u``, scaled by the ratio of lambdas."""
        c, d, a, b = self.curvature, y - x, self._gap(x), self._gap(y)
        return b / a * _gyrate(math.sqrt(c) * x, math.sqrt(c) * d, a, b, u)

    # Bases and volume.

    def tangent_basis(self, x: Tensor) -> Tensor:
        return self._gap(x)[..., None] / 2 * torch.eye(self.n, dtype=x.dtype, device=x.device)

    def divergence_frame(self, x: Tensor) -> tuple[Tensor, Tensor]:
        basis = torch.eye(self.n, dtype=x.dtype, device=x.device).expand(*x.shape[:-1], self.n, self.n)
        return basis, basis

    def log_volume_derivative(self, x: Tensor, u: Tensor) -> Tensor:
        """The volume has density ``lambda^n``."""
        return 2 * self.n * self.curvature * (x * u / self._gap(x)).sum(-1)

    def log_det_expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return (self.n - 1) * log_sinhc_of_root(self.curvature * self.inner(x, u, u))

    # Coordinates for networks.

    def embed(self, x: Tensor) -> Tensor:
        """Return normal coordinates at the origin, the same as those of `Hyperboloid.embed`."""
        k = self.curvature * (x * x).sum(-1, keepdim=True) / self._gap(x)
        return 2 * torch.sqrt(1 + k) * _asinh_over_argument(k) * x

    def to_hyperboloid(self, x: Tensor) -> Tensor:
        """Return the same points in ``Hyperboloid(n, curvature)``, ``(*batch, n + 1)``: an isometry."""
        xs = 2 * x / self._gap(x)
        return torch.cat([torch.sqrt(1 / self.curvature + (xs * xs).sum(-1, keepdim=True)), xs], dim=-1)

    # Checks, for the borders.

    def check_point(self, x: Tensor, tol: float | None = None) -> None:
        """Raise ValueError unless every entry of ``x`` is strictly inside the ball: on the sphere the metric ends."""
        super().check_point(x, tol)
        outside = self._gap(x)[..., 0] <= 0
        if bool(outside.any()):
            raise ValueError(
                f"points of {self}: {int(outside.sum())} of {outside.numel()} are not inside the open ball of radius "
                f"{1 / math.sqrt(self.curvature):.6g}; project them with PoincareBall.projx"
            )

    def extra_repr(self) -> str:
        return f"{self.n}, curvature={self.curvature}"

    # Parts.

    def _gap(self, x: Tensor) -> Tensor:
        """Return ``1 - c |x|^2``, ``(*batch, 1)``."""
        return 1 - self.curvature * (x * x).sum(-1, keepdim=True)

    def _half_chord2(self, x: Tensor, y: Tensor) -> Tensor:
        """Return ``sinh^2(dist / 2R)``, ``(*batch, 1)``."""
        d = y - x
        return self.curvature * (d * d).sum(-1, keepdim=True) / (self._gap(x) * self._gap(y))


def _checked_curvature(name: str, curvature: float) -> float:
    if not 0 < curvature < math.inf:
        raise ValueError(
            f"{name}: curvature is the c > 0 of a space whose curvature is -c, got {curvature}; for flat space use "
            "Euclidean"
        )
    return float(curvature)


def _gyrate(x: Tensor, d: Tensor, a: Tensor, b: Tensor, u: Tensor) -> Tensor:
    """Return ``gyr[y, -x] u`` in the unit ball, for ``y = x + d``, ``a = 1 - |x|^2``, ``b = 1 - |y|^2``.

    It turns the plane of x and y by twice the angle of ``1 - y conj(x)``: the Cayley transform of ``x y' - y x'``, in
    which y may be replaced by d. ``1 - <x, y>`` is ``(a + b + |d|^2) / 2``.
    """
    d2 = (d * d).sum(-1, keepdim=True)
    turned = _wedge(x, d, u)
    return u + ((a + b + d2) * turned + 2 * _wedge(x, d, turned)) / (a * b + d2)


def _wedge(x: Tensor, y: Tensor, u: Tensor) -> Tensor:
    """Return ``(x y' - y x') u``."""
    return x * (y * u).sum(-1, keepdim=True) - y * (x * u).sum(-1, keepdim=True)


def _angle_over_sinh(k: Tensor) -> Tensor:
    """Return ``a / sinh(a)`` from ``k = sinh^2(a/2) >= 0``, smooth at 0."""
    small = k < _SERIES_BOUND
    root = torch.sqrt(torch.where(small, 1.0, k))
    series = horner(torch.where(small, k, 0.0), _ANGLE_OVER_SINH)
    return torch.where(small, series, torch.asinh(root) / (root * torch.sqrt(1 + root * root)))


def _asinh_over_argument(k: Tensor) -> Tensor:
    """Return ``asinh(z) / z`` at ``z = sqrt(k)`` for ``k >= 0``, smooth at 0."""
    small = k < _SERIES_BOUND
    root = torch.sqrt(torch.where(small, 1.0, k))
    return torch.where(small, horner(torch.where(small, k, 0.0), _ASINH), torch.asinh(root) / root)


_SERIES_BOUND = 0.01
_ANGLE_OVER_SINH = tuple((-1) ** k * math.prod(2 * j / (2 * j + 1) for j in range(1, k + 1)) for k in range(9))
_ASINH = tuple((-1) ** k * math.comb(2 * k, k) / (4**k * (2 * k + 1)) for k in range(9))
