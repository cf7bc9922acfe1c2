"""Polygons of longitudes and latitudes on the sphere, as GeoJSON holds them.

**Edges.** RFC 7946 says that "a line between two positions is a straight Cartesian line", straight in longitude and
latitude: so are edges here. One along a parallel follows the parallel, not a great circle; short ones hardly differ.
A polygon over the meridian of 180 degrees is cut there (section 3.1.9), or has longitudes beyond 180, such as 170 to
190. One over a pole runs along its parallel, from (-180, 90) to (180, 90).

References:
    Butler et al., The GeoJSON Format, RFC 7946, 2016, sections 3.1.1, 3.1.6 and 3.1.9.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manifolds import Manifold, Sphere, SphericalPolygon
from manifolds.arguments import positive
from rfm.grids.geography import geography_of
from rfm.records.packages import optional_package
from rfm.regions.great_circles import arcs
from rfm.regions.region import Array, Charts, Region

_HALF_TURN = 180.0
_WGS84 = ("crs84", "4326")


class Polygon(Region):
    """One or several polygons with holes on a sphere or an ellipsoid, edges straight in longitude and latitude.

    Args:
        polygons: each a sequence of rings, the outer one first, then its holes; a ring is a sequence of longitudes and
            latitudes in degrees, the first repeated at its end. Where polygons overlap, points count once.
        surface: ``Sphere(2)`` by default, or an ellipsoid.

    Raises:
        ValueError: a ring crosses itself, a place is out of range, or there is no polygon.
        MissingPackageError: shapely is not installed.
    """

    def __init__(
        self, polygons: Sequence[Sequence[Sequence[Sequence[float]]]], surface: Manifold | None = None
    ) -> None:
        super().__init__(Sphere(2) if surface is None else surface)
        self._geography = geography_of(self.manifold)
        shapely = optional_package("shapely", "geo", "a region bounded by polygons")
        if not polygons:
            raise ValueError("Polygon: there is no polygon; give at least one")
        self.notes: tuple[str, ...] = ()
        """What is worth knowing of how the polygons were read, in sentences."""
        own = [self._checked(shapely, number, rings) for number, rings in enumerate(polygons, start=1)]
        self.geometry: Any = _on_one_turn(shapely, shapely.union_all(own))
        """The polygons in degrees, as shapely's, cut along the meridian of 180 degrees."""
        shapely.prepare(self.geometry)
        self._shapely, self._count = shapely, len(own)

    @classmethod
    def from_geojson(cls, source: str | os.PathLike[str] | Mapping[str, Any], surface: Manifold | None = None) -> Self:
        """Return the polygons of a GeoJSON file, or of its content.

        All polygons and multipolygons of its features count, heights are left out.

        Raises:
            ValueError: it is no GeoJSON, holds no polygon, or has another coordinate system than longitude, latitude.
        """
        name, content = _read(source)
        system = json.dumps(content.get("crs", {"name": "crs84"})).casefold()
        if not any(known in system for known in _WGS84):
            raise ValueError(
                f"{name}: its coordinates are in another system than WGS 84 ({system[:80]}); convert it, as with "
                "ogr2ogr -t_srs EPSG:4326"
            )
        _, polygons = geojson_polygons(source)
        try:
            return cls(polygons, surface)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None

    def contains(self, x: Tensor) -> Tensor:
        latitude, longitude = self._geography.degrees(x)
        # With their borders: a pole is a whole edge.
        inside = self._shapely.intersects_xy(self.geometry, longitude.cpu().numpy(), latitude.cpu().numpy())
        return torch.from_numpy(np.asarray(inside)).to(x.device)

    def constraint(self, bow: float = 1e-5) -> SphericalPolygon:
        """Return the polygons as a set that flows can be bounded by: ``Bounded(Sphere(2), polygon.constraint())``.

        Edges become arcs of great circles that stay near them.

        Args:
            bow: how far an arc may be from its edge, in radians; 60 metres on the earth by default. Fewer arcs take
                less time.

        Raises:
            ValueError: they lie on an ellipsoid, or cover all of the sphere.
        """
        if not self.manifold.same_as(Sphere(2)):
            raise ValueError(f"Polygon.constraint: flows are bounded on Sphere(2), got {self.manifold}; use the sphere")
        oriented = [self._shapely.geometry.polygon.orient(p) for p in self._shapely.get_parts(self.geometry)]
        rings = (np.asarray(ring.coords) for p in oriented for ring in (p.exterior, *p.interiors))
        return SphericalPolygon(arcs(rings, positive("Polygon.constraint", "bow", bow)))

    def describe(self) -> str:
        west, south, east, north = self.geometry.bounds
        what = "polygon" if self._count == 1 else f"{self._count} polygons"
        return f"{what} within latitudes {south:g} to {north:g}, longitudes {west:g} to {east:g}"

    @property
    def volume(self) -> float | None:
        if not self.manifold.same_as(Sphere(2)):
            return super().volume
        return sum(
            abs(ring_area(np.asarray(part.exterior.coords)))
            - sum(abs(ring_area(np.asarray(hole.coords))) for hole in part.interiors)
            for part in self._shapely.get_parts(self.geometry)
        )

    @property
    def charts(self) -> Charts:
        """Triangles: their sides are straight in longitude and latitude, as the edges are."""
        found = self._shapely.constrained_delaunay_triangles(self.geometry)
        triangles = np.array([np.asarray(t.exterior.coords)[:3] for t in self._shapely.get_parts(found)])
        a, ab, bc = triangles[:, 0], triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 1]
        twice = np.abs(ab[:, 0] * bc[:, 1] - ab[:, 1] * bc[:, 0]) * math.radians(1) ** 2

        def place(piece: NDArray[np.int64], u: Array) -> tuple[Tensor, Array]:
            # A square with one side shrunk to the corner a.
            degrees = a[piece] + u[:, :1] * (ab[piece] + u[:, 1:] * bc[piece])
            latitude = np.radians(degrees[:, 1])
            element = twice[piece] * u[:, 0] * np.cos(latitude) * self._geography.density(np.sin(latitude))
            return self._geography.points(degrees[:, 1], degrees[:, 0]), element

        return Charts(len(triangles), 2, place, triangles=True)

    def _checked(self, shapely: Any, number: int, rings: Sequence[Sequence[Sequence[float]]]) -> Any:
        """Return a polygon of shapely's, in degrees as given."""
        polygon, arrays = shapely_polygon(shapely, number, rings)
        places = np.concatenate(arrays)
        outside = ~((np.abs(places[:, 1]) <= 90) & (np.abs(places[:, 0]) <= 360))
        if outside.any():
            lon, lat = places[outside.argmax()]
            raise ValueError(
                f"polygon {number} has the position ({lon:g}, {lat:g}), and positions are longitude, then latitude, in "
                "degrees; exchange or correct them"
            )
        self._note_long_edges(number, arrays)
        return polygon

    def _note_long_edges(self, number: int, rings: list[Array]) -> None:
        """Note edges that run round more than half the earth, which were perhaps to run the other way."""
        for ring in rings:
            step = np.abs(np.diff(ring[:, 0]))
            along_pole = (np.abs(ring[:-1, 1]) == 90) & (np.abs(ring[1:, 1]) == 90)
            long = (step > _HALF_TURN) & (step < 2 * _HALF_TURN) & ~along_pole
            if long.any():
                self.notes += (
                    f"polygon {number} has an edge over {step[long].max():g} degrees of longitude, which is taken as "
                    "it stands; one that is to cross the meridian of 180 degrees is cut there, or goes on beyond 180",
                )
                return


