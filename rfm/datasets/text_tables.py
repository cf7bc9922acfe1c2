"""Read tables that are text: what spreadsheets, other programs and people put into CSV files.

Cells are separated by commas, tabs, semicolons or runs of spaces. Lines that start with ``#`` and blank lines are
skipped anywhere, lines of prose before a header too. A byte-order mark, any line ends and quoted cells are understood.
The first row is a header when none of its cells is a number; without a header, columns are named by their numbers,
counted from 1. Decimals are written with a point. Everything wrong with a file is a `TableError`.
"""

import csv
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from rfm.datasets.skipped_rows import SkippedRows
from rfm.datasets.tables import MISSING, Table, TableError, parse_number
from rfm.datasets.text_files import read_lines, shown_path

_SEPARATORS: tuple[str | None, ...] = ("\t", ";", ",", None)
"""None stands for runs of spaces."""

_SAMPLE_LINES = 200
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_WORD = re.compile(r'"([^"]*)"|(\S+)')


def read_text_table(path: str | os.PathLike[str], minimum_rows: int = 1, skipped: SkippedRows | None = None) -> Table:
    """Read a table from a text file.

    Args:
        path: the file.
        minimum_rows: fewer rows than this, not counting the header, are an error; at least 1.
        skipped: notes rows of another length than the others, which are then left out; they are an error when None.

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
    expected = f"the header (line {first[0]}) has {len(names)}" if has_header else f"most lines have {width}"
    body = _of_length(body, len(names), expected, file, skipped)
    minimum_rows = max(minimum_rows, 1)
    if len(body) < minimum_rows:
        content = "a header but no rows" if has_header and not body else f"{len(body)} row{'s' * (len(body) != 1)}"
        requirement = f"at least {minimum_rows} {'is' if minimum_rows == 1 else 'are'} needed"
        raise TableError(f"{file}: the file has {content}, and {requirement}; add points, one on a line")
    return Table.of_rows(file, names, has_header, [row for _, row in body], [i for i, _ in body])


def read_header(path: str | os.PathLike[str]) -> list[str]:
    """Return the comment lines before the first row of a file, without their ``#``.

    Raises:
        TableError: the file cannot be read.
    """
    lines = read_lines(path)
    first = next((i for i, line in enumerate(lines) if not _is_skipped(line)), len(lines))
    return [line.strip().lstrip("#") for line in lines[:first] if line.strip()]


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
        if separator is None and best[1] == "\t" and best[0] >= 1:
            continue  # blanks are inside of cells where tabs cut all lines alike
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
    return all(parse_number(cell) is None for cell in row) and any(cell.casefold() not in MISSING for cell in row)


def _of_length(
    rows: list[tuple[int, list[str]]], width: int, expected: str, file: str, skipped: SkippedRows | None
) -> list[tuple[int, list[str]]]:
    """Return the rows with as many cells as there are names; raise for another, or note it."""
    other = [(line, row) for line, row in rows if len(row) != width]
    if not other:
        return rows
    line, row = other[0]
    finding = f"{len(row)} cell{'s' * (len(row) != 1)}, but {expected}"
    if skipped is None:
        raise TableError(f"{file}, line {line}: {finding}; repair that line, or start it with # to skip it")
    skipped.note("another number of cells", [line for line, _ in other])
    return [(line, row) for line, row in rows if len(row) == width]
