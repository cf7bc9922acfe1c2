"""Points that GDAL and xarray write are read back in longitude and latitude: GeoPackage, GeoJSON, NetCDF."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pyogrio.raw
import pytest
import shapely
import xarray
from rasterio.warp import transform

from manifolds import Sphere
from rfm.datasets import TableError, choose_coordinates, read_observations, read_points, read_table, table_from

PLACES = np.array([[10.0, 50.0], [-170.25, -33.5], [179.5, 0.125]])
DEPTHS = np.array([10.0, 20.5, np.nan])
NAMES = np.array(["a", "b", "c"], dtype=object)


def layer(
    file: Path, name: str = "quakes", system: str | None = "EPSG:4326", shapes: Any = None, **options: Any
) -> Path:
    places = PLACES
    if system not in (None, "EPSG:4326"):
        places = np.stack(transform("EPSG:4326", system, *PLACES.T.tolist()), axis=1)
    geometry = shapely.to_wkb(shapely.points(places) if shapes is None else shapes)
    pyogrio.raw.write(
        file,
        geometry,
        [DEPTHS, NAMES],
        ["depth", "name"],
        layer=name,
        crs=system,
        geometry_type="Point" if shapes is None else "Unknown",
        **options,
    )
    return file


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::UserWarning")
@pytest.mark.parametrize("system", ["EPSG:4326", "EPSG:3857", "EPSG:3395"])
@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".geojson"])
def test_layers_are_read_in_degrees(tmp_path: Path, suffix: str, system: str) -> None:
    if suffix == ".geojson" and system != "EPSG:4326":
        pytest.skip("GDAL writes GeoJSON in degrees, and refuses the rest")
    table, layout = read_points(layer(tmp_path / f"q{suffix}", system=system))
    assert layout is None
    order = [table.texts("name").index(name) for name in NAMES]
    np.testing.assert_allclose(table.numbers(["longitude", "latitude"])[order], PLACES, atol=1e-7)
    np.testing.assert_array_equal(table.values("depth")[order], DEPTHS)
    coordinates = choose_coordinates(Sphere(2), table)
    np.testing.assert_allclose(coordinates.points(table)[order][0], Sphere.from_degrees(50.0, 10.0), atol=1e-8)


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::UserWarning")
def test_layers_of_several_and_of_other_shapes(tmp_path: Path) -> None:
    file = layer(tmp_path / "q.gpkg")
    layer(file, "volcanoes", append=False)
    assert len(read_table(f"{file}#volcanoes")) == 3
    with pytest.raises(TableError, match=r"there are 2 layers in it, quakes, volcanoes; name one"):
        read_table(file)
    lines = shapely.linestrings([[[0, 0], [1, 1]]] * 3)
    with pytest.raises(TableError, match="3 of 3 geometries are no single points"):
        read_table(layer(tmp_path / "lines.gpkg", shapes=lines))
    content = (tmp_path / "q.gpkg").read_bytes()
    (tmp_path / "cut.gpkg").write_bytes(content[:2000])
    with pytest.raises(TableError, match=r"cut.gpkg: .*cannot be read|no layer"):
        read_table(tmp_path / "cut.gpkg")


def feature(x: Any, properties: Any = None, kind: str = "Point") -> dict[str, Any]:
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": x}, "properties": properties}


def collection(*features: dict[str, Any], **more: Any) -> str:
    return json.dumps({"type": "FeatureCollection", "features": features, **more})


def test_geojson(tmp_path: Path) -> None:
    file = tmp_path / "q.json"
    points = [feature([10, 50, 5.0], {"mag": 4, "lat": 1}), feature([11, 51, 6.0], {"mag": None, "name": "é"})]
    for text in (
        collection(*points),
        "﻿" + collection(*points),
        "\n".join(map(json.dumps, points)),
        "\n".join("\x1e" + json.dumps(point) for point in points),
    ):
        file.write_text(text, encoding="utf-8")
        table = read_table(file)
        assert table.names == ("longitude", "latitude", "altitude", "mag", "property_lat", "name")
        np.testing.assert_array_equal(table.numbers(["longitude", "latitude", "altitude"]), [[10, 50, 5], [11, 51, 6]])
        np.testing.assert_array_equal(table.values("mag"), [4, np.nan])
    file.write_text(collection(feature([[1, 2], [3, 4]], {"a": 1}, "MultiPoint")))
    assert read_table(file).numbers(["longitude", "latitude", "a"]).tolist() == [[1, 2, 1], [3, 4, 1]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (collection(feature([[0, 0], [1, 1]], None, "LineString")), "holds 1 of LineString, where points are needed"),
        (collection(), "holds no features"),
        (
            collection(feature([0, 0]), crs={"properties": {"name": "urn:ogc:def:crs:EPSG::3857"}}),
            "coordinates are in urn",
        ),
        (collection(feature([0, 0]))[:-9], "this is GeoJSON, and it cannot be read"),
        (collection(feature([])), "this is GeoJSON, and it cannot be read"),
    ],
)
def test_geojson_that_holds_no_points(tmp_path: Path, text: str, message: str) -> None:
    (file := tmp_path / "q.geojson").write_text(text)
    with pytest.raises(TableError, match=message):
        read_table(file)


GRID = xarray.Dataset(
    {"rain": (("time", "lat", "lon"), np.arange(12.0).reshape(2, 2, 3)), "land": (("lat", "lon"), np.eye(2, 3))},
    coords={
        "time": np.array(["2020-01-01", "2020-02-01"], dtype="M8[ns]"),
        "lat": [-30.0, 30.0],
        "lon": [0.0, 120.0, 240.0],
    },
)
TRACK = xarray.Dataset({"lat": ("obs", [1.0, 2.0]), "lon": ("obs", [3.0, 4.0]), "storm": ("obs", np.array(["A", "B"]))})


@pytest.mark.parametrize("options", [{"engine": "h5netcdf"}, {"engine": "netcdf4"}, {"engine": "scipy"}], ids=str)
def test_netcdf_is_read_like_the_data_set_in_memory(tmp_path: Path, options: Any) -> None:
    for data in (GRID, TRACK):
        data.to_netcdf(file := tmp_path / "d.nc", **options)
        found, own = read_table(file), table_from(data)
        assert set(found.names) == set(own.names)
        for name in own.names:
            if own.columns[own.index(name)].mostly_numbers():
                np.testing.assert_array_equal(found.values(name), own.values(name))
            else:
                assert [text[:10] for text in found.texts(name)] == [text[:10] for text in own.texts(name)]


def test_a_grid_has_a_row_for_each_cell() -> None:
    table = table_from(GRID)
    frame = GRID.to_dataframe().reset_index()
    assert len(table) == len(frame) == 12
    for name in ("lat", "lon", "rain", "land"):
        assert sorted(table.values(name)) == sorted(frame[name])
    want = {(a, b, c) for a, b, c in zip(frame["lat"], frame["lon"], frame["rain"], strict=True)}
    assert {tuple(row) for row in table.numbers(["lat", "lon", "rain"])} == want
    found = read_observations(GRID, Sphere(2), weights="rain", condition=["time:year"], spread_ties=False)
    assert found.points.shape == (12, 3)


def test_missing_cells_are_no_rows_and_variables_apart_are_named(tmp_path: Path) -> None:
    data = GRID[["rain"]].where(GRID["rain"] > 3)
    assert len(table_from(data)) == 8
    assert len(table_from(GRID["rain"])) == 12
    mixed = xarray.merge([GRID, xarray.Dataset({"depth": (("level",), [1.0, 2.0, 3.0])})])
    with pytest.raises(TableError, match=r"rain over time, lat, lon and depth over level; name one, for instance"):
        table_from(mixed)
    mixed.to_netcdf(file := tmp_path / "m.nc", engine="h5netcdf")
    assert read_table(f"{file}#depth").numbers(["depth"])[:, 0].tolist() == [1, 2, 3]
    with pytest.raises(TableError, match="there is no variable 'snow'"):
        read_table(f"{file}#snow")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(TableError, match="cannot be read"):
        read_table(file)


def test_points_of_geoparquet(tmp_path: Path) -> None:
    geometry = list(shapely.to_wkb(shapely.points(PLACES)))
    columns = pyarrow.table({"geometry": geometry, "depth": DEPTHS, "lat": [1, 2, 3]})
    columns = columns.replace_schema_metadata({"geo": json.dumps({"primary_column": "geometry", "columns": {}})})
    pyarrow.parquet.write_table(columns, file := tmp_path / "q.parquet")
    table = read_table(file)
    assert table.names == ("longitude", "latitude", "depth", "property_lat")
    np.testing.assert_array_equal(table.numbers(["longitude", "latitude"]), PLACES)
