"""A diffusion model out of `rfm.fit`: noise prediction, the variance-preserving schedule, DDIM."""

import torch

import rfm
from manifolds import Euclidean
from rfm.networks import VelocityField
from rfm.paths import DDIM, GaussianPath
from rfm.paths.schedules import VariancePreserving

plane = Euclidean(2)
points = torch.randn(300, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 0.3])
field = VelocityField(plane, width=32, depth=1, features=32, max_frequency=4.0)

# --8<-- [start:fit]
path = GaussianPath(plane, VariancePreserving())
objective = rfm.FlowMatching(path, predicts="noise")
flow = rfm.fit(points, plane, objective=objective, field=field, steps=200, progress=False, device="cpu")
drawn = flow.sample(100, solver=DDIM(path.schedule, steps=50))
log_p = flow.log_prob(points)
# --8<-- [end:fit]
assert drawn.shape == (100, 2)
assert bool(log_p.isfinite().all())
