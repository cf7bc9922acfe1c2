"""Tables: every way of writing one reads alike, and whatever is wrong is one TableError of at most three lines."""

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from manifolds import SE3, SO3, Euclidean, Manifold
from rfm.datasets import (
    Table,
    TableError,
    choose_coordinates,
    json_writer,
    read_points,
    read_table,
    table_writer,
    write_table,
)
from rfm.datasets.tracks import TRACK_FORMATS

SETTINGS = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def table_of(tmp_path: Path, content: str | bytes, minimum_rows: int = 1) -> Table:
    file = tmp_path / "points.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(file, minimum_rows)


def message_of(tmp_path: Path, content: str | bytes, columns: tuple[str, ...] = ()) -> str:
    with pytest.raises(TableError) as caught:
        table_of(tmp_path, content).numbers(columns)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert "points.csv" in message
    return message


# One table, written in many ways.


@pytest.mark.parametrize(
    "content",
    [
        "lat,lon\n1.5,2\n-3,4e1\n",
        "lat,lon\n1.5,2\n-3,4e1",
        "lat,lon\r\n1.5,2\r\n-3,4e1\r\n",
        "lat,lon\r1.5,2\r-3,4e1\r",
        "\ufefflat,lon\n1.5,2\n-3,4e1\n",
        "lat\tlon\n1.5\t2\n-3\t4e1\n",
        "lat;lon\n1.5;2\n-3;4e1\n",
        "lat, lon\n1.5, 2\n-3, 4e1\n",
        "lat,\tlon\n1.5,\t2\n-3,\t4e1\n",
        "  lat   lon\n  1.5   2\n -3    4e1  \n",
        '"lat","lon"\n"1.5","2"\n"-3","4e1"\n',
        '"lat" "lon"\n"1.5" 2\n-3 "4e1"\n',
        "# a comment, with a comma\nlat,lon\n# another\n1.5,2\n\n-3,4e1\n\n  # last\n",
        "# one\n# two\n\nlat,lon\n1.5,2\n,\n-3,4e1\n,\n",
        "Catalogue of points\nby someone, somewhere, some day\nlat,lon\n1.5,2\n-3,4e1\n",
    ],
)
def test_one_table_in_many_notations(tmp_path: Path, content: str) -> None:
    table = table_of(tmp_path, content)
    assert table.names == ("lat", "lon")
    assert table.has_header
    np.testing.assert_array_equal(table.numbers(["lat", "lon"]), [[1.5, 2], [-3, 40]])
    np.testing.assert_array_equal(table.numbers(["LON", "1"]), [[2, 1.5], [40, -3]])


def test_without_header_columns_have_numbers(tmp_path: Path) -> None:
    table = table_of(tmp_path, "# a comment\n1,2,3\n4,5,6\n")
    assert table.names == ("1", "2", "3")
    assert not table.has_header
    np.testing.assert_array_equal(table.numbers(["3", "1"]), [[3, 1], [6, 4]])


def test_text_columns_that_are_not_asked_for_are_fine(tmp_path: Path) -> None:
    table = table_of(tmp_path, 'place,lat,note\n"Paris, France",48.8,\nBonn,50.7,"a ""b""\nc"\nX,1,2\n')
    np.testing.assert_array_equal(table.numbers(["lat"])[:, 0], [48.8, 50.7, 1])
    assert list(table.lines) == [2, 3, 5]
    assert table.rows[0][0] == "Paris, France"


def test_separator_inside_text_is_not_the_separator(tmp_path: Path) -> None:
    assert table_of(tmp_path, "a, b\t1\t2\nc, d\t3\t4\n").numbers(["2", "3"]).tolist() == [[1, 2], [3, 4]]
    assert table_of(tmp_path, "2020-01-01 10:00,1\n2020-01-02 11:00,2\n").numbers(["2"]).tolist() == [[1], [2]]
    assert table_of(tmp_path, "a b\n1\n2\n").names == ("a b",)


def test_a_name_that_matches_exactly_goes_first(tmp_path: Path) -> None:
    table = table_of(tmp_path, "Lat,lat,x,x\n1,2,3,4\n")
    assert table.index("lat") == 1
    assert [table.key(i) for i in range(4)] == ["Lat", "lat", "3", "4"]
    with pytest.raises(TableError, match="2 columns are named 'LAT'; name them by number: 1, 2"):
        table.index("LAT")


