"""A source in other units of length."""

import math

import torch
from torch import Tensor

from manifolds import Scaled
from rfm.arrays import points_of
from rfm.sources.base import Source, checked_part, draws


class ScaledSource(Source):
    """The distribution of a source on the manifold that a scaled one is made of, per its own volume.

    Args:
        manifold: the scaled manifold.
        source: on the manifold ``manifold.m``.

    Raises:
        ValueError: if the manifold is not scaled, or the source is on another one.
    """

    manifold: Scaled

    def __init__(self, manifold: Scaled, source: Source) -> None:
        super().__init__(manifold)
        if not isinstance(manifold, Scaled):
            raise ValueError(f"ScaledSource: lives on a Scaled manifold, got {manifold}; use the source itself")
        self.source = checked_part("ScaledSource", "source", source, manifold.m)

    def sample(
        self,
        shape: int | tuple[int, ...],
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        return self.source.sample(draws(self, shape, dtype), generator, dtype, device)

    def log_prob(self, x: Tensor) -> Tensor:
        x = points_of("ScaledSource", self.manifold, x)
        return self.source.log_prob(x) - self.manifold.dim * math.log(self.manifold.factor)
