"""One of each kind of set with a border: what laws are tested over."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from manifolds import (
    Ball,
    Bounded,
    Box,
    Cap,
    Euclidean,
    FlatTorus,
    JointLimits,
    Manifold,
    PlanarPolygon,
    Polytope,
    Sphere,
    SphericalPolygon,
)

FRAME = [[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0]]
PILLAR = [[1.0, 1.0], [1.0, 2.5], [2.0, 2.5], [2.0, 1.0]]
HOOK = [[0.0, 0.0], [3.0, 0.0], [3.0, 3.0], [2.0, 3.0], [2.0, 1.0], [1.0, 1.0], [1.0, 3.0], [0.0, 3.0]]
ISLES = [FRAME, [[6.0, 0.0], [7.0, 0.0], [7.0, 2.0], [6.0, 2.0]]]
WALLS = (
    [[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 1.0], [-1.0, -1.0, -1.0], [1.0, 1.0, 0.0]],
    [1.0, 2.0, 1.0, 1.0, 1.5],
)


def ring(places: list[tuple[float, float]]) -> Tensor:
    """Return unit vectors of latitudes and longitudes in degrees."""
    latitude, longitude = torch.tensor(places, dtype=torch.float64).unbind(-1)
    return Sphere.from_degrees(latitude, longitude)


COUNTRY = [(0.0, 170.0), (-5.0, -150.0), (40.0, -160.0), (20.0, -178.0), (45.0, 165.0)]
"""Over the meridian of 180 degrees, and not convex."""
LAKE = [(8.0, -175.0), (14.0, -175.0), (14.0, -165.0), (8.0, -165.0)]
POLE = [(60.0, 0.0), (65.0, 90.0), (55.0, 180.0), (70.0, -90.0)]

BOUNDED: list[tuple[str, Callable[[], Bounded]]] = [
    ("interval", lambda: Bounded(Euclidean(1), Box([-1.0], [2.0]))),
    ("box", lambda: Bounded(Euclidean(3), Box([0.0, -1.0, 2.0], [1.0, 2.0, 2.5]))),
    ("disc", lambda: Bounded(Euclidean(2), Ball([0.5, -1.0], 2.0))),
    ("ball", lambda: Bounded(Euclidean(3), Ball([0.0, 0.0, 1.0], 0.7))),
    ("polytope", lambda: Bounded(Euclidean(3), Polytope(*WALLS))),
    ("joint limits", lambda: Bounded(FlatTorus(3), JointLimits([-1.0, 2.0, -math.pi], [1.5, 6.0, math.pi]))),
    ("cap", lambda: Bounded(Sphere(2), Cap([0.0, 0.6, 0.8], 0.9))),
    ("cap of S^3", lambda: Bounded(Sphere(3), Cap([0.0, 0.6, 0.8, 0.0], 0.7))),
    ("arc", lambda: Bounded(Sphere(1), Cap([0.6, 0.8], 1.0))),
    ("room", lambda: Bounded(Euclidean(2), PlanarPolygon([FRAME, PILLAR]))),
    ("hook", lambda: Bounded(Euclidean(2), PlanarPolygon(HOOK))),
    ("country", lambda: Bounded(Sphere(2), SphericalPolygon([ring(COUNTRY), ring(LAKE)]))),
    ("pole", lambda: Bounded(Sphere(2), SphericalPolygon(ring(POLE)))),
    ("ocean", lambda: Bounded(Sphere(2), SphericalPolygon([ring(COUNTRY).flip(0), ring(POLE).flip(0)]))),
]


def drawn(m: Bounded, count: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return points uniform in a set."""
    return m.random_uniform(count, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def around(m: Bounded, count: int, seed: int = 0) -> tuple[Tensor, float]:
    """Return points uniform in a set that holds another, float64, and its volume."""
    full: Manifold = m.m
    generator = torch.Generator().manual_seed(seed)
    if full.volume is not None:
        return full.random_uniform(count, generator=generator, dtype=torch.float64), full.volume
    x = drawn(m, 4000)
    low, high = x.amin(0), x.amax(0)
    low, high = low - 0.2 * (high - low), high + 0.2 * (high - low)
    u = torch.rand(count, len(low), generator=generator, dtype=torch.float64)
    return low + u * (high - low), float((high - low).prod())
