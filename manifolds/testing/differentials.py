"""The law about the differentials of exp and log, with which flow maps are trained and their densities computed."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from manifolds.testing.autodiff import vjp
from manifolds.testing.calculus import derivatives_right, paths
from manifolds.testing.law import law
from manifolds.testing.logarithms import log_inverts
from manifolds.testing.measurement import Measurement
from manifolds.testing.probe import Probe
from manifolds.testing.projections import embed_smooth, proju_projects, projx_corrects
from manifolds.testing.second_derivatives import second_derivatives_right
from manifolds.testing.structure import methods_run

_POINTS = 4
_CLOSE = 1e-7
_NAMES = {"expmap": "xu", "logmap": "xy"}

Curve = Callable[[Tensor], Tensor]
"""A function of times ``(n,)`` that returns rows ``(n, k)``, each from its own time."""


@law(
    "differentials of exp and log are right",
    means="expmap_jvp or logmap_jvp is a closed form of another map, leaves out that the vector turns with its point, "
    "or cannot be differentiated: flow maps would be trained on wrong targets, and have wrong densities",
    remedy="correct the closed form, or remove the override: the default differentiates",
    needs=(
        methods_run,
        proju_projects,
        projx_corrects,
        embed_smooth,
        log_inverts,
        derivatives_right,
        second_derivatives_right,
    ),
)
def differentials_right(p: Probe) -> Iterator[Measurement]:
    """expmap_jvp and logmap_jvp return the map, and tangent vectors that equal central differences.

    Their reverse derivatives equal those of the vectors, or raise.
    """
    for where, few in _places(p):
        inputs, changes = _inputs(few), _changes(few)
        for name, arguments in _NAMES.items():
            at = {a: inputs(torch.zeros_like(few.t))[a].detach() for a in arguments}
            yield from _values(few, name, at, changes, f"{name}_jvp {where}")
            yield from _differences(few, name, inputs, changes, at, f"{name}_jvp {where}")


def _places(p: Probe) -> Iterator[tuple[str, Probe]]:
    """Yield inputs that are generic, coincide in part or in full, and nearly coincide."""
    few = p.with_coincident(_POINTS)
    yield "at generic points, at y = x and at u = 0", few
    close = p.with_coincident(_POINTS)
    u = _CLOSE * close.v
    close.u, close.y = u, close.m.expmap(close.x, u).detach()
    yield f"at distance {_CLOSE:.0e}", close


def _inputs(p: Probe) -> Callable[[Tensor], dict[str, Tensor]]:
    path = paths(p)
    return lambda s: {name: value for name, value in path(p.m, s).items() if name in "xuy"}


def _changes(p: Probe) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """Return directions as a smooth function of the inputs: tangent ones for points, any for the vector."""
    # Of Riemannian length, so that what is differentiated bends as little as the manifold does.
    a, b, c = (0.3 * p.unit_tangent(q) for q in (p.x, p.x, p.y))

    def of(at: dict[str, Tensor]) -> dict[str, Tensor]:
        x = at["x"]
        return {"x": p.m.proju(x, a), "u": b, "y": p.m.proju(at["y"], c) if "y" in at else c}

    return of


def _jvp(p: Probe, name: str, at: dict[str, Tensor], along: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    points, directions = ([of[a] for a in _NAMES[name]] for of in (at, along))
    value, change = (p.m.expmap_jvp if name == "expmap" else p.m.logmap_jvp)(*points, *directions)
    return value, change


def _values(
    p: Probe, name: str, at: dict[str, Tensor], changes: Callable[..., dict[str, Tensor]], call: str
) -> Iterator[Measurement]:
    """Compare the value with the map's, tangency, linearity over stacked directions, and what must not count."""
    eps = torch.finfo(p.dtype).eps + p.accuracy
    along = changes(at)
    value, change = (a.detach() for a in _jvp(p, name, at, along))
    own = (p.m.expmap if name == "expmap" else p.m.logmap)(*at.values()).detach()
    # A change that is not a number allows nothing: it is found below.
    length = p.size(change).nan_to_num(nan=0.0, posinf=0.0)
    size = (1 + p.size(own) + length) * (1 + sum(p.size(a) for a in at.values()))
    yield Measurement(p.size(value - own), 1e3 * eps * size, at, f"the value of {call}, against {name},")
    stacked = {a: torch.stack([v, 2 * v, 0 * v]) for a, v in along.items()}
    both = _jvp(p, name, at, stacked)[1].detach()
    expected = torch.stack([change, 2 * change, 0 * change])
    off = p.size(both - expected).amax(0)
    yield Measurement(off, 1e4 * eps * size, at, f"{call} along stacked directions, against one by one,")
    if name == "expmap":
        off = p.size(p.m.proju(value, change) - change).detach()
        yield Measurement(off, 1e3 * eps * size, at, f"the part of the derivative of {call} that is not tangent")
        normal = p.normal_direction(at["x"])
        if normal is not None:
            other = _jvp(p, name, at, along | {"u": along["u"] + normal})[1].detach()
            yield Measurement(
                p.size(other - change), 1e4 * eps * size, at, f"what a part of du that is not tangent changes in {call}"
            )
    else:
        fixed = _jvp(p, name, at, along | {"x": torch.zeros_like(at["x"])})[1].detach()
        off = p.size(p.m.proju(at["x"], fixed) - fixed).detach()
        yield Measurement(off, 1e4 * eps * size, at, f"the part of {call} with dx = 0 that is not tangent")


