"""One step of a Runge-Kutta method."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from manifolds import Manifold
from rfm.integrators.per_sample import combine, either, lift
from rfm.integrators.right_hand_side import RightHandSide
from rfm.integrators.runge_kutta.chart import Chart, Charted


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
    """Where they were requested."""


def step(
    scheme: Charted,
    field: RightHandSide,
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
        integrands_at: at which stages integrands are evaluated, see `Tableau.integrands_at`.
    """
    tableau = scheme.tableau
    chart = scheme.chart(manifold, x)
    u, q = field(x, t, integrand=integrands_at[0]) if first is None else first
    velocities, integrands = [chart.start_velocity(u)], [q]
    lifted = lift(h, velocities[0])
    outside = None
    for c, row, with_integrand in zip(tableau.c[1:], tableau.a[1:], integrands_at[1:], strict=True):
        w = lifted * combine(row, velocities)
        y, left_domain = chart.point(w)
        outside = either(outside, left_domain)
        u, q = field(y, t + c * h, integrand=with_integrand)
        velocities.append(chart.velocity(w, y, u))
        integrands.append(q)
    if not tableau.first_same_as_last:
        w = lifted * combine(tableau.b, velocities)
        y, left_domain = chart.point(w)
        outside = either(outside, left_domain)
    return Step(y, _integral(tableau.b, h, integrands), (u, q), outside, chart, h, w, velocities, integrands)


def estimated_errors(scheme: Charted, result: Step) -> tuple[Tensor, Tensor | None]:
    """Return the embedded method's estimates of the errors of the point, as a length, and of the integral."""
    weights = scheme.tableau.b_error
    assert weights is not None
    difference = lift(result.h, result.w) * combine(weights, result.velocities)
    return result.chart.length(difference, result.x), _integral(weights, result.h, result.integrands)


def _integral(weights: tuple[float, ...], h: Tensor, integrands: list[Tensor | None]) -> Tensor | None:
    weighed = [(weight, q) for weight, q in zip(weights, integrands, strict=True) if weight != 0]
    known = [q for _, q in weighed if q is not None]
    if len(known) < len(weighed):
        return None
    total = combine([weight for weight, _ in weighed], known)
    return lift(h, total) * total
