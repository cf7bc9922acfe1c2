"""Velocity networks: they read points through ``manifold.embed`` and return tangent vectors."""

from rfm.networks.velocity import VelocityField

__all__ = ["VelocityField"]