# What is wrong with a file, row or column.


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "the file is empty"),
        (b"\n# only a comment\n", "the file is empty"),
        (b"lat,lon\n", "a header but no rows"),
        (b"lat,lon\n1,2,3\n", "line 2: 3 cells, but the header (line 1) has 2"),
        (b"1,2\n1,2\n\n1\n", "line 4: 1 cell, but most lines have 2"),
        (b"\x89PNG\0\0", "not a text file"),
        (b"lat,lon\n1,2\nM\xfcnchen,3\n", "line 3: this is not UTF-8"),
        (b'lat,lon\n1,2\n"3,4\n5,6\n', "line 3: a quoted cell does not end"),
    ],
)
def test_files_that_are_no_tables(tmp_path: Path, content: bytes, expected: str) -> None:
    assert expected in message_of(tmp_path, content)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("", "an empty cell in column 'lon'"),
        ("abc", "'abc' is not a number"),
        ("1_0", "'1_0' is not a number"),
        ("nan", "'nan' is not a finite number"),
        ("-inf", "'-inf' is not a finite number"),
        ("1e999", "'1e999' is not a finite number"),
        ('"1,5"', "write decimals with a point: 1.5"),
        ("y" * 1000, "yyy...' is not a number"),
    ],
)
def test_cells_that_are_no_numbers(tmp_path: Path, cell: str, expected: str) -> None:
    message = message_of(tmp_path, f"# comment\nlat,lon\n1,2\n3,{cell}\n", ("lat", "lon"))
    assert expected in message
    assert "line 4:" in message
    assert len(message) < 400


def test_decimal_commas_are_named(tmp_path: Path) -> None:
    message = message_of(tmp_path, "lat;lon\n48,5;11,6\n48,7;11,8\n", ("lat",))
    assert "'48,5' is not a number in column 'lat' (2 of 2 rows are like that)" in message
    assert "48.5" in message


def test_missing_columns_list_what_is_there(tmp_path: Path) -> None:
    assert "its columns are 'lat', 'lon'" in message_of(tmp_path, "lat,lon\n1,2\n", ("depth",))
    assert "no column '0'" in message_of(tmp_path, "lat,lon\n1,2\n", ("0",))
    assert "its columns are the numbers 1 to 2" in message_of(tmp_path, "1,2\n3,4\n", ("lat",))
    assert "and 88 more" in message_of(tmp_path, ",".join(f"c{i}" for i in range(100)) + "\n" + "1," * 99 + "1", ("x",))


def test_too_few_rows(tmp_path: Path) -> None:
    assert len(table_of(tmp_path, "lat,lon\n1,2\n")) == 1
    with pytest.raises(TableError, match="the file has 1 row, and at least 2 are needed"):
        table_of(tmp_path, "lat,lon\n1,2\n", minimum_rows=2)


@pytest.mark.parametrize("name", ["missing.csv", "", "a\nb", "nul\0"])
def test_no_such_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(TableError) as caught:
        read_table(str(tmp_path / "folder") + os.sep + name)
    assert len(str(caught.value).splitlines()) == 1


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="this is a folder"):
        read_table(tmp_path)


# Files that are something else.


def _archive(**files: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name if "/" in name else name.replace("__", "/").replace("_dot_", "."), content)
    return stream.getvalue()


def _npy(array: Any = ((1.0, 0.0), (0.0, 1.0))) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.asarray(array))
    return stream.getvalue()


