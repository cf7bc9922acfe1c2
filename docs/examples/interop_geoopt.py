import geoopt
import torch

import rfm
from manifolds import SO3, Sphere
from manifolds.interop.geoopt import from_geoopt, to_geoopt

# --8<-- [start:from]
# The shape of one point is needed; the dimension is the rank of its projection to tangent spaces.
stiefel = from_geoopt(geoopt.Stiefel(), event_shape=(4, 2))
assert stiefel.dim == 5

x = stiefel.random_uniform(3, generator=torch.Generator().manual_seed(0))
x_t, dx_t = stiefel.geodesic(x, x.roll(1, 0), torch.tensor(0.5))
stiefel.check_tangent(x_t, dx_t, tol=1e-4)
# --8<-- [end:from]

# --8<-- [start:product]
pair = from_geoopt(geoopt.ProductManifold((geoopt.Sphere(), 3), (geoopt.PoincareBall(), 2)), event_shape=(5,))
source = rfm.sources.default_source(pair, torch.zeros(1, 5) + torch.eye(1, 5))
# --8<-- [end:product]
assert source.sample((2,), generator=torch.Generator().manual_seed(0)).shape == (2, 5)

# --8<-- [start:to]
rotations = SO3()
target = rotations.random_uniform(generator=torch.Generator().manual_seed(1))
parameter = geoopt.ManifoldParameter(torch.eye(3), manifold=to_geoopt(rotations))
optimiser = geoopt.optim.RiemannianAdam([parameter], lr=0.1)
for _ in range(100):
    optimiser.zero_grad()
    loss = rotations.dist(parameter, target) ** 2
    loss.backward()
    optimiser.step()
assert rotations.dist(parameter, target) < 0.05
# --8<-- [end:to]
assert from_geoopt(to_geoopt(Sphere(2)), (3,)).dim == 2
