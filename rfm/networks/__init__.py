"""Velocity networks: they read points through ``manifold.embed`` and return tangent vectors.

`RotationVelocity` reads rotations another way, for densities on SO(3) that turn with what they are conditional on;
`PictureEncoder` and `Encoded` make any of them conditional on pictures.
"""

from rfm.networks.encoded import Encoded
from rfm.networks.picture_encoder import PictureEncoder
from rfm.networks.rotation_velocity import RotationVelocity
from rfm.networks.velocity import VelocityField

__all__ = ["Encoded", "PictureEncoder", "RotationVelocity", "VelocityField"]
