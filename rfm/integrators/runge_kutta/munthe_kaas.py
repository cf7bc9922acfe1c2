"""Steps in the Lie algebra of a group: Runge-Kutta-Munthe-Kaas methods."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from manifolds import LieGroup, Manifold
from rfm.integrators.runge_kutta.chart import Chart
from rfm.integrators.runge_kutta.runge_kutta import RungeKutta
from rfm.integrators.runge_kutta.tableaux import Tableau


@dataclass(frozen=True)
class MuntheKaas(RungeKutta):
    """Steps in the Lie algebra: points are ``x Exp(a)``, with ``x`` the start of the step.

    For SO(3), SE(3), R^n, flat tori, and their products and powers: manifolds with a ``lie_group``. A field that is
    constant in the body's frame is solved exactly. Of the order of its tableau, up to five.

    Written for velocities in the body's frame, ``dy/dt = y A``, the coordinate obeys ``da/dt = dexp^-1_{-a}(A)
    = A + [a, A] / 2 + [a, [a, A]] / 12 + O(a^4)``. A method of order p needs the terms up to the bracket nested p - 2
    times; the one nested three times has coefficient zero, so two suffice up to order five.

    Args:
        tableau: the method.

    References:
        Munthe-Kaas, High order Runge-Kutta methods on manifolds, 1999, doi:10.1016/S0168-9274(98)00030-0. Hairer,
        Lubich & Wanner, Geometric Numerical Integration, 2006, section IV.8 (for ``dy/dt = A y``), theorem 8.4.
    """

    tableau: Tableau
    highest_order: ClassVar[int] = 5

    def __post_init__(self) -> None:
        if self.tableau.order > self.highest_order:
            raise ValueError(
                f"MuntheKaas: the series it uses gives order {self.highest_order} at most, got a tableau of order "
                f"{self.tableau.order}; use Projected(tableau)"
            )

    def chart(self, manifold: Manifold, x: Tensor) -> Chart:
        """Return the Lie algebra, translated to ``x``."""
        group = manifold.lie_group
        if group is None:
            raise ValueError(
                f"MuntheKaas: {manifold} has no lie_group, its points do not multiply; use Projected(tableau) or "
                "NormalCoordinates(tableau)"
            )
        return _AlgebraChart(manifold, group, x, self.tableau.order)


class _AlgebraChart:
    def __init__(self, manifold: Manifold, group: LieGroup, x: Tensor, order: int) -> None:
        self.manifold, self.group, self.x, self.order = manifold, group, x, order

    def point(self, w: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.group.translate(self.x, w), None

    def start_velocity(self, u: Tensor) -> Tensor:
        return self.group.to_algebra(self.x, u)

    def velocity(self, w: Tensor, y: Tensor, u: Tensor) -> Tensor:
        a = self.group.to_algebra(y, u)
        if self.order < 3:
            return a
        once = self.group.bracket(w, a)
        if self.order < 4:
            return a + once / 2
        return a + once / 2 + self.group.bracket(w, once) / 12

    def length(self, w: Tensor, y: Tensor) -> Tensor:
        return self.manifold.norm(y, self.group.from_algebra(y, w))
