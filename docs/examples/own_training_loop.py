import torch

import rfm
from manifolds import FlatTorus
from rfm.networks import VelocityField

torus = FlatTorus(2)
generator = torch.Generator().manual_seed(0)
data = torus.projx(torch.tensor([-1.0, 2.0]) + 0.3 * torch.randn(500, 2, generator=generator))

# --8<-- [start:loop]
path = rfm.GeodesicPath(torus)
source = rfm.sources.Uniform(torus)
field = VelocityField(torus, width=64, depth=2, features=64, max_frequency=8.0)
optimiser = torch.optim.Adam(field.parameters(), lr=3e-3)
for _ in range(100):
    x_1 = data[torch.randint(len(data), (256,), generator=generator)]
    x_0 = source.sample((256,), generator=generator)
    loss = rfm.flow_matching_loss(field, path, x_0, x_1, generator=generator)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()

flow = rfm.Flow(torus, field, source)
# --8<-- [end:loop]
assert flow.log_prob(data[:50]).mean() > source.log_prob(data[:50]).mean()
