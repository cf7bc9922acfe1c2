"""Write tables of numbers as text."""

import csv
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

import numpy as np
from numpy.typing import ArrayLike

from rfm.datasets.tables import TableError, is_header, shown_path


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
        names: one name for each column; `read_table` must be able to tell them from numbers.
        values: numbers, ``(n, len(names))``, or a tuple of columns, each of its own type; float32 is written in the
            digits that float32 needs.
        texts: further columns by name, ``n`` cells each, which stand behind the numbers.
        layout: comma-separated with a header by default.

    Raises:
        ValueError: the shapes do not fit, or a name looks like a number.
        TableError: the file cannot be written.
    """
    cells = _as_text(names, values)
    if texts:
        names = [*names, *texts]
        cells = [[*row, *more] for row, more in zip(cells, zip(*texts.values(), strict=True), strict=True)]
    if not isinstance(target, str | os.PathLike):
        _write_rows(target, names, cells, layout)
        return
    path = Path(target)
    try:
        if path.exists() and not path.is_file():  # a pipe or a device has no place to be renamed to
            with path.open("w", encoding="utf-8", newline="") as stream:
                _write_rows(stream, names, cells, layout)
        else:
            _write_atomically(path, names, cells, layout)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise TableError(
            f"{shown_path(target)}: cannot be written ({reason})\nname a file in a folder in which you may write"
        ) from None


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


def _write_rows(stream: TextIO, names: Sequence[str], cells: Sequence[Sequence[str]], layout: Layout) -> None:
    # Quoted where a name could pass for a comment or for several cells.
    plain = all(re.fullmatch(r"[\w.-]+", name) for name in names)
    quoting: Literal[0, 1] = csv.QUOTE_MINIMAL if plain else csv.QUOTE_ALL
    if layout.comment is not None:
        stream.write(layout.comment)
        csv.writer(stream, lineterminator="\n", quoting=quoting, delimiter=layout.separator).writerow(names)
    csv.writer(stream, lineterminator="\n", delimiter=layout.separator).writerows(cells)


def _write_atomically(path: Path, names: Sequence[str], cells: Sequence[Sequence[str]], layout: Layout) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with open(handle, "w", encoding="utf-8", newline="") as stream:  # noqa: PTH123, a file descriptor
            _write_rows(stream, names, cells, layout)
        _take_default_mode(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _take_default_mode(file: Path) -> None:
    """Give a temporary file, which only its owner may read, the mode that a new file has."""
    mask = os.umask(0)
    os.umask(mask)
    file.chmod(0o666 & ~mask)
