"""Products whose number of factors differs from point to point."""

import torch
from torch import Tensor

from manifolds.arguments import check_instance, integer
from manifolds.base import Manifold
from manifolds.composed.masked import MaskedProduct
from manifolds.composed.power import Power
from manifolds.composed.product import Product


class Ragged(MaskedProduct):
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
        super().__init__(Product(head, Power(one, most)), most)
        self.head, self.one, self.most = head, one, most

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

    def extra_repr(self) -> str:
        return f"{self.head!r}, {self.one!r}, {self.most}"

    # Parts.

    def _there(self, mask: Tensor) -> Tensor:
        """Return 1 for coordinates of the full product that are there, and 0 for padding."""
        head = mask.new_ones(*mask.shape[:-1], *self.head.event_shape)
        copies = mask[(..., *(None,) * len(self.one.event_shape))].expand(*mask.shape, *self.one.event_shape)
        return self.full.join(head, copies)
