"""Strips of faces from one point of a mesh to another, and how to lay them flat."""

import torch
from torch import Tensor

from manifolds.meshes.funnel import Strip
from manifolds.meshes.surface import Surface


class StripTables:
    """What laying faces flat needs: where the third corner lies, seen from each side.

    Args:
        surface: of the mesh, in float64.
        faces: indices of the corners, ``(F, 3)``.
    """

    def __init__(self, surface: Surface, faces: Tensor) -> None:
        self.surface, self.faces = surface, faces
        # Across side i a face is entered from its corner i + 2 to its corner i + 1.
        a, b = surface.corners.roll(-2, 1), surface.corners.roll(-1, 1)
        edge = b - a
        squared = edge.square().sum(-1)
        self.along = ((surface.corners - a) * edge).sum(-1) / squared
        """Of the corner opposite to each side: how far along the side, in its lengths, ``(F, 3)``."""
        self.away = 2 * surface.area[:, None] / squared
        """And how far away from it."""
        self.first = ((surface.corners - surface.corners[:, :1])[:, :, None] * surface.frame[:, None]).sum(-1)
        """Corners in coordinates of the face's frame from its corner 0, ``(F, 3, 2)``."""
        angles = _angles(surface.corners)
        self.total_angle = torch.zeros(int(faces.max()) + 1, dtype=angles.dtype, device=angles.device)
        self.total_angle.index_add_(0, faces.flatten(), angles.flatten())
        """Of the faces about each vertex, ``(V)``."""
        self.most_faces = int(faces.flatten().bincount().max())
        """About one vertex."""

    def laid_flat(self, faces: Tensor, count: Tensor) -> Strip:
        """Lay strips flat; ``faces`` ``(n, L + 1)``, of which ``count`` + 1 belong to each."""
        at = torch.arange(len(faces), device=faces.device)
        corners = self.first[faces[:, 0]]
        first = corners
        lefts, rights, left_ids, right_ids = [], [], [], []
        last = corners
        for k in range(faces.shape[1] - 1):
            f, g = faces[:, k], faces[:, k + 1]
            side = (self.surface.neighbour[f] == g[:, None]).int().argmax(-1)
            entry = self.surface.side[f, side]
            i, j = (side + 1) % 3, (side + 2) % 3
            right, left = corners[at, i], corners[at, j]
            rights.append(right)
            lefts.append(left)
            right_ids.append(self.faces[f, i])
            left_ids.append(self.faces[f, j])
            edge = left - right
            outward = torch.stack([edge[:, 1], -edge[:, 0]], dim=-1)
            third = right + self.along[g, entry, None] * edge + self.away[g, entry, None] * outward
            corners = torch.empty_like(corners)
            corners[at, entry], corners[at, (entry + 1) % 3], corners[at, (entry + 2) % 3] = third, left, right
            last = torch.where((count == k + 1)[:, None, None], corners, last)
        if not lefts:
            none, ids = corners.new_zeros(len(faces), 0, 2), faces.new_zeros(len(faces), 0)
            return Strip(faces, count, none, none, ids, ids, first, last)
        sides = torch.stack(lefts, 1), torch.stack(rights, 1), torch.stack(left_ids, 1), torch.stack(right_ids, 1)
        return Strip(faces, count, *sides, first, last)

    def other_way(self, face: Tensor, vertex: Tensor, target: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
        """Return the faces about a vertex from one to another, the way that a strip does not take.

        Args:
            face: where to begin, ``(n)``; not part of the result.
            vertex: of it, ``(n)``.
            target: the face to reach, ``(n)``.
            left: whether the strip has the vertex on its left, ``(n)``.

        Returns:
            The faces ``(n, q)`` and how many there are ``(n)``; 0 where a border is in the way.
        """
        found: list[Tensor] = []
        count = torch.zeros_like(face)
        done = torch.zeros_like(left)
        while not bool(done.all()) and len(found) <= self.most_faces:
            corner = (self.faces[face] == vertex[:, None]).int().argmax(-1)
            # With the vertex on the left the strip crosses the sides after the vertex's own; so these are before it.
            side = torch.where(left, corner + 2, corner + 1) % 3
            after = self.surface.neighbour[face, side]
            face = torch.where(done | (after < 0), face, after)
            found.append(face)
            arrives = ~done & (after == target)
            count = torch.where(arrives, len(found), count)
            done = done | arrives | (after < 0)
        return torch.stack(found, 1), count


def _angles(corners: Tensor) -> Tensor:
    """Return the angles at the corners of triangles ``(F, 3, 3)``, in radians, ``(F, 3)``."""
    to_next, to_last = corners.roll(-1, 1) - corners, corners.roll(-2, 1) - corners
    crossed = torch.linalg.vector_norm(torch.linalg.cross(to_next, to_last), dim=-1)
    return torch.atan2(crossed, (to_next * to_last).sum(-1))


def descent_strips(
    tables: StripTables, distance: Tensor, start: Tensor, end: Tensor, vertex: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return strips made by going to the face that is nearest to a vertex of the end, and then about that vertex.

    Args:
        tables: of the mesh.
        distance: of all vertices from ``vertex``, ``(n, V)``.
        start: the first faces ``(n)``.
        end: the last faces ``(n)``.
        vertex: one of each last face ``(n)``.

    Returns:
        Faces ``(n, L + 1)``, the numbers of edges crossed ``(n)``, and which strips arrive ``(n)``.
    """
    surface, faces, at = tables.surface, tables.faces, torch.arange(len(start), device=start.device)
    face, found, count = start, [start], torch.zeros_like(start)
    height = distance.gather(1, faces[start]).mean(-1)
    moving = (faces[start] != vertex[:, None]).all(-1)
    while bool(moving.any()):
        options = surface.neighbour[face]
        heights = distance.gather(1, faces[options.clamp(min=0)].flatten(1)).unflatten(1, (3, 3)).mean(-1)
        least, pick = torch.where(options >= 0, heights, torch.inf).min(-1)
        moving = moving & (least < height)
        face = torch.where(moving, options[at, pick], face)
        height = torch.where(moving, least, height)
        count = count + moving
        found.append(face)
        moving = moving & (faces[face] != vertex[:, None]).all(-1)
    strips = torch.stack(found, 1)
    arrives = (faces[face] == vertex[:, None]).any(-1)
    about = (arrives & (face != end)).nonzero()[:, 0]
    if len(about):
        fans = [tables.other_way(face[about], vertex[about], end[about], left) for left in _both(about)]
        first = (fans[0][1] > 0) & ((fans[1][1] == 0) | (fans[0][1] <= fans[1][1]))
        width = max(fan.shape[1] for fan, _ in fans)
        padded = [torch.cat([fan, fan[:, -1:].expand(-1, width - fan.shape[1])], 1) for fan, _ in fans]
        fan = torch.where(first[:, None], padded[0], padded[1])
        size = torch.where(first, fans[0][1], fans[1][1])
        place = torch.arange(strips.shape[1] + width, device=start.device).expand(len(about), -1)
        behind = (place - count[about, None] - 1).clamp(0, width - 1)
        old = strips[about].gather(1, place.clamp(max=strips.shape[1] - 1))
        joined = torch.where(place <= count[about, None], old, fan.gather(1, behind))
        strips = torch.cat([strips, strips[:, -1:].expand(-1, width)], 1)
        strips[about] = joined
        count[about] += size
        arrives[about] = size > 0
    return strips[:, : int(count.max()) + 1], count, arrives


def _both(index: Tensor) -> tuple[Tensor, Tensor]:
    yes = torch.ones_like(index, dtype=torch.bool)
    return yes, ~yes


def graph_strips(surface: Surface, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return strips that are shortest from centre to centre of the faces, by Dijkstra's algorithm.

    Arguments and results are those of `descent_strips`; those that do not arrive are on different parts of the mesh.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import dijkstra

    centre, middle = surface.corners.mean(1), (surface.corners.roll(-1, 1) + surface.corners.roll(-2, 1)) / 2
    face, side = (surface.neighbour >= 0).nonzero().unbind(-1)
    across = surface.neighbour[face, side]
    length = (middle[face, side] - centre[face]).norm(dim=-1) + (middle[face, side] - centre[across]).norm(dim=-1)
    entries = length.cpu().numpy(), (face.cpu().numpy(), across.cpu().numpy())
    graph = coo_matrix(entries, shape=(len(centre),) * 2).tocsr()
    sources, row = torch.unique(start, return_inverse=True)
    before = torch.from_numpy(dijkstra(graph, indices=sources.cpu().numpy(), return_predecessors=True)[1])
    before = before.to(start.device).long()
    face, found = end, [end]
    while bool((face != start).any()):
        previous = before[row, face]
        stuck = (previous < 0) | (face == start)
        if bool(stuck.all()):
            break
        face = torch.where(stuck, face, previous)
        found.append(face)
    backwards = torch.stack(found, 1)
    arrives = backwards[:, -1] == start
    count = (backwards != start[:, None]).sum(-1)
    # From the start, filled up with the end.
    place = (count[:, None] - torch.arange(backwards.shape[1], device=start.device)).clamp(min=0)
    return backwards.gather(1, place), count, arrives
