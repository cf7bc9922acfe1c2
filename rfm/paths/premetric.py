"""Paths along which a premetric decreases as prescribed: any measure of being near, in place of geodesic distance."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from manifolds import Manifold
from manifolds.arguments import check_function, check_instance, integer, positive, shown
from manifolds.numerics.precision import FullPrecision
from rfm.integrators import RK4, FixedStep, Method, Projected, integrate
from rfm.paths.conditional import ConditionalPath, PathSample
from rfm.paths.schedules import Kappa

_LEAST_KAPPA = 1e-4
"""Share of the way before the end at which the velocity is taken for the end: there the premetric is 0, its gradient
no direction."""

_STEPS = FixedStep(Projected(RK4), 10)
"""Of fourth order, and projected, as the premetric is corrected afterwards: on a mesh as accurate as 50 of Euler's, at
three quarters of the price."""

_CORRECTIONS = 2
"""Newton steps along the gradient, to the value that the premetric has at the time."""


class Premetric(FullPrecision, ABC):
    """A measure of how far x is from y: not negative, 0 where they are the same alone, with a gradient elsewhere.

    Chen & Lipman, Flow Matching on General Geometries, 2023, arXiv:2302.03660, section 3.1.
    """

    manifold: Manifold
    """Where the points live."""

    def anchor(self, y: Tensor) -> Tensor:
        """Return what is known of end points once and for all, ``(*batch, ...)``; by default the points."""
        return y

    @abstractmethod
    def squared(self, x: Tensor, anchor: Tensor) -> tuple[Tensor, Tensor]:
        """Return the square of the premetric from ``x`` to the points of an anchor, and its Riemannian gradient at x.

        Args:
            x: points ``(*batch, *event_shape)``.
            anchor: what `anchor` returned for end points.

        Returns:
            Squares ``(*batch)`` and tangent vectors at ``x``.
        """

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the premetric from points ``x`` to points ``y``, ``(*batch)``."""
        return self.squared(x, self.anchor(y))[0].clamp(min=0).sqrt()


@dataclass(frozen=True)
class GeodesicDistance(Premetric):
    """The distance of the manifold, whose premetric path is the geodesic.

    Args:
        manifold: where the points live.
    """

    manifold: Manifold

    def squared(self, x: Tensor, anchor: Tensor) -> tuple[Tensor, Tensor]:
        u = self.manifold.logmap(x, anchor)
        return self.manifold.inner(x, u, u), -2 * u


Kind = Literal["diffusion", "biharmonic", "commute time"]
"""Weights of eigenfunctions: ``exp(-2 time lambda)``, ``1 / lambda^2`` and ``1 / lambda``."""


@dataclass(frozen=True)
class SpectralDistance(Premetric):
    """The distance between the eigenfunctions' values: ``d(x, y)^2 = sum_i w(lambda_i) (phi_i(x) - phi_i(y))^2``.

    Chen & Lipman 2023, arXiv:2302.03660, section 3.2; Coifman & Lafon, Diffusion maps, 2006; Lipman, Rustamov &
    Funkhouser, Biharmonic distance, 2010; Fouss et al., Random-walk computation of similarities, 2007.

    Args:
        manifold: one with a ``spectrum``: a mesh, a sphere, a flat torus.
        kind: "biharmonic", smooth and with no parameter; "diffusion"; "commute time".
        k: number of eigenfunctions, without the constant.
        time: of diffusion, in squared units of length.

    Raises:
        ValueError: without a spectrum, or for another kind.
    """

    manifold: Manifold
    kind: Kind = "biharmonic"
    k: int = 200
    time: float = 0.25

    def __post_init__(self) -> None:
        check_instance("SpectralDistance", "manifold", self.manifold, Manifold, "Sphere(2)")
        if self.manifold.spectrum is None:
            raise ValueError(
                f"SpectralDistance: the eigenfunctions of {self.manifold} are not known here; use GeodesicDistance"
            )
        if self.kind not in get_args(Kind):
            raise ValueError(
                f'SpectralDistance: kind must be "diffusion", "biharmonic" or "commute time", got {shown(self.kind)}'
            )
        object.__setattr__(self, "k", integer("SpectralDistance", "k", self.k))
        object.__setattr__(self, "time", positive("SpectralDistance", "time", self.time, "it is a time"))

    def anchor(self, y: Tensor) -> Tensor:
        assert self.manifold.spectrum is not None
        return self.manifold.spectrum.anchor(y, self.k)

    def squared(self, x: Tensor, anchor: Tensor) -> tuple[Tensor, Tensor]:
        assert self.manifold.spectrum is not None
        return self.manifold.spectrum.squared_distance(x, anchor, self.k, self._weight)

    def _weight(self, eigenvalues: Tensor) -> Tensor:
        if self.kind == "diffusion":
            return torch.exp(-2 * self.time * eigenvalues)
        return 1 / eigenvalues if self.kind == "commute time" else 1 / eigenvalues**2


