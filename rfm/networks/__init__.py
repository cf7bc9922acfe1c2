"""Velocity networks, which take points of a manifold to tangent vectors.

`VelocityField` serves any manifold. `ConvolutionalField` is for points that are pictures, `RotationVelocity` for
densities on SO(3) that turn with what they are conditional on, `FrameField` for rigid bodies in a row, such as
proteins; `PictureEncoder` and `Encoded` make a field conditional on pictures. `PredictedVelocity` is the velocity of a
network that predicts score, noise or end point. `AverageVelocity` is a `VelocityField` with a second time, for flow
maps, and `EncodedMap` is `Encoded` for those.
"""

from rfm.networks.average_velocity import AverageVelocity
from rfm.networks.convolutional import ConvolutionalField
from rfm.networks.encoded import Encoded, EncodedMap
from rfm.networks.frame_map import FrameMap
from rfm.networks.frames import FrameField
from rfm.networks.picture_encoder import PictureEncoder
from rfm.networks.predicted import PredictedVelocity, Prediction
from rfm.networks.rotation_velocity import RotationVelocity
from rfm.networks.velocity import VelocityField

__all__ = [
    "AverageVelocity",
    "ConvolutionalField",
    "Encoded",
    "EncodedMap",
    "FrameField",
    "FrameMap",
    "PictureEncoder",
    "PredictedVelocity",
    "Prediction",
    "RotationVelocity",
    "VelocityField",
]
