"""Borders of bounded sets, as lines on maps and in planes."""

import math
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from manifolds import (
    Ball,
    Bounded,
    Box,
    Cap,
    Constraint,
    JointLimits,
    Manifold,
    PlanarPolygon,
    Polytope,
    Sphere,
    SphericalPolygon,
)
from rfm.plotting.panels import Array
from rfm.plotting.views import View, places

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOUR = "#d1495b"
_POINTS = 181
_BETWEEN = 0.01
"""Radians between points of an arc."""


def border_lines(manifold: Manifold) -> list[Array]:
    """Return the border of a bounded set of dimension two as closed lines of points ``(n, c)``; none of others."""
    if not isinstance(manifold, Bounded) or manifold.dim != 2:
        return []
    return [line.cpu().double().numpy() for line in _lines(manifold.constraint)]


def draw_border_on_map(axes: "Axes", manifold: Manifold, view: View) -> None:
    """Add the border of a set of the sphere to a map."""
    from matplotlib.collections import LineCollection

    parts = []
    for line in border_lines(manifold):
        longitude, latitude = places(line)
        parts += view.split(np.degrees(np.stack([longitude, latitude], axis=1)))
    if parts:
        axes.add_collection(LineCollection(parts, **_style()), autolim=False)


def draw_border_in_plane(axes: "Axes", manifold: Manifold, unit: float) -> None:
    """Add the border of a set of the plane, or of a torus, to a panel whose unit is so many units of the points."""
    from matplotlib.collections import LineCollection

    lines = [line / unit for line in border_lines(manifold)]
    if lines:
        axes.add_collection(LineCollection(lines, **_style()), autolim=False)


def _style() -> dict[str, Any]:
    return {"colors": _COLOUR, "linewidths": 1.2, "zorder": 2.6}


@singledispatch
def _lines(constraint: Constraint) -> list[Tensor]:
    return []


@_lines.register
def _(constraint: SphericalPolygon) -> list[Tensor]:
    sphere, lines = Sphere(2), []
    for ring in constraint.rings:
        corners = torch.tensor(ring, dtype=torch.float64)
        parts = []
        for a, b in zip(corners, corners.roll(-1, 0), strict=True):
            t = torch.linspace(0, 1, max(2, math.ceil(float(sphere.dist(a, b)) / _BETWEEN)), dtype=torch.float64)
            parts.append(sphere.geodesic(a, b, t)[0])
        lines.append(torch.cat(parts))
    return lines


@_lines.register
def _(constraint: PlanarPolygon) -> list[Tensor]:
    rings = [torch.tensor(ring, dtype=torch.float64) for ring in constraint.rings]
    return [torch.cat([ring, ring[:1]]) for ring in rings]


@_lines.register
def _(constraint: Polytope) -> list[Tensor]:
    away = constraint.corners - constraint.corners.mean(0)
    ring = constraint.corners[torch.atan2(away[:, 1], away[:, 0]).argsort()]
    return [torch.cat([ring, ring[:1]])]


@_lines.register
def _(constraint: Box) -> list[Tensor]:
    # What is open ends far beyond the panel.
    low, high = (ends.clamp(-1e9, 1e9) for ends in (constraint.lower, constraint.upper))
    return [_rectangle(low, high)]


@_lines.register
def _(constraint: JointLimits) -> list[Tensor]:
    turn = 2 * math.pi
    limited = constraint.limited.bool()
    low, high = constraint.lower, constraint.lower + constraint.width
    low, high = torch.where(limited, low, -2 * turn), torch.where(limited, high, 2 * turn)
    shifts = torch.cartesian_prod(*[torch.tensor([-turn, 0.0, turn], dtype=torch.float64)] * 2)
    return [_rectangle(low + shift, high + shift) for shift in shifts]


@_lines.register
def _(constraint: Ball) -> list[Tensor]:
    phase = torch.linspace(0, 2 * math.pi, _POINTS, dtype=torch.float64)
    return [constraint.centre + constraint.radius * torch.stack([torch.cos(phase), torch.sin(phase)], -1)]


@_lines.register
def _(constraint: Cap) -> list[Tensor]:
    phase = torch.linspace(0, 2 * math.pi, _POINTS, dtype=torch.float64)[:, None]
    first, second = Sphere(2).tangent_basis(constraint.centre)
    around = torch.cos(phase) * first + torch.sin(phase) * second
    return [math.cos(constraint.radius) * constraint.centre + math.sin(constraint.radius) * around]


def _rectangle(low: Tensor, high: Tensor) -> Tensor:
    (a, b), (c, d) = low.tolist(), high.tolist()
    return torch.tensor([[a, b], [c, b], [c, d], [a, d], [a, b]], dtype=torch.float64)
