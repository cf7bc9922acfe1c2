"""Densities and points on surfaces of triangles: pictures from two sides, and what pages that turn show."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from manifolds import Mesh
from rfm.plotting.figures import DENSITY_COLOURS, INK, new_figure
from rfm.plotting.layouts import Subject
from rfm.plotting.panels import Array, colour_bar, colour_limits, point_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PARTS = 1.5
"""Coarser meshes are drawn with their faces cut in four, up to so many parts for each requested evaluation."""
_ELEVATION = math.radians(15)
_FLAT = 1e-3
"""Of the largest extent: surfaces that are thinner are looked at from above."""
_DARKEST = 0.72
"""Of a face that looks away from the light: darker ones would look like lower densities."""
_GLOSS = 0.14
_CELLS = 160
"""Of the grid that decides which points are hidden, along the longer side."""
_COVER = 400_000
"""Points of the surface that hide others: some dozens in each cell, or what is behind shows through."""


@dataclass(frozen=True)
class DrawnSurface:
    """A surface with the flow's log-density in each face, ready to be drawn."""

    mesh: Mesh
    corners: Array
    """``(F, 3, 3)``."""
    normals: Array
    """``(F, 3)``."""
    log_density: Array
    """In the middle of each face, nats per unit of area, ``(F)``."""
    limits: tuple[float, float]

    @classmethod
    def of(cls, mesh: Mesh, subject: Subject) -> "DrawnSurface":
        """Return the surface of a subject; the density is computed once."""
        fine, times = mesh, 0
        while len(fine.faces) * 4 <= _PARTS * subject.evaluations:
            times += 1
            fine = mesh.subdivided(times)
        corners = fine.vertices[fine.faces].cpu().numpy()
        cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        twice = np.linalg.norm(cross, axis=1)
        log_density = subject.log_density(corners.mean(1))
        return cls(fine, corners, cross / twice[:, None], log_density, colour_limits(log_density, np.log(twice)))

    def eye(self) -> Array:
        """Return the direction to look from, a unit vector: where most of the mass is seen, the second axis up."""
        extent = np.ptp(self.corners.reshape(-1, 3), axis=0)
        if extent.min() < _FLAT * extent.max():
            return np.eye(3)[int(extent.argmin())]
        weight = np.exp(self.log_density - self.log_density.max())
        a, b, c = (self.corners[:, i] for i in range(3))
        area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
        x, _, z = (weight * area) @ self.normals
        turn = math.atan2(x, z) if math.hypot(x, z) > 0 else 0.0
        level = math.cos(_ELEVATION)
        return np.array([level * math.sin(turn), math.sin(_ELEVATION), level * math.cos(turn)])

    @property
    def is_flat(self) -> bool:
        """Whether it lies in a plane, so that one view shows all of it."""
        extent = np.ptp(self.corners.reshape(-1, 3), axis=0)
        return bool(extent.min() < _FLAT * extent.max())


