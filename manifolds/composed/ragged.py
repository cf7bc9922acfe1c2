"""Products whose number of factors differs from point to point."""

import torch
from torch import Tensor

from manifolds.arguments import check_instance, integer
from manifolds.base import Manifold
from manifolds.composed.power import Power
from manifolds.composed.product import Product
from manifolds.numerics import safe_sqrt


class Ragged(Manifold):
    """Points of ``head x one^k`` with ``k`` from 0 to ``most``, one batch of them: a ligand's pose and its k torsions.

    The union of those products. A point is a vector: that of ``Product(head, Power(one, most))`` followed by ``most``
    numbers, 1 for copies that are there and 0 for padding. Padding rests at one point, has no velocity, and enters
    neither length, nor divergence, nor density: at each point all maps are those of its own product, of dimension
    ``head.dim + k one.dim``, to whose volume densities refer. Geodesics keep the number of copies; between points with
    other copies there is none: ``logmap`` is NaN, ``dist`` infinite. ``dim`` is the largest dimension; `tangent_basis`
    has zeros in the place of what is padding.

    Networks see the padding as zeros, and the mask. Which copies are there is arbitrary; `pack` puts them first.

    Args:
        head: the part that every point has.
        one: one copy of the part that is repeated.
        most: the largest number of copies.

    References:
        Corso et al., DiffDock: Diffusion Steps, Twists, and Turns for Molecular Docking, 2022, arXiv:2210.01776,
        section 4.1 (the product of the ligand's pose and torsions).
    """

    def __init__(self, head: Manifold, one: Manifold, most: int) -> None:
        check_instance("Ragged", "head", head, Manifold, "SE3()")
        check_instance("Ragged", "one", one, Manifold, "FlatTorus(1)")
        most = integer("Ragged", "most, the largest number of copies,", most)
        full = Product(head, Power(one, most))
        super().__init__(full.dim, (full.event_shape[0] + most,))
        self.head, self.one, self.most = head, one, most
        self.full = full
        self.injectivity_radius, self.logmap_radius = full.injectivity_radius, full.logmap_radius

    # Parts of a point.

    def pack(self, head: Tensor, copies: Tensor, there: Tensor | None = None) -> Tensor:
        """Return points from their parts.

        Args:
            head: ``(*batch, *head.event_shape)``.
            copies: ``(*batch, k, *one.event_shape)`` with at most ``most`` copies.
            there: which of them are no padding, booleans ``(*batch, k)``; by default all.
        """
        k, rank = copies.shape[-1 - len(self.one.event_shape)], len(self.one.event_shape)
        if k > self.most:
            raise ValueError(f"Ragged: points have at most {self.most} copies, got {k}; make one with most={k}")
        batch = copies.shape[: copies.ndim - rank - 1]
        there = torch.ones(*batch, k, dtype=torch.bool, device=copies.device) if there is None else there
        there = torch.cat([there, there.new_zeros(*batch, self.most - k)], dim=-1)
        missing = copies.new_zeros(*batch, self.most - k, *self.one.event_shape)
        x = self.full.join(head, torch.cat([copies, missing], dim=-1 - rank))
        return self._with_mask(x, there.to(x.dtype))

    def unpack(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the head, the copies ``(*batch, most, *one.event_shape)``, and which are there ``(*batch, most)``."""
        x, mask = self._split(x)
        head, copies = self.full.split(x)
        return head, copies, mask > 0.5

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

    # Coordinates for networks.

    def embed(self, x: Tensor) -> Tensor:
        """Return the embeddings of the head and of the copies, zeros for padding, and the mask."""
        head, copies, _ = self.unpack(x)
        mask = self._split(x)[1]
        parts = self.one.embed(copies) * mask[..., None]
        return torch.cat([self.head.embed(head), parts.flatten(-2), mask], dim=-1)

    @property
    def embed_dim(self) -> int:
        return self.head.embed_dim + self.most * (self.one.embed_dim + 1)

    def tangent_from_vector(self, x: Tensor, w: Tensor) -> Tensor:
        return self._velocity(x, self.full.tangent_from_vector(self._split(x)[0], w))

    @property
    def field_dim(self) -> int:
        return self.full.field_dim

    def extra_repr(self) -> str:
        return f"{self.head!r}, {self.one!r}, {self.most}"

    # Parts.

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vector of the full product, and the mask."""
        size = self.full.event_shape[0]
        return x[..., :size], x[..., size:]

    def _there(self, mask: Tensor) -> Tensor:
        """Return 1 for coordinates of the full product that are there, and 0 for padding."""
        head = mask.new_ones(*mask.shape[:-1], *self.head.event_shape)
        copies = mask[(..., *(None,) * len(self.one.event_shape))].expand(*mask.shape, *self.one.event_shape)
        return self.full.join(head, copies)

    def _with_mask(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return points with padding at rest."""
        zeros = torch.zeros(self.full.event_shape, dtype=x.dtype, device=x.device)
        rest = self.full.projx(zeros)
        mask = mask.expand(*x.shape[:-1], self.most)
        return torch.cat([torch.where(self._there(mask) > 0.5, x, rest), mask], dim=-1)

    def _velocity(self, x: Tensor, u: Tensor) -> Tensor:
        """Return tangent vectors at ``x`` from those of the full product."""
        there = self._there(self._split(x)[1])
        u = u * there
        return torch.cat([u, torch.zeros_like(u[..., :1]).expand(*u.shape[:-1], self.most)], dim=-1)

    def _frame(self, x: Tensor, vectors: Tensor) -> Tensor:
        return self._velocity(x[..., None, :], vectors)
