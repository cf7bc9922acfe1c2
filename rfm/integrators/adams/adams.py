"""Adams's methods: steps that remember the velocities of the steps before, and evaluate the field once."""

from dataclasses import dataclass

from manifolds import Manifold
from rfm.integrators.adams.adaptive import AdaptiveAdams
from rfm.integrators.adams.fixed import FixedAdams
from rfm.integrators.adams.spaces import velocity_space
from rfm.integrators.right_hand_side import RightHandSide
from rfm.integrators.scheme import Scheme
from rfm.integrators.step_control import Tolerance


@dataclass(frozen=True)
class Adams(Scheme):
    """Adams's predictor and corrector, for `FixedStep` and `Adaptive`: one evaluation of the field per step.

    A Runge-Kutta method forgets its evaluations after each step. These steps interpolate the velocities of the last
    ones instead: the integral of a polynomial predicts the next point (Bashforth), the field is evaluated there, once,
    and the integral of the polynomial through that velocity too corrects the point (Moulton). On trained fields that
    takes half to two thirds of the evaluations to the same error.

    Velocities of different points are added in the ambient space; on groups that do not commute in the Lie algebra,
    where ``x^-1 dx/dt`` lies at all times, and the point moves by the exponential of Magnus's series. It needs
    ``projx``, or a ``lie_group``, and velocities that do not jump where a point changes its coordinates.

    Args:
        order: from 2 to 6; in `Adaptive` the highest to use. High orders pay where the error is to be small.

    References:
        Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I, 1993, sections III.1 and III.5 (steps of
        variable length). Blanes, Casas, Oteo & Ros, The Magnus expansion and some of its applications, 2009,
        arXiv:0810.5488, section 5.
    """

    order: int = 5

    def __post_init__(self) -> None:
        if not isinstance(self.order, int) or not 2 <= self.order <= 6:
            raise ValueError(f"Adams: order must be a whole number from 2 to 6, got {self.order}")

    def fixed(self, rhs: RightHandSide, manifold: Manifold) -> FixedAdams:
        return FixedAdams(self.order, velocity_space(manifold, self.order), rhs, manifold)

    def adaptive(self, rhs: RightHandSide, manifold: Manifold, tolerance: Tolerance) -> AdaptiveAdams:
        return AdaptiveAdams(self.order, velocity_space(manifold, self.order), manifold, tolerance)
