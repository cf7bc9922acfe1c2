"""Conditional probability paths: how a pair of end points becomes a training target.

Time runs from 0, the source, to 1, the data. On a manifold take `GeodesicPath`; in a vector space also `AffinePath`,
and `GaussianPath` where the source is Gaussian and scores are needed; `ConditionalFlowPath` for anything else.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from manifolds import Manifold
from manifolds.arguments import check_function, check_instance
from manifolds.numerics.precision import FullPrecision
from rfm.paths.schedules import Kappa, Linear, Schedule
from rfm.paths.times import check_times
from rfm.sources import Source, WrappedNormal


class PathSample(NamedTuple):
    """Points on conditional paths, all of batch shape ``(*batch)``."""

    x_0: Tensor
    """Start, a draw from the source ``(*batch, *event_shape)``."""
    x_1: Tensor
    """End, a data point."""
    t: Tensor
    """Time in [0, 1], ``(*batch)``."""
    x_t: Tensor
    """Position at time ``t``."""
    dx_t: Tensor
    """Velocity at time ``t``, tangent at ``x_t``: what a velocity network regresses on."""


class GivenData(NamedTuple):
    """What a path knows of ``x_t`` given the data point ``x_1``, where ``x_0`` is drawn independently of it."""

    log_prob: Tensor
    """Log-density of ``x_t`` in nats, with respect to the Riemannian volume ``(*batch)``; -inf where no path passes."""
    velocity: Tensor
    """The velocity there of the path that reaches ``x_1``, ``(*batch, *event_shape)``."""
    excess: Tensor
    """How far beyond the cut locus of ``x_1`` the path would have had to start, 0 where it can start ``(*batch)``."""


class ConditionalPath(FullPrecision, ABC):
    """A path from each source point to each data point.

    A subclass has ``manifold`` and writes `sample`, which computes in float32 or more as a manifold's maps do. One that
    does not start at ``x_0`` or end at ``x_1`` exactly declares it in `starts_at_source` and `ends_at_data`.
    """

    manifold: Manifold
    """Where the points live."""

    @abstractmethod
    def sample(self, x_0: Tensor, x_1: Tensor, t: Tensor) -> PathSample:
        """Return position and velocity at time ``t``.

        Args:
            x_0: start points ``(*batch, *event_shape)``.
            x_1: end points, the same shape.
            t: times ``(*batch)``, or one for all.

        Raises:
            ValueError: for times of another number of axes: ``(n, 1)`` would pair each of n points with all times.
        """

    @property
    def has_density_given_data(self) -> bool:
        """Whether `given_data` has a closed form."""
        return False

    def given_data(self, source: Source, x: Tensor, x_1: Tensor, t: Tensor) -> GivenData:
        """Return density and velocity at ``x`` given the data point, for a source point independent of it.

        Args:
            source: the distribution of ``x_0``.
            x: points ``(*batch, *event_shape)``.
            x_1: data points; they broadcast with the points.
            t: times ``(*batch)``, before 1; they broadcast too.

        Raises:
            ValueError: by default: a path that cannot be followed back has no density in closed form.
        """
        raise ValueError(
            f"{type(self).__name__}: no closed form is known for the density of x_t given x_1; use GeodesicPath, "
            "AffinePath or GaussianPath"
        )

    def _check_times(self, x: Tensor, y: Tensor, t: Tensor) -> None:
        batch = self.manifold.batch_shape(x)
        if x.shape == y.shape and isinstance(t, Tensor) and t.shape == batch:
            return  # as nearly always; broadcasting shapes takes several times as long
        check_times(type(self).__name__, t, torch.broadcast_shapes(batch, self.manifold.batch_shape(y)))

    @property
    def starts_at_source(self) -> bool:
        """Whether the path is at ``x_0`` at time 0."""
        return True

    @property
    def ends_at_data(self) -> bool:
        """Whether the path is at ``x_1`` at time 1."""
        return True

    @property
    def source(self) -> Source | None:
        """The distribution that ``x_0`` has to be drawn from; None where any will do."""
        return None

    def check_ends(self, x_0: Tensor, x_1: Tensor, tol: float = 1e-3) -> None:
        """Raise ValueError unless the path starts and ends where it claims to: a reversed time is found here.

        Args:
            x_0: start points ``(*batch, *event_shape)``.
            x_1: end points, the same shape.
            tol: largest distance allowed, relative to ``max(1, dist(x_0, x_1))``.
        """
        scale = self.manifold.dist(x_0, x_1).clamp(min=1)
        ends = ((0.0, x_0, "x_0", self.starts_at_source), (1.0, x_1, "x_1", self.ends_at_data))
        for time, x, name, claimed in ends:
            if not claimed:
                continue
            x_t = self.sample(x_0, x_1, torch.full_like(scale, time)).x_t
            gap = float((self.manifold.dist(x_t, x) / scale).max())
            if not gap <= tol:
                raise ValueError(
                    f"{type(self).__name__}: at time {time:g} the path is {gap:.3g} from {name}, relative to its "
                    "length; time runs from 0, the source, to 1, the data"
                )


@dataclass(frozen=True)
class GeodesicPath(ConditionalPath):
    """The path that follows the shortest geodesic from ``x_0`` to ``x_1``.

    Chen & Lipman, Flow Matching on General Geometries, 2023, arXiv:2302.03660, equations 13 and 14.

    Args:
        manifold: where the points live.
        kappa: share of the geodesic that is left at each time; ``1 - t``, constant speed, by default.
    """

    manifold: Manifold
    kappa: Kappa | None = None

    def __post_init__(self) -> None:
        check_instance("GeodesicPath", "manifold", self.manifold, Manifold, "GeodesicPath(Sphere(2))")
        if self.kappa is not None:
            check_function("GeodesicPath", "kappa", self.kappa, "a kappa of rfm.paths.schedules")

    def sample(self, x_0: Tensor, x_1: Tensor, t: Tensor) -> PathSample:
        self._check_times(x_0, x_1, t)
        if self.kappa is None:
            x_t, dx_t = self.manifold.geodesic(x_0, x_1, t)
        else:
            kappa, d_kappa = self.kappa(t)
            x_t, onward = self.manifold.geodesic(x_0, x_1, 1 - kappa)
            dx_t = -self.manifold.lift(d_kappa) * onward
        # A field is always called with one time per point.
        return PathSample(x_0, x_1, t.expand(self.manifold.batch_shape(x_t)), x_t, dx_t)

    @property
    def has_density_given_data(self) -> bool:
        return self.manifold.solver_accuracy == 0 and self.manifold.logmap_radius == math.inf

    def given_data(self, source: Source, x: Tensor, x_1: Tensor, t: Tensor) -> GivenData:
        """Return density and velocity at ``x`` given the data point, for a source point independent of it.

        The path through ``x`` started at ``x_0 = exp_{x_1}(w / kappa)`` with ``w = log_{x_1}(x)``, if that geodesic is
        still a shortest one, and the density changes by the Jacobian of this map::

            log p_t(x | x_1) = log p_0(x_0) + log |det d(exp_{x_1})_{w / kappa}| - log |det d(exp_{x_1})_w|
                               - dim log(kappa)

        Beyond the cut locus of ``x_1`` no path starts.
        """
        m = self.manifold
        if not self.has_density_given_data:
            raise ValueError(
                f"GeodesicPath: the logarithm of {m} is found by a solver, and which geodesics are shortest is not "
                "known; the density given x_1 needs a manifold with a logarithm in closed form"
            )
        kappa, d_kappa = (1 - t, -torch.ones_like(t)) if self.kappa is None else self.kappa(t)
        kappa = torch.where(kappa == 0, math.nan, kappa)
        velocity = m.lift(-d_kappa / kappa) * m.logmap(x, x_1)
        w = m.logmap(x_1, x)
        u = w / m.lift(kappa)
        x_0 = m.expmap(x_1, u)
        length = m.norm(x_1, u).detach()
        excess = length - m.dist(x_1, x_0).detach() if m.injectivity_radius != math.inf else torch.zeros_like(length)
        starts = excess <= _CUT * torch.finfo(x.dtype).eps * (1 + length)
        # Where none starts the determinant may be 0, and its logarithm would make derivatives NaN.
        u = torch.where(m.lift(starts), u, w)
        log_p = source.log_prob(x_0) - m.dim * torch.log(kappa) + m.log_det_expmap(x_1, u) - m.log_det_expmap(x_1, w)
        # In hyperbolic space a start hundreds of units away overflows, where its density is 0 in any precision.
        far = ~log_p.isfinite() & (length > _FAR)
        excess = torch.where(far, length, torch.where(starts, 0.0, excess))
        return GivenData(torch.where(starts & ~far, log_p, -math.inf), velocity, excess)

    @property
    def starts_at_source(self) -> bool:
        return self.kappa is None or _near(self.kappa(_time(0.0))[0], 1.0)

    @property
    def ends_at_data(self) -> bool:
        return self.kappa is None or _near(self.kappa(_time(1.0))[0], 0.0)


@dataclass(frozen=True)
class AffinePath(ConditionalPath):
    """The path ``x_t = alpha(t) x_1 + sigma(t) noise`` in a vector space, where ``noise = x_0 / source_scale``.

    Lipman et al., Flow Matching Guide and Code, 2024, arXiv:2412.06264, section 4.8. ``source_scale`` is that of the
    schedule, 1 by default. With the linear schedule it is the `GeodesicPath`.

    Args:
        manifold: Euclidean space, or another manifold whose geodesics are ``x + t u``.
        schedule: linear by default.

    Raises:
        ValueError: if the manifold is no vector space.
    """

    manifold: Manifold
    schedule: Schedule = field(default_factory=Linear)

    def __post_init__(self) -> None:
        _check_flat(type(self).__name__, self.manifold)
        check_instance(type(self).__name__, "schedule", self.schedule, Schedule, "Linear()")

    def sample(self, x_0: Tensor, x_1: Tensor, t: Tensor) -> PathSample:
        self._check_times(x_0, x_1, t)
        alpha, sigma, d_alpha, d_sigma = (self.manifold.lift(c) for c in self.schedule(t))
        noise = x_0 if self.schedule.source_scale == 1 else x_0 / self.schedule.source_scale
        x_t = alpha * x_1 + sigma * noise
        return PathSample(x_0, x_1, t.expand(self.manifold.batch_shape(x_t)), x_t, d_alpha * x_1 + d_sigma * noise)

    @property
    def has_density_given_data(self) -> bool:
        return True

    def given_data(self, source: Source, x: Tensor, x_1: Tensor, t: Tensor) -> GivenData:
        """Return density and velocity at ``x`` given the data point, of ``x_0 = scale (x - alpha x_1) / sigma``."""
        at = self.schedule(t)
        scale = self.schedule.source_scale
        sigma = torch.where(at.sigma == 0, math.nan, at.sigma)
        noise = (x - self.manifold.lift(at.alpha) * x_1) / self.manifold.lift(sigma)
        log_p = source.log_prob(scale * noise) - self.manifold.dim * torch.log(sigma / scale)
        velocity = self.manifold.lift(at.d_alpha) * x_1 + self.manifold.lift(at.d_sigma) * noise
        return GivenData(log_p, velocity, torch.zeros_like(log_p))

    @property
    def starts_at_source(self) -> bool:
        at = self.schedule(_time(0.0))
        return _near(at.alpha, 0.0) and _near(at.sigma / self.schedule.source_scale, 1.0)

    @property
    def ends_at_data(self) -> bool:
        at = self.schedule(_time(1.0))
        return _near(at.alpha, 1.0) and _near(at.sigma, 0.0)


@dataclass(frozen=True)
class GaussianPath(AffinePath):
    """The `AffinePath` whose source is Gaussian: given ``x_1``, the position is N(alpha x_1, sigma^2).

    Lipman et al., Flow Matching for Generative Modeling, 2022, arXiv:2210.02747, theorem 3. Beside draws it has what
    depends on the data point alone: density, score and velocity given ``x_1``.
    """

    @property
    def source(self) -> WrappedNormal:
        """N(0, source_scale^2), in every direction."""
        return WrappedNormal(self.manifold, torch.zeros(self.manifold.event_shape), self.schedule.source_scale)

    def log_prob(self, x: Tensor, x_1: Tensor, t: Tensor) -> Tensor:
        """Return the log-density at ``x`` given the data point ``x_1``, in nats, ``(*batch)``; NaN where sigma is 0.

        Args:
            x: points ``(*batch, *event_shape)``.
            x_1: data points, the same shape.
            t: times ``(*batch)``.
        """
        self._check_times(x, x_1, t)
        sigma = self.schedule(t).sigma
        noise = self._noise(x, x_1, t)
        squared = self.manifold.inner(x, noise, noise)
        return -squared / 2 - self.manifold.dim * (torch.log(sigma) + math.log(2 * math.pi) / 2)

    def score(self, x: Tensor, x_1: Tensor, t: Tensor) -> Tensor:
        """Return the gradient of `log_prob` at ``x``, ``(*batch, *event_shape)``; NaN where sigma is 0."""
        self._check_times(x, x_1, t)
        return -self._noise(x, x_1, t) / self.manifold.lift(self.schedule(t).sigma)

    def velocity(self, x: Tensor, x_1: Tensor, t: Tensor) -> Tensor:
        """Return the velocity at ``x`` of the paths to ``x_1``, ``(*batch, *event_shape)``; NaN where sigma is 0."""
        self._check_times(x, x_1, t)
        at = self.schedule(t)
        return self.manifold.lift(at.d_alpha) * x_1 + self.manifold.lift(at.d_sigma) * self._noise(x, x_1, t)

    def _noise(self, x: Tensor, x_1: Tensor, t: Tensor) -> Tensor:
        at = self.schedule(t)
        sigma = torch.where(at.sigma == 0, math.nan, at.sigma)
        return (x - self.manifold.lift(at.alpha) * x_1) / self.manifold.lift(sigma)


@dataclass(frozen=True)
class ConditionalFlowPath(ConditionalPath):
    """The path ``x_t = flow(x_0, x_1, t)`` of any conditional flow; its velocity is taken in forward mode.

    Lipman et al., Flow Matching Guide and Code, 2024, arXiv:2412.06264, section 4.6. The flow has to stay on the
    manifold: end it with ``manifold.projx`` where it would leave it.

    Args:
        manifold: where the points live.
        flow: from start points, end points and times, of shapes that broadcast, to positions; differentiable in time.
        starts_at_source: whether ``flow(x_0, x_1, 0)`` is ``x_0``.
        ends_at_data: whether ``flow(x_0, x_1, 1)`` is ``x_1``.
    """

    manifold: Manifold
    flow: Callable[[Tensor, Tensor, Tensor], Tensor]
    starts_at_source: bool = True
    ends_at_data: bool = True

    def sample(self, x_0: Tensor, x_1: Tensor, t: Tensor) -> PathSample:
        self._check_times(x_0, x_1, t)
        batch = torch.broadcast_shapes(self.manifold.batch_shape(x_0), self.manifold.batch_shape(x_1), t.shape)
        # Contiguous: forward mode refuses a tensor whose entries share memory.
        t = t.expand(batch).contiguous()
        x_t, dx_t = torch.func.jvp(lambda s: self.flow(x_0, x_1, s), (t,), (torch.ones_like(t),))[:2]
        # Forward mode takes plain numbers for double precision where the time has no axes.
        return PathSample(x_0, x_1, t, x_t, dx_t.to(x_t.dtype))


_CUT = 400
"""Units of rounding by which a geodesic may miss the distance between its ends and still count as shortest."""

_FAR = 20.0
"""Lengths from which a density may overflow in single precision: cosh(2 * 20) still does not."""


def _time(t: float) -> Tensor:
    return torch.tensor(t, dtype=torch.float64)


def _near(value: Tensor, expected: float) -> bool:
    return abs(float(value) - expected) < 1e-12


def _check_flat(owner: str, manifold: Manifold) -> None:
    """Raise ValueError unless the exponential map is addition, tried on a few points."""
    check_instance(owner, "manifold", manifold, Manifold, f"{owner}(Euclidean(2))")
    draw = torch.randn(2, 4, *manifold.event_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = manifold.projx(draw[0])
    # Long enough to go round what closes on itself.
    u = 10 * manifold.proju(x, draw[1])
    y = manifold.expmap(x, u)
    if not bool(torch.isclose(y, x + u, rtol=1e-9, atol=1e-9).all()):
        raise ValueError(f"{owner}: needs a vector space such as Euclidean(n), got {manifold}; use GeodesicPath there")
