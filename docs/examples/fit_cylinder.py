import math

import torch
from cylinder import Cylinder
from cylinder_source import UniformTimesNormal

import rfm
from rfm.networks import VelocityField

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
flow = rfm.fit(points, manifold, source=source, field=field, steps=100)

samples = flow.sample(200, generator=generator)
log_density = flow.log_prob(samples)  # in nats, per radian and unit of log-speed
print(f"mean log-density of samples: {float(log_density.mean()):.2f} nats")
# --8<-- [end:fit]

# --8<-- [start:normalised]
draws = torch.cat([source.sample((200,), generator=generator), samples])
p, p_0 = flow.log_prob(draws).exp(), source.log_prob(draws).exp()
share = 2 * p / (p + p_0)
error = float(share.std()) / math.sqrt(len(share))
print(f"integral of the density: {float(share.mean()):.3f} +- {error:.3f}")
# --8<-- [end:normalised]

# --8<-- [start:save]
flow.save("wind")
again = rfm.Flow.load("wind", manifold=manifold, source=source)
# --8<-- [end:save]
assert torch.equal(again.log_prob(samples), log_density)
assert abs(float(share.mean()) - 1) < 5 * error
