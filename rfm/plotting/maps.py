"""Maps of the sphere in equal-area projections: equal densities of points look equally dense everywhere."""

import math
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from rfm.plotting.borders import draw_border_on_map
from rfm.plotting.figures import DENSITY_COLOURS, INK, PAPER, finish, new_figure
from rfm.plotting.layouts import Subject, draw_regions
from rfm.plotting.panels import Array, colour_bar, colour_limits, point_style
from rfm.plotting.views import WORLD, View, chosen_view, latitude_label, longitude_label, places

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


def world_map(
    figure: "Figure", place: Any, title: str, *, earth: bool, dark: bool = False, view: View = WORLD
) -> "Axes":
    """Add an empty map to a figure: Mollweide's of the sphere, Lambert's cylindrical one of a region, both equal-area.

    Args:
        figure: where.
        place: a cell of a grid specification.
        title: stands above it.
        earth: draw coastlines.
        dark: lines are to be seen on dark colours.
        view: what of the sphere.
    """
    from matplotlib.collections import LineCollection

    axes = _sphere_axes(figure, place, earth, dark, view) if view.is_full else _region_axes(figure, place, view)
    finish(axes, title)
    axes.tick_params(labelsize=9, length=0 if view.is_full else 3)
    axes.grid(color="white" if dark else "#bbbbbb", linewidth=0.4, alpha=0.25 if dark else 0.7)
    if earth:
        lines = [part for line in coastlines() for part in view.split(line)]
        colour, width = ("white", 0.7) if dark else ("#8a8a8a", 0.6)
        axes.add_collection(LineCollection(lines, colors=colour, linewidths=width, alpha=0.85, zorder=2), autolim=False)
    return axes


def _sphere_axes(figure: "Figure", place: Any, earth: bool, dark: bool, view: View) -> "Axes":
    from matplotlib.patheffects import withStroke

    axes = cast("GeoAxes", figure.add_subplot(place, projection="mollweide", facecolor=PAPER))
    longitudes = view.longitude_ticks[np.abs(view.longitude_ticks - view.centre) < 179]
    axes.set_longitude_grid_ends(90)
    axes.set_xticks(np.radians(longitudes - view.centre))
    axes.set_yticks(np.radians(_PARALLELS), [latitude_label(degrees) for degrees in _PARALLELS])
    axes.set_longitude_grid_ends(90)
    axes.set_xticklabels([])
    # Meridians meet at the poles, so that their labels stand within the map, over what is drawn there.
    colours = {"color": "white", "rim": "#000000aa"} if dark else {"color": INK, "rim": PAPER}
    rim = [withStroke(linewidth=2, foreground=colours["rim"])]
    style: dict[str, Any] = {"color": colours["color"], "fontsize": 8, "ha": "center", "va": "bottom", "zorder": 5}
    for degrees in longitudes:
        label = longitude_label(degrees) if earth else f"{degrees:g}°".replace("-", "\N{MINUS SIGN}")
        axes.text(math.radians(degrees - view.centre), 0.02, label, path_effects=rim, **style)
    return axes


def _region_axes(figure: "Figure", place: Any, view: View) -> "Axes":
    axes = figure.add_subplot(place, facecolor=PAPER)
    # True to angles along the middle parallel; equal areas everywhere, as latitudes are as high as their sines.
    axes.set_yscale("function", functions=(_sine, _arcsine))
    axes.set(xlim=(view.west, view.east), ylim=(view.south, view.north))
    axes.set_xticks(view.longitude_ticks, [longitude_label(d) for d in view.longitude_ticks])
    axes.set_yticks(view.latitude_ticks, [latitude_label(d) for d in view.latitude_ticks])
    axes.minorticks_off()
    axes.set_box_aspect(view.aspect)
    return axes


def _sine(degrees: Array) -> Array:
    return np.sin(np.radians(degrees))


def _arcsine(sine: Array) -> Array:
    return np.degrees(np.arcsin(np.clip(sine, -1, 1)))


def sphere_figure(subject: Subject, *, earth: bool) -> "Figure":
    """Draw the density of a flow on ``Sphere(2)``, and its points beneath it; in a region, beside it."""
    columns = subject.columns(lambda x: x)
    view = subject.view or (chosen_view(columns[0]) if earth else WORLD)
    if view.is_full:
        figure = new_figure(12, 9, subject.title)
        rows = figure.add_gridspec(2, len(columns), height_ratios=(1.7, 1))
        places = [rows[0, :], *(rows[1, i] for i in range(len(columns)))]
        bar: dict[str, Any] = {"shrink": 0.85, "pad": 0.02, "aspect": 25}
    else:
        width = 4.2
        height = min(max(width * view.aspect, 2.2), 6.5)
        figure = new_figure(width * (1 + len(columns)) + 0.6, height + 1.5, subject.title)
        rows = figure.add_gridspec(2, 1 + len(columns), height_ratios=(1, 0.16 / height))
        places = [rows[0, i] for i in range(1 + len(columns))]
        # The colour bar has a row of its own, so that the panels stay in line.
        bar = {"cax": figure.add_subplot(rows[1, 0]), "orientation": "horizontal"}
    draw_density(figure, places[0], subject, view, earth=earth, bar=bar)
    for place, s, points in zip(places[1:], subject.sets, columns, strict=True):
        away = int(np.sum(~view.holds(points)))
        title = s.title(len(points)) + (f",\n{away:,} of them off the map" if away else "")
        axes = world_map(figure, place, title, earth=earth, view=view)
        draw_border_on_map(axes, subject.flow.manifold, view)
        draw_points(axes, points, s.colour, subject.count, view)
    return figure


