"""Runge-Kutta steps that are settled before the solve."""

from collections.abc import Sequence

from torch import Tensor

from manifolds import Manifold
from rfm.integrators.march import March
from rfm.integrators.per_sample import number
from rfm.integrators.right_hand_side import RightHandSide
from rfm.integrators.runge_kutta.chart import Charted
from rfm.integrators.runge_kutta.step import step


class FixedRungeKutta:
    """Runge-Kutta steps of the same lengths for all samples: one solve."""

    def __init__(self, scheme: Charted, rhs: RightHandSide, manifold: Manifold) -> None:
        self.scheme, self.rhs, self.manifold = scheme, rhs, manifold
        self.integrands_at = scheme.tableau.integrands_at(with_error=False)
        self.first: tuple[Tensor, Tensor | None] | None = None
        """The field where the next step begins, if it is known."""
        self.integral: Tensor | None = None
        self.outputs: list[Tensor] = []
        self.evaluations = 0

    def begin(self, march: March, t: float) -> None:
        """Nothing is to be known before the first step."""

    def advance(self, march: March, start: float, end: float) -> None:
        t, h = number(start, march.x), number(end - start, march.x)
        result = step(self.scheme, self.rhs, self.manifold, march.x, t, h, self.first, integrands_at=self.integrands_at)
        self.evaluations += len(self.scheme.tableau.c) - (self.first is not None)
        self.first = result.last if self.scheme.tableau.first_same_as_last else None
        march.move(result.x, result.outside)
        if result.increment is not None:
            self.integral = result.increment if self.integral is None else self.integral + result.increment

    def output(self) -> Sequence[Tensor]:
        if self.integral is None:
            return []
        self.outputs.append(self.integral)
        return [self.integral]

    def integrals(self) -> list[Tensor]:
        return self.outputs