def _differences(
    p: Probe,
    name: str,
    inputs: Callable[[Tensor], dict[str, Tensor]],
    changes: Callable[..., dict[str, Tensor]],
    at: dict[str, Tensor],
    call: str,
) -> Iterator[Measurement]:
    """Compare with central differences of the map, and the reverse derivative with those of the result."""
    eps = torch.finfo(p.dtype).eps
    start = inputs(torch.zeros_like(p.t))
    along = changes(start)

    def moved(s: Tensor) -> Tensor:
        lift = p.lift(s)
        x = p.m.projx(start["x"] + lift * along["x"])
        if name == "expmap":
            end = p.m.expmap(x, p.m.proju(x, start["u"] + lift * along["u"]))
            return p.m.embed(end)
        return p.m.logmap(x, p.m.projx(start["y"] + lift * along["y"])).reshape(len(x), -1)

    def rows(s: Tensor) -> Tensor:
        there = inputs(s)
        value, change = _jvp(p, name, there, changes(there))
        if name == "expmap":
            return p.m.coordinates.embed_jvp(value, change[None])[1][0]
        return change.reshape(len(value), -1)

    found, expected = rows(torch.zeros_like(p.t)), _central(moved, p)
    size = (found.norm(dim=-1) + expected.norm(dim=-1)).clamp(min=1).detach()
    error = (found - expected).detach().norm(dim=-1)
    yield Measurement(error, 3e4 * eps**0.8 * size, at, f"{call}, against central differences,")
    weights = p.normal(*found.shape)
    try:
        slope = vjp(lambda s: (weights * rows(s)).sum(-1), torch.zeros_like(p.t))[1](torch.ones_like(p.t))[0]
    except RuntimeError:
        return  # Refused aloud.
    expected = _central(rows, p)
    size = (found.norm(dim=-1) + expected.norm(dim=-1)).clamp(min=1).detach() * weights.norm(dim=-1)
    error = (slope - (weights * expected).sum(-1)).detach().abs()
    yield Measurement(error, 1e5 * eps**0.8 * size, at, f"the reverse derivative of {call}")


def _central(f: Curve, p: Probe) -> Tensor:
    # The step that balances the fourth-order stencil's truncation with rounding.
    h, zero = torch.finfo(p.dtype).eps ** 0.2, torch.zeros_like(p.t)
    outer, inner = f(zero + 2 * h) - f(zero - 2 * h), f(zero + h) - f(zero - h)
    return ((8 * inner - outer) / (12 * h)).detach()
