"""Poses in space: a track, and frames of three axes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from rfm.plotting.figures import INK, PAPER, finish, new_figure
from rfm.plotting.layouts import Subject
from rfm.plotting.panels import Array, robust_limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Axes3D: TypeAlias = Any
"""matplotlib's panel of space, which has no published types."""

AXIS_COLOURS = ("#d55e00", "#009e73", "#0072b2")
"""Of a frame's x, y and z: vermilion, green and blue of Okabe and Ito, which colour-blind readers tell apart."""

_FLAT, _STEP = 0.25, 0.03
"""A height of this share of the lesser width is flat; points so near to the next, as a share of all, are a track."""
_FRAMES = 200
"""Frames drawn of each kind: of more, each hides others."""


def space(figure: "Figure", place: Any, title: str, positions: Tensor, unit: str = "m") -> Axes3D:
    """Add a panel of space, with one scale for all three axes, that holds these positions.

    Args:
        figure: where.
        place: a cell of a grid specification.
        title: stands above it.
        positions: ``(n, 3)``.
        unit: of the positions; empty where it is not known.
    """
    axes = figure.add_subplot(place, projection="3d")
    points = positions.detach().cpu().double().numpy()
    low, high = (points.min(0), points.max(0)) if len(points) else (-np.ones(3), np.ones(3))
    margin = 0.06 * float((high - low).max()) or 1.0
    limits = [(a - margin, b + margin) for a, b in zip(low, high, strict=True)]
    axes.set(xlim=limits[0], ylim=limits[1], zlim=limits[2])
    # A closer look than the usual one, which leaves much of the panel empty.
    axes.set_box_aspect([b - a for a, b in limits], zoom=1.1)
    x, y, z = (f"{name} ({unit})" if unit else name for name in "xyz")
    finish(axes, title, x, y)
    axes.set_zlabel(z, fontsize=11, color=INK)
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

    if not len(poses):
        return
    start = _positions(poses)
    turned = poses.detach().cpu().double().numpy()[:, :3, :3]
    for i in columns:
        lines = np.stack([start, start + length * turned[:, :, i]], axis=1)
        axes.add_collection3d(Line3DCollection(list(lines), colors=AXIS_COLOURS[i], linewidths=width, alpha=alpha))


def pose_figure(subject: Subject) -> "Figure":
    """Draw data beside samples as frames in one box, that of the data; from above where they lie in a plane."""
    from matplotlib.lines import Line2D

    inside = np.array([robust_limits(values) for values in _positions(subject.sets[0].all).T])
    spans = inside[:, 1] - inside[:, 0]
    flat = int(spans.argmin())
    from_above = spans[flat] < _FLAT * np.sort(spans)[1]
    shown = [i for i in range(3) if i != flat] if from_above else [0, 1, 2]
    columns = _level_columns(subject.sets[0].all, flat) if from_above else [0, 1, 2]
    figure = new_figure(7.0 * len(subject.sets), 5.9 if from_above else 5.6, subject.title)
    grid = figure.add_gridspec(1, len(subject.sets))
    for i, s in enumerate(subject.sets):
        drawn = s.some(min(subject.count, _FRAMES))
        where = _positions(drawn)
        # From above, heights do not matter.
        seen = np.all((where >= inside[:, 0]) & (where <= inside[:, 1]), axis=-1, where=np.isin(range(3), shown))
        excluded = f", {int(np.sum(~seen))} of them outside of the box" if not np.all(seen) else ""
        title, poses = s.title(len(drawn)) + excluded, drawn[torch.as_tensor(seen)]
        if from_above:
            axes = _plan(figure, grid[0, i], title, inside, shown)
            if i == 0:
                _draw_course(axes, s.all, shown, float(spans.max()))
            _draw_frames_from_above(axes, poses, 0.04 * float(spans.max()), shown, columns)
        else:
            axes = space(figure, grid[0, i], title, torch.from_numpy(inside.T), unit="")
            draw_frames(axes, poses, 0.07 * float(spans.max()), width=1.0)
    handles = [Line2D([], [], color=AXIS_COLOURS[i], linewidth=2, label=f"body's {'xyz'[i]}") for i in columns]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, labelcolor=INK)
    return figure


def _level_columns(poses: Tensor, flat: int) -> list[int]:
    """Return the body's axes but for that which stands upright, on average."""
    upright = poses.detach().cpu().double().numpy()[:, flat, :3]
    # Without poses, the axis of that name.
    vertical = int(np.abs(upright).mean(0).argmax()) if len(upright) else flat
    return [i for i in range(3) if i != vertical]


def _plan(figure: "Figure", place: Any, title: str, inside: Array, shown: Sequence[int]) -> "Axes":
    axes = figure.add_subplot(place, facecolor=PAPER)
    i, j = shown
    finish(axes, f"{title}, from above", "xyz"[i], "xyz"[j])
    axes.set(xlim=inside[i], ylim=inside[j])
    axes.set_aspect("equal", adjustable="box")
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def _draw_course(axes: "Axes", poses: Tensor, shown: Sequence[int], extent: float) -> None:
    """Draw the positions as a line in their order, if they are those of a track: each near to the next."""
    where = _positions(poses)
    if len(where) > 2 and float(np.median(np.linalg.norm(np.diff(where, axis=0), axis=1))) < _STEP * extent:
        axes.plot(where[:, shown[0]], where[:, shown[1]], color="#999999", linewidth=0.8, zorder=1)


def _draw_frames_from_above(
    axes: "Axes", poses: Tensor, length: float, shown: Sequence[int], columns: Sequence[int]
) -> None:
    from matplotlib.collections import LineCollection

    start, turned = _positions(poses), poses.detach().cpu().double().numpy()[:, :3, :3]
    for column in columns:
        lines = np.stack([start, start + length * turned[:, :, column]], axis=1)[..., list(shown)]
        axes.add_collection(LineCollection(list(lines), colors=AXIS_COLOURS[column], linewidths=1.1), autolim=False)


def _positions(poses: Tensor) -> Array:
    values: Array = poses.detach().cpu().double().numpy()[:, :3, 3]
    return values
