"""The vector spaces in which Adams's methods add velocities of different points."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from manifolds import LieGroup, Manifold


class VelocitySpace(Protocol):
    """A vector space that velocities of different points are in."""

    count: int
    """How many moments of the velocity a step is made of."""
    predicted_count: int
    """How many of them a predictor needs, whose error counts once more multiplied by the length of the step."""

    def vector(self, x: Tensor, u: Tensor) -> Tensor:
        """Return the vector of the tangent vector ``u`` at ``x``, ``(n, *vector_shape)``."""
        ...

    def moved(self, x: Tensor, moments: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Return where ``x`` ``(n, *event_shape)`` is after a step, and which samples have left the manifold ``(n)``.

        Args:
            x: points.
            moments: the integrals of the velocity times the powers of ``(t - middle) / h``, as many as are requested.
        """
        ...

    def length(self, x: Tensor, v: Tensor) -> Tensor:
        """Return how long, in the metric at ``x``, a small vector is ``(n)``."""
        ...


class AmbientSpace:
    """Ambient vectors; a step is projected to the manifold.

    The exact solution of the field extended by ``v(projx(x))`` stays on the manifold, so the order is that of the
    method, as with `rfm.integrators.Projected`.
    """

    count = predicted_count = 1

    def __init__(self, manifold: Manifold) -> None:
        self.manifold = manifold

    def vector(self, x: Tensor, u: Tensor) -> Tensor:
        return u

    def moved(self, x: Tensor, moments: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        z = x + moments[0]
        return self.manifold.projx(z), self.manifold.outside(z)

    def length(self, x: Tensor, v: Tensor) -> Tensor:
        return self.manifold.norm(x, self.manifold.proju(x, v))


class Algebra:
    """The Lie algebra of a group: ``A = x^-1 dx/dt``, and the point moves by ``Exp(W)`` with Magnus's series W.

    With the moments ``B_m`` of ``A`` it is ``B_0`` up to terms of order three in the length of the step, ``B_0 + [B_0,
    B_1]`` up to order five, and up to order seven, with ``C = B_2 - B_0 / 12`` and ``D = [B_0, B_1]``,

        ``B_0 + D + [B_0, [B_0, C / 2 - D / 60]] + [B_1, 6 C - 3/5 D]``.

    (The reference's equations are for ``dx/dt = A x``: brackets of an even number of factors change their sign.)
    """

    def __init__(self, manifold: Manifold, group: LieGroup, order: int) -> None:
        self.manifold, self.group = manifold, group
        self.count = 1 + (order > 2) + (order > 4)
        self.predicted_count = 1 + (order > 2) + (order > 5)

    def vector(self, x: Tensor, u: Tensor) -> Tensor:
        return self.group.to_algebra(x, u)

    def moved(self, x: Tensor, moments: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        b_0, w, bracket = moments[0], moments[0], self.group.bracket
        if len(moments) == 2:
            w = b_0 + bracket(b_0, moments[1])
        if len(moments) == 3:
            b_1, c = moments[1], moments[2] - b_0 / 12
            d = bracket(b_0, b_1)
            w = b_0 + d + bracket(b_0, bracket(b_0, c / 2 - d / 60)) + bracket(b_1, 6 * c - 3 / 5 * d)
        return self.group.translate(x, w), None

    def length(self, x: Tensor, v: Tensor) -> Tensor:
        return self.manifold.norm(x, self.group.from_algebra(x, v))


def velocity_space(manifold: Manifold, order: int) -> VelocitySpace:
    """Return where velocities of different points are added."""
    group = manifold.lie_group
    return AmbientSpace(manifold) if group is None or group.commutative else Algebra(manifold, group, order)
