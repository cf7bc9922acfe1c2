"""NetCDF files and xarray's data sets: variables over the same dimensions as columns, a row for each cell of a grid.

A variable over fewer dimensions, such as the latitudes of a grid, is repeated along the others. Cells where all
variables are missing are no rows.
"""

import io
from typing import Any

import numpy as np

from rfm.datasets.column_values import table_of_columns
from rfm.datasets.formats.file_format import FileFormat, begins, package
from rfm.datasets.table_error import TableError, shown_path
from rfm.datasets.tables import Table
from rfm.datasets.text_files import FileContent

_MOST_CELLS = 20_000_000


def table_of_dataset(file: str, dataset: Any, variable: str = "") -> Table:
    """Return the table in an ``xarray.Dataset``.

    Args:
        file: for messages.
        dataset: the data set.
        variable: one whose dimensions are those of the rows; needed where several variables have dimensions that none
            has together.

    Raises:
        TableError: it is not clear which variables belong together, or there are too many cells.
    """
    dims = _row_dimensions(file, dataset, variable)
    sizes = [dataset.sizes[dim] for dim in dims]
    if int(np.prod(sizes)) > _MOST_CELLS:
        raise TableError(
            f"{file}: its variables have {int(np.prod(sizes)):,} cells ({' x '.join(map(str, sizes))}), more than "
            f"{_MOST_CELLS:,}; select a part of it, with xarray's isel or with ncks"
        )
    columns, measured = {}, []
    for name, values in dataset.variables.items():
        if not set(values.dims) <= set(dims) or (variable and name in dataset.data_vars and name != variable):
            continue
        if values.dtype.kind == "S" and values.ndim and values.dims[-1] not in dims:
            continue
        full = values.set_dims(dict(zip(dims, sizes, strict=True))).transpose(*dims).values.reshape(-1)
        columns[_name(str(name), values.attrs)] = full
        if name in dataset.data_vars and full.dtype.kind == "f" and set(values.dims) == set(dims):
            measured.append(full)
    if measured and len(dims) > 1:
        known = ~np.all([np.isnan(values) for values in measured], axis=0)
        columns = {name: values[known] for name, values in columns.items()}
    return table_of_columns(file, columns)


def _row_dimensions(file: str, dataset: Any, variable: str) -> tuple[Any, ...]:
    """Return the dimensions of a row: those of the variable with the most, which all others are to be over."""
    if variable:
        if variable not in dataset.variables:
            listed = ", ".join(map(str, list(dataset.data_vars)[:12]))
            raise TableError(f"{file}: there is no variable {variable[:40]!r} in it; it has {listed}")
        return tuple(dataset[variable].dims)
    texts = {values.dims[-1] for values in dataset.variables.values() if values.dtype.kind == "S" and values.ndim > 1}
    over = {name: tuple(d for d in values.dims if d not in texts) for name, values in dataset.data_vars.items()}
    over = {name: dims for name, dims in over.items() if dims} or {
        name: tuple(values.dims) for name, values in dataset.coords.items() if values.dims
    }
    if not over:
        raise TableError(f"{file}: no variable in it has a dimension; name another file")
    longest = max(over, key=lambda name: len(over[name]))
    apart = [name for name, dims in over.items() if not set(dims) <= set(over[longest])]
    if apart:
        raise TableError(
            f"{file}: variables in it are over different dimensions, {longest} over "
            f"{', '.join(map(str, over[longest]))} and {apart[0]} over {', '.join(map(str, over[apart[0]]))}; name "
            f"one, for instance {file}#{longest}"
        )
    return over[longest]


def _name(name: str, attributes: Any) -> str:
    """Return a variable's name, with the unit of an angle in radians."""
    radians = str(attributes.get("units", "")).strip().casefold() in ("rad", "radian", "radians")
    return f"{name}_rad" if radians else name


def read_netcdf(source: FileContent) -> Table:
    """Read a NetCDF file, of either kind."""
    xarray = package("xarray")
    engine = "scipy" if source.content.startswith(b"CDF") else "h5netcdf"
    with xarray.open_dataset(io.BytesIO(source.content), engine=engine) as dataset:
        return table_of_dataset(shown_path(source), dataset.load(), source.part)


NETCDF_3 = FileFormat("a NetCDF file", begins(b"CDF\x01", b"CDF\x02", b"CDF\x05"), read_netcdf, "geo")
