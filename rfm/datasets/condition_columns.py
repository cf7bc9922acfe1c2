"""Conditions from the columns of a table.

An empty cell is a condition that is not known; in a column of numbers, ``NA``, ``nan`` and their like are too. In a
column of labels they are labels: NA is Namibia.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rfm.conditions import Column, Conditions, Label, Number, Periodic, Picture, Time
from rfm.conditions.times import CLOCKS, parse_time
from rfm.datasets.tables import MISSING, Table, TableError, parse_number


def find_conditions(
    table: Table, columns: Sequence[str], labels: Sequence[str] = (), reserved: Sequence[str] = ()
) -> tuple[Conditions, Tensor]:
    """Find what columns of a table mean, and read them.

    A column is of numbers if at least half of its known cells are, of times if they are in ISO 8601, else of labels.

    Args:
        table: the table.
        columns: names of columns, or numbers counted from 1; ``month:12`` for numbers that come round after 12, and
            ``time:year``, ``time:week`` or ``time:day`` for the time of year, week or day.
        labels: those whose numbers or times are labels.
        reserved: columns that cannot be conditions, since they hold the points.

    Returns:
        The conditions and their vectors, float64 ``(n, c)``.

    Raises:
        TableError: a column is missing, or a cell in one of them cannot be used; the message names it.
    """
    requested = [_requested(table, word) for word in columns]
    forced = {table.key(table.index(column)) for column in labels}
    names = [name for name, _, _ in requested]
    wrong = [name for name, key, _ in requested if names.count(name) > 1 or key in reserved]
    if wrong:
        reason = "it holds the points" if wrong[0] in reserved else "it is named twice"
        raise TableError(f"{table.file}: column {wrong[0]!r} cannot be a condition: {reason}; choose other columns")
    if forced - {key for _, key, _ in requested}:
        missing = min(forced - {key for _, key, _ in requested})
        raise TableError(
            f"{table.file}: column {missing!r} is said to hold labels, but is no condition; "
            "name it among the conditions too"
        )
    cells = {name: _cells(table, key, key in forced, period) for name, key, period in requested}
    periods = {name: period for name, _, period in requested if period is not None}
    try:
        conditions = Conditions.of(cells, labels=forced, periods=periods)
        return conditions, conditions.encode(cells)
    except ValueError as error:
        raise TableError(f"{table.file}: {error}") from None


def _requested(table: Table, word: str) -> tuple[str, str, float | str | None]:
    """Return the name of a condition, its column, and after how much its values come round: None for never."""
    column, colon, period = word.rpartition(":")
    if not colon or table.has(word) or not table.has(column):
        key = table.key(table.index(word))
        return key, key, None
    key, value = table.key(table.index(column)), parse_number(period)
    if value is not None and 0 < value < math.inf:
        return key, key, value
    if period in CLOCKS:
        return f"{key}:{period}", key, period
    raise TableError(
        f"{table.file}: {word!r} says that column {key!r} comes round after {period[:40]!r}; write a number in its "
        f"unit, such as {key}:12, or {', '.join(f'{key}:{clock}' for clock in CLOCKS)} of a column of times"
    )


def _cells(table: Table, key: str, labels: bool, period: float | str | None) -> Sequence[str] | NDArray[np.float64]:
    """Return a column as it is to be understood: texts, among them times, or numbers."""
    texts, times = isinstance(period, str), not labels and _mostly_times(table, key)
    if times or texts:
        bad = [
            row
            for row, text in enumerate(_texts(table, key))
            if text.casefold() not in MISSING and not parse_time(text)
        ]
        if bad:
            text = table.columns[table.index(key)].text(bad[0])
            finding = f"{text[:40]!r} is no time such as 2020-03-01T12:30 in column {key!r}"
            raise table.error(bad[0], finding, "repair or empty that cell", bad)
        return ["" if text.casefold() in MISSING else text for text in _texts(table, key)]
    if labels or (period is None and not _mostly_numbers(table, key)):
        return _texts(table, key)
    return _numbers(table, key)


def _mostly_times(table: Table, key: str) -> bool:
    if _mostly_numbers(table, key):
        return False
    known = [text for text in _texts(table, key) if text.casefold() not in MISSING]
    return bool(known) and 2 * sum(parse_time(text) is not None for text in known) >= len(known)


def read_conditions(table: Table, conditions: Conditions) -> Tensor:
    """Return the condition vectors of a table's rows, float64 ``(n, c)``; every condition must have its column.

    A column of pictures holds the names of PNG files.

    Raises:
        TableError: a column is missing, or a cell is no number or no known label; the message names it.
    """
    vectors = []
    for column in conditions.columns:
        key = _key_of(table, column)
        if key is None:
            raise TableError(
                f"{table.file}: there is no column {column.name!r}, a condition of this flow; "
                f"{table.describe_columns()}; "
                + (
                    f"add it, or give --condition {column.name}=FILE"
                    if isinstance(column, Picture)
                    else "add it, with empty cells where it is not known"
                )
            )
        if isinstance(column, Picture):
            vectors.append(_pictures(table, column))
            continue
        if isinstance(column, Number):
            vectors.append(_numbers(table, key)[:, None])
            continue
        vectors.append(_entries(table, key, column))
    return torch.from_numpy(np.concatenate(vectors, axis=1))


def _key_of(table: Table, column: Column) -> str | None:
    """Return the column of a table that holds a condition, None for none: the times that one is taken from, too."""
    if table.has(column.name):
        return column.name
    return column.source if isinstance(column, Periodic) and column.source and table.has(column.source) else None


def _entries(table: Table, key: str, column: Label | Time | Periodic) -> NDArray[np.float64]:
    """Return the entries of a column whose cells are read one by one, ``(n, width)``."""
    texts = _texts(table, key)
    missing = frozenset({""}) if isinstance(column, Label) else MISSING
    unknown = [math.nan] * column.width
    entries: dict[str, list[float]] = {}
    for row, text in enumerate(texts):
        if text not in entries:
            try:
                entries[text] = unknown if text.casefold() in missing else column.vectors(text).tolist()
            except ValueError as error:
                raise table.error(row, str(error), "repair that cell, or leave it empty: not known") from None
    return np.array([entries[text] for text in texts])


def _pictures(table: Table, column: Picture) -> NDArray[np.float64]:
    texts = _texts(table, column.name)
    seen = {}
    for row, text in enumerate(texts):
        if text not in seen:
            try:
                seen[text] = column.vectors(text).numpy()
            except ValueError as error:
                raise table.error(row, str(error), f"{column.name} names a picture in every row") from None
    return np.stack([seen[text] for text in texts])


def _texts(table: Table, key: str) -> Sequence[str]:
    return table.texts(key)


def _mostly_numbers(table: Table, key: str) -> bool:
    column = table.columns[table.index(key)]
    return column.mostly_numbers() or all(text.casefold() in MISSING for text in column.texts)


def _numbers(table: Table, key: str) -> NDArray[np.float64]:
    """Return a column's numbers, NaN where not known."""
    values = table.values(key)
    doubtful = np.flatnonzero(~np.isfinite(values))
    column = table.columns[table.index(key)]
    bad = [row for row in doubtful.tolist() if column.text(row).casefold() not in MISSING]
    if bad:
        raise table.error(
            bad[0],
            f"{column.text(bad[0])[:40]!r} is not a finite number in column {key!r}",
            f"repair or empty that cell, or say that they are labels: --label {key}",
            bad,
        )
    return values
