"""Tangent fields on a mesh whose flux is the same on both sides of every edge."""

import torch
from torch import Tensor

from manifolds.meshes.surface import Surface, rows


def corner_maps(surface: Surface) -> Tensor:
    """Return, for each corner of each face, the matrix from ambient vectors to the face's plane, ``(F, 3, 3, 3)``.

    The projection of an ambient field to the faces jumps at the edges: what flows out of one face does not flow into
    the next, so mass is lost or piles up there, and the integral of the divergence within faces knows nothing of it.
    Here the component of the result normal to an edge is ``<c, w>`` on both of its sides, with the conormal c of the
    edge that is midway between those of its faces: at a corner the two edges that meet there determine the vector, and
    the corners' vectors, interpolated over the face, have that component all along the edges. On a flat neighbourhood
    it is the projection. At a border c is 0, so that nothing flows out.
    """
    out = -surface.gradients / torch.linalg.vector_norm(surface.gradients, dim=-1, keepdim=True)
    across = rows(surface.neighbour, torch.arange(len(out), device=out.device)).clamp(min=0)
    c = out - out[across, surface.side]
    size = torch.linalg.vector_norm(c, dim=-1, keepdim=True)
    inner = (surface.neighbour >= 0)[..., None] & (size > 1e-9)
    c = torch.where(inner, c / torch.where(inner, size, 1.0), 0.0)
    a, b, d = surface.corners.unbind(1)
    sides = torch.stack([d - b, a - d, b - a], dim=1)
    # At corner i meet sides j = i + 1 and k = i + 2. The vector with normal components p and q there is
    # p s_k / <s_k, n_j> + q s_j / <s_j, n_k>, since a side has no component along its own conormal.
    s_j, s_k, n_j, n_k, c_j, c_k = (a for q in (sides, out, c) for a in (q.roll(-1, 1), q.roll(-2, 1)))
    first = s_k / (s_k * n_j).sum(-1, keepdim=True)
    second = s_j / (s_j * n_k).sum(-1, keepdim=True)
    return first[..., None] * c_j[..., None, :] + second[..., None] * c_k[..., None, :]
