"""Balls: all points within a distance of a centre, on any manifold."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manifolds import Manifold
from manifolds.arguments import check_instance, positive
from manifolds.checks import check_shape
from rfm.arrays import tensor_of
from rfm.regions.region import Array, Charts, Region

_MOST_DIMENSIONS = 3


class Ball(Region):
    """The points within a distance of a centre.

    Args:
        manifold: where it lies.
        centre: a point, ``event_shape``.
        radius: in the unit of the metric: radians on spheres, tori and rotations. On the earth, kilometres over
            `rfm.datasets.EARTH_RADIUS_KM`.

    Raises:
        ValueError: the centre is no point, or the radius not positive.
    """

    def __init__(self, manifold: Manifold, centre: Tensor, radius: float) -> None:
        check_instance("Ball", "manifold", manifold, Manifold, "Sphere(2)")
        super().__init__(manifold)
        own = tensor_of("Ball", "centre", centre, torch.float64).detach().cpu()
        check_shape(manifold, "the centre of a Ball", own)
        if own.shape != manifold.event_shape:
            raise ValueError(
                f"Ball: centre must be one point of shape {tuple(manifold.event_shape)}, got {tuple(own.shape)}"
            )
        manifold.check_point(own, tol=1e-3)
        self.centre, self.radius = manifold.projx(own), positive("Ball", "radius", radius)

    def contains(self, x: Tensor) -> Tensor:
        own = x.detach().double()
        return self.manifold.dist(self.centre.to(own.device).expand(own.shape), own) <= self.radius

    def describe(self) -> str:
        return f"ball of radius {self.radius:g} about {[round(v, 6) for v in self.centre.flatten().tolist()]}"

    @property
    def charts(self) -> Charts | None:
        """By the exponential map at the centre, while it is one-to-one and dimensions are few."""
        reach = self.manifold.injectivity_radius
        dim = self.manifold.dim
        if dim > _MOST_DIMENSIONS or reach is None or self.radius > reach:
            return None
        basis = self.manifold.tangent_basis(self.centre)

        def place(piece: NDArray[np.int64], u: Array) -> tuple[Tensor, Array]:
            v, element = _in_ball(torch.from_numpy(u), self.radius)
            tangent = torch.tensordot(v, basis, dims=1)
            centre = self.centre.expand(tangent.shape)
            stretch = self.manifold.log_det_expmap(centre, tangent).exp()
            return self.manifold.expmap(centre, tangent), (element * stretch).numpy()

        return Charts(1, dim, place, self.manifold.points_per_class)


def _in_ball(u: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """Return points of a ball of R^n, n at most 3, in polar coordinates of the unit cube, and the volume element."""
    n = u.shape[-1]
    if n == 1:
        return radius * (2 * u - 1), torch.full((len(u),), 2 * radius, dtype=u.dtype)
    r, angle = radius * u[:, 0], 2 * math.pi * u[:, 1]
    circle = torch.stack([angle.cos(), angle.sin()], dim=-1)
    if n == 2:
        return r[:, None] * circle, 2 * math.pi * radius * r
    height = 2 * u[:, 2] - 1
    parallel = ((1 - height) * (1 + height)).sqrt()
    direction = torch.cat([parallel[:, None] * circle, height[:, None]], dim=-1)
    return r[:, None] * direction, 4 * math.pi * radius * r.square()
