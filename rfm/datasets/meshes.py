"""Surfaces from files of triangles, and points that were measured on them."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from manifolds import Mesh
from rfm.arrays import points_of
from rfm.datasets.tables import Table
from rfm.records.packages import optional_package

SURFACE_TOLERANCE = 0.01
"""Rows as near to a surface, in units of its size, are projected to it: the diagonal of its bounding box."""

_ENDINGS = (".obj", ".ply", ".off", ".stl")


def read_mesh(path: str | os.PathLike[str], *, closed: bool = False) -> Mesh:
    """Return the surface in a file of triangles: Wavefront OBJ, PLY, OFF or STL, read by trimesh (extra ``mesh``).

    Vertices at one place are merged, since formats repeat them for each face (STL) or texture (OBJ), and polygons are
    cut into triangles; nothing else is repaired.

    Args:
        path: of the file.
        closed: whether a border is an error.

    Raises:
        ValueError: the file cannot be read, or holds no surface; the message names the remedy.
    """
    path = Path(path)
    trimesh = optional_package("trimesh", "mesh", "reading a mesh")
    if path.suffix.lower() not in _ENDINGS:
        raise ValueError(f"{path}: meshes are read from {', '.join(_ENDINGS)}; convert the file to one of these")
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; check the name")
    try:
        found: Any = trimesh.load(path, force="mesh", process=False)
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path}: cannot be read as a mesh ({first}); check the file in a viewer") from None
    if not len(getattr(found, "faces", ())):
        raise ValueError(f"{path}: holds no faces; a surface is needed, not points or curves")
    found.merge_vertices(merge_tex=True, merge_norm=True)
    found.remove_unreferenced_vertices()
    vertices, faces = np.asarray(found.vertices, np.float64), np.asarray(found.faces, np.int64)
    try:
        return Mesh(torch.from_numpy(vertices.copy()), torch.from_numpy(faces.copy()), closed=closed)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def points_on_surface(mesh: Mesh, points: Tensor, table: Table | None = None) -> Tensor:
    """Return points near a surface projected to it.

    Args:
        mesh: the surface.
        points: ``(n, 3)``.
        table: whose rows they are, for the message.

    Raises:
        ValueError: a point is further from the surface than `SURFACE_TOLERANCE` of its size.
    """
    points = points_of("points_on_surface", mesh, points)
    on = mesh.projx(points)
    size = float(torch.linalg.vector_norm(mesh.vertices.amax(0) - mesh.vertices.amin(0)))
    distance = torch.linalg.vector_norm(on - points, dim=-1)
    bad = (~(distance <= SURFACE_TOLERANCE * size)).nonzero()[:, 0].tolist()
    if bad:
        row, low, high = bad[0], mesh.vertices.amin(0).tolist(), mesh.vertices.amax(0).tolist()
        box = ", ".join(f"{name} {a:.4g} to {b:.4g}" for name, a, b in zip("xyz", low, high, strict=True))
        finding = (
            f"this point is {float(distance[row]):.3g} off the surface, more than {SURFACE_TOLERANCE:.0%} of its size "
            f"({SURFACE_TOLERANCE * size:.3g}; the surface has {box})"
        )
        remedy = "bring points and surface to the same unit and axes, or leave out what was not measured on it"
        if table is not None:
            raise table.error(row, finding, remedy, bad)
        raise ValueError(f"point {row}: {finding} ({len(bad)} of {len(points)} are); {remedy}")
    return on
