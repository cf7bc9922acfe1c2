"""One step of a Runge-Kutta method."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.integrators.chart import Chart, Scheme

Field = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]
"""``field(x, t)`` for ``n`` points and times ``(n)`` gives velocities, and integrands ``(n)`` or None."""


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
    integrands: list[Tensor]


def step(
    scheme: Scheme,
    field: Field,
    manifold: Manifold,
    x: Tensor,
    t: Tensor,
    h: Tensor,
    first: tuple[Tensor, Tensor | None] | None = None,
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
    """
    tableau = scheme.tableau
    chart = scheme.chart(manifold, x)
    u, q = field(x, t) if first is None else first
    velocities, integrands = [chart.start_velocity(u)], [] if q is None else [q]
    lifted = lift(h, velocities[0])
    outside = None
    for c, row in zip(tableau.c[1:], tableau.a[1:], strict=True):
        w = lifted * combine(row, velocities)
        y, beyond = chart.point(w)
        outside = _either(outside, beyond)
        u, q = field(y, t + c * h)
        velocities.append(chart.velocity(w, y, u))
        if q is not None:
            integrands.append(q)
    if not tableau.first_same_as_last:
        w = lifted * combine(tableau.b, velocities)
        y, beyond = chart.point(w)
        outside = _either(outside, beyond)
    increment = h * combine(tableau.b, integrands) if integrands else None
    return Step(y, increment, (u, q), outside, chart, h, w, velocities, integrands)


def estimated_errors(scheme: Scheme, made: Step) -> tuple[Tensor, Tensor | None]:
    """Return the embedded method's estimates of the errors of the point, as a length, and of the integral."""
    weights = scheme.tableau.b_error
    assert weights is not None
    difference = lift(made.h, made.w) * combine(weights, made.velocities)
    integral = made.h * combine(weights, made.integrands) if made.integrands else None
    return made.chart.length(difference, made.x), integral


def combine(weights: tuple[float, ...], terms: list[Tensor]) -> Tensor:
    """Return the sum of ``weights[i] * terms[i]``, leaving out zero weights."""
    total = None
    for weight, term in zip(weights, terms, strict=False):
        if weight != 0:
            total = weight * term if total is None else torch.add(total, term, alpha=weight)
    assert total is not None
    return total


def lift(s: Tensor, like: Tensor) -> Tensor:
    """Append axes of length one to numbers ``(n)`` or ``()``, so that they multiply ``like``."""
    return s[(..., *(None,) * (like.ndim - 1))]


def _either(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a | b
