"""Laws about the exponential map and the metric along geodesics."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from manifolds.testing.autodiff import jvp
from manifolds.testing.law import law
from manifolds.testing.measurement import Measurement
from manifolds.testing.probe import Probe, Round
from manifolds.testing.projections import (
    embed_smooth,
    inner_is_metric,
    proju_orthogonal,
    proju_projects,
    projx_corrects,
    projx_idempotent,
)
from manifolds.testing.structure import SLACK_OF_CHECK, methods_run

# The exponential map.


@law(
    "expmap of zero is the point",
    means="expmap ignores its base point, or has a constant term too many",
    remedy="start the geodesic at x: at u = 0 every term but x must vanish",
    needs=(methods_run,),
    every_dtype=True,
)
def expmap_starts(p: Probe) -> Iterator[Measurement]:
    """expmap(x, 0) == x."""

    def residual(m: Any, r: Round, x: Tensor) -> Tensor:
        return p.point_difference(m, m.expmap(r(x), torch.zeros_like(x)), x)

    yield p.compare(residual, "expmap(x, 0), against x,", x=p.x)


@law(
    "expmap stays on the manifold",
    means="the formula leaves the manifold (a straight step, a wrong curvature), or rounding accumulates",
    remedy="correct the formula; against rounding, finish with the cheap part of projx, such as a division by the norm",
    needs=(methods_run, projx_idempotent, projx_corrects, expmap_starts),
    every_dtype=True,
)
def expmap_stays(p: Probe) -> Iterator[Measurement]:
    """expmap(x, u) passes check_point without a projection, after one step and after 100."""

    def off(y: Tensor) -> Tensor:
        return p.point_difference(p.m, p.m.projx(y), y).detach().norm(dim=-1)

    def allowed(y: Tensor) -> Tensor:
        return SLACK_OF_CHECK * p.unit * torch.maximum(p.size(y), p.m.embed(y).norm(dim=-1)).clamp(min=1).detach()

    yield Measurement(off(p.y), allowed(p.y), {"x": p.x, "u": p.u}, "expmap(x, u), against its projx,")
    y = p.x
    for i in range(100):
        # To and fro, so that the walk stays near its start where the manifold is not compact.
        u = p.m.proju(y, (p.v, p.w, -p.v, -p.w)[i % 4])
        y = p.m.expmap(y, 0.1 * p.reach * u / p.lift(p.m.norm(y, u).clamp(min=1))).detach()
    yield Measurement(off(y), allowed(y), {"x": p.x}, "the end of 100 short steps, against its projx,")


@law(
    "derivative of expmap at zero is the identity",
    means="the velocity is scaled, or u is not used as the initial velocity",
    remedy="check the factor of u at first order: expmap(x, u) = x + u + O(|u|^2)",
    needs=(methods_run, proju_projects, expmap_starts),
    every_dtype=True,
)
def expmap_first_order(p: Probe) -> Iterator[Measurement]:
    """d/ds expmap(x, s u) == u at s = 0."""

    def residual(m: Any, r: Round, x: Tensor, u: Tensor) -> Tensor:
        # Not m.norm or m.logmap: the law is about expmap alone.
        moved = jvp(lambda a: m.expmap(r(x), a), (torch.zeros_like(u),), (r(u),))[1]
        return (m.proju(r(x), moved) if p.points_are_classes else moved) - u

    yield p.compare(residual, "d/ds expmap(x, s u) at s = 0, minus u,", x=p.x, u=p.u)


@law(
    "shoot follows expmap",
    means="shoot is a closed form of another curve, or scales t or u",
    remedy="correct shoot, or remove the override: the default differentiates expmap",
    needs=(methods_run, expmap_starts, expmap_first_order, embed_smooth),
    every_dtype=True,
)
def shoot_follows(p: Probe) -> Iterator[Measurement]:
    """shoot(x, u, t)[0] == expmap(x, t u), and at t = 0 shoot returns x and u."""

    def position(m: Any, r: Round, x: Tensor, u: Tensor, t: Tensor) -> Tensor:
        return p.point_difference(m, m.shoot(r(x), r(u), r(t))[0], m.expmap(r(x), p.lift(r(t)) * r(u)))

    def start(m: Any, r: Round, x: Tensor, u: Tensor) -> Tensor:
        x_0, dx_0 = m.shoot(r(x), r(u), torch.zeros(len(x), dtype=x.dtype, device=x.device))
        difference = dx_0 - u
        if p.points_are_classes:
            difference = m.proju(x, difference)
        return torch.cat([p.point_difference(m, x_0, x), difference.flatten(1)], dim=-1)

    yield p.compare(position, "the position of shoot, against expmap(x, t u),", x=p.x, u=p.u, t=p.t)
    yield p.compare(start, "shoot at t = 0, against x and u,", x=p.x, u=p.u)


@law(
    "velocity is the derivative of position",
    means="the velocity is scaled, is that at t = 0, or another parametrisation's; flows trained on it are wrong",
    remedy="differentiate the position by hand once more, or remove the override of shoot or geodesic",
    needs=(methods_run, expmap_first_order, shoot_follows),
)
def velocity_right(p: Probe) -> Iterator[Measurement]:
    """The second result of shoot and of geodesic is the derivative of the first in t, and is tangent there."""
    for name, target in (("shoot", p.u), ("geodesic", p.y)):

        def residual(m: Any, r: Round, x: Tensor, a: Tensor, t: Tensor, name: str = name) -> Tensor:
            def curve(s: Tensor) -> tuple[Tensor, Tensor]:
                x_t, dx_t = getattr(m, name)(r(x), r(a), s)
                return x_t, dx_t

            (x_t, dx_t), (slope, _) = jvp(curve, (r(t),), (torch.ones_like(t),))
            if p.points_are_classes:
                slope = m.proju(x_t, slope)
            return torch.cat([(slope - dx_t).flatten(1), (m.proju(x_t, dx_t) - dx_t).flatten(1)], dim=-1)

        yield p.compare(residual, f"d/dt of the position of {name}, minus its velocity,", x=p.x, a=target, t=p.t)


@law(
    "geodesics continue",
    means="expmap is not the flow of one equation: a retraction, or a formula right at one base point only",
    remedy="derive expmap at a general base point, not only at the identity or the pole",
    needs=(methods_run, expmap_starts, velocity_right, embed_smooth),
    every_dtype=True,
)
def geodesics_continue(p: Probe) -> Iterator[Measurement]:
    """Following a geodesic from x_t with velocity dx_t for the rest of the time ends at expmap(x, u)."""

    def residual(m: Any, r: Round, x: Tensor, u: Tensor, t: Tensor) -> Tensor:
        x_t, dx_t = m.shoot(r(x), r(u), r(t))
        return p.point_difference(m, m.expmap(r(x_t), r(p.lift(1 - t) * dx_t)), m.expmap(r(x), r(u)))

    yield p.compare(residual, "the end of the geodesic in two parts, against in one,", x=p.x, u=p.u, t=p.t)


# The metric along geodesics.


@law(
    "acceleration of geodesics is normal",
    means="the geodesics of expmap are not those of the ambient metric: inner must be overridden, or expmap is wrong",
    remedy="write inner(x, u, v) for the metric whose geodesics expmap follows",
    needs=(methods_run, proju_projects, proju_orthogonal, velocity_right, geodesics_continue),
    applies=lambda p: "" if p.m.metric_is_induced else "normal acceleration: inner is not the ambient dot product",
)
def acceleration_normal(p: Probe) -> Iterator[Measurement]:
    """proju(x_t, d/dt dx_t) == 0, which the default inner (the ambient dot product) requires."""

    def residual(m: Any, r: Round, x: Tensor, u: Tensor, t: Tensor) -> Tensor:
        def curve(s: Tensor) -> tuple[Tensor, Tensor]:
            x_t, dx_t = m.shoot(r(x), r(u), s)
            return x_t, dx_t

        (x_t, _), (_, acceleration) = jvp(curve, (r(t),), (torch.ones_like(t),))
        return m.proju(r(x_t), r(acceleration))

    yield p.compare(residual, "proju(x_t, acceleration)", x=p.x, u=p.u, t=p.t)


@law(
    "geodesics have constant speed",
    means="inner is not the metric whose geodesics expmap follows",
    remedy="correct the dependence of inner on x, or derive expmap from it",
    needs=(methods_run, inner_is_metric, velocity_right, geodesics_continue, acceleration_normal),
    every_dtype=True,
)
def speed_constant(p: Probe) -> Iterator[Measurement]:
    """norm(x_t, dx_t) == norm(x, u)."""

    def residual(m: Any, r: Round, x: Tensor, u: Tensor, t: Tensor) -> Tensor:
        x_t, dx_t = m.shoot(r(x), r(u), r(t))
        return m.norm(r(x_t), r(dx_t)) - m.norm(r(x), r(u))

    yield p.compare(residual, "norm(x_t, dx_t) - norm(x, u)", x=p.x, u=p.u, t=p.t)


@law(
    "Gauss's lemma",
    means="inner and expmap belong to different metrics, although speeds agree (a scale per direction, a connection "
    "with torsion or the group exponential of a metric that is not bi-invariant)",
    remedy="derive expmap from inner; a group's one-parameter subgroups are geodesics of bi-invariant metrics only",
    needs=(methods_run, inner_is_metric, expmap_first_order, velocity_right, acceleration_normal, speed_constant),
)
def gauss_lemma(p: Probe) -> Iterator[Measurement]:
    """inner(expmap(x, u), D u, D w) == inner(x, u, w) with D the derivative of expmap(x, .) at u."""

    def residual(m: Any, r: Round, x: Tensor, u: Tensor, w: Tensor) -> Tensor:
        y, along = jvp(lambda a: m.expmap(r(x), a), (r(u),), (u,))
        across = jvp(lambda a: m.expmap(r(x), a), (r(u),), (w,))[1]
        if p.points_are_classes:
            along, across = m.proju(y, along), m.proju(y, across)
        return m.inner(r(y), r(along), r(across)) - m.inner(r(x), r(u), r(w))

    yield p.compare(residual, "inner(y, D u, D w) - inner(x, u, w)", x=p.x, u=p.u, w=p.w)


EXPONENTIAL = (expmap_starts, expmap_stays, expmap_first_order, shoot_follows, velocity_right, geodesics_continue)
METRIC = (acceleration_normal, speed_constant, gauss_lemma)
