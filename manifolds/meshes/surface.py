"""What the corners and faces of a triangle mesh make: edges, neighbours, frames; and what may be wrong with them."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Surface:
    """Tables of a mesh whose edges have one or two faces, all turned alike.

    Side i of a face is the one opposite its corner i, from corner i + 1 to corner i + 2.
    """

    neighbour: Tensor
    """The face across each side, ``(F, 3)``; -1 at a border."""
    side: Tensor
    """Which of the neighbour's sides it is, ``(F, 3)``."""
    corners: Tensor
    """Positions of the corners, ``(F, 3, 3)``."""
    normal: Tensor
    """Unit normals, ``(F, 3)``."""
    frame: Tensor
    """Orthonormal bases of the faces' planes, right-handed with the normal, ``(F, 2, 3)``."""
    area: Tensor
    """``(F)``."""
    gradients: Tensor
    """Gradients of the barycentric coordinates, ``(F, 3, 3)``, one in each row."""

    @classmethod
    def of(cls, vertices: Tensor, faces: Tensor) -> "Surface":
        """Return the tables of a mesh; vertices ``(V, 3)``, faces ``(F, 3)``."""
        corners = vertices[faces]
        a, b, c = corners.unbind(1)
        cross = torch.linalg.cross(b - a, c - a)
        twice = torch.linalg.vector_norm(cross, dim=-1, keepdim=True)
        normal = cross / twice
        first = b - a
        first = first / torch.linalg.vector_norm(first, dim=-1, keepdim=True)
        frame = torch.stack([first, torch.linalg.cross(normal, first)], dim=1)
        sides = torch.stack([c - b, a - c, b - a], dim=1)
        gradients = torch.linalg.cross(normal[:, None].expand_as(sides), sides) / twice[:, None]
        neighbour, side = neighbours(faces)
        return cls(neighbour, side, corners, normal, frame, twice[:, 0] / 2, gradients)


def rows(table: Tensor, index: Tensor) -> Tensor:
    """Return the rows of a table ``(m, *shape)`` at indices ``(*batch)``: ``(*batch, *shape)``.

    The same as ``table[index]``, which cannot be mapped over where it gets a single index.
    """
    return table.index_select(0, index.reshape(-1)).reshape(*index.shape, *table.shape[1:])


def half_edges(faces: Tensor) -> Tensor:
    """Return the start and end of each side of each face, ``(3 F, 2)``, in the order of faces and then of sides."""
    return torch.stack([faces.roll(-1, 1), faces.roll(-2, 1)], dim=-1).reshape(-1, 2)


def neighbours(faces: Tensor) -> tuple[Tensor, Tensor]:
    """Return the face across each side, -1 at a border, and which of its sides that is; both ``(F, 3)``."""
    edges = half_edges(faces)
    n = int(faces.max()) + 1 if len(faces) else 0
    key = edges[:, 0] * n + edges[:, 1]
    opposite = edges[:, 1] * n + edges[:, 0]
    ordered, order = key.sort()
    place = torch.searchsorted(ordered, opposite).clamp(max=len(key) - 1)
    found = ordered[place] == opposite
    twin = torch.where(found, order[place], -1)
    return torch.where(found, twin // 3, -1).reshape(-1, 3), torch.where(found, twin % 3, 0).reshape(-1, 3)


def edges_of(faces: Tensor) -> tuple[Tensor, Tensor]:
    """Return the edges, lower vertex first, ``(E, 2)``, and which of them each side of each face is, ``(F, 3)``."""
    low, high = half_edges(faces).sort(-1).values.unbind(-1)
    count = int(faces.max()) + 1
    # As single numbers: rows are sorted much slower.
    key, index = (low * count + high).unique(return_inverse=True)
    return torch.stack([key // count, key % count], dim=-1), index.reshape(-1, 3)
