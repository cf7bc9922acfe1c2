# --8<-- [start:import]
import math
import os

os.environ["GEOMSTATS_BACKEND"] = "pytorch"  # before geomstats is imported for the first time

import torch
from geomstats.geometry.pre_shape import PreShapeSpace

import rfm
from manifolds.interop.geomstats import from_geomstats
from rfm.networks import VelocityField

torch.set_default_dtype(torch.float32)  # importing geomstats has set it to float64
# --8<-- [end:import]

# --8<-- [start:shapes]
# Triangles in the plane without their position and size: a 3-sphere, on which projected noise is uniform.
shapes = from_geomstats(PreShapeSpace(3, 2), volume=2 * math.pi**2)
triangle = torch.tensor([[0.0, 1.0], [1.0, 0.0], [-1.0, -0.5]])
points = shapes.projx(triangle + 0.1 * torch.randn(100, 3, 2, generator=torch.Generator().manual_seed(0)))

# A small network and few steps, to be done in seconds: leave out field= and steps= for a real fit.
field = VelocityField(shapes, width=16, depth=1, features=16, max_frequency=2.0)
flow = rfm.fit(points, shapes, field=field, steps=2, batch_size=16, progress=False)
samples = flow.sample(2, generator=torch.Generator().manual_seed(1))
# --8<-- [end:shapes]
assert samples.shape == (2, 3, 2)
