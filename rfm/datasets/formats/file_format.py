"""What a reader of a format offers, and how a part of a file is chosen."""

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rfm.datasets.table_error import TableError, shown_path
from rfm.datasets.text_files import FileContent

_Part = TypeVar("_Part")
_Content = TypeVar("_Content")

_BEGINNING = 4096
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f\x80-\xff]|^SIMPLE  =")
_DISTRIBUTION = "riemannian-flow-matching"


@dataclass(frozen=True)
class FileFormat(Generic[_Content]):
    """A format, and what reads it.

    Args:
        what: a file of it in words, with an article.
        recognises: from a file to whether it is one, by its first bytes.
        read: from a file to its content, a table for example; whatever it raises is reported as a `TableError`.
        extra: the extra of this distribution that installs what reading needs; empty where nothing more is needed.
    """

    what: str
    recognises: Callable[[FileContent], bool]
    read: Callable[[FileContent], _Content]
    extra: str = ""

    def content_of(self, source: FileContent) -> _Content:
        """Return what is in a file.

        Raises:
            TableError: the file is damaged, holds no table, or what reads it is not installed.
        """
        file = shown_path(source)
        try:
            return self.read(source)
        except TableError:
            raise
        except ModuleNotFoundError as error:
            raise TableError(missing_package(file, self.what, error.name, self.extra)) from None
        except Exception as error:  # whatever another library says of bytes that it cannot read
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            raise TableError(
                f"{file}: this is {self.what}, and it cannot be read ({reason}); copy or write it again"
            ) from None


def missing_package(file: str, what: str, name: str | None, extra: str) -> str:
    """Return the sentence that reading something needs a package which an extra installs."""
    return (
        f"{file}: reading {what} needs the package {name}, which is not installed; "
        f"pip install '{_DISTRIBUTION}[{extra}]'"
    )


def begins(*signatures: bytes) -> Callable[[FileContent], bool]:
    """Return the test whether a file begins with one of some bytes; where these are letters, and holds no text."""

    def recognises(source: FileContent) -> bool:
        start = source.content[:_BEGINNING]
        return start.startswith(signatures) and _CONTROL.search(start) is not None

    return recognises


def package(name: str) -> Any:
    """Return an optional package; `FileFormat.content_of` reports one that is missing."""
    return importlib.import_module(name)


def chosen_part(source: FileContent, parts: Mapping[str, _Part], kind: str) -> _Part:
    """Return the part of a file that is named by ``FILE#PART``, or the only one.

    Args:
        source: the file.
        parts: what it holds, by name.
        kind: what a part is called, such as sheet.

    Raises:
        TableError: there is none of that name, none at all, or several and none is named.
    """
    file = shown_path(source)
    listed = ", ".join(list(parts)[:12]) + (", ..." if len(parts) > 12 else "")
    if not parts:
        raise TableError(f"{file}: there is no {kind} with a table in it; name another file")
    if source.part:
        own = [name for name in parts if name == source.part] or [
            name for name in parts if name.casefold() == source.part.casefold()
        ]
        if len(own) != 1:
            raise TableError(f"{file}: there is no {kind} {source.part[:40]!r} in it; it has {listed}")
        return parts[own[0]]
    if len(parts) > 1:
        first = next(iter(parts))
        raise TableError(
            f"{file}: there are {len(parts)} {kind}s in it, {listed}; name one, for instance {file}#{first}"
        )
    return next(iter(parts.values()))


def refuse_part(source: FileContent, what: str) -> None:
    """Raise TableError where a part is named of a file that has none."""
    if source.part:
        raise TableError(f"{shown_path(source)}: {what} has no parts to name; leave out #{source.part[:40]}")


def point_names(properties: Sequence[str], heights: bool) -> tuple[list[str], dict[str, str]]:
    """Return names for the coordinates of points, and new names of properties that are called like them."""
    own = ["longitude", "latitude", *(["altitude"] if heights else [])]
    taken = {name.casefold() for name in own}
    # Where a table carries its coordinates twice, the geometry counts.
    renamed = {name: f"property_{name}" for name in properties if name.casefold() in taken | {"lat", "lon", "lng"}}
    return own, renamed
