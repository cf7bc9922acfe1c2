"""Tables of what is known of each of several points: the files that ``--given`` takes."""

from collections.abc import Sequence
from pathlib import Path

from rfm.command_line.column_measurements import Given, parse_given
from rfm.datasets.coordinates import Coordinates
from rfm.datasets.table_reading import read_table
from rfm.datasets.tables import Table, parse_number
from rfm.datasets.text_files import read_once

DEVIATION = "_sd"
"""Ends the name of the column that holds a column's standard deviations."""


def given_rows(words: Sequence[str], coordinates: Coordinates) -> tuple[list[list[Given]], tuple[str, ...]]:
    """Return what is known of each point, and a note about columns that are not read.

    Args:
        words: such as ``latitude=10±2``, which hold for every point, and at most one file, with a point in each row.
        coordinates: of the fit.

    Raises:
        ValueError: a word or a cell is not understood.
    """
    files = [word for word in words if "=" not in word and Path(word).is_file()]
    common = [parse_given(word) for word in words if word not in files]
    if not files:
        return [common], ()
    if len(files) > 1:
        raise ValueError(f"--given takes one file, got {', '.join(files)}; put the columns into one table")
    table = read_table(read_once(files[0]))
    rows, unused = _rows(table, coordinates)
    notes = () if not unused else (f"{table.file}: column {', '.join(unused)} is not one of the flow's, and not read",)
    return [[*own, *common] for own in rows], notes


def _rows(table: Table, coordinates: Coordinates) -> tuple[list[list[Given]], list[str]]:
    """Return what each row says, and the columns that say nothing."""
    names = {name.casefold(): i for i, name in enumerate(table.names)}
    columns = [name for name in coordinates.names if name.casefold() in names]
    deviations = {name: names.get(name.casefold() + DEVIATION) for name in coordinates.names}
    if not columns:
        raise ValueError(
            f"{table.file}: none of its columns is one of the flow's, {', '.join(coordinates.names)}; "
            f"{table.describe_columns()}"
        )
    alone = [name for name, found in deviations.items() if found is not None and name not in columns]
    if alone:
        raise ValueError(f"{table.file}: there is a column {alone[0]}{DEVIATION}, but no {alone[0]}; add it")
    rows = []
    for row in range(len(table)):
        given = [_cell(table, row, name, names[name.casefold()], deviations[name]) for name in columns]
        rows.append([own for own in given if own is not None])
        if not rows[-1]:
            raise table.error(row, "nothing is known", "fill in a cell, or remove that row")
    used = {names[name.casefold()] for name in columns} | {i for i in deviations.values() if i is not None}
    return rows, [name for i, name in enumerate(table.names) if i not in used]


def _cell(table: Table, row: int, name: str, column: int, deviation: int | None) -> Given | None:
    """Return what a cell says; None where it is empty."""
    text = table.columns[column].text(row)
    if not text:
        return None
    spread = "" if deviation is None else table.columns[deviation].text(row)
    numbers = [parse_number(cell) for cell in ([text] if deviation is None else [text, spread])]
    if any(value is None for value in numbers):
        finding = f"{text!r}{f' ± {spread!r}' if deviation is not None else ''} in column {name} is no number"
        raise table.error(row, finding, "correct it; an empty value is one that is not known")
    value, *rest = (float(number) for number in numbers if number is not None)
    return Given(name, value, rest[0] if rest else None, f"{table.file}, {table.row_word} {table.lines[row]}")
