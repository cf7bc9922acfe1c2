"""All that a mesh computes from its vertices and faces once, each when it is first needed."""

import functools
from typing import Any

import torch
from torch import Tensor

from manifolds.meshes.closest_triangle import TriangleTree
from manifolds.meshes.connections import PathFinder
from manifolds.meshes.edge_continuity import corner_maps
from manifolds.meshes.heat_distance import HeatDistance
from manifolds.meshes.laplacian import MeshLaplacian
from manifolds.meshes.strips import StripTables
from manifolds.meshes.surface import Surface


class MeshTables:
    """The tables of a mesh, in float64, on the device of its vertices.

    Args:
        vertices: ``(V, 3)``.
        faces: ``(F, 3)``.
    """

    def __init__(self, vertices: Tensor, faces: Tensor) -> None:
        self.vertices, self.faces = vertices, faces

    @functools.cached_property
    def surface(self) -> Surface:
        return Surface.of(self.vertices, self.faces)

    @functools.cached_property
    def tree(self) -> TriangleTree:
        return TriangleTree(self.surface.corners)

    @functools.cached_property
    def projector(self) -> Tensor:
        """The orthogonal projections to the planes of the faces, ``(F, 3, 3)``."""
        normal = self.surface.normal
        eye = torch.eye(3, dtype=normal.dtype, device=normal.device)
        return eye - normal[:, :, None] * normal[:, None]

    @functools.cached_property
    def corner_maps(self) -> Tensor:
        return corner_maps(self.surface)

    @functools.cached_property
    def laplacian(self) -> MeshLaplacian:
        return MeshLaplacian(self.vertices, self.faces)

    @functools.cached_property
    def paths(self) -> PathFinder:
        heat = HeatDistance(self.surface, self.faces, self.laplacian)
        return PathFinder(StripTables(self.surface, self.faces), heat)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy is made from vertices and faces alone, and is the same where they are."""
        return MeshTables, (self.vertices, self.faces)
