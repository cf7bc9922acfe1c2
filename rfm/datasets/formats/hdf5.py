"""HDF5: NetCDF-4 by xarray, and groups of arrays of one length as tables, by h5py."""

import io
from typing import Any

import numpy as np

from rfm.datasets.column_values import table_of_columns
from rfm.datasets.formats.file_format import FileFormat, begins, chosen_part, package
from rfm.datasets.formats.netcdf import read_netcdf
from rfm.datasets.table_error import shown_path
from rfm.datasets.tables import Table
from rfm.datasets.text_files import FileContent


def _read(source: FileContent) -> Table:
    with package("h5py").File(io.BytesIO(source.content), "r") as file:
        # Dimension scales are what makes HDF5 NetCDF-4.
        if "_NCProperties" in file.attrs or any(_is_scale(item) for item in file.values()):
            is_netcdf = True
        else:
            is_netcdf, groups = False, dict(_tables(file))
            columns = {} if is_netcdf else chosen_part(source, groups, "group")
    return read_netcdf(source) if is_netcdf else table_of_columns(shown_path(source), columns)


def _is_scale(item: Any) -> bool:
    return item.attrs.get("CLASS") == b"DIMENSION_SCALE"


def _tables(file: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return the columns in each group of arrays of one length, and in each array of records, by the path of it."""
    h5py, found = package("h5py"), []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.names and item.ndim == 1:
            found.append((name, {field: _values(item[field]) for field in item.dtype.names}))
        if isinstance(item, h5py.Group):
            found.extend(_columns(name, item, h5py))

    visit("/", file)
    file.visititems(visit)
    return found


def _columns(name: str, group: Any, h5py: Any) -> list[tuple[str, dict[str, Any]]]:
    arrays = {
        own: item
        for own, item in group.items()
        if isinstance(item, h5py.Dataset) and item.dtype.names is None and item.ndim == 1 and len(item) > 1
    }
    if len(arrays) < 2 or len({len(item) for item in arrays.values()}) > 1:
        return []
    return [(name, {own: _values(item[()]) for own, item in arrays.items()})]


def _values(values: Any) -> Any:
    return np.asarray(values)


HDF5 = FileFormat(
    "an HDF5 file (NetCDF-4 and MATLAB 7.3 files are such)", begins(b"\x89HDF\r\n\x1a\n"), _read, "tables"
)
