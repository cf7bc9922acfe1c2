"""Bounded sets as meshes: triangles whose border is that of the set, for flows along a surface."""

import math
from functools import singledispatch
from typing import NamedTuple

import torch
from scipy.spatial import Delaunay
from torch import Tensor

from manifolds import Ball, Bounded, Box, Constraint, JointLimits, Mesh, SphericalPolygon

_CIRCLE = 256
"""Corners of a disc, whose area is then right to 1e-4."""


class Triangles(NamedTuple):
    """A set as a mesh, and the map between them."""

    mesh: Mesh
    on_sphere: bool

    def to_mesh(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return points of the set on the mesh ``(n, 3)``, and the logarithm of the mesh's area per area of the set."""
        if not self.on_sphere:
            return self.mesh.projx(torch.nn.functional.pad(x.double(), (0, 1))), x.new_zeros(len(x)).double()
        # From the centre of the sphere to the plane of the nearest face.
        face = self.mesh.closest_face(x.double())
        corner, normal = self.mesh.vertices[self.mesh.faces[face, 0]], self.mesh.normal(x.double())
        height = (corner * normal).sum(-1)
        cosine = (x * normal).sum(-1)
        return self.mesh.projx(x * (height / cosine)[:, None]), 2 * height.abs().log() - 3 * cosine.abs().log()

    def from_mesh(self, y: Tensor) -> Tensor:
        """Return points of the set that are points of the mesh ``(n, 3)``."""
        return torch.nn.functional.normalize(y, dim=-1) if self.on_sphere else y[:, :2]


def triangles(m: Bounded, count: int = 1500) -> Triangles:
    """Return a mesh of a set in the plane, on a torus or on the sphere, with about so many vertices inside."""
    assert m.volume is not None
    spacing = math.sqrt(m.volume / count)
    border = _border(m.constraint, spacing / 2)
    on_sphere = border.shape[1] == 3
    draws = m.random_uniform(40 * count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    inner = _apart(draws[m.constraint.depth(draws) > spacing / 3], 0.7 * spacing)
    nodes = torch.cat([border, inner])
    flat = _stereographic(nodes) if on_sphere else nodes
    faces = torch.from_numpy(Delaunay(flat.numpy()).simplices).long()
    faces = _upright(flat, faces)
    return Triangles(_largest(nodes, faces[_inside(m, nodes, faces, spacing)]), on_sphere)


def _inside(m: Bounded, nodes: Tensor, faces: Tensor, spacing: float) -> Tensor:
    """Return which faces lie in the set, by their centres and the middles of their sides."""
    corners = nodes[faces]
    middles = m.m.projx((corners + corners.roll(1, 1)) / 2)
    centre, side = (m.constraint.depth(x) for x in (m.m.projx(corners.mean(1)), middles.flatten(0, 1)))
    return (centre > 1e-4 * spacing) & (side.reshape(-1, 3) > -1e-3 * spacing).all(1)


def _largest(nodes: Tensor, faces: Tensor) -> Mesh:
    """Return the largest part in which faces share edges, without sheets that touch in a point."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).sort(1).values
    _, edge = edges.unique(dim=0, return_inverse=True)
    face = torch.arange(len(faces)).repeat(3)
    incidence = coo_matrix((torch.ones(len(edge)).numpy(), (face.numpy(), edge.numpy()))).tocsr()
    _, part = connected_components(incidence @ incidence.T, directed=False)
    number = torch.from_numpy(part).long()
    kept = faces[number == number.mode().values]
    used, renumbered = kept.unique(return_inverse=True)
    own = nodes[used]
    return Mesh(own if own.shape[1] == 3 else torch.nn.functional.pad(own, (0, 1)), renumbered.reshape(-1, 3))


def _upright(flat: Tensor, faces: Tensor) -> Tensor:
    """Return the faces turned anticlockwise."""
    a, b, c = flat[faces].unbind(1)
    (ux, uy), (vx, vy) = (b - a).unbind(-1), (c - a).unbind(-1)
    return torch.where((ux * vy - uy * vx > 0)[:, None], faces, faces.flip(1))


def _apart(x: Tensor, least: float) -> Tensor:
    """Return points of which no two are nearer than ``least``, in the order given."""
    from scipy.spatial import cKDTree

    pairs = cKDTree(x.numpy()).query_pairs(least, output_type="ndarray")
    dropped = torch.zeros(len(x), dtype=torch.bool)
    near: dict[int, list[int]] = {}
    for first, second in pairs.tolist():
        near.setdefault(first, []).append(second)
    for i in range(len(x)):
        if not dropped[i]:
            dropped[near.get(i, [])] = True
    return x[~dropped]


def _stereographic(x: Tensor) -> Tensor:
    """Return the points of a sphere in the plane, from opposite their middle: Delaunay's triangles are the sphere's."""
    middle = torch.nn.functional.normalize(x.mean(0), dim=0)
    frame = torch.linalg.qr(torch.cat([middle[:, None], torch.eye(3, dtype=x.dtype)], 1))[0][:, 1:3]
    return x @ frame / (1 + x @ middle)[:, None]


@singledispatch
def _border(constraint: Constraint, spacing: float) -> Tensor:
    """Return points of the border, not farther from each other than a spacing."""
    raise TypeError(f"{constraint} has no triangles: they are for Ball, Box, JointLimits and SphericalPolygon")


@_border.register
def _(constraint: Ball, spacing: float) -> Tensor:
    phase = torch.arange(_CIRCLE, dtype=torch.float64) * (2 * math.pi / _CIRCLE)
    return constraint.centre + constraint.radius * torch.stack([phase.cos(), phase.sin()], -1)


@_border.register(Box)
@_border.register(JointLimits)
def _(constraint: Box | JointLimits, spacing: float) -> Tensor:
    low = constraint.lower
    corners = low + torch.tensor([[0, 0], [1, 0], [1, 1], [0, 1.0]]).double() * (low.new_tensor(constraint.high) - low)
    return _between(corners, corners.roll(-1, 0), spacing)


@_border.register
def _(constraint: SphericalPolygon, spacing: float) -> Tensor:
    return torch.nn.functional.normalize(_between(constraint.starts, constraint.ends, spacing), dim=-1)


def _between(starts: Tensor, ends: Tensor, spacing: float) -> Tensor:
    parts = []
    for start, end in zip(starts, ends, strict=True):
        count = max(1, math.ceil(float((end - start).norm()) / spacing))
        parts.append(start + torch.arange(count, dtype=start.dtype)[:, None] / count * (end - start))
    return torch.cat(parts)
