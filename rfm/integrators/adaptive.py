"""Steps that keep an error bound, per sample."""

import functools
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.integrators.adams import Adams
from rfm.integrators.adams_adaptive import AdaptiveAdams
from rfm.integrators.chart import Scheme
from rfm.integrators.interpolation import interpolate
from rfm.integrators.method import RightHandSide, on_manifold, tableau_of
from rfm.integrators.recorder import Recorder
from rfm.integrators.runge_kutta import Step, estimated_errors, lift, step
from rfm.integrators.solution import SUCCEEDED, Solution
from rfm.integrators.step_control import Growth, Tolerance, Trial, initial_step
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
            SO(3) and SE(3) `MuntheKaas`. Or `Adams`, of the highest order to use; its output times cost no evaluations.
        atol: absolute tolerance per step, in the unit of the metric (radians on a sphere).
        rtol: relative tolerance per step.
        max_steps: steps tried per sample, accepted or not, before it is given up.
    """

    scheme: Tableau | Scheme | Adams = DORMAND_PRINCE
    atol: float = 1e-6
    rtol: float = 1e-6
    max_steps: int = 10_000

    def __post_init__(self) -> None:
        if not isinstance(self.scheme, Adams) and tableau_of(self.scheme).b_error is None:
            raise ValueError("Adaptive: the tableau has no embedded method to estimate errors with; use DORMAND_PRINCE")
        if not (self.atol >= 0 and self.rtol >= 0 and self.atol + self.rtol > 0):
            raise ValueError(f"Adaptive: tolerances must be positive, got atol {self.atol} and rtol {self.rtol}")

    def solve(self, rhs: RightHandSide, manifold: Manifold, x: Tensor, times: tuple[float, ...]) -> Solution:
        if isinstance(self.scheme, Adams):
            return AdaptiveAdams(self.scheme, self._tolerance, self.max_steps, rhs, manifold).solve(x, times)
        given = on_manifold(self.scheme, manifold)
        scheme = given.with_tableau(given.tableau.with_last_stage())
        result = Recorder(x, times)
        moving = self._start(rhs, manifold, scheme, x, times)
        if moving.integral is not None:
            result.begin_integrals(moving.integral)
        while len(moving.index):
            field = functools.partial(rhs, index=None if len(moving.index) == len(x) else moving.index)
            moving, made, before = self._advance(field, manifold, scheme, moving, times)
            _record_between(result, scheme, rhs, manifold, before, made, moving)
            done = moving.arrived | (moving.status != SUCCEEDED)
            if bool(done.any()):
                ended = moving.take(torch.nonzero(done).flatten())
                result.end(ended, 2 + (len(scheme.tableau.c) - 1) * ended.steps)
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
        trial = Trial.of(at.t, at.h, end, sign)
        asked = scheme.tableau.integrands_at(with_error=True)
        made = step(scheme, field, manifold, at.x, at.t, trial.signed, (at.u, at.q), integrands_at=asked)
        integral = None if at.integral is None or made.increment is None else at.integral + made.increment
        error, error_of_integral = estimated_errors(scheme, made)
        ratio = self._tolerance.ratio(error, (at.x, made.x), error_of_integral, (at.integral, integral))
        steps = at.steps + 1
        growth = Growth().factor(ratio, scheme.tableau.order)
        judged = trial.judged(ratio, made.outside, growth, steps, self.max_steps)
        accept = judged.accept
        on = manifold.lift(accept)
        u, q = made.last
        if q is not None and at.q is not None:
            q = torch.where(lift(accept, q), q, at.q)
        if integral is not None and at.integral is not None:
            integral = torch.where(lift(accept, integral), integral, at.integral)
        after = replace(
            at,
            x=torch.where(on, made.x, at.x),
            t=judged.t,
            h=judged.h,
            u=torch.where(on, u, at.u),
            q=q,
            integral=integral,
            steps=steps,
            status=judged.status,
            arrived=judged.arrived,
        )
        return after, made, at

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


def _record_between(
    result: Recorder,
    scheme: Scheme,
    rhs: RightHandSide,
    manifold: Manifold,
    at: _Moving,
    made: Step,
    after: _Moving,
) -> None:
    """Fill in the output times that accepted steps have passed, except the last."""
    if len(result.grid) == 2:
        return
    row, column = result.passed(at.t, after.t)
    if len(row) == 0:
        return
    rows, own = torch.unique(row, return_inverse=True)
    columns, place = torch.unique(column, return_inverse=True)
    # Fractions of other samples' times are computed as well and thrown away.
    s = at.x.new_zeros(len(rows), len(columns))
    s[own, place] = (result.grid[column] - at.t[row]) / (after.t - at.t)[row]
    field = functools.partial(rhs, index=at.index[rows].repeat(2))
    x, integral = interpolate(scheme, field, manifold, at.x[rows], at.t[rows], made, rows, s)
    total = None if integral is None or at.integral is None else at.integral[row] + integral[own, place]
    result.fill(column, at.index[row], x[own, place], total)
    result.evaluations[at.index[rows]] += 2
