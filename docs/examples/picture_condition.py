import torch

import rfm
from manifolds import SO3
from rfm.conditions import Conditions, Picture
from rfm.networks import Encoded, PictureEncoder, RotationVelocity

# Untrained, and a picture of nothing.
# --8<-- [start:flow]
velocity = RotationVelocity(width=16)
field = Encoded(PictureEncoder(32, velocity.condition_dim, width=4), velocity)
rfm.Flow(SO3(), field, conditions=Conditions((Picture("picture", 32),))).save("symsol")
# --8<-- [end:flow]
picture = torch.zeros(32, 32)

# --8<-- [start:posterior]
flow = rfm.Flow.load("symsol")
given = {"picture": picture}  # (32, 32) from 0 to 1, or the name of a PNG file
poses, log_prob = flow.sample(1000, condition=given, return_log_prob=True)
# --8<-- [end:posterior]
assert poses.shape == (1000, 3, 3)
torch.testing.assert_close(flow.log_prob(poses[:9], condition=given), log_prob[:9])
