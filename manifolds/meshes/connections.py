"""What logarithms, distances and transport on a mesh need to know of a shortest path."""

from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from manifolds.meshes.heat_distance import HeatDistance
from manifolds.meshes.shortest import Paths, shortest_paths, taken, widened
from manifolds.meshes.strips import StripTables, descent_strips, graph_strips

_TOGETHER = 4096
"""Paths that are searched for at a time."""

_FINDERS: "WeakValueDictionary[int, PathFinder]" = WeakValueDictionary()
"""By the number that stands for them in arguments of an operator of torch, which takes no objects."""


class Connection(NamedTuple):
    """Locally shortest paths from points to points, ``(*batch)`` of them, without a graph."""

    aim: Tensor
    """What the path runs to first, laid flat in the plane of the first face: the end, or a vertex, ``(*batch, 3)``."""
    length: Tensor
    """``(*batch)``."""
    turn: Tensor
    """What carries vectors of the first face's plane along the path to the last one's, ``(*batch, 3, 3)``."""
    last_vertex: Tensor
    """The last vertex that the path bends at, ``(*batch, 3)``."""
    bends: Tensor
    """At how many vertices it bends, ``(*batch)``."""
    position: Tensor
    """The point at a share of the length, ``(*batch, 3)``."""
    direction: Tensor
    """Of the path there, a unit vector; 0 where the path has no length, ``(*batch, 3)``."""
    part: Tensor
    """How many bends lie before, ``(*batch)``."""
    converged: Tensor
    """Whether the path is locally shortest, ``(*batch)``."""


