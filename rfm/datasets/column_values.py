"""From arrays that other libraries hold to the columns of tables: numbers, texts, and times as texts in ISO 8601."""

import datetime
from collections.abc import Mapping
from typing import Any

import numpy as np

from rfm.datasets.tables import Column, NumberColumn, Table, TableError, TextColumn

_EXACT = 2**53


def table_of_columns(file: str, values_by_name: Mapping[str, Any]) -> Table:
    """Return a table of columns by name; arrays of more than one dimension, and of structures, are left out.

    Args:
        file: for messages.
        values_by_name: arrays or sequences of numbers, texts, times, true and false; masked where not known.

    Raises:
        TableError: columns differ in length, or there are none, or no rows.
    """
    found = {str(name).strip(): column_of(values) for name, values in values_by_name.items()}
    cells = {name: column for name, column in found.items() if column is not None}
    lengths = {len(column) for column in cells.values()}
    if len(lengths) > 1:
        raise TableError(f"{file}: columns have different lengths, {sorted(lengths)}; give one value for each row")
    if not cells or lengths == {0}:
        raise TableError(f"{file}: there are no {'rows' if cells else 'columns'} in it; add points, one in a row")
    lines = range(1, lengths.pop() + 1)
    return Table(file, tuple(cells), True, list(cells.values()), lines, row_word="row")


def column_of(values: Any) -> Column | None:
    """Return the column of an array ``(n,)``; None where it holds something else than numbers, texts or times."""
    array, masked = np.asarray(values), None
    if isinstance(values, np.ma.MaskedArray):
        array, masked = np.asarray(values.data), np.broadcast_to(values.mask, values.shape)
    if array.ndim != 1:
        return None
    kind = array.dtype.kind
    if kind in "fiub":
        return _number_column(array, masked)
    if kind in "mM":
        texts = np.datetime_as_string(array) if kind == "M" else (array / np.timedelta64(1, "s")).astype(str)
        cells = np.where(np.isnat(array), "", texts).tolist()
    elif kind in "USTO":
        cells = [_text(cell) for cell in array.tolist()]
        if any(cell is None for cell in cells):
            return None
        if kind == "O" and (numbers := _numbers(array)) is not None:
            return NumberColumn(numbers)
    else:
        return None
    if masked is not None:
        cells = ["" if hidden else cell for cell, hidden in zip(cells, masked.tolist(), strict=True)]
    return TextColumn([cell.strip() for cell in cells])


def _number_column(array: np.ndarray[Any, Any], masked: Any) -> Column:
    if array.dtype.kind in "iu" and array.size and (array.max() > _EXACT or array.min() < -_EXACT):
        # Names of events and times in nanoseconds lose their last digits as floats.
        return TextColumn(array.astype(str).tolist())
    numbers = array.astype(np.float64)
    return NumberColumn(numbers if masked is None else np.where(masked, np.nan, numbers))


def _numbers(array: np.ndarray[Any, Any]) -> Any:
    """Return objects as numbers where each is one or None, else None."""
    cells = array.tolist()
    if not any(isinstance(cell, int | float) for cell in cells):
        return None
    if any(isinstance(cell, int) and abs(cell) > _EXACT for cell in cells):
        return None
    known = all(cell is None or isinstance(cell, int | float) or cell != cell for cell in cells)
    return np.array([np.nan if cell is None else float(cell) for cell in cells]) if known else None


def _text(cell: Any) -> str | None:
    """Return a cell as text, empty where not known; None for what is no one value."""
    if cell is None or cell != cell:
        return ""
    if isinstance(cell, bytes):
        return cell.decode("utf-8", errors="replace").rstrip("\0 ")
    if isinstance(cell, datetime.date | datetime.time):
        return cell.isoformat()
    if isinstance(cell, list | tuple | dict | set | np.ndarray):
        return None
    return str(cell)
