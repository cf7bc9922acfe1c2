"""Products of which each point has some factors and not others, by name of the place: actions of several robots."""

from collections.abc import Sequence

import torch
from torch import Tensor

from manifolds.base import Manifold
from manifolds.composed.masked import MaskedProduct
from manifolds.composed.product import Product


class Padded(MaskedProduct):
    """Points of some factors of ``Product(*factors)``, one batch of them: the actions of robots of several kinds.

    ``Padded(SE3(), Euclidean(1), FlatTorus(7))`` holds hands that move freely, with or without a gripper, and arms of
    seven joints. A point is a vector: that of the product, followed by a number for each factor, 1 where it is there
    and 0 for padding. Padding rests at one point, has no velocity, and enters neither length, nor divergence, nor
    density: at each point all maps are those of the product of its own factors, to whose volume densities refer.
    Between points of other factors there is no geodesic: ``logmap`` is NaN, ``dist`` infinite. ``dim`` is the largest
    dimension; `tangent_basis` has zeros in the place of what is padding.

    Networks see the padding as zeros, and the marks. `Ragged` is for copies of one factor.

    Args:
        factors: one manifold or more.
        weights: one positive number per factor, multiplying its squared metric, as in `Product`; by default all 1.

    References:
        Black et al., pi-zero: A Vision-Language-Action Flow Model for General Robot Control, 2024, arXiv:2410.24164,
        where the actions of all robots are padded to the longest.
    """

    def __init__(self, *factors: Manifold, weights: Sequence[float] | None = None) -> None:
        full = Product(*factors, weights=weights)
        super().__init__(full, len(factors))
        self.factors, self.weights = full.factors, full.weights

    def join(self, *parts: Tensor | None) -> Tensor:
        """Return points from the factors' points ``(*batch, *factor.event_shape)``, None for those that are not there.

        Raises:
            ValueError: if there is not one part for each factor, or no part at all.
        """
        known = [part for part in parts if part is not None]
        if len(parts) != self.marks or not known:
            raise ValueError(
                f"Padded: join takes a part or None for each of {self.marks} factors, and at least one part, got "
                f"{len(parts)} with {len(known)}; pass None for what is not there"
            )
        filled = [
            known[0].new_zeros(factor.event_shape) if part is None else part
            for factor, part in zip(self.full._factors, parts, strict=True)
        ]
        mask = known[0].new_tensor([float(part is not None) for part in parts])
        return self._with_mask(self.full.join(*filled), mask)

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the factors' parts of points, or of vectors; where a factor is not there its part is padding."""
        return self.full.split(self._split(x)[0])

    def there(self, x: Tensor) -> Tensor:
        """Return which factors each point has, booleans ``(*batch, len(factors))``."""
        return self._split(x)[1] > 0.5

    def limited(self, x: Tensor, there: Tensor) -> Tensor:
        """Return points of which only some factors are left.

        Args:
            x: points ``(*batch, N)``.
            there: which to leave, booleans that broadcast to ``(*batch, len(factors))``; those that ``x`` does not have
                stay away.
        """
        parts, mask = self._split(x)
        return self._with_mask(parts, mask * there.to(mask))

    # Coordinates for networks.

    def embed(self, x: Tensor) -> Tensor:
        """Return the embeddings of the factors, zeros for padding, and the marks."""
        parts, mask = self._split(x)
        pieces = zip(self.full._factors, self.full.split(parts), mask.split(1, dim=-1), strict=True)
        return torch.cat([*(factor.embed(part) * mark for factor, part, mark in pieces), mask], dim=-1)

    @property
    def embed_dim(self) -> int:
        return self.full.embed_dim + self.marks

    def extra_repr(self) -> str:
        return self.full.extra_repr()

    # Parts.

    def _there(self, mask: Tensor) -> Tensor:
        sizes = torch.tensor(self.full.sizes, device=mask.device)
        return torch.repeat_interleave(mask, sizes, dim=-1)
