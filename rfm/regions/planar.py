"""Polygons of the plane, as GeoJSON holds them: as sets that flows can be bounded by."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from manifolds import PlanarPolygon
from rfm.records.packages import optional_package
from rfm.regions.polygons import geojson_polygons, shapely_polygon


def planar_polygon(source: str | os.PathLike[str] | Mapping[str, Any]) -> PlanarPolygon:
    """Return the polygons of a GeoJSON file, or of its content, whose positions are coordinates of the plane.

    All polygons and multipolygons of its features count; where they overlap they are one.

    Raises:
        ValueError: it is no GeoJSON, or holds no valid polygon.
        MissingPackageError: shapely is not installed.
    """
    shapely = optional_package("shapely", "geo", "a set bounded by polygons")
    name, polygons = geojson_polygons(source)
    try:
        parts = [shapely_polygon(shapely, number, rings)[0] for number, rings in enumerate(polygons, start=1)]
        merged = [p for p in shapely.get_parts(shapely.union_all(parts)) if p.area > 0]
        oriented = [shapely.geometry.polygon.orient(polygon) for polygon in merged]
        return PlanarPolygon([np.asarray(r.coords)[:, :2] for p in oriented for r in (p.exterior, *p.interiors)])
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
