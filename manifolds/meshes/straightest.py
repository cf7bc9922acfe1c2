"""Straightest geodesics: straight in every face, and straight on over every edge when its faces are laid flat."""

from typing import Any

import torch
from torch import Tensor

from manifolds.meshes.surface import Surface, rows

_MOST_CROSSINGS = 100_000
"""Edges that one geodesic may cross, of which short ones about a vertex may be many."""


@torch.library.custom_op("manifolds::straightest_walk", mutates_args=())
def straightest_walk(
    x: Tensor,
    u: Tensor,
    face: Tensor,
    corners: Tensor,
    gradients: Tensor,
    normal: Tensor,
    neighbour: Tensor,
    side_across: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Follow the straightest geodesics from points in faces, for the length of their velocities.

    An operator of torch, since how many edges are crossed depends on the values.

    Args:
        x: points ``(..., 3)``.
        u: tangent vectors ``(..., 3)``.
        face: that the points lie in, ``(...)``.
        corners: see `Surface`, in the dtype of ``x``; as the next two.
        gradients: of the barycentric coordinates.
        normal: of the faces.
        neighbour: the faces across their sides.
        side_across: which of the neighbours' sides these are.

    Returns:
        Where they end ``(..., 3)``, in which face ``(...)``, the matrix ``(..., 3, 3)`` that carries vectors in the
        plane of the first face to that of the last, and how much of the length is left, from 0 to 1, ``(...)``: more
        than 0 where a geodesic came to a border, and ends there.
    """
    shape = face.shape
    flat = x.reshape(-1, 3), u.reshape(-1, 3), face.reshape(-1)
    y, last, turn, left = _walk(*flat, corners, gradients, normal, neighbour, side_across)
    return y.reshape(*shape, 3), last.reshape(shape), turn.reshape(*shape, 3, 3), left.reshape(shape)


@straightest_walk.register_fake
def _(x: Tensor, u: Tensor, face: Tensor, *tables: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    y = x.new_empty(x.shape)
    return y, face.new_empty(face.shape), x.new_empty(*x.shape, 3), x.new_empty(face.shape)


@straightest_walk.register_vmap
def _(info: Any, in_dims: Any, x: Tensor, u: Tensor, face: Tensor, *tables: Tensor) -> tuple[Any, Any]:
    n = info.batch_size
    given = [
        a.expand(n, *a.shape).contiguous() if dim is None else a.movedim(dim, 0)
        for a, dim in zip((x, u, face), in_dims, strict=False)
    ]
    return straightest_walk(*given, *tables), (0, 0, 0, 0)


def _walk(
    x: Tensor,
    u: Tensor,
    face: Tensor,
    corners: Tensor,
    gradients: Tensor,
    normal: Tensor,
    neighbour: Tensor,
    side_across: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n = len(x)
    y, last = x.clone(), face.clone()
    turn = torch.eye(3, dtype=x.dtype, device=x.device).expand(n, 3, 3).clone()
    left = x.new_zeros(n)
    row = torch.arange(n, device=x.device)
    start = rows(corners, face)
    # Barycentric coordinates relative to a corner each: exact at the corners.
    b = ((x[:, None] - start.roll(-1, 1)) * rows(gradients, face)).sum(-1).clamp(min=0)
    b = b / b.sum(-1, keepdim=True)
    rest, r, f = x.new_ones(n), turn.clone(), face
    for _ in range(_MOST_CROSSINGS):
        db = (rows(gradients, f) @ u[..., None])[..., 0]
        # The side that is reached first; one that is moved away from never is.
        reach = torch.where(db < 0, b / torch.where(db < 0, -db, 1.0), torch.inf)
        step, side = reach.min(-1)
        crosses = step < rest
        across = neighbour[f].gather(-1, side[:, None])[:, 0]
        ends = ~crosses | (across < 0)
        b = (b + torch.where(crosses, step, rest)[:, None] * db).clamp(min=0)
        b = torch.where(crosses[:, None], b.scatter(-1, side[:, None], 0.0), b)
        b = b / b.sum(-1, keepdim=True)
        rest = torch.where(crosses, rest - step, 0.0)
        if bool(ends.any()) or not len(row):
            done = ends.nonzero()[:, 0]
            y[row[done]] = (b[done, :, None] * rows(corners, f[done])).sum(-2)
            last[row[done]], turn[row[done]], left[row[done]] = f[done], r[done], rest[done]
            go = (~ends).nonzero()[:, 0]
            if not len(go):
                break
            row, u, f, b, rest, r, side, across = (a[go] for a in (row, u, f, b, rest, r, side, across))
        u, b, r = _crossed(u, b, r, f, across, side, corners, normal, side_across)
        f = across
    return y, last, turn, left


def _crossed(
    u: Tensor,
    b: Tensor,
    r: Tensor,
    f: Tensor,
    g: Tensor,
    side: Tensor,
    corners: Tensor,
    normal: Tensor,
    side_across: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return velocity, barycentric coordinates and turn on the other face of the edge ``side`` of ``f``."""
    from_corner, to_corner = (side + 1) % 3, (side + 2) % 3
    at = torch.arange(len(f), device=f.device)
    edge = corners[f, to_corner] - corners[f, from_corner]
    edge = edge / torch.linalg.vector_norm(edge, dim=-1, keepdim=True)
    frame = torch.stack([edge, torch.linalg.cross(edge, normal[f]), normal[f]], dim=-1)
    beyond = torch.stack([edge, torch.linalg.cross(edge, normal[g]), normal[g]], dim=-1)
    rotation = beyond @ frame.mT
    # The other face runs along the edge the other way: its side there begins where that of f ends.
    entry = side_across[f, side]
    c = torch.zeros_like(b)
    c[at, (entry + 1) % 3] = b[at, to_corner]
    c[at, (entry + 2) % 3] = b[at, from_corner]
    return (rotation @ u[..., None])[..., 0], c, rotation @ r


def walk(surface: Surface, x: Tensor, u: Tensor, face: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what `straightest_walk` does, from tables in float64 rounded to the dtype of ``x``."""
    tables = [a.to(x.dtype) for a in (surface.corners, surface.gradients, surface.normal)]
    x, u = (a.detach().contiguous() for a in torch.broadcast_tensors(x, u))
    return straightest_walk(x, u, face.expand(x.shape[:-1]).contiguous(), *tables, surface.neighbour, surface.side)
