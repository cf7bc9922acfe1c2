"""Read tables of numbers as text: what spreadsheets, other programs and people put into CSV files.

Cells are separated by commas, tabs, semicolons or runs of spaces. Lines that start with ``#`` and blank lines are
skipped anywhere, lines of prose before a header too. A byte-order mark, any line ends and quoted cells are understood.
The first row is a header when none of its cells is a number; without a header, columns are named by their numbers,
counted from 1. Decimals are written with a point. Everything wrong with a file is a `TableError`.
"""

import csv
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rfm.datasets.text_files import TableError, read_lines, shown_path

__all__ = ["Table", "TableError", "is_header", "parse_number", "read_header", "read_table", "shown_path"]

_SEPARATORS: tuple[str | None, ...] = ("\t", ";", ",", None)
"""None stands for runs of spaces."""

_SAMPLE_LINES, _SAMPLE_ROWS = 200, 1000
_MISSING = frozenset({"", "-", "?", "na", "n/a", "null", "none"})
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_WORD = re.compile(r'"([^"]*)"|(\S+)')


@dataclass(frozen=True, eq=False)
class Table:
    """The cells of a table, as text.

    Args:
        file: the file's name, for messages.
        names: one name for each column: the header's, or "1", "2", ... without a header.
        has_header: whether the names come from the file.
        rows: the cells, without surrounding blanks; every row has ``len(names)`` of them.
        lines: the line of the file, counted from 1, on which each row starts.
        start: for a track of poses, the time in the file's unit from which its seconds count.
    """

    file: str
    names: tuple[str, ...]
    has_header: bool
    rows: Sequence[Sequence[str]] = field(repr=False)
    lines: Sequence[int] = field(repr=False)
    start: int | float = 0

    def __len__(self) -> int:
        return len(self.rows)

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
                f"{self.file}: {len(matches)} columns are named {_shown(column)}; "
                f"name them by number: {', '.join(str(i + 1) for i in matches[:12])}"
            )
        raise TableError(f"{self.file}: there is no column {_shown(column)}; {self.describe_columns()}")

    def has(self, column: str) -> bool:
        """Return whether `index` would find exactly one column."""
        return len(self._matches(column)) == 1

    def key(self, index: int) -> str:
        """Return the text by which `index` finds the column at this position: its name if that is unique."""
        name = self.names[index]
        return name if name and self._matches(name) == [index] else str(index + 1)

    def holds_numbers(self, index: int) -> bool:
        """Return whether at least half of the known cells of the column at this position are numbers, of a thousand."""
        known = [row[index] for row in self.rows[:_SAMPLE_ROWS] if row[index].casefold() not in _MISSING]
        return bool(known) and 2 * sum(parse_number(cell) is not None for cell in known) >= len(known)

    def numbers(self, columns: Sequence[str]) -> NDArray[np.float64]:
        """Return the named columns as numbers, shape ``(n, len(columns))``.

        Raises:
            TableError: a column is missing, or a cell in one of them is not a finite number.
        """
        values = [self._column_of_numbers(self.index(column)) for column in columns]
        return np.stack(values, axis=1) if values else np.empty((len(self), 0))

    def error(self, row: int, finding: str, remedy: str) -> TableError:
        """Return the exception for a fault in one row, counted from 0."""
        return TableError(f"{self.file}, line {self.lines[row]}: {finding}; {remedy}")

    def describe_columns(self) -> str:
        """Return a clause that lists the columns."""
        count = len(self.names)
        if not self.has_header:
            return f"the file has no header; its columns are the numbers {'1' if count == 1 else f'1 to {count}'}"
        listed = ", ".join(_shown(name) for name in self.names[:12])
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

    def _column_of_numbers(self, index: int) -> NDArray[np.float64]:
        parsed = [parse_number(row[index]) for row in self.rows]
        values = np.array([np.nan if value is None else value for value in parsed], dtype=np.float64)
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad) == 0:
            return values
        row = int(bad[0])
        cell = self.rows[row][index]
        where = f"column {_shown(self.names[index])}" if self.has_header else f"column {index + 1}"
        also = f" ({len(bad)} of {len(self)} rows are like that)" if len(bad) > 1 else ""
        raise self.error(row, f"{_finding(cell, parsed[row])} in {where}{also}", _remedy(cell))


