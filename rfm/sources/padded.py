"""Where flows of points start that have some factors of a product and not others."""

import torch
from torch import Tensor

from manifolds import Padded
from manifolds.identity import same
from rfm.arrays import points_of
from rfm.sources.base import Source, draws
from rfm.sources.product import ProductSource


class PaddedSource(Source):
    """Independent distributions on the factors that a point has.

    Which factors those are is given, not random: draws have all of them, `beside` draws for points that have some, and
    the density is that of a point among those with the same factors, with respect to the volume of their product.

    Args:
        manifold: the padded product.
        full: a source on its ``full`` product.

    Raises:
        ValueError: if the manifold is another, or the source is not on its product.
    """

    def __init__(self, manifold: Padded, full: ProductSource) -> None:
        super().__init__(manifold)
        if not isinstance(manifold, Padded):
            raise ValueError(f"PaddedSource: lives on Padded, got {manifold}; use ProductSource on a Product")
        if not isinstance(full, ProductSource) or not same(full.manifold, manifold.full):
            raise ValueError(
                f"PaddedSource: full must be a ProductSource on the product of {manifold}, got {type(full).__name__}; "
                "pass ProductSource(manifold.full, sources)"
            )
        self.manifold: Padded = manifold
        self.full = full

    def sample(
        self,
        shape: int | tuple[int, ...],
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        parts = self.full.sample(draws(self, shape, dtype), generator, dtype, device)
        return self.manifold.join(*self.manifold.full.split(parts))

    def beside(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return a draw for each of the points ``x``, with the same factors: what training pairs with data."""
        x = points_of("PaddedSource", self.manifold, x)
        drawn = self.sample(tuple(self.manifold.batch_shape(x)), generator, x.dtype, x.device)
        return self.manifold.limited(drawn, self.manifold.there(x))

    @property
    def has_density(self) -> bool:
        return self.full.has_density

    def log_prob(self, x: Tensor) -> Tensor:
        x = points_of("PaddedSource", self.manifold, x)
        parts, there = self.manifold.split(x), self.manifold.there(x)
        each = self.full.log_probs(parts)
        return torch.where(there, each, 0.0).sum(-1)
