import math

import torch
from cylinder import Cylinder
from torch import Tensor

import rfm
from manifolds import Manifold
from rfm.networks import VelocityField
from rfm.sources import Source


# --8<-- [start:source]
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


# --8<-- [end:source]

# --8<-- [start:data]
generator = torch.Generator().manual_seed(0)
prevailing = torch.rand(500, generator=generator) < 0.7
direction = torch.where(prevailing, math.radians(240), math.radians(60))
direction = direction + 0.3 * torch.randn(500, generator=generator)
log_speed = torch.where(prevailing, 2.0, 1.2) + 0.25 * torch.randn(500, generator=generator)
points = torch.stack([torch.cos(direction), torch.sin(direction), log_speed], dim=-1)
# --8<-- [end:data]

# --8<-- [start:fit]
manifold = Cylinder()
source = UniformTimesNormal(manifold, mean=1.5, scale=1.0)
# A small network and few steps, to be done in seconds: leave out field= and steps= for a real fit.
field = VelocityField(manifold, width=64, depth=2, features=64, max_frequency=8.0)
flow = rfm.fit(points, manifold, source=source, field=field, steps=150)

samples = flow.sample(200, generator=generator)
log_density = flow.log_prob(samples)  # in nats, per radian and unit of log-speed
print(f"mean log-density of samples: {float(log_density.mean()):.2f} nats")
# --8<-- [end:fit]

# --8<-- [start:normalised]
draws = source.sample((500,), generator=generator)
ratio = (flow.log_prob(draws) - source.log_prob(draws)).exp()
print(f"integral of the density: {float(ratio.mean()):.3f} +- {float(ratio.std()) / math.sqrt(len(ratio)):.3f}")
# --8<-- [end:normalised]

# --8<-- [start:save]
flow.save("wind")
again = rfm.Flow.load("wind", manifold=manifold, source=source, field=flow.field)
# --8<-- [end:save]
assert torch.equal(again.log_prob(samples), log_density)
