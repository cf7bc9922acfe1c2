"""Steps along geodesics with transported velocities: geodesic Euler and midpoint."""

from dataclasses import dataclass

from torch import Tensor

from manifolds import Manifold
from rfm.integrators.runge_kutta.chart import Chart
from rfm.integrators.runge_kutta.runge_kutta import RungeKutta
from rfm.integrators.runge_kutta.tableaux import EULER, MIDPOINT, Tableau


@dataclass(frozen=True)
class Geodesic(RungeKutta):
    """Stages and steps are ends of geodesics from the start, along velocities carried back there by ``transp``.

    With `EULER` it is ``expmap(x, h v(x))``. With `MIDPOINT` the velocity half-way along that geodesic is carried back
    and followed for the full step. It needs ``expmap`` and ``transp``. Transport differs from the differential of
    ``expmap`` by curvature times the square of the distance, so the order is at most two; for more there is
    `NormalCoordinates`.

    Args:
        tableau: a method of order one or two.
    """

    tableau: Tableau

    def __post_init__(self) -> None:
        if self.tableau.order > 2:
            raise ValueError(
                f"Geodesic: transported velocities give order 2 at most, got a tableau of order {self.tableau.order}; "
                "use NormalCoordinates(tableau)"
            )

    def chart(self, manifold: Manifold, x: Tensor) -> Chart:
        """Return the tangent spaces at ``x``."""
        return _TransportedChart(manifold, x)


class _TransportedChart:
    def __init__(self, manifold: Manifold, x: Tensor) -> None:
        self.manifold, self.x = manifold, x

    def point(self, w: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.manifold.expmap(self.x, w), None

    def start_velocity(self, u: Tensor) -> Tensor:
        return u

    def velocity(self, w: Tensor, y: Tensor, u: Tensor) -> Tensor:
        return self.manifold.transp(y, self.x, u)

    def length(self, w: Tensor, y: Tensor) -> Tensor:
        return self.manifold.norm(self.x, w)


GEODESIC_EULER = Geodesic(EULER)
"""Euler's method along geodesics."""

GEODESIC_MIDPOINT = Geodesic(MIDPOINT)
"""The midpoint method along geodesics."""
