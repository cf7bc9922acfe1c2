"""A density on a surface of triangles."""

import torch

import rfm
from manifolds import Mesh

# --8<-- [start:mesh]
corners = torch.tensor([[0, 0, 0], [3, 0, 0], [3, 2, 0], [0, 2, 0], [0, 0, 1], [3, 0, 1], [3, 2, 1], [0, 2, 1.0]])
squares = [(0, 3, 2, 1), (4, 5, 6, 7), (0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7)]
faces = torch.tensor([t for a, b, c, d in squares for t in ((a, b, c), (a, c, d))])
box = Mesh(corners, faces, closed=True)

x = torch.tensor([1.0, 1.0, 1.0])  # on the lid
y = torch.tensor([1.0, 1.0, 0.0])  # below, on the bottom
distance = box.dist(x, y)  # 3: to the edge, down, and back
start, velocity = box.geodesic(x, y, torch.tensor(0.0))
# --8<-- [end:mesh]

# --8<-- [start:fit]
centre = torch.tensor([2.5, 1.5, 1.0])
points = box.projx(centre + 0.3 * torch.randn(400, 3, generator=torch.Generator().manual_seed(0)))
flow = rfm.fit(points, box, progress=False)
samples = flow.sample(100)
log_density = flow.log_prob(samples)  # nats per unit of area
# --8<-- [end:fit]
assert abs(float(distance) - 3) < 1e-5
box.check_point(samples)
assert torch.isfinite(log_density).all()