PLAIN = b"lat,lon\n1,2\n3,4\n"
OTHER_FILES = {
    "gzip, cut short in its header": (gzip.compress(PLAIN)[:9], "gzip"),
    "gzip, cut short": (gzip.compress(PLAIN)[:-6], "gzip"),
    "gzip, changed": (gzip.compress(PLAIN)[:12] + b"xx" + gzip.compress(PLAIN)[14:], "gzip"),
    "gzip, empty": (gzip.compress(b""), "the file is empty"),
    "bzip2, cut short": (bz2.compress(PLAIN)[:-6], "bzip2"),
    "xz, cut short": (lzma.compress(PLAIN)[:-6], "xz"),
    "zstd": (b"\x28\xb5\x2f\xfd\x24\x05", "zstd"),
    "zip of two": (_archive(a_dot_csv=PLAIN, b_dot_csv=PLAIN), "zip"),
    "xlsx": (_archive(xl__workbook_dot_xml=b"<a/>"), "Excel workbook (.xlsx)"),
    "ods": (_archive(content_dot_xml=b"<a/>"), "OpenDocument"),
    "npz": (_archive(a_dot_npy=_npy(), b_dot_npy=_npy()), "arrays"),
    "npz of objects": (_archive(a_dot_npy=_npy(np.array([None]))), "NumPy arrays (.npz)"),
    "torch": (_archive(archive__data_dot_pkl=b""), "torch.save"),
    "a broken zip": (b"PK\x03\x04abc", "zip"),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\x00", "Excel workbook (.xls)"),
    "npy": (_npy(np.zeros((2, 2, 2))), "NumPy array (.npy)"),
    "parquet": (b"PAR1\x15\x04\x15\x10PAR1", "Parquet"),
    "feather": (b"ARROW1\0\0\xff\xff", "Arrow (Feather)"),
    "NetCDF": (b"CDF\x01\0\0\0\0", "NetCDF"),
    "NetCDF, 64 bit": (b"CDF\x02\0\0\0\0", "NetCDF"),
    "HDF5": (b"\x89HDF\r\n\x1a\n\0\0", "HDF5"),
    "mat": (b"MATLAB 5.0 MAT-file, Platform: GLNXA64\0\0", "MATLAB"),
    "pickle": (pickle.dumps([1.0, 2.0]), "pickle"),
    "SQLite": (b"SQLite format 3\0\x10\0", "SQLite"),
    "PDF": (b"%PDF-1.7\n1 0 obj\n", "PDF"),
    "PNG": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "PNG"),
    "JPEG": (b"\xff\xd8\xff\xe0\0\x10JFIF", "JPEG"),
    "UTF-16, marked": (PLAIN.decode().encode("utf-16"), "UTF-16"),
    "UTF-16, marked, big": (b"\xfe\xff" + PLAIN.decode().encode("utf-16-be"), "UTF-16"),
    "UTF-16LE": (PLAIN.decode().encode("utf-16-le"), "UTF-16LE"),
    "UTF-16BE": (PLAIN.decode().encode("utf-16-be"), "UTF-16BE"),
    "UTF-32": (PLAIN.decode().encode("utf-32"), "UTF-32"),
    "UTF-32LE": (PLAIN.decode().encode("utf-32-le"), "UTF-32LE"),
    "Latin-1": ("place,lat\nOrléans,47\n".encode("latin-1"), "perhaps Latin-1"),
    "GeoJSON": (b'{\n "type": "FeatureCollection", "features": []}', "GeoJSON"),
    "GeoJSON, marked": (b'\xef\xbb\xbf{"features": [], "type":"FeatureCollection"}', "GeoJSON"),
    "JSON": (b'[{"lat": 1, "lon": 2}]', "JSON"),
    "JSON of rows": (b"[[1, 2], [3, 4]]", "JSON"),
    "KML": (b'<?xml version="1.0"?>\n<kml xmlns="x">', "KML"),
    "HTML": (b"<!DOCTYPE html>\n<html><body>", "HTML"),
    "ctf, cut short": (b"Channel Text File\r\nPrj\tmap.cpr\r\nAuthor\tM\xfcller\r\n", "channel text file (.ctf)"),
}


@pytest.mark.parametrize("name", OTHER_FILES)
@pytest.mark.parametrize("suffix", [".csv", ".ang", ".txt", ""])
def test_other_files_are_named_for_what_they_are(tmp_path: Path, name: str, suffix: str) -> None:
    content, expected = OTHER_FILES[name]
    file = tmp_path / f"points{suffix}"
    file.write_bytes(content)
    with pytest.raises(TableError) as caught:
        read_points(file)
    what, remedy = str(caught.value).rsplit("; ", 1)
    assert expected in what
    assert remedy


@pytest.mark.parametrize("header", ["PAR1,PAR2", "CDF,RDX", "GRIB,BZh", "RDX,GIF8", "BZh,b", "prj,x", "model,atom"])
def test_columns_that_are_called_like_a_format(tmp_path: Path, header: str) -> None:
    assert table_of(tmp_path, f"{header}\n1,2\n3,4\n").names == tuple(header.split(","))


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(PLAIN),
        bz2.compress(PLAIN),
        lzma.compress(PLAIN),
        gzip.compress(gzip.compress(PLAIN)),
        _archive(table_dot_csv=PLAIN),
        _archive(folder__table_dot_csv=gzip.compress(PLAIN), **{"__MACOSX/x.csv": b"?"}),
    ],
    # Without names of their own the bytes are the names, and gzip's hold the second: two processes would differ.
    ids=["gzip", "bzip2", "xz", "gzip twice", "zip", "gzip in a zip of macOS"],
)
def test_compressed_files_are_tables(tmp_path: Path, content: bytes) -> None:
    table = table_of(tmp_path, content)
    np.testing.assert_array_equal(table.numbers(["lat", "lon"]), [[1, 2], [3, 4]])


