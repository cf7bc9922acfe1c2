import torch

import rfm
from manifolds import SO3
from rfm.networks import Encoded, PictureEncoder, RotationVelocity

# An untrained flow of the same kind, and a picture of nothing.
velocity = RotationVelocity(width=16)
rfm.Flow(SO3(), Encoded(PictureEncoder(32, velocity.condition_dim, width=4), velocity)).save("symsol")
picture = torch.zeros(32, 32)

# --8<-- [start:posterior]
flow = rfm.Flow.load("symsol")
posterior = rfm.Flow(flow.manifold, flow.field.velocity, flow.source)
context = flow.field.encoder(picture)  # (224,), of a picture (32, 32) from 0 to 1
poses, log_prob = posterior.sample(1000, condition=context, return_log_prob=True)
# --8<-- [end:posterior]
assert poses.shape == (1000, 3, 3)
posterior.save("posterior")
torch.testing.assert_close(rfm.Flow.load("posterior").log_prob(poses[:9], condition=context), log_prob[:9])
