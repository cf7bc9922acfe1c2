"""Write tables of numbers as text."""

import csv
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np
from numpy.typing import ArrayLike

from rfm.datasets.tables import TableError, shown_path
from rfm.datasets.text_tables import is_header


@dataclass(frozen=True)
class Layout:
    """How `write_table` lays out a file.

    Args:
        separator: between cells.
        comment: what the line with the names starts with; None for no such line.
    """

    separator: str = ","
    comment: str | None = ""


CSV = Layout()

Writer = Callable[..., None]
"""What `table_writer` yields: it takes names, values and texts as `write_table` does."""


def write_table(
    target: str | os.PathLike[str] | TextIO,
    names: Sequence[str],
    values: ArrayLike | tuple[ArrayLike, ...],
    texts: Mapping[str, Sequence[str]] | None = None,
    layout: Layout = CSV,
) -> None:
    """Write numbers as text with a header, in digits that read back to the same numbers.

    A file appears whole or not at all: it is written beside its place and renamed.

    Args:
        target: a path, or a text stream.
        names: one name for each column; `read_table` must be able to distinguish them from numbers.
        values: numbers, ``(n, len(names))``, or a tuple of columns, each of its own type; float32 is written in the
            digits that float32 needs.
        texts: further columns by name, ``n`` cells each, which stand behind the numbers.
        layout: comma-separated with a header by default.

    Raises:
        ValueError: the shapes do not fit, or a name looks like a number.
        TableError: the file cannot be written.
    """
    with table_writer(target, layout) as write:
        write(names, values, texts)


@contextmanager
def table_writer(target: str | os.PathLike[str] | TextIO, layout: Layout = CSV) -> Iterator[Writer]:
    """Yield a function that takes the arguments of `write_table` for one part of a table after the other.

    So a table of any length is written in bounded memory. A file appears when all is written, or not at all.

    Args:
        target: a path, or a text stream.
        layout: see `write_table`.

    Raises:
        TableError: the file cannot be written.
    """
    with _opened(target) as stream:
        begun = False

        def write(
            names: Sequence[str],
            values: ArrayLike | tuple[ArrayLike, ...],
            texts: Mapping[str, Sequence[str]] | None = None,
        ) -> None:
            nonlocal begun
            cells = _as_text(names, values)
            if texts:
                names = [*names, *texts]
                cells = [[*row, *more] for row, more in zip(cells, zip(*texts.values(), strict=True), strict=True)]
            with _translated_errors(target):
                if not begun:
                    _write_header(stream, names, layout)
                begun = True
                csv.writer(stream, lineterminator="\n", delimiter=layout.separator).writerows(cells)

        yield write


@contextmanager
def json_writer(target: str | os.PathLike[str] | TextIO) -> Iterator[Callable[[Mapping[str, Sequence[Any]]], None]]:
    """Yield a function that takes columns by name for one part of a table after the other, for one JSON object.

    An object has its columns one after the other, so until the end each part waits in a temporary file.

    Raises:
        TableError: the file cannot be written.
        ValueError: a number is not finite; JSON has no word for it.
    """
    with ExitStack() as stack, _opened(target) as stream:
        waiting: dict[str, TextIO] = {}

        def write(columns: Mapping[str, Sequence[Any]]) -> None:
            for name, cells in columns.items():
                begun = name in waiting
                if not begun:
                    waiting[name] = stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8"))
                waiting[name].write((", " if begun else "") + json.dumps(list(cells), allow_nan=False)[1:-1])

        yield write
        with _translated_errors(target):
            for i, (name, cells) in enumerate(waiting.items()):
                stream.write(f"{', ' if i else '{'}{json.dumps(name)}: [")
                cells.seek(0)
                shutil.copyfileobj(cells, stream)
                stream.write("]")
            stream.write("}\n")


def _as_text(names: Sequence[str], values: ArrayLike | tuple[ArrayLike, ...]) -> list[list[str]]:
    columns = [np.asarray(column) for column in (values if isinstance(values, tuple) else (values,))]
    array = np.column_stack([column.astype(str) for column in columns]) if isinstance(values, tuple) else columns[0]
    if array.ndim != 2 or array.shape[1] != len(names) or not names:
        raise ValueError(
            f"write_table: values have shape (n, {len(names)}), one column for each name, got {array.shape}; stack "
            "columns along axis 1"
        )
    for column in columns:
        if column.dtype.kind not in "fiu":
            raise ValueError(f"write_table: values are numbers, got {column.dtype}; convert them")
    if not is_header([name.strip() for name in names]):
        raise ValueError(f"write_table: {list(names)} would be read back as a row of data; use names, not numbers")
    return array.astype(str).tolist()


def _write_header(stream: TextIO, names: Sequence[str], layout: Layout) -> None:
    if layout.comment is None:
        return
    # Quoted where a name could pass for a comment or for several cells.
    plain = all(re.fullmatch(r"[\w.-]+", name) for name in names)
    quoting: Literal[0, 1] = csv.QUOTE_MINIMAL if plain else csv.QUOTE_ALL
    stream.write(layout.comment)
    csv.writer(stream, lineterminator="\n", quoting=quoting, delimiter=layout.separator).writerow(names)


@contextmanager
def _translated_errors(target: str | os.PathLike[str] | TextIO) -> Iterator[None]:
    """Say of a file, not of a stream, why it cannot be written."""
    try:
        yield
    except OSError as error:
        if not isinstance(target, str | os.PathLike):
            raise
        reason = error.strerror or type(error).__name__
        raise TableError(
            f"{shown_path(target)}: cannot be written ({reason}); name a file in a folder in which you may write"
        ) from None


@contextmanager
def _opened(target: str | os.PathLike[str] | TextIO) -> Iterator[TextIO]:
    """Yield a stream to write to; a file is put in place when all is written."""
    if not isinstance(target, str | os.PathLike):
        yield target
        return
    path = Path(target)
    if path.exists() and not path.is_file():  # a pipe or a device has no place to be renamed to
        with _translated_errors(target):
            stream = path.open("w", encoding="utf-8", newline="")
        with stream:
            yield stream
        return
    with _translated_errors(target):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with open(handle, "w", encoding="utf-8", newline="") as stream:  # noqa: PTH123, a file descriptor
            yield stream
        with _translated_errors(target):
            _take_default_mode(temporary)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _take_default_mode(file: Path) -> None:
    """Give a temporary file, which only its owner may read, the mode that a new file has."""
    mask = os.umask(0)
    os.umask(mask)
    file.chmod(0o666 & ~mask)
