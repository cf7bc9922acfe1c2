"""How a solve steps through time: what its methods have in common."""

from typing import Protocol

from torch import Tensor

from manifolds import Manifold
from rfm.integrators.chart import Scheme
from rfm.integrators.projected import Projected
from rfm.integrators.solution import Solution
from rfm.integrators.tableaux import Tableau


class RightHandSide(Protocol):
    """What is integrated."""

    def __call__(self, x: Tensor, t: Tensor, index: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return velocities and integrands; ``index`` ``(n)`` names the samples that ``x`` holds, None all."""
        ...


class Method(Protocol):
    """A way to solve for a batch of initial points ``x`` of shape ``(n, *event_shape)``."""

    def solve(self, rhs: RightHandSide, manifold: Manifold, x: Tensor, times: tuple[float, ...]) -> Solution:
        """Return positions and integrals at ``times``, of batch shape ``(n,)``."""
        ...


def as_scheme(scheme: Tableau | Scheme) -> Scheme:
    """Return the scheme; a bare tableau makes projected steps."""
    return Projected(scheme) if isinstance(scheme, Tableau) else scheme
