"""How a solve goes through time: what `FixedStep`, `Adaptive` and `Stochastic` have in common."""

from typing import Protocol

from torch import Tensor

from manifolds import Manifold
from rfm.integrators.right_hand_side import TimedRightHandSide
from rfm.integrators.solution import Solution


class Method(Protocol):
    """A way to solve for a batch of initial points ``x`` of shape ``(n, *event_shape)``."""

    def solve(self, rhs: TimedRightHandSide, manifold: Manifold, x: Tensor, times: tuple[float, ...]) -> Solution:
        """Return positions and integrals at ``times``, of batch shape ``(n,)``; the span of these is 1, see `Span`."""
        ...
