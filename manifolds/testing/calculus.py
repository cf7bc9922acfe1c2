"""Laws about derivatives, divergence, and the volume."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from manifolds.numerics import log_sphere_area
from manifolds.testing.autodiff import jvp, vjp
from manifolds.testing.distances import dist_is_norm
from manifolds.testing.geodesics import (
    acceleration_normal,
    expmap_first_order,
    expmap_starts,
    gauss_lemma,
    speed_constant,
    velocity_right,
)
from manifolds.testing.law import law
from manifolds.testing.logarithms import cut_pairs, log_arrives, log_digits, log_inverts
from manifolds.testing.measurement import Measurement
from manifolds.testing.methods import METHODS, POINT, Method
from manifolds.testing.probe import Probe, Round
from manifolds.testing.projections import (
    basis_orthonormal,
    draws_are_points,
    embed_smooth,
    inner_is_metric,
    proju_projects,
    projx_corrects,
)
from manifolds.testing.quadrature import gauss_legendre
from manifolds.testing.structure import draws_use_generator, has_uniform, methods_run


def paths(p: Probe) -> Callable[[Any, Tensor], dict[str, Tensor]]:
    """Return smooth curves of inputs through the probe's, all on the manifold, as a function of times ``(n,)``."""
    # Of Riemannian length, so that the curves bend as little as the manifold does.
    a, b, c, d = (0.3 * p.unit_tangent(q) for q in (p.x, p.y, p.x, p.x))
    e = p.normal(len(p.x))

    def at(m: Any, s: Tensor) -> dict[str, Tensor]:
        lift = p.lift(s)
        x = m.projx(p.x + lift * a)
        return {
            "x": x,
            "y": m.projx(p.y + lift * b),
            "u": m.proju(x, 0.7 * p.u + lift * c),
            "v": m.proju(x, p.v + lift * d),
            "t": p.t + 0.1 * s * e,
        }

    return at


def outputs(p: Probe, m: Any, method: Method, inputs: dict[str, Tensor]) -> Tensor:
    """Return a method's results as rows, points through the embedding, in which they cannot jump."""
    results = method(m, **inputs)
    rows = []
    for i, (kind, result) in enumerate(zip(method.kinds, results, strict=True)):
        if p.points_are_classes and i > 0:
            continue  # A velocity is at a representative, which may jump from one to the other.
        rows.append((p.m.embed(result) if kind == POINT else result).reshape(len(result), -1))
    return torch.cat(rows, dim=-1)


@law(
    "derivatives are right",
    means="a .detach(), a clamp, a round() or a custom backward cuts a path, or a shortcut is taken for some points",
    remedy="differentiate on paper where PyTorch cannot; projx too must have the derivative of a projection",
    needs=(methods_run, projx_corrects, embed_smooth),
)
def derivatives_right(p: Probe) -> Iterator[Measurement]:
    """forward-mode derivatives equal central differences, and reverse-mode derivatives equal forward-mode ones."""
    path = paths(p)
    eps = torch.finfo(p.dtype).eps
    for method in METHODS:
        if not method.differentiable:
            continue

        def f(s: Tensor, method: Method = method) -> Tensor:
            return outputs(p, p.m, method, path(p.m, s))

        zero = torch.zeros_like(p.t)
        value, forward = jvp(f, (zero,), (torch.ones_like(zero),))
        # The step that balances the fourth-order stencil's truncation with rounding.
        h = torch.full_like(zero, eps**0.2)
        if method.name in ("norm", "dist"):
            # They have a kink at zero: near it the stencil keeps its distance, and rounding is as small as the value.
            h = h * value.detach()[:, 0].clamp(min=eps**0.5, max=1)
        outer, inner = (f(zero + 2 * h) - f(zero - 2 * h)).detach(), (f(zero + h) - f(zero - h)).detach()
        difference = (8 * inner - outer) / (12 * h[:, None])
        size = (value.detach().norm(dim=-1) + difference.norm(dim=-1)).clamp(min=1)
        at = {name: getattr(p, name) for name in method.arguments}
        error = (forward - difference).detach().norm(dim=-1)
        yield Measurement(error, 3e4 * eps**0.8 * size, at, f"the forward derivative of {method.call}")
        weights = p.normal(*value.shape)
        _, pull = vjp(f, zero)
        error = (pull(weights)[0] - (weights * forward).sum(-1)).detach().abs()
        what = f"the reverse derivative of {method.call}, against the forward one,"
        yield Measurement(error, 1e5 * eps * size * weights.norm(dim=-1).clamp(min=1), at, what)