def read_table(path: str | os.PathLike[str], minimum_rows: int = 1) -> Table:
    """Read a table from a text file.

    Args:
        path: the file.
        minimum_rows: fewer rows than this, not counting the header, are an error; at least 1.

    Raises:
        TableError: the file is missing, a folder, not UTF-8 text, something else than a table, or empty, has too few
            rows, or rows of different lengths.
    """
    file = shown_path(path)
    lines = [(i, line) for i, line in enumerate(read_lines(path), start=1) if not _is_skipped(line)]
    if not lines:
        raise TableError(f"{file}: the file is empty; put one point on each line")
    separator, width = _separator_and_width([line for _, line in lines[:_SAMPLE_LINES]])
    numbered = [(i, row) for i, row in _rows(lines, separator, file) if any(row)]
    numbered = _without_prose(numbered, width)
    has_header = bool(numbered) and is_header(numbered[0][1])
    first = numbered[0] if numbered else (0, [])
    names = tuple(first[1]) if has_header else tuple(str(i + 1) for i in range(width))
    body = numbered[1:] if has_header else numbered
    minimum_rows = max(minimum_rows, 1)
    if len(body) < minimum_rows:
        content = "a header but no rows" if has_header and not body else f"{len(body)} row{'s' * (len(body) != 1)}"
        requirement = f"at least {minimum_rows} {'is' if minimum_rows == 1 else 'are'} needed"
        raise TableError(f"{file}: the file has {content}, and {requirement}; add points, one on a line")
    expected = f"the header (line {first[0]}) has {len(names)}" if has_header else f"most lines have {width}"
    _check_lengths(body, len(names), expected, file)
    return Table(file, names, has_header, [row for _, row in body], [i for i, _ in body])


def read_header(path: str | os.PathLike[str]) -> list[str]:
    """Return the comment lines before the first row of a file, without their ``#``.

    Raises:
        TableError: the file cannot be read.
    """
    lines = read_lines(path)
    first = next((i for i, line in enumerate(lines) if not _is_skipped(line)), len(lines))
    return [line.strip().lstrip("#") for line in lines[:first] if line.strip()]


def parse_number(cell: str) -> float | None:
    """Return the number that a cell holds, which may be NaN or infinite, or None if it holds none."""
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def _is_skipped(line: str) -> bool:
    stripped = line.strip()
    return not stripped or stripped.startswith("#")


# From lines to rows.


def _separator_and_width(lines: Sequence[str]) -> tuple[str | None, int]:
    """Return the separator, and the number of cells that lines usually have with it.

    It is the one that cuts most lines into the same number of cells, two or more, and most cells into numbers: the
    sum of the two shares decides. A decimal comma counts as a number, lest ``1,5;2,5`` be cut at its commas.
    """
    best: tuple[float, str | None, int] = (0.0, ",", 1)
    for separator in _SEPARATORS:
        rows = [_cells(line, separator) for line in lines]
        width, count = Counter(len(row) for row in rows).most_common(1)[0]
        # Half of the lines will do, except for spaces, since names and prose hold those too.
        if width < 2 or 2 * count < len(rows) + (separator is None):
            continue
        cells = [cell for row in rows for cell in row]
        numeric = sum(parse_number(cell) is not None or bool(_DECIMAL_COMMA.fullmatch(cell)) for cell in cells)
        score = count / len(rows) + numeric / len(cells)
        if score > best[0]:
            best = score, separator, width
    return best[1], best[2]


def _cells(line: str, separator: str | None) -> list[str]:
    if separator is None:
        return [quoted or plain for quoted, plain in _WORD.findall(line)]
    try:
        return [cell.strip() for row in csv.reader([line], delimiter=separator, skipinitialspace=True) for cell in row]
    except csv.Error:
        return []


def _rows(lines: Sequence[tuple[int, str]], separator: str | None, file: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each row's first line and its cells; a quoted cell may run over several lines."""
    if separator is None:
        yield from ((i, _cells(line, None)) for i, line in lines)
        return
    # Strict, because otherwise a quote that is never closed swallows the rest of the file in silence.
    reader = csv.reader((line for _, line in lines), delimiter=separator, skipinitialspace=True, strict=True)
    start = 0
    try:
        for row in reader:
            yield lines[start][0], [cell.strip() for cell in row]
            start = reader.line_num
    except csv.Error as error:
        raise TableError(
            f'{file}, line {lines[start][0]}: a quoted cell does not end where it should ({error}); repair the " there'
        ) from None


def _without_prose(rows: list[tuple[int, list[str]]], width: int) -> list[tuple[int, list[str]]]:
    """Drop leading rows of another length that hold no number, if a header follows them."""
    for k, (_, row) in enumerate(rows):
        if not is_header(row):
            break
        if len(row) == width:
            return rows[k:]
    return rows


def is_header(row: Sequence[str]) -> bool:
    """Return whether a row holds names: no number, and something."""
    return all(parse_number(cell) is None for cell in row) and any(cell.casefold() not in _MISSING for cell in row)


def _check_lengths(rows: Iterable[tuple[int, list[str]]], width: int, expected: str, file: str) -> None:
    for line, row in rows:
        if len(row) != width:
            finding = f"{len(row)} cell{'s' * (len(row) != 1)}"
            raise TableError(
                f"{file}, line {line}: {finding}, but {expected}; repair that line, or start it with # to skip it"
            )


# Messages.


def _finding(cell: str, value: float | None) -> str:
    if value is not None:
        return f"{_shown(cell)} is not a finite number"
    return f"{_shown(cell)} is not a number" if cell else "an empty cell"


def _remedy(cell: str) -> str:
    if _DECIMAL_COMMA.fullmatch(cell):
        return f"write decimals with a point: {cell.replace(',', '.')[:40]}"
    return "repair or remove that row"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
