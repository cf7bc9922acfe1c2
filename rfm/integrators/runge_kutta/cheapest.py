"""Bare tableaux, and the coordinates that they are used in."""

from dataclasses import dataclass

from manifolds import Manifold
from manifolds.arguments import check_instance
from rfm.integrators.right_hand_side import RightHandSide
from rfm.integrators.runge_kutta.munthe_kaas import MuntheKaas
from rfm.integrators.runge_kutta.normal_coordinates import NormalCoordinates
from rfm.integrators.runge_kutta.runge_kutta import Projected, RungeKutta
from rfm.integrators.runge_kutta.tableaux import Tableau
from rfm.integrators.scheme import AdaptiveStepper, FixedStepper, Scheme
from rfm.integrators.step_control import Tolerance


@dataclass(frozen=True)
class CheapestCoordinates(Scheme):
    """A tableau in the cheapest coordinates that have its order.

    Those of the ambient space, except on groups that do not commute: the nearest rotation to a matrix costs more than
    the exponential of a vector; and on surfaces with edges, which projected steps cross too slowly, or not at all.

    Args:
        tableau: the method.
    """

    tableau: Tableau

    def on(self, manifold: Manifold) -> RungeKutta:
        """Return the tableau in the coordinates that it uses on a manifold."""
        if manifold.has_kinks:
            return NormalCoordinates(self.tableau)
        group = manifold.lie_group
        in_algebra = group is not None and not group.commutative and self.tableau.order <= MuntheKaas.highest_order
        return MuntheKaas(self.tableau) if in_algebra else Projected(self.tableau)

    @property
    def estimates_errors(self) -> bool:
        return self.tableau.b_error is not None

    def fixed(self, rhs: RightHandSide, manifold: Manifold) -> FixedStepper:
        return self.on(manifold).fixed(rhs, manifold)

    def adaptive(self, rhs: RightHandSide, manifold: Manifold, tolerance: Tolerance) -> AdaptiveStepper:
        return self.on(manifold).adaptive(rhs, manifold, tolerance)


def in_coordinates(scheme: Tableau | Scheme) -> Scheme:
    """Return a scheme as it is, a bare tableau in the cheapest coordinates.

    Raises:
        ValueError: if it is neither, such as a number of steps.
    """
    if isinstance(scheme, Tableau):
        return CheapestCoordinates(scheme)
    example = "a tableau such as RK4; steps and tolerances go by name, as in FixedStep(steps=20)"
    check_instance("solver", "scheme", scheme, Scheme, example)
    return scheme
