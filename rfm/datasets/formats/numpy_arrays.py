"""NumPy's own files: an array of numbers or of records (.npy), and arrays by name (.npz)."""

import io
from typing import Any

import numpy as np

from rfm.datasets.column_values import table_of_columns
from rfm.datasets.formats.file_format import FileFormat, begins, chosen_part, refuse_part
from rfm.datasets.table_error import TableError, shown_path
from rfm.datasets.tables import NumberColumn, Table
from rfm.datasets.text_files import FileContent, archived_names


def _is_archive(source: FileContent) -> bool:
    names = archived_names(source.content)
    return bool(names) and all(name.endswith(".npy") for name in names)


def _read_array(source: FileContent) -> Table:
    refuse_part(source, "a NumPy array")
    return table_of_array(shown_path(source), np.load(io.BytesIO(source.content), allow_pickle=False))


def _read_archive(source: FileContent) -> Table:
    """Return arrays of one dimension and one length as columns; of others, the only one or that which is named."""
    with np.load(io.BytesIO(source.content), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    columns = {name: array for name, array in arrays.items() if array.ndim == 1 and array.dtype.names is None}
    if not source.part and len(columns) == len(arrays) and len({len(array) for array in columns.values()}) == 1:
        return table_of_columns(shown_path(source), columns)
    return table_of_array(shown_path(source), chosen_part(source, arrays, "array"))


def table_of_array(file: str, array: np.ndarray[Any, Any]) -> Table:
    """Return the table in an array of numbers ``(n, d)`` or ``(n,)``, or of records ``(n,)``."""
    if array.dtype.names is not None and array.ndim == 1:
        return table_of_columns(file, {name: array[name] for name in array.dtype.names})
    if array.ndim not in (1, 2) or array.dtype.kind not in "fiu" or not array.size:
        raise TableError(
            f"{file}: this NumPy array (.npy) has shape {array.shape} and type {array.dtype}, where numbers (n, d) are "
            "needed; reshape it, or pass it to rfm.fit in Python"
        )
    rows = array.reshape(len(array), -1).astype(np.float64)
    names = tuple(str(i + 1) for i in range(rows.shape[1]))
    return Table(file, names, False, [NumberColumn(cells) for cells in rows.T], range(1, len(rows) + 1), row_word="row")


ARRAY = FileFormat("a NumPy array (.npy)", begins(b"\x93NUMPY"), _read_array)
ARRAYS = FileFormat("an archive of NumPy arrays (.npz)", _is_archive, _read_archive)
