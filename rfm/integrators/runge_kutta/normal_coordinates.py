"""Steps in the tangent space at the start, mapped to the manifold by the exponential map."""

import math
from dataclasses import dataclass

from torch import Tensor

from manifolds import Manifold
from rfm.integrators.runge_kutta.chart import Chart
from rfm.integrators.runge_kutta.runge_kutta import RungeKutta
from rfm.integrators.runge_kutta.tableaux import Tableau


@dataclass(frozen=True)
class NormalCoordinates(RungeKutta):
    """The field pulled back by ``expmap`` to the tangent space at the start of the step.

    Of the order of its tableau, and no step leaves the manifold: the choice for positive definite matrices and the
    Poincare ball, where long projected steps do. It needs ``expmap`` and a ``logmap`` with a derivative; a coordinate
    beyond the injectivity radius is outside. ``y = expmap(x, w)`` moves with velocity ``u`` when ``w = logmap(x, y)``
    changes at the rate of the derivative of ``logmap(x, .)`` along ``u``, which forward-mode differentiation computes:
    each stage costs about three times a logarithm more than a projected one.

    Args:
        tableau: the method.

    References:
        Munthe-Kaas, High order Runge-Kutta methods on manifolds, 1999, doi:10.1016/S0168-9274(98)00030-0 (the
        pull-back to coordinates around the start of each step).
    """

    tableau: Tableau

    def chart(self, manifold: Manifold, x: Tensor) -> Chart:
        """Return normal coordinates at ``x``."""
        return _NormalChart(manifold, x)


class _NormalChart:
    def __init__(self, manifold: Manifold, x: Tensor) -> None:
        self.manifold, self.x = manifold, x
        injectivity = math.inf if manifold.injectivity_radius is None else manifold.injectivity_radius
        self.radius = min(injectivity, manifold.logmap_radius)

    def point(self, w: Tensor) -> tuple[Tensor, Tensor | None]:
        outside = None if self.radius == math.inf else ~(self.manifold.norm(self.x, w) < self.radius)
        return self.manifold.expmap(self.x, w), outside

    def start_velocity(self, u: Tensor) -> Tensor:
        return u

    def velocity(self, w: Tensor, y: Tensor, u: Tensor) -> Tensor:
        return self.manifold.pull_back(self.x, w, y, u)

    def length(self, w: Tensor, y: Tensor) -> Tensor:
        return self.manifold.norm(self.x, w)
