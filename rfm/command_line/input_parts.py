"""Tables that are read part by part: of Parquet, Arrow and NumPy files, and of long texts, in bounded memory."""

import argparse
import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rfm.command_line.table_runs import read_input
from rfm.datasets.coordinates import Coordinates
from rfm.datasets.table_blocks import TableBlocks, is_block_file, joined, open_blocks
from rfm.datasets.tables import Table
from rfm.datasets.text_files import FileContent
from rfm.datasets.text_tables import read_text_table

_LONG_TEXT = 50_000_000
"""Bytes above which a text is not read into memory."""
_SNIFFED = 2_000


class InputParts(ABC):
    """A table in parts of as many rows each, but the last.

    Args:
        rows: of a part.
    """

    total: int | None
    """Rows of the table; None where that is not known."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    @property
    @abstractmethod
    def files(self) -> list[str]:
        """The names of the files that are read."""

    @property
    @abstractmethod
    def first(self) -> Table:
        """Some rows from the beginning."""

    @abstractmethod
    def parts(self, is_due: Callable[[int], bool]) -> Iterator[tuple[int, Table]]:
        """Yield the parts that are due, each with its number, from 0."""


class TableParts(InputParts):
    """A table in memory."""

    def __init__(self, table: Table, rows: int) -> None:
        super().__init__(rows)
        self.table, self.total = table, len(table)

    @property
    def files(self) -> list[str]:
        return [self.table.file]

    @property
    def first(self) -> Table:
        return self.table

    def parts(self, is_due: Callable[[int], bool]) -> Iterator[tuple[int, Table]]:
        for number, start in enumerate(range(0, len(self.table), self.rows)):
            if is_due(number):
                yield number, rows_of(self.table, start, start + self.rows)


class BlockParts(InputParts):
    """A table of one or several files that are read in blocks; those without rows that are due are not read."""

    def __init__(self, blocks: TableBlocks, rows: int) -> None:
        super().__init__(rows)
        self.blocks, self.total = blocks, sum(blocks.sizes)

    @property
    def files(self) -> list[str]:
        return [file.path for file in self.blocks.files]

    @property
    def first(self) -> Table:
        return rows_of(next(iter(self.blocks.chunks(0))), 0, _SNIFFED)

    def parts(self, is_due: Callable[[int], bool]) -> Iterator[tuple[int, Table]]:
        due = [is_due(number) for number in range(-(-sum(self.blocks.sizes) // self.rows))]
        return _cut(self._tables(due), self.rows, due)

    def _tables(self, due: list[bool]) -> Iterator[tuple[int, Table]]:
        start = 0
        for block, size in enumerate(self.blocks.sizes):
            if any(due[start // self.rows : (start + size - 1) // self.rows + 1]):
                place = start
                for table in self.blocks.chunks(block):
                    yield place, table
                    place += len(table)
            start += size


@dataclass(frozen=True)
class _Head:
    """How a text begins: what comes before its rows, and the line after that."""

    text: str
    lines: int


class TextParts(InputParts):
    """A long text, of which as many lines are cut into cells at a time."""

    total = None

    def __init__(self, path: str, rows: int) -> None:
        super().__init__(rows)
        self.path = path
        with Path(path).open(encoding="utf-8-sig") as file:
            beginning = [line for _, line in zip(range(_SNIFFED), file, strict=False)]
        self._first = read_text_table(FileContent(path, "".join(beginning).encode()))
        before = self._first.lines[0] - 1 if self._first.has_header else 0
        self._head = _Head("".join(beginning[:before]), before)

    @property
    def files(self) -> list[str]:
        return [self.path]

    @property
    def first(self) -> Table:
        return self._first

    def parts(self, is_due: Callable[[int], bool]) -> Iterator[tuple[int, Table]]:
        with Path(self.path).open(encoding="utf-8-sig") as file:
            for _ in range(self._head.lines):
                next(file)
            place, number = self._head.lines, 0
            while lines := [line for _, line in zip(range(self.rows), file, strict=False)]:
                if is_due(number) and any(line.strip() and not line.startswith("#") for line in lines):
                    yield number, self._table(lines, place)
                place, number = place + len(lines), number + 1

    def _table(self, lines: list[str], place: int) -> Table:
        text = io.StringIO()
        text.writelines([self._head.text, *lines])
        table = read_text_table(FileContent(self.path, text.getvalue().encode()))
        return replace(table, lines=[line - self._head.lines + place for line in table.lines])


def input_parts(arguments: argparse.Namespace, coordinates: Coordinates) -> InputParts:
    """Return the table of a command in parts of its ``part_rows``."""
    path, rows = arguments.table, arguments.part_rows
    if Path(path).is_dir() or (any(mark in path for mark in "*?[") and not Path(path).exists()) or is_block_file(path):
        return BlockParts(open_blocks(path), rows)
    if (
        Path(path).is_file()
        and Path(path).stat().st_size > _LONG_TEXT
        and Path(path).suffix in (".csv", ".tsv", ".txt")
    ):
        return TextParts(path, rows)
    return TableParts(coordinates.read(read_input(path)), rows)


def rows_of(table: Table, start: int, stop: int) -> Table:
    """Return some rows of a table."""
    if start == 0 and stop >= len(table):
        return table
    rows = np.arange(start, min(stop, len(table)))
    return replace(table, columns=[column.take(rows) for column in table.columns], lines=table.lines[start:stop])


def _cut(tables: Iterator[tuple[int, Table]], rows: int, due: list[bool]) -> Iterator[tuple[int, Table]]:
    """Yield tables, given each with its place, anew in parts of as many rows, those that are due."""
    waiting: dict[int, list[Table]] = {}
    for place, table in tables:
        for number in range(place // rows, (place + len(table) - 1) // rows + 1):
            # What is complete goes before more is kept.
            for done in [n for n in waiting if n < number]:
                yield done, joined(waiting.pop(done))
            if due[number]:
                part = rows_of(table, max(0, number * rows - place), (number + 1) * rows - place)
                waiting.setdefault(number, []).append(part)
    for number, parts in waiting.items():
        yield number, joined(parts)
