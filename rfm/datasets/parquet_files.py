"""Write tables as Parquet, part by part, by pyarrow."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from rfm.datasets.formats.file_format import missing_package, package
from rfm.datasets.table_error import TableError, shown_path

Write = Callable[[Mapping[str, NDArray[Any]], Mapping[str, Sequence[str]]], None]
"""Takes columns of numbers and of texts by name."""
SUFFIXES = (".parquet", ".pq")


def is_parquet_name(path: str | os.PathLike[str] | None) -> bool:
    """Return whether a file to write is called like one of Parquet."""
    return path is not None and Path(path).suffix.casefold() in SUFFIXES


@contextmanager
def parquet_writer(path: str | os.PathLike[str]) -> Iterator[Write]:
    """Yield a function that writes a part of a table, as a row group; the file appears when all is written.

    Raises:
        TableError: pyarrow is not installed, or the file cannot be written.
    """
    arrow, parquet = _pyarrow(path)
    target = Path(path)
    unfinished = target.with_name(f".{target.name}.unfinished")
    writers: list[Any] = []

    def write(numbers: Mapping[str, NDArray[Any]], texts: Mapping[str, Sequence[str]]) -> None:
        table = arrow.table({**numbers, **{name: list(cells) for name, cells in texts.items()}})
        if not writers:
            writers.append(parquet.ParquetWriter(unfinished, table.schema))
        writers[0].write_table(table)

    try:
        yield write
        for writer in writers:
            writer.close()
        if writers:
            unfinished.replace(target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise TableError(
            f"{shown_path(path)}: cannot be written ({reason}); name a file in a folder of yours"
        ) from None
    finally:
        unfinished.unlink(missing_ok=True)


def join_parquet(parts: Sequence[Path], target: Path) -> None:
    """Write the tables of several files one after the other, in memory that no number of them exceeds."""
    parquet = _pyarrow(target)[1]
    unfinished = target.with_name(f".{target.name}.unfinished")
    try:
        with parquet.ParquetWriter(unfinished, parquet.read_schema(parts[0])) as writer:
            for part in parts:
                writer.write_table(parquet.read_table(part))
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def _pyarrow(path: str | os.PathLike[str]) -> tuple[Any, Any]:
    try:
        return package("pyarrow"), package("pyarrow.parquet")
    except ModuleNotFoundError as error:
        raise TableError(missing_package(shown_path(path), "or writing Parquet", error.name, "tables")) from None
