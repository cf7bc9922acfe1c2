"""GeoJSON: the points of a collection of features, with their properties as columns; a feature a line, too.

References:
    Butler et al., The GeoJSON Format, RFC 7946, 2016: positions are longitude, latitude and altitude, on WGS 84.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from rfm.datasets.column_values import table_of_columns
from rfm.datasets.formats.file_format import FileFormat, point_names, refuse_part
from rfm.datasets.table_error import TableError, shown_path
from rfm.datasets.tables import Table
from rfm.datasets.text_files import FileContent

_KIND = re.compile(
    rb'"type"\s*:\s*"(FeatureCollection|Feature|GeometryCollection|(Multi)?(Point|LineString|Polygon))"', re.IGNORECASE
)
_BEGINNING = 2000
_GEOGRAPHIC = re.compile(r"CRS84|EPSG:+(\d*:)?4326|WGS ?84", re.IGNORECASE)


def is_geojson(source: FileContent) -> bool:
    """Return whether a file begins like GeoJSON."""
    start = source.content[:_BEGINNING].removeprefix(b"\xef\xbb\xbf").lstrip(b"\x1e \t\r\n")
    return start.startswith(b"{") and _KIND.search(start) is not None


def _read(source: FileContent) -> Table:
    file = shown_path(source)
    refuse_part(source, "GeoJSON")
    text = source.content.decode("utf-8-sig")
    try:
        documents = [json.loads(text)]
    except json.JSONDecodeError:
        # A feature on each line, with or without a record separator before it.
        documents = [json.loads(line.lstrip("\x1e")) for line in text.splitlines() if line.strip("\x1e \t")]
    places: list[list[float]] = []
    rows: list[dict[str, Any]] = []
    others: dict[str, int] = {}
    for document in documents:
        _check_system(file, document)
        for geometry, properties in _features(document):
            kind = None if geometry is None else geometry.get("type")
            if kind not in ("Point", "MultiPoint"):
                others[str(kind)] = others.get(str(kind), 0) + 1
                continue
            found = [geometry["coordinates"]] if kind == "Point" else geometry["coordinates"]
            places += found
            rows += [properties] * len(found)
    if others or not rows:
        listed = ", ".join(f"{count} of {kind}" for kind, count in others.items()) or "no features"
        raise TableError(f"{file}: this GeoJSON holds {listed}, where points are needed; convert them to points")
    return _table(file, places, rows)


def _table(file: str, places: list[list[float]], rows: list[dict[str, Any]]) -> Table:
    properties = list(dict.fromkeys(name for row in rows for name in row))
    names, renamed = point_names(properties, heights=all(len(place) > 2 for place in places))
    columns: dict[str, Any] = {name: [float(place[i]) for place in places] for i, name in enumerate(names)}
    for name in properties:
        columns[renamed.get(name, name)] = _array([row.get(name) for row in rows])
    return table_of_columns(file, columns)


def _array(values: list[Any]) -> Any:
    import numpy as np

    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _features(document: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield each geometry with its properties."""
    kind = document.get("type")
    if kind == "FeatureCollection":
        for feature in document.get("features", []):
            yield from _features(feature)
    elif kind == "Feature":
        properties = dict(document.get("properties") or {})
        identity = {} if "id" not in document else {"id": document["id"]}
        yield document.get("geometry"), identity | properties
    elif kind == "GeometryCollection":
        yield from ((geometry, {}) for geometry in document.get("geometries", []))
    else:
        yield document, {}


def _check_system(file: str, document: Any) -> None:
    """Refuse coordinates that the file says to be others than longitude and latitude, as files before RFC 7946 may."""
    name = ((document.get("crs") or {}).get("properties") or {}).get("name", "")
    if name and not _GEOGRAPHIC.search(name):
        raise TableError(
            f"{file}: its coordinates are in {name[:60]}, where longitude and latitude are needed; reproject it: "
            "ogr2ogr -t_srs EPSG:4326 new.geojson FILE"
        )


GEOJSON = FileFormat("GeoJSON", is_geojson, _read)
