"""The closest triangle of many to each of many points, by a tree of bounding boxes."""

import math
from typing import Any

import torch
from torch import Tensor

_BRANCHES = 4
_LEAF = 8
"""Triangles in a leaf, at most."""

_FIRST_LEVEL = 2
"""Where the search starts, with all boxes of this level."""

_QUERIES = 1 << 14
"""Points searched for at a time, whose boxes fit into a cache."""


def closest_on_triangles(x: Tensor, corners: Tensor) -> tuple[Tensor, Tensor]:
    """Return the closest point of one triangle to each point, as barycentric coordinates, and its squared distance.

    Args:
        x: points ``(..., 3)``.
        corners: triangles ``(..., 3, 3)``, a corner in each row; they may be degenerate, as segments and points are.

    Returns:
        Barycentric coordinates ``(..., 3)``, none negative, and squared distances ``(...)``.

    References:
        Ericson, Real-Time Collision Detection, 2005, section 5.1.5.
    """
    a, b, c = corners.unbind(-2)
    ab, ac, ax = b - a, c - a, x - a
    d00, d01, d11, d20, d21 = _dot(ab, ab), _dot(ab, ac), _dot(ac, ac), _dot(ax, ab), _dot(ax, ac)
    tiny = torch.finfo(x.dtype).tiny
    area = (d00 * d11 - d01 * d01).clamp(min=tiny)
    v, w = (d11 * d20 - d01 * d21) / area, (d00 * d21 - d01 * d20) / area
    inside = (v >= 0) & (w >= 0) & (v + w <= 1)
    s_ab = (d20 / d00.clamp(min=tiny)).clamp(0, 1)
    s_ac = (d21 / d11.clamp(min=tiny)).clamp(0, 1)
    # Along bc, from b.
    d_bc = (d00 + d11 - 2 * d01).clamp(min=tiny)
    s_bc = ((d21 - d20 - d01 + d00) / d_bc).clamp(0, 1)
    zero = torch.zeros_like(v)
    candidates_v = torch.stack([v, s_ab, zero, 1 - s_bc])
    candidates_w = torch.stack([w, zero, s_ac, s_bc])
    offset = candidates_v[..., None] * ab + candidates_w[..., None] * ac - ax
    squared = _dot(offset, offset)
    best = squared[1:].min(0).indices + 1
    best = torch.where(inside, torch.zeros_like(best), best)[None]
    v, w, squared = (q.gather(0, best)[0] for q in (candidates_v, candidates_w, squared))
    return torch.stack([(1 - v - w).clamp(min=0), v, w], dim=-1), squared


class TriangleTree:
    """A balanced tree of boxes about triangles, four to a box, searched for many points at a time.

    A search costs a number of box tests that is logarithmic in the number of triangles for points near the surface: a
    first descent finds a near triangle, and a breadth-first pass leaves out every box that is further.

    Args:
        corners: of the triangles, ``(m, 3, 3)``, float64.
    """

    def __init__(self, corners: Tensor) -> None:
        depth = max(_FIRST_LEVEL, math.ceil(math.log(max(1.0, len(corners) / _LEAF), _BRANCHES)))
        leaves = _BRANCHES**depth
        size = -(-len(corners) // leaves)
        # Filled up with copies of the last triangle, so that all leaves are of one size.
        order = torch.arange(leaves * size, device=corners.device).clamp(max=len(corners) - 1)[None]
        centres = corners.mean(1)
        while order.shape[1] > size:
            order = _halved(order, centres)
        self.depth, self.leaves = depth, order
        low, high = corners[order].amin((1, 2)), corners[order].amax((1, 2))
        boxes = [torch.stack([low, high], dim=1)]
        for _ in range(depth - _FIRST_LEVEL):
            low, high = low.unflatten(0, (-1, _BRANCHES)).amin(1), high.unflatten(0, (-1, _BRANCHES)).amax(1)
            boxes.append(torch.stack([low, high], dim=1))
        self.boxes = boxes[::-1]
        """Corners of the boxes of each level from the first that is searched, ``(b, 2, 3)``."""


def _halved(order: Tensor, centres: Tensor) -> Tensor:
    """Split each row of triangles in two at the median along the longest axis of its centres."""
    where = centres[order]
    axis = (where.amax(1) - where.amin(1)).argmax(-1)
    along = where.gather(2, axis[:, None, None].expand(-1, where.shape[1], 1))[..., 0]
    ranked = order.gather(1, along.argsort(dim=1, stable=True))
    return ranked.reshape(2 * len(order), -1)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    # A sum over an axis of three takes eight times as long.
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]