@law(
    "coordinates for networks differentiate as said",
    means="embed_jvp, tangent_from_vector_jvp or projx_jvp is a closed form of another map: exact densities would be "
    "wrong",
    remedy="correct the closed form, or remove the override: the default differentiates",
    needs=(methods_run, embed_smooth, derivatives_right),
)
def coordinates_differentiate(p: Probe) -> Iterator[Measurement]:
    """embed_jvp, tangent_from_vector_jvp, projx_jvp return value and derivatives of the maps they are named after."""
    eps = torch.finfo(p.dtype).eps
    v = torch.stack([p.v, p.w])
    w, dw = p.normal(len(p.x), p.m.field_dim), p.normal(2, len(p.x), p.m.field_dim)
    # Off the manifold, as the stages of a step are.
    near = p.x + 0.01 * (v[0] + 0.1 * p.normal(*p.x.shape))
    pairs = {
        "embed_jvp": (p.m.coordinates.embed_jvp(p.x, v), [jvp(p.m.embed, (p.x,), (a,)) for a in v]),
        "tangent_from_vector_jvp": (
            p.m.coordinates.tangent_from_vector_jvp(p.x, w, v, dw),
            [jvp(p.m.tangent_from_vector, (p.x, w), (a, b)) for a, b in zip(v, dw, strict=True)],
        ),
        "projx_jvp": (p.m.projx_jvp(near, v), [jvp(p.m.projx, (near,), (a,)) for a in v]),
    }
    for name, ((value, changes), expected) in pairs.items():
        for change, (its_value, its_change) in zip(changes, expected, strict=True):
            both = torch.stack([value - its_value, change - its_change], dim=1).detach().flatten(1)
            size = torch.stack([its_value, its_change], dim=1).detach().flatten(1).norm(dim=-1).clamp(min=1)
            yield Measurement(both.norm(dim=-1), 1e4 * eps * size, {"x": p.x, "v": v[0]}, name)


@law(
    "derivatives are finite at hard places",
    means="a square root, a norm, an acos or an angle divided by its sine is differentiated at 0; torch.where does not "
    "help by itself, because it differentiates both branches",
    remedy="give the branch not taken a harmless argument, and use manifolds.numerics (safe_sqrt, sinc_of_root)",
    needs=(methods_run, proju_projects, expmap_starts, log_arrives),
    every_dtype=True,
)
def derivatives_finite(p: Probe) -> Iterator[Measurement]:
    """Values and first derivatives are finite at coincident and close points, at u = 0 and at the cut locus."""
    near = [("at y = x", p.x, p.x)]
    near += [
        (f"at distance {s:.0e}", p.x, p.m.expmap(p.x, s * p.v).detach())
        for s in (1e-12, 1e-8, 1e-6, 1e-4, 1e-2)
        if s > p.unit
    ]
    lengths = (0.0, 1e-20, 1e-8, 1e-4)
    short = [(f"at norm(x, u) = {s:.0e}", p.x, s * p.v) for s in lengths]
    for method in METHODS:
        if not method.differentiable:
            continue
        if "y" in method.arguments:
            # Parallel transport does not exist at the cut locus.
            places = near if method.name == "transp" else near + list(cut_pairs(p))
            yield from _finite(p, method, "y", places)
        elif "u" in method.arguments:
            yield from _finite(p, method, "u", short)


