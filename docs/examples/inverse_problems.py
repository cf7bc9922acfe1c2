"""Draws of a flow given measurements."""

import torch

import rfm
from manifolds import Euclidean, FlatTorus, Product, Sphere
from rfm.posterior import Measurement, Slice, Tempering, inside, operators
from rfm.sources import ProductSource, Uniform, WrappedNormal

sphere = Sphere(2)
generator = torch.Generator().manual_seed(0)
# A flow that stands for one that was fitted to places.
flow = rfm.Flow(sphere, lambda x, t: sphere.proju(x, torch.tensor([1.0, 0.0, 0.5]).expand_as(x)))

# --8<-- [start:measurement]
beacon = torch.tensor([0.0, 0.0, 1.0])
distance = Measurement(operators.distance_to(sphere, beacon), 0.8, noise=0.05)
draws = flow.posterior(distance, 500, generator=generator)
print(draws.points.shape, draws.effective_sample_size, draws.log_evidence, draws.warnings)
# --8<-- [end:measurement]

# --8<-- [start:several]
longitude = Measurement(operators.LONGITUDE, 0.5, noise=0.1)
northern = inside(lambda x: x[..., 2] > 0)


def together(x: torch.Tensor) -> torch.Tensor:
    return distance(x) + longitude(x) + northern(x)


draws = flow.posterior(together, 500, generator=generator)
# --8<-- [end:several]
assert (draws.points[:, 2] > 0).all()

# --8<-- [start:known]
product = Product(FlatTorus(1), Euclidean(1))
source = ProductSource(product, [Uniform(FlatTorus(1)), WrappedNormal(Euclidean(1), torch.zeros(1), 0.5)])
pairs = rfm.Flow(product, lambda x, t: torch.stack([0 * x[..., 0], x[..., 0].cos()], dim=-1), source)
known = Slice.of_factors(product, {1: [0.9]})
draws = pairs.posterior(None, 200, known=known, method=Tempering(particles=256, moves=3), generator=generator)
# --8<-- [end:known]
assert torch.allclose(draws.points[:, 1], torch.tensor(0.9))