@dataclass(frozen=True)
class Camera:
    """A view from far away in a direction."""

    eye: Array

    @property
    def axes(self) -> Array:
        """To the right, up, and to the viewer, as rows."""
        up = np.array([0.0, 1.0, 0.0]) if abs(self.eye[1]) < 0.99 else np.array([0.0, 0.0, -1.0])
        right = np.cross(up, self.eye)
        right /= np.linalg.norm(right)
        return np.stack([right, np.cross(self.eye, right), self.eye])

    def hidden(self, mesh: Mesh, points: Array) -> Any:
        """Return which points ``(n, 3)`` lie behind another part of the surface."""
        cover = mesh.random_uniform(_COVER, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        seen, own = (np.asarray(p, np.float64) @ self.axes.T for p in (cover.cpu().numpy(), points))
        low, size = seen.min(0), float(np.ptp(seen[:, :2], axis=0).max())
        cells = [np.clip(((p[:, :2] - low[:2]) / size * _CELLS).astype(int), 0, _CELLS) for p in (seen, own)]
        nearest = np.full((_CELLS + 1, _CELLS + 1), -np.inf)
        np.maximum.at(nearest, (cells[0][:, 0], cells[0][:, 1]), seen[:, 2])
        return own[:, 2] < nearest[cells[1][:, 0], cells[1][:, 1]] - 0.03 * size


def surface_figure(mesh: Mesh, subject: Subject) -> Any:
    """Draw the density of a flow on a surface from two opposite sides, and points on it beneath."""
    surface = DrawnSurface.of(mesh, subject)
    eye = surface.eye()
    cameras = [Camera(eye)] if surface.is_flat else [Camera(eye), Camera(eye * np.array([-1.0, 1.0, -1.0]))]
    columns = subject.columns(lambda x: x)
    wide = max(len(cameras), len(columns))
    figure = new_figure(1 + 5.2 * wide, 10.8, subject.title)
    rows = figure.add_gridspec(2, wide + 1, width_ratios=[1.0] * wide + [0.035])
    for i, camera in enumerate(cameras):
        place = rows[0, :-1] if len(cameras) == 1 else rows[0, i]
        axes = _axes(figure.add_subplot(place), "from the other side" if i else "density of the flow")
        shown = draw_surface(axes, surface, camera, surface.log_density)
    label = "log-density (nats per unit of area)"
    colour_bar(figure, shown, label, extend="both", cax=figure.add_subplot(rows[0, -1]))
    for i, (s, points) in enumerate(zip(subject.sets, columns, strict=True)):
        axes = _axes(figure.add_subplot(rows[1, i]), s.title(len(points)))
        draw_surface(axes, surface, cameras[0], None)
        away = cameras[0].hidden(mesh, points) if not surface.is_flat else np.zeros(len(points), dtype=bool)
        flat = points[~away] @ cameras[0].axes.T
        style: dict[str, Any] = point_style(subject.count)
        axes.scatter(flat[:, 0], flat[:, 1], color=s.colour, zorder=3, **style)
    return figure


def draw_surface(axes: "Axes", surface: DrawnSurface, camera: Camera, values: Array | None) -> Any:
    """Draw the faces that look at the viewer, far ones first, in the colours of values or in grey.

    Returns:
        What a colour bar is made from.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import Normalize

    seen = surface.corners @ camera.axes.T
    facing = surface.normals @ camera.eye
    # A surface with a border is seen from behind too.
    front = np.flatnonzero(facing > 0) if not surface.mesh.has_border else np.arange(len(facing))
    order = front[np.argsort(seen[front, :, 2].mean(1), kind="stable")]
    light = np.array([-0.35, 0.5, 0.8]) @ camera.axes
    lit = np.abs(surface.normals @ (light / np.linalg.norm(light)))
    shade = _DARKEST + (1 - _DARKEST) * lit
    scale = ScalarMappable(Normalize(*surface.limits), colormaps[DENSITY_COLOURS])
    colours = np.full((len(facing), 4), 0.9) if values is None else scale.to_rgba(values)
    colours[:, :3] *= shade[:, None]
    # A little of the light itself, or nothing of the shape is seen where the density is lowest.
    colours[:, :3] += _GLOSS * lit[:, None] * (1 - colours[:, :3])
    colours[:, 3] = 1.0
    drawn = colours[order]
    # Edges of the faces' own colours: without them the background shows between faces.
    style: dict[str, Any] = {"facecolors": drawn, "edgecolors": drawn, "linewidths": 0.4, "rasterized": True}
    axes.add_collection(PolyCollection(list(seen[order, :, :2]), **style))
    axes.autoscale_view()
    return scale


def _axes(axes: "Axes", title: str) -> "Axes":
    axes.set_title(title, fontsize=12, color=INK, parse_math=False)
    axes.set_aspect("equal")
    axes.set_axis_off()
    return axes


def surface_trace(surface: DrawnSurface, colours: Any) -> dict[str, Any]:
    """Return a surface coloured by log-density as a trace of plotly."""
    vertices, faces = surface.mesh.vertices.cpu().numpy(), surface.mesh.faces.cpu().numpy()
    digits = max(0, 5 - math.floor(math.log10(np.ptp(vertices, axis=0).max())))
    places = dict(zip("xyz", np.round(vertices, digits).T.tolist(), strict=True))
    corners = dict(zip("ijk", faces.T.tolist(), strict=True))
    values = np.round(surface.log_density.clip(-1e4, 1e4), 2)
    return {
        "type": "mesh3d",
        **places,
        **corners,
        "intensity": values.tolist(),
        "intensitymode": "cell",
        "cmin": surface.limits[0],
        "cmax": surface.limits[1],
        "colorscale": colours,
        "colorbar": {"title": {"text": "log-density<br>(nats per unit of area)"}, "len": 0.7, "thickness": 16},
        "name": "density",
        "flatshading": False,
        # Soft: shadows would look like densities; a gloss shows the shape where the density is lowest.
        "lighting": {"ambient": 0.75, "diffuse": 0.3, "specular": 0.25, "roughness": 0.8, "fresnel": 0.0},
        "hovertemplate": "%{intensity:.2f} nats<extra></extra>",
    }


def lifted(mesh: Mesh, points: Array) -> Array:
    """Return points a little above the surface, where they are not hidden by it."""
    x = torch.from_numpy(points).double()
    size = float(torch.linalg.vector_norm(mesh.vertices.amax(0) - mesh.vertices.amin(0)))
    above: Tensor = x + 0.004 * size * mesh.normal(x)
    return above.numpy()