def _finite(p: Probe, method: Method, varied: str, places: list[tuple[str, Tensor, Tensor]]) -> Iterator[Measurement]:
    count, n = len(places), len(p.x) * len(places)
    repeated = {name: getattr(p, name).repeat(count, *(1,) * (getattr(p, name).ndim - 1)) for name in "yuvt"}
    repeated |= {"x": torch.cat([x for _, x, _ in places]), varied: torch.cat([a for _, _, a in places])}
    inputs = {name: repeated[name] for name in method.arguments}
    names, values = tuple(inputs), tuple(inputs.values())

    def f(*arguments: Tensor) -> Tensor:
        results = method(p.m, **dict(zip(names, arguments, strict=True)))
        return torch.cat([result.reshape(n, -1) for result in results], dim=-1)

    directions = tuple(p.normal(*value.shape) for value in values)
    value, forward = jvp(f, values, directions)
    _, pull = vjp(f, *values)
    reverse = torch.cat([g.reshape(n, -1) for g in pull(p.normal(*value.shape))], dim=-1)
    for what, result in (("value", value), ("forward derivative", forward), ("reverse derivative", reverse)):
        broken = ~result.detach().isfinite().all(-1)
        where = [
            place for (place, _, _), bad in zip(places, broken.reshape(count, -1).any(-1).tolist(), strict=True) if bad
        ]
        found = f"the {what} of {method.call} is not finite {', '.join(where)}"
        yield Measurement(broken.to(p.dtype), torch.zeros(n), inputs, found=found)


@law(
    "derivative of logmap at the point is the identity",
    means="the derivative is cut off or zeroed where the points coincide, or digits are lost before differentiating",
    remedy="write the small-angle form as a series in the squared distance, whose derivative is right at 0",
    needs=(methods_run, log_inverts, log_digits, derivatives_right, derivatives_finite),
    every_dtype=True,
)
def log_first_order(p: Probe) -> Iterator[Measurement]:
    """d/ds logmap(x, y + s w) == w at y = x, and up to O(distance) near it."""
    eps = torch.finfo(p.dtype).eps
    for s in (0.0, 1e-12, 1e-8, 1e-6, 1e-5, 1e-4):
        if 0 < s < eps / 2:
            continue
        y = p.m.expmap(p.x, s * p.v).detach()
        w = p.m.proju(y, p.w)
        moved = jvp(lambda a: p.m.logmap(p.x, p.m.projx(a)), (y,), (w,))[1]
        error = p.size(moved - p.w).detach()
        # Curvature moves the derivative by distance^2, the ambient picture by distance.
        size = (p.size(p.w) * p.size(p.x).clamp(min=1)).detach()
        yield Measurement(error, (eps**0.5 + 30 * s) * size, {"x": p.x, "y": y, "w": w}, f"at distance {s:.0e}, it")


# Volume.


@law(
    "log_det_expmap is the volume that expmap stretches",
    means="an exponent (dim - 1, not dim) or the curvature is wrong in the closed form",
    remedy="correct it, or remove the override: the default differentiates expmap",
    needs=(methods_run, inner_is_metric, expmap_first_order, basis_orthonormal, speed_constant, gauss_lemma),
)
def log_det_right(p: Probe) -> Iterator[Measurement]:
    """log_det_expmap(x, u) is half the log-determinant of inner(y, D e_i, D e_j), with D the derivative of expmap."""

    def residual(m: Any, r: Round, x: Tensor, u: Tensor) -> Tensor:
        basis = m.tangent_basis(x)
        many = basis.shape
        x_i, u_i = r(x)[:, None].expand(many), r(u)[:, None].expand(many)
        y, columns = jvp(lambda a: m.expmap(x_i, a), (u_i.contiguous(),), (basis.contiguous(),))
        if p.points_are_classes:
            columns = m.proju(y, columns)
        columns = r(columns)
        gram = m.inner(y[:, :, None], columns[:, :, None], columns[:, None])
        return torch.linalg.slogdet(gram).logabsdet / 2 - m.log_det_expmap(r(x), r(u))

    yield p.compare(residual, "half the log-determinant of the stretched basis, minus log_det_expmap,", x=p.x, u=p.u)


