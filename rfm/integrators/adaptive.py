"""Steps that keep an error bound, per sample."""

import functools
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.integrators.right_hand_side import RightHandSide
from rfm.integrators.runge_kutta.cheapest import in_coordinates
from rfm.integrators.runge_kutta.tableaux import DORMAND_PRINCE, Tableau
from rfm.integrators.scheme import AdaptiveStepper, Attempt, Moving, Scheme
from rfm.integrators.solution import SUCCEEDED, Solution
from rfm.integrators.step_control import Tolerance, Trial, initial_step


@dataclass(frozen=True)
class Adaptive:
    """Steps chosen for each sample alone, so that its result does not depend on the rest of its batch.

    A step is accepted where the embedded method's estimate of its error, in the norm of the manifold, is at most
    ``atol + rtol |x|`` (``|x|`` over ambient coordinates), and for the integral ``atol + rtol |integral|``. A step that
    leaves the domain, or meets a field that is not finite, is repeated with a fifth of its length. Samples that have
    arrived leave the batch. Steps are not cut at output times: positions there come
    from a polynomial that costs two evaluations per step that passes any.

    Args:
        scheme: a `Projected`, `Geodesic`, `MuntheKaas` or `NormalCoordinates` method whose tableau has an embedded one
            (`HEUN_EULER`, `BOGACKI_SHAMPINE`, `DORMAND_PRINCE`, `TSITOURAS`); a bare tableau is `Projected`, on
            SO(3) and SE(3) `MuntheKaas`. Or `Adams`, of the highest order to use; its output times cost no evaluations.
        atol: absolute tolerance per step, in the unit of the metric (radians on a sphere).
        rtol: relative tolerance per step.
        max_steps: steps tried per sample, accepted or not, before it is given up.
    """

    scheme: Tableau | Scheme = DORMAND_PRINCE
    atol: float = 1e-6
    rtol: float = 1e-6
    max_steps: int = 10_000

    def __post_init__(self) -> None:
        if not in_coordinates(self.scheme).estimates_errors:
            raise ValueError("Adaptive: the tableau has no embedded method to estimate errors with; use DORMAND_PRINCE")
        if not (self.atol >= 0 and self.rtol >= 0 and self.atol + self.rtol > 0):
            raise ValueError(f"Adaptive: tolerances must be positive, got atol {self.atol} and rtol {self.rtol}")

    def solve(self, rhs: RightHandSide, manifold: Manifold, x: Tensor, times: tuple[float, ...]) -> Solution:
        stepper = in_coordinates(self.scheme).adaptive(rhs, manifold, self._tolerance)
        result = _Recorder(x, times)
        moving = self._start(rhs, manifold, stepper, x, times)
        if moving.integral is not None:
            result.begin_integrals(moving.integral)
        while len(moving.index):
            field = functools.partial(rhs, index=None if len(moving.index) == len(x) else moving.index)
            before = moving
            moving, attempt = self._advance(field, stepper, before, times)
            _record_between(result, rhs, stepper, before, attempt, moving)
            done = moving.arrived | (moving.status != SUCCEEDED)
            if bool(done.any()):
                ended = moving.take(torch.nonzero(done).flatten())
                result.end(ended, 2 + stepper.evaluations_per_step * ended.steps)
                moving = moving.take(torch.nonzero(~done).flatten())
        return result.solution()

    def _start(
        self, rhs: RightHandSide, manifold: Manifold, stepper: AdaptiveStepper, x: Tensor, times: tuple[float, ...]
    ) -> Moving:
        n, span = len(x), times[-1] - times[0]
        t = torch.full((), times[0], dtype=x.dtype, device=x.device).expand(n)
        u, q = rhs(x, t)
        count = torch.zeros(n, dtype=torch.long, device=x.device)
        return Moving(
            index=torch.arange(n, device=x.device),
            x=x,
            t=t,
            h=initial_step(rhs, manifold, self._tolerance, stepper.order, x, t, (u, q), span),
            integral=None if q is None else torch.zeros_like(q),
            memory=stepper.begin(x, t, (u, q), span),
            steps=count,
            status=torch.full_like(count, SUCCEEDED),
            arrived=torch.zeros(n, dtype=torch.bool, device=x.device),
        )

    def _advance(
        self, field: RightHandSide, stepper: AdaptiveStepper, at: Moving, times: tuple[float, ...]
    ) -> tuple[Moving, Attempt]:
        """Try a step; return where the samples are after it, and the step."""
        trial = Trial.of(at.t, at.h, times[-1], math.copysign(1.0, times[-1] - times[0]))
        attempt = stepper.attempt(field, at, trial)
        steps = at.steps + 1
        outcome = trial.assess(attempt.ratio, attempt.outside, attempt.growth, steps, self.max_steps)
        stay = replace(
            at,
            t=outcome.t,
            h=outcome.h,
            memory=attempt.rejected,
            steps=steps,
            status=outcome.status,
            arrived=outcome.arrived,
        )
        go = replace(stay, x=attempt.x, integral=attempt.integral, memory=attempt.accepted)
        return go.where(outcome.accept, stay), attempt

    @property
    def _tolerance(self) -> Tolerance:
        return Tolerance(self.atol, self.rtol)


