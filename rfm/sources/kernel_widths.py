"""How wide kernels are: the same for all centres, or set by the distance to their neighbours."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from manifolds import Manifold
from manifolds.arguments import integer, positive
from rfm.sources.kernel_arguments import checked_kernel, checked_points

_TIE = 1e-9
"""Points whose embeddings agree to this are one place: the same angle or class, written in two ways, is."""


def absolute_concentrations(manifold: Manifold, points: Tensor, count: int) -> Tensor:
    """Return so many concentrations, geometrically from 10 to 1e8, ``(count,)``.

    On a manifold without finite volume, which sets no scale, they are divided by the mean squared distance of the
    embedded points from their mean (it is 1 for uniform points on a sphere).
    """
    return torch.logspace(1, 8, count, dtype=torch.float64, device=points.device) / squared_scale(manifold, points)


def squared_scale(manifold: Manifold, points: Tensor) -> float:
    """Return the squared unit of length that concentrations are measured in: 1 where the volume is finite."""
    if manifold.volume is not None:
        return 1.0
    embedded = checked_kernel(manifold).embed(points)
    return float((embedded - embedded.mean(0)).square().sum(-1).mean()) or 1.0


def kernel_concentrations(
    manifold: Manifold,
    points: Tensor,
    *,
    absolute: int = 24,
    neighbours: tuple[int, ...] = (2, 6, 20, 60),
    ratios: int = 10,
    cap: float = 1e8,
) -> Tensor:
    """Return the standard family of concentrations for kernels about these points, ``(K, n)``.

    First ``absolute`` ones, the same for all centres, geometrically from 10 to ``cap``. Then those that follow the
    local density: for each m of ``neighbours`` and each ratio c, from 0.05 to 50 geometrically,
    ``dim * c / d_m(i)^2`` for centre i: the mean squared distance in its kernel is the squared distance ``d_m(i)`` to
    its m-th other place, over c. Points at one place count as one neighbour, or repeats would pass for density. These
    are kept between 10 and ``cap`` too: values that were rounded, and test points that repeat training points, would
    favour arbitrarily narrow kernels. On a manifold without finite volume 10 and ``cap`` are in units of the mean
    squared distance of the embedded points from their mean.

    The result depends on nothing but the arguments. Distances are those of the kernel, between embedded points; on a
    quotient, to the nearest representative.

    Args:
        manifold: a manifold with a kernel.
        points: centres, ``(n, *event_shape)``.
        absolute: number of concentrations that all centres share, at least 1.
        neighbours: the m; where there are fewer other places, the farthest counts.
        ratios: number of ratios c.
        cap: the largest concentration, above 10.

    Raises:
        ValueError: the manifold has no kernel, or an argument is not as said.

    References:
        Breiman, Meisel and Purcell, "Variable kernel estimates of multivariate densities", 1977; Loftsgaarden and
        Quesenberry, "A nonparametric estimate of a multivariate density function", 1965.
    """
    owner = "kernel_concentrations"
    points = checked_points(manifold, points, "points")
    cap = positive(owner, "cap", cap, "it is the largest concentration")
    if cap <= 10:
        raise ValueError(f"{owner}: cap must be above 10, the smallest concentration, got {cap:g}; the default is 1e8")
    scale = squared_scale(manifold, points)
    like: dict[str, Any] = {"dtype": torch.float64, "device": points.device}
    k = torch.from_numpy(np.geomspace(10, cap, integer(owner, "absolute", absolute))).to(**like) / scale
    rows = [k[:, None].expand(-1, len(points))]
    distances = neighbour_distances(manifold, points, neighbours)
    if distances is not None:
        c = torch.from_numpy(np.geomspace(0.05, 50, integer(owner, "ratios", ratios))).to(**like)
        # Neighbours nearer than the narrowest kernel's width count as that far.
        squared = distances.square().clamp(min=scale / cap)
        relative = manifold.dim * c[:, None] / squared[:, None]
        rows.append(relative.flatten(0, 1).clamp(10 / scale, cap / scale))
    return torch.cat(rows)


def neighbour_distances(manifold: Manifold, points: Tensor, neighbours: tuple[int, ...]) -> Tensor | None:
    """Return the distance of each point to its m-th other place for each m, ``(len(neighbours), n)``.

    Distances are between embedded points, see `neighbours_of`. Where all points are one place, the answer is None.
    """
    found = neighbours_of(manifold, points, neighbours)
    return None if found is None else found.distance


class Neighbours(NamedTuple):
    """The m-th other places of points, for several m."""

    distance: Tensor
    """Between embedded points, ``(len(neighbours), n)``."""
    row: Tensor
    """Which of the points is there, likewise."""


def neighbours_of(manifold: Manifold, points: Tensor, neighbours: tuple[int, ...]) -> Neighbours | None:
    """Return the m-th other place of each point for each m; None where all points are one place.

    Distances are between embedded points, ``manifold.kernel.embed``, to the nearest of ``manifold.kernel.centres``;
    where there is no kernel, between ``manifold.embed``. Where there are fewer other places than m, it is the farthest.

    Args:
        manifold: where the points live.
        points: ``(n, *event_shape)``.
        neighbours: the m, each at least 1.
    """
    from scipy.spatial import cKDTree

    m = [integer("kernel_concentrations", "each of neighbours", count) for count in neighbours]
    embedded = _images(manifold, points)
    copies = embedded.shape[1]
    unit = _TIE * max(1.0, float(np.abs(embedded).max()))
    # Which representatives are equal up to rounding; a place is known by the first of its own in that order.
    rows = np.unique(np.round(embedded.reshape(len(points) * copies, -1) / unit), axis=0, return_inverse=True)[1]
    _, first, place = np.unique(rows.reshape(len(points), copies).min(1), return_index=True, return_inverse=True)
    if len(first) == 1 or not m:
        return None
    m = [min(count, len(first) - 1) for count in m]
    tree = cKDTree(embedded[first].reshape(len(first) * copies, -1))
    found, found_row = np.full((len(m), len(first)), np.nan), np.zeros((len(m), len(first)), dtype=np.int64)
    todo, count = np.arange(len(first)), max(m) + copies
    while len(todo):
        count = min(count, len(first) * copies)
        neighbouring: tuple[Any, Any] = tree.query(embedded[first[todo], 0], k=count)
        distance, row = neighbouring
        nearest = _first_of_each_place(row // copies, todo)
        order = np.cumsum(nearest, axis=1)
        enough = order[:, -1] >= max(m)
        for j, each in enumerate(m):
            at = (order[enough] >= each).argmax(1)[:, None]
            found[j, todo[enough]] = np.take_along_axis(distance[enough], at, 1)[:, 0]
            found_row[j, todo[enough]] = first[np.take_along_axis(row[enough] // copies, at, 1)[:, 0]]
        todo, count = todo[~enough], 2 * count
    at_points = (torch.from_numpy(each[:, place.reshape(-1)]).to(points.device) for each in (found, found_row))
    return Neighbours(*at_points)


def _images(manifold: Manifold, points: Tensor) -> Any:
    """Return what distances are measured between, ``(n, r, embed_dim)``: r of them where points are classes."""
    kernel = manifold.kernel
    if kernel is None:
        return manifold.embed(points).detach()[:, None].cpu().numpy()
    centres = kernel.centres(points)
    return kernel.embed(centres.flatten(0, 1)).detach().reshape(len(points), centres.shape[1], -1).cpu().numpy()


def _first_of_each_place(place: Any, own: Any) -> Any:
    """Return which neighbours, in order of distance, are the first of a place other than one's own."""
    order = np.argsort(place, axis=1, kind="stable")
    ordered = np.take_along_axis(place, order, 1)
    first = np.ones_like(place, dtype=bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    result = np.empty_like(first)
    np.put_along_axis(result, order, first, 1)
    return result & (place != own[:, None])
