"""How a solve steps through time: what its methods have in common."""

from typing import Protocol

from torch import Tensor

from manifolds import Manifold
from rfm.integrators.chart import Scheme
from rfm.integrators.munthe_kaas import MuntheKaas
from rfm.integrators.projected import Projected
from rfm.integrators.solution import Solution
from rfm.integrators.tableaux import Tableau


class RightHandSide(Protocol):
    """What is integrated."""

    def __call__(
        self, x: Tensor, t: Tensor, *, integrand: bool = True, index: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return velocities and integrands, these None unless asked for.

        ``index`` ``(n)`` names the samples that ``x`` holds, None all.
        """
        ...


class Method(Protocol):
    """A way to solve for a batch of initial points ``x`` of shape ``(n, *event_shape)``."""

    def solve(self, rhs: RightHandSide, manifold: Manifold, x: Tensor, times: tuple[float, ...]) -> Solution:
        """Return positions and integrals at ``times``, of batch shape ``(n,)``; the span of these is 1, see `Span`."""
        ...


def tableau_of(scheme: Tableau | Scheme) -> Tableau:
    """Return the tableau of a scheme, or the tableau itself."""
    return scheme if isinstance(scheme, Tableau) else scheme.tableau


def on_manifold(scheme: Tableau | Scheme, manifold: Manifold) -> Scheme:
    """Return the scheme; a bare tableau makes steps in the cheapest coordinates that have its order.

    Those of the ambient space, except on groups that do not commute: the nearest rotation to a matrix costs more than
    the exponential of a vector.
    """
    if not isinstance(scheme, Tableau):
        return scheme
    group = manifold.lie_group
    in_algebra = group is not None and not group.commutative and scheme.order <= MuntheKaas.highest_order
    return MuntheKaas(scheme) if in_algebra else Projected(scheme)
