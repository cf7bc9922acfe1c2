"""Laws about distance and transport."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from manifolds.testing.geodesics import gauss_lemma, speed_constant
from manifolds.testing.law import law
from manifolds.testing.logarithms import log_arrives, log_digits, log_inverts
from manifolds.testing.measurement import Measurement
from manifolds.testing.probe import Probe, Round
from manifolds.testing.projections import (
    inner_is_metric,
    proju_projects,
)
from manifolds.testing.structure import methods_run

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


DISTANCE = (dist_is_norm, dist_digits, dist_symmetric, triangle, transport_tangent, transport_isometric)
