"""Maps of the sphere, in Mollweide's equal-area projection: equal densities of points look equally dense everywhere."""

import math
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rfm.flow import Flow
from rfm.integrators import Method
from rfm.plotting.figures import DENSITY_COLOURS, INK, PAPER, finish
from rfm.plotting.panels import Array, colour_bar, colour_limits, point_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.projections.geo import GeoAxes

_PARALLELS = range(-60, 61, 30)


@cache
def coastlines() -> list[Array]:
    """Return the world's coastlines, each ``(n, 2)``: longitude and latitude in degrees.

    Drawn from Natural Earth's land polygons at 1:110 million (naturalearthdata.com, public domain), cut along the
    meridian of 180 degrees: no line crosses it, and the polygons' edges along it, which are no coasts, are left out.
    The file holds 180ths of a degree, which is 600 metres.
    """
    packaged = files("rfm.plotting").joinpath("coastlines.npz")
    with packaged.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        degrees, offsets = arrays["longitude_latitude"] / 180.0, arrays["offsets"]
    return np.split(degrees, offsets[1:-1])


def world_map(figure: "Figure", place: Any, title: str, *, earth: bool, dark: bool = False) -> "Axes":
    """Add an empty map to a figure.

    Args:
        figure: where.
        place: a cell of a grid specification.
        title: stands above it.
        earth: draw coastlines.
        dark: lines are to be seen on dark colours.
    """
    from matplotlib.collections import LineCollection

    axes = cast("GeoAxes", figure.add_subplot(place, projection="mollweide", facecolor=PAPER))
    finish(axes, title)
    axes.set_xticks(np.radians(np.arange(-120, 121, 60)))
    axes.set_yticks(np.radians(_PARALLELS), [_latitude(degrees) for degrees in _PARALLELS])
    axes.set_longitude_grid_ends(90)
    # On the earth the coasts say where one is; longitudes would have to stand in the middle of the map.
    axes.set_xticklabels(
        [] if earth else [f"{degrees}°".replace("-", "\N{MINUS SIGN}") for degrees in range(-120, 121, 60)]
    )
    axes.tick_params(axis="x", colors="white" if dark else INK, labelsize=9)
    axes.tick_params(axis="y", labelsize=9)
    axes.grid(color="white" if dark else "#bbbbbb", linewidth=0.4, alpha=0.25 if dark else 0.7)
    if earth:
        lines = [np.radians(line) for line in coastlines()]
        colour, width = ("white", 0.7) if dark else ("#8a8a8a", 0.6)
        axes.add_collection(LineCollection(lines, colors=colour, linewidths=width, alpha=0.85, zorder=2), autolim=False)
    return axes


def draw_density(
    figure: "Figure",
    place: Any,
    flow: Flow,
    evaluations: int,
    solver: Method,
    *,
    earth: bool,
    condition: Tensor | Mapping[str, Any] | None = None,
) -> "Axes":
    """Add a map of a flow's log-density, in nats per steradian, with a colour bar."""
    axes = world_map(figure, place, "density of the flow", earth=earth, dark=True)
    longitude, latitude, log_density = log_density_grid(flow, evaluations, solver, condition)
    low, high = colour_limits(log_density, np.log(np.cos(latitude).clip(min=1e-9))[:, None])
    shown = axes.pcolormesh(
        longitude, latitude, log_density, shading="gouraud", cmap=DENSITY_COLOURS, vmin=low, vmax=high, zorder=0
    )
    # pcolormesh turns the grid off.
    axes.grid(color="white", linewidth=0.4, alpha=0.25)
    label = "log-density (nats per steradian)"
    colour_bar(figure, shown, label, ax=axes, extend="both", shrink=0.85, pad=0.02, aspect=25)
    return axes


def draw_points(axes: "Axes", points: NDArray[Any], colour: str, count: int) -> None:
    """Draw points ``(n, 3)`` on a map, in the style of ``count`` dots."""
    longitude = np.arctan2(points[:, 1], points[:, 0])
    latitude = np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1]))
    axes.scatter(longitude, latitude, color=colour, zorder=3, **point_style(count))


def log_density_grid(
    flow: Flow, evaluations: int, solver: Method, condition: Tensor | Mapping[str, Any] | None = None
) -> tuple[Array, Array, Array]:
    """Return longitudes and latitudes in radians, and the log-density of a flow on ``Sphere(2)`` where they cross.

    The log-density is evaluated at the centres of cells of equal size, fewer along a parallel near the poles, and
    interpolated along the parallels. Longitudes go from -pi to pi, both included; latitudes from pole to pole.

    Args:
        flow: a flow on ``Sphere(2)``.
        evaluations: about how many evaluations of the log-density to spend.
        solver: how to integrate.
        condition: one condition.
    """
    rows = max(6, int(math.sqrt(evaluations * math.pi / 4)))
    latitude = (np.arange(rows) + 0.5) * math.pi / rows - math.pi / 2
    counts = np.maximum(4, 2 * rows * np.cos(latitude)).astype(int)
    parallels = [(np.arange(n) + 0.5) * 2 * math.pi / n - math.pi for n in counts]
    points = np.concatenate([_unit_vectors(along, north) for along, north in zip(parallels, latitude, strict=True)])
    log_density = flow.log_prob(torch.from_numpy(points).float(), solver=solver, condition=condition)

    longitude = np.linspace(-math.pi, math.pi, 2 * rows + 1)
    values = np.split(log_density.double().cpu().numpy(), np.cumsum(counts)[:-1])
    inner = [np.interp(longitude, along, v, period=2 * math.pi) for along, v in zip(parallels, values, strict=True)]
    south, north = (np.full_like(longitude, row.mean()) for row in (values[0], values[-1]))
    return longitude, np.concatenate([[-math.pi / 2], latitude, [math.pi / 2]]), np.stack([south, *inner, north])


def _latitude(degrees: int) -> str:
    return f"{abs(degrees)}°" + (" N" if degrees > 0 else " S" if degrees < 0 else "")


def _unit_vectors(longitude: Array, latitude: float) -> Array:
    x, y = np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude)
    return np.stack([x, y, np.full_like(longitude, np.sin(latitude))], axis=1)
