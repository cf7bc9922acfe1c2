"""Poses in space: a track, and frames of three axes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from torch import Tensor

from rfm.plotting.figures import INK, finish
from rfm.plotting.panels import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Axes3D: TypeAlias = Any
"""matplotlib's panel of space, which has no published types."""

AXIS_COLOURS = ("#d55e00", "#009e73", "#0072b2")
"""Of a frame's x, y and z: vermilion, green and blue of Okabe and Ito, which colour-blind readers tell apart."""


def space(figure: "Figure", place: Any, title: str, positions: Tensor, unit: str = "m") -> Axes3D:
    """Add a panel of space, with one scale for all three axes, that holds these positions.

    Args:
        figure: where.
        place: a cell of a grid specification.
        title: stands above it.
        positions: ``(n, 3)``.
        unit: of the positions.
    """
    axes = figure.add_subplot(place, projection="3d")
    points = positions.detach().cpu().double().numpy()
    low, high = points.min(0), points.max(0)
    margin = 0.06 * float((high - low).max())
    limits = [(a - margin, b + margin) for a, b in zip(low, high, strict=True)]
    axes.set(xlim=limits[0], ylim=limits[1], zlim=limits[2])
    # A closer look than the usual one, which leaves much of the panel empty.
    axes.set_box_aspect([b - a for a, b in limits], zoom=1.1)
    finish(axes, title, f"x ({unit})", f"y ({unit})")
    axes.set_zlabel(f"z ({unit})", fontsize=11, color=INK)
    axes.tick_params(labelsize=8, pad=0)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_pane_color((1.0, 1.0, 1.0, 0.0))
    return axes


def draw_track(axes: Axes3D, poses: Tensor, colour: str = "#999999", width: float = 1.0, label: str = "") -> None:
    """Draw the positions of poses ``(n, 4, 4)`` as a line, in their order."""
    x, y, z = _positions(poses).T
    axes.plot(x, y, z, color=colour, linewidth=width, label=label or None)


def draw_frames(
    axes: Axes3D,
    poses: Tensor,
    length: float,
    *,
    width: float = 1.2,
    alpha: float = 0.9,
    columns: Sequence[int] = (0, 1, 2),
) -> None:
    """Draw poses ``(n, 4, 4)`` as three lines each, along the x, y and z axes of the body, in `AXIS_COLOURS`.

    Args:
        axes: a panel of space.
        poses: body to world.
        length: of a line, in the unit of the positions.
        width: of a line, in points.
        alpha: opacity.
        columns: which of the axes to draw.
    """
    from mpl_toolkits.mplot3d.art3d import Line3DCollection  # type: ignore[import-untyped]

    start = _positions(poses)
    turned = poses.detach().cpu().double().numpy()[:, :3, :3]
    for i in columns:
        lines = np.stack([start, start + length * turned[:, :, i]], axis=1)
        axes.add_collection3d(Line3DCollection(list(lines), colors=AXIS_COLOURS[i], linewidths=width, alpha=alpha))


def _positions(poses: Tensor) -> Array:
    values: Array = poses.detach().cpu().double().numpy()[:, :3, 3]
    return values
