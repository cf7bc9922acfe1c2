"""Tables larger than memory: rows of one or several files in blocks, which are read one by one.

A block is a row group of Parquet, a record batch of Arrow, or a run of rows of a NumPy array.
"""

import glob
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rfm.datasets.formats.arrow import table_of_batch
from rfm.datasets.formats.file_format import missing_package, package
from rfm.datasets.formats.numpy_arrays import table_of_array
from rfm.datasets.table_error import TableError, shown_path
from rfm.datasets.tables import Column, NumberColumn, Table, TextColumn

CHUNK_ROWS = 2**17
"""Rows that are converted together, which bounds memory."""
_ARRAY_BLOCK_ROWS = 2**20
_SAMPLED_BLOCKS = 64


@dataclass(frozen=True)
class BlockFile(ABC):
    """A file that is read in blocks.

    Args:
        path: where it is.
        sizes: how many rows each block has.
    """

    signature: ClassVar[bytes]
    """What such a file begins with."""

    path: str
    sizes: tuple[int, ...]

    @classmethod
    @abstractmethod
    def open(cls, path: str) -> "BlockFile":
        """Return a file with the sizes of its blocks, of which no row is read."""

    @abstractmethod
    def chunks(self, block: int, columns: Sequence[str] | None, rows: slice) -> Iterator[Table]:
        """Yield some rows of a block, so many at a time that memory stays small; ``columns`` None for all."""


class ParquetFile(BlockFile):
    """Parquet, by pyarrow; a block is a row group."""

    signature = b"PAR1"

    @classmethod
    def open(cls, path: str) -> "ParquetFile":
        metadata = package("pyarrow.parquet").read_metadata(path)
        return cls(path, tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)))

    def chunks(self, block: int, columns: Sequence[str] | None, rows: slice) -> Iterator[Table]:
        # Without threads and ahead of the reader: beside training, cores and memory are for that.
        with package("pyarrow.parquet").ParquetFile(self.path, pre_buffer=False) as file:
            known = None if columns is None or set(columns) - set(file.schema_arrow.names) else list(columns)
            first = sum(self.sizes[:block])
            batches = file.iter_batches(CHUNK_ROWS, row_groups=[block], columns=known, use_threads=False)
            for start, batch in _with_starts(batches):
                batch = batch.replace_schema_metadata(file.schema_arrow.metadata)
                own = _part(rows, start, len(batch))
                yield from _located(table_of_batch(self.path, batch, own), first + start, own)


class ArrowFile(BlockFile):
    """Arrow (IPC files, Feather), by pyarrow; a block is a record batch."""

    signature = b"ARROW1\0\0"

    @classmethod
    def open(cls, path: str) -> "ArrowFile":
        arrow = package("pyarrow")
        with arrow.memory_map(path) as source, package("pyarrow.ipc").open_file(source) as reader:
            return cls(path, tuple(len(reader.get_batch(i)) for i in range(reader.num_record_batches)))

    def chunks(self, block: int, columns: Sequence[str] | None, rows: slice) -> Iterator[Table]:
        arrow, first = package("pyarrow"), sum(self.sizes[:block])
        with arrow.memory_map(self.path) as source, package("pyarrow.ipc").open_file(source) as reader:
            batch = reader.get_batch(block)
            known = batch if columns is None or set(columns) - set(batch.schema.names) else batch.select(list(columns))
            for start in range(0, len(known), CHUNK_ROWS):
                part = known.slice(start, CHUNK_ROWS)
                own = _part(rows, start, len(part))
                yield from _located(table_of_batch(self.path, part, own), first + start, own)


class ArrayFile(BlockFile):
    """A NumPy array (.npy) of numbers ``(n, d)`` or of records ``(n,)``, mapped to memory while a block is read."""

    signature = b"\x93NUMPY"

    @classmethod
    def open(cls, path: str) -> "ArrayFile":
        count = len(np.load(path, mmap_mode="r", allow_pickle=False))
        starts = range(0, count, _ARRAY_BLOCK_ROWS)
        return cls(path, tuple(min(_ARRAY_BLOCK_ROWS, count - start) for start in starts))

    def chunks(self, block: int, columns: Sequence[str] | None, rows: slice) -> Iterator[Table]:
        # Mapped anew for each block: pages that were read count as this process's memory until they are unmapped.
        array = np.load(self.path, mmap_mode="r", allow_pickle=False)
        first = block * _ARRAY_BLOCK_ROWS
        for start in range(0, self.sizes[block], CHUNK_ROWS):
            part = array[first + start : first + min(start + CHUNK_ROWS, self.sizes[block])]
            own = _part(rows, start, len(part))
            # An array is refused where it holds no numbers (n, d), and one without rows is no table.
            if len(part[own]):
                yield from _located(table_of_array(self.path, np.array(part[own])), first + start, own)


_KINDS: tuple[type[BlockFile], ...] = (ParquetFile, ArrowFile, ArrayFile)
PATTERNS = ("*.parquet", "*.pq", "*.arrow", "*.feather", "*.npy")
"""The names of files that are looked for in a folder."""


