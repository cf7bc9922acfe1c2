"""Parquet, Arrow (IPC files and streams) and Feather, by pyarrow; points of GeoParquet by shapely."""

import io
from typing import Any

import numpy as np

from rfm.datasets.column_values import table_of_columns
from rfm.datasets.formats.file_format import FileFormat, begins, package, point_names, refuse_part
from rfm.datasets.table_error import TableError, shown_path
from rfm.datasets.tables import Table
from rfm.datasets.text_files import FileContent


def table_of_arrow(file: str, columns: Any) -> Table:
    """Return the table in a ``pyarrow.Table``; lists and structures are left out."""
    return table_of_columns(file, {name: _values(columns.column(name)) for name in columns.column_names})


def table_of_batch(file: str, batch: Any, rows: slice) -> Table | None:
    """Return some rows of a ``pyarrow.RecordBatch``, with the points of GeoParquet; None if there are none."""
    arrow = package("pyarrow")
    if rows.start >= rows.stop:
        return None
    if rows != slice(0, len(batch), 1):
        batch = batch.take(arrow.array(np.arange(rows.start, rows.stop, rows.step)))
    return _with_points(FileContent(file, b""), arrow.Table.from_batches([batch]))


def _values(column: Any) -> Any:
    """Return a column as an array of numbers, times or objects."""
    types = package("pyarrow").types
    kind = column.type
    if types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if types.is_decimal(kind):
        column = column.cast(package("pyarrow").float64())
    if types.is_timestamp(kind) or types.is_date(kind):
        return column.to_numpy().astype("datetime64[us]")
    if types.is_duration(kind) or types.is_integer(kind) or types.is_floating(kind):
        return column.to_numpy()
    return np.array(column.to_pylist(), dtype=object) if not types.is_nested(kind) else np.empty((0, 0))


def _read_parquet(source: FileContent) -> Table:
    refuse_part(source, "a Parquet file")
    columns = package("pyarrow.parquet").read_table(io.BytesIO(source.content))
    return _with_points(source, columns)


def _read_file(source: FileContent) -> Table:
    refuse_part(source, "an Arrow file")
    with package("pyarrow.ipc").open_file(io.BytesIO(source.content)) as reader:
        return _with_points(source, reader.read_all())


def _read_stream(source: FileContent) -> Table:
    refuse_part(source, "an Arrow stream")
    with package("pyarrow.ipc").open_stream(io.BytesIO(source.content)) as reader:
        return _with_points(source, reader.read_all())


def _with_points(source: FileContent, columns: Any) -> Table:
    """Return a table with the points of GeoParquet's geometry as longitude and latitude."""
    if b"geo" not in (columns.schema.metadata or {}) or "geometry" not in columns.column_names:
        return table_of_arrow(shown_path(source), columns)
    from rfm.datasets.formats.vector_layers import coordinates_of

    places = coordinates_of(shown_path(source), columns.column("geometry").to_numpy(zero_copy_only=False))
    columns = columns.drop_columns(["geometry"])
    names, renamed = point_names(columns.column_names, heights=False)
    columns = columns.rename_columns([renamed.get(name, name) for name in columns.column_names])
    if (np.abs(places) > (360, 90)).any():
        raise TableError(f"{shown_path(source)}: its points are not in degrees; reproject it to EPSG:4326")
    own = dict(zip(names, places.T, strict=True))
    return table_of_columns(
        shown_path(source), own | {name: _values(columns.column(name)) for name in columns.column_names}
    )


PARQUET = FileFormat("a Parquet file", begins(b"PAR1"), _read_parquet, "tables")
ARROW = FileFormat("an Arrow (Feather) file", begins(b"ARROW1\0\0"), _read_file, "tables")
ARROW_STREAM = FileFormat("an Arrow stream", begins(b"\xff\xff\xff\xff"), _read_stream, "tables")