@law(
    "divergence is that of the metric",
    means="divergence_frame or log_volume_derivative belongs to another metric: every log-density would be wrong",
    remedy="correct the closed form, or remove the override: the default differentiates log det of inner",
    needs=(
        methods_run,
        inner_is_metric,
        basis_orthonormal,
        velocity_right,
        acceleration_normal,
        speed_constant,
        gauss_lemma,
    ),
)
def divergence_right(p: Probe) -> Iterator[Measurement]:
    """sum_i <w_i, Dv e_i> + log_volume_derivative(x, v) == sum_i d/ds inner(c_i, v(c_i), c_i').

    Here c_i are the geodesics along an orthonormal basis.
    """
    size = math.prod(p.m.event_shape)
    matrix, offset = p.normal(size, size) / size**0.5, p.normal(size)

    def residual(m: Any, r: Round, x: Tensor) -> Tensor:
        a, b = matrix.to(x), offset.to(x)

        def field(z: Tensor) -> Tensor:
            return m.proju(z, (z.flatten(-p.k) @ a.mT + b).reshape(z.shape))

        e, w = m.divergence_frame(x)
        many = e.shape
        x_i = r(x)[:, None].expand(many).contiguous()
        slopes = jvp(field, (x_i,), (e.contiguous(),))[1]
        divergence = (w * slopes).flatten(1).sum(-1) + m.log_volume_derivative(r(x), field(r(x)))
        basis = m.tangent_basis(x)

        def along(s: Tensor) -> Tensor:
            c, dc = m.shoot(x_i, basis, s)
            return m.inner(c, field(c), dc)

        # Velocities of geodesics are parallel, so the derivative of the product is <D_{e_i} v, e_i>.
        zero = torch.zeros(many[:2], dtype=x.dtype, device=x.device)
        return divergence - jvp(along, (zero,), (torch.ones_like(zero),))[1].sum(-1)

    scale = (matrix.norm() * (1 + p.size(p.x)) + offset.norm()).detach()
    yield p.compare(residual, "the divergence of a random field, against that by geodesics,", relative=scale, x=p.x)


_DRAWS = 20_000
_DIRECTIONS = 64
_STANDARD_ERRORS = 6.0


Balls = tuple[float, Tensor, Tensor, Tensor, Tensor]
"""Radius, centres, the observed and the expected shares of draws within it, and the variance expected."""


def _ball_counts(p: Probe) -> list[Balls]:
    """Return shares of draws in balls, counted once for both laws that judge them: a solver's distances take long."""
    if "balls" not in p.shared:
        p.shared["balls"] = list(_count_balls(p))
    balls: list[Balls] = p.shared["balls"]
    return balls


