"""Steps that keep an error bound, per sample."""

import functools
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.integrators.chart import Scheme
from rfm.integrators.interpolation import interpolate
from rfm.integrators.method import RightHandSide, on_manifold, tableau_of
from rfm.integrators.runge_kutta import Step, estimated_errors, lift, step
from rfm.integrators.solution import (
    LEFT_DOMAIN,
    NOT_FINITE,
    STEP_TOO_SMALL,
    SUCCEEDED,
    TOO_MANY_STEPS,
    Solution,
)
from rfm.integrators.step_control import Tolerance, average, factor, initial_step
from rfm.integrators.tableaux import DORMAND_PRINCE, Tableau


@dataclass(frozen=True)
class Adaptive:
    """Steps chosen for each sample alone, so that its result does not depend on the rest of its batch.

    A step is accepted where the embedded method's estimate of its error, in the norm of the manifold, is at most
    ``atol + rtol |x|`` (``|x|`` over ambient coordinates), and for the integral ``atol + rtol |integral|``. A step that
    leaves the domain, or meets a field that is not finite, is made again with a fifth of its length. Samples that have
    arrived leave the batch. Steps are not cut at output times: positions there come
    from a polynomial that costs two evaluations per step that passes any.

    Args:
        scheme: a `Projected`, `Geodesic`, `MuntheKaas` or `NormalCoordinates` method whose tableau has an embedded one
            (`HEUN_EULER`, `BOGACKI_SHAMPINE`, `DORMAND_PRINCE`, `TSITOURAS`); a bare tableau is `Projected`, on
            SO(3) and SE(3) `MuntheKaas`.
        atol: absolute tolerance per step, in the unit of the metric (radians on a sphere).
        rtol: relative tolerance per step.
        max_steps: steps tried per sample, accepted or not, before it is given up.
    """

    scheme: Tableau | Scheme = DORMAND_PRINCE
    atol: float = 1e-6
    rtol: float = 1e-6
    max_steps: int = 10_000

    def __post_init__(self) -> None:
        if tableau_of(self.scheme).b_error is None:
            raise ValueError("Adaptive: the tableau has no embedded method to estimate errors with; use DORMAND_PRINCE")
        if not (self.atol >= 0 and self.rtol >= 0 and self.atol + self.rtol > 0):
            raise ValueError(f"Adaptive: tolerances must be positive, got atol {self.atol} and rtol {self.rtol}")

    def solve(self, rhs: RightHandSide, manifold: Manifold, x: Tensor, times: tuple[float, ...]) -> Solution:
        given = on_manifold(self.scheme, manifold)
        scheme = given.with_tableau(given.tableau.with_last_stage())
        result = _Result(x, times)
        moving = self._start(rhs, manifold, scheme, x, times)
        if moving.integral is not None:
            result.begin_integrals(moving.integral)
        while len(moving.index):
            field = functools.partial(rhs, index=None if len(moving.index) == len(x) else moving.index)
            moving, made, before = self._advance(field, manifold, scheme, moving, times)
            result.record_between(scheme, rhs, manifold, before, made, moving)
            done = moving.arrived | (moving.status != SUCCEEDED)
            if bool(done.any()):
                result.record_end(moving.take(torch.nonzero(done).flatten()), len(scheme.tableau.c) - 1)
                moving = moving.take(torch.nonzero(~done).flatten())
        return result.solution()

    def _start(
        self, rhs: RightHandSide, manifold: Manifold, scheme: Scheme, x: Tensor, times: tuple[float, ...]
    ) -> "_Moving":
        n, span = len(x), times[-1] - times[0]
        t = torch.full((), times[0], dtype=x.dtype, device=x.device).expand(n)
        u, q = rhs(x, t)
        h = initial_step(rhs, manifold, self._tolerance, scheme.tableau.order, x, t, (u, q), span)
        count = torch.zeros(n, dtype=torch.long, device=x.device)
        none = torch.zeros(n, dtype=torch.bool, device=x.device)
        index = torch.arange(n, device=x.device)
        return _Moving(index, x, t, h, u, q, None if q is None else torch.zeros_like(q), count, count, none)

    def _advance(
        self, field: RightHandSide, manifold: Manifold, scheme: Scheme, at: "_Moving", times: tuple[float, ...]
    ) -> tuple["_Moving", Step, "_Moving"]:
        """Try a step; return where the samples are after it, the step, and where they were."""
        end, sign = times[-1], math.copysign(1.0, times[-1] - times[0])
        remaining = (end - at.t).abs()
        arrives = at.h >= remaining
        h = torch.where(arrives, remaining, at.h)
        asked = scheme.tableau.integrands_at(with_error=True)
        made = step(scheme, field, manifold, at.x, at.t, sign * h, (at.u, at.q), integrands_at=asked)
        integral = None if at.integral is None or made.increment is None else at.integral + made.increment
        ratio = self._error_ratio(scheme, made, at, integral)
        finite = torch.isfinite(ratio)
        if made.outside is not None:
            ratio = torch.where(made.outside, math.inf, ratio)
        accept = ratio <= 1  # NaN compares false
        t = torch.where(arrives, end, at.t + sign * h)
        h_next = h * factor(ratio, scheme.tableau.order)
        steps = at.steps + 1
        floor = 4 * torch.finfo(t.dtype).eps * torch.maximum(at.t.abs(), t.abs()).clamp(min=1e-3)
        why = STEP_TOO_SMALL if made.outside is None else torch.where(made.outside, LEFT_DOMAIN, STEP_TOO_SMALL)
        arrived = accept & arrives
        # Also after accepted steps: they can become so short that time stands still.
        status = torch.where(~arrived & (h_next < floor), torch.where(finite, why, NOT_FINITE), SUCCEEDED)
        status = torch.where((status == SUCCEEDED) & (steps >= self.max_steps) & ~arrived, TOO_MANY_STEPS, status)
        on = manifold.lift(accept)
        u, q = made.last
        if q is not None and at.q is not None:
            q = torch.where(lift(accept, q), q, at.q)
        if integral is not None and at.integral is not None:
            integral = torch.where(lift(accept, integral), integral, at.integral)
        after = replace(
            at,
            x=torch.where(on, made.x, at.x),
            t=torch.where(accept, t, at.t),
            h=h_next,
            u=torch.where(on, u, at.u),
            q=q,
            integral=integral,
            steps=steps,
            status=status,
            arrived=arrived,
        )
        return after, made, at

    def _error_ratio(self, scheme: Scheme, made: Step, at: "_Moving", integral: Tensor | None) -> Tensor:
        """Return the larger of the errors of the point and of the integral, relative to what is tolerated."""
        of_point, of_integral = estimated_errors(scheme, made)
        tolerance = self._tolerance
        ratio = of_point / torch.maximum(tolerance.of_points(at.x), tolerance.of_points(made.x))
        if of_integral is None or integral is None or at.integral is None:
            return ratio
        size = torch.maximum(average(at.integral).abs(), average(integral).abs())
        return torch.maximum(ratio, average(of_integral).abs() / tolerance.of_sizes(size))

    @property
    def _tolerance(self) -> Tolerance:
        return Tolerance(self.atol, self.rtol)


