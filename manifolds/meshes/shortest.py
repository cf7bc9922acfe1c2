"""Locally shortest paths on a mesh: the shortest in a strip of faces, led round vertices until none is in the way."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from manifolds.meshes.funnel import Bends, Strip, shortest_bends
from manifolds.meshes.strips import StripTables

_ROUNDS = 400
_INWARD = 1e-7
"""How far points are moved to the middle of their face for the search, as a share."""

_SAME_LENGTH = 1e-12
"""Relative: what a change of the strip has to gain."""


class Paths(NamedTuple):
    """Paths that are straight but where they bend at vertices, from points to points, ``n`` of them."""

    strip: Strip
    bends: Bends
    corners: Tensor
    """Start, bends and end, laid flat, ``(n, B + 2, 2)``; the last ones are the end again."""
    lengths: Tensor
    """Of the parts between them, ``(n, B + 1)``."""
    converged: Tensor
    """Whether no other way round a vertex is shorter, ``(n)``."""

    @property
    def length(self) -> Tensor:
        """Of each path, ``(n)``."""
        return self.lengths.sum(-1)


def flat_position(corners: Tensor, barycentric: Tensor) -> Tensor:
    """Return points of triangles in the plane, ``(n, 3, 2)``, with barycentric coordinates ``(n, 3)``."""
    return (corners * barycentric[..., None]).sum(-2)


def paths_in(strip: Strip, x: Tensor, y: Tensor) -> Paths:
    """Return the shortest paths in strips between points with barycentric coordinates ``(n, 3)``."""
    # Bends are those of points inside the faces, where it is clear which side of a vertex a path takes: from a point on
    # the first edge that is crossed all of that edge lies in one direction, and its ends seem to be in the way.
    inside = [(1 - _INWARD) * b + _INWARD / 3 for b in (x, y)]
    bends = shortest_bends(strip, flat_position(strip.first, inside[0]), flat_position(strip.last, inside[1]))
    start, end = flat_position(strip.first, x), flat_position(strip.last, y)
    n, most = bends.portal.shape
    at = torch.arange(n, device=x.device)[:, None]
    vertices = torch.where(bends.on_left[..., None], strip.left[at, bends.portal], strip.right[at, bends.portal])
    used = torch.arange(most, device=x.device) < bends.total[:, None]
    vertices = torch.where(used[..., None], vertices, end[:, None])
    corners = torch.cat([start[:, None], vertices, end[:, None]], dim=1)
    lengths = torch.linalg.vector_norm(corners.diff(dim=1), dim=-1)
    return Paths(strip, bends, corners, lengths, torch.ones(n, dtype=torch.bool, device=x.device))


def shortest_paths(tables: StripTables, faces: Tensor, count: Tensor, x: Tensor, y: Tensor) -> Paths:
    """Return locally shortest paths, starting with strips that join the points.

    Where the shortest path in a strip bends at a vertex, and the faces on the other side of the vertex make an angle
    below pi, the way there is shorter: the strip is led round that vertex instead, the sharpest one first. Lengths only
    shrink, so this ends.

    Args:
        tables: of the mesh.
        faces: the strips, ``(n, L + 1)``.
        count: edges that each crosses, ``(n)``.
        x: barycentric coordinates of the start in the first face, ``(n, 3)``.
        y: of the end in the last face, ``(n, 3)``.

    References:
        Sharp & Crane, You can find geodesic paths in triangle meshes by just flipping edges, 2020,
        doi:10.1145/3414685.3417839, section 3: why it ends at a geodesic. There edges are flipped, here the strip is
        changed.
    """
    faces, count = faces.clone(), count.clone()
    n = len(faces)
    length = torch.full((n,), math.inf, dtype=x.dtype, device=x.device)
    alone = torch.zeros(n, dtype=torch.bool, device=x.device)
    converged = torch.zeros_like(alone)
    r = torch.arange(n, device=x.device)
    trial, trial_count = faces, count
    for _ in range(_ROUNDS):
        paths = paths_in(tables.laid_flat(trial, trial_count), x[r], y[r])
        shorter = paths.length < length[r] * (1 - _SAME_LENGTH)
        kept = r[shorter]
        length[kept], count[kept] = paths.length[shorter], trial_count[shorter]
        faces = _put(faces, kept, trial[shorter])
        # Changes at several vertices may get in each other's way: then they are made one by one.
        failed = ~shorter & ~alone[r]
        converged[r[~shorter & alone[r]]] = True
        alone[r] = ~shorter
        rounds = [(kept, _led_round(tables, taken(paths, shorter), False))]
        if bool(failed.any()):
            again = r[failed]
            width = int(count[again].max()) + 1
            kept_strips = tables.laid_flat(faces[again, :width], count[again])
            best = paths_in(kept_strips, x[again], y[again])
            rounds.append((again, _led_round(tables, best, True)))
        for index, (_, _, changed) in rounds:
            converged[index[~changed]] = True
        width = max(strips.shape[1] for _, (strips, _, _) in rounds)
        r = torch.cat([index[changed] for index, (_, _, changed) in rounds])
        trial = torch.cat([widened(strips[changed], width) for _, (strips, _, changed) in rounds])
        trial_count = torch.cat([counts[changed] for _, (_, counts, changed) in rounds])
        if not len(r):
            break
        trial = trial[:, : int(trial_count.max()) + 1]
    faces = faces[:, : int(count.max()) + 1] if n else faces
    return paths_in(tables.laid_flat(faces, count), x, y)._replace(converged=converged)


def taken(paths: Paths, rows: Tensor) -> Paths:
    """Return some of the paths."""
    strip, bends = Strip(*(a[rows] for a in paths.strip)), Bends(*(a[rows] for a in paths.bends))
    return Paths(strip, bends, paths.corners[rows], paths.lengths[rows], paths.converged[rows])


def _put(table: Tensor, index: Tensor, new: Tensor) -> Tensor:
    """Return the table with rows replaced, made wider where they are longer."""
    width = max(table.shape[1], new.shape[1])
    table = widened(table, width)
    table[index] = widened(new, width)
    return table


def widened(table: Tensor, width: int) -> Tensor:
    """Return strips of faces filled up to a width with their last face."""
    more = width - table.shape[1]
    return torch.cat([table, table[:, -1:].expand(-1, more)], dim=1) if more else table


def _led_round(tables: StripTables, paths: Paths, alone: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return strips led round the bends of each path that do not share faces, their counts, and which are changed.

    Only round the sharpest bend of each, if ``alone``.
    """
    strip, bends = paths.strip, paths.bends
    n, most = bends.portal.shape
    faces, counts, changed = strip.faces, strip.crossed.clone(), torch.zeros_like(paths.converged)
    place = torch.arange(most, device=faces.device)
    row, j = (place < bends.total[:, None]).nonzero().unbind(-1)
    if not len(row):
        return faces, counts, changed
    other, *about = _bend_angles(tables, paths, row, j)
    least = other.new_full((n,), math.inf).scatter_reduce(0, row, other, "amin")
    sharp = (other < math.pi - 1e-9) & ((other <= least[row]) | (not alone))
    row, j, begin, end, vertex, on_left = (a[sharp] for a in (row, j, *about))
    if not len(row):
        return faces, counts, changed
    fan, size = tables.other_way(faces[row, begin], vertex, faces[row, end + 1], on_left)
    # From the last bend to the first: what is replaced leaves the numbers of the edges before as they are.
    free_before = torch.full_like(counts, faces.shape[1])
    for k in range(int(j.max()), -1, -1):
        p = ((j == k) & (size > 0) & (end + 1 <= free_before[row])).nonzero()[:, 0]
        if not len(p):
            continue
        r = row[p]
        changed[r], free_before[r] = True, begin[p]
        counts[r] += size[p] - (end[p] + 1 - begin[p])
        spliced = _spliced(faces[r], begin[p], end[p], fan[p], size[p], int(counts[r].max()) + 1)
        faces = _put(faces.clone(), r, spliced)
    return *_without_returns(faces, counts), changed


