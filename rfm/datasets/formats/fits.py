"""Tables of FITS files, by astropy."""

import io
from typing import Any

import numpy as np

from rfm.datasets.column_values import table_of_columns
from rfm.datasets.formats.file_format import FileFormat, begins, chosen_part, package
from rfm.datasets.table_error import TableError, shown_path
from rfm.datasets.tables import Table
from rfm.datasets.text_files import FileContent


def _read(source: FileContent) -> Table:
    file, fits = shown_path(source), package("astropy.io.fits")
    with fits.open(io.BytesIO(source.content), memmap=False) as units:
        tables = {}
        for i, unit in enumerate(units):
            if isinstance(unit, fits.BinTableHDU | fits.TableHDU):
                tables[unit.name or str(i)] = unit
        unit = chosen_part(source, tables, "table")
        return table_of_columns(file, dict(_column(file, column, unit) for column in unit.columns))


def _column(file: str, column: Any, unit: Any) -> tuple[str, Any]:
    """Return a column's name and values; angles in radians say so in the name, and hours are refused."""
    values = np.asarray(unit.data[column.name])
    if values.dtype.byteorder == ">":
        values = values.astype(values.dtype.newbyteorder("="))
    if column.null is not None and values.dtype.kind in "iu":
        values = np.where(values == column.null, np.nan, values)
    own = str(column.unit or "").strip().casefold()
    if own in ("hourangle", "hour angle", "h") and column.name.casefold().startswith("ra"):
        raise TableError(
            f"{file}: column {column.name!r} is in hours; write right ascensions in degrees, 15 times the hours"
        )
    return (f"{column.name}_rad" if own in ("rad", "radian") else column.name), values


FITS = FileFormat("a FITS file", begins(b"SIMPLE  ="), _read, "tables")
