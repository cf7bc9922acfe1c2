import math

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.sources import Source


class UniformTimesNormal(Source):
    """Uniform in the angle and normal in the height of a cylinder."""

    def __init__(self, manifold: Manifold, mean: float, scale: float) -> None:
        super().__init__(manifold)
        self.mean, self.scale = mean, scale

    def sample(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        angle = 2 * math.pi * torch.rand(*shape, generator=generator, dtype=dtype, device=device)
        height = torch.randn(*shape, generator=generator, dtype=dtype, device=device)
        return torch.stack([torch.cos(angle), torch.sin(angle), self.mean + self.scale * height], dim=-1)

    def log_prob(self, x: Tensor) -> Tensor:
        z = (x[..., 2] - self.mean) / self.scale
        return -(z**2) / 2 - math.log(self.scale * math.sqrt(2 * math.pi)) - math.log(2 * math.pi)
