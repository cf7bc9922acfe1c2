"""All that a mesh computes from its vertices and faces once, each when it is first needed."""

from collections.abc import Callable
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from manifolds.meshes.closest_triangle import TriangleTree
from manifolds.meshes.connections import PathFinder
from manifolds.meshes.edge_continuity import corner_maps
from manifolds.meshes.heat_distance import HeatDistance
from manifolds.meshes.laplacian import MeshLaplacian
from manifolds.meshes.strips import StripTables
from manifolds.meshes.surface import Surface

T = TypeVar("T")

_COMPUTED: "WeakKeyDictionary[MeshTables, dict[str, Any]]" = WeakKeyDictionary()
"""Beside the objects: a mesh is what its vertices and faces are, whatever was computed of it so far."""


class MeshTables:
    """The tables of a mesh, in float64, on the device of its vertices.

    Args:
        vertices: ``(V, 3)``.
        faces: ``(F, 3)``.
        robust: whether the Laplacian is that of the intrinsic Delaunay triangulation.
    """

    def __init__(self, vertices: Tensor, faces: Tensor, robust: bool = False) -> None:
        self.vertices, self.faces, self.robust = vertices, faces, robust

    def _once(self, name: str, compute: Callable[[], T]) -> T:
        known = _COMPUTED.setdefault(self, {})
        if name not in known:
            known[name] = compute()
        return cast(T, known[name])

    @property
    def surface(self) -> Surface:
        """Neighbours, frames, areas."""
        return self._once("surface", lambda: Surface.of(self.vertices, self.faces))

    @property
    def tree(self) -> TriangleTree:
        """What finds closest faces."""
        return self._once("tree", lambda: TriangleTree(self.surface.corners))

    @property
    def projector(self) -> Tensor:
        """The orthogonal projections to the planes of the faces, ``(F, 3, 3)``."""
        return self._once("projector", self._projector)

    def _projector(self) -> Tensor:
        normal = self.surface.normal
        eye = torch.eye(3, dtype=normal.dtype, device=normal.device)
        return eye - normal[:, :, None] * normal[:, None]

    @property
    def corner_maps(self) -> Tensor:
        """See `manifolds.meshes.edge_continuity`."""
        return self._once("corner_maps", lambda: corner_maps(self.surface))

    @property
    def laplacian(self) -> MeshLaplacian:
        """Of functions given at the vertices."""
        return self._once("laplacian", lambda: MeshLaplacian(self.vertices, self.faces, self.robust))

    @property
    def paths(self) -> PathFinder:
        """What finds shortest paths."""
        return self._once("paths", self._paths)

    def _paths(self) -> PathFinder:
        heat = HeatDistance(self.surface, self.faces, self.laplacian)
        return PathFinder(StripTables(self.surface, self.faces), heat)
