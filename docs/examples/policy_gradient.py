import torch

from manifolds import Sphere
from rfm.control import ClippedSurrogate, LossDraws, LossRatio
from rfm.likelihood import euler_transport
from rfm.networks import VelocityField
from rfm.paths import GeodesicPath
from rfm.sources import Uniform

# --8<-- [start:step]
sphere = Sphere(2)
source, path = Uniform(sphere), GeodesicPath(sphere)
torch.manual_seed(0)
field = VelocityField(sphere, width=32, depth=1, features=32, max_frequency=4.0)
actions, _ = euler_transport(field, sphere, source.sample((64,)), steps=10)  # what the policy does
advantages = actions[:, 2]  # north is better

draws = LossDraws.draw(source, 8, actions)  # noise and times, kept for all steps on these actions
old = draws.losses(field, path, actions).detach()
optimiser = torch.optim.Adam(field.parameters(), lr=1e-3)
for _ in range(5):
    optimiser.zero_grad()
    log_ratio = LossRatio().log_ratio(old, draws.losses(field, path, actions))
    ClippedSurrogate(clip=0.05)(log_ratio, advantages).backward()
    optimiser.step()
# --8<-- [end:step]
after, _ = euler_transport(field, sphere, source.sample((64,)), steps=10)
assert after.shape == (64, 3)
