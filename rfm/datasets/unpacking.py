"""Compressed files: gzip, bzip2, xz, and zip archives of one file are unpacked as they are read."""

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable

from rfm.datasets.table_error import TableError

_PACKERS: tuple[tuple[bytes, str, Callable[[bytes], bytes]], ...] = (
    (b"\x1f\x8b", "gzip", gzip.decompress),
    (b"BZh", "bzip2", bz2.decompress),
    (b"\xfd7zXZ\x00", "xz", lzma.decompress),
)
_ZIP = b"PK\x03\x04"
_DOCUMENTS = ("xl/", "word/", "ppt/", "content.xml", "[Content_Types].xml", "doc.kml")
"""Members by which a zip archive is a document, with a meaning of its own."""
_ARRAYS = (".npy", "/data.pkl")


def unpacked(content: bytes, file: str) -> bytes:
    """Return the bytes of a file, unpacked where it is an archive of one file, also twice over.

    Args:
        content: the bytes as stored.
        file: its name, for messages.

    Raises:
        TableError: the archive is damaged or cut short, or a zip archive holds several files.
    """
    for start, name, unpack in _PACKERS:
        # Three letters alone may be the name of a column.
        if content.startswith(start) and (start != b"BZh" or content[4:10] == b"1AY&SY"):
            try:
                return unpacked(unpack(content), file)
            except (OSError, EOFError, lzma.LZMAError, zlib.error, ValueError) as error:
                raise TableError(
                    f"{file}: this {name} archive is damaged or cut short ({_reason(error)}); copy or download it again"
                ) from None
    return _from_zip(content, file) if content.startswith(_ZIP) else content


def _from_zip(content: bytes, file: str) -> bytes:
    """Return the one file in a zip archive; a document or arrays as they are."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [name for name in archive.namelist() if not name.endswith("/")]
            special = any(name.startswith(_DOCUMENTS) or name.endswith(_ARRAYS) for name in members)
            layers = any(name.casefold().endswith(".shp") for name in members)
            if special or layers:
                return content
            # What macOS adds beside each file.
            members = [name for name in members if not name.startswith("__MACOSX/")]
            if len(members) == 1:
                return unpacked(archive.read(members[0]), file)
    except (zipfile.BadZipFile, RuntimeError, zlib.error, OSError, EOFError) as error:
        raise TableError(
            f"{file}: this zip archive is damaged or encrypted ({_reason(error)}); copy or download it again"
        ) from None
    listed = ", ".join(members[:5]) + (", ..." if len(members) > 5 else "")
    raise TableError(f"{file}: this zip archive holds {len(members)} files ({listed}); unpack it, and name one of them")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
