"""Independent sources side by side."""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from manifolds import Manifold, Power, Product
from rfm.arrays import points_of
from rfm.sources.base import Source, checked_part, draws


class ProductSource(Source):
    """Independent distributions on the factors of a product.

    Args:
        manifold: the product.
        sources: one on each factor, in order. The weights of the product's metric enter the density, not the samples:
            a factor's scale is in that factor's own unit.

    Raises:
        ValueError: if the manifold is no product, or the sources do not fit its factors.
    """

    manifold: Product

    def __init__(self, manifold: Product, sources: Sequence[Source] | nn.ModuleList) -> None:
        super().__init__(manifold)
        if not isinstance(manifold, Product):
            raise ValueError(
                f"ProductSource: lives on a Product, got {manifold}; use PowerSource on a Power, RigidMotionSource on "
                "SE3"
            )
        factors = [cast(Manifold, factor) for factor in manifold.factors]
        if len(sources) != len(factors):
            raise ValueError(
                f"ProductSource: takes one source per factor of {manifold}, {len(factors)}, got {len(sources)}"
            )
        self.sources = nn.ModuleList(
            checked_part("ProductSource", f"source {i}", source, factor)
            for i, (source, factor) in enumerate(zip(sources, factors, strict=True))
        )
        parts = zip(manifold.weights, factors, strict=True)
        self._log_volume_factors = [factor.dim / 2 * math.log(weight) for weight, factor in parts]

    def sample(
        self,
        shape: int | tuple[int, ...],
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        shape = draws(self, shape, dtype)
        return self.manifold.join(*(source.sample(shape, generator, dtype, device) for source in self._sources))

    @property
    def has_density(self) -> bool:
        return all(source.has_density for source in self._sources)

    def log_prob(self, x: Tensor) -> Tensor:
        x = points_of("ProductSource", self.manifold, x)
        return self.log_probs(self.manifold.split(x)).sum(-1)

    def log_probs(self, parts: Sequence[Tensor]) -> Tensor:
        """Return the log-density of each factor's part ``(*batch, factors)``, in the weights of the product's metric.

        Args:
            parts: of points, ``(*batch, *factor.event_shape)`` each.
        """
        known = zip(self._sources, parts, self._log_volume_factors, strict=True)
        return torch.stack([source.log_prob(part) - scale for source, part, scale in known], dim=-1)

    @property
    def _sources(self) -> list[Source]:
        return [cast(Source, source) for source in self.sources]


class PowerSource(Source):
    """Independent copies of one distribution on each copy of a power, computed as one batched call.

    Args:
        manifold: the power.
        source: on the manifold that it is a power of.

    Raises:
        ValueError: if the manifold is no power, or the source is not on the manifold that it is a power of.
    """

    manifold: Power

    def __init__(self, manifold: Power, source: Source) -> None:
        super().__init__(manifold)
        if not isinstance(manifold, Power):
            raise ValueError(f"PowerSource: lives on a Power, got {manifold}; use ProductSource on a Product")
        self.source = checked_part("PowerSource", "source", source, manifold.m)

    def sample(
        self,
        shape: int | tuple[int, ...],
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        shape = draws(self, shape, dtype)
        return self.source.sample((*shape, self.manifold.k), generator, dtype, device)

    @property
    def has_density(self) -> bool:
        return self.source.has_density

    def on(self, manifold: Manifold) -> "PowerSource":
        """Return as many independent copies as another power of the same manifold has."""
        return PowerSource(cast(Power, manifold), self.source)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.source.log_prob(points_of("PowerSource", self.manifold, x)).sum(-1)
