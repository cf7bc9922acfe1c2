"""Hyperbolic space as a ball; see `manifolds.hyperbolic`."""

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
    log_sinhc_of_root,
    safe_sqrt,
    size,
)
from manifolds.numerics.hyperbolic_functions import angle_over_sinh, asinh_over_argument, checked_curvature, gyrate


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
        n = integer(type(self).__name__, "n", n)
        super().__init__(n, (n,))
        self.n = n
        self.curvature = checked_curvature(type(self).__name__, curvature)

    # Projections.

    def projx(self, x: Tensor) -> Tensor:
        """Return ``x``, or the point on its ray four epsilons inside the boundary if ``x`` is beyond that."""
        p = components_first(x)
        # What is far outside is brought to the boundary first, because its square may overflow; inside, nothing is.
        divisor = (math.sqrt(self.curvature) * size(p)).clamp(min=1.0)
        return components_last(self._projected(each(lambda a: a / divisor, p)))

    def outside(self, x: Tensor) -> Tensor:
        """Return whether ``x`` is on the boundary or beyond."""
        return ~(self.curvature * (x * x).sum(-1) < 1)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return u.expand(torch.broadcast_shapes(x.shape, u.shape))

    # Metric.

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        p, a, b = map(components_first, torch.broadcast_tensors(x, u, v))
        scale = 2 / self._gap(p)
        return dot(each(lambda c: scale * c, a), each(lambda c: scale * c, b))

    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        p, q = map(components_first, torch.broadcast_tensors(x, y))
        d = each(torch.sub, q, p)
        half_chord2 = self.curvature * dot(d, d) / (self._gap(p) * self._gap(q))
        return 2 / math.sqrt(self.curvature) * torch.asinh(safe_sqrt(half_chord2))

    # Geodesics.

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        p, v = map(components_first, torch.broadcast_tensors(x, u))
        a = self._gap(p)
        v = each(lambda c: c / a, v)
        cosh, sinhc = cosh_and_sinhc_of_root(self.curvature * dot(v, v))
        w, m2 = self._half(p, v, sinhc / cosh)
        # The Moebius sum of x and w, with its denominator 1 + 2c<x, w> + c^2 |x|^2 |w|^2 as a sum of positive terms. As
        # a step from x, because the derivative of the sum itself is left over from terms 1 / a times as large.
        along, scale = self.curvature * dot(w, w), a / (a / (cosh * cosh) + m2)
        y = each(lambda b, c: torch.addcmul(b, scale, torch.addcmul(c, along, b)), p, w)
        return components_last(self._projected(y))

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        p, q = map(components_first, torch.broadcast_tensors(x, y))
        d, a, b = each(torch.sub, q, p), self._gap(p), self._gap(q)
        d2 = self.curvature * dot(d, d)
        scale = angle_over_sinh(d2 / (a * b)) / b
        return components_last(each(lambda c, e: scale * torch.addcmul(a * e, d2, c, value=-1), p, d))

    def shoot(self, x: Tensor, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        x = x.expand(*torch.broadcast_shapes(x.shape[:-1], t.shape), self.n)
        p, v = map(components_first, torch.broadcast_tensors(x, u))
        c, a = self.curvature, self._gap(p)
        v = each(lambda b: b / a, v)
        cosh, sinhc = cosh_and_sinhc_of_root(c * dot(v, v) * t * t)
        w, m2 = self._half(p, v, t * sinhc / cosh)
        sech2 = 1 / (cosh * cosh)
        denominator = a * sech2 + m2
        along, scale = c * dot(w, w), a / denominator
        step = each(lambda b, e: torch.addcmul(e, along, b), p, w)
        x_t = self._projected(each(lambda b, e: torch.addcmul(b, scale, e), p, step))
        # The derivative of that quotient.
        dw = each(lambda b: sech2 * b, v)
        ahead, back = 2 * c * dot(w, dw), -2 * c * dot(each(torch.add, p, w), dw) / denominator
        dx_t = each(lambda b, e, f: scale * torch.addcmul(torch.addcmul(b, ahead, e), back, f), dw, x_t, step)
        return components_last(x_t), components_last(dx_t)

    def transp(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        """Carry ``u`` along the geodesic (parallel transport): a gyration of ``u``, scaled by the ratio of lambdas."""
        c, d = self.curvature, y - x
        a, b = (self._gap(components_first(z, copy=False))[..., None] for z in (x, y))
        return b / a * gyrate(math.sqrt(c) * x, math.sqrt(c) * d, a, b, u)

    # Bases and volume.

    def tangent_basis(self, x: Tensor) -> Tensor:
        return (
            self._gap(components_first(x, copy=False))[..., None, None]
            / 2
            * torch.eye(self.n, dtype=x.dtype, device=x.device)
        )

    def divergence_frame(self, x: Tensor) -> tuple[Tensor, Tensor]:
        basis = torch.eye(self.n, dtype=x.dtype, device=x.device).expand(*x.shape[:-1], self.n, self.n)
        return basis, basis

    def log_volume_derivative(self, x: Tensor, u: Tensor) -> Tensor:
        """The volume has density ``lambda^n``."""
        return 2 * self.n * self.curvature * (x * u).sum(-1) / self._gap(components_first(x, copy=False))

    def log_det_expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return (self.n - 1) * log_sinhc_of_root(self.curvature * self.inner(x, u, u))

    # Coordinates for networks.

    def embed(self, x: Tensor) -> Tensor:
        """Return normal coordinates at the origin, the same as those of `Hyperboloid.embed`."""
        p = components_first(x)
        k = self.curvature * dot(p, p) / self._gap(p)
        scale = 2 * torch.sqrt(1 + k) * asinh_over_argument(k)
        return components_last(each(lambda a: scale * a, p))

    def to_hyperboloid(self, x: Tensor) -> Tensor:
        """Return the same points in ``Hyperboloid(n, curvature)``, ``(*batch, n + 1)``: an isometry."""
        xs = 2 * x / self._gap(components_first(x, copy=False))[..., None]
        return torch.cat([torch.sqrt(1 / self.curvature + (xs * xs).sum(-1, keepdim=True)), xs], dim=-1)

    # Checks, for the borders.

    def check_point(self, x: Tensor, tol: float | None = None) -> None:
        """Raise ValueError unless every entry of ``x`` is strictly inside the ball: on the sphere the metric ends."""
        super().check_point(x, tol)
        outside = self._gap(components_first(x, copy=False)) <= 0
        if bool(outside.any()):
            raise ValueError(
                f"points of {self}: {int(outside.sum())} of {outside.numel()} are not inside the open ball of radius "
                f"{1 / math.sqrt(self.curvature):.6g}; project them with PoincareBall.projx"
            )

    def extra_repr(self) -> str:
        return f"{self.n}, curvature={self.curvature}"

    # Parts.

    def _gap(self, x: Components) -> Tensor:
        """Return ``1 - c |x|^2``, ``(*batch)``."""
        return 1 - self.curvature * dot(x, x)

    def _projected(self, x: Components) -> Components:
        """Return what `projx` does. Inside, the factor is exactly 1: the root of bound^2 is bound."""
        size2 = self.curvature * dot(x, x)
        bound = 1 - 4 * torch.finfo(size2.dtype).eps
        scale = bound / torch.sqrt(size2.clamp(min=bound * bound))
        return each(lambda a: scale * a, x)

    def _half(self, x: Components, v: Components, factor: Tensor) -> tuple[Components, Tensor]:
        """Return ``w = factor v`` and ``c |x + w|^2``."""
        w = each(lambda a: factor * a, v)
        m = each(torch.add, x, w)
        return w, self.curvature * dot(m, m)
