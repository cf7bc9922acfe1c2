"""The unit sphere."""

import math

import torch
from torch import Tensor

from manifolds.base import Manifold
from manifolds.numerics import cos_of_root, horner, safe_sqrt, sinc_of_root


class Sphere(Manifold):
    """The unit sphere S^n in R^(n+1), with the metric induced by it: ``Sphere(2)`` is the surface of the earth.

    Points are unit vectors ``(n + 1,)``; distances are angles in radians in [0, pi]; the volume is the area,
    2 pi^((n+1)/2) / Gamma((n+1)/2). At the antipode, its cut locus, ``logmap`` returns pi times the first vector of
    ``tangent_basis(x)``.

    Args:
        n: intrinsic dimension, at least 1.
    """

    injectivity_radius = math.pi

    def __init__(self, n: int) -> None:
        super().__init__(n, (n + 1,))
        self.n = n
        self.volume = 2 * math.exp((n + 1) / 2 * math.log(math.pi) - math.lgamma((n + 1) / 2))

    # Projections.

    def projx(self, x: Tensor) -> Tensor:
        """Return ``x / |x|``; the centre, nearest to every point alike, goes to the first axis."""
        centre = (x * x).sum(-1, keepdim=True) == 0
        axis = torch.eye(1, self.n + 1, dtype=x.dtype, device=x.device)[0]
        return _normalise(torch.where(centre, axis, x))

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return u - (x * u).sum(-1, keepdim=True) * x

    # Metric.

    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        # Half-angle form: accurate at every separation; acos of the dot product loses half the digits at 0 and pi.
        # A chord's length has no derivative at zero; vector_norm's convention there is zero.
        chord, cochord = torch.linalg.vector_norm(y - x, dim=-1), torch.linalg.vector_norm(y + x, dim=-1)
        return 2 * torch.atan2(chord, cochord)

    # Geodesics.

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        q = (u * u).sum(-1, keepdim=True)
        # Normalised, because a vector that is tangent only to rounding would push repeated maps off the sphere.
        return _normalise(cos_of_root(q) * x + sinc_of_root(q) * u)

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        w, factor, _ = self._towards(x, y)
        return factor * w

    def shoot(self, x: Tensor, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return _turn(x, u, 1.0, safe_sqrt((u * u).sum(-1, keepdim=True)), t[..., None])

    def geodesic(self, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        w, factor, angle = self._towards(x, y)
        return _turn(x, w, factor, angle, t[..., None])

    def transp(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        """Carry ``u`` along the shortest geodesic (parallel transport); undefined at the antipode.

        The denominator 1 + <x, y> is |x + y|^2 / 2, which does not cancel near the antipode.
        """
        s = x + y
        return u - 2 * (s * u).sum(-1, keepdim=True) / (s * s).sum(-1, keepdim=True) * s

    # Bases and volume.

    def tangent_basis(self, x: Tensor) -> Tensor:
        """Return the last n columns of the Householder reflection that takes the first axis to ``-sign(x_0) x``."""
        sign = torch.where(x[..., :1] < 0, -1.0, 1.0).to(x.dtype)
        v = torch.cat([x[..., :1] + sign, x[..., 1:]], dim=-1)
        # |v|^2 / 2 = 1 + |x_0|, at least 1: nothing cancels.
        scaled = x[..., 1:, None] / (1 + x[..., :1].abs())[..., None]
        eye = torch.eye(self.n + 1, dtype=x.dtype, device=x.device)[1:]
        return eye - scaled * v[..., None, :]

    def divergence_frame(self, x: Tensor) -> tuple[Tensor, Tensor]:
        basis = self.tangent_basis(x)
        return basis, basis

    def log_det_expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return (self.n - 1) * torch.log(torch.abs(sinc_of_root((u * u).sum(-1)))) + torch.zeros_like(x[..., 0])

    def random_uniform(
        self,
        *shape: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        return _normalise(torch.randn(*shape, self.n + 1, generator=generator, dtype=dtype, device=device))

    def kernel_log_normaliser(self, concentration: Tensor) -> Tensor:
        """The von Mises-Fisher integral, times exp(-k): the kernel is the density with mean direction y."""
        k = concentration
        if self.n == 1:
            return torch.log(2 * math.pi * torch.special.i0e(k))
        if self.n == 2:
            zero = k == 0
            return torch.log(2 * math.pi * torch.where(zero, 2.0, -torch.expm1(-2 * k) / torch.where(zero, 1.0, k)))
        return self._kernel_log_normaliser_by_quadrature(k.double()).to(k.dtype)

    def _kernel_log_normaliser_by_quadrature(self, k: Tensor) -> Tensor:
        """Integrate ``exp(k (cos(a) - 1)) sin(a)^(n - 1)`` over the angle a, times the area of the equator.

        Gauss-Legendre over twelve widths either side of the integrand's peak, added up in logarithms: in dimension 100
        the integrand itself is below the least double.
        """
        m, h = self.n - 1, torch.hypot(k.new_full((), self.n - 1), 2 * k)
        # At the peak k sin^2(a) = m cos(a); 1 - cos(a) without cancellation.
        cos, versine = 2 * k / (m + h), (m + m * m / (h + 2 * k)) / (m + h)
        sine2 = versine * (1 + cos)
        peak, width = torch.atan2(sine2.sqrt(), cos), torch.rsqrt(k * cos + m / sine2)
        low, high = (peak - 12 * width).clamp(min=0.0), (peak + 12 * width).clamp(max=math.pi)
        nodes, weights = _gauss_legendre(80, k.device)
        a = low[..., None] + ((high - low) / 2)[..., None] * (1 + nodes)
        exponents = m * torch.log(torch.sin(a)) - 2 * k[..., None] * torch.sin(a / 2) ** 2
        log_equator = math.log(2) + self.n / 2 * math.log(math.pi) - math.lgamma(self.n / 2)
        return log_equator + torch.log((high - low) / 2) + torch.logsumexp(exponents + torch.log(weights), dim=-1)

    def extra_repr(self) -> str:
        return str(self.n)

    def _towards(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return a tangent vector w at ``x`` towards ``y``, and with a last axis of one the angle and angle / |w|.

        The tangential part of y is that of y - x and of y + x. The smaller of the two is exact (Sterbenz), so it keeps
        its digits near x and near the antipode, where the tangential part of y itself has lost them. Factors with an
        axis of one multiply rows; selecting rows by them, with where, would take twice as long.
        """
        side = torch.where((x * y).sum(-1, keepdim=True) < 0, -1.0, 1.0).to(x.dtype)
        z = torch.addcmul(y, -side, x)
        w = torch.addcmul(z, -(x * z).sum(-1, keepdim=True), x)
        z2, w2 = (z * z).sum(-1, keepdim=True), (w * w).sum(-1, keepdim=True)
        near = side > 0
        antipode = ~near & (w2 <= torch.finfo(w.dtype).tiny)
        w = torch.addcmul(w, antipode.to(w.dtype), self._first_tangent(x))
        # The length of z is twice the sine of half the angle, or of half its supplement.
        supplement = 2 * torch.asin(safe_sqrt(z2).clamp(max=1.9) / 2)
        angle = torch.where(near, supplement, math.pi - supplement)
        small = near & (z2 < 0.04)
        length = torch.sqrt(torch.where(small | antipode, 1.0, w2))
        terms = _ANGLE_OVER_SINE[: 5 if x.dtype == torch.float32 else 8]
        return w, torch.where(small, horner(torch.where(small, z2, 0.0) / 4, terms), angle / length), angle

    def _first_tangent(self, x: Tensor) -> Tensor:
        """Return the first vector of `tangent_basis` without the others."""
        axes = torch.eye(2, self.n + 1, dtype=x.dtype, device=x.device)
        sign = torch.where(x[..., :1] < 0, -1.0, 1.0).to(x.dtype)
        scaled = x[..., 1:2] / (1 + x[..., :1].abs())
        return axes[1] - scaled * x - (scaled * sign) * axes[0]


def _turn(x: Tensor, w: Tensor, factor: Tensor | float, angle: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return position and velocity at time t on the great circle from ``x`` with initial velocity ``factor * w``.

    Args:
        x: points.
        w: tangent vectors.
        factor: with a last axis of one, like the others.
        angle: the speed, ``factor * |w|``.
        t: times.
    """
    phase = t * angle
    cos, sin = torch.cos(phase), torch.sin(phase)
    still = angle == 0
    progress = torch.where(still, t, sin / torch.where(still, 1.0, angle)) * factor
    return torch.addcmul(cos * x, progress, w), torch.addcmul(-angle * sin * x, cos * factor, w)


def _gauss_legendre(order: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return nodes in [-1, 1] and weights of sum 2, from the Jacobi matrix (Golub and Welsch, 1969)."""
    i = torch.arange(1, order, dtype=torch.float64, device=device)
    off = i / torch.sqrt(4 * i * i - 1)
    nodes, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return nodes, 2 * vectors[0] ** 2


def _normalise(x: Tensor) -> Tensor:
    """Return ``x / |x|`` for non-zero ``x``."""
    return x / torch.sqrt((x * x).sum(-1, keepdim=True))


_ANGLE_OVER_SINE = tuple(math.prod(2 * j / (2 * j + 1) for j in range(1, k + 1)) for k in range(8))
"""Series of ``asin(c) / (c sqrt(1 - c^2))`` in c^2, with c the sine of half the angle: angle / sin(angle)."""
