"""Inverse pole figures: which direction of the crystal points along an axis of the sample."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from manifolds import RotationGroup
from rfm.plotting.crystal_sectors import Sector, crystal_directions, sector_of
from rfm.plotting.figures import DENSITY_COLOURS, INK, new_figure
from rfm.plotting.panels import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

Mask: TypeAlias = NDArray[np.bool_]
SAMPLE_AXES = {"sample x": (1, 0, 0), "sample y": (0, 1, 0), "sample z": (0, 0, 1)}
_ROWS_AT_ONCE = 512
_REACH = 4.0
"""Standard deviations of the kernel beyond which a direction does not count."""


def plot_inverse_pole_figures(
    sets: Mapping[str, Tensor],
    symmetry: RotationGroup,
    *,
    directions: Mapping[str, Sequence[float]] = SAMPLE_AXES,
    halfwidth_degrees: float = 4.0,
    cells: int = 90,
    title: str | None = None,
) -> "Figure":
    """Draw inverse pole figures of sets of orientations below each other, and the key of the colours of directions.

    The fundamental sector of the crystal's Laue group in Lambert's equal-area projection, with the density of the
    crystal directions along axes of the sample in multiples of that of uniform orientations: a smoothed histogram.

    Args:
        sets: by name, orientations ``(n, 3, 3)``, which take crystal coordinates to those of the sample.
        symmetry: the rotations of one of the eleven Laue groups.
        directions: axes of the sample by name, a panel each.
        halfwidth_degrees: standard deviation of the kernel.
        cells: across the sector.
        title: stands above everything.

    References:
        Bunge: Texture Analysis in Materials Science, 1982, chapter 2; multiples of a random distribution ("mrd").
    """
    sector = sector_of(symmetry)
    edge_x, edge_y, grid, inside = _grid(sector, cells)
    columns = len(directions)
    aspect = (edge_y[-1] - edge_y[0]) / (edge_x[-1] - edge_x[0])
    height = float(np.clip(2.6 * aspect, 1.4, 3.2)) + 0.5
    figure = new_figure(2.9 * (columns + 1) + 0.8, height * len(sets) + (1.0 if title else 0.6), title)
    places = figure.add_gridspec(len(sets), columns + 2, width_ratios=[1.0] * columns + [0.05, 1.0])
    densities = [
        (name if j == 0 else "", label, _density(sector, crystal_directions(x, axis), grid, inside, halfwidth_degrees))
        for name, x in sets.items()
        for j, (label, axis) in enumerate(directions.items())
    ]
    high = max([float(np.nanmax(d)) for _, _, d in densities if np.isfinite(d).any()], default=1.0)
    extent = (edge_x[0], edge_x[-1], edge_y[0], edge_y[-1])
    for k, (name, label, values) in enumerate(densities):
        axes = figure.add_subplot(places[k // columns, k % columns])
        style: dict[str, Any] = {"origin": "lower", "extent": extent, "cmap": DENSITY_COLOURS}
        shown = axes.imshow(values.reshape(len(edge_y), len(edge_x)), vmin=0, vmax=high, **style)
        _dress(axes, sector, shown)
        axes.set_title(f"{name}\n{label}", loc="left", fontsize=11, color=INK, parse_math=False)
    bar = figure.colorbar(shown, cax=figure.add_subplot(places[:, columns]))
    bar.set_label("multiples of uniform", fontsize=10, color=INK)
    bar.ax.tick_params(labelsize=9, colors=INK)
    bar.outline.set_linewidth(0)
    draw_colour_key(figure.add_subplot(places[:, columns + 1]), sector)
    return figure


def draw_colour_key(axes: "Axes", sector: Sector) -> None:
    """Draw the colours of the directions of a sector."""
    edge_x, edge_y, grid, inside = _grid(sector, 240)
    pixels = np.ones((len(grid), 4))
    pixels[~inside, 3] = 0
    pixels[inside, :3] = sector.colours(grid[inside])
    extent = (edge_x[0], edge_x[-1], edge_y[0], edge_y[-1])
    shown = axes.imshow(pixels.reshape(len(edge_y), len(edge_x), 4), origin="lower", extent=extent)
    _dress(axes, sector, shown)
    axes.set_title(f"colours of directions, {sector.laue}", loc="left", fontsize=11, color=INK, parse_math=False)


def _dress(axes: "Axes", sector: Sector, shown: "ScalarMappable") -> None:
    """Clip to the sector, draw its edge and label its corners."""
    from matplotlib.patches import Polygon

    edge = outline(sector)
    patch = Polygon(edge, closed=True, facecolor="none", edgecolor=INK, linewidth=1.0)
    axes.add_patch(patch)
    shown.set_clip_path(patch)  # type: ignore[attr-defined]
    middle = edge.mean(0)
    for (x, y), label in zip(projected(sector.corners), sector.labels, strict=True):
        away = np.array([x, y]) - middle
        dx, dy = 0.045 * away / max(float(np.linalg.norm(away)), 1e-9) * np.ptp(edge, axis=0).max()
        place: dict[str, Any] = {"ha": "left" if dx > 0 else "right", "va": "bottom" if dy > 0 else "top"}
        axes.text(x + dx, y + dy, label, color=INK, fontsize=9, **place)
    margin = 0.13 * np.ptp(edge, axis=0).max()
    (left, bottom), (right, top) = edge.min(0) - margin, edge.max(0) + margin
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    axes.set_axis_off()


def projected(directions: Array) -> Array:
    """Return directions ``(n, 3)`` of the upper half sphere in Lambert's equal-area projection, the rim at radius 1."""
    x, y, z = directions.T
    return np.stack([x, y], axis=1) / np.sqrt(1 + z)[:, None]


