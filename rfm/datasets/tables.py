"""Tables: named columns of text or of numbers, whatever file or object they come from, and what is wrong with a row."""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rfm.datasets.table_error import TableError, shown_path

__all__ = ["Column", "NumberColumn", "Table", "TableError", "TextColumn", "parse_number", "shown_path"]

MISSING = frozenset({"", "-", "?", "na", "n/a", "nan", "nat", "null", "none"})
"""What stands for a number that is not known, in small letters."""

_SAMPLE_ROWS = 1000
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")


class Column(ABC):
    """The cells of a column."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def text(self, row: int) -> str:
        """Return a cell as text."""

    @property
    @abstractmethod
    def texts(self) -> Sequence[str]:
        """All cells as text; empty where not known."""

    @property
    @abstractmethod
    def numbers(self) -> NDArray[np.float64]:
        """All cells as numbers, ``(n,)``; NaN where a cell holds none, and for one that says NaN."""

    @abstractmethod
    def take(self, rows: NDArray[np.int64]) -> "Column":
        """Return some of the cells."""

    def mostly_numbers(self, some: int | None = None) -> bool:
        """Return whether at least half of the known cells are numbers: of all, or of the first so many."""
        cells = self.texts[:some]
        known = [cell for cell in cells if cell.casefold() not in MISSING]
        return bool(known) and 2 * sum(parse_number(cell) is not None for cell in known) >= len(known)


@dataclass(frozen=True, eq=False)
class TextColumn(Column):
    """Cells as text, without surrounding blanks."""

    cells: Sequence[str]

    def __len__(self) -> int:
        return len(self.cells)

    def text(self, row: int) -> str:
        return self.cells[row]

    @property
    def texts(self) -> Sequence[str]:
        return self.cells

    @cached_property
    def numbers(self) -> NDArray[np.float64]:
        try:
            # All at once where all are numbers: a million cells in a fifth of a second.
            if not any("_" in cell for cell in self.cells):
                return np.fromiter(map(float, self.cells), np.float64, len(self.cells))
        except ValueError:
            pass
        parsed = map(parse_number, self.cells)
        return np.array([math.nan if value is None else value for value in parsed], dtype=np.float64)

    def take(self, rows: NDArray[np.int64]) -> "TextColumn":
        return TextColumn([self.cells[row] for row in rows.tolist()])


@dataclass(frozen=True, eq=False)
class NumberColumn(Column):
    """Cells as numbers, ``(n,)``, from a file or an object that holds numbers; NaN where not known."""

    values: NDArray[np.float64]

    @property
    def numbers(self) -> NDArray[np.float64]:
        return self.values

    def __len__(self) -> int:
        return len(self.values)

    def text(self, row: int) -> str:
        value = float(self.values[row])
        if math.isnan(value):
            return ""
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)

    @cached_property
    def texts(self) -> Sequence[str]:
        return [self.text(row) for row in range(len(self.values))]

    def take(self, rows: NDArray[np.int64]) -> "NumberColumn":
        return NumberColumn(self.values[rows])

    def mostly_numbers(self, some: int | None = None) -> bool:
        return bool(np.isfinite(self.values[:some]).any())


@dataclass(frozen=True, eq=False)
class Table:
    """Named columns.

    Args:
        file: the file's name, for messages.
        names: one name for each column: the header's, or "1", "2", ... without a header.
        has_header: whether the names come from the file.
        columns: the cells; every column has as many.
        lines: the line of the file, or the row of what is no text, counted from 1, on which each row starts.
        start: for a track of poses, the time in the file's unit from which its seconds count.
        row_word: what a message calls the place of a row: "line" in a text.
    """

    file: str
    names: tuple[str, ...]
    has_header: bool
    columns: Sequence[Column] = field(repr=False)
    lines: Sequence[int] = field(repr=False)
    start: int | float = 0
    row_word: str = "line"

    @classmethod
    def of_rows(
        cls,
        file: str,
        names: tuple[str, ...],
        has_header: bool,
        rows: Sequence[Sequence[str]],
        lines: Sequence[int],
        start: int | float = 0,
    ) -> "Table":
        """Make a table from rows of text, each with a cell for each name."""
        columns = [TextColumn(list(cells)) for cells in zip(*rows, strict=True)] or [TextColumn(()) for _ in names]
        return cls(file, names, has_header, columns, lines, start)

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The cells as text, row by row."""
        return list(zip(*(column.texts for column in self.columns), strict=True))

    def texts(self, column: str) -> Sequence[str]:
        """Return a column's cells as text, empty where not known."""
        return self.columns[self.index(column)].texts

    def values(self, column: str) -> NDArray[np.float64]:
        """Return a column's cells as numbers, ``(n,)``, NaN where a cell holds none."""
        return self.columns[self.index(column)].numbers

    def index(self, column: str) -> int:
        """Return the position, from 0, of a column given by its name or by its number, counted from 1.

        A name that matches exactly goes before one that matches ignoring case, and both before a number.

        Raises:
            TableError: there is no such column, or more than one.
        """
        matches = self._matches(column)
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise TableError(
                f"{self.file}: {len(matches)} columns are named {shown_cell(column)}; "
                f"name them by number: {', '.join(str(i + 1) for i in matches[:12])}"
            )
        raise TableError(f"{self.file}: there is no column {shown_cell(column)}; {self.describe_columns()}")

    def has(self, column: str) -> bool:
        """Return whether `index` would find exactly one column."""
        return len(self._matches(column)) == 1

    def key(self, index: int) -> str:
        """Return the text by which `index` finds the column at this position: its name if that is unique."""
        name = self.names[index]
        return name if name and self._matches(name) == [index] else str(index + 1)

    def holds_numbers(self, index: int) -> bool:
        """Return whether at least half of the known cells of the column at this position are numbers, of a thousand."""
        return self.columns[index].mostly_numbers(_SAMPLE_ROWS)

    def numbers(self, columns: Sequence[str]) -> NDArray[np.float64]:
        """Return the named columns as numbers, shape ``(n, len(columns))``.

        Raises:
            TableError: a column is missing, or a cell in one of them is not a finite number.
        """
        values = [self._finite(self.index(column)) for column in columns]
        return np.stack(values, axis=1) if values else np.empty((len(self), 0))

    def error(self, row: int, finding: str, remedy: str, rows: Sequence[int] = ()) -> TableError:
        """Return the exception for a fault in one row, counted from 0, and in others like it."""
        rows = rows if len(rows) else (row,)
        also = f" ({len(rows)} of {len(self)} rows are like that)" if len(rows) > 1 else ""
        where = f"{self.file}, {self.row_word} {self.lines[row]}"
        return TableError(f"{where}: {finding}{also}; {remedy}", rows, finding)

    def without(self, rows: Sequence[int]) -> "Table":
        """Return the table without some rows, counted from 0.

        Raises:
            TableError: none is left.
        """
        kept = np.setdiff1d(np.arange(len(self)), np.asarray(rows, dtype=np.int64))
        if len(kept) == 0:
            raise TableError(
                f"{self.file}: no row is left without the bad ones; repair the table, or name other columns"
            )
        lines = [self.lines[row] for row in kept.tolist()]
        return replace(self, columns=[column.take(kept) for column in self.columns], lines=lines)

    def with_numbers(self, values_by_column: Mapping[str, NDArray[np.float64]]) -> "Table":
        """Return the table with other numbers in some of its columns."""
        columns = list(self.columns)
        for column, values in values_by_column.items():
            columns[self.index(column)] = NumberColumn(values)
        return replace(self, columns=columns)

    def describe_columns(self) -> str:
        """Return a clause that lists the columns."""
        count = len(self.names)
        if not self.has_header:
            return f"the file has no header; its columns are the numbers {'1' if count == 1 else f'1 to {count}'}"
        listed = ", ".join(shown_cell(name) for name in self.names[:12])
        return f"its columns are {listed}{f' and {count - 12} more' if count > 12 else ''}"

    def _matches(self, column: str) -> list[int]:
        text = column.strip()
        exact = [i for i, name in enumerate(self.names) if name == text]
        if exact:
            return exact
        similar = [i for i, name in enumerate(self.names) if name.casefold() == text.casefold()]
        if similar:
            return similar
        number = int(text) if re.fullmatch(r"[0-9]{1,9}", text) else 0
        return [number - 1] if 1 <= number <= len(self.names) else []

    def _finite(self, index: int) -> NDArray[np.float64]:
        values = self.columns[index].numbers
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad) == 0:
            return values
        row = int(bad[0])
        cell = self.columns[index].text(row)
        where = f"column {shown_cell(self.names[index])}" if self.has_header else f"column {index + 1}"
        raise self.error(row, f"{_finding(cell)} in {where}", _remedy(cell), bad.tolist())


def parse_number(cell: str) -> float | None:
    """Return the number that a cell holds, which may be NaN or infinite, or None if it holds none."""
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def numbered_runs(lines: Sequence[int]) -> Iterator[str]:
    """Yield numbers in order as text, ``4`` or ``6-9`` for a run."""
    start = last = None
    for line in lines:
        if last is not None and line == last + 1:
            last = line
            continue
        if start is not None:
            yield f"{start}" if start == last else f"{start}-{last}"
        start = last = line
    if start is not None:
        yield f"{start}" if start == last else f"{start}-{last}"


# Messages.


def _finding(cell: str) -> str:
    if parse_number(cell) is not None:
        return f"{shown_cell(cell)} is not a finite number"
    return f"{shown_cell(cell)} is not a number" if cell else "an empty cell"


def _remedy(cell: str) -> str:
    if _DECIMAL_COMMA.fullmatch(cell):
        return f"write decimals with a point: {cell.replace(',', '.')[:40]}"
    return "repair or remove that row"


def shown_cell(text: str) -> str:
    """Return a cell or a name for a message, cut short."""
    return repr(text if len(text) <= 40 else text[:37] + "...")
