"""What a step is made in: coordinates around the point where it starts.

A Runge-Kutta method adds up multiples of velocities, which only a vector space can. A scheme chooses one for each
step: it maps a neighbourhood of the starting point to coordinates ``w``, 0 at the start, in which the tableau makes the
step. The result is on the manifold by construction, and where velocities are mapped exactly the order is the tableau's.
"""

from typing import Protocol

from torch import Tensor

from manifolds import Manifold
from rfm.integrators.runge_kutta.tableaux import Tableau


class Chart(Protocol):
    """Coordinates ``w`` ``(n, *coordinate_shape)`` around ``n`` points."""

    def point(self, w: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the points at ``w``, and which ``(n)`` are outside of the coordinates' domain; None if that is all.

        Where a coordinate is outside, the point is any point of the manifold: the step will not be used.
        """
        ...

    def start_velocity(self, u: Tensor) -> Tensor:
        """Return the rate of change of the coordinates at the start, where the point's velocity is ``u``."""
        ...

    def velocity(self, w: Tensor, y: Tensor, u: Tensor) -> Tensor:
        """Return the rate of change of the coordinates at ``w``, where the point is ``y`` and its velocity ``u``."""
        ...

    def length(self, w: Tensor, y: Tensor) -> Tensor:
        """Return how far, in the manifold's metric, a small change ``w`` of the coordinates moves ``y``, ``(n)``."""
        ...


class Charted(Protocol):
    """A tableau, and the coordinates it makes its steps in."""

    @property
    def tableau(self) -> Tableau:
        """The method."""
        ...

    def chart(self, manifold: Manifold, x: Tensor) -> Chart:
        """Return coordinates around the points ``x`` ``(n, *event_shape)``."""
        ...
