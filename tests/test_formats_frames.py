"""Tables that pandas, pyarrow and openpyxl write are read back as they are, from files and from memory."""

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pandas as pd
import pyarrow
import pytest

from manifolds import Sphere
from rfm.datasets import TableError, read_observations, read_table, table_from

FRAME = pd.DataFrame(
    {
        "lat": [10.5, -20.25, 1 / 3, 0.0],
        "lon": np.array([100.0, -170.5, 0.1, 359.0]),
        "depth": pd.array([10, None, 30, 40], dtype="Int64"),
        "place": ["a", "b, c", None, "ü"],
        "kind": pd.Categorical(["x", "y", "x", "x"]),
        "time": pd.to_datetime(["2020-01-02T03:04:05", "2021-01-01", "1999-12-31", "2020-02-29"], format="ISO8601"),
        "id": [2**60 + 1, 2**60 + 2, 3, 4],
    }
)

WRITERS: dict[str, Callable[[Path], Any]] = {
    "csv": lambda file: FRAME.to_csv(file, index=False),
    "csv.gz": lambda file: FRAME.to_csv(file, index=False, compression="gzip"),
    "csv.bz2": lambda file: FRAME.to_csv(file, index=False, compression="bz2"),
    "csv.xz": lambda file: FRAME.to_csv(file, index=False, compression="xz"),
    "csv.zip": lambda file: FRAME.to_csv(file, index=False, compression="zip"),
    "csv with a mark": lambda file: FRAME.to_csv(file, index=False, encoding="utf-8-sig", sep=";"),
    "parquet": lambda file: FRAME.to_parquet(file, index=False),
    "feather": lambda file: FRAME.to_feather(file),
    "arrows": lambda file: _stream(file),
    "xlsx": lambda file: FRAME.drop(columns="id").to_excel(file, index=False),
}


def _stream(file: Path) -> None:
    table = pyarrow.Table.from_pandas(FRAME, preserve_index=False)
    with pyarrow.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize("name", WRITERS)
# Whatever a file is called, its content decides.
@pytest.mark.parametrize("suffix", [".csv", ".bin"])
def test_what_pandas_writes_is_read(tmp_path: Path, name: str, suffix: str) -> None:
    WRITERS[name](written := tmp_path / name.partition(" ")[0])
    file = written.rename(tmp_path / f"table{suffix}")
    check_frame(read_table(file), with_ids="xlsx" not in name)


def check_frame(table: Any, with_ids: bool = True) -> None:
    np.testing.assert_array_equal(table.numbers(["lat", "lon"]), FRAME[["lat", "lon"]].to_numpy())
    assert table.texts("place") == ["a", "b, c", "", "ü"]
    assert table.texts("kind") == ["x", "y", "x", "x"]
    depths = table.values("depth")
    np.testing.assert_array_equal(depths, [10, np.nan, 30, 40])
    times = [pd.Timestamp(text) for text in table.texts("time")]
    assert times == list(FRAME["time"])
    if with_ids:  # spreadsheets keep fifteen digits
        assert list(table.texts("id")) == [str(2**60 + 1), str(2**60 + 2), "3", "4"]


@pytest.mark.parametrize(
    "make",
    [
        lambda frame: frame,
        lambda frame: pyarrow.Table.from_pandas(frame, preserve_index=False),
        lambda frame: (
            {name: frame[name].to_numpy() for name in frame.columns if name not in ("depth", "kind")}
            | {"depth": [10, None, 30, 40], "kind": ["x", "y", "x", "x"]}
        ),
        lambda frame: frame.set_index("place"),
        lambda frame: frame.convert_dtypes(),
    ],
)
def test_frames_in_memory_are_tables(make: Callable[[pd.DataFrame], Any]) -> None:
    check_frame(table_from(make(FRAME)))


def test_times_with_a_zone_are_in_utc() -> None:
    times = pd.Series(pd.to_datetime(["2020-07-01T02:00", None]).tz_localize("Europe/Berlin"))
    first, second = table_from(pd.DataFrame({"time": times})).texts("time")
    assert first.startswith("2020-07-01T00:00:00")
    assert second == ""


