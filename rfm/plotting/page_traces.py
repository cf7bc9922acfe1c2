"""Traces of pages that turn: surfaces, lines and dots in space, as plotly's JSON."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from rfm.plotting.figures import DENSITY_COLOURS, ON_DENSITY
from rfm.plotting.layouts import Points, Subject
from rfm.plotting.maps import coastlines
from rfm.plotting.panels import Array

_TUBE = 0.45
"""Radius of the torus's tube, in that of its middle circle."""


def on_globe(longitude: Array, latitude: Array, radius: float = 1.0) -> tuple[Array, Array, Array]:
    """Return places in radians on a globe."""
    longitude, latitude = np.broadcast_arrays(longitude, latitude)
    level = radius * np.cos(latitude)
    return level * np.cos(longitude), level * np.sin(longitude), radius * np.sin(latitude)


def on_torus(first: Array, second: Array, swollen: float = 1.0) -> tuple[Array, Array, Array]:
    """Return the torus of revolution: the first angle about the axis, the second about the tube."""
    first, second = np.broadcast_arrays(first, second)
    away = 1 + swollen * _TUBE * np.cos(second)
    return away * np.cos(first), away * np.sin(first), swollen * _TUBE * np.sin(second)


def surface(place: tuple[Array, Array, Array], log_density: Array, limits: tuple[float, float], label: str) -> Any:
    """Return a surface coloured by log-density, without shadows."""
    x, y, z = (numbers(values) for values in place)
    return {
        "type": "surface",
        "x": x,
        "y": y,
        "z": z,
        "surfacecolor": numbers(log_density.clip(-1e4, 1e4), 2),
        "cmin": limits[0],
        "cmax": limits[1],
        "colorscale": colour_stops(),
        "colorbar": {"title": {"text": label}, "len": 0.7, "thickness": 16},
        "name": "density",
        # Shadows would look like densities.
        "lighting": {"ambient": 1.0, "diffuse": 0.0, "specular": 0.0, "fresnel": 0.0},
        "contours": {axis: {"highlight": False} for axis in "xyz"},
        "text": [[f"{value:.2f} nats" for value in row] for row in log_density],
        "hoverinfo": "text",
    }


def colour_stops() -> list[list[Any]]:
    """Return the colours of densities as plotly writes scales: the pictures' and the pages' are the same."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [[i / 16, to_hex(colormaps[DENSITY_COLOURS](i / 16))] for i in range(17)]


def coasts() -> Array:
    """Return the coastlines a little above the globe, with gaps between them, ``(n, 3)``."""
    lines_of_places = [np.radians(line) for line in coastlines()]
    return joined([np.stack(on_globe(line[:, 0], line[:, 1], 1.004), axis=1) for line in lines_of_places])


def graticule() -> Any:
    """Return parallels and meridians on the globe."""
    turn = np.linspace(-math.pi, math.pi, 121)
    parallels = [on_globe(turn, np.full_like(turn, math.radians(d)), 1.002) for d in range(-60, 61, 30)]
    meridians = [on_globe(np.full(61, math.radians(d)), turn[::2] / 2, 1.002) for d in range(-180, 180, 30)]
    net = joined([np.stack(line, axis=1) for line in parallels + meridians])
    return lines(net, "rgba(255,255,255,0.25)", 1, "graticule")


def lines(points: Array, colour: str, width: float, name: str) -> Any:
    """Return lines ``(n, 3)``, cut where a row is NaN."""
    x, y, z = (numbers(values) for values in points.T)
    style = {"color": colour, "width": width}
    common = {"type": "scatter3d", "mode": "lines", "hoverinfo": "skip", "connectgaps": False}
    return common | {"x": x, "y": y, "z": z, "line": style, "name": name}


def dots(points: Array, s: Points, subject: Subject, values: Array, hover: str, *, first: bool | None = None) -> Any:
    """Return a trace of points; of several sets, the first is shown at the start."""
    x, y, z = (numbers(column) for column in points.T)
    shown = s is subject.sets[0] if first is None else first
    return {
        "type": "scatter3d",
        "mode": "markers",
        "x": x,
        "y": y,
        "z": z,
        "customdata": numbers(values, 2),
        "hovertemplate": hover + "<extra></extra>",
        "name": escape(s.title(len(points))),
        "visible": True if shown else "legendonly",
        "marker": {"size": 2.2, "color": s.colour if first is not None else ON_DENSITY[s.colour], "opacity": 0.9},
    }


def joined(parts: Sequence[Array]) -> Array:
    """Return lines ``(n, 3)`` as one, with a row of NaN after each."""
    gap = np.full((1, 3), math.nan)
    return np.concatenate([part for line in parts for part in (line, gap)])


def numbers(values: Array, digits: int = 4) -> Any:
    """Return nested lists of rounded numbers, None for NaN, as JSON has none."""
    rounded = np.round(values, digits)
    nested = rounded.astype(object)
    nested[np.isnan(rounded)] = None
    return nested.tolist()


def bare_scene(eye: Array) -> dict[str, Any]:
    """Return the layout of a scene without axes, seen from ``eye``, north up."""
    hidden = {f"{axis}axis": {"visible": False, "showspikes": False} for axis in "xyz"}
    camera = {"eye": dict(zip("xyz", map(float, eye), strict=True)), "up": {"x": 0, "y": 0, "z": 1}}
    return {"aspectmode": "data", "camera": camera, "dragmode": "turntable", **hidden}