def draw_density(
    figure: "Figure", place: Any, subject: Subject, view: View, *, earth: bool, bar: dict[str, Any]
) -> None:
    """Add a map of a flow's log-density, in nats per steradian, with a colour bar at ``bar``."""
    axes = world_map(figure, place, "density of the flow", earth=earth, dark=True, view=view)
    longitude, latitude, log_density = log_density_grid(subject.log_density, subject.evaluations, view)
    low, high = colour_limits(log_density, np.log(np.cos(latitude).clip(min=1e-9))[:, None])
    x, y = (longitude, latitude) if view.is_full else (np.degrees(longitude) + view.centre, np.degrees(latitude))
    shown = axes.pcolormesh(
        x,
        y,
        log_density,
        shading="gouraud",
        cmap=DENSITY_COLOURS,
        vmin=low,
        vmax=high,
        zorder=0,
        rasterized=True,
    )
    draw_regions(axes, subject, x, y, log_density)
    draw_border_on_map(axes, subject.flow.manifold, view)
    # pcolormesh turns the grid off.
    axes.grid(color="white", linewidth=0.4, alpha=0.25)
    place_of_bar = bar if "cax" in bar else bar | {"ax": axes}
    colour_bar(figure, shown, "log-density (nats per steradian)", extend="both", **place_of_bar)


def draw_points(axes: "Axes", points: NDArray[Any], colour: str, count: int, view: View = WORLD) -> None:
    """Draw points ``(n, 3)`` on a map of a view, in the style of ``count`` dots."""
    axes.scatter(*view.page(*places(points)), color=colour, zorder=3, **point_style(count))


def log_density_grid(
    log_density_of: Callable[[Array], Array], evaluations: int, view: View = WORLD
) -> tuple[Array, Array, Array]:
    """Return longitudes and latitudes in radians, and the log-density on ``Sphere(2)`` where they cross.

    Longitudes are counted from the middle of the view; both of its edges are included, and both poles where they are in
    it. Of the sphere, the log-density is evaluated at the centres of cells of equal size, fewer along a parallel near
    the poles, and interpolated along the parallels; of a region, where the lines cross.

    Args:
        log_density_of: from unit vectors ``(n, 3)`` to log-densities ``(n,)``.
        evaluations: about how many evaluations of the log-density to spend.
        view: what of the sphere.
    """
    middle = math.radians(view.centre)
    if not view.is_full:
        longitude, latitude = _region_grid(view, evaluations)
        points = np.concatenate([_unit_vectors(longitude + middle, north) for north in latitude])
        return longitude, latitude, log_density_of(points).reshape(len(latitude), len(longitude))
    rows = max(6, int(math.sqrt(evaluations * math.pi / 4)))
    latitude = (np.arange(rows) + 0.5) * math.pi / rows - math.pi / 2
    counts = np.maximum(4, 2 * rows * np.cos(latitude)).astype(int)
    parallels = [(np.arange(n) + 0.5) * 2 * math.pi / n - math.pi for n in counts]
    points = np.concatenate([_unit_vectors(a + middle, north) for a, north in zip(parallels, latitude, strict=True)])
    log_density = log_density_of(points)

    longitude = np.linspace(-math.pi, math.pi, 2 * rows + 1)
    values_by_row = np.split(log_density, np.cumsum(counts)[:-1])
    inner = [np.interp(longitude, a, v, period=2 * math.pi) for a, v in zip(parallels, values_by_row, strict=True)]
    south, north = (np.full_like(longitude, row.mean()) for row in (values_by_row[0], values_by_row[-1]))
    return longitude, np.concatenate([[-math.pi / 2], latitude, [math.pi / 2]]), np.stack([south, *inner, north])


def _region_grid(view: View, evaluations: int) -> tuple[Array, Array]:
    """Return longitudes from the middle and latitudes in radians, in cells about as wide as high."""
    width, height = math.radians(view.width), math.radians(view.north - view.south)
    shape = width * max(math.cos(math.radians((view.south + view.north) / 2)), 0.2) / height
    columns = int(np.clip(round(math.sqrt(evaluations * shape)), 4, evaluations / 4))
    longitude = np.linspace(-width / 2, width / 2, columns)
    return longitude, np.radians(np.linspace(view.south, view.north, max(4, evaluations // columns)))


def _unit_vectors(longitude: Array, latitude: float) -> Array:
    x, y = np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude)
    return np.stack([x, y, np.full_like(longitude, np.sin(latitude))], axis=1)
