"""From a file to its text: read once, and named for what it is where it is no text that is read here.

A file that is no UTF-8 text is recognised by its first bytes, whatever it is called, and so are texts in other formats
than tables: each has a sentence that says what it is and how to make a table of it.
"""

import io
import os
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path


class TableError(ValueError):
    """A table that cannot be used; the message is one sentence: where, what, and the remedy."""


@dataclass(frozen=True)
class FileContent(os.PathLike[str]):
    """A file that has been read. It stands for the file's path wherever one is read, also where bytes come only once.

    Args:
        name: of the file, for messages.
        content: its bytes.
        streamed: whether it came from a pipe or a device, which may not give it again.
    """

    name: str
    content: bytes = field(repr=False)
    streamed: bool = False

    def __fspath__(self) -> str:
        return self.name


def read_once(path: str | os.PathLike[str]) -> FileContent:
    """Return a file with its bytes; one that has been read is returned as it is.

    Raises:
        TableError: the file is missing, a folder, or cannot be read.
    """
    if isinstance(path, FileContent):
        return path
    file = shown_path(path)
    try:
        content = Path(path).read_bytes()
        streamed = not Path(path).is_file() or file.startswith(("/dev/", "/proc/"))
    except FileNotFoundError:
        raise TableError(f"{file}: there is no such file; check the name and the folder") from None
    except IsADirectoryError:
        raise TableError(f"{file}: this is a folder; name a file in it") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise TableError(f"{file}: cannot be read ({reason}); name a text file that you may read") from None
    return FileContent(os.fspath(path), content, streamed)


def read_lines(path: str | os.PathLike[str]) -> list[str]:
    """Return the lines of a file of text in UTF-8, with or without a byte-order mark, whatever ends them.

    Raises:
        TableError: it cannot be read, or is something else, which the message names.
    """
    source = read_once(path)
    content, file = source.content, shown_path(source)
    if what := _binary(content):
        raise TableError(f"{file}: this is {what[0]}, not a text file; {what[1]}")
    if encoding := _wide_encoding(content):
        raise TableError(
            f"{file}: this is text in {encoding}, not in UTF-8; {_SAVE}: iconv -f {encoding} -t UTF-8 FILE"
        )
    if b"\0" in content:
        raise TableError(f"{file}: this is not a text file (it holds zero bytes); {_SAVE}")
    if what := _other_text(content[:_BEGINNING].decode("utf-8-sig", errors="replace")):
        raise TableError(f"{file}: this is {what[0]}, not a table; {what[1]}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise TableError(
            f"{file}, line {line}: this is not UTF-8 text, but perhaps Latin-1 (Windows-1252); "
            f"{_SAVE}: iconv -f WINDOWS-1252 -t UTF-8 FILE"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def shown_path(path: str | os.PathLike[str]) -> str:
    """Return a path for a message, whatever its characters."""
    name = os.fspath(path)
    return name if name.isprintable() and name else repr(name)


# What files are, by their content, and how to make a table of them.

_BEGINNING = 2000
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f\x80-\xff]")
_SAVE = "save the table as CSV, in UTF-8"
_PANDAS = "convert it in Python: pandas.{}(FILE).to_csv('table.csv', index=False)"
_XARRAY = "convert its variables to CSV in Python: xarray.open_dataset(FILE).to_dataframe().to_csv('table.csv')"
_NUMPY = "write its numbers as CSV, with numpy.savetxt, or pass them to rfm.fit in Python"
_UNPACK = "unpack it: {} FILE | rfm fit - ..."
_PICTURE = "name a table of numbers"
_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "a gzip archive", _UNPACK.format("gunzip -c")),
    (b"BZh", "a bzip2 archive", _UNPACK.format("bunzip2 -c")),
    (b"\xfd7zXZ\x00", "an xz archive", _UNPACK.format("xz -dc")),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", _UNPACK.format("zstd -dc")),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it, and name the table in it"),
    (b"Rar!\x1a\x07", "a RAR archive", "unpack it, and name the table in it"),
    (b"PAR1", "a Parquet file", _PANDAS.format("read_parquet")),
    (b"ARROW1", "an Arrow (Feather) file", _PANDAS.format("read_feather")),
    (b"FEA1", "a Feather file", _PANDAS.format("read_feather")),
    (b"CDF\x01", "a NetCDF file", _XARRAY),
    (b"CDF\x02", "a NetCDF file", _XARRAY),
    (b"CDF\x05", "a NetCDF file", _XARRAY),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (NetCDF-4 and MATLAB 7.3 files are such)", "convert it to CSV, with h5py"),
    (b"\x0e\x03\x13\x01", "an HDF4 file", "convert it to CSV, with pyhdf"),
    (b"GRIB", "a GRIB file", "convert it to CSV, with cfgrib and xarray"),
    (b"SIMPLE  =", "a FITS file", "convert its table in Python: astropy.table.Table.read(FILE).write('table.csv')"),
    (b"MATLAB 5.0 MAT-file", "a MATLAB file (.mat)", "write CSV in MATLAB, or load it with scipy.io.loadmat"),
    (b"\x93NUMPY", "a NumPy array (.npy)", _NUMPY),
    (b"SQLite format 3\x00", "an SQLite database", "write its table as CSV: sqlite3 -csv -header FILE 'select ...'"),
    (b"Obj\x01", "an Avro file", "convert it to CSV"),
    (b"%PDF-", "a PDF document", f"copy the table into a spreadsheet, and {_SAVE}"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook (.xls)", _SAVE),
    (b"{\\rtf", "an RTF document", "save it as plain text"),
    (b"RDX", "an R data file", "write the table in R, with write.csv"),
    (b"\x89PNG", "a PNG picture", _PICTURE),
    (b"\xff\xd8\xff", "a JPEG picture", _PICTURE),
    (b"GIF8", "a GIF picture", _PICTURE),
    (b"II*\x00", "a TIFF picture", _PICTURE),
    (b"MM\x00*", "a TIFF picture", _PICTURE),
    (b"\x7fELF", "a program", _PICTURE),
)
_DISTINCT = 5
"""A signature of so many letters begins no table; a shorter one that is plain text may be a column's name."""
_ZIPPED = (
    ("xl/", "an Excel workbook (.xlsx)", _PANDAS.format("read_excel")),
    ("word/", "a Word document (.docx)", f"copy the table into a spreadsheet, and {_SAVE}"),
    ("content.xml", "an OpenDocument file (.ods)", _SAVE),
    ("doc.kml", "a KMZ file", "convert its points to CSV, with ogr2ogr"),
)
_MARKS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
_MARKUP = re.compile(r"<(\?xml|!doctype|!--|[a-z]+[ >])")
_GEOMETRY = re.compile(
    r'"type"\s*:\s*"(featurecollection|feature|geometrycollection|(multi)?(point|linestring|polygon))"'
)


