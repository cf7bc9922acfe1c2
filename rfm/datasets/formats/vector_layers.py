"""Points in GeoPackage, FlatGeobuf and zipped shapefiles, by GDAL in pyogrio; reprojected to longitude and latitude."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfm.datasets.column_values import table_of_columns
from rfm.datasets.formats.file_format import FileFormat, begins, chosen_part, package, point_names
from rfm.datasets.table_error import TableError, shown_path
from rfm.datasets.tables import Table
from rfm.datasets.text_files import FileContent, archived_names

_WGS84 = "EPSG:4326"


def coordinates_of(file: str, geometry: Any) -> NDArray[np.float64]:
    """Return the coordinates of points ``(n, 2)`` from their well-known binary.

    Raises:
        TableError: a geometry is missing, or is no point.
    """
    shapely = package("shapely")
    shapes = shapely.from_wkb(geometry)
    kinds = shapely.get_type_id(shapes)
    other = (kinds != 0) | shapely.is_empty(shapes)
    if other.any():
        raise TableError(
            f"{file}: {int(other.sum())} of {len(shapes)} geometries are no single points; convert them to points, "
            "for instance with ogr2ogr -explodecollections, or by their centroids"
        )
    return np.stack([shapely.get_x(shapes), shapely.get_y(shapes)], axis=1)


def _is_shapefile(source: FileContent) -> bool:
    return any(name.casefold().endswith(".shp") for name in archived_names(source.content))


def _read(source: FileContent) -> Table:
    file = shown_path(source)
    pyogrio, raw = package("pyogrio"), package("pyogrio.raw")
    layers = {
        str(name): str(name) for name, kind in pyogrio.list_layers(io.BytesIO(source.content)) if kind is not None
    }
    name = chosen_part(source, layers, "layer")
    meta, _, geometry, fields = raw.read(io.BytesIO(source.content), layer=name)
    places = _geographic(file, coordinates_of(file, geometry), meta["crs"])
    names, renamed = point_names(list(meta["fields"]), heights=False)
    columns: dict[str, Any] = dict(zip(names, places.T, strict=True))
    columns |= {renamed.get(own, own): values for own, values in zip(meta["fields"], fields, strict=True)}
    return table_of_columns(file, columns)


def _geographic(file: str, places: NDArray[np.float64], system: str | None) -> NDArray[np.float64]:
    """Return places in longitude and latitude."""
    if system is None:
        if (np.abs(places) > (360, 90)).any():
            raise TableError(
                f"{file}: the layer names no coordinate system, and its coordinates are no degrees; set the system"
            )
        return places
    if system == _WGS84 or "CRS84" in system:
        return places
    x, y = package("rasterio.warp").transform(system, _WGS84, places[:, 0].tolist(), places[:, 1].tolist())[:2]
    return np.stack([x, y], axis=1)


GEOPACKAGE = FileFormat("an SQLite database (GeoPackages are such)", begins(b"SQLite format 3\0"), _read, "geo")
FLATGEOBUF = FileFormat("a FlatGeobuf file", begins(b"fgb\x03fgb"), _read, "geo")
SHAPEFILE = FileFormat("a zipped shapefile", _is_shapefile, _read, "geo")
