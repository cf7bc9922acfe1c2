"""Conditional probability paths: how a pair of end points becomes a training target."""

from typing import NamedTuple

from torch import Tensor

from manifolds import Manifold


class PathSample(NamedTuple):
    """Points on conditional paths, all of batch shape ``(*batch)``."""

    x_0: Tensor
    """Start, a draw from the source ``(*batch, *event_shape)``."""
    x_1: Tensor
    """End, a data point."""
    t: Tensor
    """Time in [0, 1], ``(*batch)``."""
    x_t: Tensor
    """Position at time ``t``."""
    dx_t: Tensor
    """Velocity at time ``t``, tangent at ``x_t``: what a velocity network regresses on."""


class GeodesicPath:
    """The path that follows the shortest geodesic from ``x_0`` to ``x_1`` at constant speed.

    Chen & Lipman, Flow Matching on General Geometries, 2023, arXiv:2302.03660, equation 13 with kappa(t) = 1 - t.

    Args:
        manifold: where the points live.
    """

    def __init__(self, manifold: Manifold) -> None:
        self.manifold = manifold

    def sample(self, x_0: Tensor, x_1: Tensor, t: Tensor) -> PathSample:
        """Return position and velocity at time ``t``.

        Args:
            x_0: start points ``(*batch, *event_shape)``.
            x_1: end points, the same shape.
            t: times ``(*batch)``; they broadcast against the points.
        """
        x_t, dx_t = self.manifold.geodesic(x_0, x_1, t)
        # A field is always called with one time per point.
        return PathSample(x_0, x_1, t.expand(self.manifold.batch_shape(x_t)), x_t, dx_t)
