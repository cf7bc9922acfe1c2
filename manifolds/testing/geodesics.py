"""Laws about the exponential map, the metric along geodesics, the logarithm, distance and transport."""

import math
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


# The logarithm.


@law(
    "logmap inverts expmap",
    means="the logarithm is scaled, is not tangent, or takes the long way round",
    remedy="correct logmap: |logmap| must be the distance and its direction that of y seen from x",
    needs=(methods_run, expmap_starts, expmap_first_order, proju_projects, gauss_lemma),
    every_dtype=True,
)
def log_inverts(p: Probe) -> Iterator[Measurement]:
    """logmap(x, expmap(x, u)) == u for norm(x, u) within 0.9 of the injectivity radius, and logmap is tangent."""

    def residual(m: Any, r: Round, x: Tensor, u: Tensor) -> Tensor:
        return m.logmap(r(x), r(m.expmap(r(x), r(u)))) - u

    def tangent(m: Any, r: Round, x: Tensor, y: Tensor) -> Tensor:
        log = m.logmap(r(x), r(y))
        return m.proju(r(x), r(log)) - log

    yield p.compare(residual, "logmap(x, expmap(x, u)) - u", relative=p.size(p.u), x=p.x, u=p.u)
    yield p.compare(tangent, "proju(x, logmap(x, y)) - logmap(x, y)", x=p.x, y=p.far)


@law(
    "logmap keeps its digits near the point",
    means="the logarithm is computed with acos, from 1 - cos, or with an epsilon or a clamp: half the "
    "digits are lost near x, and coincident points may give NaN",
    remedy="use atan2 of half-angle chords or work with y - x, and series for small angles (manifolds.numerics)",
    needs=(methods_run, expmap_starts, expmap_first_order, log_inverts),
    every_dtype=True,
)
def log_digits(p: Probe) -> Iterator[Measurement]:
    """logmap(x, expmap(x, s u)) == s u for s = 1e-1, 1e-2, ... down to rounding."""
    scales = [10.0**-k for k in range(1, 13) if 10.0**-k > 100 * p.unit]
    x = p.x.repeat(len(scales), *(1,) * p.k)
    u = torch.cat([s * p.u for s in scales])

    def residual(m: Any, r: Round, x: Tensor, u: Tensor) -> Tensor:
        return m.logmap(r(x), r(m.expmap(r(x), r(u)))) - u

    def zero(m: Any, r: Round, x: Tensor) -> Tensor:
        return m.logmap(r(x), r(x))

    yield p.compare(residual, "logmap(x, expmap(x, u)) - u, for short u,", x=x, u=u)
    yield p.compare(zero, "logmap(x, x)", x=p.x)


@law(
    "expmap of logmap arrives",
    means="logmap is wrong for distant points: a quadrant is lost (asin, atan without the sign of the cosine), or it "
    "is a solver that did not converge",
    remedy="use atan2; a solver's reach is stated as an attribute, logmap_radius",
    needs=(methods_run, embed_smooth, expmap_starts, log_inverts),
    every_dtype=True,
)
def log_arrives(p: Probe) -> Iterator[Measurement]:
    """expmap(x, logmap(x, y)) == y for any two points (within logmap_radius, where the manifold states one)."""

    def residual(m: Any, r: Round, x: Tensor, y: Tensor) -> Tensor:
        return p.point_difference(m, m.expmap(r(x), r(m.logmap(r(x), r(y)))), y)

    size = p.m.embed(p.far).norm(dim=-1).clamp(min=1)
    yield p.compare(residual, "expmap(x, logmap(x, y)), against y,", relative=size, x=p.x, y=p.far)