@dataclass(frozen=True)
class _Moving:
    """The samples that have not arrived, ``n`` of them."""

    index: Tensor
    x: Tensor
    t: Tensor
    h: Tensor
    u: Tensor
    q: Tensor | None
    integral: Tensor | None
    steps: Tensor
    status: Tensor
    arrived: Tensor

    def take(self, rows: Tensor) -> "_Moving":
        values = (None if v is None else v[rows] for v in vars(self).values())
        return _Moving(*values)  # type: ignore[arg-type]


class _Result:
    """What is known so far, NaN where nothing is."""

    def __init__(self, x: Tensor, times: tuple[float, ...]) -> None:
        self.grid = torch.tensor(times, dtype=x.dtype, device=x.device)
        self.x = x.new_full((len(times), *x.shape), math.nan)
        self.x[0] = x
        self.integrals: Tensor | None = None
        self.status = torch.full((len(x),), SUCCEEDED, device=x.device)
        self.evaluations = torch.full((len(x),), 2, device=x.device)

    def begin_integrals(self, zeros: Tensor) -> None:
        """Note that there are integrals, and their shape ``(n)`` or ``(n, k)``."""
        self.integrals = zeros.new_full((len(self.grid), *zeros.shape), math.nan)
        self.integrals[0] = zeros

    def record_between(
        self, scheme: Scheme, rhs: RightHandSide, manifold: Manifold, at: _Moving, made: Step, after: _Moving
    ) -> None:
        """Fill in the output times that accepted steps have passed, except the last."""
        if len(self.grid) == 2:
            return
        way, ahead = (after.t - at.t)[:, None], self.grid[1:-1] - at.t[:, None]
        # A rejected step has length zero, and passes nothing.
        passed = (ahead * way > 0) & (ahead.abs() <= way.abs())
        columns = torch.nonzero(passed.any(0)).flatten()
        rows = torch.nonzero(passed.any(1)).flatten()
        if len(rows) == 0:
            return
        index, own = at.index[rows], passed[rows][:, columns]
        field = functools.partial(rhs, index=index.repeat(2))
        # Fractions of other samples' times are computed as well and thrown away.
        s = torch.where(own, (ahead / way)[rows][:, columns], 0.0)
        x, integral = interpolate(scheme, field, manifold, at.x[rows], at.t[rows], made, rows, s)
        row, column = torch.nonzero(own, as_tuple=True)
        self.x[columns[column] + 1, index[row]] = x[row, column]
        if integral is not None and at.integral is not None and self.integrals is not None:
            self.integrals[columns[column] + 1, index[row]] = at.integral[rows][row] + integral[row, column]
        self.evaluations[index] += 2

    def record_end(self, done: _Moving, evaluations_per_step: int) -> None:
        """Fill in samples that have arrived or failed."""
        self.status[done.index] = done.status
        self.evaluations[done.index] += evaluations_per_step * done.steps
        arrived = torch.nonzero(done.arrived).flatten()
        self.x[-1, done.index[arrived]] = done.x[arrived]
        if done.integral is not None and self.integrals is not None:
            self.integrals[-1, done.index[arrived]] = done.integral[arrived]

    def solution(self) -> Solution:
        return Solution(self.grid, self.x, self.integrals, self.status, self.evaluations)
