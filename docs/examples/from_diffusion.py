import itertools
import math

import torch
from torch import Tensor

import rfm
from manifolds import Euclidean
from rfm.networks import VelocityField
from rfm.paths import conversions, schedules, times

# --8<-- [start:network]
plane = Euclidean(2)
schedule = schedules.VariancePreserving()  # DDPM's, in continuous time
path = rfm.GaussianPath(plane, schedule)
centres = torch.tensor([[-1.5, 0.0], [1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
spread = 0.2


def log_marginal(x: Tensor, t: Tensor) -> Tensor:
    """Three normal clusters of equal weight, seen through the noise of time t."""
    at = schedule(t)
    variance = (at.alpha * spread) ** 2 + at.sigma**2
    squared = (x[..., None, :] - at.alpha[..., None, None] * centres).square().sum(-1)
    each = -squared / (2 * variance[..., None]) - torch.log(2 * math.pi * variance)[..., None]
    return torch.logsumexp(each, -1) - math.log(3)


def predicted_noise(x: Tensor, t: Tensor) -> Tensor:
    """What a perfectly trained noise network would return."""
    score = torch.func.grad(lambda y: log_marginal(y, t).sum())(x)
    return -schedule(t).sigma[..., None] * score


# --8<-- [end:network]


# --8<-- [start:velocity]
def velocity(x: Tensor, t: Tensor) -> Tensor:
    return conversions.from_noise(schedule, x, t, predicted_noise(x, t)).velocity


# --8<-- [end:velocity]

# --8<-- [start:sample]
last = 1 - 1e-4
x_0 = path.source.sample((200,), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
x = rfm.integrate(velocity, plane, x_0, (0.0, last)).final
t = torch.full((200,), last, dtype=x.dtype)
samples = conversions.from_noise(schedule, x, t, predicted_noise(x, t)).endpoint
# --8<-- [end:sample]
assert torch.cdist(samples, centres).amin(-1).max() < 5 * spread

# --8<-- [start:ddim]
x = x_0
grid = torch.linspace(0, 1, 201, dtype=torch.float64)
for now, then in itertools.pairwise(grid):
    predictions = conversions.from_noise(schedule, x, now, predicted_noise(x, now.expand(200)))
    x = conversions.ddim_step(schedule, then, predictions)
# --8<-- [end:ddim]
assert (x - samples).norm(dim=-1).median() < 0.05


# --8<-- [start:likelihood]
def velocity_from_score(x: Tensor, t: Tensor) -> Tensor:
    score = torch.func.grad(lambda y: log_marginal(y, t).sum())(x)
    return conversions.from_score(schedule, x, t, score).velocity


flow = rfm.Flow(plane, velocity_from_score, path.source)
points = samples[:20]
exact = log_marginal(points, torch.ones(20, dtype=torch.float64))
difference = (flow.log_prob(points) - exact).abs().max()
# --8<-- [end:likelihood]
assert difference < 0.05

# --8<-- [start:train]
noise = torch.randn(600, 2, generator=torch.Generator().manual_seed(1))
data = centres[torch.arange(600) % 3].float() + spread * noise
cosine = rfm.GaussianPath(plane, schedules.Cosine())
# A small network and few steps, to be done in seconds: leave out field= and steps= for a real fit.
field = VelocityField(plane, width=32, depth=2, features=32)
objective = rfm.FlowMatching(cosine, times.LogitNormalTimes())
fitted = rfm.fit(data, plane, objective=objective, field=field, steps=50, progress=False)
x, t = data[:5], torch.full((5,), 0.8)
predictions = conversions.from_velocity(cosine.schedule, x, t, fitted.field(x, t))
print(predictions.score, predictions.noise, predictions.endpoint)  # each (5, 2)
# --8<-- [end:train]
assert all(part.shape == (5, 2) for part in predictions)

# --8<-- [start:endpoint]
x_1 = data
x_0 = cosine.source.sample((600,), generator=torch.Generator().manual_seed(2))
denoiser = VelocityField(plane, width=32, depth=2, features=32)  # in flat space any network will do
loss = rfm.endpoint_loss(denoiser, cosine, x_0, x_1, times=times.StratifiedTimes())
# --8<-- [end:endpoint]
assert loss.isfinite()
