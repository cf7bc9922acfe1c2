"""Moving pictures of a flow as pages, with a slider of the time, that turn and zoom in a browser."""

from html import escape
from typing import Any

import numpy as np

from rfm.plotting.animation import FRAME_MILLISECONDS, density_limits, on_one_side
from rfm.plotting.figures import INK, ON_DENSITY, SAMPLE_COLOUR
from rfm.plotting.motion import Grid, Motion
from rfm.plotting.page_traces import (
    bare_scene,
    coasts,
    colour_stops,
    graticule,
    joined,
    lines,
    numbers,
    on_globe,
    surface,
)
from rfm.plotting.panels import Array


def animated(motion: Motion) -> dict[str, Any]:
    """Return the figure of a page on which particles move and a slider holds the time, as plotly's JSON.

    A globe on ``Sphere(2)``, a plane in two dimensions, points in space elsewhere; `save_page` writes it.

    Args:
        motion: of `rfm.plotting.motion_of`.
    """
    limits = density_limits(motion)
    still = _background(motion)
    moving = [_moving(motion, i, limits) for i in range(len(motion.times))]
    numbered = list(range(len(still), len(still) + len(moving[0])))
    steps = [f"{t:.3f}" for t in motion.times]
    shown = {"mode": "immediate", "transition": {"duration": 0}, "fromcurrent": True}
    play = shown | {"frame": {"duration": FRAME_MILLISECONDS, "redraw": True}}
    jump = shown | {"frame": {"duration": 0, "redraw": True}}
    slider = {
        "currentvalue": {"prefix": "t = ", "font": {"color": INK}},
        "pad": {"l": 90, "b": 10},
        "steps": [
            {
                "label": f"{t:.2f}",
                "method": "animate",
                "args": [[step], jump],
            }
            for t, step in zip(motion.times, steps, strict=True)
        ],
    }
    buttons = [
        {"label": "play", "method": "animate", "args": [None, play]},
        {"label": "pause", "method": "animate", "args": [[None], shown | {"frame": {"duration": 0}}]},
    ]
    layout = {
        "title": {"text": escape(motion.title or ""), "font": {"color": INK}},
        "margin": {"l": 0, "r": 0, "t": 50 if motion.title else 10, "b": 0},
        "paper_bgcolor": "white",
        "showlegend": False,
        "uirevision": "turned",
        "sliders": [slider],
        "updatemenus": [
            {"type": "buttons", "direction": "left", "x": 0.0, "y": 0.0, "xanchor": "left", "yanchor": "top"}
            | {"pad": {"t": 30, "l": 10}, "showactive": False, "buttons": buttons}
        ],
        **_layout(motion),
    }
    frames = [{"name": step, "data": traces, "traces": numbered} for step, traces in zip(steps, moving, strict=True)]
    return {"data": [*still, *moving[0]], "layout": layout, "frames": frames}


def _layout(motion: Motion) -> dict[str, Any]:
    scene = motion.scene
    if scene.kind == "map":
        return {"scene": bare_scene(np.array([1.1, -0.9, 0.7])) | {"domain": {"x": [0, 1], "y": [0.12, 1]}}}
    if scene.kind == "plane":
        (x_name, y_name), (x, y) = scene.names, scene.limits
        return {
            "xaxis": {"title": {"text": escape(x_name)}, "range": list(x), "constrain": "domain"},
            "yaxis": {"title": {"text": escape(y_name)}, "range": list(y), "domain": [0.2, 1]},
        }
    axes = {
        f"{axis}axis": {"title": {"text": escape(name)}, "range": list(limits)}
        for axis, name, limits in zip("xyz", scene.names, scene.limits, strict=True)
    }
    return {"scene": {"aspectmode": "cube", "domain": {"x": [0, 1], "y": [0.12, 1]}, **axes}}


def _background(motion: Motion) -> list[Any]:
    """Return the traces that do not move."""
    if motion.scene.kind != "map":
        return []
    return [graticule(), *([lines(coasts(), "white", 2, "coastlines")] if motion.scene.earth else [])]


def _moving(motion: Motion, i: int, limits: tuple[float, float]) -> list[Any]:
    """Return the traces of a frame: the density where there is one, particles, arrows."""
    scene = motion.scene
    at, ahead = motion.points[i], motion.arrows[i]
    on_map = scene.kind == "map"
    places, ends = (_vectors(at), _vectors(ahead)) if on_map else (scene.place(at), scene.place(ahead))
    starts, ends = on_one_side(places[: len(ends)], ends, 0.0 if on_map else scene.turn)
    density = [_density(motion.densities[i], limits, on_map)] if motion.densities else []
    colour = ON_DENSITY[SAMPLE_COLOUR] if density or on_map else SAMPLE_COLOUR
    arrow_colour = "white" if density or on_map else INK
    if scene.kind == "plane":
        shafts = np.stack([starts, ends, np.full_like(starts, np.nan)], axis=1).reshape(-1, 2)
        dots = {"type": "scattergl", "mode": "markers", "marker": {"size": 4, "color": colour}}
        arrows = {"type": "scattergl", "mode": "lines", "line": {"color": arrow_colour, "width": 1}}
        return [
            *density,
            dots | _columns(places, "xy") | {"hoverinfo": "skip"},
            arrows | _columns(shafts, "xy") | {"hoverinfo": "skip"},
        ]
    raised = 1.012 if on_map else 1.0
    dots = {"type": "scatter3d", "mode": "markers", "marker": {"size": 2.4, "color": colour}, "hoverinfo": "skip"}
    shafts = joined([raised * np.stack(pair) for pair in zip(starts, ends, strict=True)]) if len(starts) else ends
    return [*density, dots | _columns(raised * places, "xyz"), lines(shafts, arrow_colour, 2, "velocities")]


def _vectors(x: Any) -> Array:
    values: Array = x.double().cpu().numpy()
    return values


def _columns(points: Array, names: str) -> dict[str, Any]:
    return {name: numbers(values) for name, values in zip(names, points.T, strict=True)}


def _density(grid: Grid, limits: tuple[float, float], on_map: bool) -> Any:
    x, y, values = grid
    if on_map:
        return surface(on_globe(x[None], y[:, None]), values, limits, "log-density<br>(nats per steradian)")
    return {
        "type": "heatmap",
        "x": numbers(x),
        "y": numbers(y),
        "z": numbers(values.clip(-1e4, 1e4), 2),
        "zmin": limits[0],
        "zmax": limits[1],
        "zsmooth": "best",
        "colorscale": colour_stops(),
        "colorbar": {"title": {"text": "log-density<br>(nats)"}, "len": 0.7, "thickness": 16},
        "hoverinfo": "skip",
    }
