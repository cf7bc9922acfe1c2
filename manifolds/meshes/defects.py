"""What is wrong with a mesh, where, and how to repair it."""

from typing import Any

import torch
from torch import Tensor

from manifolds.arguments import shown

_THIN = 1e-12
"""Twice the area over the squared longest side, below which a face has no plane."""


def checked_mesh(vertices: Any, faces: Any, closed: bool) -> tuple[Tensor, Tensor]:
    """Return vertices ``(V, 3)`` in float64 and faces ``(F, 3)`` as integers, if they make a surface.

    Args:
        vertices: positions.
        faces: indices of corners.
        closed: whether a border is a defect.

    Raises:
        ValueError: they do not, in one sentence with what, where, and the remedy.
    """
    # Lists of Python's numbers would be rounded to float32.
    exact = torch.float64 if isinstance(vertices, list | tuple) else None
    vertices, faces = torch.as_tensor(vertices, dtype=exact), torch.as_tensor(faces)
    if vertices.ndim != 2 or vertices.shape[1] != 3 or vertices.dtype == torch.bool or vertices.is_complex():
        raise ValueError(f"Mesh: vertices must be positions (V, 3), got {shown(vertices)} of {tuple(vertices.shape)}")
    whole = not (faces.is_floating_point() or faces.is_complex() or faces.dtype == torch.bool)
    if faces.ndim != 2 or faces.shape[1] != 3 or not len(faces) or not whole:
        raise ValueError(
            f"Mesh: faces must be whole numbers (F, 3), three corners for each, got {faces.dtype} of shape "
            f"{tuple(faces.shape)}; cut other polygons into triangles first"
        )
    vertices, faces = vertices.detach().double(), faces.detach().long()
    _check_indices(vertices, faces)
    _check_shapes(vertices, faces)
    _check_edges(faces)
    _check_fans(faces)
    _check_parts(faces)
    if closed:
        _check_closed(faces)
    return vertices, faces


def _check_indices(vertices: Tensor, faces: Tensor) -> None:
    count = len(vertices)
    if int(faces.min()) < 0 or int(faces.max()) >= count:
        bad = ((faces < 0) | (faces >= count)).any(1)
        face = _first(bad)
        raise ValueError(
            f"Mesh: face {face} has corners {faces[face].tolist()}, and there are {count} vertices, numbered from 0; "
            "if the file counts from 1, subtract 1"
        )
    bad = ~torch.isfinite(vertices).all(1)
    if bool(bad.any()):
        raise ValueError(f"Mesh: vertex {_first(bad)} is not finite ({int(bad.sum())} of {count}); repair the file")
    unused = torch.ones(count, dtype=torch.bool, device=faces.device)
    unused[faces.flatten()] = False
    if bool(unused.any()):
        raise ValueError(
            f"Mesh: vertex {_first(unused)} belongs to no face ({int(unused.sum())} of {count} do not); remove them, "
            "with trimesh by mesh.remove_unreferenced_vertices()"
        )
    places, place = torch.unique(vertices + 0.0, dim=0, return_inverse=True)
    if len(places) < count:
        twice = torch.bincount(place)[place] > 1
        one = _first(twice)
        two = int((place == place[one]).nonzero()[1, 0])
        raise ValueError(
            f"Mesh: vertices {one} and {two} are at one place ({count - len(places)} of {count} are copies), so faces "
            "that touch there are not joined; merge them, with trimesh by mesh.merge_vertices(), or read the file with "
            "rfm.datasets.read_mesh"
        )


def _check_shapes(vertices: Tensor, faces: Tensor) -> None:
    a, b, c = vertices[faces].unbind(1)
    longest = torch.stack([b - a, c - b, a - c]).square().sum(-1).amax(0)
    bad = torch.linalg.vector_norm(torch.linalg.cross(b - a, c - a), dim=-1) <= _THIN * longest
    if bool(bad.any()):
        face = _first(bad)
        raise ValueError(
            f"Mesh: face {face}, with corners {faces[face].tolist()}, has no area ({int(bad.sum())} of {len(faces)} "
            "have none); remove them, with trimesh by mesh.update_faces(mesh.nondegenerate_faces()), or remesh"
        )


