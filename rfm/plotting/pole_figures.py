"""Pole figures: where the axes of crystals point in the sample."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from manifolds import RotationGroup
from rfm.arrays import tensor_of
from rfm.plotting.figures import DENSITY_COLOURS, INK, new_figure
from rfm.plotting.panels import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

CUBIC_POLES = {"{100}": (1, 0, 0), "{110}": (1, 1, 0), "{111}": (1, 1, 1)}
BODY_AXES = {"crystal x": (1, 0, 0), "crystal y": (0, 1, 0), "crystal z": (0, 0, 1)}
"""For other symmetries: how indices of planes are counted differs between conventions, the crystal's axes do not."""
_ROWS_AT_ONCE = 256
_STEPS = 16


def plot_pole_figures(
    rows: Mapping[str, Mapping[str, Tensor]],
    symmetry: RotationGroup,
    *,
    poles: Mapping[str, Sequence[float]] = CUBIC_POLES,
    halfwidth_degrees: float = 6.0,
    cells: int = 72,
    title: str | None = None,
) -> "Figure":
    """Draw pole figures of sets of orientations side by side.

    The upper hemisphere of the sample in Lambert's equal-area projection, x to the right, y up, z at the centre, with
    the density of each family of crystal axes in multiples of that of uniform orientations. A smoothed histogram:
    axes are spread by a von Mises-Fisher kernel, in opposite directions alike. The sets of one row share a scale.

    Args:
        rows: for each row its name, and by name sets of orientations ``(n, 3, 3)``, which take crystal coordinates to
            those of the sample.
        symmetry: of the crystal.
        poles: axes in crystal coordinates by name, one panel each.
        halfwidth_degrees: standard deviation of the kernel.
        cells: across the disc.
        title: stands above everything.

    References:
        Bunge: Texture Analysis in Materials Science, 1982, chapter 2; multiples of a random distribution ("mrd").
    """
    from matplotlib.gridspec import GridSpec

    columns = max(len(sets) for sets in rows.values()) * len(poles)
    figure = new_figure(1.8 * columns + 0.8, 2.25 * len(rows) + (0.6 if title else 0.2), title)
    grid = GridSpec(len(rows), columns + 1, figure=figure, width_ratios=[1.0] * columns + [0.06])
    x, y, directions = _disc(cells)
    for i, (name, sets) in enumerate(rows.items()):
        maps = [
            (
                (f"{name}: {kind}" if name else kind) if j == 0 else "",
                family,
                pole_density(points, pole, symmetry, directions, halfwidth_degrees),
            )
            for kind, points in sets.items()
            for j, (family, pole) in enumerate(poles.items())
        ]
        # A set without points has no density.
        high = max((float(np.nanmax(values)) for _, _, values in maps if np.isfinite(values).any()), default=1.0)
        for j, (label, family, values) in enumerate(maps):
            axes = figure.add_subplot(grid[i, j])
            shown = _draw(axes, x, y, values.reshape(cells, cells), high)
            axes.text(-1.08, -1.08, family, color=INK, fontsize=10, parse_math=False)
            axes.set_title(label, loc="left", fontsize=11, color=INK, parse_math=False)
        _scale(figure, grid[i, columns], shown)
    return figure


def pole_density(
    points: Tensor,
    pole: Sequence[float],
    symmetry: RotationGroup,
    directions: Tensor,
    halfwidth_degrees: float = 6.0,
) -> Array:
    """Return the density of a family of crystal axes in directions of the sample, in multiples of the uniform one.

    Args:
        points: orientations ``(n, 3, 3)``.
        pole: an axis in crystal coordinates.
        symmetry: of the crystal; both ends of all equivalent axes count.
        directions: unit vectors ``(m, 3)``; NaN where no value is requested.
        halfwidth_degrees: standard deviation of the kernel.
    """
    axis = torch.nn.functional.normalize(torch.tensor(list(pole), dtype=torch.float64), dim=0)
    family = symmetry.matrices.double() @ axis
    # One of each pair of opposite axes will do, because the kernel takes both ends.
    rounded = torch.unique((family * 1e6).round() / 1e6 + 0, dim=0)
    half = [v for v in rounded if tuple(v.tolist()) > tuple((-v).tolist())]
    axes = (
        (tensor_of("pole_density", "points", points, torch.float64).detach().cpu() @ torch.stack(half).mT)
        .movedim(-1, 1)
        .flatten(0, 1)
    )
    k = math.radians(halfwidth_degrees) ** -2
    # The density of the kernel over the uniform one, 4 pi k exp(k (c - 1)) / (2 pi (1 - exp(-2 k))), of both ends.
    scale = k / (1 - math.exp(-2 * k))
    parts = []
    for part in directions.split(_ROWS_AT_ONCE):
        c = part @ axes.mT
        parts.append(scale * (torch.exp(k * (c - 1)) + torch.exp(k * (-c - 1))).mean(-1))
    return torch.cat(parts).numpy()


def _disc(cells: int) -> tuple[Array, Array, Tensor]:
    """Return the edges of cells of a square about the unit disc, and the directions at their centres, NaN outside."""
    edge = np.linspace(-1, 1, cells + 1)
    centre = torch.from_numpy((edge[1:] + edge[:-1]) / 2)
    v, u = torch.meshgrid(centre, centre, indexing="ij")
    square = u**2 + v**2
    # Lambert: r = sqrt(2) sin(polar angle / 2), so z = 1 - r^2 on a disc of radius 1.
    z = 1 - square
    ring = torch.sqrt(2 - square)
    directions = torch.stack([u * ring, v * ring, z], dim=-1)
    # A little beyond the rim, so that the drawn circle cuts through filled cells.
    directions[square > 1.4] = math.nan
    return edge, edge, directions.flatten(0, 1)


def _draw(axes: "Axes", x: Array, y: Array, values: Array, high: float) -> "ScalarMappable":
    from matplotlib import colormaps
    from matplotlib.patches import Circle

    rim = Circle((0, 0), 1, facecolor="none", edgecolor=INK, linewidth=1.0)
    shown = axes.imshow(
        values,
        origin="lower",
        extent=(x[0], x[-1], y[0], y[-1]),
        # In steps, which read as contour lines do.
        cmap=colormaps[DENSITY_COLOURS].resampled(_STEPS),
        vmin=0,
        vmax=high,
        interpolation="bilinear",
        interpolation_stage="data",
    )
    axes.add_patch(rim)
    shown.set_clip_path(rim)
    axes.set(xlim=(-1.12, 1.12), ylim=(-1.12, 1.12), aspect="equal")
    axes.set_axis_off()
    axes.text(1.03, 0, "x", color=INK, fontsize=9, va="center")
    axes.text(0, 1.03, "y", color=INK, fontsize=9, ha="center")
    return shown


def _scale(figure: "Figure", place: Any, shown: "ScalarMappable") -> None:
    bar = figure.colorbar(shown, cax=figure.add_subplot(place))
    bar.set_label("multiples of uniform", fontsize=10, color=INK)
    bar.ax.tick_params(labelsize=9, colors=INK)
    bar.outline.set_linewidth(0)
