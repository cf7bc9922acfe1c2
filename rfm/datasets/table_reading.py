"""`read_table`: a table out of a file in any format that is known, recognised by its first bytes, not by its name."""

import os

from rfm.datasets.formats import arrow, fits, geojson, hdf5, netcdf, numpy_arrays, vector_layers, workbooks
from rfm.datasets.formats.file_format import FileFormat, refuse_part
from rfm.datasets.skipped_rows import SkippedRows
from rfm.datasets.table_error import TableError, shown_path
from rfm.datasets.tables import Table
from rfm.datasets.text_files import FileContent, read_once
from rfm.datasets.text_tables import read_header, read_text_table

FORMATS: tuple[FileFormat[Table], ...] = (
    arrow.PARQUET,
    arrow.ARROW,
    arrow.ARROW_STREAM,
    workbooks.WORKBOOK,
    geojson.GEOJSON,
    vector_layers.GEOPACKAGE,
    vector_layers.FLATGEOBUF,
    vector_layers.SHAPEFILE,
    netcdf.NETCDF_3,
    hdf5.HDF5,
    fits.FITS,
    numpy_arrays.ARRAY,
    numpy_arrays.ARRAYS,
)
"""What is read beside text. A new format is a line here."""


def format_of(source: FileContent) -> FileFormat[Table] | None:
    """Return the format of a file; None for text, and for what is not known."""
    return next((known for known in FORMATS if known.recognises(source)), None)


def read_table(path: str | os.PathLike[str], minimum_rows: int = 1, skipped: SkippedRows | None = None) -> Table:
    """Read a table from a file: text, or a format of `FORMATS`, compressed or not.

    Args:
        path: the file, or ``FILE#PART`` for one sheet, layer, table, variable or group of it.
        minimum_rows: fewer rows than this, not counting the header, are an error; at least 1.
        skipped: notes rows that have to be left out as the text is cut into cells; an error when None.

    Raises:
        TableError: the file is missing, a folder, damaged, something else than a table, or empty, has too few rows, or
            rows of different lengths; or a package is missing, and then the message names the extra that installs it.
    """
    source = read_once(path)
    known = format_of(source)
    if known is None:
        refuse_part(source, "a text file")
        return read_text_table(source, minimum_rows, skipped)
    table = known.content_of(source)
    if len(table) < minimum_rows:
        raise TableError(
            f"{shown_path(source)}: the file has {len(table)} row{'s' * (len(table) != 1)}, and at least "
            f"{minimum_rows} are needed; add points, one in a row"
        )
    return table


def comment_lines(path: str | os.PathLike[str]) -> list[str]:
    """Return the comment lines before the first row of a text file, without their ``#``; none of another format.

    Raises:
        TableError: the file cannot be read.
    """
    source = read_once(path)
    return [] if format_of(source) is not None else read_header(source)
