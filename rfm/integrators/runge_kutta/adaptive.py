"""Runge-Kutta steps that keep an error bound, per sample."""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.integrators.per_sample import Samples
from rfm.integrators.right_hand_side import RightHandSide
from rfm.integrators.runge_kutta.chart import Charted
from rfm.integrators.runge_kutta.interpolation import interpolate
from rfm.integrators.runge_kutta.step import estimated_errors, step
from rfm.integrators.scheme import Attempt, Moving
from rfm.integrators.step_control import Growth, Tolerance, Trial


@dataclass(frozen=True)
class Evaluated(Samples):
    """The field where the next step begins."""

    u: Tensor
    q: Tensor | None


class AdaptiveRungeKutta:
    """Runge-Kutta steps whose embedded method estimates their errors.

    Args:
        scheme: the tableau, whose last stage is the field at the end of the step, and the coordinates.
        manifold: where the points live.
        tolerance: what error a step may make.
    """

    evaluations_between = 2

    def __init__(self, scheme: Charted, manifold: Manifold, tolerance: Tolerance) -> None:
        self.scheme, self.manifold, self.tolerance = scheme, manifold, tolerance
        self.order = scheme.tableau.order
        self.evaluations_per_step = len(scheme.tableau.c) - 1

    def begin(self, x: Tensor, t: Tensor, first: tuple[Tensor, Tensor | None], span: float) -> Evaluated:
        return Evaluated(*first)

    def attempt(self, field: RightHandSide, at: Moving, trial: Trial) -> Attempt:
        memory = at.memory
        assert isinstance(memory, Evaluated)
        integrands_at = self.scheme.tableau.integrands_at(with_error=True)
        first = memory.u, memory.q
        result = step(self.scheme, field, self.manifold, at.x, at.t, trial.signed, first, integrands_at=integrands_at)
        integral = None if at.integral is None or result.increment is None else at.integral + result.increment
        error, error_of_integral = estimated_errors(self.scheme, result)
        ratio = self.tolerance.ratio(error, (at.x, result.x), error_of_integral, (at.integral, integral))
        growth = Growth().factor(ratio, self.order)
        return Attempt(result.x, integral, ratio, result.outside, growth, Evaluated(*result.last), memory, result)

    def between(
        self, rhs: RightHandSide, before: Moving, attempt: Attempt, after: Moving, row: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Return points of a polynomial through the step, which costs two evaluations of each sample."""
        rows, own = torch.unique(row, return_inverse=True)
        times, place = torch.unique(t, return_inverse=True)
        # Fractions of other samples' times are computed as well and thrown away.
        s = before.x.new_zeros(len(rows), len(times))
        s[own, place] = (t - before.t[row]) / (after.t - before.t)[row]
        field = functools.partial(rhs, index=before.index[rows].repeat(2))
        at, start = before.x[rows], before.t[rows]
        x, integral = interpolate(self.scheme, field, self.manifold, at, start, attempt.step, rows, s)
        total = None if integral is None or before.integral is None else before.integral[row] + integral[own, place]
        return x[own, place], total
