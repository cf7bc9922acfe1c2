"""Convex polytopes of R^n."""

import itertools
import math
from typing import Any

import torch
from torch import Tensor

from manifolds.arguments import check_instance
from manifolds.base import Manifold
from manifolds.constraints.constraint import Constraint, by_rejection, numbers, vector
from manifolds.euclidean import Euclidean

_LAYER = 0.25
"""Width of the border layer, as a share of n times the volume over the area of the border."""
_MOST_CORNERS = 200_000
"""Sets of n walls that are tried for corners."""


class Polytope(Constraint):
    """The points with ``A x <= b``, a bounded convex polytope of R^n.

    Corners are found from all sets of n walls, the volume by integrating over the walls in turn: for a few walls in a
    few dimensions, such as 40 in the plane or 20 in five dimensions.

    Args:
        A: normals of the walls, outward, of any length, ``(k, n)``.
        b: offsets ``(k,)``.

    Raises:
        ValueError: it is empty, flat, unbounded, or has too many walls.

    References:
        Lasserre, An analytical expression and an algorithm for the volume of a convex polyhedron in R^n, J. Optim.
        Theory Appl. 39 (1983), 363-377.
    """

    A: Tensor
    b: Tensor
    normals: Tensor
    offsets: Tensor
    corners: Tensor

    def __init__(self, A: Any, b: Any) -> None:
        super().__init__()
        A, b = numbers("Polytope", "A", A), vector("Polytope", "b", b)
        if A.ndim != 2 or A.shape[0] != len(b) or not A.shape[1] or not bool(A.isfinite().all() & b.isfinite().all()):
            raise ValueError(
                f"Polytope: A must be a matrix (k, n) and b a vector (k,), finite, got shapes {tuple(A.shape)} and "
                f"{tuple(b.shape)}; give each wall a row of A and a number of b"
            )
        lengths = A.norm(dim=1)
        if not bool((lengths > 0).all()):
            raise ValueError(f"Polytope: row {int(lengths.argmin())} of A is zero, which is no wall; leave it out")
        self.constant("A", A)
        self.constant("b", b)
        self.constant("normals", A / lengths[:, None])
        self.constant("offsets", b / lengths)
        self.constant("corners", _corners(self.normals, self.offsets))
        self.reach = float(self.corners.abs().max())
        n = A.shape[1]
        volumes = _face_volumes(self.normals, self.offsets, self.corners)
        # The centre of the corners is inside: a sum without cancellation.
        depth = self.offsets - self.normals @ self.corners.mean(0)
        self.volume = float((depth * volumes).sum()) / n
        self.layer = _LAYER * n * self.volume / float(volumes.sum())

    def check_manifold(self, manifold: Manifold) -> None:
        n = self.A.shape[1]
        check_instance("Bounded with a Polytope", "manifold", manifold, Euclidean, f"Euclidean({n})")
        if manifold.dim != n:
            raise ValueError(f"Bounded: the walls of a Polytope of {manifold} have {manifold.dim} entries, got {n}")

    def depth(self, x: Tensor) -> Tensor:
        return self._distances(x).amin(-1).to(x.dtype)

    def nearest(self, x: Tensor, margin: float) -> Tensor:
        """Return the nearest point, by Dykstra's projections to the walls in turn, a margin further in."""
        y = x.double()
        bounds = self.offsets - min(margin, float(self.depth(self.corners.mean(0))) / 2)
        corrections = y.new_zeros(*y.shape[:-1], len(bounds), y.shape[-1])
        for _ in range(_SWEEPS):
            for i, (normal, bound) in enumerate(zip(self.normals, bounds, strict=True)):
                before = y + corrections[..., i, :]
                y = before - ((before * normal).sum(-1, keepdim=True) - bound).clamp(min=0) * normal
                corrections[..., i, :] = before - y
        # What has not arrived yet goes to the middle as far as it takes.
        middle = self.corners.mean(0)
        over = (y @ self.normals.mT - bounds).clamp(min=0)
        share = (over / (over + bounds - self.normals @ middle)).amax(-1, keepdim=True)
        return torch.where((self.depth(x) < 0)[..., None], (y + share * (middle - y)).to(x.dtype), x)

    def wall(self, x: Tensor) -> tuple[Tensor, Tensor]:
        distance, wall = self._distances(x).min(-1)
        normal = self.normals[wall]
        return (x.double() + distance[..., None] * normal).to(x.dtype), -normal.to(x.dtype)

    def damped(self, x: Tensor, u: Tensor, layer: float | Tensor) -> Tensor:
        """``(I + sum_i n_i n_i' layer / d_i)^-1``, as ``I - N' (diag(d / layer) + N N')^-1 N``: no infinite numbers."""
        d = self._distances(x).clamp(min=0) / layer
        w = u.double()
        # Where more walls meet than there are dimensions, at a corner itself, the matrix is singular but for this.
        matrix = self.normals @ self.normals.mT + torch.diag_embed(d + _RIDGE)
        shape = torch.broadcast_shapes(matrix.shape[:-2], w.shape[:-1])
        right = (w @ self.normals.mT).expand(*shape, -1)
        solved = torch.linalg.solve(matrix.expand(*shape, -1, -1), right)
        return (w - solved @ self.normals).to(u.dtype)

    def random_uniform(self, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        low, high = self.corners.amin(0).to(device), self.corners.amax(0).to(device)
        normals, offsets = self.normals.to(device), self.offsets.to(device)

        def draw(k: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
            x = low + torch.rand(k, len(low), generator=generator, dtype=torch.float64, device=device) * (high - low)
            return x[(x @ normals.mT <= offsets).all(-1)]

        assert self.volume is not None
        return by_rejection("Polytope", count, self.volume / float((high - low).prod()), draw, generator, device)

    def extra_repr(self) -> str:
        return f"{len(self.b)} walls in {self.A.shape[1]} dimensions"

    def _distances(self, x: Tensor) -> Tensor:
        return self.offsets - x.double() @ self.normals.mT


def _corners(normals: Tensor, offsets: Tensor) -> Tensor:
    """Return the corners ``(m, n)``: the points where n walls meet that lie within all others."""
    k, n = normals.shape
    if math.comb(k, n) > _MOST_CORNERS:
        raise ValueError(
            f"Polytope: {k} walls in {n} dimensions have too many sets of {n} to find the corners; leave out walls, or "
            "use a Box or a Ball"
        )
    sets = torch.tensor(list(itertools.combinations(range(k), n)), dtype=torch.long).reshape(-1, n)
    matrices = normals[sets]
    meets = torch.linalg.svdvals(matrices)[:, -1] > 1e-10 if len(sets) else torch.zeros(0, dtype=torch.bool)
    points = torch.linalg.solve(matrices[meets], offsets[sets[meets]])
    scale = 1 + float(offsets.abs().max())
    points = points[((points @ normals.mT - offsets) <= 1e-9 * scale).all(-1)]
    spread = points - points.mean(0) if len(points) else points.new_zeros(1, n)
    if len(points) <= n or float(torch.linalg.svdvals(spread)[-1]) < 1e-9 * scale:
        raise ValueError(
            f"Polytope: the {k} walls do not bound a set with an interior: it is empty, flat, or open on a side; check "
            "the signs of A x <= b, and add walls"
        )
    if _is_unbounded(normals):
        raise ValueError("Polytope: the walls leave the set open on a side; add walls, or use a Box with an end of inf")
    return points


def _is_unbounded(normals: Tensor) -> bool:
    """Return whether a direction leads away from no wall: an edge between n - 1 walls that all others let pass."""
    k, n = normals.shape
    if int(torch.linalg.matrix_rank(normals)) < n:
        return True
    for rows in itertools.combinations(range(k), n - 1):
        directions = torch.linalg.svd(normals[list(rows)].reshape(n - 1, n), full_matrices=True)[2][-1:]
        for direction in (directions[0], -directions[0]):
            if bool((normals @ direction <= 1e-10).all()):
                return True
    return False


def _face_volumes(normals: Tensor, offsets: Tensor, corners: Tensor) -> Tensor:
    """Return the (n - 1)-dimensional volumes of the faces on each wall, 0 for walls that touch no face ``(k,)``."""
    scale = 1 + float(offsets.abs().max())
    tight = (corners @ normals.mT - offsets).abs() <= 1e-8 * scale
    found: list[float] = []
    seen: list[Tensor] = []
    for i in range(len(normals)):
        own = tight[:, i]
        # A wall that is given twice counts once.
        doubled = any(bool((own == other).all()) for other in seen)
        seen.append(own)
        found.append(0.0 if doubled else _volume_of_hull(corners[own], tight[own], corners.shape[1] - 1, scale))
    return torch.tensor(found, dtype=corners.dtype)


def _volume_of_hull(points: Tensor, tight: Tensor, dim: int, scale: float) -> float:
    """Return the volume of a face of a given dimension, from its corners and the walls that each lies on."""
    if len(points) <= dim:
        return 0.0
    if dim == 0:
        return 1.0
    middle = points.mean(0)
    basis = torch.linalg.svd(points - middle, full_matrices=False)
    if int((basis[1] > 1e-9 * scale).sum()) != dim:
        return 0.0
    if dim == 1:
        along = (points - middle) @ basis[2][0]
        return float(along.max() - along.min())
    total, seen = 0.0, set()
    for column in tight.mT:
        rows = tuple(column.nonzero()[:, 0].tolist())
        if len(rows) in (0, len(points)) or rows in seen:
            continue
        seen.add(rows)
        face = points[list(rows)]
        volume = _volume_of_hull(face, tight[list(rows)], dim - 1, scale)
        if volume:
            total += volume * _distance_to_span(middle, face)
    return total / dim


def _distance_to_span(point: Tensor, face: Tensor) -> float:
    away = point - face[0]
    edges = face[1:] - face[0]
    if not len(edges):
        return float(away.norm())
    directions = torch.linalg.svd(edges, full_matrices=False)
    keep = directions[1] > 1e-9 * directions[1].max()
    basis = directions[2][keep]
    return float((away - (away @ basis.mT) @ basis).norm())


_SWEEPS = 50
_RIDGE = 1e-14
