"""Runge-Kutta methods, in coordinates of any kind, and in those of the ambient space."""

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


@dataclass(frozen=True)
class Projected(RungeKutta):
    """Ambient coordinates: each stage and each step is ``projx`` of a sum of ambient vectors.

    The cheapest scheme, of the order of its tableau on every manifold: the exact solution of the field, extended by
    ``v(projx(x))``, stays on the manifold. It needs ``projx``, and ``outside`` where the manifold has a border. A bare
    tableau means this, except on groups that do not commute.

    Args:
        tableau: the method.

    References:
        Hairer, Lubich & Wanner, Geometric Numerical Integration, 2006, section IV.4.
    """

    tableau: Tableau

    def chart(self, manifold: Manifold, x: Tensor) -> Chart:
        """Return ambient coordinates."""
        return _AmbientChart(manifold, x)


class _AmbientChart:
    def __init__(self, manifold: Manifold, x: Tensor) -> None:
        self.manifold, self.x = manifold, x

    def point(self, w: Tensor) -> tuple[Tensor, Tensor | None]:
        z = self.x + w
        return self.manifold.projx(z), self.manifold.outside(z)

    def start_velocity(self, u: Tensor) -> Tensor:
        return u

    def velocity(self, w: Tensor, y: Tensor, u: Tensor) -> Tensor:
        return u

    def length(self, w: Tensor, y: Tensor) -> Tensor:
        return self.manifold.norm(y, self.manifold.proju(y, w))
