import torch

import rfm
from manifolds import Euclidean, Sphere
from rfm.integrators import GeodesicWalk, ProjectedWalk, Stochastic
from rfm.paths import conversions
from rfm.sources import Uniform

# --8<-- [start:field]
sphere = Sphere(2)
points = sphere.random_uniform(20, generator=torch.Generator().manual_seed(0))
exact = rfm.marginal_velocity(rfm.GeodesicPath(sphere), points, Uniform(sphere))

x_t = exact.sample((5,), 0.6, torch.Generator().manual_seed(1))  # points on paths, at time 0.6
t = torch.full((5,), 0.6, dtype=x_t.dtype)
velocity, log_p, score = exact(x_t, t), exact.log_prob(x_t, t), exact.score(x_t, t)
# --8<-- [end:field]
assert velocity.shape == score.shape == (5, 3)

# --8<-- [start:teacher]
network = rfm.networks.VelocityField(sphere, width=32, depth=1)
departure = (network(x_t.float(), t.float()) - velocity).square().sum(-1).mean()
# --8<-- [end:teacher]
assert departure > 0

# --8<-- [start:time]
flow = rfm.Flow(sphere, network)
halfway, log_p = flow.sample(10, time=0.5, return_log_prob=True)
score = flow.score(halfway, 0.5)  # the gradient of flow.log_prob(x, time=0.5), tangent at each point
# --8<-- [end:time]
torch.testing.assert_close(flow.log_prob(halfway, time=0.5), log_p, atol=1e-3, rtol=0)

# --8<-- [start:noise]
generator = torch.Generator().manual_seed(2)
noisy = Stochastic(
    lambda t: 0.5 * (1 - t),  # g(t), which falls to 0 where the score grows
    exact.score,
    steps=50,
    walk=ProjectedWalk(),
    generator=generator,
)
samples = rfm.Flow(sphere, exact).sample(100, time=0.9, solver=noisy, generator=generator)
# --8<-- [end:noise]
sphere.check_point(samples)

# --8<-- [start:affine]
path = rfm.GaussianPath(Euclidean(2))
field = rfm.marginal_velocity(path, torch.randn(10, 2, generator=generator))  # or a network trained on this path


def score_from_velocity(x, t, velocity):
    return conversions.from_velocity(path.schedule, x, t, velocity).score


proteina = Stochastic(
    lambda t: 1 / (t + 0.01),
    score_from_velocity=score_from_velocity,
    temperature=0.4,  # 1 keeps the marginals
    steps=400,
    grading=1.5,
    walk=GeodesicWalk(),
    generator=generator,
)
samples = rfm.Flow(path.manifold, field, path.source).sample(100, time=0.95, solver=proteina)
# --8<-- [end:affine]
assert bool(samples.isfinite().all())