def outline(sector: Sector, steps: int = 60) -> Array:
    """Return the edge of a sector in the projection, ``(n, 2)``: great circles between its corners."""
    corners = sector.corners
    if len(corners) < 3:
        # The half sphere, and its half: the rim, and the diameter between its ends.
        turn = np.linspace(0, math.pi if len(corners) else 2 * math.pi, 4 * steps)
        return np.stack([np.cos(turn), np.sin(turn)], axis=1)
    arcs = []
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        angle = math.atan2(float(np.linalg.norm(np.cross(a, b))), float(a @ b))
        t = np.linspace(0, 1, steps, endpoint=False)[:, None]
        arcs.append((np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / math.sin(angle))
    return projected(np.concatenate(arcs))


def _grid(sector: Sector, cells: int) -> tuple[Array, Array, Array, Mask]:
    """Return pixel centres along both axes about the sector, their directions, and which of them are needed."""
    edge = outline(sector)
    (left, bottom), (right, top) = edge.min(0), edge.max(0)
    step = max(right - left, top - bottom) / cells
    x, y = np.arange(left - step, right + 1.5 * step, step), np.arange(bottom - step, top + 1.5 * step, step)
    u, v = (part.ravel() for part in np.meshgrid(x, y))
    square = u**2 + v**2
    # Lambert: r = sqrt(1 - z); a little beyond the rim, so that the drawn edge cuts through filled cells.
    ring = np.sqrt(np.clip(2 - square, 0, None))
    directions = np.stack([u * ring, v * ring, 1 - square], axis=1)
    inside = (square < 1.2) & ((directions @ sector.normals.T).min(-1) > -3 * step)
    return x, y, directions, inside


def _density(sector: Sector, directions: Array, grid: Array, inside: Mask, halfwidth_degrees: float) -> Array:
    """Return the density of crystal directions at those of a grid over the uniform one; NaN where it is not needed."""
    values = np.full(len(grid), math.nan)
    if not len(directions):
        return values
    own = np.einsum("gij,nj->ngi", sector.rotations, directions).reshape(-1, 3) @ sector.frame
    equivalents = np.concatenate([own, -own])
    width = math.radians(halfwidth_degrees)
    near = equivalents[(equivalents @ sector.normals.T).min(-1) > -math.sin(min(_REACH * width, 1.5)) - 0.05]
    k = width**-2
    # The density of the kernel over the uniform one, 4 pi k exp(k (c - 1)) / (2 pi (1 - exp(-2 k))).
    scale = 2 * k / (1 - math.exp(-2 * k)) / len(equivalents)
    wanted = np.flatnonzero(inside)
    for part in np.array_split(wanted, max(1, len(wanted) // _ROWS_AT_ONCE)):
        values[part] = scale * np.exp(k * (grid[part] @ near.T - 1)).sum(-1)
    return values
