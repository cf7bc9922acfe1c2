"""Draws of a flow given measurements."""

import torch

import rfm
from manifolds import SE3, SO3, Euclidean, FlatTorus, Power, Product, Sphere
from rfm.posterior import OTODE, Measurement, Slice, Tempering, Twisted, inside, operators, score_of_normal_noise
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

# --8<-- [start:measurements]
north, east = torch.tensor([0.0, 1.0, 0.0]), torch.tensor([1.0, 0.0, 0.0])
seen = Measurement(operators.bearing(sphere, beacon, north, east), 0.3, noise=0.1)
corners = torch.tensor([[1.0, 0.0, 0.2], [0.0, 1.0, 0.2], [0.3, 0.3, 1.0]])
within = inside(operators.Polygon(corners))
phi = Measurement(operators.angles([0]), [2.0], noise=0.2)
place = Measurement(operators.POSITION, [0.0, 0.0, 1.0], noise=0.2)
turned = operators.displacement(SO3(), torch.eye(3), part=operators.ORIENTATION)
ends = operators.displacement(Power(SE3(), 2), torch.eye(4).expand(2, 4, 4), part=operators.frames([0, 4]))
# --8<-- [end:measurements]
assert (operators.Polygon(corners)(flow.posterior(within, 100, generator=generator).points)).all()
assert phi(torch.zeros(3, 2)).shape == (3,)
assert place(torch.eye(4)[None]).shape == (1,)
assert turned(torch.eye(4)[None]).shape == (1, 3)
assert ends(torch.eye(4).expand(1, 5, 4, 4)).shape == (1, 12)
assert seen(flow.sample(3, generator=generator)).shape == (3,)

# --8<-- [start:twisted]
plane = Euclidean(2)
noise = WrappedNormal(plane, torch.zeros(2), 1.0)


def velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return x * ((2 * t - 1) / (t * t + (1 - t) ** 2))[..., None]


normal = rfm.Flow(plane, velocity, noise)
sums = Measurement(operators.matrix(torch.tensor([[1.0, 1.0]])), [2.0], noise=0.1)
method = Twisted([OTODE(plane, sums)], score_of_normal_noise(noise), steps=50)
draws = normal.posterior(sums, 500, method=method, generator=generator)
# --8<-- [end:twisted]
assert draws.exact

# --8<-- [start:known]
product = Product(FlatTorus(1), Euclidean(1))
source = ProductSource(product, [Uniform(FlatTorus(1)), WrappedNormal(Euclidean(1), torch.zeros(1), 0.5)])
pairs = rfm.Flow(product, lambda x, t: torch.stack([0 * x[..., 0], x[..., 0].cos()], dim=-1), source)
known = Slice.of_factors(product, {1: [0.9]})
draws = pairs.posterior(None, 200, known=known, method=Tempering(particles=256, moves=3), generator=generator)
# --8<-- [end:known]
assert torch.allclose(draws.points[:, 1], torch.tensor(0.9))