class PathFinder:
    """Finds locally shortest paths.

    Args:
        tables: of the mesh.
        heat: distances from vertices, which lead to the first strips.
    """

    def __init__(self, tables: StripTables, heat: HeatDistance) -> None:
        self.tables, self.heat = tables, heat
        self.key = max(_FINDERS, default=0) + 1
        _FINDERS[self.key] = self

    def find(self, x: Tensor, y: Tensor, face_x: Tensor, face_y: Tensor, t: Tensor) -> Connection:
        """Return the paths between points ``(n, 3)`` in faces ``(n)``, and where they are at shares ``t`` ``(n)``."""
        start, end = self._barycentric(face_x, x), self._barycentric(face_y, y)
        there, count, arrives = self._descent(face_x, face_y, end)
        back, count_back, arrives_back = self._descent(face_y, face_x, start)
        back = _reversed(back, count_back)
        # Led by the distances from either end, the shorter: so it is the same both ways.
        width = max(there.shape[1], back.shape[1])
        strips, counts = torch.cat([widened(there, width), widened(back, width)]), torch.cat([count, count_back])
        both = shortest_paths(self.tables, strips, counts, start.repeat(2, 1), end.repeat(2, 1))
        apart = ~torch.cat([arrives, arrives_back])
        length = torch.where(apart, torch.inf, both.length).unflatten(0, (2, -1))
        best = length.argmin(0) * len(x) + torch.arange(len(x), device=x.device)
        found = self._connection(taken(both, best), t)
        return found._replace(
            length=torch.where(apart[best], torch.inf, found.length), converged=found.converged & ~apart[best]
        )

    def _descent(self, start: Tensor, end: Tensor, at_end: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return strips from faces to faces, how many edges they cross, and which there are."""
        vertex = self.tables.faces[end].gather(1, at_end.argmax(-1, keepdim=True))[:, 0]
        distance = self.heat.from_vertices(vertex)
        strips, count, arrives = descent_strips(self.tables, distance, start, end, vertex)
        lost = (~arrives).nonzero()[:, 0]
        if len(lost):
            others, counts, arrive = graph_strips(self.tables.surface, start[lost], end[lost])
            width = max(strips.shape[1], others.shape[1])
            strips = widened(strips, width)
            strips[lost], count[lost], arrives[lost] = widened(others, width), torch.where(arrive, counts, 0), arrive
        return strips[:, : int(count.max()) + 1], count, arrives

    def _barycentric(self, face: Tensor, x: Tensor) -> Tensor:
        surface = self.tables.surface
        b = ((x[:, None] - surface.corners[face].roll(-1, 1)) * surface.gradients[face]).sum(-1).clamp(min=0)
        return b / b.sum(-1, keepdim=True)

    def _connection(self, paths: Paths, t: Tensor) -> Connection:
        at = torch.arange(len(t), device=t.device)
        first = self._plane(paths, torch.zeros_like(paths.strip.crossed))
        last = self._plane(paths, paths.strip.crossed)
        share, part, number = self._place(paths, t)
        here = self._plane(paths, number)
        start, end = paths.corners[at, part], paths.corners[at, part + 1]
        length = paths.lengths[at, part, None]
        direction = (end - start) / torch.where(length > 0, length, 1.0)
        final = torch.where(paths.bends.total > 0, paths.bends.total, 0)
        return Connection(
            aim=first.position(paths.corners[:, 1]),
            length=paths.length,
            turn=last.basis @ first.basis.mT,
            last_vertex=last.position(paths.corners[at, final]),
            bends=paths.bends.total,
            position=here.position(start + share[:, None] * (end - start)),
            direction=(here.basis @ direction[..., None])[..., 0],
            part=part,
            converged=paths.converged,
        )

    def _place(self, paths: Paths, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the share of the straight part that a path is in, which part that is, and the face's number."""
        strip, bends = paths.strip, paths.bends
        at = torch.arange(len(t), device=t.device)
        ends = paths.lengths.cumsum(1)
        s = t.clamp(0, 1) * ends[:, -1]
        part = torch.minimum((ends < s[:, None]).sum(-1), bends.total)
        before = torch.where(part > 0, ends[at, (part - 1).clamp(min=0)], 0.0)
        length = paths.lengths[at, part]
        share = ((s - before) / torch.where(length > 0, length, 1.0)).clamp(0, 1)
        if not strip.left_vertex.shape[1]:
            return share, part, torch.zeros_like(part)
        portal = torch.arange(strip.left_vertex.shape[1], device=t.device).expand_as(strip.left_vertex)
        used = torch.arange(bends.portal.shape[1], device=t.device) < bends.total[:, None]
        own = ((bends.portal[:, None] < portal[..., None]) & used[:, None]).sum(-1)
        start, step = paths.corners[at[:, None], own], paths.corners.diff(dim=1)[at[:, None], own]
        edge = strip.right - strip.left
        over, slope = _cross(strip.left - start, edge), _cross(step, edge)
        where = (over / torch.where(slope != 0, slope, 1.0)).clamp(0, 1)
        arc = ends[at[:, None], own] - (1 - where) * paths.lengths[at[:, None], own]
        crossed = (arc.cummax(1).values < s[:, None]) & (portal < strip.crossed[:, None])
        return share, part, crossed.sum(-1)

    def _plane(self, paths: Paths, number: Tensor) -> "_Plane":
        """Return how the faces with these numbers along their strips lie in space."""
        strip, surface = paths.strip, self.tables.surface
        at = torch.arange(len(number), device=number.device)
        begin = surface.corners[strip.faces[:, 0], 0], surface.frame[strip.faces[:, 0]].mT
        origin = torch.zeros_like(strip.first[:, 0])
        if not strip.left_vertex.shape[1]:
            return _Plane(origin, *begin)
        face, portal = strip.faces[at, number], (number - 1).clamp(min=0)
        left, right = strip.left[at, portal], strip.right[at, portal]
        corner = self.tables.faces[face] == strip.right_vertex[at, portal][:, None]
        other = self.tables.faces[face] == strip.left_vertex[at, portal][:, None]
        from_right = (surface.corners[face] * corner[..., None]).sum(1)
        edge = (surface.corners[face] * other[..., None]).sum(1) - from_right
        outward = torch.linalg.cross(edge, surface.normal[face])
        flat = left - right
        squared = flat.square().sum(-1)[:, None, None]
        axes = torch.stack([flat, torch.stack([flat[:, 1], -flat[:, 0]], -1)], 1)
        basis = torch.stack([edge, outward], -1) @ axes / squared
        inner = number > 0
        return _Plane(
            torch.where(inner[:, None], right, origin),
            torch.where(inner[:, None], from_right, begin[0]),
            torch.where(inner[:, None, None], basis, begin[1]),
        )


class _Plane(NamedTuple):
    """Where coordinates of strips laid flat are in space."""

    flat_origin: Tensor
    origin: Tensor
    basis: Tensor
    """``(n, 3, 2)``."""

    def position(self, p: Tensor) -> Tensor:
        return self.origin + (self.basis @ (p - self.flat_origin)[..., None])[..., 0]


def _reversed(strips: Tensor, count: Tensor) -> Tensor:
    place = torch.arange(strips.shape[1], device=strips.device)
    return strips.gather(1, (count[:, None] - place).clamp(min=0))


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


@torch.library.custom_op("manifolds::connect", mutates_args=())
def connect(finder: int, x: Tensor, y: Tensor, face_x: Tensor, face_y: Tensor, t: Tensor) -> list[Tensor]:
    """Return the entries of a `Connection`, in float64; points ``(..., 3)``, faces and shares ``(...)``.

    An operator of torch, since what is searched depends on the points: so it can be mapped over.

    Args:
        finder: the ``key`` of a `PathFinder`.
        x: starts.
        y: ends.
        face_x: that the starts lie in.
        face_y: that the ends lie in.
        t: share of the length, from 0 to 1, at which a position is wanted.
    """
    shape = face_x.shape
    if not face_x.numel():
        return _like(x, face_x)
    flat = x.reshape(-1, 3).double(), y.reshape(-1, 3).double(), face_x.reshape(-1), face_y.reshape(-1), t.reshape(-1)
    blocks = zip(*(a.split(_TOGETHER) for a in (*flat[:4], flat[4].double())), strict=True)
    parts = [_FINDERS[finder].find(*block) for block in blocks]
    return [
        torch.cat(entries).unflatten(0, shape) if shape else torch.cat(entries)[0].clone()
        for entries in zip(*parts, strict=True)
    ]


@connect.register_fake
def _(finder: int, x: Tensor, y: Tensor, face_x: Tensor, face_y: Tensor, t: Tensor) -> list[Tensor]:
    return _like(x, face_x)


def _like(x: Tensor, face_x: Tensor) -> list[Tensor]:
    """Return tensors of the shapes and dtypes of the results."""
    vector, scalar = x.new_empty(x.shape, dtype=torch.float64), x.new_empty(x.shape[:-1], dtype=torch.float64)
    whole, flag = torch.empty_like(face_x), torch.empty_like(face_x, dtype=torch.bool)
    turn = x.new_empty(*x.shape, 3, dtype=torch.float64)
    like = (vector, scalar, turn, vector, whole, vector, vector, whole, flag)
    return [torch.empty_like(a) for a in like]


@connect.register_vmap
def _(info: Any, in_dims: Any, finder: int, *given: Tensor) -> tuple[Any, Any]:
    n = info.batch_size
    moved = [
        a.expand(n, *a.shape).contiguous() if dim is None else a.movedim(dim, 0)
        for a, dim in zip(given, in_dims[1:], strict=True)
    ]
    found = connect(finder, *moved)
    return found, [0] * len(found)
