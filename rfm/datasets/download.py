"""Find a file of known content in a folder or the cache, or download it; its SHA-256 is always verified."""

import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

TIMEOUT_SECONDS = 30.0
"""How long a server may stay silent."""

_CHUNK_BYTES = 1 << 16


class DatasetError(ValueError):
    """A data set that cannot be had; the message is one sentence: what, why, and the remedy."""


class DatasetNotFoundError(DatasetError):
    """A file that is nowhere, and that no server offers."""


def find_or_download(relative: str, sha256: str, url: str, timeout: float = TIMEOUT_SECONDS) -> Path:
    """Return the path of a file whose content has the given SHA-256.

    It is looked for in the folder that the environment variable ``RFM_DATA`` names, then in `cache_folder`, and is
    otherwise downloaded into the cache, where it appears whole or not at all. A file with another content is an error,
    and is left as it is.

    Args:
        relative: where the file stands in either folder, such as ``earth/fire.csv``.
        sha256: hexadecimal digest of the content.
        url: where to download it.
        timeout: seconds of silence after which the download fails.

    Raises:
        DatasetError: the content differs, the network fails, or the cache cannot be written.
    """
    folder = os.environ.get("RFM_DATA")
    if folder and (Path(folder) / relative).exists():
        return _verified(Path(folder) / relative, sha256, "set RFM_DATA to a folder with the right file, or unset it")
    cached = cache_folder() / relative
    if cached.exists():
        return _verified(cached, sha256, "move it away, and it will be downloaded again")
    _download(url, cached, sha256, relative, timeout)
    return cached


def find(relative: str, sha256: str) -> Path:
    """Return the path of a file of known content that no server offers, from ``RFM_DATA`` or the cache.

    Raises:
        DatasetNotFoundError: there is none.
        DatasetError: it has another content.
    """
    folder = os.environ.get("RFM_DATA")
    for place in (Path(folder) if folder else None, cache_folder()):
        if place is not None and (place / relative).exists():
            return _verified(place / relative, sha256, "set RFM_DATA to a folder with the right file")
    raise DatasetNotFoundError(f"{relative} is not there, and cannot be downloaded; {_by_hand(relative)}")


def cache_folder() -> Path:
    """Return ``$RFM_CACHE``, else ``$XDG_CACHE_HOME/rfm``, else ``~/.cache/rfm``."""
    if override := os.environ.get("RFM_CACHE"):
        return Path(override)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "rfm"
    try:
        return Path.home() / ".cache" / "rfm"
    except RuntimeError:
        raise DatasetError("there is no home folder for the cache; set RFM_CACHE to a folder of yours") from None


def file_sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file.

    Raises:
        DatasetError: the file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({_reason(error)}); put a file there that you may read") from None


def _verified(path: Path, sha256: str, remedy: str) -> Path:
    digest = file_sha256(path)
    if digest != sha256:
        raise DatasetError(
            f"{path}: this is not the published file: SHA-256 {digest[:16]}, not {sha256[:16]}; {remedy}"
        )
    return path


def _download(url: str, target: Path, sha256: str, relative: str, timeout: float) -> None:
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Made before the network is asked, so that a folder that cannot be written is reported as what it is.
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        temporary = Path(name)
        with open(handle, "wb") as stream:  # noqa: PTH123, a file descriptor
            digest = _copy(_chunks(url, relative, timeout), stream)
        if digest != sha256:
            raise DatasetError(
                f"{url}: the download is not the published file: SHA-256 {digest[:16]}, not {sha256[:16]}; "
                f"try again, or {_by_hand(relative)}"
            )
        temporary.replace(target)
    except OSError as error:
        raise DatasetError(
            f"{target.parent}: the cache cannot be written ({_reason(error)}); set RFM_CACHE to a folder of yours"
        ) from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _copy(chunks: Iterator[bytes], stream: BinaryIO) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        stream.write(chunk)
    return digest.hexdigest()


def _chunks(url: str, relative: str, timeout: float) -> Iterator[bytes]:
    """Yield the content of a URL, showing progress on a terminal; network failures are `DatasetError`."""
    # Imported here because most runs download nothing.
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import urlopen

    from tqdm import tqdm

    try:
        with urlopen(url, timeout=timeout) as response:
            total = int(response.headers.get("Content-Length") or 0) or None
            with tqdm(
                desc=Path(relative).name, total=total, unit="B", unit_scale=True, file=sys.stderr, disable=None
            ) as bar:
                while chunk := response.read(_CHUNK_BYTES):
                    bar.update(len(chunk))
                    yield chunk
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, HTTPError):
            error.close()  # it holds the connection
        raise DatasetError(f"{url}: cannot be downloaded ({_reason(error)}); {_by_hand(relative)}") from None


def _by_hand(relative: str) -> str:
    return f"set RFM_DATA to a folder that holds {relative}"


def _reason(error: Exception) -> str:
    """Return the cause of an error in one line, without the file's name or an error's number."""
    if isinstance(inner := getattr(error, "reason", None), Exception):  # a URLError only wraps what happened
        return _reason(inner)
    text = str(getattr(error, "strerror", None) or error) or type(error).__name__
    return " ".join(text.split())[:200]