def _count_balls(p: Probe) -> Iterator[Balls]:
    if p.cut is None or not math.isfinite(p.cut):
        radii: tuple[float, ...] = (p.reach,)
    else:
        radii = tuple(share * min(p.cut, p.logmap_radius) for share in (0.15, 0.3, 0.6, 0.95))
    centres = p.x[-6:]
    if not bool(p.room.isinf().all()):
        farthest = p.room.topk(6)
        centres = p.x[farthest.indices]
        radii = tuple(min(radius, float(farthest.values.min())) for radius in radii)
    generator = torch.Generator(p.device).manual_seed(p.seed)
    draws = p.m.random_uniform(_DRAWS, generator=generator, dtype=p.dtype, device=p.device)
    distances = torch.stack([p.m.dist(centre, draws) for centre in centres]).detach()
    nodes, weights = (a.to(p.x) for a in gauss_legendre(8))
    dim = p.m.dim
    half = p.normal(len(centres), _DIRECTIONS // 2, dim)
    d = torch.cat([half, -half], dim=1)
    d = d / d.norm(dim=-1, keepdim=True)
    basis = p.m.tangent_basis(centres)
    directions = (d @ basis.flatten(2)).reshape(len(centres), _DIRECTIONS, *p.m.event_shape)
    area = math.exp(log_sphere_area(dim - 1))
    sheets = float(getattr(p.m.manifold, "points_per_class", 1))
    for radius in radii:
        r = radius * nodes
        many = (len(centres), _DIRECTIONS, len(r), *p.m.event_shape)
        x = centres[:, None, None].expand(many)
        u = p.lift(r) * directions[:, :, None]
        density = torch.exp(p.m.log_det_expmap(x, u)).detach()
        rays = radius * (density * weights * r ** (dim - 1)).sum(-1) * area * sheets / p.m.volume
        pairs = (rays[:, : _DIRECTIONS // 2] + rays[:, _DIRECTIONS // 2 :]) / 2
        expected = pairs.mean(1)
        observed = (distances < radius).to(p.dtype).mean(1)
        chance = observed.clamp(1 / _DRAWS, 1 - 1 / _DRAWS)
        variance = chance * (1 - chance) / _DRAWS + pairs.var(1) / pairs.shape[1]
        if bool((observed * _DRAWS >= 25).all()) or bool((expected * _DRAWS >= 25).all()):
            yield radius, centres, observed, expected, variance


def _small_enough(p: Probe) -> str:
    if p.m.dim > 8:
        return f"the volume: a ball in {p.m.dim} dimensions holds too few uniform draws"
    if p.m.volume is None:
        return "the volume: it is None"
    return has_uniform(p)


@law(
    "random_uniform is uniform",
    means="draws are uniform in coordinates, or a cube is normalised, instead of uniform in the Riemannian volume",
    remedy="normalise Gaussian draws on spheres and groups; elsewhere correct by the metric's density",
    needs=(
        methods_run,
        draws_use_generator,
        draws_are_points,
        dist_is_norm,
        log_inverts,
        log_arrives,
        basis_orthonormal,
        log_det_right,
    ),
    applies=_small_enough,
)
def uniform_is_uniform(p: Probe) -> Iterator[Measurement]:
    """Balls of one radius around different points hold shares of the draws in proportion to their volumes."""
    for radius, centres, observed, expected, variance in _ball_counts(p):
        # Up to a common factor, which is the volume's business.
        factor = observed.mean() / expected.mean()
        error = (observed - factor * expected).abs()
        allowed = _STANDARD_ERRORS * variance.sqrt()
        what = f"the share of {_DRAWS} draws within {radius:.3g} of x, against the average over x,"
        yield Measurement(error, allowed, {"x": centres}, what)


@law(
    "the uniform density is normalised",
    means="volume is that of another normalisation of the metric, or of part of the manifold",
    remedy="compute the volume in the metric of inner: scaling inner by c multiplies it by c^(dim / 2); if it counts "
    "every representative of a class, state points_per_class",
    needs=(methods_run, inner_is_metric, log_inverts, log_arrives, log_det_right, gauss_lemma, uniform_is_uniform),
    applies=_small_enough,
)
def volume_right(p: Probe) -> Iterator[Measurement]:
    """The share of uniform draws in a ball is the integral of exp(log_det_expmap) over it, divided by volume."""
    for radius, centres, observed, expected, variance in _ball_counts(p):
        ratio = expected.mean() / observed.mean()
        error = (observed.mean() - expected.mean()).abs()[None]
        # The centres share their draws, so that averaging over them does not make the count more certain.
        allowed = _STANDARD_ERRORS * variance.mean().sqrt()[None]
        counted = float(p.m.volume * ratio)
        what = f"the share of draws within {radius:.3g} (volume {p.m.volume:.4g}, counted {counted:.4g})"
        yield Measurement(error, allowed, {"x": centres[:1]}, what)


DERIVATIVES = (derivatives_right, coordinates_differentiate, derivatives_finite, log_first_order)
VOLUME = (log_det_right, divergence_right, uniform_is_uniform, volume_right)
