"""Laws about projections, the metric at one point, bases, and the embedding."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from manifolds.testing.autodiff import jvp
from manifolds.testing.law import law
from manifolds.testing.measurement import Measurement
from manifolds.testing.probe import Probe, Round
from manifolds.testing.quadrature import gauss_legendre
from manifolds.testing.structure import SLACK_OF_CHECK, draws_use_generator, has_uniform, methods_run, verdict


@law(
    "projx is idempotent",
    means="projx does not land on the manifold, or wraps an angle to a value that the second call moves again",
    remedy="make the result exact for points already there: normalise last, wrap into a half-open interval",
    needs=(methods_run,),
    every_dtype=True,
)
def projx_idempotent(p: Probe) -> Iterator[Measurement]:
    """projx(projx(z)) == projx(z) to four units of rounding, for z near the manifold."""
    for offset in (1e-3, 0.1):
        z = p.x + offset * p.normal(*p.x.shape)
        once = p.m.projx(z)
        error = p.size(p.m.projx(once) - once)
        yield Measurement(error.detach(), 4 * p.unit * p.size(once).clamp(min=1).detach(), {"z": z}, "the second call")


@law(
    "proju is a linear projection",
    means="a term is missing or has a wrong factor, or the point is not normalised as the formula assumes",
    remedy="derive proju from the constraint: for c(x) = 0 subtract the part of a along the gradient of c",
    needs=(methods_run,),
    every_dtype=True,
)
def proju_projects(p: Probe) -> Iterator[Measurement]:
    """proju(x, proju(x, a)) == proju(x, a), and proju is linear in a."""
    a, b = p.normal(*p.x.shape), p.normal(*p.x.shape)

    def twice(m: Any, r: Round, x: Tensor, a: Tensor) -> Tensor:
        once = m.proju(r(x), r(a))
        return m.proju(r(x), r(once)) - once

    def linear(m: Any, r: Round, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return m.proju(r(x), r(2 * a - b)) - 2 * m.proju(r(x), r(a)) + m.proju(r(x), r(b))

    yield p.compare(twice, "the second call", x=p.x, a=a)
    yield p.compare(linear, "proju(x, 2a - b) - 2 proju(x, a) + proju(x, b)", x=p.x, a=a, b=b)


@law(
    "projx brings points onto the manifold",
    means="projx returns points that are off as they are (it is the identity), corrects only part of the error, or "
    "proju projects to another space than the tangent space",
    remedy="return the nearest point of the manifold; then compare proju with the derivative of projx",
    needs=(methods_run, projx_idempotent, proju_projects),
)
def projx_corrects(p: Probe) -> Iterator[Measurement]:
    """On the manifold, the derivative of projx maps into the tangent space and keeps tangent vectors."""
    # Finite differences, so that a wrong derivative and a wrong value are told apart.
    h, scale = 1e-5, 1e-6 if p.dtype == torch.float64 else 1e-2
    h = h if p.dtype == torch.float64 else 1e-2
    kinds = {"a tangent": p.unit_tangent(p.x)}
    off = p.normal_direction(p.x)
    if off is not None:
        kinds["an off-manifold"] = off
    for what, a in kinds.items():
        a = a / p.lift(p.size(a).clamp(min=1))
        moved = (p.m.projx(p.x + h * a) - p.m.projx(p.x - h * a)) / (2 * h)
        if what == "a tangent":
            # Angles may wrap between the two calls: compare what the difference is as seen by the embedding.
            moved_code = (p.m.embed(p.m.projx(p.x + h * a)) - p.m.embed(p.m.projx(p.x - h * a))) / (2 * h)
            expected = jvp(lambda s, a=a: p.m.embed(p.x + p.lift(s) * a), (p.t * 0,), (torch.ones_like(p.t),))[1]
            error = (moved_code - expected).norm(dim=-1)
        else:
            rest = moved - p.m.proju(p.x, moved)
            # A change from one tensor to another of the same class is none: compare by what the embedding sees.
            error = jvp(p.m.embed, (p.x,), (rest,))[1].norm(dim=-1) if p.points_are_classes else p.size(rest)
        what = f"the change of projx(x + s a) with s, for {what} a,"
        yield Measurement(error.detach(), torch.full_like(error, scale).detach(), {"x": p.x, "a": a}, what)


@law(
    "proju is orthogonal",
    means="proju projects along a slanted direction; with the ambient metric that is not the nearest tangent vector",
    remedy="subtract the Euclidean-normal component; if the metric is not the ambient one, override inner",
    needs=(methods_run, proju_projects),
    every_dtype=True,
    applies=lambda p: "" if p.m.metric_is_induced else "orthogonality of proju: the metric is not the ambient one",
)
def proju_orthogonal(p: Probe) -> Iterator[Measurement]:
    """<a - proju(x, a), b> == 0 for tangent b."""

    def residual(m: Any, r: Round, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return ((a - m.proju(r(x), r(a))) * m.proju(r(x), r(b))).flatten(1).sum(-1)

    yield p.compare(residual, "<a - proju(x, a), proju(x, b)>", x=p.x, a=p.normal(*p.x.shape), b=p.normal(*p.x.shape))


@law(
    "inner is an inner product",
    means="inner is not a metric (a diagonal or a sign is wrong), or norm was overridden with another one",
    remedy="write inner as u' G(x) v with G symmetric and positive on tangent vectors; leave norm to the base class",
    needs=(methods_run,),
    every_dtype=True,
)
def inner_is_metric(p: Probe) -> Iterator[Measurement]:
    """The metric inner is symmetric, linear in each vector and positive, and norm(x, u)^2 == inner(x, u, u)."""

    def symmetric(m: Any, r: Round, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return m.inner(r(x), r(u), r(v)) - m.inner(r(x), r(v), r(u))

    def linear(m: Any, r: Round, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return m.inner(r(x), r(2 * u - v), r(v)) - 2 * m.inner(r(x), r(u), r(v)) + m.inner(r(x), r(v), r(v))

    def norm(m: Any, r: Round, x: Tensor, u: Tensor) -> Tensor:
        return m.norm(r(x), r(u)) ** 2 - m.inner(r(x), r(u), r(u))

    yield p.compare(symmetric, "inner(x, u, v) - inner(x, v, u)", x=p.x, u=p.u, v=p.v)
    yield p.compare(linear, "inner(x, 2u - v, v) - 2 inner(x, u, v) + inner(x, v, v)", x=p.x, u=p.u, v=p.v)
    yield p.compare(norm, "norm(x, u)^2 - inner(x, u, u)", x=p.x, u=p.u)
    square = p.m.inner(p.x, p.v, p.v).detach()
    yield Measurement(-square, -torch.finfo(p.dtype).tiny * torch.ones_like(square), {"x": p.x, "u": p.v}, "-|u|^2")


@law(
    "tangent_basis is orthonormal",
    means="the basis is orthonormal in the ambient dot product but not in inner, or is not tangent",
    remedy="divide by the metric's scale, or remove the override: the default orthonormalises with inner",
    needs=(methods_run, proju_projects, inner_is_metric),
    every_dtype=True,
)
def basis_orthonormal(p: Probe) -> Iterator[Measurement]:
    """inner(x, e_i, e_j) == 1 if i == j else 0, with every e_i tangent."""
    dim = p.m.dim

    def residual(m: Any, r: Round, x: Tensor) -> Tensor:
        e = r(m.tangent_basis(x))
        x = r(x)[(slice(None), None, None)]
        gram = m.inner(x, e[:, :, None], e[:, None])
        return gram - torch.eye(dim, dtype=gram.dtype, device=gram.device)

    def tangent(m: Any, r: Round, x: Tensor) -> Tensor:
        e = m.tangent_basis(x)
        return m.proju(r(x)[:, None], r(e)) - e

    root = torch.full_like(p.t, dim**0.5)
    yield p.compare(residual, "the matrix of inner(x, e_i, e_j) minus the identity", relative=root, x=p.x)
    yield p.compare(tangent, "proju(x, e_i) - e_i", relative=root, x=p.x)


@law(
    "embed is smooth along geodesics",
    means="embed jumps or kinks at a seam, the default embed is used with coordinates that wrap (angles), or its "
    "derivative is wrong; a network that reads it learns a field that jumps, which has no valid density",
    remedy="embed angles as (cos, sin), classes as a smooth invariant (x x'), and leave absolute values and signs out",
    needs=(methods_run, proju_projects),
)
def embed_smooth(p: Probe) -> Iterator[Measurement]:
    """embed(c(b)) - embed(c(a)) is the integral of its derivative, for geodesics c that go all the way round."""
    x = p.x[:6]
    basis = p.m.tangent_basis(x)
    directions = torch.cat([basis[:, i % p.m.dim] for i in range(2)] + [p.v[:6]]).contiguous()
    x = x.repeat(3, *(1,) * p.k)
    finite = p.cut is not None and p.cut * 2.2 < 10
    length = p.room[:6].repeat(3).clamp(max=2.2 * p.cut if finite and p.cut is not None else p.reach)
    intervals, n = 64, len(x)
    nodes, weights = (a.to(p.x) for a in gauss_legendre(4))
    start = torch.arange(intervals, device=p.device, dtype=p.dtype) / intervals

    def code(s: Tensor) -> Tensor:
        return p.m.embed(p.m.expmap(x.expand(*s.shape[:-1], *x.shape), p.lift(s * length) * directions))

    # In float64 the quadrature is exact to rounding; a jump or a kink anywhere in an interval is not.
    s = (start[:, None] + nodes / intervals)[..., None].repeat(1, 1, n)
    slope = jvp(code, (s,), (torch.ones_like(s),))[1]
    integral = (slope * weights[:, None, None]).sum(1) / intervals
    ends = code(torch.arange(intervals + 1, device=p.device, dtype=p.dtype)[:, None].expand(-1, n) / intervals)
    worst, _ = (ends[1:] - ends[:-1] - integral).norm(dim=-1).max(0)
    size = ends.norm(dim=-1).amax(0).clamp(min=1) * (1 + length)
    allowed = (1e-8 if p.dtype == torch.float64 else 1e-3) * size
    what = "embed(expmap(x, s u)) over one of 64 steps of s, minus the integral of its derivative,"
    yield Measurement(worst.detach(), allowed.detach(), {"x": x, "u": p.lift(length) * directions}, what)


@law(
    "embed is injective",
    means="embed forgets a coordinate, or identifies points (x and -x, say) that the manifold does not",
    remedy="return enough coordinates: the ambient ones are always enough where a point is one tensor",
    needs=(methods_run, proju_projects),
)
def embed_injective(p: Probe) -> Iterator[Measurement]:
    """With every tangent direction embed moves; it tells different points apart, and has length embed_dim."""
    basis = p.m.tangent_basis(p.x)
    x = p.x[:, None].expand(-1, p.m.dim, *p.x.shape[1:]).contiguous()
    columns = jvp(p.m.embed, (x,), (basis.contiguous(),))[1]
    values = torch.linalg.svdvals(columns.detach())
    found = "embed does not move with some tangent direction: its derivative has rank less than dim"
    # Relative to the largest value: units of the embedding are free.
    yield Measurement(1e-6 * values[:, 0] - values[:, -1], torch.zeros_like(values[:, 0]), {"x": p.x}, found=found)
    mirrored = p.m.projx(-p.x).detach()
    on = p.size(mirrored + p.x) < 1e-9
    others = {"near": p.y, "far": p.far, "mirrored": torch.where(p.lift(on), mirrored, p.far)}
    for y in others.values():
        apart = p.m.dist(p.x, y).detach()
        gap = (p.m.embed(p.x) - p.m.embed(y)).norm(dim=-1).detach()
        found = "embed gives two different points nearly the same vector"
        error = torch.where(apart > 1e-3, 1e-6 * values[:, 0] * apart - gap, torch.zeros_like(gap))
        yield Measurement(error, torch.zeros_like(error), {"x": p.x, "y": y}, found=found)


@law(
    "random draws are points",
    means="random_uniform returns points that are off the manifold, or outside the range in which angles are kept",
    remedy="end random_uniform with projx",
    needs=(methods_run, draws_use_generator, projx_idempotent, projx_corrects),
    every_dtype=True,
    applies=has_uniform,
)
def draws_are_points(p: Probe) -> Iterator[Measurement]:
    """Every draw of random_uniform is a point: projx leaves it where it is."""
    generator = torch.Generator(p.device).manual_seed(p.seed)
    points = p.m.random_uniform(64, generator=generator, dtype=p.dtype, device=p.device)
    error = p.size(p.m.projx(points) - points)
    yield Measurement(error, SLACK_OF_CHECK * p.unit * p.size(points).clamp(min=1), {"x": points}, "projx of a draw")


# The checks at the borders.


@law(
    "check_point and check_tangent tell good from bad",
    means="a check was overridden, or projx or proju leaves wrong inputs as they are (every input then passes)",
    remedy="remove the override, or raise ValueError wherever the distance to projx(x) exceeds the tolerance",
    needs=(methods_run, projx_idempotent, projx_corrects, proju_projects),
    every_dtype=True,
)
def checks_tell(p: Probe) -> Iterator[Measurement]:
    """Good inputs pass; a wrong shape, integers, NaN, and what is off by 0.1 raise ValueError."""
    p.m.check_point(p.x)
    p.m.check_tangent(p.x, p.m.proju(p.x, p.u))
    bad: dict[str, Tensor] = {
        "points of a wrong shape": p.x.reshape(-1)[: p.x[0].numel() - 1],
        "integer points": p.x.to(torch.int64),
        "points that are not a number": p.x * float("nan"),
    }
    off = p.normal_direction(p.x)
    if off is not None and not _is_another_representative(p, p.x + 0.1 * off):
        bad["points that are off by 0.1"] = p.x + 0.1 * off
    for what, x in bad.items():
        yield verdict(not _refuses(p.m.check_point, x), f"check_point accepts {what}", x=x)
    if off is not None:
        yield verdict(
            not _refuses(p.m.check_tangent, p.x, p.u + 0.1 * off),
            "check_tangent accepts vectors that are normal by 0.1",
        )
    yield verdict(not _refuses(p.m.check_tangent, p.x, p.u * float("nan")), "check_tangent accepts NaN")


def _is_another_representative(p: Probe, x: Tensor) -> bool:
    """Return whether all of ``x`` stand for the points of the probe: where a continuous group makes the classes."""
    if not p.points_are_classes:
        return False
    moved = (p.m.embed(x) - p.m.embed(p.x)).norm(dim=-1)
    return bool((moved <= 1e-4 * p.m.embed(p.x).norm(dim=-1)).all())


def _refuses(check: Any, *arguments: Tensor) -> bool:
    try:
        check(*arguments)
    except ValueError:
        return True
    return False


PROJECTIONS = (
    projx_idempotent,
    proju_projects,
    projx_corrects,
    draws_are_points,
    proju_orthogonal,
    inner_is_metric,
    basis_orthonormal,
)
EMBEDDING = (embed_smooth, embed_injective)
CHECKS = (checks_tell,)