def _box_distance(x: Tensor, box: Tensor) -> Tensor:
    low, high = box.unbind(-2)
    outside = torch.maximum(low - x, x - high).clamp_(min=0)
    return _dot(outside, outside)


@torch.library.custom_op("manifolds::closest_triangle", mutates_args=())
def closest_triangle(x: Tensor, corners: Tensor, leaves: Tensor, boxes: list[Tensor]) -> Tensor:
    """Return the index of the closest triangle to each point ``(..., 3)``, ``(...)``; of several, the first.

    An operator of torch, since what is searched depends on the points: so it can be mapped over and compiled.

    Args:
        x: points, without a graph.
        corners: of the triangles, ``(m, 3, 3)``.
        leaves: those of a `TriangleTree`.
        boxes: those of a `TriangleTree`.
    """
    flat = x.reshape(-1, 3)
    parts = [_search(part, corners, leaves, boxes) for part in flat.split(_QUERIES)]
    return torch.cat(parts).reshape(x.shape[:-1])


@closest_triangle.register_fake
def _(x: Tensor, corners: Tensor, leaves: Tensor, boxes: list[Tensor]) -> Tensor:
    return x.new_empty(x.shape[:-1], dtype=torch.long)


@closest_triangle.register_vmap
def _(info: Any, in_dims: Any, x: Tensor, *tree: Any) -> tuple[Tensor, int]:
    return closest_triangle(x.movedim(in_dims[0], 0), *tree), 0


def _search(x: Tensor, corners: Tensor, leaves: Tensor, boxes: list[Tensor]) -> Tensor:
    n = len(x)
    if not n:
        return torch.zeros(0, dtype=torch.long, device=x.device)
    best = _greedy_bound(x, corners, leaves, boxes)
    node = torch.arange(len(boxes[0]), device=x.device).expand(n, -1)
    near = _box_distance(x[:, None], boxes[0]) <= best[:, None]
    query, node = near.nonzero().unbind(-1)
    children = torch.arange(_BRANCHES, device=x.device)
    for level in boxes[1:]:
        child = node[:, None] * _BRANCHES + children
        near = _box_distance(x[query][:, None], level[child]) <= best[query][:, None]
        row, column = near.nonzero().unbind(-1)
        query, node = query[row], child[row, column]
    triangle = leaves[node]
    squared = closest_on_triangles(x[query][:, None], corners[triangle])[1]
    least = squared.new_full((n,), math.inf).scatter_reduce(0, query, squared.amin(-1), "amin")
    tied = torch.where(squared <= least[query][:, None], triangle, len(corners)).amin(-1)
    first = query.new_full((n,), len(corners)).scatter_reduce(0, query, tied, "amin")
    # A point that is not finite is near no box.
    return torch.where(first < len(corners), first, 0)


def _greedy_bound(x: Tensor, corners: Tensor, leaves: Tensor, boxes: list[Tensor]) -> Tensor:
    """Return the squared distance of each point to a near triangle, with a margin for rounding."""
    centre = boxes[0].mean(-2)
    away = x[:, None] - centre
    node = (_box_distance(x[:, None], boxes[0]) + 1e-9 * _dot(away, away)).argmin(-1)
    children = torch.arange(_BRANCHES, device=x.device)
    for level in boxes[1:]:
        child = node[:, None] * _BRANCHES + children
        centre = level[child].mean(-2)
        # Boxes overlap: of those that hold the point, the one about whose middle it lies.
        away = x[:, None] - centre
        further = 1e-9 * _dot(away, away)
        node = child.gather(1, (_box_distance(x[:, None], level[child]) + further).argmin(-1, keepdim=True))[:, 0]
    squared = closest_on_triangles(x[:, None], corners[leaves[node]])[1].amin(-1)
    return squared * (1 + 1e-6) + 1e-12 * x.square().sum(-1).clamp(min=1e-30) * 1e-6
