"""Runge-Kutta methods, in coordinates of any kind."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Self

from torch import Tensor

from manifolds import Manifold
from rfm.integrators.right_hand_side import RightHandSide
from rfm.integrators.runge_kutta.adaptive import AdaptiveRungeKutta
from rfm.integrators.runge_kutta.chart import Chart
from rfm.integrators.runge_kutta.fixed import FixedRungeKutta
from rfm.integrators.runge_kutta.tableaux import Tableau
from rfm.integrators.scheme import Scheme
from rfm.integrators.step_control import Tolerance


@dataclass(frozen=True)
class RungeKutta(Scheme):
    """A tableau, and the coordinates it makes its steps in.

    Args:
        tableau: the method.
    """

    tableau: Tableau

    @abstractmethod
    def chart(self, manifold: Manifold, x: Tensor) -> Chart:
        """Return coordinates around the points ``x`` ``(n, *event_shape)``."""

    @property
    def estimates_errors(self) -> bool:
        return self.tableau.b_error is not None

    def with_tableau(self, tableau: Tableau) -> Self:
        """Return the same coordinates with another tableau."""
        return replace(self, tableau=tableau)

    def fixed(self, rhs: RightHandSide, manifold: Manifold) -> FixedRungeKutta:
        return FixedRungeKutta(self, rhs, manifold)

    def adaptive(self, rhs: RightHandSide, manifold: Manifold, tolerance: Tolerance) -> AdaptiveRungeKutta:
        return AdaptiveRungeKutta(self.with_tableau(self.tableau.with_last_stage()), manifold, tolerance)
