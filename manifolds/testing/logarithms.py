"""Laws about the logarithm."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from manifolds.testing.geodesics import expmap_first_order, expmap_starts, gauss_lemma, shoot_follows
from manifolds.testing.law import law
from manifolds.testing.measurement import Measurement
from manifolds.testing.probe import Probe, Round
from manifolds.testing.projections import (
    embed_smooth,
    proju_projects,
)
from manifolds.testing.structure import methods_run


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


LOGARITHM = (log_inverts, log_digits, log_arrives, log_at_cut, geodesic_joins)