def cut_pairs(p: Probe) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield points at, and near, the distance where minimising geodesics stop being unique, as far as it is stated."""
    cut = p.cut
    if cut is not None and math.isfinite(cut) and cut <= p.logmap_radius:
        basis = p.m.tangent_basis(p.x).detach()
        for i in range(min(p.m.dim, 3)):
            e = p.m.proju(p.x, basis[:, i])
            for shortfall in (0.0, 1e-2, 1e-4, 1e-6, 1e-8):
                y = p.m.expmap(p.x, cut * (1 - shortfall) * e).detach()
                yield f"at {1 - shortfall:.8g} of the injectivity radius", p.x, y
            # On a coarse grid, where special points have exact antipodes: diag(1, -1, -1), say.
            y = p.m.expmap(p.x, cut * e).detach()
            grid = p.m.projx(torch.round(y * 64) / 64).detach()
            yield "at the injectivity radius, exactly", p.x, torch.where(p.lift(p.size(grid - y) < 1e-4), grid, y)
    if math.isinf(p.logmap_radius):
        mirrored = p.m.projx(-p.x).detach()
        on = p.lift(p.size(mirrored + p.x) <= 4 * p.unit)
        yield "at -x", p.x, torch.where(on, mirrored, p.far)


@law(
    "logmap reaches the cut locus",
    means="at the antipode the logarithm is 0, NaN or of the wrong length (the sine in its denominator vanishes), so a "
    "path stands still there; near it, digits or a sign are lost",
    remedy="choose one minimiser, always the same, with torch.where; near the antipode work with y + x, not with y",
    needs=(methods_run, embed_smooth, expmap_starts, log_inverts, log_arrives),
    every_dtype=True,
)
def log_at_cut(p: Probe) -> Iterator[Measurement]:
    """expmap(x, logmap(x, y)) == y, and norm of logmap is the injectivity radius, where y is an antipode."""

    def residual(m: Any, r: Round, x: Tensor, y: Tensor) -> Tensor:
        return p.point_difference(m, m.expmap(r(x), r(m.logmap(r(x), r(y)))), y)

    places = list(cut_pairs(p))
    if not places:
        return
    x, y = torch.cat([x for _, x, _ in places]), torch.cat([y for _, _, y in places])
    yield p.compare(residual, "expmap(x, logmap(x, y)), against y at or near the cut locus,", x=x, y=y)
    cut = float(p.cut or 0)
    within = torch.tensor([where != "at -x" for where, _, _ in places], device=p.device).repeat_interleave(len(p.x))
    excess = p.m.norm(x, p.m.logmap(x, y)).detach() - cut
    allowed = torch.where(within, cut * (1e-5 if p.dtype == torch.float64 else 1e-2), math.inf)
    yield Measurement(excess, allowed, {"x": x, "y": y}, "norm of logmap minus the injectivity radius, there,")


@law(
    "geodesic joins its ends",
    means="the override of geodesic is another curve, or time runs the other way",
    remedy="correct it, or remove it: the default shoots along logmap",
    needs=(methods_run, shoot_follows, log_inverts, log_arrives),
    every_dtype=True,
)
def geodesic_joins(p: Probe) -> Iterator[Measurement]:
    """geodesic(x, y, t) is shoot(x, logmap(x, y), t), and ends at y."""

    def along(m: Any, r: Round, x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        x_t, dx_t = m.geodesic(r(x), r(y), r(t))
        z_t, dz_t = m.shoot(r(x), r(m.logmap(r(x), r(y))), r(t))
        difference = p.point_difference(m, x_t, z_t)
        return difference if p.points_are_classes else torch.cat([difference, (dx_t - dz_t).flatten(1)], dim=-1)

    def ends(m: Any, r: Round, x: Tensor, y: Tensor) -> Tensor:
        one = torch.ones(len(x), dtype=x.dtype, device=x.device)
        first = p.point_difference(m, m.geodesic(r(x), r(y), 0 * one)[0], x)
        return torch.cat([first, p.point_difference(m, m.geodesic(r(x), r(y), one)[0], y)], dim=-1)

    yield p.compare(along, "geodesic(x, y, t), against shoot(x, logmap(x, y), t),", x=p.x, y=p.y, t=p.t)
    yield p.compare(ends, "geodesic at t = 0 and 1, against x and y,", x=p.x, y=p.y)


# Distance.


@law(
    "distance is the norm of the logarithm",
    means="dist is another distance (the chord, the ambient one), or logmap has the wrong length",
    remedy="remove the override of dist, or return the geodesic distance",
    needs=(methods_run, inner_is_metric, log_inverts, log_arrives),
    every_dtype=True,
)
def dist_is_norm(p: Probe) -> Iterator[Measurement]:
    """dist(x, y) == norm(x, logmap(x, y))."""

    def residual(m: Any, r: Round, x: Tensor, y: Tensor) -> Tensor:
        return m.dist(r(x), r(y)) - m.norm(r(x), r(m.logmap(r(x), r(y))))

    for y in (p.y, p.far):
        yield p.compare(residual, "dist(x, y) - norm(x, logmap(x, y))", x=p.x, y=y)


@law(
    "distance keeps its digits near the point",
    means="the distance is computed with acos, acosh or from 1 - cos, where half the digits are lost; or with an "
    "epsilon or a clamp, so that dist(x, x) is not 0",
    remedy="use atan2 or asinh of half-angle chords, which are exact differences of coordinates",
    needs=(methods_run, log_digits, dist_is_norm),
    every_dtype=True,
)
def dist_digits(p: Probe) -> Iterator[Measurement]:
    """dist(x, expmap(x, s u)) == s norm(x, u) for s = 1e-1, 1e-2, ... down to rounding, and dist(x, x) == 0."""
    scales = [10.0**-k for k in range(1, 13) if 10.0**-k > 100 * p.unit]
    x = p.x.repeat(len(scales), *(1,) * p.k)
    u = torch.cat([s * p.u for s in scales])

    def distance(m: Any, r: Round, x: Tensor, u: Tensor) -> Tensor:
        return m.dist(r(x), r(m.expmap(r(x), r(u)))) - m.norm(r(x), r(u))

    def zero(m: Any, r: Round, x: Tensor) -> Tensor:
        return m.dist(r(x), r(x))

    yield p.compare(distance, "dist(x, expmap(x, u)) - norm(x, u), for short u,", x=x, u=u)
    yield p.compare(zero, "dist(x, x)", x=p.x)


@law(
    "distance is symmetric",
    means="the two points play different roles in the formula, or inner varies as expmap's metric does not",
    remedy="write the distance in terms that are symmetric in x and y",
    needs=(methods_run, speed_constant, gauss_lemma, log_inverts, log_arrives, dist_is_norm),
    every_dtype=True,
)
def dist_symmetric(p: Probe) -> Iterator[Measurement]:
    """dist(x, y) == dist(y, x)."""

    def residual(m: Any, r: Round, x: Tensor, y: Tensor) -> Tensor:
        return m.dist(r(x), r(y)) - m.dist(r(y), r(x))

    for y in (p.y, p.far):
        yield p.compare(residual, "dist(x, y) - dist(y, x)", x=p.x, y=y)


@law(
    "triangle inequality",
    means="logmap finds a geodesic that is not the shortest, so dist is too long for some pairs",
    remedy="return the shortest of the candidates: wrap angles, choose among images; state a solver's logmap_radius",
    needs=(methods_run, log_inverts, log_arrives, dist_is_norm, dist_symmetric),
    every_dtype=True,
)
def triangle(p: Probe) -> Iterator[Measurement]:
    """dist(x, z) <= dist(x, y) + dist(y, z)."""
    z = p.far if math.isinf(p.logmap_radius) else p.x.roll(1, 0)
    n = len(p.x)
    x, y = p.x[:, None].expand(n, n, *p.x.shape[1:]), p.x[None].expand(n, n, *p.x.shape[1:])
    between = p.m.dist(x, y).detach()
    if math.isinf(p.logmap_radius):
        excess = between[:, :, None] - between[:, None] - between.mT[None]
        worst = excess.flatten(1).max(-1).values
        yield Measurement(worst, 1e3 * p.unit * (1 + between.amax(1)), {"x": p.x, "z": z}, "the worst excess over y")


# Transport.


@law(
    "transport leads from tangent space to tangent space",
    means="transp returns vectors that are not tangent at y, or moves them where there is nowhere to go",
    remedy="write parallel transport, or remove the override: the default projects",
    needs=(methods_run, inner_is_metric, proju_projects, log_inverts),
    every_dtype=True,
)
def transport_tangent(p: Probe) -> Iterator[Measurement]:
    """transp(x, y, .) gives tangent vectors, and does nothing where y is x."""

    def identity(m: Any, r: Round, x: Tensor, u: Tensor) -> Tensor:
        return m.transp(r(x), r(x), r(u)) - u

    def tangent(m: Any, r: Round, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        a = m.transp(r(x), r(y), r(u))
        return m.proju(r(y), r(a)) - a

    yield p.compare(identity, "transp(x, x, u) - u", x=p.x, u=p.u)
    yield p.compare(tangent, "proju(y, transp(x, y, u)) - transp(x, y, u)", x=p.x, y=p.y, u=p.u)


@law(
    "transport is isometric",
    means="transp was overridden, so it claims to be isometric, but shortens or scales vectors",
    remedy="write parallel transport, or remove the override: the default projects, and says so; for another transport "
    "override transp_is_isometric",
    needs=(methods_run, inner_is_metric, proju_projects, speed_constant, gauss_lemma, log_inverts, transport_tangent),
    every_dtype=True,
    applies=lambda p: "" if p.m.transp_is_isometric else "isometry of transport: transp_is_isometric is False",
)
def transport_isometric(p: Probe) -> Iterator[Measurement]:
    """transp(x, y, .) keeps inner products."""

    def isometric(m: Any, r: Round, x: Tensor, y: Tensor, u: Tensor, v: Tensor) -> Tensor:
        a, b = m.transp(r(x), r(y), r(u)), m.transp(r(x), r(y), r(v))
        return m.inner(r(y), r(a), r(b)) - m.inner(r(x), r(u), r(v))

    yield p.compare(isometric, "inner(y, transp u, transp v) - inner(x, u, v)", x=p.x, y=p.y, u=p.u, v=p.v)


EXPONENTIAL = (expmap_starts, expmap_stays, expmap_first_order, shoot_follows, velocity_right, geodesics_continue)
METRIC = (acceleration_normal, speed_constant, gauss_lemma)
LOGARITHM = (log_inverts, log_digits, log_arrives, log_at_cut, geodesic_joins)
DISTANCE = (dist_is_norm, dist_digits, dist_symmetric, triangle, transport_tangent, transport_isometric)
