"""Hyperbolic space as a sheet of a hyperboloid; see `manifolds.hyperbolic`."""

import math

import torch
from torch import Tensor

from manifolds.arguments import integer
from manifolds.base import Manifold
from manifolds.numerics import (
    Components,
    components_first,
    components_last,
    cosh_and_sinhc_of_root,
    dot,
    each,
    joined,
    log_sinhc_of_root,
    pick,
    safe_sqrt,
    size,
)
from manifolds.numerics.hyperbolic_functions import angle_over_sinh, asinh_over_argument, checked_curvature, gyrate


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
        n = integer(type(self).__name__, "n", n)
        super().__init__(n, (n + 1,))
        self.n = n
        self.curvature = checked_curvature(type(self).__name__, curvature)

    # Projections.

    def projx(self, x: Tensor) -> Tensor:
        """Return the point with the same spatial part."""
        xs = components_first(x[..., 1:])
        # Far beyond the domain the square of the first coordinate overflows before it does.
        far = size(xs).clamp(min=self._radius)
        near = each(lambda a: a / far, xs)
        first = far * torch.sqrt((self._radius / far).square() + dot(near, near))
        return components_last(joined([first], xs))

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """Return the tangent vector with the same spatial part: the derivative of ``projx``."""
        x, u = torch.broadcast_tensors(x, u)
        p = components_first(x)
        return self._tangent(p[0], p[1:], components_first(u[..., 1:]))

    # Metric.

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        x, u, v = torch.broadcast_tensors(x, u, v)
        p = components_first(x)
        a, b = (self._coefficients(p, components_first(w[..., 1:])) for w in (u, v))
        return dot(a, b)

    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        p, q = map(components_first, torch.broadcast_tensors(x, y))
        return 2 * self._radius * torch.asinh(safe_sqrt(self.curvature * self._chord2(p, q)) / 2)

    # Geodesics.

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        p, us, q = self._start(x, u)
        cosh, sinhc = cosh_and_sinhc_of_root(q)
        return self._point(each(lambda a, b: torch.addcmul(cosh * a, sinhc, b), p[1:], us))

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        p, q = map(components_first, torch.broadcast_tensors(x, y))
        k = self.curvature / 4 * self._chord2(p, q)
        scale, twice = angle_over_sinh(k), 2 * k
        us = each(lambda a, b: scale * torch.addcmul(b - a, twice, a, value=-1), p[1:], q[1:])
        return self._tangent(p[0], p[1:], us)

    def shoot(self, x: Tensor, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        p, us, q = self._start(x.expand(*torch.broadcast_shapes(x.shape[:-1], t.shape), self.n + 1), u)
        cosh, sinhc = cosh_and_sinhc_of_root(t * t * q)
        along, ahead = t * sinhc, t * q * sinhc
        xs = each(lambda a, b: torch.addcmul(cosh * a, along, b), p[1:], us)
        us = each(lambda a, b: torch.addcmul(cosh * b, ahead, a), p[1:], us)
        return self._point(xs), self._tangent(self._first(xs), xs, us)

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
        x, u = torch.broadcast_tensors(x, u)
        coefficients = self._coefficients(components_first(x), components_first(u[..., 1:]))
        return self._combination(y, gyrate(ball, d, a, b, components_last(coefficients)))

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
        return asinh_over_argument(self.curvature * (xs * xs).sum(-1, keepdim=True)) * xs

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

    def _first(self, xs: Components) -> Tensor:
        """Return ``x_0`` of the point with the spatial part ``xs``."""
        return torch.sqrt(1 / self.curvature + dot(xs, xs))

    def _point(self, xs: Components) -> Tensor:
        """Return points ``(*batch, n + 1)`` from their spatial parts."""
        return components_last(joined([self._first(xs)], xs))

    def _tangent(self, x0: Tensor, xs: Components, us: Components) -> Tensor:
        """Return tangent vectors ``(*batch, n + 1)`` from their spatial parts."""
        return components_last(joined([dot(each(lambda a: a / x0, xs), us)], us))

    def _start(self, x: Tensor, u: Tensor) -> tuple[Components, Components, Tensor]:
        """Return ``x`` and the spatial part of ``u``, and ``c <u, u>``."""
        x, u = torch.broadcast_tensors(x, u)
        p, us = components_first(x), components_first(u[..., 1:])
        w = self._coefficients(p, us)
        return p, us, self.curvature * dot(w, w)

    def _coefficients(self, x: Components, us: Components) -> Components:
        """Return the coefficients in `tangent_basis` of the vector with spatial part ``us``."""
        r, x0, xs = self._radius, x[0], x[1:]
        p2, xu = dot(xs, xs), dot(xs, us)
        # The part along the radius shrinks by R / x_0. Far from the origin it is taken apart first, and what rounding
        # leaves of it in the other part is removed once more.
        near = (self.curvature * p2 < 1).to(x0.dtype)
        p2 = p2 * (1 - near) + near
        first = xu / p2
        across = each(lambda a, b: torch.addcmul(b, first, a, value=-1), xs, us)
        along, close = xu * r / (p2 * x0) - dot(xs, across) / p2, -xu / (x0 * (x0 + r))
        return each(lambda a, b, c: pick(torch.addcmul(c, along, a), torch.addcmul(b, close, a), near), xs, us, across)

    def _combination(self, x: Tensor, w: Tensor) -> Tensor:
        """Return the tangent vector with coefficients ``w`` in `tangent_basis`; all terms add."""
        r, xs = self._radius, x[..., 1:]
        u0 = (xs * w).sum(-1, keepdim=True) / r
        return torch.cat([u0, w + u0 / (x[..., :1] + r) * xs], dim=-1)

    def _chord2(self, x: Components, y: Components) -> Tensor:
        """Return the Minkowski square of ``y - x``, which is ``4 R^2 sinh^2(dist / 2R)``, without cancellation."""
        x0, xs, y0, ys = x[0], x[1:], y[0], y[1:]
        d, s0 = each(torch.sub, ys, xs), x0 + y0
        d2, d0 = dot(d, d), dot(d, each(torch.add, xs, ys)) / s0
        # Close to the origin |d_0| is at most 0.87 |d|, and the plain difference loses nothing. Farther out, points in
        # different directions make sums of positive terms.
        xy, xy0 = dot(xs, ys), x0 * y0
        close = (s0 < 4 * self._radius).to(s0.dtype)
        plain = torch.maximum(close, (2 * xy <= xy0).to(s0.dtype))
        along = self._area(xs, ys, d, d2, plain) + 4 / self.curvature * d0 * d0
        along = along / (2 * (xy0 - 1 / self.curvature + xy) * (1 - plain) + plain)
        apart = 2 * (xy0 - 1 / self.curvature - xy)
        return pick(pick(along, apart, plain), d2 - d0 * d0, close)

    def _area(self, xs: Components, ys: Components, d: Components, d2: Tensor, plain: Tensor) -> Tensor:
        """Return ``4 |x ^ y|^2``, for points in similar directions; of use where ``plain`` is 0, elsewhere finite.

        The parts along and across these are taken apart, ``chord^2 (|x + y|^2 - d_0^2) = 4 |x ^ y|^2 + 4 R^2 d_0^2``,
        with the area ``|x ^ y|`` from the longer of x and y and the shortest side of the triangle, whose rounding is
        the least.
        """
        x2, y2 = dot(xs, xs), dot(ys, ys)
        first, middle = (x2 >= y2).to(d2.dtype), (d2 < torch.minimum(x2, y2)).to(d2.dtype)
        longer = each(lambda a, b: pick(b, a, first), xs, ys)
        side = each(lambda a, b, c: pick(pick(a, b, first), c, middle), xs, ys, d)
        # Not the maximum, whose derivative is shared between equals.
        l2 = pick(y2, x2, first) * (1 - plain) + plain
        along = dot(side, longer) / l2
        across = each(lambda a, b: torch.addcmul(a, along, b, value=-1), side, longer)
        return 4 * l2 * dot(across, across)
