"""What instruments measure of a point: operators for `rfm.posterior.Measurement`.

An operator is any function of points that torch can differentiate; adjoints of its derivative come from that. Those
here are the usual ones, and know the period of values that are angles.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from manifolds import Manifold
from manifolds.arguments import check_instance
from rfm.arrays import indices_of, tensor_of

TURN = 2 * math.pi


class Operator:
    """A function of points ``(*batch, *event_shape)``.

    Args:
        function: the function.
        period: of its values, where they are on a circle.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], period: float | None = None) -> None:
        self.function, self.period = function, period

    def __call__(self, x: Tensor) -> Tensor:
        """Return the values ``(*batch, ...)`` at points."""
        try:
            return self.function(x)
        except IndexError as error:
            raise ValueError(
                f"Operator: points of shape {tuple(x.shape)} do not have what is measured "
                f"({str(error).splitlines()[0]}); is it an operator for another manifold?"
            ) from None


def mask(kept: Tensor) -> Operator:
    """Return the operator that keeps some entries of a point.

    Args:
        kept: booleans ``event_shape``.

    Returns:
        An operator with values ``(*batch, number kept)``.
    """
    if not isinstance(kept, Tensor) or kept.dtype != torch.bool or not bool(kept.any()):
        raise ValueError("mask: takes a tensor of booleans of the shape of a point, at least one of them true")
    return Operator(lambda x: x[..., kept.to(x.device)])


def matrix(rows: Tensor) -> Operator:
    """Return the operator that multiplies points, as vectors, by a matrix ``(m, size of a point)``: ``(*batch, m)``."""
    rows = tensor_of("matrix", "rows", rows)
    if rows.ndim != 2:
        raise ValueError(f"matrix: rows must be a matrix, got shape {tuple(rows.shape)}")
    if not bool(rows.isfinite().all()):
        raise ValueError("matrix: rows must be finite, got NaN or infinite numbers")

    def multiply(x: Tensor) -> Tensor:
        batch = _batch_shape(x, rows.shape[1])
        return x.reshape(*batch, rows.shape[1]) @ rows.to(x).mT

    return Operator(multiply)


def _batch_shape(x: Tensor, size: int) -> torch.Size:
    """Return the leading axes of points that are ``size`` numbers each."""
    for rank in range(1, x.ndim + 1):
        if math.prod(x.shape[x.ndim - rank :]) == size:
            return x.shape[: x.ndim - rank]
    raise ValueError(f"matrix: points of shape {tuple(x.shape)} do not hold {size} numbers each, as its rows do")


def displacement(
    manifold: Manifold, base: Tensor, rows: Tensor | None = None, part: Callable[[Tensor], Tensor] | None = None
) -> Operator:
    """Return the operator that gives a point's coordinates in the tangent space at another, ``(*batch, m)``.

    The coordinates are those of ``logmap(base, x)`` in ``tangent_basis(base)``; a measurement of zeros with noise s
    then says that ``x`` lies about a distance s from ``base``.

    Args:
        manifold: of ``base``.
        base: a point, ``event_shape``.
        rows: a linear map of these coordinates, ``(m, dim)``; the identity by default.
        part: what is taken from a point first, such as `frames`; then ``manifold`` is that of the part.
    """
    check_instance("displacement", "manifold", manifold, Manifold, "Sphere(2)")
    manifold.check_point(base)

    def coordinates(x: Tensor) -> Tensor:
        x = x if part is None else part(x)
        at = base.to(x).expand_as(x)
        u = manifold.logmap(at, x)
        axis = -1 - len(manifold.event_shape)
        basis = manifold.tangent_basis(base.to(x))
        values = manifold.inner(at.unsqueeze(axis), basis, u.unsqueeze(axis))
        return values if rows is None else values @ rows.to(values).mT

    return Operator(coordinates)


def distance_to(manifold: Manifold, beacon: Tensor) -> Operator:
    """Return the operator that measures the geodesic distance to a point, ``(*batch)``.

    Args:
        manifold: of the points.
        beacon: the point, ``event_shape``.
    """
    check_instance("distance_to", "manifold", manifold, Manifold, "Sphere(2)")
    manifold.check_point(beacon)
    return Operator(lambda x: manifold.dist(x, beacon.to(x)))


