"""Finer meshes of the same surface."""

import torch
from torch import Tensor

from manifolds.meshes.surface import edges_of


def midpoint_subdivision(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Return vertices and faces with each face in four, cut at the midpoints of its sides.

    Not a smoothing: the surface is the same. Face f becomes faces 4 f to 4 f + 3, the first three of them at its
    corners in their order. Vertices keep their indices, new ones follow.

    Args:
        vertices: ``(V, 3)``.
        faces: ``(F, 3)``.
    """
    edges, index = edges_of(faces)
    a, b, c = faces.unbind(-1)
    # The midpoint of the side opposite each corner.
    x, y, z = (len(vertices) + index).unbind(-1)
    children = torch.stack([a, z, y, b, x, z, c, y, x, x, y, z], dim=-1)
    return torch.cat([vertices, vertices[edges].mean(1)]), children.reshape(-1, 3)