def test_numpy_arrays_are_tables(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(5, 3))
    np.save(file := tmp_path / "rows.npy", rows.astype(">f8"))
    np.testing.assert_array_equal(read_table(file).numbers(["1", "2", "3"]), rows)
    np.savez(file := tmp_path / "columns.npz", lat=rows[:, 0], lon=rows[:, 1])
    np.testing.assert_array_equal(read_table(file).numbers(["lat", "lon"]), rows[:, :2])
    np.savez_compressed(file := tmp_path / "several.npz", points=rows, other=rows[:2])
    np.testing.assert_array_equal(read_table(f"{file}#points").numbers(["1", "2", "3"]), rows)
    with pytest.raises(TableError, match="there are 2 arrays in it, points, other; name one, for instance"):
        read_table(file)
    with pytest.raises(TableError, match="there is no array 'x' in it; it has points, other"):
        read_table(f"{file}#x")
    records = np.array([(1.0, b"a"), (2.0, b"b")], dtype=[("lat", ">f4"), ("name", "S4")])
    np.save(file := tmp_path / "records.npy", records)
    assert read_table(file).rows == [("1", "a"), ("2", "b")]


def test_a_part_of_a_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(PLAIN)
    with pytest.raises(TableError, match="a text file has no parts to name; leave out #b"):
        read_table(tmp_path / "a.csv#b")
    (tmp_path / "a.csv#b").write_bytes(b"1,2\n")
    assert read_table(tmp_path / "a.csv#b").rows == [("1", "2")]


PIPED = {
    "plain": (PLAIN, None),
    "gzip": (gzip.compress(PLAIN), None),
    "tum": (b"# timestamp tx ty tz qx qy qz qw\n0 0 0 0 0 0 0 1\n", None),
    "euroc": (b"#timestamp[ns],p_x,p_y,p_z,q_w,q_x,q_y,q_z\n0,0,0,0,1,0,0,0\n", "euroc"),
    "euroc without names": (b"0,0,0,0,1,0,0,0\n", "euroc"),
    "KITTI-360": (b"7 1 0 0 2 0 1 0 3 0 0 1 4\n", "kitti"),
    "named by a comment": (b"# qw qx qy qz weight\n1 0 0 0 2\n", None),
    "ang": (b"# TEM_PIXperUM 1\n0.1 0.2 0.3 0 0 9 0.5 0\n0.1 0.2 0.3 1 0 9 -1 0\n", None),
    "bunge": (b"phi1,Phi,phi2\n1,2,3\n", "bunge"),
}


@pytest.mark.parametrize("kind", PIPED)
def test_a_pipe_is_read_once_and_like_a_file(tmp_path: Path, kind: str) -> None:
    content, layout = PIPED[kind]
    (file := tmp_path / "file").write_bytes(content)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def through_pipe(read: Callable[[Path], Any]) -> Any:
        writer = threading.Thread(target=pipe.write_bytes, args=(content,))
        writer.start()
        found = read(pipe)
        writer.join()
        return found

    wanted, own = read_points(file, layout)
    found, recognised = through_pipe(lambda path: read_points(path, layout))
    assert (found.names, found.rows, recognised) == (wanted.names, wanted.rows, own)
    manifold: Manifold = Euclidean(2) if kind in ("plain", "gzip") else SE3() if recognised in TRACK_FORMATS else SO3()
    coordinates = choose_coordinates(manifold, found, layout=recognised)
    assert through_pipe(coordinates.read).rows == coordinates.read(file).rows


# Properties.

TABLE_LIKE = st.text(st.sampled_from("0123456789.,;\t -+e\"#\n\r'nalx"), max_size=120).map(str.encode)


@SETTINGS
@given(content=st.binary(max_size=200) | TABLE_LIKE | st.text(max_size=100).map(str.encode))
@example(content=b'"')
@example(content=b"a\x85b,c\n1,2")
@example(content=b'"' + b"x" * 140_000 + b'",1\n2,3')
def test_rubbish_raises_nothing_else(tmp_path: Path, content: bytes) -> None:
    error = values = None
    try:
        table = table_of(tmp_path, content)
        values = table.numbers([table.key(i) for i in range(len(table.names))])
    except TableError as caught:
        error = caught
    if values is None:
        assert len(str(error).splitlines()) == 1
    else:
        assert values.shape == (len(table), len(table.names))
        assert np.isfinite(values).all()