@dataclass(frozen=True)
class TableBlocks:
    """The rows of several files as one table, in blocks.

    Args:
        files: in their order.
        columns: those that are read; all when None.
    """

    files: tuple[BlockFile, ...]
    columns: tuple[str, ...] | None = None
    _places: tuple[tuple[int, int], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        places = [(i, k) for i, file in enumerate(self.files) for k in range(len(file.sizes)) if file.sizes[k]]
        object.__setattr__(self, "_places", tuple(places))
        if not places:
            names = ", ".join(shown_path(file.path) for file in self.files[:3])
            raise TableError(f"{names}: there are no rows in {'it' if len(self.files) == 1 else 'them'}; add points")

    @property
    def name(self) -> str:
        """The files, for messages."""
        first = shown_path(self.files[0].path)
        return (
            first if len(self.files) == 1 else f"{len(self.files)} files, {first} to {Path(self.files[-1].path).name}"
        )

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many rows each block has; those without rows are left out."""
        return tuple(self.files[i].sizes[k] for i, k in self._places)

    def chunks(self, block: int, rows: slice = slice(None)) -> Iterator[Table]:
        """Yield the rows of a block in tables of bounded length; each row knows its place.

        Args:
            block: its number.
            rows: ``slice(start, None, step)`` with a start below the step: every few of the rows.

        Raises:
            TableError: the file cannot be read.
        """
        i, k = self._places[block]
        with _named_faults(self.files[i].path):
            yield from self.files[i].chunks(k, self.columns, rows)

    def with_columns(self, columns: Sequence[str]) -> "TableBlocks":
        """Return the same rows with these columns alone; columns by number need all."""
        return replace(self, columns=tuple(dict.fromkeys(columns)))

    def sample(self, rows: int) -> Table:
        """Return about so many rows, evenly spaced in blocks that are, as one table: for what a header means."""
        count = len(self.sizes)
        chosen = np.unique(np.linspace(0, count - 1, min(count, _SAMPLED_BLOCKS)).round().astype(int)).tolist()
        step = max(1, sum(self.sizes[block] for block in chosen) // rows)
        return joined([table for block in chosen for table in self.chunks(block, slice(None, None, step))])


def open_blocks(paths: Sequence[str | os.PathLike[str]] | str | os.PathLike[str]) -> TableBlocks:
    """Return the rows of files that need not fit into memory.

    Args:
        paths: Parquet, Arrow or NumPy files (.npy), folders of such, or patterns such as ``folder/*.parquet``.

    Raises:
        TableError: there are none, or one is of another format or of other columns; or a package is missing.
    """
    words = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    files = [path for word in words for path in _files_of(os.fspath(word))]
    return TableBlocks(tuple(_opened(path) for path in dict.fromkeys(files)))


def is_block_file(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is of a format that is read in blocks."""
    try:
        with Path(path).open("rb") as file:
            start = file.read(8)
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return False
    return any(start.startswith(kind.signature) for kind in _KINDS)


def _files_of(word: str) -> list[str]:
    """Return the files that a name, a folder or a pattern stands for."""
    if Path(word).is_dir():
        found = sorted(str(path) for pattern in PATTERNS for path in Path(word).rglob(pattern))
        if not found:
            raise TableError(f"{word}: this is a folder; name a file in it, or one that holds {', '.join(PATTERNS)}")
        return found
    if Path(word).is_file():
        return [word]
    found = sorted(glob.glob(word, recursive=True)) if glob.has_magic(word) else []  # noqa: PTH207, an absolute pattern
    if not found:
        raise TableError(f"{shown_path(word)}: there is no such file; check the name and the folder")
    return found


def _opened(path: str) -> BlockFile:
    with Path(path).open("rb") as file:
        start = file.read(8)
    kinds = [kind for kind in _KINDS if start.startswith(kind.signature)]
    if not kinds:
        raise TableError(
            f"{shown_path(path)}: several files, or one larger than memory, are Parquet, Arrow or NumPy arrays (.npy), "
            "and this is none; write it as Parquet, in Python: pyarrow.parquet.write_table(pyarrow.csv.read_csv(FILE), "
            "'table.parquet')"
        )
    with _named_faults(path):
        return kinds[0].open(path)


@contextmanager
def _named_faults(path: str) -> Iterator[None]:
    """Say of which file another library's complaint is."""
    file = shown_path(path)
    try:
        yield
    except TableError:
        raise
    except ModuleNotFoundError as error:
        raise TableError(missing_package(file, "it", error.name, "tables")) from None
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise TableError(f"{file}: cannot be read ({reason}); copy or write it again") from None


def joined(tables: Sequence[Table]) -> Table:
    """Return tables of the same columns as one; a column that holds text in one of them holds text.

    Raises:
        TableError: their columns differ.
    """
    names = tables[0].names
    other = next((table for table in tables if table.names != names), None)
    if other is not None:
        raise TableError(
            f"{other.file}: its columns are {', '.join(other.names)[:80]}, those of {tables[0].file} "
            f"{', '.join(names)[:80]}; give files with the same columns"
        )
    columns = [_joined_column([table.columns[i] for table in tables]) for i in range(len(names))]
    lines = [line for table in tables for line in table.lines]
    return replace(tables[0], columns=columns, lines=lines)


def _joined_column(parts: Sequence[Column]) -> Column:
    if all(isinstance(part, NumberColumn) for part in parts):
        return NumberColumn(np.concatenate([part.numbers for part in parts]))
    return TextColumn([text for part in parts for text in part.texts])


def _with_starts(batches: Iterator[Any]) -> Iterator[tuple[int, Any]]:
    start = 0
    for batch in batches:
        yield start, batch
        start += len(batch)


def _part(rows: slice, start: int, count: int) -> slice:
    """Return which of ``count`` rows from ``start`` on are every few of a block, from one of the first few on."""
    step = rows.step or 1
    return slice(((rows.start or 0) - start) % step, count, step)


def _located(table: Table | None, first: int, rows: slice) -> Iterator[Table]:
    """Yield a table whose rows know their place in the file, unless it has none."""
    if table is not None:
        places: NDArray[np.int64] = np.arange(rows.start, rows.stop, rows.step) + first + 1
        yield replace(table, lines=range(int(places[0]), int(places[-1]) + 1, rows.step))
