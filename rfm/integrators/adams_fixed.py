"""Adams's steps that are settled before the solve."""

import itertools

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.integrators.adams import Adams
from rfm.integrators.march import March
from rfm.integrators.method import RightHandSide, on_manifold
from rfm.integrators.quadrature import composite_weights, interpolatory_weights, spaced
from rfm.integrators.runge_kutta import combine, either, number, step
from rfm.integrators.solution import Solution
from rfm.integrators.tableaux import DORMAND_PRINCE, KUTTA3, RK4


class FixedAdams:
    """Adams's steps of the same lengths for all samples: one solve.

    Predictor and corrector interpolate ``order`` velocities, the corrector's with the predicted one. The first ``order
    - 3`` steps are Runge and Kutta's, and the next ones interpolate what there is: of one order less, at least, which
    is enough, because they are few. An integral along the path is that of the cubic through the four nearest steps, of
    the quintic through six from order five on, among those up to the next output time.
    """

    def __init__(self, scheme: Adams, rhs: RightHandSide, manifold: Manifold) -> None:
        self.order, self.rhs, self.manifold = scheme.order, rhs, manifold
        self.space = scheme.space(manifold)
        self.starter = on_manifold({5: RK4, 6: DORMAND_PRINCE}.get(self.order, KUTTA3), manifold)
        self.times: list[float] = []
        self.velocities: list[Tensor] = []
        """The last ones."""
        self.integrands: list[Tensor] = []
        self.evaluations = 0

    def solve(self, x: Tensor, meshes: list[list[float]]) -> Solution:
        """Return the solution along meshes between output times, see `Mesh.between`."""
        march, outputs = March(self.manifold, x), [0]
        self._evaluate(x, meshes[0][0])
        for mesh in meshes:
            for start, end in itertools.pairwise(mesh):
                if len(self.times) <= self.order - 3:
                    self._runge_kutta(march, start, end)
                else:
                    self._adams(march, start, end)
            march.output(*self.integrands[outputs[-1] :])
            outputs.append(len(self.times) - 1)
        times = torch.tensor([self.times[output] for output in outputs], dtype=x.dtype, device=x.device)
        evaluations = torch.full((len(x),), self.evaluations, device=x.device)
        integral = self._integral(march, outputs)
        return Solution(times, torch.stack(march.outputs), integral, march.status, evaluations)

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
        asked = [False] * (stages - 1) + [reuse]
        made = step(self.starter, self.rhs, self.manifold, march.x, t, h, (self.u, None), integrands_at=asked)
        self.evaluations += stages - 1
        march.move(made.x, made.outside)
        if reuse:
            self._note(march.x, end, *made.last)
        else:
            self._evaluate(march.x, end)

    def _adams(self, march: March, start: float, end: float) -> None:
        predicted, beyond = self.space.moved(march.x, self._moments(start, end, self.space.predicted_count))
        self._evaluate(predicted, end)
        corrected, outside = self.space.moved(march.x, self._moments(start, end, self.space.count))
        march.move(corrected, either(beyond, outside))

    def _moments(self, start: float, end: float, count: int) -> list[Tensor]:
        """Return moments of the velocity from ``start`` to ``end``, of the polynomial through the latest ones."""
        kept = len(self.velocities)
        times = self.times[-kept:]
        near = spaced(times, range(kept - 1, -1, -1), end - start)[: self.order]
        rows = interpolatory_weights([times[i] for i in near], start, end, count)
        return [combine(weights, [self.velocities[i] for i in near]) for weights in rows]

    def _integral(self, march: March, outputs: list[int]) -> Tensor | None:
        """Return the integrals up to the outputs ``(T, n, ...)``."""
        if not self.integrands:
            return None
        parts, points = [torch.zeros_like(self.integrands[0])], 4 if self.order < 5 else 6
        for first, last in itertools.pairwise(outputs):
            # A sample that fails later is right until then: what came after is used only where too little was before.
            known = self.times[: max(last + 1, points)]
            parts.append(parts[-1] + combine(composite_weights(known, first, last, points), self.integrands))
        return torch.stack([parts[0], *(march.masked(part, i) for i, part in enumerate(parts[1:], 1))])