def test_observations_of_a_frame() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "decimalLatitude": rng.uniform(-80, 80, 60),
            "decimalLongitude": rng.uniform(-180, 180, 60),
            "magnitude": rng.normal(5, 1, 60),
            "month": rng.integers(1, 13, 60),
            "when": pd.date_range("2020-01-01", periods=60),
            "storm": [f"s{i % 6}" for i in range(60)],
            "w": rng.uniform(1, 2, 60),
        }
    )
    found = read_observations(
        frame, Sphere(2), condition=["magnitude", "month:12", "when"], weights="w", groups=["storm"]
    )
    assert found.coordinates.columns == ("decimalLatitude", "decimalLongitude")
    latitude, longitude = Sphere.to_degrees(found.points)
    np.testing.assert_allclose(latitude, frame["decimalLatitude"], atol=1e-12)
    np.testing.assert_allclose(longitude, frame["decimalLongitude"], atol=1e-12)
    assert found.conditions is not None
    assert found.conditions.width == 4
    assert sorted(found.arguments) == ["condition", "conditions", "groups", "weights"]
    decoded = found.conditions.decode(found.arguments["condition"])
    assert decoded["month"] == pytest.approx([float(m) for m in frame["month"]])
    assert decoded["when"] == [str(day.date()) for day in frame["when"]]
    same = found.arguments["groups"][:, None] == found.arguments["groups"]
    np.testing.assert_array_equal(same, frame["storm"].to_numpy()[:, None] == frame["storm"].to_numpy())


def workbook(file: Path, **sheets: list[list[Any]]) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(file)
    return file


def test_sheets(tmp_path: Path) -> None:
    rows = [["lat", "lon", "day"], [1.5, 2, datetime.date(2020, 1, 2)], [3, 4, datetime.datetime(2020, 1, 2, 3)]]
    file = workbook(tmp_path / "b.xlsx", March=rows, Empty=[])
    assert read_table(file).texts("day") == ["2020-01-02", "2020-01-02T03:00:00"]
    file = workbook(tmp_path / "c.xlsx", March=rows, April=[["lat", "lon"], [5, 6]])
    assert read_table(f"{file}#april").numbers(["lat", "lon"]).tolist() == [[5, 6]]
    with pytest.raises(
        TableError, match=r"there are 2 sheets in it, March, April; name one, for instance .*c.xlsx#March"
    ):
        read_table(file)
    with pytest.raises(TableError, match="there is no sheet 'May' in it; it has March, April"):
        read_table(f"{file}#May")
    file = workbook(tmp_path / "d.xlsx", a=[["Catalogue"], [], [None, "lat", "lon"], [None, 1, 2], [None, 3, "x"]])
    table = read_table(file)
    assert table.names == ("lat", "lon")
    with pytest.raises(TableError, match=r"d.xlsx, row 5: 'x' is not a number in column 'lon'"):
        table.numbers(["lat", "lon"])
    for rows, message in (([], "there is no sheet with a table"), ([["lat", "lon"]], "a header but no rows")):
        with pytest.raises(TableError, match=message):
            read_table(workbook(tmp_path / "e.xlsx", a=rows))


@pytest.mark.parametrize("name", ["parquet", "feather", "arrows", "xlsx"])
def test_files_that_are_cut_short(tmp_path: Path, name: str) -> None:
    WRITERS[name](file := tmp_path / name)
    content = file.read_bytes()
    (cut := tmp_path / "cut").write_bytes(content[: len(content) // 2])
    with pytest.raises(TableError) as caught:
        read_table(cut)
    assert "cut" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rfm.datasets.formats import arrow

    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    FRAME.to_parquet(file := tmp_path / "t.parquet")
    monkeypatch.setattr(arrow, "package", missing)
    with pytest.raises(TableError, match=r"needs the package pyarrow.parquet, which .*flow-matching\[tables\]"):
        read_table(file)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pd.DataFrame([[1.0, 2.0]], columns=["a", "a"]), "2 columns are named 'a'"),
        (pd.DataFrame({"a": []}), "no rows"),
        ({"a": [1.0], "b": [1.0, 2.0]}, r"different lengths, \[1, 2\]"),
        (np.eye(2), "without names of columns"),
        ("nothing", "a table is a frame of pandas"),
        ([1.0], "a table is a frame of pandas"),
    ],
)
def test_what_is_no_table_is_said(data: Any, message: str) -> None:
    with pytest.raises(TableError, match=message):
        table_from(data)
