"""One step of a Runge-Kutta method."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.integrators.chart import Chart, Scheme


class Field(Protocol):
    """What is integrated, for ``n`` points and times ``(n)``."""

    def __call__(self, x: Tensor, t: Tensor, *, integrand: bool = True) -> tuple[Tensor, Tensor | None]:
        """Return velocities, and integrands ``(n)`` or None; None also where the integrand is not asked for."""
        ...


@dataclass(frozen=True)
class Step:
    """What a step gives for ``n`` samples."""

    x: Tensor
    """The new points."""
    increment: Tensor | None
    """The integral over the step, ``(n)``."""
    last: tuple[Tensor, Tensor | None]
    """The field at the last stage."""
    outside: Tensor | None
    """Which samples left the domain of the coordinates at some stage, ``(n)``; None if none can."""
    chart: Chart
    h: Tensor
    w: Tensor
    velocities: list[Tensor]
    integrands: list[Tensor | None]
    """Where they were asked for."""


def step(
    scheme: Scheme,
    field: Field,
    manifold: Manifold,
    x: Tensor,
    t: Tensor,
    h: Tensor,
    first: tuple[Tensor, Tensor | None] | None = None,
    *,
    integrands_at: Sequence[bool],
) -> Step:
    """Make one step.

    Args:
        scheme: the tableau and the coordinates.
        field: what is integrated.
        manifold: where the points live.
        x: points ``(n, *event_shape)``.
        t: times ``(n)``, or one for all.
        h: signed lengths ``(n)``, or one for all.
        first: the field at ``x`` and ``t``, where it is known.
        integrands_at: which stages' integrands are asked for, see `Tableau.integrands_at`.
    """
    tableau = scheme.tableau
    chart = scheme.chart(manifold, x)
    u, q = field(x, t, integrand=integrands_at[0]) if first is None else first
    velocities, integrands = [chart.start_velocity(u)], [q]
    lifted = lift(h, velocities[0])
    outside = None
    for c, row, asked in zip(tableau.c[1:], tableau.a[1:], integrands_at[1:], strict=True):
        w = lifted * combine(row, velocities)
        y, beyond = chart.point(w)
        outside = either(outside, beyond)
        u, q = field(y, t + c * h, integrand=asked)
        velocities.append(chart.velocity(w, y, u))
        integrands.append(q)
    if not tableau.first_same_as_last:
        w = lifted * combine(tableau.b, velocities)
        y, beyond = chart.point(w)
        outside = either(outside, beyond)
    return Step(y, _integral(tableau.b, h, integrands), (u, q), outside, chart, h, w, velocities, integrands)


def estimated_errors(scheme: Scheme, made: Step) -> tuple[Tensor, Tensor | None]:
    """Return the embedded method's estimates of the errors of the point, as a length, and of the integral."""
    weights = scheme.tableau.b_error
    assert weights is not None
    difference = lift(made.h, made.w) * combine(weights, made.velocities)
    return made.chart.length(difference, made.x), _integral(weights, made.h, made.integrands)


def _integral(weights: tuple[float, ...], h: Tensor, integrands: list[Tensor | None]) -> Tensor | None:
    weighed = [(weight, q) for weight, q in zip(weights, integrands, strict=True) if weight != 0]
    known = [q for _, q in weighed if q is not None]
    if len(known) < len(weighed):
        return None
    total = combine([weight for weight, _ in weighed], known)
    return lift(h, total) * total


def combine(weights: Sequence[float], terms: Sequence[Tensor]) -> Tensor:
    """Return the sum of ``weights[i] * terms[i]``, leaving out zero weights."""
    total = None
    for weight, term in zip(weights, terms, strict=False):
        if weight != 0:
            total = weight * term if total is None else torch.add(total, term, alpha=weight)
    return torch.zeros_like(terms[0]) if total is None else total


def lift(s: Tensor, like: Tensor) -> Tensor:
    """Append axes of length one to numbers ``(n)`` or ``()``, so that they multiply ``like``."""
    return s[(..., *(None,) * (like.ndim - 1))]


def number(value: float, like: Tensor) -> Tensor:
    """Return a number as a tensor ``()`` of the dtype and on the device of another."""
    return torch.full((), value, dtype=like.dtype, device=like.device)


def either(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """Return which samples are in ``a`` or in ``b``, None for none."""
    if a is None or b is None:
        return b if a is None else a
    return a | b
