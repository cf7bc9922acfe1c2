"""The coordinates in which networks read points of a manifold and write tangent vectors, with derivatives of both."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from manifolds.composed.finite_group import FiniteGroup
from manifolds.composed.invariant_waves import InvariantWaves
from manifolds.numerics.precision import FullPrecision


class Embedded(Protocol):
    """A space with coordinates: points go to vectors by ``embed``, vectors to tangents by ``tangent_from_vector``."""

    event_shape: torch.Size

    @property
    def embed_dim(self) -> int:
        """Length of the vectors that ``embed`` returns."""

    @property
    def field_dim(self) -> int:
        """Length of the vectors that ``tangent_from_vector`` reads."""

    @property
    def embed_is_linear(self) -> bool:
        """Whether ``embed`` is linear."""

    def embed(self, x: Tensor) -> Tensor:
        """Return the coordinates of points, ``(*batch, embed_dim)``."""

    def tangent_from_vector(self, x: Tensor, w: Tensor) -> Tensor:
        """Return the tangent vector at ``x`` that ``w``, ``(*batch, field_dim)``, stands for."""

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """Return the projection of an ambient vector to the tangent space."""


class Coordinates(FullPrecision):
    """The coordinates of a manifold, which holds them as its ``coordinates``.

    By default they are what the manifold's own ``embed`` and ``tangent_from_vector`` say, differentiated. A closed form
    of the derivatives saves most of what an exact divergence costs at small batches.

    Args:
        manifold: whose they are.
    """

    def __init__(self, manifold: Embedded) -> None:
        self.manifold = manifold

    @property
    def embed_dim(self) -> int:
        """Length of the vectors that `embed` returns."""
        return self.manifold.embed_dim

    @property
    def field_dim(self) -> int:
        """Length of the vectors that `tangent_from_vector` reads."""
        return self.manifold.field_dim

    def embed(self, x: Tensor) -> Tensor:
        """Return a smooth injective map of points to vectors, ``(*batch, embed_dim)``."""
        return self.manifold.embed(x)

    def tangent_from_vector(self, x: Tensor, w: Tensor) -> Tensor:
        """Return the tangent vector at ``x`` that ``w``, ``(*batch, field_dim)``, stands for."""
        return self.manifold.tangent_from_vector(x, w)

    def embed_jvp(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``embed(x)`` and its derivatives along tangent vectors.

        Args:
            x: points ``(*batch, *event_shape)``.
            v: tangent vectors ``(k, *batch, *event_shape)``.

        Returns:
            ``(*batch, embed_dim)`` and ``(k, *batch, embed_dim)``.
        """
        if self.manifold.embed_is_linear:
            return self.embed(x), self.embed(v)
        return jvp_along_all(self.embed, x, v)

    def tangent_from_vector_jvp(self, x: Tensor, w: Tensor, v: Tensor, dw: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``tangent_from_vector(x, w)`` and its derivatives along several changes of ``x`` and ``w``.

        The default differentiates it by ``x``; it is linear in ``w``.

        Args:
            x: points ``(*batch, *event_shape)``.
            w: vectors ``(*batch, field_dim)``.
            v: changes of ``x``, tangent, ``(k, *batch, *event_shape)``.
            dw: changes of ``w``, ``(k, *batch, field_dim)``.

        Returns:
            ``(*batch, *event_shape)`` and ``(k, *batch, *event_shape)``.
        """
        u, du = jvp_along_all(lambda y: self.tangent_from_vector(y, w), x, v)
        return u, du + self.tangent_from_vector(x, dw)


class ProductCoordinates(Coordinates):
    """Coordinates side by side.

    Args:
        manifold: the product.
        parts: those of the factors.
        split: takes a point or tangent vector apart into the factors' parts.
        join: puts parts together.
    """

    def __init__(
        self,
        manifold: Embedded,
        parts: Sequence[Coordinates],
        split: Callable[[Tensor], Sequence[Tensor]],
        join: Callable[..., Tensor],
    ) -> None:
        super().__init__(manifold)
        self.parts, self.split, self.join = parts, split, join

    @property
    def embed_dim(self) -> int:
        return sum(part.embed_dim for part in self.parts)

    @property
    def field_dim(self) -> int:
        return sum(part.field_dim for part in self.parts)

    def embed(self, x: Tensor) -> Tensor:
        return torch.cat([part.embed(a) for part, a in zip(self.parts, self.split(x), strict=True)], dim=-1)

    def tangent_from_vector(self, x: Tensor, w: Tensor) -> Tensor:
        triples = zip(self.parts, self.split(x), self._vectors(w), strict=True)
        return self.join(*(part.tangent_from_vector(a, b) for part, a, b in triples))

    def embed_jvp(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        triples = zip(self.parts, self.split(x), self.split(v), strict=True)
        values, changes = zip(*(part.embed_jvp(a, b) for part, a, b in triples), strict=True)
        return torch.cat(values, dim=-1), torch.cat(changes, dim=-1)

    def tangent_from_vector_jvp(self, x: Tensor, w: Tensor, v: Tensor, dw: Tensor) -> tuple[Tensor, Tensor]:
        inputs = zip(self.split(x), self._vectors(w), self.split(v), self._vectors(dw), strict=True)
        pairs = (part.tangent_from_vector_jvp(*given) for part, given in zip(self.parts, inputs, strict=True))
        values, changes = zip(*pairs, strict=True)
        return self.join(*values), self.join(*changes)

    def _vectors(self, w: Tensor) -> tuple[Tensor, ...]:
        return w.split([part.field_dim for part in self.parts], dim=-1)


class PowerCoordinates(Coordinates):
    """Coordinates of copies along an axis before the event's, joined.

    Args:
        manifold: the power.
        one: those of one copy.
        k: number of copies.
    """

    def __init__(self, manifold: Embedded, one: Coordinates, k: int) -> None:
        super().__init__(manifold)
        self.one, self.k = one, k

    @property
    def embed_dim(self) -> int:
        return self.k * self.one.embed_dim

    @property
    def field_dim(self) -> int:
        return self.k * self.one.field_dim

    def embed(self, x: Tensor) -> Tensor:
        return self.one.embed(x).flatten(-2)

    def tangent_from_vector(self, x: Tensor, w: Tensor) -> Tensor:
        return self.one.tangent_from_vector(x, self._copies(w))

    def embed_jvp(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        e, de = self.one.embed_jvp(x, v)
        return e.flatten(-2), de.flatten(-2)

    def tangent_from_vector_jvp(self, x: Tensor, w: Tensor, v: Tensor, dw: Tensor) -> tuple[Tensor, Tensor]:
        return self.one.tangent_from_vector_jvp(x, self._copies(w), v, self._copies(dw))

    def _copies(self, w: Tensor) -> Tensor:
        return w.unflatten(-1, (self.k, self.one.field_dim))


class QuotientCoordinates(Coordinates):
    """Smooth coordinates of classes: equal on a class, different off it.

    They are the group's ``invariants``, which separate classes by an argument given there. For a group without them
    they are random Fourier features of the embedding, averaged over the class: an average over all frequencies would
    determine the class (it is the characteristic function of the uniform distribution on it), and ``2 dim + 1``
    features do for almost every choice of frequencies and phases (Amir, Gortler, Avni, Ravina and Dym, Neural Injective
    Functions for Multisets, Measures and Graphs via a Finite Witness Theorem, 2023, arXiv:2306.06529). There are at
    least 64, for conditioning, with fixed frequencies. Where an element fixes a point the quotient has a corner or an
    edge; there no smooth map can have a derivative of full rank.

    Args:
        manifold: the quotient.
        one: coordinates of the manifold that it is a quotient of.
        group: the group.
        waves: the features, for a group without invariants.
    """

    def __init__(self, manifold: Embedded, one: Coordinates, group: FiniteGroup, waves: InvariantWaves | None) -> None:
        super().__init__(manifold)
        self.one, self.group, self.waves = one, group, waves

    @property
    def embed_dim(self) -> int:
        return self.group.invariant_dim if self.waves is None else self.waves.count  # type: ignore[return-value]

    @property
    def field_dim(self) -> int:
        return self.embed_dim

    def embed(self, x: Tensor) -> Tensor:
        if self.waves is None:
            return self.group.invariants(x)
        return self.waves.features(self.one.embed(self.group.orbit(x))).mean(-2)

    def tangent_from_vector(self, x: Tensor, w: Tensor) -> Tensor:
        """Return the tangent vector at ``x`` that is the gradient of ``<w, embed(x)>`` with ``w`` held fixed.

        If ``w`` is a function of ``embed(x)``, the result is an equivariant field; and every tangent vector is the
        image of some ``w`` where ``embed`` has a derivative of full rank. The gradient is the ambient one, passed
        through ``proju``: the Riemannian one where the metric is a constant multiple of the induced metric.

        Args:
            x: points ``(*batch, *event_shape)``.
            w: vectors ``(*batch, embed_dim)``.
        """
        shape = self.manifold.event_shape
        batch = torch.broadcast_shapes(x.shape[: x.ndim - len(shape)], w.shape[:-1])
        x = x.expand(*batch, *shape)
        pull = torch.func.vjp(self.embed, x)[1]
        return self.manifold.proju(x, pull(w.expand(*batch, self.embed_dim))[0])


def jvp_along_all(function: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``function(x)`` and its derivatives along vectors stacked at the first axis of ``v``."""

    def one(direction: Tensor) -> tuple[Tensor, Tensor]:
        value, change = torch.func.jvp(function, (x,), (direction,))[:2]
        return value, change

    value, change = torch.func.vmap(one, out_dims=(None, 0))(v)  # type: ignore[arg-type]
    return value, change
