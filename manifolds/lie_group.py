"""What a Lie group adds to its manifold: left translation of velocities, the group exponential, the bracket."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from manifolds.numerics.precision import FullPrecision


class LieGroup(FullPrecision, ABC):
    """The group structure of a manifold, which holds it as its ``lie_group``.

    An element of the Lie algebra is a vector ``a`` ``(*batch, dim)``: a velocity at the identity. Left translation
    makes of it the tangent vector ``x a`` at the point ``x``; for rigid motions ``a`` is a velocity in the body's
    frame.

    References:
        Hairer, Lubich, Wanner, Geometric Numerical Integration, 2006, section IV.6.
    """

    commutative: bool = False
    """Whether ``bracket`` is zero."""

    @abstractmethod
    def to_algebra(self, x: Tensor, u: Tensor) -> Tensor:
        """Return ``x^-1 u`` for the tangent vector ``u`` at ``x``, ``(*batch, dim)``."""

    @abstractmethod
    def from_algebra(self, x: Tensor, a: Tensor) -> Tensor:
        """Return the tangent vector ``x a`` at ``x``, ``(*batch, *event_shape)``."""

    @abstractmethod
    def translate(self, x: Tensor, a: Tensor) -> Tensor:
        """Return the point ``x Exp(a)``, with the exponential of the group: not always where a geodesic ends."""

    @abstractmethod
    def bracket(self, a: Tensor, b: Tensor) -> Tensor:
        """Return ``[a, b]``, the commutator ``a b - b a`` in a group of matrices, ``(*batch, dim)``."""


class Translations(LieGroup):
    """A commutative group in coordinates that it shifts: tangent vectors are elements of the algebra.

    Args:
        shift: ``shift(x, a)`` moves points, as ``expmap`` does on R^n and on the torus.
    """

    commutative = True

    def __init__(self, shift: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.shift = shift

    def to_algebra(self, x: Tensor, u: Tensor) -> Tensor:
        return u.expand(torch.broadcast_shapes(x.shape, u.shape))

    def from_algebra(self, x: Tensor, a: Tensor) -> Tensor:
        return a.expand(torch.broadcast_shapes(x.shape, a.shape))

    def translate(self, x: Tensor, a: Tensor) -> Tensor:
        return self.shift(x, a)

    def bracket(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.zeros_like(a + b)


class DirectProduct(LieGroup):
    """Groups side by side; algebra elements are concatenated.

    Args:
        groups: the factors.
        dims: their dimensions.
        split: takes a point or tangent vector apart into the factors' parts.
        join: puts parts together.
    """

    def __init__(
        self,
        groups: Sequence[LieGroup],
        dims: Sequence[int],
        split: Callable[[Tensor], Sequence[Tensor]],
        join: Callable[..., Tensor],
    ) -> None:
        self.groups, self.dims, self.split, self.join = groups, list(dims), split, join
        self.commutative = all(g.commutative for g in groups)

    def to_algebra(self, x: Tensor, u: Tensor) -> Tensor:
        pairs = zip(self.groups, self.split(x), self.split(u), strict=True)
        return torch.cat([g.to_algebra(b, v) for g, b, v in pairs], dim=-1)

    def from_algebra(self, x: Tensor, a: Tensor) -> Tensor:
        triples = zip(self.groups, self.split(x), a.split(self.dims, dim=-1), strict=True)
        return self.join(*(g.from_algebra(b, c) for g, b, c in triples))

    def translate(self, x: Tensor, a: Tensor) -> Tensor:
        triples = zip(self.groups, self.split(x), a.split(self.dims, dim=-1), strict=True)
        return self.join(*(g.translate(b, c) for g, b, c in triples))

    def bracket(self, a: Tensor, b: Tensor) -> Tensor:
        pairs = zip(self.groups, a.split(self.dims, dim=-1), b.split(self.dims, dim=-1), strict=True)
        return torch.cat([g.bracket(c, d) for g, c, d in pairs], dim=-1)


class DirectPower(LieGroup):
    """Copies of one group along an axis before the event's; algebra elements are the copies' ``(k, d)``, flattened.

    Args:
        group: the group of one copy.
        k: number of copies.
    """

    def __init__(self, group: LieGroup, k: int) -> None:
        self.group, self.k = group, k
        self.commutative = group.commutative

    def to_algebra(self, x: Tensor, u: Tensor) -> Tensor:
        return self.group.to_algebra(x, u).flatten(-2)

    def from_algebra(self, x: Tensor, a: Tensor) -> Tensor:
        return self.group.from_algebra(x, self._copies(a))

    def translate(self, x: Tensor, a: Tensor) -> Tensor:
        return self.group.translate(x, self._copies(a))

    def bracket(self, a: Tensor, b: Tensor) -> Tensor:
        return self.group.bracket(self._copies(a), self._copies(b)).flatten(-2)

    def _copies(self, a: Tensor) -> Tensor:
        return a.unflatten(-1, (self.k, -1))