NAMES = st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), min_size=1, max_size=8).filter(
    lambda name: name == name.strip() and any(c.isalpha() for c in name) and not is_number(name)
)


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text.casefold() in {"na", "null", "none", "n/a"}
    return True


@SETTINGS
@given(data=st.data(), width=st.integers(1, 4), dtype=st.sampled_from([np.float32, np.float64, np.int64]))
def test_written_tables_read_back_bit_for_bit(
    tmp_path: Path, data: st.DataObject, width: int, dtype: type[np.generic]
) -> None:
    names = data.draw(st.lists(NAMES, min_size=width, max_size=width, unique_by=str.casefold))
    elements = st.integers(-(2**53), 2**53) if dtype is np.int64 else None
    rows = data.draw(st.integers(1, 5))
    values = data.draw(arrays.arrays(dtype, (rows, width), elements=elements))
    if dtype is not np.int64:
        values = np.nan_to_num(values)
    file = tmp_path / "out.csv"
    write_table(file, names, values)
    table = read_table(file)
    assert table.names == tuple(names)
    np.testing.assert_array_equal(table.numbers(names).astype(dtype), values)


@SETTINGS
@given(
    data=st.data(),
    separator=st.sampled_from([",", "\t", ";", " ", "   "]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    header=st.booleans(),
)
def test_any_notation_reads_back(tmp_path: Path, data: st.DataObject, separator: str, end: str, header: bool) -> None:
    finite = st.floats(allow_nan=False, allow_infinity=False)
    values = data.draw(st.integers(2, 4).flatmap(lambda k: st.lists(st.tuples(*[finite] * k), min_size=1, max_size=5)))
    lines = [separator.join(map(repr, row)) for row in values]
    if header:
        lines.insert(0, separator.join(f"name{i}" for i in range(len(values[0]))))
    table = table_of(tmp_path, end.join(lines))
    assert table.has_header == header
    np.testing.assert_array_equal(table.numbers(table.names), values)


# Writing.


def test_a_stream_gets_the_fewest_digits() -> None:
    stream = io.StringIO()
    write_table(stream, ["lat", "lon"], np.array([[0.1, 1 / 3]], dtype=np.float32))
    assert stream.getvalue() == "lat,lon\n0.1,0.33333334\n"


def test_an_existing_file_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "out.csv"
    file.write_text("old")
    write_table(file, ["a"], [[1.0]])
    assert file.read_text() == "a\n1.0\n"
    assert list(tmp_path.iterdir()) == [file]


def test_nowhere_to_write(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="cannot be written"):
        write_table(tmp_path / "missing" / "out.csv", ["a"], [[1.0]])
    with pytest.raises(TableError, match="cannot be written"):
        write_table(tmp_path, ["a"], [[1.0]])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("names", "values"),
    [(["a"], [[1.0, 2.0]]), (["a"], [1.0]), ([], np.empty((1, 0))), (["1", "2"], [[1.0, 2.0]]), (["a"], [["b"]])],
)
def test_what_is_no_table_is_not_written(tmp_path: Path, names: list[str], values: object) -> None:
    with pytest.raises(ValueError, match="write_table"):
        write_table(tmp_path / "out.csv", names, values)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_parts_make_the_table_that_all_rows_make(tmp_path: Path) -> None:
    values = np.arange(10.0).reshape(5, 2) / 3
    texts = {"kind": ["a", "b,c", "", "d", '"e"']}
    write_table(tmp_path / "whole.csv", ["x", "y"], values, texts)
    with table_writer(tmp_path / "parts.csv") as write:
        for rows in (slice(0, 2), slice(2, 5)):
            assert not (tmp_path / "parts.csv").exists()
            write(["x", "y"], values[rows], {"kind": texts["kind"][rows]})
    assert (tmp_path / "parts.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_parts_make_one_json_object(tmp_path: Path) -> None:
    with json_writer(tmp_path / "t.json") as write:
        write({"x": [1.5, 2.0], 'a "b"': ["c", None]})
        write({"x": [0.1], 'a "b"': ["ü"]})
    assert json.loads((tmp_path / "t.json").read_text()) == {"x": [1.5, 2.0, 0.1], 'a "b"': ["c", None, "ü"]}
    with pytest.raises(ValueError, match="JSON"), json_writer(tmp_path / "nan.json") as write:
        write({"x": [float("nan")]})
    assert not (tmp_path / "nan.json").exists()
