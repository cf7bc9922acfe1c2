import torch

import rfm
from manifolds import Sphere
from rfm.networks import VelocityField

sphere = Sphere(2)
generator = torch.Generator().manual_seed(0)
magnitude = 4 + 3 * torch.rand(300, generator=generator)
centre = torch.stack([torch.cos(magnitude), torch.sin(magnitude), torch.zeros(300)], dim=-1)
points = sphere.projx(centre + 0.1 * torch.randn(300, 3, generator=generator))
field = VelocityField(sphere, width=64, depth=2, features=32, max_frequency=8.0, condition_dim=1)
options = {"field": field, "steps": 40, "progress": False}

# --8<-- [start:condition]
flow = rfm.fit(points, sphere, condition=magnitude, **options)
strong = flow.sample(100, condition=torch.tensor([6.5]))
scores = flow.log_prob(points, condition=magnitude[:, None])
# --8<-- [end:condition]
assert scores.shape == (300,)
