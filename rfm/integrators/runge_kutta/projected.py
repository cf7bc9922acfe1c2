"""Steps in the ambient space, projected to the manifold."""

from dataclasses import dataclass

from torch import Tensor

from manifolds import Manifold
from rfm.integrators.runge_kutta.chart import Chart
from rfm.integrators.runge_kutta.runge_kutta import RungeKutta
from rfm.integrators.runge_kutta.tableaux import Tableau


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
