"""Ellipsoids, and with them the earth as surveyors see it."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from manifolds.arguments import number
from manifolds.level_sets.constraint import Constraint
from manifolds.level_sets.level_set import LevelSet
from manifolds.numerics import log_sphere_area, size, unit
from manifolds.numerics.blocks import in_blocks
from manifolds.sphere import Sphere

WGS84_AXES = (6378137.0, 6378137.0, 6356752.314245179)
"""Semi-axes in metres of the World Geodetic System 1984: equatorial radius a, flattening 1 / 298.257223563.

National Geospatial-Intelligence Agency, NGA.STND.0036, 2014, tables 3.1 and 3.3."""

_SECULAR_ROUNDS = 12


class Quadric(Constraint):
    """The equation ``sum_i (x_i / a_i)^2 = 1`` with its derivatives in closed form.

    Args:
        axes: the a_i.
    """

    axes: Tensor

    def __init__(self, axes: Sequence[float]) -> None:
        super().__init__(lambda x: (x / x.new_tensor(axes)).square().sum(-1) - 1, len(axes))
        self.constant("axes", torch.tensor(axes, dtype=torch.float64))

    def value(self, x: Tensor) -> Tensor:
        return (x / self.axes.to(x)).square().sum(-1, keepdim=True) - 1

    def jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.value(x), (2 * x / self.axes.to(x).square())[..., None, :]

    def hessian(self, x: Tensor, multiplier: Tensor) -> Tensor:
        units = torch.diag(2 / self.axes.to(x).square())
        return multiplier[..., None] * units + torch.zeros_like(x)[..., None]

    def bend(self, x: Tensor, v: Tensor, u: Tensor) -> Tensor:
        weights = self.axes.to(x).square().reciprocal()
        normal = x * weights
        return -normal * (u * v * weights).sum(-1, keepdim=True) / (normal * normal).sum(-1, keepdim=True)

    def acceleration_slopes(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weights = self.axes.to(x).square().reciprocal()
        normal, turned = x * weights, v * weights
        scaled = normal / (normal * normal).sum(-1, keepdim=True)
        bend = (v * turned).sum(-1, keepdim=True)
        by_normal = torch.diag(weights) * (bend / (normal * normal).sum(-1, keepdim=True))[..., None]
        by_position = 2 * bend[..., None] * scaled[..., :, None] * (weights * scaled)[..., None, :] - by_normal
        return -bend * scaled, by_position, -2 * scaled[..., :, None] * turned[..., None, :]


class Ellipsoid(LevelSet):
    """The ellipsoid ``sum_i (x_i / a_i)^2 = 1`` in R^n, with the metric induced by R^n.

    ``Ellipsoid(WGS84_AXES)`` is the earth in metres; divide the axes by the first for one of radius about 1, whose
    points keep their digits in float32. Nearest points, area, uniform draws and the conversion to latitude and
    longitude are in closed form, or from a scalar equation; geodesics and logarithms are those of `LevelSet`, searched
    from the great ellipse. Logarithms are minimal up to ``logmap_radius``: on the earth 19,770 km, 1% less than the
    radius within which geodesics are unique. Further away, that is, within about 2 degrees of the antipode, the
    geodesic found may not be the shortest, or none is found.

    Args:
        axes: semi-axes, at least two, all in the unit of length of the points.
        steps: Runge-Kutta steps for one geodesic.
        nodes: collocation nodes for one logarithm; 16 are enough for the earth, more are needed for long axes.
        rounds: Newton steps for one logarithm; fewer are enough away from the antipode.

    Raises:
        ValueError: unless there are two or more positive numbers.

    References:
        Karney, Algorithms for geodesics, 2013, doi:10.1007/s00190-012-0578-z: geodesics of the earth to nanometres.
    """

    def __init__(self, axes: Sequence[float], *, steps: int = 16, nodes: int = 24, rounds: int = 12) -> None:
        self.axes: tuple[float, ...]
        own = tuple(number("Ellipsoid", "each of axes", a) for a in axes)
        if len(own) < 2 or not all(0 < a < math.inf for a in own):
            raise ValueError(f"Ellipsoid: axes must be at least two positive numbers, the semi-axes, got {tuple(axes)}")
        low, next_low, most = *sorted(own)[:2], max(own)
        super().__init__(
            Quadric(own),
            len(own),
            radius=most,
            curvature=most / low**2,
            volume=ellipsoid_area(own),
            steps=steps,
            nodes=nodes,
            rounds=rounds,
        )
        self.axes = own
        assert self.volume is not None
        if self.dim == 1:
            self.injectivity_radius = self.volume / 2
        elif self.dim % 2 == 0:
            # Klingenberg: in even dimension a positively curved orientable space has no shorter closed geodesics than
            # its conjugate points. The greatest sectional curvature is where the longest axis ends.
            self.injectivity_radius = math.pi * low * next_low / most
        assert self.injectivity_radius is not None
        self.logmap_radius = 0.99 * self.injectivity_radius

    # Projections.

    def projx(self, x: Tensor) -> Tensor:
        """Return the nearest point, for any ``x``; where several are nearest, one on the positive side.

        It is ``a^2 x / (a^2 + m)`` with m the largest root of a scalar equation, found by Newton's method on the
        reciprocal of a norm, which is concave in m, so that steps from below stay below.
        """
        return in_blocks(self._nearest, x.shape[:-1], 16 * self.n, x)[0]

    def _nearest(self, x: Tensor) -> tuple[Tensor]:
        axes = self._axes(x)
        shortest = int(min(range(self.n), key=self.axes.__getitem__))
        low = self.axes[shortest]
        gap = axes.square() - low * low
        # On the plane of symmetry inside, the root is at the pole of a term that is absent. A coordinate below
        # rounding puts it there.
        least = low * torch.finfo(x.dtype).eps ** 1.5
        axis = torch.zeros_like(axes)
        axis[shortest] = 1.0
        lost = (axis > 0) & (x.abs() < least)
        x = torch.where(lost, x + torch.where(x < 0, -least, least), x)
        fixed = x.detach()
        scaled = axes * fixed
        m = (scaled.abs() - gap).amax(-1, keepdim=True)
        for _ in range(_SECULAR_ROUNDS):
            m = m + _secular_step(scaled, gap, m)
        for _ in range(2):
            m = m + _secular_step(axes * x, gap, m)
        y = axes.square() * x / (gap + m)
        y = y / torch.sqrt((y / axes).square().sum(-1, keepdim=True))
        still = size((y.detach() - fixed).unbind(-1)) <= 8 * torch.finfo(x.dtype).eps * self._size(fixed)
        return (torch.where(still[..., None], fixed + (y - y.detach()), y),)

    # Geodesics.

    def _path(self, x: Tensor, y: Tensor) -> Tensor:
        """Return points of the ellipse that is a great circle once the axes are scaled to one."""
        axes, circle = self._axes(x), Sphere(self.dim)
        p, q = circle.projx(x / axes)[..., None, :], circle.projx(y / axes)[..., None, :]
        return axes * circle.geodesic(p, q, self._collocation.stations.to(x))[0]

    # Uniform draws.

    def random_uniform(
        self,
        *shape: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Return uniform points, exactly: a sphere's are scaled, and accepted in proportion to how that scales area."""
        axes = torch.tensor(self.axes, dtype=dtype or torch.get_default_dtype(), device=device)
        circle, count = Sphere(self.dim), math.prod(shape)
        accepted: list[Tensor] = []
        missing = count
        while missing > 0:
            s = circle.random_uniform(2 * missing + 16, generator=generator, dtype=axes.dtype, device=device)
            chance = torch.rand(len(s), generator=generator, dtype=axes.dtype, device=device)
            stretch = (s / axes).norm(dim=-1) * axes.min()
            accepted.append((axes * s)[chance < stretch][:missing])
            missing -= len(accepted[-1])
        points = torch.cat(accepted) if accepted else axes.new_zeros(0, self.n)
        return self.projx(points).reshape(*shape, self.n)

    # Latitude and longitude.

    def normal(self, x: Tensor) -> Tensor:
        """Return the outward unit normal at ``x``, ``(*batch, n)``: on the earth, the direction of the zenith."""
        return unit(x / self._axes(x).square())

    def point_with_normal(self, direction: Tensor) -> Tensor:
        """Return the point whose outward normal points along ``direction``, ``(*batch, n)``."""
        stretched = self._axes(direction) * unit(direction)
        return self._axes(direction) * stretched / torch.linalg.vector_norm(stretched, dim=-1, keepdim=True)

    def from_geodetic(self, latitude_degrees: Tensor, longitude_degrees: Tensor) -> Tensor:
        """Return points at geodetic latitudes and longitudes in degrees ``(*batch)``, as ``(*batch, 3)``.

        The third axis points north, the first to longitude 0. Geodetic latitude is the angle of the normal, as on maps.

        Raises:
            ValueError: if this is no ellipsoid in three dimensions with equal first axes.
        """
        self._check_spheroid()
        latitude, longitude = torch.deg2rad(latitude_degrees), torch.deg2rad(longitude_degrees)
        level = torch.cos(latitude)
        parts = torch.broadcast_tensors(level * torch.cos(longitude), level * torch.sin(longitude), torch.sin(latitude))
        return self.point_with_normal(torch.stack(parts, dim=-1))

    def to_geodetic(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return geodetic latitudes in [-90, 90] and longitudes in [-180, 180], in degrees, each ``(*batch)``."""
        self._check_spheroid()
        east, north, up = (x / self._axes(x).square()).unbind(-1)
        return torch.rad2deg(torch.atan2(up, torch.hypot(east, north))), torch.rad2deg(torch.atan2(north, east))

    def _check_spheroid(self) -> None:
        if self.n != 3 or self.axes[0] != self.axes[1]:
            raise ValueError(
                f"{self}: latitude and longitude need three axes of which the first two are equal, got {self.axes}; "
                "use point_with_normal"
            )

    def _axes(self, x: Tensor) -> Tensor:
        axes: Tensor = self._equations.get_buffer("axes").to(x)
        return axes

    def extra_repr(self) -> str:
        return f"({', '.join(f'{a:.12g}' for a in self.axes)})"


def ellipsoid_area(axes: Sequence[float]) -> float:
    """Return the (n - 1)-dimensional area of the ellipsoid in R^n with these semi-axes: for n = 2 the circumference.

    The area is that of the unit sphere times the product of the axes times the mean of ``|s / a|`` over the sphere. The
    mean comes from that of a Gaussian: the root of a quadratic form Q is ``int (1 - e^(-t Q)) t^(-3/2) dt`` up to a
    constant, and the mean of ``e^(-t Q)`` is a product. In ``log t`` the trapezoidal rule converges exponentially.
    """
    n = len(axes)
    # Relative to the shortest axis, so that units drop out.
    low = min(axes)
    b = [(low / a) ** 2 for a in axes]
    step, total = 0.2, 0.0
    for i in range(-500, 501):
        t = math.exp(step * i)
        density = math.prod((1 + 2 * c * t) ** -0.5 for c in b)
        total += math.sqrt(t) * density * sum(c / (1 + 2 * c * t) for c in b)
    gaussian = step * total / math.sqrt(math.pi)
    log_radius = math.log(2) / 2 + math.lgamma((n + 1) / 2) - math.lgamma(n / 2)
    return gaussian * math.exp(log_sphere_area(n - 1) - log_radius + sum(math.log(a) for a in axes)) / low


def _secular_step(scaled: Tensor, gap: Tensor, m: Tensor) -> Tensor:
    """Return the Newton step of ``1 / |scaled / (gap + m)| - 1``."""
    terms = (scaled / (gap + m)).square()
    square = terms.sum(-1, keepdim=True)
    slope = (terms / (gap + m)).sum(-1, keepdim=True)
    return square * (torch.sqrt(square) - 1) / slope
