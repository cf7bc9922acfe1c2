"""Handwriting as it is, carried to the sphere, and as the poses of a pen that follows the curve there."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from manifolds import SE3, Euclidean, Manifold, Sphere

MILLIMETRES = 40.0
"""That are a unit of length, and on the sphere a radian."""
EVERY = 10
"""Each so-manieth moment of a drawing is kept, 100 of them."""
_REACH = 4
"""Moments to either side that the direction of a pen is taken from."""


@dataclass(frozen=True)
class Space:
    """Where drawings are carried to.

    Args:
        name: what it is called.
        manifold: where its points live.
        carried: from positions in millimetres ``(..., moments, 2)`` to points ``(..., moments, *event_shape)``.
    """

    name: str
    manifold: Manifold
    carried: Callable[[Tensor], Tensor]

    def ambient(self, points: Tensor) -> Tensor:
        """Return points as numbers ``(..., n)`` that are not constant: of a pose matrix the upper rows."""
        rows = points[..., :3, :] if points.shape[-1] == 4 else points.unsqueeze(-2)
        return rows.flatten(-2)

    def nearest(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Return the points nearest to ambient numbers, and how far in these numbers they are."""
        full = numbers
        if self.manifold.event_shape == (4, 4):
            last = torch.eye(4, dtype=numbers.dtype)[3:].expand(*numbers.shape[:-1], 1, 4)
            full = torch.cat([numbers.unflatten(-1, (3, 4)), last], dim=-2)
        x = self.manifold.projx(full)
        return x, torch.linalg.vector_norm(self.ambient(x) - numbers, dim=-1)


def on_sphere(positions: Tensor) -> Tensor:
    """Return points of the sphere: the exponential map at the north pole, where every drawing ends."""
    flat = positions / MILLIMETRES
    pole = torch.tensor([0.0, 0.0, 1.0], dtype=positions.dtype).expand(*flat.shape[:-1], 3)
    return Sphere(2).expmap(pole, torch.nn.functional.pad(flat, (0, 1)))


def pen_poses(positions: Tensor) -> Tensor:
    """Return poses on the sphere of radius 1: the first axis along the curve, the third away from the centre."""
    place = on_sphere(positions)
    n = place.shape[-2]
    index = torch.arange(n)
    ahead, behind = (index + _REACH).clamp(max=n - 1), (index - _REACH).clamp(min=0)
    along = Sphere(2).proju(place, place[..., ahead, :] - place[..., behind, :])
    first = torch.nn.functional.normalize(along, dim=-1)
    rotation = torch.stack([first, torch.linalg.cross(place, first), place], dim=-1)
    top = torch.cat([rotation, place.unsqueeze(-1)], dim=-1)
    last = torch.eye(4, dtype=place.dtype)[3:].expand(*place.shape[:-1], 1, 4)
    return torch.cat([top, last], dim=-2)


SPACES = {
    space.name: space
    for space in (
        Space("plane", Euclidean(2), lambda positions: positions / MILLIMETRES),
        Space("sphere", Sphere(2), on_sphere),
        Space("poses", SE3(), pen_poses),
    )
}
