"""Velocity networks: `VelocityField` for any manifold, `FrameField` for rigid bodies in a row, such as proteins."""

from rfm.networks.frames import FrameField
from rfm.networks.velocity import VelocityField

__all__ = ["FrameField", "VelocityField"]
