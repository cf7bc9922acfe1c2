"""From polygons of longitudes and latitudes to polygons of arcs on the sphere, which know no seam and no poles."""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from manifolds import Sphere
from rfm.regions.region import Array

_DIGITS = 9
_Place = tuple[float, float]


def arcs(rings: Iterable[Array], bow: float) -> list[Tensor]:
    """Return rings of unit vectors, ``(k, 3)``, with the inside on the left.

    Edges are straight in longitude and latitude; each becomes as many arcs of great circles as stay near it. Edges
    along the meridian of 180 degrees that cut one polygon into two cancel, edges along a pole are points.

    Args:
        rings: longitudes and latitudes in degrees, from -180 to 180, the inside on the left, ``(n, 2)``, the first
            repeated at the end.
        bow: distance in radians between an edge and the arcs that follow it.

    Raises:
        ValueError: nothing is left, as of a polygon that covers all of the sphere.
    """
    onward: dict[_Place, list[Array]] = defaultdict(list)
    on_seam: list[tuple[float, float, float]] = []
    for ring in rings:
        for a, b in itertools.pairwise(ring):
            if abs(a[1]) == 90 and a[1] == b[1]:
                continue
            if abs(a[0]) == 180 and a[0] == b[0]:
                on_seam.append((float(a[0]), float(a[1]), float(b[1])))
                continue
            onward[_key(a)].append(_divided(a, b, bow))
    for a, b in _uncancelled(on_seam):
        onward[_key(a)].append(np.stack([a, b]))
    found = list(_walks(onward))
    if not found:
        raise ValueError("the polygons cover all of the sphere, and have no border; leave them out")
    return found


def _key(place: Array) -> _Place:
    """Return the name of a place, the same from both sides of the seam and for all longitudes of a pole."""
    longitude, latitude = round(float(place[0]), _DIGITS), round(float(place[1]), _DIGITS)
    return (0.0 if abs(latitude) == 90 else 180.0 if longitude == -180 else longitude), latitude


def _divided(a: Array, b: Array, bow: float) -> Array:
    """Return places from a to b between which arcs stay near the edge, ``(k, 2)``."""
    # A parallel at latitude f bows away from the arc between two of its places by d^2 sin(2 f) / 16.
    steep = max(abs(math.sin(math.radians(2 * latitude))) for latitude in (a[1], b[1], (a[1] + b[1]) / 2))
    width, height = math.radians(abs(b[0] - a[0])), math.radians(abs(b[1] - a[1]))
    # An oblique edge bows as its course changes, by the width times the height over eight.
    bows = max(width * math.sqrt(steep / 16 / bow), math.sqrt(width * height / 8 / bow), (width + height) / 1.5)
    return np.linspace(a, b, max(1, math.ceil(bows)) + 1)


def _uncancelled(edges: list[tuple[float, float, float]]) -> Iterator[tuple[Array, Array]]:
    """Yield what is left of edges (side, from, to) along both sides of the seam, where one does not undo another."""
    ends = sorted({latitude for _, start, end in edges for latitude in (start, end)})
    for low, high in itertools.pairwise(ends):
        over = [start < end for _, start, end in edges if min(start, end) <= low < max(start, end)]
        net = 2 * sum(over) - len(over)
        bottom, top = np.array([180.0, low]), np.array([180.0, high])
        for _ in range(abs(net)):
            yield (bottom, top) if net > 0 else (top, bottom)


def _walks(onward: dict[_Place, list[Array]]) -> Iterator[Tensor]:
    """Yield closed walks along edges, each of which is used once."""
    while onward:
        start = next(iter(onward))
        here, parts = start, list[Array]()
        while True:
            edge = onward[here].pop()
            if not onward[here]:
                del onward[here]
            parts.append(edge[:-1])
            here = _key(edge[-1])
            if here == start:
                break
        places = np.concatenate(parts)
        if len(places) > 2:
            longitude, latitude = torch.from_numpy(places).unbind(-1)
            yield Sphere.from_degrees(latitude, longitude)
