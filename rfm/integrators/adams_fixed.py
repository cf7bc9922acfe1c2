"""Adams's steps that are settled before the solve."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.integrators.adams import Adams
from rfm.integrators.march import March
from rfm.integrators.method import RightHandSide, on_manifold
from rfm.integrators.quadrature import composite_weights, interpolatory_weights
from rfm.integrators.runge_kutta import combine, either, step
from rfm.integrators.solution import Solution
from rfm.integrators.tableaux import DORMAND_PRINCE, KUTTA3, RK4


class FixedAdams:
    """Adams's steps of the same lengths for all samples.

    Predictor and corrector interpolate ``order`` velocities, the corrector's with the predicted one. The first ``order
    - 3`` steps are Runge and Kutta's, and the next ones interpolate what there is: of one order less, at least, which
    is enough, because they are few. An integral along the path is that of the cubic through the four nearest
    steps, of the quintic through six from order five on.
    """

    def __init__(self, scheme: Adams, rhs: RightHandSide, manifold: Manifold) -> None:
        self.order, self.rhs, self.manifold = scheme.order, rhs, manifold
        self.space = scheme.space(manifold)
        self.starter = on_manifold({5: RK4, 6: DORMAND_PRINCE}.get(self.order, KUTTA3), manifold)
        self.times: list[float] = []
        self.velocities: list[Tensor] = []
        self.integrands: list[Tensor] = []
        self.evaluations = 0

    def solve(self, x: Tensor, meshes: list[list[float]]) -> Solution:
        """Return the solution along meshes between output times, see `Mesh.between`."""
        march, outputs = March(self.manifold, x), [0]
        self._look(x, meshes[0][0])
        for mesh in meshes:
            for start, end in itertools.pairwise(mesh):
                if len(self.times) <= self.order - 3:
                    self._start(march, start, end)
                else:
                    # An error of the predictor's counts once more multiplied by the length of the step.
                    predicted, beyond = self.space.moved(march.x, self._moments(start, end, min(self.space.moments, 2)))
                    self._look(predicted, end)
                    corrected, outside = self.space.moved(march.x, self._moments(start, end, self.space.moments))
                    march.move(corrected, either(beyond, outside))
            march.output(*self.integrands[outputs[-1] :])
            outputs.append(len(self.times) - 1)
        times = torch.tensor([self.times[output] for output in outputs], dtype=x.dtype, device=x.device)
        evaluations = torch.full((len(x),), self.evaluations, device=x.device)
        integral = self._integral(march, outputs)
        return Solution(times, torch.stack(march.outputs), integral, march.status, evaluations)

    def _look(self, x: Tensor, t: float) -> None:
        """Evaluate the field."""
        self.u, q = self.rhs(x, _number(t, x))
        self.times.append(t)
        self.velocities.append(self.space.vector(x, self.u))
        if q is not None:
            self.integrands.append(q)
        self.evaluations += 1

    def _start(self, march: March, start: float, end: float) -> None:
        """Make a step of Runge and Kutta's from where the field was last evaluated."""
        t, h = _number(start, march.x), _number(end - start, march.x)
        nowhere = (False,) * len(self.starter.tableau.c)
        made = step(self.starter, self.rhs, self.manifold, march.x, t, h, (self.u, None), integrands_at=nowhere)
        self.evaluations += len(made.velocities) - 1
        march.move(made.x, made.outside)
        self._look(march.x, end)

    def _moments(self, start: float, end: float, count: int) -> Sequence[Tensor]:
        times, velocities = self.times[-self.order :], self.velocities[-self.order :]
        return [combine(weights, velocities) for weights in interpolatory_weights(times, start, end, count)]

    def _integral(self, march: March, outputs: list[int]) -> Tensor | None:
        """Return the integrals up to the outputs ``(T, n, ...)``."""
        if not self.integrands:
            return None
        parts = [torch.zeros_like(self.integrands[0])]
        for first, last in itertools.pairwise(outputs):
            weights = composite_weights(self.times, first, last, points=4 if self.order < 5 else 6)
            parts.append(parts[-1] + combine(weights, self.integrands))
        return torch.stack([march.masked(part, output) for output, part in enumerate(parts)])


def _number(value: float, like: Tensor) -> Tensor:
    return torch.full((), value, dtype=like.dtype, device=like.device)