def _binary(content: bytes) -> tuple[str, str] | None:
    """Return what a file is that is no text, and the remedy."""
    for start, what, remedy in _SIGNATURES:
        if content.startswith(start) and (len(start) >= _DISTINCT or _CONTROL.search(content)):
            return what, remedy
    if content.startswith(b"PK\x03\x04"):
        return _zip(content)
    if re.match(rb"\x80[\x02-\x05]", content):
        return "a Python pickle", "load it in Python, and write its table as CSV"
    return None


def _zip(content: bytes) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError):
        names = []
    for part, what, remedy in _ZIPPED:
        if any(name.startswith(part) for name in names):
            return what, remedy
    if names and all(name.endswith(".npy") for name in names):
        return "an archive of NumPy arrays (.npz)", _NUMPY
    if any(name.endswith("/data.pkl") for name in names):
        return "a file of torch.save", _NUMPY
    return "a zip archive", _UNPACK.format("unzip -p")


def _wide_encoding(content: bytes) -> str | None:
    """Return the encoding of text in units of two or four bytes: by its mark, else by where its zero bytes are."""
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return encoding
    start = content[:400]
    for encoding, width, place in (("UTF-32LE", 4, 0), ("UTF-32BE", 4, 3), ("UTF-16LE", 2, 0), ("UTF-16BE", 2, 1)):
        letters = start[place::width]
        if len(start) >= 2 * width and 0 not in letters and start.count(0) == len(start) - len(letters):
            return encoding
    return None


def _other_text(beginning: str) -> tuple[str, str] | None:
    """Return what a text is that is no table, by how it begins, and the remedy."""
    start = beginning.lstrip().casefold()
    if re.search(r"^channel text file", start, re.MULTILINE):
        return (
            "a map of orientations as Channel Text File (.ctf)",
            "export it as .ang, or write its columns Euler1, Euler2, Euler3 as CSV and call them phi1, Phi, phi2",
        )
    if re.match(r"[{\[]\s*[\"{\[\]}]", start):
        if _GEOMETRY.search(start):
            return "GeoJSON", "convert its points to CSV: ogr2ogr -f CSV table.csv FILE -lco GEOMETRY=AS_XY"
        return "JSON", _PANDAS.format("read_json")
    if _MARKUP.match(start):
        kind = next((name for name in ("kml", "gpx", "html") if f"<{name}" in start), "xml")
        return f"a file of {kind.upper()}", "convert its points to CSV, one on a line"
    return None
