"""The shortest path inside a strip of triangles laid flat."""

from typing import NamedTuple

import torch
from torch import Tensor


class Strip(NamedTuple):
    """Strips of faces laid flat in the plane of their first face, ``n`` of them; all of float64 or indices.

    Rows are filled up to the longest strip; what is beyond a strip's own ``crossed`` edges is not used.
    """

    faces: Tensor
    """In their order, ``(n, L + 1)``."""
    crossed: Tensor
    """Edges that are crossed, ``(n)``, at most L."""
    left: Tensor
    """The end of each crossed edge on the left of a path along the strip, ``(n, L, 2)``."""
    right: Tensor
    left_vertex: Tensor
    """Which vertex that is, ``(n, L)``."""
    right_vertex: Tensor
    first: Tensor
    """The corners of the first face, ``(n, 3, 2)``."""
    last: Tensor
    """The corners of the last face, ``(n, 3, 2)``."""


class Bends(NamedTuple):
    """Where the shortest path in a strip touches its rim, in order, for ``n`` strips."""

    portal: Tensor
    """The crossed edge with the vertex that is touched, ``(n, B)``."""
    on_left: Tensor
    """Whether that is the left end of the edge, ``(n, B)``."""
    total: Tensor
    """How many there are, ``(n)``."""


def cross(a: Tensor, b: Tensor) -> Tensor:
    """Return the cross product of vectors in the plane."""
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


class _Funnel:
    """The state of the search: an apex, and the tightest edges of what is seen from it through the strip so far."""

    def __init__(self, strip: Strip, x: Tensor, y: Tensor) -> None:
        n = len(strip.crossed)
        self.count, self.rows = strip.crossed, torch.arange(n, device=x.device)
        # The target is the last portal, of no width.
        end = (self.rows, strip.crossed)
        self.points, self.vertices = [], []
        for side, vertex in ((strip.left, strip.left_vertex), (strip.right, strip.right_vertex)):
            points = torch.cat([side, y[:, None]], 1)
            points[end] = y
            ids = torch.cat([vertex, vertex.new_full((n, 1), -2)], 1)
            ids[end] = -2
            self.points.append(points)
            self.vertices.append(ids)
        self.apex, self.apex_vertex = x.clone(), strip.crossed.new_full((n,), -1)
        self.edge = [x.clone(), x.clone()]
        self.edge_vertex = [self.apex_vertex.clone(), self.apex_vertex.clone()]
        self.edge_portal = [self.apex_vertex.clone(), self.apex_vertex.clone()]
        self.at = torch.zeros_like(strip.crossed)
        self.found: list[tuple[Tensor, Tensor, Tensor]] = []

    def step(self, active: Tensor) -> None:
        """Look at the next portal of the active rows: narrow what is seen, or bend."""
        r = self.rows[active]
        at, apex = self.at[r], self.apex[r]
        final = at == self.count[r]
        new = [points[r, at] for points in self.points]
        old = [edge[r] for edge in self.edge]
        narrower, over = [], []
        for mine, other, sign in ((0, 1, -1.0), (1, 0, 1.0)):
            # Left edges narrow clockwise, right ones the other way round.
            free = self.edge_vertex[mine][r] == self.apex_vertex[r]
            blocked = self.edge_vertex[other][r] != self.apex_vertex[r]
            a = new[mine] - apex
            narrower.append(free | (sign * cross(old[mine] - apex, a) >= 0))
            over.append(narrower[mine] & blocked & (sign * cross(old[other] - apex, a) >= 0))
        # Over the right edge by the left end: a bend at the right, and the other way round. On the edge is no bend at
        # the target.
        strictly = [sign * cross(old[other] - apex, new[0] - apex) > 0 for other, sign in ((1, -1.0), (0, 1.0))]
        bend_left = over[1] & (~final | strictly[1])
        bend_right = over[0] & (~final | strictly[0]) & ~bend_left
        bends = bend_left | bend_right
        for mine in (0, 1):
            take = narrower[mine] & ~bends
            ids = self.vertices[mine][r, at]
            self.edge[mine][r] = torch.where(take[:, None], new[mine], old[mine])
            self.edge_vertex[mine][r] = torch.where(take, ids, self.edge_vertex[mine][r])
            self.edge_portal[mine][r] = torch.where(take, at, self.edge_portal[mine][r])
        self.at[r] = at + 1
        if bool(bends.any()):
            self._bend(r[bends], bend_left[bends])

    def _bend(self, r: Tensor, on_left: Tensor) -> None:
        """Go on from the vertex that is in the way."""
        portal = torch.where(on_left, self.edge_portal[0][r], self.edge_portal[1][r])
        apex = torch.where(on_left[:, None], self.edge[0][r], self.edge[1][r])
        vertex = torch.where(on_left, self.edge_vertex[0][r], self.edge_vertex[1][r])
        self.found.append((r, portal, on_left))
        self.apex[r], self.apex_vertex[r], self.at[r] = apex, vertex, portal + 1
        for mine in (0, 1):
            self.edge[mine][r], self.edge_vertex[mine][r], self.edge_portal[mine][r] = apex, vertex, portal

    def bends(self) -> Bends:
        """Return what was found, in tables."""
        n = len(self.rows)
        counts = torch.zeros_like(self.count)
        for r, _, _ in self.found:
            counts[r] += 1
        most = int(counts.max()) if n else 0
        portal, on_left = counts.new_zeros(n, most), torch.zeros(n, most, dtype=torch.bool, device=counts.device)
        filled = torch.zeros_like(counts)
        for r, p, left in self.found:
            portal[r, filled[r]], on_left[r, filled[r]] = p, left
            filled[r] += 1
        return Bends(portal, on_left, counts)


def shortest_bends(strip: Strip, x: Tensor, y: Tensor) -> Bends:
    """Return where the shortest path bends from ``x`` in the first face to ``y`` in the last, ``(n, 2)``.

    The funnel algorithm, for all strips side by side.

    References:
        Lee & Preparata, Euclidean shortest paths in the presence of rectilinear barriers, Networks 14 (1984), 393-410.
    """
    funnel = _Funnel(strip, x, y)
    # Each portal is looked at again at most once for each bend before it.
    for _ in range((strip.left.shape[1] + 2) ** 2):
        active = funnel.at <= strip.crossed
        if not bool(active.any()):
            break
        funnel.step(active)
    return funnel.bends()