def bearing(manifold: Manifold, beacon: Tensor, first: Tensor, second: Tensor) -> Operator:
    """Return the operator that measures the direction of a point as seen from a beacon, in radians, ``(*batch)``.

    Args:
        manifold: of the points.
        beacon: where it is measured, ``event_shape``.
        first: tangent vector at the beacon in the direction of the angle 0, such as north.
        second: tangent vector in the direction of a quarter turn, such as east; orthogonal to ``first``, of its length.
    """
    check_instance("bearing", "manifold", manifold, Manifold, "Sphere(2)")
    manifold.check_point(beacon)
    for axis in (first, second):
        manifold.check_tangent(beacon, axis)

    def angle(x: Tensor) -> Tensor:
        at = beacon.to(x)
        u = manifold.logmap(at, x)
        return torch.atan2(manifold.inner(at, u, second.to(x)), manifold.inner(at, u, first.to(x)))

    return Operator(angle, TURN)


LATITUDE = Operator(lambda x: torch.atan2(x[..., 2], torch.linalg.vector_norm(x[..., :2], dim=-1)))
"""Latitude of points of the two-dimensional sphere, in radians, ``(*batch)``."""

LONGITUDE = Operator(lambda x: torch.atan2(x[..., 1], x[..., 0]), TURN)
"""Longitude of points of the two-dimensional sphere, in radians, ``(*batch)``."""


def angles(columns: int | Sequence[int]) -> Operator:
    """Return the operator that measures some of the angles of a torus, in radians, ``(*batch, count)``.

    Args:
        columns: which, counted from 0; a single number gives values ``(*batch)``.
    """
    chosen = columns if isinstance(columns, int) else indices_of("angles", "columns", columns)
    return Operator(lambda x: x[..., chosen], TURN)


POSITION = Operator(lambda x: x[..., :3, 3])
"""Position of poses, 4 x 4 matrices, ``(*batch, 3)``."""

ORIENTATION = Operator(lambda x: x[..., :3, :3])
"""Orientation of poses, 4 x 4 matrices, ``(*batch, 3, 3)``; with `displacement` its noise is an angle."""


def frames(rows: Sequence[int], rank: int = 2) -> Operator:
    """Return the operator that takes some copies from a point of a power, such as some frames of a chain.

    Args:
        rows: which copies, counted from 0.
        rank: number of axes of one copy; 2 for matrices.

    Returns:
        An operator with values ``(*batch, len(rows), ...)``.
    """
    chosen = indices_of("frames", "rows", rows)
    return Operator(lambda x: x.index_select(x.ndim - 1 - rank, chosen.to(x.device)))


class Polygon:
    """The inside of a polygon on the two-dimensional sphere, whose sides are great-circle arcs.

    The side that holds the mean of the corners; they must lie in one hemisphere.

    Args:
        corners: ``(k, 3)``, at least three, in order, either way round; neighbours differ.
    """

    def __init__(self, corners: Tensor) -> None:
        corners = tensor_of("Polygon", "corners", corners, torch.float64)
        if corners.ndim != 2 or corners.shape[1] != 3 or len(corners) < 3:
            raise ValueError(f"Polygon: corners are three points (k, 3) or more, got shape {tuple(corners.shape)}")
        corners = corners / corners.norm(dim=1, keepdim=True)
        middle = corners.mean(0)
        if not bool((corners @ middle > 0).all()):
            raise ValueError("Polygon: the corners must lie in one hemisphere; cut the region into several polygons")
        # Counterclockwise as seen from outside, so that the inside is to the left of every side.
        area = torch.linalg.cross(corners, corners.roll(-1, 0)).sum(0) @ middle
        self.corners = corners if area > 0 else corners.flip(0)

    def __call__(self, x: Tensor) -> Tensor:
        """Return whether points ``(*batch, 3)`` are inside, ``(*batch)``."""
        p = x.double()[..., None, :]
        a = self.corners.to(x.device)
        b = a.roll(-1, 0)
        # The angle by which the direction of a corner turns along a side, as seen from the point.
        sine = (p * torch.linalg.cross(a, b)).sum(-1)
        cosine = (a * b).sum(-1) - (p * a).sum(-1) * (p * b).sum(-1)
        return torch.atan2(sine, cosine).sum(-1) > math.pi
