"""Adams's steps that keep an error bound, per sample."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.integrators.adams import Adams
from rfm.integrators.method import RightHandSide
from rfm.integrators.quadrature import newton_weights
from rfm.integrators.recorder import Recorder
from rfm.integrators.runge_kutta import either, lift
from rfm.integrators.solution import SUCCEEDED, Solution
from rfm.integrators.step_control import Growth, Tolerance, Trial, average, initial_step

_GROWTH = Growth(safety=0.7, longest=3.0)
"""More careful than after a Runge-Kutta step, whose estimate does not look into the past."""


class AdaptiveAdams:
    """Adams's steps of lengths and orders chosen for each sample alone.

    Velocities are kept as Newton's divided differences over each sample's own times. A corrector of one order more than
    the predictor's is kept, and its difference from the one of the same order estimates the error. The orders start at
    one and two, and rise or fall by one to where the estimate is smallest: they fall on stiff fields, where high orders
    are unstable.

    Args:
        scheme: the method, of the highest order.
        tolerance: what error a step may make.
        max_steps: steps tried per sample.
        rhs: the field.
        manifold: where the points live.

    References:
        Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I, 1993, sections III.5 (equations 5.4 to
        5.10) and III.7 (estimate and choice of the order, as in Shampine & Gordon's code DEABM).
    """

    def __init__(
        self, scheme: Adams, tolerance: Tolerance, max_steps: int, rhs: RightHandSide, manifold: Manifold
    ) -> None:
        self.tolerance, self.max_steps, self.rhs, self.manifold = tolerance, max_steps, rhs, manifold
        self.rows = scheme.order
        """Of divided differences; the predictor uses all but the last."""
        self.space = scheme.space(manifold)

    def solve(self, x: Tensor, times: tuple[float, ...]) -> Solution:
        """Return the solution at output times."""
        result = Recorder(x, times)
        moving = self._start(x, times[0], times[-1])
        if moving.integral is not None:
            result.begin_integrals(moving.integral)
        while len(moving.index):
            before = moving.t
            moving = self._advance(moving, times, len(x))
            if len(times) > 2:
                row, column = result.passed(before, moving.t)
                if len(row):
                    at = moving.take(row)
                    result.fill(column, at.index, *self._between(at, result.grid[column]))
            done = moving.arrived | (moving.status != SUCCEEDED)
            if bool(done.any()):
                ended = moving.take(torch.nonzero(done).flatten())
                result.end(ended, 2 + ended.steps)
                moving = moving.take(torch.nonzero(~done).flatten())
        return result.solution()

    def _start(self, x: Tensor, start: float, end: float) -> "_Moving":
        n = len(x)
        t = torch.full((n,), start, dtype=x.dtype, device=x.device)
        u, q = self.rhs(x, t)
        h = initial_step(self.rhs, self.manifold, self.tolerance, 1, x, t, (u, q), end - start)
        # Times before the start, whose differences are zero.
        ago = torch.arange(self.rows, dtype=x.dtype, device=x.device)[:, None] * (start - end)
        count = torch.zeros(n, dtype=torch.long, device=x.device)
        return _Moving(
            index=torch.arange(n, device=x.device),
            x=x,
            h=h,
            times=t + ago,
            velocities=self._table(self.space.vector(x, u)),
            integrands=None if q is None else self._table(q),
            integral=None if q is None else torch.zeros_like(q),
            order=count + 1,
            accepted=count,
            steps=count,
            status=torch.full_like(count, SUCCEEDED),
            arrived=torch.zeros(n, dtype=torch.bool, device=x.device),
        )

    def _table(self, value: Tensor) -> Tensor:
        """Return the divided differences of one value, ``(rows, n, ...)``."""
        return torch.cat([value[None], value.new_zeros(self.rows - 1, *value.shape)])

    def _advance(self, at: "_Moving", times: tuple[float, ...], total: int) -> "_Moving":
        """Try a step; return where the samples are after it."""
        trial = Trial.of(at.t, at.h, times[-1], math.copysign(1.0, times[-1] - times[0]))
        k, target = self.rows - 1, trial.target
        carry, weights = newton_weights(at.times[:k], target, self.space.count)
        used = torch.where(torch.arange(k, device=target.device)[:, None] < at.order, weights[:, :k], 0.0)
        # Of the difference that the new velocity adds, in the corrector of the order in use.
        added = trial.signed * weights.gather(1, at.order.expand(len(weights), 1, -1))[:, 0]
        # What the corrector of each order adds to that of one less, per unit of its last difference.
        gains = trial.signed * (weights[0, 1:] - weights[0, :-1])

        carried = _scaled(carry, at.velocities[:k])
        moments = _integrals(trial.signed, used, carried)
        predicted, beyond = self.space.moved(at.x, moments[: self.space.predicted_count])
        u, q = self.rhs(predicted, target, index=None if len(at.index) == total else at.index)
        velocities = self._extended(at, carried, self.space.vector(predicted, u))
        latest = _of_row(velocities, at.order)
        corrected, outside = self.space.moved(
            at.x, [b + lift(w, latest) * latest for b, w in zip(moments, added, strict=True)]
        )
        gain = _of_row(gains, at.order - 1)
        error = self.space.length(corrected, lift(gain, latest) * latest)
        sizes = velocities[1:].flatten(2).norm(dim=2) / self.tolerance.of_points(at.x)

        integral, integrands, error_of_integral = None, None, None
        if q is not None and at.integrands is not None and at.integral is not None:
            carried = _scaled(carry, at.integrands[:k])
            integrands = self._extended(at, carried, q)
            latest = _of_row(integrands, at.order)
            [increment] = _integrals(trial.signed, used[:1], carried)
            integral = at.integral + increment + lift(added[0], latest) * latest
            error_of_integral = lift(gain, latest) * latest
            means = torch.stack([average(difference).abs() for difference in integrands[1:]])
            sizes = torch.maximum(sizes, means / self.tolerance.of_sizes(average(at.integral).abs()))

        ratio = self.tolerance.ratio(error, (at.x, corrected), error_of_integral, (at.integral, integral))
        change, growth = self._change(at, ratio, gains.abs() * sizes)
        steps = at.steps + 1
        judged = trial.judged(ratio, either(beyond, outside), growth, steps, self.max_steps)
        accept = judged.accept
        return _Moving(
            index=at.index,
            x=torch.where(self.manifold.lift(accept), corrected, at.x),
            h=judged.h,
            times=torch.where(accept, torch.cat([target[None], at.times[:-1]]), at.times),
            velocities=torch.where(_lift_table(accept[None], velocities), velocities, at.velocities),
            integrands=None
            if integrands is None or at.integrands is None
            else torch.where(_lift_table(accept[None], integrands), integrands, at.integrands),
            integral=None
            if integral is None or at.integral is None
            else torch.where(lift(accept, integral), integral, at.integral),
            order=at.order + change,
            accepted=at.accepted + accept,
            steps=steps,
            status=judged.status,
            arrived=judged.arrived,
        )

    def _extended(self, at: "_Moving", carried: Tensor, value: Tensor) -> Tensor:
        """Return the divided differences with a new value, ``(rows, n, ...)``; zero where they are not known yet."""
        before = torch.cat([torch.zeros_like(carried[:1]), torch.cumsum(carried, 0)])
        row = torch.arange(self.rows, device=value.device)[:, None]
        return torch.where(_lift_table(row <= at.accepted + 1, before), value - before, 0.0)

    def _change(self, at: "_Moving", ratio: Tensor, estimates: Tensor) -> tuple[Tensor, Tensor]:
        """Return by how much the orders change, and what to multiply the lengths of the steps by.

        Args:
            at: where the samples are.
            ratio: errors with the order in use, relative to what is tolerated.
            estimates: of the errors with all orders ``(k, n)``, the first order's first, relative likewise.
        """
        k, order = len(estimates), at.order
        below, now, above = (_of_row(estimates, (order - 1 + d).clamp(0, k - 1)) for d in (-1, 0, 1))
        lower = (order > 1) & (below <= now)
        higher = ~lower & (order < k) & (order <= at.accepted) & (above < now) & (ratio <= 1)
        ratio = ratio * torch.where(lower, below, torch.where(higher, above, now)) / now.clamp(min=1e-30)
        change = higher.long() - lower.long()
        return change, _GROWTH.factor(ratio, order + change + 1)

    def _between(self, at: "_Moving", t: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return where samples were at times ``(n)`` within their last steps: the polynomial, followed back."""
        carry, weights = newton_weights(at.times, t, self.space.count)
        # Differences beyond the order in use may be wild.
        row = torch.arange(self.rows, device=t.device)[:, None]
        back, weights = t - at.t, torch.where(row <= at.order, weights[:, :-1], 0.0)
        x, outside = self.space.moved(at.x, _integrals(back, weights, _scaled(carry, at.velocities)))
        if outside is not None:
            x = torch.where(self.manifold.lift(outside), math.nan, x)
        if at.integrands is None or at.integral is None:
            return x, None
        [since] = _integrals(back, weights[:1], _scaled(carry, at.integrands))
        return x, at.integral + since


@dataclass(frozen=True)
class _Moving:
    """The samples that have not arrived, ``n`` of them."""

    index: Tensor
    x: Tensor
    h: Tensor
    times: Tensor
    """Of the last evaluations, the latest first, ``(rows, n)``."""
    velocities: Tensor
    """Their divided differences, ``(rows, n, *vector_shape)``."""
    integrands: Tensor | None
    integral: Tensor | None
    order: Tensor
    """How many velocities predict; that of the corrector is one more."""
    accepted: Tensor
    steps: Tensor
    status: Tensor
    arrived: Tensor

    @property
    def t(self) -> Tensor:
        """The time now, ``(n)``."""
        return self.times[0]

    def take(self, rows: Tensor) -> "_Moving":
        """Return some of the samples."""
        tables = ("times", "velocities", "integrands")
        named = ((f.name, getattr(self, f.name)) for f in fields(self))
        taken = {name: v if v is None else v[:, rows] if name in tables else v[rows] for name, v in named}
        return _Moving(**taken)  # type: ignore[arg-type]


def _lift_table(numbers: Tensor, like: Tensor) -> Tensor:
    """Append axes of length one to numbers ``(k, n)``, so that they multiply a table ``(k, n, ...)``."""
    return numbers[(..., *(None,) * (like.ndim - 2))]


def _scaled(numbers: Tensor, table: Tensor) -> Tensor:
    return _lift_table(numbers, table) * table


def _integrals(h: Tensor, weights: Tensor, differences: Tensor) -> Sequence[Tensor]:
    """Return integrals over steps of lengths ``h`` ``(n)``, one for each row of weights ``(moments, k, n)``."""
    return [_scaled(row * h, differences).sum(0) for row in weights]


def _of_row(table: Tensor, row: Tensor) -> Tensor:
    """Return of each sample ``(n)`` one row of the table ``(rows, n, ...)``."""
    return table[row, torch.arange(len(row), device=row.device)]
