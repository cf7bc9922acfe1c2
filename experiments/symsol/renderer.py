"""Grey pictures of convex bodies, by cutting rays with planes and quadrics.

A pinhole camera looks along the third axis from a distance of `DISTANCE`; a body at pose R has its point y at R y. What
a ray meets first is shaded by a distant lamp in the upper left, on the camera's side. Nothing but the surface is seen,
so poses that the body's symmetry takes into each other have the same picture.
"""

import functools

import torch
from torch import Tensor

from experiments.symsol.bodies import Body

SIZE = 32
"""Pixels along an edge. SYMSOL has 224; edges drawn with grey levels locate a body to tenths of a pixel, which at a
radius of 13 pixels is half a degree, and the work of renderer and encoder goes with the area."""
SAMPLES = 2
"""Rays along an edge of a pixel."""
DISTANCE = 4.0
_FIELD_OF_VIEW = 1.1
"""Half the width of what is seen at the body's centre, in radii of the body."""
_LAMP = (-0.5, 0.6, -0.62)
"""Towards the lamp: not along the view, where a tilt to either side would look alike."""
_FAR = 1e4


def render(body: Body, poses: Tensor, size: int = SIZE) -> Tensor:
    """Return pictures of a body, ``(n, size, size)``, from 0, the background, to 1; the first row is the top.

    Args:
        body: what is seen.
        poses: rotation matrices ``(n, 3, 3)``; the pictures have their dtype and device.
        size: pixels along an edge.
    """
    ray = _rays(size, poses)
    eye = _constant((0.0, 0.0, -DISTANCE), poses.dtype, poses.device)
    enter, leave, normal = _cut_planes(body, poses, ray, eye)
    if body.quadric is not None:
        near, far, side = _cut_quadric(body.quadric, poses, ray, eye)
        # The quadric is seen where the ray comes through it last.
        normal = torch.where((near > enter).unsqueeze(-1), side, normal)
        enter, leave = torch.maximum(enter, near), torch.minimum(leave, far)
    lamp = torch.nn.functional.normalize(_constant(_LAMP, poses.dtype, poses.device), dim=-1)
    # Half of Lambert's cosine and a half: faces turned away from the lamp differ in brightness too.
    brightness = 0.1 + 0.45 * (1 + normal @ lamp)
    picture = torch.where(enter < leave, brightness, 0.0).reshape(-1, 1, size * SAMPLES, size * SAMPLES)
    return torch.nn.functional.avg_pool2d(picture, SAMPLES)[:, 0]


# Made once for each device: what is copied to a GPU waits for it.


@functools.cache
def _constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)


@functools.cache
def _planes(body: Body, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    return body.normals.to(device, dtype), body.offsets.to(device, dtype)


def _rays(size: int, like: Tensor) -> Tensor:
    """Return directions of rays ``(rays, 3)``, the top row first; ahead they have length 1."""
    count = size * SAMPLES
    across = ((torch.arange(count, dtype=like.dtype, device=like.device) + 0.5) / count * 2 - 1) * (
        _FIELD_OF_VIEW / DISTANCE
    )
    y, x = torch.meshgrid(-across, across, indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)], dim=-1).flatten(0, 1)


def _cut_planes(body: Body, poses: Tensor, ray: Tensor, eye: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return where rays enter and leave all half-spaces, ``(n, rays)``, and the normal where they enter."""
    planes, offsets = _planes(body, poses.dtype, poses.device)
    normals = planes @ poses.mT  # (n, planes, 3), seen from the camera
    speed = ray @ normals.mT  # (n, rays, planes)
    room = offsets - normals @ eye
    cut = room.unsqueeze(1) / torch.where(speed == 0, 1e-9, speed)
    enter, face = torch.where(speed < 0, cut, -_FAR).max(dim=-1)
    leave = torch.where(speed > 0, cut, _FAR).min(dim=-1).values
    return enter, leave, torch.gather(normals, 1, face.unsqueeze(-1).expand(-1, -1, 3))


def _cut_quadric(
    quadric: tuple[float, float, float], poses: Tensor, ray: Tensor, eye: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return where rays enter and leave a cylinder or a cone, ``(n, rays)``, and its normal where they enter."""
    curvature, slope, apex = quadric
    d = ray @ poses  # (n, rays, 3), seen from the body
    o = (eye @ poses).unsqueeze(1) - _constant((0.0, 0.0, apex), poses.dtype, poses.device)
    weight = _constant((1.0, 1.0, -(slope**2)), poses.dtype, poses.device)
    a, b, c = (weight * d * d).sum(-1), (weight * d * o).sum(-1), (weight * o * o).sum(-1) - curvature
    root = torch.sqrt((b * b - a * c).clamp(min=0))
    # Along the axis of a cylinder a is 0, and the ray is inside or outside for good.
    a = torch.where(a.abs() < 1e-9, 1e-9, a)
    first, second = (-b - root) / a, (-b + root) / a
    first, second = torch.minimum(first, second), torch.maximum(first, second)
    if slope > 0:
        # A cone has a second nappe above its apex, which is no part of the body; a steep ray meets each nappe once.
        height, climb = o[..., 2], d[..., 2]
        below = [height + s * climb <= 0 for s in (first, second)]
        steep, down = a < 0, climb < 0
        enter = torch.where(steep, torch.where(down, second, -_FAR), first)
        leave = torch.where(steep, torch.where(down, _FAR, first), second)
        met = torch.where(steep, torch.where(down, below[1], below[0]), below[0] & below[1])
    else:
        enter, leave, met = first, second, torch.ones_like(first, dtype=torch.bool)
    met = met & (b * b - a * c > 0)
    enter, leave = torch.where(met, enter, _FAR), torch.where(met, leave, -_FAR)
    gradient = weight * (o + torch.where(met, enter, 0.0).unsqueeze(-1) * d)
    return enter, leave, torch.nn.functional.normalize(gradient, dim=-1) @ poses.mT
