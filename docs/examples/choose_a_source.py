import torch

import rfm
from manifolds import SO3, Sphere
from rfm.couplings import OptimalTransport
from rfm.networks import VelocityField
from rfm.sources import IsotropicGaussianSO3, KernelMixture, VonMisesFisher

sphere = Sphere(2)
generator = torch.Generator().manual_seed(0)
centres = sphere.random_uniform(5, generator=generator)[torch.randint(5, (300,), generator=generator)]
points = sphere.kernel.sample(centres, torch.full((300,), 50.0), generator)

# --8<-- [start:made]
north = VonMisesFisher(sphere, torch.tensor([0.0, 0.0, 1.0]), concentration=4.0)
upright = IsotropicGaussianSO3(torch.eye(3), scale=0.5)
x = upright.sample((1000,), generator=generator)
log_p = upright.log_prob(x)  # nats, with respect to the volume of SO3()
# --8<-- [end:made]
SO3().check_point(x)

# --8<-- [start:fitted]
mixture = KernelMixture.fit(sphere, points)  # several bandwidths and a uniform part, weighted by cross-validation
print(mixture.weights[-1])  # of the uniform part
# --8<-- [end:fitted]

# A small network and few steps, to be done in seconds: leave out both for a real fit.
small = {"field": VelocityField(sphere, width=16, depth=1, features=16, max_frequency=4.0), "steps": 10}

# --8<-- [start:fit]
flow = rfm.fit(points, sphere, source=KernelMixture.fit, **small, progress=False)
# --8<-- [end:fit]

# --8<-- [start:coupling]
flow = rfm.fit(points, sphere, coupling=OptimalTransport(sphere), **small, progress=False)
# --8<-- [end:coupling]

# --8<-- [start:own_loop]
x_1 = points[:128]
x_0 = flow.source.sample((128,), generator=generator)
pairs = OptimalTransport(sphere)(x_0, x_1)  # data points stay in place, and what belongs to them, such as labels
path = rfm.GeodesicPath(sphere)
loss = rfm.flow_matching_loss(flow.field, path, pairs.x_0, pairs.x_1)
# --8<-- [end:own_loop]
assert loss.isfinite()

# --8<-- [start:conditions]
label = (x_1[:, 2:] > 0).float()  # (n, c)
pairs = OptimalTransport(sphere)(x_0, x_1, condition=label)  # within each label; pairs.condition is that of pairs.x_1
nearby = OptimalTransport(sphere, condition_weight=10.0)(x_0, x_1, condition=x_1[:, 2:])  # a continuous condition
# --8<-- [end:conditions]
index = OptimalTransport(sphere).indices(x_0, x_1, condition=label)
assert torch.equal(pairs.x_0, x_0[index])
assert torch.equal(label[index], label)
