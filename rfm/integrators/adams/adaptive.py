"""Adams's steps that keep an error bound, per sample."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.integrators.adams.quadrature import newton_weights
from rfm.integrators.adams.spaces import VelocitySpace
from rfm.integrators.per_sample import Samples, either, lift
from rfm.integrators.right_hand_side import RightHandSide
from rfm.integrators.scheme import Attempt, Moving
from rfm.integrators.step_control import Growth, Tolerance, Trial, average

_GROWTH = Growth(safety=0.7, longest=3.0)
"""More careful than after a Runge-Kutta step, whose estimate does not look into the past."""


@dataclass(frozen=True)
class Past(Samples):
    """What Adams's steps remember of ``n`` samples."""

    tables = ("times", "velocities", "integrands")
    times: Tensor
    """Of the last evaluations, the latest first, ``(rows, n)``."""
    velocities: Tensor
    """Their divided differences, ``(rows, n, *vector_shape)``."""
    integrands: Tensor | None
    order: Tensor
    """How many velocities predict; that of the corrector is one more."""
    accepted: Tensor
    """How many steps were."""


class AdaptiveAdams:
    """Adams's steps of lengths and orders chosen for each sample alone.

    Velocities are kept as Newton's divided differences over each sample's own times. A corrector of one order more than
    the predictor's is kept, and its difference from the one of the same order estimates the error. The orders start at
    one and two, and rise or fall by one to where the estimate is smallest: they fall on stiff fields, where high orders
    are unstable.

    Args:
        order: the highest.
        space: where velocities of different points are added.
        manifold: where the points live.
        tolerance: what error a step may make.

    References:
        Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I, 1993, sections III.5 (equations 5.4 to
        5.10) and III.7 (estimate and choice of the order, as in Shampine & Gordon's code DEABM).
    """

    order = evaluations_per_step = 1
    evaluations_between = 0

    def __init__(self, order: int, space: VelocitySpace, manifold: Manifold, tolerance: Tolerance) -> None:
        self.rows = order
        """Of divided differences; the predictor uses all but the last."""
        self.space, self.manifold, self.tolerance = space, manifold, tolerance

    def begin(self, x: Tensor, t: Tensor, first: tuple[Tensor, Tensor | None], span: float) -> Past:
        u, q = first
        # Times before the start, whose differences are zero.
        ago = -span * torch.arange(self.rows, dtype=x.dtype, device=x.device)[:, None]
        count = torch.zeros(len(x), dtype=torch.long, device=x.device)
        return Past(
            times=t + ago,
            velocities=self._table(self.space.vector(x, u)),
            integrands=None if q is None else self._table(q),
            order=count + 1,
            accepted=count,
        )

    def _table(self, value: Tensor) -> Tensor:
        """Return the divided differences of one value, ``(rows, n, ...)``."""
        return torch.cat([value[None], value.new_zeros(self.rows - 1, *value.shape)])

    def attempt(self, field: RightHandSide, at: Moving, trial: Trial) -> Attempt:
        past = at.memory
        assert isinstance(past, Past)
        k, target = self.rows - 1, trial.target
        carry, weights = newton_weights(past.times[:k], target, self.space.count)
        used = torch.where(torch.arange(k, device=target.device)[:, None] < past.order, weights[:, :k], 0.0)
        # Of the difference that the new velocity adds, in the corrector of the order in use.
        added = trial.signed * weights.gather(1, past.order.expand(len(weights), 1, -1))[:, 0]
        # What the corrector of each order adds to that of one less, per unit of its last difference.
        gains = trial.signed * (weights[0, 1:] - weights[0, :-1])

        carried = _scaled(carry, past.velocities[:k])
        moments = _integrals(trial.signed, used, carried)
        predicted, left_domain = self.space.moved(at.x, moments[: self.space.predicted_count])
        u, q = field(predicted, target)
        velocities = self._extended(past, carried, self.space.vector(predicted, u))
        latest = _of_row(velocities, past.order)
        corrected, outside = self.space.moved(
            at.x, [b + lift(w, latest) * latest for b, w in zip(moments, added, strict=True)]
        )
        gain = _of_row(gains, past.order - 1)
        error = self.space.length(corrected, lift(gain, latest) * latest)
        sizes = velocities[1:].flatten(2).norm(dim=2) / self.tolerance.of_points(at.x)

        integral, integrands, error_of_integral = None, None, None
        if q is not None and past.integrands is not None and at.integral is not None:
            carried = _scaled(carry, past.integrands[:k])
            integrands = self._extended(past, carried, q)
            latest = _of_row(integrands, past.order)
            [increment] = _integrals(trial.signed, used[:1], carried)
            integral = at.integral + increment + lift(added[0], latest) * latest
            error_of_integral = lift(gain, latest) * latest
            means = torch.stack([average(difference).abs() for difference in integrands[1:]])
            sizes = torch.maximum(sizes, means / self.tolerance.of_sizes(average(at.integral).abs()))

        ratio = self.tolerance.ratio(error, (at.x, corrected), error_of_integral, (at.integral, integral))
        change, growth = self._change(past, ratio, gains.abs() * sizes)
        rejected = replace(past, order=past.order + change)
        times = torch.cat([target[None], past.times[:-1]])
        accepted = Past(times, velocities, integrands, rejected.order, past.accepted + 1)
        return Attempt(corrected, integral, ratio, either(left_domain, outside), growth, accepted, rejected)

    def _extended(self, past: Past, carried: Tensor, value: Tensor) -> Tensor:
        """Return the divided differences with a new value, ``(rows, n, ...)``; zero where they are not known yet."""
        before = torch.cat([torch.zeros_like(carried[:1]), torch.cumsum(carried, 0)])
        row = torch.arange(self.rows, device=value.device)[:, None]
        return torch.where(lift(row <= past.accepted + 1, before, axis=1), value - before, 0.0)

    def _change(self, past: Past, ratio: Tensor, estimates: Tensor) -> tuple[Tensor, Tensor]:
        """Return by how much the orders change, and what to multiply the lengths of the steps by.

        Args:
            past: of the samples.
            ratio: errors with the order in use, relative to what is tolerated.
            estimates: of the errors with all orders ``(k, n)``, the first order's first, relative likewise.
        """
        k, order = len(estimates), past.order
        below, now, above = (_of_row(estimates, (order - 1 + d).clamp(0, k - 1)) for d in (-1, 0, 1))
        lower = (order > 1) & (below <= now)
        higher = ~lower & (order < k) & (order <= past.accepted) & (above < now) & (ratio <= 1)
        ratio = ratio * torch.where(lower, below, torch.where(higher, above, now)) / now.clamp(min=1e-30)
        change = higher.long() - lower.long()
        return change, _GROWTH.factor(ratio, order + change + 1)

    def between(
        self, rhs: RightHandSide, before: Moving, attempt: Attempt, after: Moving, row: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Return points of the polynomial of the steps, followed back."""
        at = after.take(row)
        past = at.memory
        assert isinstance(past, Past)
        carry, weights = newton_weights(past.times, t, self.space.count)
        # Differences above the order in use may be wild.
        rows = torch.arange(self.rows, device=t.device)[:, None]
        back, weights = t - at.t, torch.where(rows <= past.order, weights[:, :-1], 0.0)
        x, outside = self.space.moved(at.x, _integrals(back, weights, _scaled(carry, past.velocities)))
        if outside is not None:
            x = torch.where(self.manifold.lift(outside), math.nan, x)
        if past.integrands is None or at.integral is None:
            return x, None
        [since] = _integrals(back, weights[:1], _scaled(carry, past.integrands))
        return x, at.integral + since


def _scaled(numbers: Tensor, values: Tensor) -> Tensor:
    """Return a table ``(k, n, ...)`` times numbers ``(k, n)``."""
    return lift(numbers, values, axis=1) * values


def _integrals(h: Tensor, weights: Tensor, differences: Tensor) -> Sequence[Tensor]:
    """Return integrals over steps of lengths ``h`` ``(n)``, one for each row of weights ``(moments, k, n)``."""
    return [_scaled(row * h, differences).sum(0) for row in weights]


def _of_row(values: Tensor, row: Tensor) -> Tensor:
    """Return of each sample ``(n)`` one row of the table ``(rows, n, ...)``."""
    return values[row, torch.arange(len(row), device=row.device)]
