"""Pages that turn: a globe, a torus, a ball of rotations, drawn by plotly's script in a browser.

A figure here is plotly's JSON as a dictionary; plotly itself is imported where a page is written, for its script.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import singledispatch
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from manifolds import SE3, SO3, Bounded, Euclidean, FlatTorus, Manifold, Mesh, Quotient, Sphere
from manifolds.rotations import rotvec_from_matrix
from rfm.datasets.cartesian import Cartesian
from rfm.plotting.figures import INK
from rfm.plotting.layouts import Subject
from rfm.plotting.maps import log_density_grid
from rfm.plotting.orientations import smallest_rotation_vectors
from rfm.plotting.page_traces import (
    bare_scene,
    coasts,
    colour_stops,
    dots,
    graticule,
    lines,
    on_globe,
    on_torus,
    surface,
)
from rfm.plotting.panels import Array, colour_limits
from rfm.plotting.surfaces import DrawnSurface, lifted, surface_trace
from rfm.plotting.views import WORLD, chosen_view, places
from rfm.records.descriptions import write_atomically
from rfm.records.packages import optional_package

PageFigure = dict[str, Any]
"""What plotly draws: ``data``, a list of traces, and ``layout``."""

_HINT = "Drag to turn, use the wheel to zoom; click a name in the legend to show it or to hide it."
_MOST_POINTS = 2000
"""Points of each kind on a page, which a browser turns without delay."""


def interactive(subject: Subject) -> PageFigure | None:
    """Return the figure of a page that turns; None for a manifold or a flow without density that has none.

    A globe with coastlines on ``Sphere(2)``, a torus on ``FlatTorus(2)``, a ``Mesh``, coloured by log-density; points
    in space on ``SO3()``, as rotation vectors, of crystals the smallest ones, on ``SE3()``, as positions, and on
    ``Euclidean(3)``.
    """
    # The same computed densities, fewer points.
    subject = replace(subject, count=min(subject.count, _MOST_POINTS))
    figure = _traces(subject.flow.manifold, subject)
    if figure is None:
        return None
    # The legend stands below the scene.
    figure["layout"]["scene"]["domain"] = {"x": [0, 1], "y": [0.08, 1]}
    figure["layout"] |= {
        "title": {"text": escape(subject.title or ""), "font": {"color": INK}},
        "margin": {"l": 0, "r": 0, "t": 50 if subject.title else 10, "b": 0},
        # White lines are to be seen in the legend too.
        "legend": {"orientation": "h", "x": 0.02, "y": 0.02, "itemsizing": "constant", "bgcolor": "#dedede"},
        "paper_bgcolor": "white",
        # Pages are turned again after a trace is hidden; the camera stays.
        "uirevision": "turned",
    }
    return figure


def page_fragment(figure: PageFigure, *, script: bool = True, height: str = "640px") -> str:
    """Return a figure as a part of an HTML page.

    Args:
        figure: that of `interactive`.
        script: include plotly's script, once a page: 4.8 MB.
        height: of the figure, as CSS has it.
    """
    to_html = optional_package("plotly.io", "report", "a page that turns").to_html
    options: dict[str, Any] = {"full_html": False, "validate": False, "default_height": height, "auto_play": False}
    config = {"displaylogo": False, "scrollZoom": True, "responsive": True}
    text: str = to_html(figure, include_plotlyjs=script, config=config, div_id="turning", **options)
    return f'{text}\n<p style="margin:0.5em 1em">{_HINT}</p>'


def save_page(figure: PageFigure, path: str | os.PathLike[str]) -> None:
    """Write a figure as an HTML page that needs no network, completely or not at all.

    Args:
        figure: that of `interactive`.
        path: a name that ends in ``.html``; its folder is made if need be, and an existing file is replaced.

    Raises:
        ValueError: the name ends otherwise.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"save_page: pages are written as HTML, got the name {path.name!r}; end it in .html")
    title = figure["layout"]["title"]["text"] or "density of a flow"
    text = (
        f'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{title}</title></head>\n'
        f'<body style="margin:0;font-family:sans-serif;color:{INK}">\n'
        f"{page_fragment(figure, height='92vh')}\n</body>\n</html>\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: _write(file, text))


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


# One figure for each kind of manifold.


@singledispatch
def _traces(manifold: Manifold, subject: Subject) -> PageFigure | None:
    return None


@_traces.register(Bounded)
def _(manifold: Bounded, subject: Subject) -> PageFigure | None:
    return _traces(manifold.m, subject)


@_traces.register(Sphere)
def _(manifold: Sphere, subject: Subject) -> PageFigure | None:
    if manifold.dim != 2 or not subject.flow.source.has_density:
        return _traces.dispatch(Manifold)(manifold, subject)
    earth = subject.coordinates is None or subject.coordinates.kind != Cartesian.kind
    drawn = subject.columns(lambda x: x)
    # The grid of the map, if that is of the whole sphere, so that it is computed once.
    view = subject.view or (chosen_view(drawn[0]) if earth else WORLD)
    view = view if view.is_full else WORLD
    longitude, latitude, log_density = log_density_grid(subject.log_density, subject.evaluations, view)
    low, high = colour_limits(log_density, np.log(np.cos(latitude).clip(min=1e-9))[:, None])
    globe = on_globe(longitude[None] + math.radians(view.centre), latitude[:, None])
    traces = [surface(globe, log_density, (low, high), "log-density<br>(nats per steradian)"), graticule()]
    if earth:
        shores = coasts()
        traces.append(lines(shores, "white", 2, "coastlines"))
    for s, points in zip(subject.sets, drawn, strict=True):
        degrees = np.degrees(np.stack(places(points), axis=1))
        traces.append(
            dots(1.008 * points, s, subject, degrees, "longitude %{customdata[0]}°, latitude %{customdata[1]}°")
        )
    # From where most of the first points are seen, at most thirty degrees from the equator, north up.
    x, y, z = drawn[0].mean(0) if len(drawn[0]) else (1.0, 0.0, 0.0)
    height = float(np.clip(z / max(math.hypot(x, y), 1e-9), -0.6, 0.6))
    eye = np.stack(on_globe(np.arctan2(y, x), np.arctan(height), 1.3))
    return {"data": traces, "layout": {"scene": bare_scene(eye)}}


@_traces.register(FlatTorus)
def _(manifold: FlatTorus, subject: Subject) -> PageFigure | None:
    if manifold.n != 2 or not subject.flow.source.has_density:
        return _traces.dispatch(Manifold)(manifold, subject)
    n = max(2, math.isqrt(subject.evaluations))
    centres = -math.pi + (np.arange(n) + 0.5) * 2 * math.pi / n
    grid = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)
    log_density = subject.log_density(grid).reshape(n, n)
    low, high = colour_limits(log_density)
    # The first row and column once more, where the torus closes.
    closed, around = np.pad(log_density, (0, 1), mode="wrap"), np.append(centres, centres[0] + 2 * math.pi)
    names = subject.names("angle ", 2)
    tube = on_torus(around[None], around[:, None])
    traces = [surface(tube, closed, (low, high), "log-density<br>(nats per square radian)")]
    # Where an angle is zero: one has to see which is which.
    turn = np.linspace(-math.pi, math.pi, 181)
    for name, first, second in ((names[1], turn, 0 * turn), (names[0], 0 * turn, turn)):
        circle = np.stack(on_torus(first, second, 1.01), axis=1)
        traces.append(lines(circle, "white", 3, escape(f"{name} = 0")))
    for s, points in zip(subject.sets, subject.columns(lambda x: x), strict=True):
        on_page = np.stack(on_torus(points[:, 0], points[:, 1], 1.02), axis=1)
        hover = ", ".join(f"{escape(name)} %{{customdata[{i}]}}°" for i, name in enumerate(names))
        traces.append(dots(on_page, s, subject, np.degrees(points), hover))
    return {"data": traces, "layout": {"scene": bare_scene(np.array([0.9, 0.9, 1.1]))}}