def _check_edges(faces: Tensor) -> None:
    start, end = faces.roll(-1, 1).flatten(), faces.roll(-2, 1).flatten()
    edges, edge = torch.unique(torch.stack([start, end], 1).sort(1).values, dim=0, return_inverse=True)
    uses = torch.bincount(edge)
    if int(uses.max()) > 2:
        one = int(uses.argmax())
        raise ValueError(
            f"Mesh: {int(uses[one])} faces share the edge between vertices {edges[one].tolist()} "
            f"({int((uses > 2).sum())} of {len(edges)} edges have more than two), so it is no surface there; remove "
            "the inner or doubled faces, with trimesh by mesh.update_faces(mesh.unique_faces())"
        )
    along = torch.zeros_like(uses).index_add_(0, edge, torch.where(start < end, 1, -1))
    flipped = (uses == 2) & (along != 0)
    if bool(flipped.any()):
        one = _first(flipped)
        two = (edge == one).nonzero()[:, 0] // 3
        raise ValueError(
            f"Mesh: faces {two.tolist()} run along their edge {edges[one].tolist()} in the same direction "
            f"({int(flipped.sum())} such edges), so one of them is flipped; turn it, with trimesh by "
            "trimesh.repair.fix_winding(mesh); a surface with one side, such as a Moebius strip, cannot be a Mesh"
        )


def _components(pairs: Tensor, count: int) -> Tensor:
    """Return the number of the connected component of each of ``count`` nodes that pairs ``(m, 2)`` join."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    i, j = pairs.cpu().numpy().T
    ones = torch.ones(len(pairs)).numpy()
    label = connected_components(coo_matrix((ones, (i, j)), shape=(count, count)), directed=False)[1]
    return torch.from_numpy(label).long().to(pairs.device)


def _twins(faces: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pairs of sides, numbered by face and then by side, that are one edge."""
    start, end = faces.roll(-1, 1).flatten(), faces.roll(-2, 1).flatten()
    edge = torch.unique(torch.stack([start, end], 1).sort(1).values, dim=0, return_inverse=True)[1]
    order = edge.argsort()
    same = edge[order[1:]] == edge[order[:-1]]
    return order[:-1][same], order[1:][same]


def _check_fans(faces: Tensor) -> None:
    one, two = _twins(faces)
    # A side runs from corner i + 1 to i + 2, that of the neighbour the other way.
    (f, i), (g, j) = (one // 3, one % 3), (two // 3, two % 3)
    pairs = [(3 * f + (i + 1) % 3, 3 * g + (j + 2) % 3), (3 * f + (i + 2) % 3, 3 * g + (j + 1) % 3)]
    joined = torch.cat([torch.stack(pair, 1) for pair in pairs])
    fan = _components(joined, faces.numel())
    vertex = faces.flatten()
    fans = torch.unique(torch.stack([vertex, fan], 1), dim=0)[:, 0].bincount()
    if int(fans.max()) > 1:
        raise ValueError(
            f"Mesh: at vertex {int(fans.argmax())} {int(fans.max())} sheets of faces touch in one point "
            f"({int((fans > 1).sum())} such vertices); give each sheet a vertex of its own, a little apart"
        )


def _check_parts(faces: Tensor) -> None:
    one, two = _twins(faces)
    part = _components(torch.stack([one // 3, two // 3], 1), len(faces))
    sizes = part.bincount()
    if len(sizes) > 1:
        smallest = int(sizes.argmin())
        raise ValueError(
            f"Mesh: it has {len(sizes)} parts that do not touch, the largest with {int(sizes.max())} of {len(faces)} "
            f"faces; face {_first(part == smallest)} is in one of {int(sizes.min())}; no path leads from part to part, "
            "so keep one, with trimesh by max(mesh.split(only_watertight=False), key=lambda part: part.area)"
        )


def _check_closed(faces: Tensor) -> None:
    start, end = faces.roll(-1, 1).flatten(), faces.roll(-2, 1).flatten()
    edges, edge = torch.unique(torch.stack([start, end], 1).sort(1).values, dim=0, return_inverse=True)
    border = edge.bincount() == 1
    if bool(border.any()):
        pairs = edges[border]
        ends = torch.unique(pairs)
        holes = int(_components(torch.searchsorted(ends, pairs), len(ends)).max()) + 1
        raise ValueError(
            f"Mesh: it has {holes} {'hole' if holes == 1 else 'holes'}, one at the edge {pairs[0].tolist()} "
            f"({int(border.sum())} edges have a face on one side only); fill them, with trimesh by "
            "trimesh.repair.fill_holes(mesh), or leave out closed=True: a border is allowed"
        )


def _first(mask: Tensor) -> int:
    return int(mask.nonzero()[0, 0])
