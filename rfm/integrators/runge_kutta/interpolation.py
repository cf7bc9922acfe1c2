"""Points between the ends of a step."""

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.integrators.per_sample import combine, lift
from rfm.integrators.right_hand_side import RightHandSide
from rfm.integrators.runge_kutta.chart import Charted
from rfm.integrators.runge_kutta.step import Step


def interpolate(
    scheme: Charted, field: RightHandSide, manifold: Manifold, x: Tensor, t: Tensor, step: Step, rows: Tensor, s: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Return points inside a step whose last stage is its end, and the integrals from its start to them.

    A polynomial of degree five in the coordinates of the step, hence on the manifold. It has the values and slopes of
    the ends, and the slopes that the field has at a third and two thirds of the way, at points of a polynomial of lower
    degree. With `DORMAND_PRINCE` and `TSITOURAS` its error over one step is of sixth order in the step's length, as is
    that of the step itself; a polynomial without further evaluations is of fifth, and several times less accurate.

    Args:
        scheme: that of the step.
        field: what is integrated, for the samples in ``rows``.
        manifold: where the points live.
        x: where the step started, for these samples, ``(k, *event_shape)``.
        t: when, ``(k)``.
        step: the step.
        rows: which samples of the step, ``(k)``.
        s: fractions of the step ``(k, m)``, any number of them per sample.

    Returns:
        Points ``(k, m, *event_shape)`` and integrals ``(k, m)``.

    References:
        Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I, 1993, section II.6 (raising the order by
        evaluations on an interpolant).
    """
    k, m = s.shape
    h = step.h[rows]
    twice = torch.cat([x, x])
    chart = scheme.chart(manifold, twice)
    bump = scheme.tableau.bump
    ends = _Ends(h, step.w[rows], step.velocities[0][rows], step.velocities[-1][rows])
    extra = None if bump is None else combine(bump, step.velocities)[rows]
    w = torch.cat([ends.low(1 / 3, extra), ends.low(2 / 3, extra)])
    y, _ = chart.point(w)
    u, q = field(y, torch.cat([t + h / 3, t + h * (2 / 3)]))
    third, two_thirds = chart.velocity(w, y, u).chunk(2)
    inner = ends.high(third, two_thirds, s)
    start = x.repeat_interleave(m, 0)
    points, _ = scheme.chart(manifold, start).point(inner.flatten(0, 1))
    points = points.reshape(k, m, *x.shape[1:])
    q_start, q_end = step.integrands[0], step.integrands[-1]
    if q is None or step.increment is None or q_start is None or q_end is None:
        return points, None
    ends = _Ends(h, step.increment[rows], q_start[rows], q_end[rows])
    third, two_thirds = q.chunk(2)
    return points, ends.high(third, two_thirds, s)


class _Ends:
    """Values ``(k, ...)`` and slopes of a function at the ends of steps of length ``h`` ``(k)``; it starts at 0."""

    def __init__(self, h: Tensor, total: Tensor, first: Tensor, last: Tensor) -> None:
        self.h, self.mean = lift(h, total), total / lift(h, total)
        self.first, self.last = first, last

    def low(self, s: float, bump: Tensor | None) -> Tensor:
        """Return the cubic polynomial with these ends at the fraction ``s``, plus ``bump`` times a quartic."""
        slope = (1 - s) * self.first - s * self.last + (0 if bump is None else s * (1 - s) * bump)
        return self.h * (s * s * (3 - 2 * s) * self.mean + s * (1 - s) * slope)

    def high(self, third: Tensor, two_thirds: Tensor, s: Tensor) -> Tensor:
        """Return the quintic polynomial with these ends and these slopes inside at fractions ``(k, m)``."""
        linear = 81 / 4 * (third + two_thirds - 8 / 3 * self.mean + (self.first + self.last) / 3)
        constant = 27 / 4 * (third - 4 / 3 * self.mean + self.last / 3) - 2 / 3 * linear
        mean, first, last, constant, linear, h = (
            v.unsqueeze(1) for v in (self.mean, self.first, self.last, constant, linear, self.h)
        )
        s = s[(..., *(None,) * (mean.ndim - 2))]
        slope = (1 - s) * first - s * last + s * (1 - s) * (constant + s * linear)
        return h * (s * s * (3 - 2 * s) * mean + s * (1 - s) * slope)
