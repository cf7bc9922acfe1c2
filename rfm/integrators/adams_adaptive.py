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
from rfm.integrators.step_control import Growth, Tolerance, Trial, initial_step

_GROWTH = Growth(safety=0.7, longest=3.0)
"""More careful than after a Runge-Kutta step: the estimate knows the past alone, and the table grows rougher."""


class AdaptiveAdams:
    """Adams's steps of lengths chosen for each sample alone.

    Velocities are kept as Newton's divided differences over each sample's own times, scaled as in the reference. The
    order rises by one with each step, from one to that of the method; the difference between the last two correctors'
    points estimates the error, and the higher one is kept.

    Args:
        scheme: the method.
        tolerance: what error a step may make.
        max_steps: steps tried per sample.
        rhs: the field.
        manifold: where the points live.

    References:
        Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I, 1993, section III.5, equations 5.4 to 5.10,
        and III.7 for the estimate.
    """

    def __init__(
        self, scheme: Adams, tolerance: Tolerance, max_steps: int, rhs: RightHandSide, manifold: Manifold
    ) -> None:
        self.tolerance, self.max_steps, self.rhs, self.manifold = tolerance, max_steps, rhs, manifold
        self.rows = scheme.order
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
            row, column = result.passed(before, moving.t)
            if len(row):
                at = moving.take(row)
                x_between, integral = self._between(at, result.grid[column])
                result.fill(column, at.index, x_between, integral)
            done = moving.arrived | (moving.status != SUCCEEDED)
            if bool(done.any()):
                ended = moving.take(torch.nonzero(done).flatten())
                result.end(ended, 2 + ended.steps)
                moving = moving.take(torch.nonzero(~done).flatten())
        return result.solution()

    def _start(self, x: Tensor, start: float, end: float) -> "_Moving":
        n, like = len(x), {"dtype": x.dtype, "device": x.device}
        t = torch.full((n,), start, **like)
        u, q = self.rhs(x, t)
        h = initial_step(self.rhs, self.manifold, self.tolerance, 1, x, t, (u, q), end - start)
        # Times before the start, whose differences are zero.
        ago = torch.arange(self.rows, **like)[:, None] * (start - end)
        steps = torch.zeros(n, dtype=torch.long, device=x.device)
        return _Moving(
            index=torch.arange(n, device=x.device),
            x=x,
            h=h,
            times=t + ago,
            velocities=self._table(self.space.vector(x, u)),
            integrands=None if q is None else self._table(q),
            integral=None if q is None else torch.zeros_like(q),
            accepted=steps,
            steps=steps,
            status=torch.full_like(steps, SUCCEEDED),
            arrived=torch.zeros(n, dtype=torch.bool, device=x.device),
        )

    def _table(self, value: Tensor) -> Tensor:
        """Return divided differences of one value alone, ``(rows, n, ...)``."""
        return torch.cat([value[None], value.new_zeros(self.rows - 1, *value.shape)])

    def _advance(self, at: "_Moving", times: tuple[float, ...], total: int) -> "_Moving":
        """Try a step; return where the samples are after it."""
        end, sign = times[-1], math.copysign(1.0, times[-1] - times[0])
        trial = Trial.of(at.t, at.h, end, sign)
        target, k = trial.target, self.rows - 1
        carry, weights = newton_weights(at.times[:k], target, self.space.moments)
        velocities = _scaled(carry, at.velocities[:k])
        moments = _integrals(trial.signed, weights[:, :k], velocities)
        predicted, beyond = self.space.moved(at.x, moments[:2])
        index = None if len(at.index) == total else at.index
        u, q = self.rhs(predicted, target, index=index)
        # The number of differences that are known: the new velocity adds the next one.
        known = (at.accepted + 1).clamp(max=k)
        added = weights.gather(1, known.expand(len(weights), 1, -1))[:, 0]
        short = (weights[0].gather(0, known[None]) - weights[0].gather(0, known[None] - 1))[0]
        differences = self._differences(self.space.vector(predicted, u), velocities, known)
        latest = _of_row(differences, known)
        corrected, outside = self.space.moved(
            at.x, [b + lift(trial.signed * w, latest) * latest for b, w in zip(moments, added, strict=True)]
        )
        error = self.space.length(corrected, lift(trial.signed * short, latest) * latest)
        integral, integrands, error_of_integral = at.integral, at.integrands, None
        if q is not None and at.integrands is not None and at.integral is not None:
            summed = _scaled(carry, at.integrands[:k])
            table = self._differences(q, summed, known)
            last = _of_row(table, known)
            [increment] = _integrals(trial.signed, weights[:1, :k], summed)
            integral = at.integral + increment + lift(trial.signed * added[0], last) * last
            error_of_integral = lift(trial.signed * short, last) * last
            integrands = table
        ratio = self.tolerance.ratio(error, (at.x, corrected), error_of_integral, (at.integral, integral))
        steps = at.steps + 1
        judged = trial.judged(ratio, either(beyond, outside), _GROWTH, known + 1, steps, self.max_steps)
        accept = judged.accept
        return _Moving(
            index=at.index,
            x=torch.where(self.manifold.lift(accept), corrected, at.x),
            h=judged.h,
            times=torch.where(accept, torch.cat([target[None], at.times[:-1]]), at.times),
            velocities=torch.where(lift(accept, velocities[0]), differences, at.velocities),
            integrands=None
            if integrands is None or at.integrands is None
            else torch.where(lift(accept, integrands[0]), integrands, at.integrands),
            integral=None
            if integral is None or at.integral is None
            else torch.where(lift(accept, integral), integral, at.integral),
            accepted=at.accepted + accept,
            steps=steps,
            status=judged.status,
            arrived=judged.arrived,
        )

    def _differences(self, value: Tensor, scaled: Tensor, known: Tensor) -> Tensor:
        """Return the divided differences with a new value, ``(rows, n, ...)``; zero where they are not known yet."""
        subtracted = torch.cat([torch.zeros_like(scaled[:1]), torch.cumsum(scaled, 0)])
        row = torch.arange(self.rows, device=value.device)[:, None]
        return torch.where(_lift_table(row <= known, subtracted), value - subtracted, 0.0)

    def _between(self, at: "_Moving", t: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return where samples were at times ``(n)`` within their last steps: the polynomial, followed back."""
        carry, weights = newton_weights(at.times, t, self.space.moments)
        back, weights = t - at.t, weights[:, :-1]
        x, _ = self.space.moved(at.x, _integrals(back, weights, _scaled(carry, at.velocities)))
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
    """Of the last evaluations kept, the latest first, ``(rows, n)``."""
    velocities: Tensor
    """Their divided differences, ``(rows, n, *vector_shape)``."""
    integrands: Tensor | None
    integral: Tensor | None
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
        return _Moving(**{name: v if v is None else v[:, rows] if name in tables else v[rows] for name, v in named})


def _lift_table(numbers: Tensor, like: Tensor) -> Tensor:
    """Append axes of length one to numbers ``(k, n)``, so that they multiply a table ``(k, n, ...)``."""
    return numbers[(..., *(None,) * (like.ndim - 2))]


def _scaled(numbers: Tensor, table: Tensor) -> Tensor:
    return _lift_table(numbers, table) * table


def _integrals(h: Tensor, weights: Tensor, differences: Tensor) -> Sequence[Tensor]:
    """Return integrals over a step of length ``h`` ``(n)``, one for each row of weights ``(moments, k, n)``."""
    return [_scaled(row * h, differences).sum(0) for row in weights]


def _of_row(table: Tensor, row: Tensor) -> Tensor:
    """Return of each sample ``(n)`` one row of the table ``(rows, n, ...)``."""
    return table[row, torch.arange(len(row), device=row.device)]