@dataclass(frozen=True)
class _Function(Premetric):
    """A function of x and y, differentiated in reverse mode."""

    manifold: Manifold
    function: Callable[[Tensor, Tensor], Tensor]

    def squared(self, x: Tensor, anchor: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            z = x.detach().requires_grad_()
            square = self.function(z, anchor).square()
            (covector,) = torch.autograd.grad(square.sum(), [z])
        return square.detach(), self.manifold.riemannian_gradient(x, covector)


@dataclass(frozen=True)
class PremetricPath(ConditionalPath):
    """The path down the gradient of a premetric, which is ``kappa(t)`` times that of the ends at time t.

    Its velocity is ``(d log kappa / dt) d grad d / |grad d|^2``, solved for each pair from ``x_0``, all pairs together,
    to the time of each: with a premetric whose paths are smooth a few steps do, since after them the point is moved
    along the gradient to where the premetric has its value exactly. At time 1 the point is ``x_1``. A path ends early,
    with velocity 0, where the gradient vanishes on its way: a premetric should have no other minimum. With the
    `GeodesicDistance` it is the `GeodesicPath`.

    Chen & Lipman, Flow Matching on General Geometries, 2023, arXiv:2302.03660, equation 13.

    Args:
        manifold: where the points live.
        premetric: a `Premetric`, such as a `SpectralDistance`, or a function of x and y that returns ``(*batch)``.
        kappa: share of the premetric that is left at each time; ``1 - t`` by default.
        method: how each pair is solved; by default 10 fixed steps of fourth order, projected.
    """

    manifold: Manifold
    premetric: Premetric | Callable[[Tensor, Tensor], Tensor]
    kappa: Kappa | None = None
    method: Method = _STEPS

    def __post_init__(self) -> None:
        check_instance("PremetricPath", "manifold", self.manifold, Manifold, "Sphere(2)")
        check_function("PremetricPath", "premetric", self.premetric, "SpectralDistance(manifold)")
        if self.kappa is not None:
            check_function("PremetricPath", "kappa", self.kappa, "a kappa of rfm.paths.schedules")

    @torch.no_grad()
    def sample(self, x_0: Tensor, x_1: Tensor, t: Tensor) -> PathSample:
        self._check_times(x_0, x_1, t)
        m, rank = self.manifold, len(self.manifold.event_shape)
        batch = torch.broadcast_shapes(m.batch_shape(x_0), m.batch_shape(x_1), t.shape)
        start, end = (x.expand(*batch, *m.event_shape).reshape(-1, *m.event_shape) for x in (x_0, x_1))
        times = t.expand(batch).reshape(-1).to(start)
        kappa, d_kappa = (1 - times, -torch.ones_like(times)) if self.kappa is None else self.kappa(times)
        own = self._own
        anchor = own.anchor(end)
        length = own.squared(start, anchor)[0].clamp(min=0).sqrt()
        share = 1 - kappa.clamp(min=_LEAST_KAPPA)

        def down(x: Tensor, s: Tensor, anchor: Tensor, rate: Tensor) -> Tensor:
            return -m.lift(rate) * _per_unit(own, m, x, anchor)[1]

        given: dict[str, Any] = {"anchor": anchor, "rate": share * length}
        x = integrate(down, m, start, (0.0, 1.0), self.method, **given).final
        for _ in range(_CORRECTIONS):
            d, unit = _per_unit(own, m, x, anchor)
            x = m.projx(m.expmap(x, m.lift((1 - share) * length - d) * unit))
        x_t, dx_t = x, m.lift(d_kappa * length) * _per_unit(own, m, x, anchor)[1]
        arrived = m.lift(kappa <= 0)
        x_t, dx_t = torch.where(arrived, end, x_t), torch.where(arrived, m.proju(end, dx_t), dx_t)
        shape = (*batch, *start.shape[start.ndim - rank :])
        return PathSample(x_0, x_1, times.reshape(batch), x_t.reshape(shape), dx_t.reshape(shape))

    @property
    def _own(self) -> Premetric:
        known = self.premetric
        return known if isinstance(known, Premetric) else _Function(self.manifold, known)


def _per_unit(premetric: Premetric, manifold: Manifold, x: Tensor, anchor: Tensor) -> tuple[Tensor, Tensor]:
    """Return the premetric d at ``x``, and ``grad d / |grad d|^2``: the move by which it grows by one, 0 at 0."""
    squared, slope = premetric.squared(x, anchor)
    d = squared.clamp(min=0).sqrt()
    steepness = manifold.inner(x, slope, slope)
    ahead = steepness > torch.finfo(d.dtype).tiny
    factor = torch.where(ahead, 2 * d / torch.where(ahead, steepness, 1.0), 0.0)
    return d, manifold.lift(factor) * slope
