"""Adams's steps that are settled before the solve."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.integrators.adams.quadrature import composite_weights, interpolatory_weights, spaced
from rfm.integrators.adams.spaces import VelocitySpace
from rfm.integrators.march import March
from rfm.integrators.per_sample import combine, either, number
from rfm.integrators.right_hand_side import RightHandSide
from rfm.integrators.runge_kutta.cheapest import CheapestCoordinates
from rfm.integrators.runge_kutta.step import step
from rfm.integrators.runge_kutta.tableaux import DORMAND_PRINCE, KUTTA3, RK4


class FixedAdams:
    """Adams's steps of the same lengths for all samples: one solve.

    Predictor and corrector interpolate ``order`` velocities, the corrector's with the predicted one. The first ``order
    - 3`` steps are Runge and Kutta's, and the next ones interpolate what there is: of one order less, at least, which
    is enough, because they are few. An integral along the path is that of the cubic through the four nearest steps, of
    the quintic through six from order five on, among those up to the next output time.
    """

    def __init__(self, order: int, space: VelocitySpace, rhs: RightHandSide, manifold: Manifold) -> None:
        self.order, self.space, self.rhs, self.manifold = order, space, rhs, manifold
        self.starter = CheapestCoordinates({5: RK4, 6: DORMAND_PRINCE}.get(order, KUTTA3)).on(manifold)
        self.times: list[float] = []
        self.velocities: list[Tensor] = []
        """The last ones."""
        self.integrands: list[Tensor] = []
        self.outputs = [0]
        """Which of the times are output times."""
        self.evaluations = 0

    def begin(self, march: March, t: float) -> None:
        self._evaluate(march.x, t)

    def advance(self, march: March, start: float, end: float) -> None:
        if len(self.times) <= self.order - 3:
            self._runge_kutta(march, start, end)
        else:
            self._adams(march, start, end)

    def output(self) -> Sequence[Tensor]:
        since = self.integrands[self.outputs[-1] :]
        self.outputs.append(len(self.times) - 1)
        return since

    def integrals(self) -> list[Tensor]:
        if not self.integrands:
            return []
        total, points = torch.zeros_like(self.integrands[0]), 4 if self.order < 5 else 6
        integrals = []
        for first, last in itertools.pairwise(self.outputs):
            # A sample that fails later is right until then: what came after is used only where too little was before.
            known = self.times[: max(last + 1, points)]
            total = total + combine(composite_weights(known, first, last, points), self.integrands)
            integrals.append(total)
        return integrals

    def _evaluate(self, x: Tensor, t: float) -> None:
        """Evaluate the field."""
        self._note(x, t, *self.rhs(x, number(t, x)))
        self.evaluations += 1

    def _note(self, x: Tensor, t: float, u: Tensor, q: Tensor | None) -> None:
        self.u = u
        self.times.append(t)
        self.velocities = [*self.velocities, self.space.vector(x, u)][-2 * self.order :]
        if q is not None:
            self.integrands.append(q)

    def _runge_kutta(self, march: March, start: float, end: float) -> None:
        """Make a step of Runge and Kutta's from where the field was last evaluated."""
        t, h = number(start, march.x), number(end - start, march.x)
        reuse, stages = self.starter.tableau.first_same_as_last, len(self.starter.tableau.c)
        integrands_at = [False] * (stages - 1) + [reuse]
        result = step(self.starter, self.rhs, self.manifold, march.x, t, h, (self.u, None), integrands_at=integrands_at)
        self.evaluations += stages - 1
        march.move(result.x, result.outside)
        if reuse:
            self._note(march.x, end, *result.last)
        else:
            self._evaluate(march.x, end)

    def _adams(self, march: March, start: float, end: float) -> None:
        predicted, left_domain = self.space.moved(march.x, self._moments(start, end, self.space.predicted_count))
        self._evaluate(predicted, end)
        corrected, outside = self.space.moved(march.x, self._moments(start, end, self.space.count))
        march.move(corrected, either(left_domain, outside))

    def _moments(self, start: float, end: float, count: int) -> list[Tensor]:
        """Return moments of the velocity from ``start`` to ``end``, of the polynomial through the latest ones."""
        available = len(self.velocities)
        times = self.times[-available:]
        near = spaced(times, range(available - 1, -1, -1), end - start)[: self.order]
        rows = interpolatory_weights([times[i] for i in near], start, end, count)
        return [combine(weights, [self.velocities[i] for i in near]) for weights in rows]
