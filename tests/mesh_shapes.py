"""Small meshes whose geometry is known, and what integrates over them."""

import math

import torch
from torch import Tensor

from manifolds import Mesh


def square(n: int = 3) -> Mesh:
    """Return the unit square in the plane z = 0, in ``2 n^2`` triangles."""
    side = torch.linspace(0, 1, n + 1, dtype=torch.float64)
    x, y = torch.meshgrid(side, side, indexing="ij")
    vertices = torch.stack([x.flatten(), y.flatten(), torch.zeros_like(x).flatten()], dim=1)
    i, j = (a.flatten() for a in torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij"))
    a, b, c, d = i * (n + 1) + j, (i + 1) * (n + 1) + j, (i + 1) * (n + 1) + j + 1, i * (n + 1) + j + 1
    return Mesh(vertices, torch.cat([torch.stack([a, b, c], 1), torch.stack([a, c, d], 1)]))


def folded(angle: float, n: int = 3) -> Mesh:
    """Return the square folded by an angle in radians at the line x = 1/3, an edge for ``n = 3``: isometric to it."""
    flat = square(n)
    x, y, _ = flat.vertices.unbind(1)
    beyond = (x - 1 / 3).clamp(min=0)
    moved = torch.stack([x - beyond + math.cos(angle) * beyond, y, math.sin(angle) * beyond], dim=1)
    return Mesh(moved, flat.faces)


def cube() -> Mesh:
    """Return the surface of the unit cube."""
    corner = torch.tensor([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)], dtype=torch.float64)
    faces = [
        *((0, 1, 3), (0, 3, 2), (4, 6, 7), (4, 7, 5), (0, 4, 5), (0, 5, 1)),
        *((2, 3, 7), (2, 7, 6), (0, 2, 6), (0, 6, 4), (1, 5, 7), (1, 7, 3)),
    ]
    return Mesh(corner, torch.tensor(faces), closed=True)


def icosphere(times: int) -> Mesh:
    """Return a polyhedron inscribed in the unit sphere: an icosahedron whose faces are cut in four, so many times."""
    g = (1 + math.sqrt(5)) / 2
    corners = [
        *((-1, g, 0), (1, g, 0), (-1, -g, 0), (1, -g, 0), (0, -1, g), (0, 1, g)),
        *((0, -1, -g), (0, 1, -g), (g, 0, -1), (g, 0, 1), (-g, 0, -1), (-g, 0, 1)),
    ]
    faces = [
        *((0, 11, 5), (0, 5, 1), (0, 1, 7), (0, 7, 10), (0, 10, 11), (1, 5, 9), (5, 11, 4), (11, 10, 2), (10, 7, 6)),
        *((7, 1, 8), (3, 9, 4), (3, 4, 2), (3, 2, 6), (3, 6, 8), (3, 8, 9), (4, 9, 5), (2, 4, 11), (6, 2, 10)),
        *((8, 6, 7), (9, 8, 1)),
    ]
    mesh = Mesh(torch.tensor(corners, dtype=torch.float64), torch.tensor(faces))
    for _ in range(times):
        mesh = mesh.subdivided()
        mesh = Mesh(torch.nn.functional.normalize(mesh.vertices, dim=1), mesh.faces)
    vertices = torch.nn.functional.normalize(mesh.vertices, dim=1)
    return Mesh(vertices, mesh.faces, closed=True)


def bumpy(times: int, size: float, seed: int = 3) -> Mesh:
    """Return an icosphere whose vertices are moved in and out at random."""
    mesh = icosphere(times)
    noise = torch.randn(len(mesh.vertices), 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Mesh(mesh.vertices * (1 + size * noise), mesh.faces, closed=True)


def uniform(mesh: Mesh, n: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return mesh.random_uniform(n, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def tangent(mesh: Mesh, x: Tensor, seed: int = 1) -> Tensor:
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return mesh.proju(x, noise.to(x.dtype))


def face_rule(mesh: Mesh, k: int) -> tuple[Tensor, Tensor]:
    """Return nodes and weights of a quadrature: the centres of ``k^2`` equal parts of every face."""
    i, j = (a.flatten() for a in torch.meshgrid(torch.arange(k), torch.arange(k), indexing="ij"))
    upright, hanging = i + j < k, i + j < k - 1
    first = torch.stack([(i[upright] + 1 / 3) / k, (j[upright] + 1 / 3) / k], 1)
    second = torch.stack([(i[hanging] + 2 / 3) / k, (j[hanging] + 2 / 3) / k], 1)
    part = torch.cat([first, second]).double()
    barycentric = torch.cat([part, 1 - part.sum(1, keepdim=True)], 1)
    x = (barycentric[None, :, :, None] * mesh.vertices[mesh.faces][:, None]).sum(-2)
    weight = mesh.face_areas()[:, None].expand(-1, k * k) / (k * k)
    return x.flatten(0, 1), weight.flatten()
