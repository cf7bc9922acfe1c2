"""Products of which each point has some factors and not others."""

from abc import abstractmethod

import torch
from torch import Tensor

from manifolds.base import Manifold
from manifolds.composed.product import Product
from manifolds.numerics import safe_sqrt


class MaskedProduct(Manifold):
    """Points of a product, followed by numbers that say which of its factors are there: 1 or 0, for padding.

    Padding rests at one point, has no velocity, and enters neither length, nor divergence, nor density: at each point
    all maps are those of the product of the factors that are there, to whose volume densities refer. Geodesics keep
    what is there; between points with other factors there is none: ``logmap`` is NaN, ``dist`` infinite. ``dim`` is the
    largest dimension; `tangent_basis` has zeros in the place of what is padding.

    A subclass says in `_there` which coordinates each of the numbers is about.

    Args:
        full: the product of all factors.
        marks: how many numbers follow.
    """

    def __init__(self, full: Product, marks: int) -> None:
        super().__init__(full.dim, (full.event_shape[0] + marks,))
        self.full, self.marks = full, marks
        self.injectivity_radius, self.logmap_radius = full.injectivity_radius, full.logmap_radius
        self.has_kinks = full.has_kinks

    @abstractmethod
    def _there(self, mask: Tensor) -> Tensor:
        """Return 1 for coordinates of the full product that are there, and 0 for padding."""

    # Projections.

    def projx(self, x: Tensor) -> Tensor:
        """Return the nearest point with the same copies, for a mask the nearest of 0 and 1."""
        x, mask = self._split(x)
        return self._with_mask(self.full.projx(x), (mask > 0.5).to(x.dtype))

    def outside(self, x: Tensor) -> Tensor | None:
        return self.full.outside(self._split(x)[0])

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return self._velocity(x, self.full.proju(self._split(x)[0], self._split(u)[0]))

    # Metric.

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return self.full.inner(*(self._split(a)[0] for a in (x, u, v)))

    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        (a, mask), (b, other) = self._split(x), self._split(y)
        return torch.where((mask == other).all(-1), self.full.dist(a, b), torch.inf)

    def norm(self, x: Tensor, u: Tensor) -> Tensor:
        return safe_sqrt(self.inner(x, u, u))

    # Geodesics.

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        a, mask = self._split(x)
        return self._with_mask(self.full.expmap(a, self._split(u)[0]), mask)

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        (a, mask), (b, other) = self._split(x), self._split(y)
        same = (mask == other).all(-1, keepdim=True)
        return torch.where(same, self._velocity(x, self.full.logmap(a, b)), torch.nan)

    def shoot(self, x: Tensor, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        a, mask = self._split(x)
        x_t, dx_t = self.full.shoot(a, self._split(u)[0], t)
        end = self._with_mask(x_t, mask)
        return end, self._velocity(end, dx_t)

    def transp(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        """Carry ``u`` as the product does."""
        parts = (self._split(a)[0] for a in (x, y, u))
        return self._velocity(y, self.full.transp(*parts))

    @property
    def transp_is_isometric(self) -> bool:
        return self.full.transp_is_isometric

    # Bases and volume.

    def tangent_basis(self, x: Tensor) -> Tensor:
        """Return the product's, with zeros for padding."""
        return self._frame(x, self.full.tangent_basis(self._split(x)[0]))

    def divergence_frame(self, x: Tensor) -> tuple[Tensor, Tensor]:
        vectors, covectors = self.full.divergence_frame(self._split(x)[0])
        return self._frame(x, vectors), self._frame(x, covectors)

    def log_volume_derivative(self, x: Tensor, u: Tensor) -> Tensor:
        return self.full.log_volume_derivative(self._split(x)[0], self._split(u)[0])

    def log_det_expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return self.full.log_det_expmap(self._split(x)[0], self._split(u)[0])

    def tangent_from_vector(self, x: Tensor, w: Tensor) -> Tensor:
        return self._velocity(x, self.full.tangent_from_vector(self._split(x)[0], w))

    @property
    def field_dim(self) -> int:
        return self.full.field_dim

    # Parts.

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vector of the full product, and the mask."""
        size = self.full.event_shape[0]
        return x[..., :size], x[..., size:]

    def _with_mask(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return points with padding at rest."""
        zeros = torch.zeros(self.full.event_shape, dtype=x.dtype, device=x.device)
        rest = self.full.projx(zeros)
        mask = mask.expand(*x.shape[:-1], self.marks)
        return torch.cat([torch.where(self._there(mask) > 0.5, x, rest), mask], dim=-1)

    def _velocity(self, x: Tensor, u: Tensor) -> Tensor:
        """Return tangent vectors at ``x`` from those of the full product."""
        there = self._there(self._split(x)[1])
        u = u * there
        return torch.cat([u, torch.zeros_like(u[..., :1]).expand(*u.shape[:-1], self.marks)], dim=-1)

    def _frame(self, x: Tensor, vectors: Tensor) -> Tensor:
        return self._velocity(x[..., None, :], vectors)