class _Recorder:
    """The results of a solve whose samples arrive one by one: what is known so far, NaN where nothing is."""

    def __init__(self, x: Tensor, times: tuple[float, ...]) -> None:
        self.grid = torch.tensor(times, dtype=x.dtype, device=x.device)
        self.x = x.new_full((len(times), *x.shape), math.nan)
        # With other output times that rounding does not distinguish from the start.
        self.at_start = self.grid == self.grid[0]
        self.x[self.at_start] = x
        self.integrals: Tensor | None = None
        self.status = torch.full((len(x),), SUCCEEDED, device=x.device)
        self.evaluations = torch.zeros(len(x), dtype=torch.long, device=x.device)

    def begin_integrals(self, zeros: Tensor) -> None:
        """Note that there are integrals, and their shape ``(n)`` or ``(n, k)``."""
        self.integrals = zeros.new_full((len(self.grid), *zeros.shape), math.nan)
        self.integrals[self.at_start] = zeros

    def passed(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        """Return which samples pass which output times on the way from one time ``(n)`` to another, as pairs.

        Rows number the samples, columns the output times. The last output time is nobody's: what arrives is recorded by
        `end`. A rejected step has length zero, and passes nothing.
        """
        way, ahead = (after - before)[:, None], self.grid[1:-1] - before[:, None]
        row, column = torch.nonzero((ahead.sign() * way.sign() > 0) & (ahead.abs() <= way.abs()), as_tuple=True)
        return row, column + 1

    def fill(self, column: Tensor, index: Tensor, x: Tensor, integral: Tensor | None) -> None:
        """Fill in where samples are at output times, one of each per entry."""
        self.x[column, index] = x
        if integral is not None and self.integrals is not None:
            self.integrals[column, index] = integral

    def end(self, done: Moving, evaluations: Tensor) -> None:
        """Fill in samples that have arrived or failed, and how many evaluations they took."""
        self.status[done.index] = done.status
        self.evaluations[done.index] += evaluations
        arrived = torch.nonzero(done.arrived).flatten()
        self.fill(
            torch.full_like(arrived, len(self.grid) - 1),
            done.index[arrived],
            done.x[arrived],
            None if done.integral is None else done.integral[arrived],
        )

    def solution(self) -> Solution:
        return Solution(self.grid, self.x, self.integrals, self.status, self.evaluations)


def _record_between(
    result: _Recorder, rhs: RightHandSide, stepper: AdaptiveStepper, before: Moving, attempt: Attempt, after: Moving
) -> None:
    """Fill in the output times that accepted steps have passed, except the last."""
    if len(result.grid) == 2:
        return
    row, column = result.passed(before.t, after.t)
    if len(row) == 0:
        return
    index = before.index[row]
    result.fill(column, index, *stepper.between(rhs, before, attempt, after, row, result.grid[column]))
    if stepper.evaluations_between:
        result.evaluations[torch.unique(index)] += stepper.evaluations_between
