"""The unit sphere."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from manifolds.arguments import integer
from manifolds.base import Manifold
from manifolds.coordinates import Coordinates
from manifolds.kernel import Kernel
from manifolds.numerics import (
    Components,
    components_first,
    components_last,
    cos_and_sinc_of_root,
    differentiated,
    dot,
    each,
    gauss_legendre,
    joined,
    log_sphere_area,
    root,
    safe_sqrt,
    sinc_defect_of_root,
    sinc_of_root,
    size,
)
from manifolds.spectrum import SphericalHarmonics
from manifolds.von_mises_fisher import draw_versine


class Sphere(Manifold):
    """The unit sphere S^n in R^(n+1), with the metric induced by it: ``Sphere(2)`` is the surface of the earth.

    Points are unit vectors ``(n + 1,)``; distances are angles in radians in [0, pi]; the volume is the area,
    2 pi^((n+1)/2) / Gamma((n+1)/2). At the antipode, its cut locus, ``logmap`` returns a vector of length pi towards
    the middle between the first axis and minus the second, each with the sign that ``x`` has there.

    Args:
        n: intrinsic dimension, at least 1.
    """

    injectivity_radius = math.pi

    def __init__(self, n: int) -> None:
        n = integer(type(self).__name__, "n", n)
        super().__init__(n, (n + 1,))
        self.n = n
        self.volume = math.exp(log_sphere_area(n))

    @staticmethod
    def from_degrees(latitude: Tensor, longitude: Tensor) -> Tensor:
        """Return the points of ``Sphere(2)`` at these places, ``(*batch, 3)``: z is the north, x the prime meridian.

        Args:
            latitude: in degrees, from -90 to 90, ``(*batch)``.
            longitude: in degrees, east, ``(*batch)``.
        """
        latitude, longitude = (torch.deg2rad(torch.as_tensor(degrees)) for degrees in (latitude, longitude))
        latitude, longitude = torch.broadcast_tensors(latitude, longitude)
        ring = torch.cos(latitude)
        return torch.stack([ring * torch.cos(longitude), ring * torch.sin(longitude), torch.sin(latitude)], dim=-1)

    @staticmethod
    def to_degrees(x: Tensor) -> tuple[Tensor, Tensor]:
        """Return latitude and longitude of points of ``Sphere(2)`` ``(*batch, 3)``, in degrees: undoes `from_degrees`.

        Longitudes are in [-180, 180], latitudes exact near the poles too.
        """
        latitude = torch.atan2(x[..., 2], torch.hypot(x[..., 0], x[..., 1]))
        return torch.rad2deg(latitude), torch.rad2deg(torch.atan2(x[..., 1], x[..., 0]))

    @property
    def other_forms(self) -> Mapping[tuple[int, ...], str]:
        if self.n != 2:
            return {}
        return {(2,): "latitudes and longitudes in degrees become points with Sphere.from_degrees(x[:, 0], x[:, 1])"}

    # Projections.

    def projx(self, x: Tensor) -> Tensor:
        """Return ``x / |x|``; the centre, nearest to every point alike, goes to the first axis."""
        p = components_first(x)
        length = size(p)
        centre = (length == 0).to(x.dtype)
        length = length + centre
        p = each(lambda a: a / length, joined([p[0] + centre], p[1:]))
        if not differentiated(x):
            return components_last(p)
        length = torch.sqrt(dot(p, p))
        return components_last(each(lambda a: a / length, p))

    def projx_jvp(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        y = self.projx(x)
        along = (y * v).sum(-1, keepdim=True)
        return y, torch.addcmul(v, along, y, value=-1) / torch.linalg.vector_norm(x, dim=-1, keepdim=True)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        p, w = map(components_first, torch.broadcast_tensors(x, u))
        along = dot(p, w)
        return components_last(each(lambda a, b: torch.addcmul(b, along, a, value=-1), p, w))

    # Metric.

    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        # Half-angle form: accurate at every separation; acos of the dot product loses half the digits at 0 and pi.
        p, q = map(components_first, torch.broadcast_tensors(x, y))
        return 2 * torch.atan2(_length(each(torch.sub, q, p)), _length(each(torch.add, q, p)))

    # Geodesics.

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        x, u = torch.broadcast_tensors(x, u)
        p, w = components_first(x, copy=False), components_first(u)
        cos, sinc = cos_and_sinc_of_root(dot(w, w))
        y = each(lambda a, b: torch.addcmul(cos * a, sinc, b), p, w)
        # Normalised, because a vector that is tangent only to rounding would push repeated maps off the sphere.
        length = torch.sqrt(dot(y, y))
        return components_last(each(lambda a: a / length, y))

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = torch.broadcast_tensors(x, y)
        w, length, angle = self._towards(components_first(x), components_first(y, copy=False))
        scale = angle / length
        return components_last(each(lambda a: scale * a, w))

    def shoot(self, x: Tensor, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        x, u = torch.broadcast_tensors(self._at_times(x, t), u)
        w = components_first(u)
        speed = root(dot(w, w))
        return _turn(components_first(x), w, speed, speed, t)

    def geodesic(self, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        x, y = torch.broadcast_tensors(self._at_times(x, t), y)
        p = components_first(x)
        return _turn(p, *self._towards(p, components_first(y, copy=False)), t)

    def expmap_jvp(self, x: Tensor, u: Tensor, dx: Tensor, du: Tensor) -> tuple[Tensor, Tensor]:
        y, q = self.expmap(x, u), (u * u).sum(-1, keepdim=True)
        cos, sinc = cos_and_sinc_of_root(q)
        # The derivative of sinc(a) divided by a; that of cos(a) is -sinc(a).
        slope = sinc_defect_of_root(q) - sinc_of_root(q / 4).square() / 2
        # The tangent part of du, and what keeps u tangent while x moves.
        turned = self.proju(x, du) - (u * dx).sum(-1, keepdim=True) * x
        along = (u * du).sum(-1, keepdim=True)
        return y, self.proju(y, cos * dx + sinc * turned + along * (slope * u - sinc * x))

    def transp(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        """Carry ``u`` along the shortest geodesic (parallel transport); undefined at the antipode.

        The denominator 1 + <x, y> is |x + y|^2 / 2, which does not cancel near the antipode.
        """
        p, q, w = map(components_first, torch.broadcast_tensors(x, y, u))
        s = each(torch.add, p, q)
        along = 2 * dot(s, w) / dot(s, s)
        return components_last(each(lambda a, b: torch.addcmul(b, along, a, value=-1), s, w))

    # Bases and volume.

    def tangent_basis(self, x: Tensor) -> Tensor:
        """Return the last n columns of the Householder reflection that takes the first axis to ``-sign(x_0) x``."""
        sign = torch.where(x[..., :1] < 0, -1.0, 1.0).to(x.dtype)
        v = torch.cat([x[..., :1] + sign, x[..., 1:]], dim=-1)
        # |v|^2 / 2 = 1 + |x_0|, at least 1: nothing cancels. Not abs, whose derivative at 0 is 0.
        scaled = x[..., 1:, None] / (1 + sign * x[..., :1])[..., None]
        eye = torch.eye(self.n + 1, dtype=x.dtype, device=x.device)[1:]
        return eye - scaled * v[..., None, :]

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

    @property
    def kernel(self) -> Kernel:
        """Von Mises-Fisher densities; concentration 0 is the uniform one."""
        return _VonMisesFisher(self)

    @property
    def spectrum(self) -> SphericalHarmonics:
        return SphericalHarmonics(self.n, math.exp(log_sphere_area(self.n)))

    # Coordinates for networks.

    @property
    def coordinates(self) -> Coordinates:
        """With the derivatives in closed form."""
        return _Projected(self)

    def extra_repr(self) -> str:
        return str(self.n)

    def _at_times(self, x: Tensor, t: Tensor) -> Tensor:
        """Return points expanded to the batch shape that they have together with times."""
        return x.expand(*torch.broadcast_shapes(x.shape[:-1], t.shape), self.n + 1)

    def _towards(self, x: Components, y: Components) -> tuple[Components, Tensor, Tensor]:
        """Return a tangent vector at ``x`` towards ``y``, its length, and the angle between them; components first.

        The tangential part of y is that of y - x and of y + x. The smaller of the two is exact (Sterbenz), so it keeps
        its digits near x and near the antipode, where the tangential part of y itself has lost them. The choice is a
        number to multiply with, because selecting with where takes ten times as long on a CPU.
        """
        cosine = dot(x, y)
        away = torch.copysign(torch.ones_like(cosine), -cosine.detach())
        # Next to nothing, but all that there is at the antipode; half a right angle or more from x and from -x.
        limits = torch.finfo(cosine.dtype)
        hint = math.sqrt(limits.tiny / limits.eps) * (1 + away)
        first = torch.addcmul(y[0], away, x[0]) + torch.copysign(hint, x[0])
        second = torch.addcmul(y[1], away, x[1]) - torch.copysign(hint, x[1])
        z = joined([first, second], each(lambda b, a: torch.addcmul(b, away, a), y[2:], x[2:]))
        along = dot(x, z)
        w = each(lambda c, a: torch.addcmul(c, along, a, value=-1), z, x)
        sine = root(dot(w, w))
        return w, sine, torch.atan2(sine, cosine)


class _Projected(Coordinates):
    def tangent_from_vector_jvp(self, x: Tensor, w: Tensor, v: Tensor, dw: Tensor) -> tuple[Tensor, Tensor]:
        along = (x * w).sum(-1, keepdim=True)
        change = ((v * w) + (x * dw)).sum(-1, keepdim=True)
        return w - along * x, torch.addcmul(dw - along * v, change, x, value=-1)


class _VonMisesFisher(Kernel):
    manifold: Sphere

    def log_normaliser(self, concentration: Tensor) -> Tensor:
        """The von Mises-Fisher integral, times exp(-k)."""
        k = concentration
        if self.manifold.n == 1:
            return torch.log(2 * math.pi * torch.special.i0e(k))
        if self.manifold.n == 2:
            zero = k == 0
            return torch.log(2 * math.pi * torch.where(zero, 2.0, -torch.expm1(-2 * k) / torch.where(zero, 1.0, k)))
        return self._by_quadrature(k.double()).to(k.dtype)

    def sample(self, x: Tensor, concentration: Tensor, generator: torch.Generator | None = None) -> Tensor:
        batch = torch.broadcast_shapes(x.shape[:-1], concentration.shape)
        versine = draw_versine(self.manifold.n, concentration.expand(batch), generator).to(x.dtype)[..., None]
        normal = torch.randn(*batch, self.manifold.n + 1, generator=generator, dtype=x.dtype, device=x.device)
        across = self.manifold.projx(self.manifold.proju(x, normal))
        return self.manifold.projx(x - versine * x + torch.sqrt(versine * (2 - versine)) * across)

    def _by_quadrature(self, k: Tensor) -> Tensor:
        """Integrate ``exp(k (cos(a) - 1)) sin(a)^(n - 1)`` over the angle a, times the area of the equator.

        Gauss-Legendre over twelve widths either side of the integrand's peak, added up in logarithms: in dimension 100
        the integrand itself is below the least double.
        """
        m, h = self.manifold.n - 1, torch.hypot(k.new_full((), self.manifold.n - 1), 2 * k)
        # At the peak k sin^2(a) = m cos(a); 1 - cos(a) without cancellation.
        cos, versine = 2 * k / (m + h), (m + m * m / (h + 2 * k)) / (m + h)
        sine2 = versine * (1 + cos)
        peak, width = torch.atan2(sine2.sqrt(), cos), torch.rsqrt(k * cos + m / sine2)
        low, high = (peak - 12 * width).clamp(min=0.0), (peak + 12 * width).clamp(max=math.pi)
        nodes, weights = gauss_legendre(80, k.device)
        a = low[..., None] + ((high - low) / 2)[..., None] * (1 + nodes)
        exponents = m * torch.log(torch.sin(a)) - 2 * k[..., None] * torch.sin(a / 2) ** 2
        return (
            log_sphere_area(self.manifold.n - 1)
            + torch.log((high - low) / 2)
            + torch.logsumexp(exponents + torch.log(weights), dim=-1)
        )


def _turn(x: Components, w: Components, length: Tensor, speed: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return position and velocity at time t on the great circle from ``x`` in the direction of ``w``.

    Args:
        x: points.
        w: tangent vectors.
        length: of ``w``, positive also where it is zero.
        speed: angle per unit of time.
        t: times.
    """
    phase = t * speed
    cos, sin = torch.cos(phase), torch.sin(phase)
    along, back, ahead = sin / length, -speed * sin, speed * cos / length
    x_t = components_last(each(lambda a, b: torch.addcmul(cos * a, along, b), x, w))
    return x_t, components_last(each(lambda a, b: torch.addcmul(back * a, ahead, b), x, w))


def _length(x: Components) -> Tensor:
    """Return the norm, with derivative zero at zero."""
    return safe_sqrt(dot(x, x))


def _normalise(x: Tensor) -> Tensor:
    """Return ``x / |x|`` for non-zero ``x``."""
    return x / torch.sqrt((x * x).sum(-1, keepdim=True))