@_traces.register(SO3)
def _(manifold: SO3, subject: Subject) -> PageFigure | None:
    names = [f"rotation vector, {name} (degrees)" for name in "xyz"]
    turn = 180 / math.pi
    return _cloud(subject, subject.columns(lambda x: rotvec_from_matrix(x.double()) * turn), names)


@_traces.register(Quotient)
def _(manifold: Quotient, subject: Subject) -> PageFigure | None:
    if not isinstance(manifold.m, SO3):
        return _traces.dispatch(Manifold)(manifold, subject)
    names = [f"rotation vector, {name} (degrees)" for name in "xyz"]

    columns = subject.columns(lambda x: smallest_rotation_vectors(x, manifold.group).rad2deg())
    return _cloud(subject, columns, names)


@_traces.register(Mesh)
def _(manifold: Mesh, subject: Subject) -> PageFigure | None:
    if not subject.flow.source.has_density:
        return _traces.dispatch(Manifold)(manifold, subject)
    surface = DrawnSurface.of(manifold, subject)
    names = ", ".join(f"{escape(name)} %{{customdata[{i}]}}" for i, name in enumerate(subject.names("x", 3)))
    traces = [surface_trace(surface, colour_stops())]
    for s, points in zip(subject.sets, subject.columns(lambda x: x), strict=True):
        traces.append(dots(lifted(manifold, points), s, subject, points, names))
    scene = bare_scene(2.0 * surface.eye())
    # Files of surfaces have the second axis up; one that is flat is looked at from above.
    scene["camera"]["up"] = {"x": 0, "y": 1, "z": 0}
    # A turntable has the third axis up.
    scene["dragmode"] = "orbit"
    return {"data": traces, "layout": {"scene": scene}}


@_traces.register(SE3)
def _(manifold: SE3, subject: Subject) -> PageFigure | None:
    return _cloud(subject, subject.columns(lambda x: x[:, :3, 3]), ["x", "y", "z"])


@_traces.register(Euclidean)
def _(manifold: Euclidean, subject: Subject) -> PageFigure | None:
    if manifold.n != 3:
        return _traces.dispatch(Manifold)(manifold, subject)
    return _cloud(subject, subject.columns(lambda x: x), subject.names("x", 3))


def _cloud(subject: Subject, columns: Sequence[Array], names: Sequence[str]) -> PageFigure:
    """Return points in space with axes."""
    traces = [
        dots(points, s, subject, points, ", ".join(f"%{{customdata[{i}]}}" for i in range(3)), first=i == 0)
        for i, (s, points) in enumerate(zip(subject.sets, columns, strict=True))
    ]
    axes = {f"{axis}axis": {"title": {"text": escape(name)}} for axis, name in zip("xyz", names, strict=True)}
    return {"data": traces, "layout": {"scene": {"aspectmode": "data", **axes}}}
