"""Highest-density regions of the earth as polygons, in GeoJSON."""

import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rfm.datasets import EARTH_RADIUS_KM
from rfm.grids import DensityGrid
from rfm.records.descriptions import write_atomically
from rfm.regions.highest_density import checked_probability
from rfm.regions.polygons import ring_area
from rfm.regions.region import Array

_DIGITS = 6
"""Of degrees: a tenth of a metre."""
_DEEP = 50.0
"""Nats below a level."""
_LEAST_AREA = 1e-12
"""Steradians: rings smaller than this are a point or a line."""


@dataclass(frozen=True)
class Outline:
    """The outline of a highest-density region.

    Args:
        probability: of the region.
        log_density: at its border, nats per steradian.
        polygons: each a list of rings, the outer one first, counterclockwise, then its holes, clockwise; a ring holds
            longitudes and latitudes in degrees, ``(n, 2)``, the first repeated at its end. None crosses the meridian of
            180 degrees, along which they are cut.
    """

    probability: float
    log_density: float
    polygons: tuple[tuple[Array, ...], ...]

    @property
    def area_km2(self) -> float:
        """In square kilometres, on a sphere of the earth's mean radius."""
        return EARTH_RADIUS_KM**2 * sum(ring_area(ring) for rings in self.polygons for ring in rings)

    def feature(self) -> dict[str, Any]:
        """Return it as a feature of GeoJSON."""
        coordinates = [[ring.tolist() for ring in rings] for rings in self.polygons]
        return {
            "type": "Feature",
            "geometry": {"type": "MultiPolygon", "coordinates": coordinates},
            "properties": {
                "probability": self.probability,
                "log_density_nats_per_steradian": self.log_density,
                "density_per_km2": float(np.exp(self.log_density)) / EARTH_RADIUS_KM**2,
                "area_km2": self.area_km2,
            },
        }


def outlines(density: DensityGrid, probabilities: Sequence[float]) -> tuple[Outline, ...]:
    """Return the outlines of the highest-density regions of a density on a grid of the earth, the largest first.

    The log-density is taken as linear between the centres of cells, and as that of the last parallel's mean at the
    poles.

    Args:
        density: on a grid of latitudes and longitudes of the earth.
        probabilities: of the regions, above 0 and below 1.

    Raises:
        ValueError: the grid is another one.
    """
    if not density.grid.earth:
        raise ValueError(
            "outlines: polygons in GeoJSON are on the earth, and the grid's axes are "
            f"{', '.join(axis.name for axis in density.grid.axes)}; use the grid's highest_density_probability"
        )
    levels = sorted({checked_probability("outlines", p) for p in probabilities}, reverse=True)
    longitude, latitude, values = _closed(density)
    return tuple(Outline(p, density.level(p), _polygons(longitude, latitude, values, density.level(p))) for p in levels)


def write_geojson(found: Sequence[Outline], path: str | os.PathLike[str]) -> None:
    """Write outlines as a feature collection of GeoJSON, a multipolygon for each.

    Args:
        found: what `outlines` returned.
        path: the file; an existing one is replaced.

    References:
        Butler et al., The GeoJSON Format, RFC 7946, 2016.
    """
    content = {"type": "FeatureCollection", "features": [outline.feature() for outline in found]}
    text = json.dumps(content, allow_nan=False) + "\n"
    write_atomically(Path(path), lambda file: _write_text(file, text))


def _write_text(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


def _closed(density: DensityGrid) -> tuple[Array, Array, Array]:
    """Return longitudes, latitudes and log-densities ``(rows, columns)`` with the edges of the map included."""
    latitude, longitude = (axis.centres for axis in density.grid.axes)
    values = density.log_density
    seam = (values[:, :1] + values[:, -1:]) / 2
    values = np.concatenate([seam, values, seam], axis=1)
    poles = [np.full((1, values.shape[1]), row[1:-1].mean()) for row in (values[0], values[-1])]
    values = np.concatenate([poles[0], values, poles[1]])
    return np.array([-180, *longitude, 180]), np.array([-90, *latitude, 90]), values


def _polygons(longitude: Array, latitude: Array, values: Array, level: float) -> tuple[tuple[Array, ...], ...]:
    """Return the polygons where values are at least a level."""
    from contourpy import FillType, contour_generator

    above = float(max(values.max(), level)) + 1
    # Where a density vanishes no line can be interpolated.
    values = np.maximum(values, level - _DEEP)
    generator = contour_generator(longitude, latitude, values, fill_type=FillType.OuterOffset)
    polygons = []
    for points, offsets in zip(*generator.filled(level, above), strict=True):
        rings = [_ring(points[start:end]) for start, end in itertools.pairwise(offsets)]
        outer, *holes = rings
        if abs(ring_area(outer)) > _LEAST_AREA:
            kept = [hole for hole in holes if abs(ring_area(hole)) > _LEAST_AREA]
            polygons.append((_turned(outer, 1), *(_turned(hole, -1) for hole in kept)))
    return tuple(polygons)


def _ring(points: Array) -> Array:
    """Return a ring with rounded positions, each once in a row, closed."""
    rounded = np.round(np.asarray(points, dtype=float), _DIGITS) + 0.0
    different = np.append(True, (np.diff(rounded, axis=0) != 0).any(1))
    ring = rounded[different]
    return ring if (ring[0] == ring[-1]).all() else np.vstack([ring, ring[:1]])


def _turned(ring: Array, sign: int) -> Array:
    """Return a ring counterclockwise for a positive sign, clockwise for a negative one."""
    return ring if ring_area(ring) * sign > 0 else ring[::-1].copy()
