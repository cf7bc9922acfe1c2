"""A source with a log-density on any manifold of the zoo."""

import torch
from random_fields import points

from manifolds import SE3, SO3, CentredPoses, Manifold, Power
from rfm.sources import (
    CentredPoseSource,
    PowerSource,
    RigidMotionSource,
    Source,
    Uniform,
    WrappedNormal,
    default_source,
)


def source_of(m: Manifold, width: float = 0.6) -> Source:
    """Return a source: uniform where the volume is finite, else about as wide as ``width``."""
    if m.volume is not None:
        return Uniform(m)
    if isinstance(m, SE3):
        return RigidMotionSource(m, Uniform(SO3()), width * m.length)
    if isinstance(m, CentredPoses):
        return CentredPoseSource(m, translation_scale=width * m.length)
    if isinstance(m, Power):
        return PowerSource(m, source_of(m.m, width))
    if m.injectivity_radius == torch.inf:
        return WrappedNormal(m, points(m, seed=3), width)
    return default_source(m, points(m, 50, seed=3))
