"""From a file to its text: read once, unpacked, and named for what it is where nothing here reads it.

A file that is no UTF-8 text is recognised by its first bytes, whatever it is called, and so are texts in other formats
than tables: each has a sentence that says what it is and how to make a table of it.
"""

import hashlib
import io
import os
import re
import zipfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from rfm.datasets.table_error import TableError, shown_path
from rfm.datasets.unpacking import unpacked

__all__ = ["FileContent", "TableError", "read_lines", "read_once", "shown_path"]


@dataclass(frozen=True)
class FileContent(os.PathLike[str]):
    """A file that has been read. It stands for the file's path wherever one is read, also where bytes come only once.

    Args:
        name: of the file, for messages.
        raw: its bytes.
        streamed: whether it came from a pipe or a device, which may not give it again.
        part: which sheet, layer, table, variable or group of the file is meant, as in ``book.xlsx#March``; empty where
            none is named.
    """

    name: str
    raw: bytes = field(repr=False)
    streamed: bool = False
    part: str = ""

    def __fspath__(self) -> str:
        return self.name

    @cached_property
    def content(self) -> bytes:
        """The bytes, unpacked where they are an archive of one file.

        Raises:
            TableError: the archive is damaged, or holds several files.
        """
        return unpacked(self.raw, shown_path(self.name))

    @cached_property
    def lines(self) -> list[str]:
        """The lines of the text that the file holds, see `read_lines`."""
        return _lines_of(self)

    @property
    def sha256(self) -> str:
        """The digest of the file as it is stored."""
        return hashlib.sha256(self.raw).hexdigest()


def read_once(path: str | os.PathLike[str]) -> FileContent:
    """Return a file with its bytes; one that has been read is returned as it is.

    Args:
        path: the file; or, where there is no file of that name, a file and the part of it that is meant, ``FILE#PART``.

    Raises:
        TableError: the file is missing, a folder, or cannot be read.
    """
    if isinstance(path, FileContent):
        return path
    path, part = _with_part(path)
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
    return FileContent(os.fspath(path), content, streamed, part)


def _with_part(path: str | os.PathLike[str]) -> tuple[str | os.PathLike[str], str]:
    """Return a path, and what stands behind its last ``#`` where no file has the full name."""
    before, mark, part = os.fspath(path).rpartition("#")
    try:
        named = bool(mark and before and part) and not Path(path).exists() and Path(before).exists()
    except (OSError, ValueError):  # a NUL in the name, or one that is too long
        named = False
    return (before, part) if named else (path, "")


def read_lines(path: str | os.PathLike[str]) -> list[str]:
    """Return the lines of a file of text in UTF-8, with or without a byte-order mark, whatever ends them.

    Raises:
        TableError: it cannot be read, or is something else, which the message names.
    """
    return read_once(path).lines


def _lines_of(source: FileContent) -> list[str]:
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


# What files are, by their content, and how to make a table of them.

_BEGINNING = 2000
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f\x80-\xff]")
_SAVE = "save the table as CSV, in UTF-8"
_PANDAS = "convert it in Python: pandas.{}(FILE).to_csv('table.csv', index=False)"
_NUMPY = "write its numbers as CSV, with numpy.savetxt, or pass them to rfm.fit in Python"
_UNPACK = "unpack it: {} FILE | rfm fit - ..."
_PICTURE = "name a table of numbers"
_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"\x28\xb5\x2f\xfd", "a zstd archive", _UNPACK.format("zstd -dc")),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it, and name the table in it"),
    (b"Rar!\x1a\x07", "a RAR archive", "unpack it, and name the table in it"),
    (b"FEA1", "a Feather file of version 1", "write it again, as version 2, which is Arrow"),
    (b"\x0e\x03\x13\x01", "an HDF4 file", "convert it to CSV, with pyhdf"),
    (b"GRIB", "a GRIB file", "convert it to CSV, with cfgrib and xarray"),
    (b"MATLAB 5.0 MAT-file", "a MATLAB file (.mat)", "write CSV in MATLAB, or load it with scipy.io.loadmat"),
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


def archived_names(content: bytes) -> list[str]:
    """Return the names of the files in a zip archive; none where it is no archive, or a damaged one."""
    if not content.startswith(b"PK\x03\x04"):
        return []
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError):
        return []


def _zip(content: bytes) -> tuple[str, str]:
    names = archived_names(content)
    for part, what, remedy in _ZIPPED:
        if any(name.startswith(part) for name in names):
            return what, remedy
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
    if re.match(r"[{\[]\s*[\"{\[\]}]", start):
        return "JSON", _PANDAS.format("read_json")
    if _MARKUP.match(start):
        kind = next((name for name in ("kml", "gpx", "html") if f"<{name}" in start), "xml")
        return f"a file of {kind.upper()}", "convert its points to CSV, one on a line"
    return None