def geojson_polygons(source: str | os.PathLike[str] | Mapping[str, Any]) -> tuple[str, list[Any]]:
    """Return the name of a GeoJSON file or object, and the coordinates of its polygons.

    Raises:
        ValueError: it is no GeoJSON, or holds no polygon.
    """
    name, content = _read(source)
    polygons = list(_polygons_of(name, content))
    if not polygons:
        raise ValueError(f"{name}: holds no Polygon or MultiPolygon; a region needs at least one")
    return name, polygons


def shapely_polygon(shapely: Any, number: int, rings: Sequence[Sequence[Sequence[float]]]) -> tuple[Any, list[Array]]:
    """Return a polygon of shapely's, and its rings as arrays ``(n, 2)``.

    Raises:
        ValueError: it is no sequence of rings, or crosses itself.
    """
    try:
        arrays = [np.asarray([position[:2] for position in ring], dtype=float) for ring in rings]
        polygon = shapely.Polygon(arrays[0], arrays[1:])
    except (IndexError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise ValueError(f"polygon {number} is no sequence of rings of positions ({reason}); repair it") from None
    if not polygon.is_valid:
        raise ValueError(
            f"polygon {number} is not valid ({shapely.is_valid_reason(polygon)}); repair it, as with shapely.make_valid"
        )
    return polygon, arrays


def ring_area(ring: Array) -> float:
    """Return the area of a ring on the unit sphere, in steradians, positive where it runs counterclockwise.

    Exact for edges straight in longitude and latitude: minus the integral of the sine of the latitude along the ring.

    Args:
        ring: longitudes and latitudes in degrees, ``(n, 2)``, the first repeated at the end.
    """
    longitude, latitude = np.radians(ring).T
    half = np.diff(latitude) / 2
    # The mean of the sine over an edge: that of the middle times sin(half) / half.
    mean = np.sin((latitude[1:] + latitude[:-1]) / 2) * np.sinc(half / math.pi)
    return float(-(np.diff(longitude) * mean).sum())


def _on_one_turn(shapely: Any, geometry: Any) -> Any:
    """Return a geometry with all of it at longitudes from -180 to 180, cut where it went beyond."""
    turn = shapely.box(-180, -90, 180, 90)
    parts = [
        shapely.intersection(shapely.transform(geometry, lambda xy, by=shift: xy + np.array([by, 0.0])), turn)
        for shift in (-360.0, 0.0, 360.0)
    ]
    # What is left may hold lines along the cut.
    flat = [part for part in shapely.get_parts(shapely.union_all(parts)) if part.area > 0]
    return shapely.MultiPolygon(flat)


def _read(source: str | os.PathLike[str] | Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the name of a GeoJSON object for messages, and its content."""
    if isinstance(source, Mapping):
        return "GeoJSON", source
    path = Path(source)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: is no GeoJSON ({error}); convert it, as with ogr2ogr -f GeoJSON") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: is no GeoJSON but {type(content).__name__}; it must hold an object with a type")
    return str(path), content


def _polygons_of(name: str, value: Any) -> Iterator[Any]:
    """Yield the coordinates of all polygons in a GeoJSON object."""
    if not isinstance(value, Mapping):
        return
    kind = value.get("type")
    try:
        if kind == "FeatureCollection":
            for feature in value["features"]:
                yield from _polygons_of(name, feature)
        elif kind == "Feature":
            yield from _polygons_of(name, value["geometry"])
        elif kind == "GeometryCollection":
            for geometry in value["geometries"]:
                yield from _polygons_of(name, geometry)
        elif kind == "Polygon":
            yield value["coordinates"]
        elif kind == "MultiPolygon":
            yield from value["coordinates"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{name}: a {kind} in it is damaged ({error!r}); write it again") from None
