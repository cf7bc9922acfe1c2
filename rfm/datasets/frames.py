"""Tables out of what other libraries hold in memory: frames of pandas, data sets of xarray, mappings.

None of these libraries is imported here: an object says itself which it is of.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rfm.datasets.column_values import table_of_columns
from rfm.datasets.table_error import TableError
from rfm.datasets.tables import Table

_NAME = "the data"


def table_from(data: Any) -> Table:
    """Return a table from an object in memory.

    Args:
        data: a frame of pandas, a table of pyarrow (as polars makes it: ``frame.to_arrow()``) or astropy, a ``Dataset``
            or ``DataArray`` of xarray (a row for each cell), an array of records, or a mapping from names to columns.
            The levels of a named index of pandas are columns too.

    Raises:
        TableError: it is something else, or holds no rows.
    """
    if isinstance(data, Table):
        return data
    for kind in type(data).__mro__:
        read = _READERS.get((kind.__module__.partition(".")[0], kind.__name__))
        if read is not None:
            return read(data)
    if isinstance(data, Mapping):
        return table_of_columns(_NAME, data)
    raise TableError(
        f"a table is a frame of pandas, a data set of xarray, or a mapping from names to columns, got "
        f"{type(data).__name__}; pass one of these, or points to rfm.fit"
    )


def _pandas_columns(frame: Any) -> dict[str, Any]:
    levels = [level for level in frame.index.names if level is not None and level not in frame.columns]
    if levels:
        frame = frame.reset_index(level=levels)
    names = [str(name) for name in frame.columns]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise TableError(f"{_NAME}: {names.count(twice)} columns are named {twice!r}; give each a name of its own")
    return {name: _pandas_values(frame.iloc[:, i]) for i, name in enumerate(names)}


def _pandas_values(series: Any) -> Any:
    if isinstance(series.dtype, np.dtype) and series.dtype.kind in "fiubmM":
        return series.to_numpy()
    name, kind, unknown = series.dtype.name, series.dtype.kind, series.isna()
    if name.startswith("datetime64"):
        return series.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()
    if kind in "iu" and not unknown.any():
        return series.to_numpy(dtype=np.int64 if kind == "i" else np.uint64)
    if kind in "fb" and name != "category":
        return series.to_numpy(dtype=np.float64, na_value=np.nan)
    return _objects([None if missing else cell for cell, missing in zip(series, unknown, strict=True)])


def _objects(cells: list[Any]) -> np.ndarray[Any, Any]:
    array = np.empty(len(cells), dtype=object)
    array[:] = cells
    return array


def _of_pandas(frame: Any) -> Table:
    return table_of_columns(_NAME, _pandas_columns(frame))


def _of_arrow(data: Any) -> Table:
    from rfm.datasets.formats.arrow import table_of_arrow

    return table_of_arrow(_NAME, data)


def _of_dataset(data: Any) -> Table:
    from rfm.datasets.formats.netcdf import table_of_dataset

    return table_of_dataset(_NAME, data)


def _of_data_array(data: Any) -> Table:
    return _of_dataset(data.to_dataset(name=data.name or "value"))


def _of_astropy(data: Any) -> Table:
    return table_of_columns(_NAME, {name: data[name] for name in data.colnames})


def _of_records(data: Any) -> Table:
    if data.dtype.names is None:
        raise TableError(
            f"an array without names of columns, of shape {data.shape}, is no table; pass points to rfm.fit"
        )
    return table_of_columns(_NAME, {name: data[name] for name in data.dtype.names})


_READERS: Mapping[tuple[str, str], Callable[[Any], Table]] = {
    ("pandas", "DataFrame"): _of_pandas,
    ("pyarrow", "Table"): _of_arrow,
    ("xarray", "Dataset"): _of_dataset,
    ("xarray", "DataArray"): _of_data_array,
    ("astropy", "Table"): _of_astropy,
    ("numpy", "ndarray"): _of_records,
}
"""By the package and the name of a class."""