def _without_returns(faces: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Return strips that do not go back at once over the edge by which they came."""
    place = torch.arange(faces.shape[1], device=faces.device)
    count = count.clone()
    while faces.shape[1] > 2:
        back = (faces[:, 2:] == faces[:, :-2]) & (place[2:] <= count[:, None])
        r = back.any(1).nonzero()[:, 0]
        if not len(r):
            break
        first = torch.where(back[r], place[:-2], faces.shape[1]).amin(1)
        skipped = torch.where(place > first[:, None], place + 2, place).clamp(max=faces.shape[1] - 1)
        faces = faces.clone()
        faces[r] = faces[r].gather(1, skipped)
        count[r] -= 2
    return faces, count


def _spliced(faces: Tensor, begin: Tensor, end: Tensor, fan: Tensor, size: Tensor, width: int) -> Tensor:
    """Return strips with the faces after ``begin`` up to ``end + 1`` replaced by those of fans."""
    place = torch.arange(width, device=faces.device).expand(len(faces), -1)
    begin, end, size = begin[:, None], end[:, None], size[:, None]
    in_fan = (place > begin) & (place <= begin + size)
    old = torch.where(place <= begin, place, place - size - begin + end + 1).clamp(0, faces.shape[1] - 1)
    of_fan = (place - begin - 1).clamp(0, fan.shape[1] - 1)
    return torch.where(in_fan, fan.gather(1, of_fan), faces.gather(1, old))


def _bend_angles(tables: StripTables, paths: Paths, row: Tensor, j: Tensor) -> tuple[Tensor, ...]:
    """Return the angle on the other side of each bend, the portals about its vertex from first to last, and the vertex.

    Args:
        tables: of the mesh.
        paths: those with bends.
        row: of each bend, its path.
        j: of each bend, its number along the path.
    """
    strip, bends = paths.strip, paths.bends
    portal, on_left = bends.portal[row, j], bends.on_left[row, j]
    mine = torch.where(on_left[:, None], strip.left_vertex[row], strip.right_vertex[row])
    facing = torch.where(on_left[:, None, None], strip.right[row], strip.left[row])
    at = torch.arange(len(row), device=row.device)
    vertex = mine[at, portal]
    place = torch.arange(mine.shape[1], device=row.device).expand_as(mine)
    away = (mine != vertex[:, None]) | (place >= strip.crossed[row, None])
    begin = torch.where(away & (place < portal[:, None]), place, -1).amax(-1) + 1
    end = torch.where(away & (place > portal[:, None]), place, mine.shape[1]).amin(-1) - 1
    here = paths.corners[row, j + 1]
    before, after = paths.corners[row, j] - here, paths.corners[row, j + 2] - here
    spokes = facing - here[:, None]
    inside = _angle(before, spokes[at, begin]) + _angle(after, spokes[at, end])
    if mine.shape[1] > 1:
        between = (place[:, 1:] > begin[:, None]) & (place[:, 1:] <= end[:, None])
        inside = inside + torch.where(between, _angle(spokes[:, :-1], spokes[:, 1:]), 0.0).sum(-1)
    return tables.total_angle[vertex] - inside, begin, end, vertex, on_left


def _angle(a: Tensor, b: Tensor) -> Tensor:
    crossed = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    return torch.atan2(crossed.abs(), (a * b).sum(-1))
