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

from rfm.conditions import Conditions, Picture
from rfm.datasets.tables import MISSING, Table, TableError


def find_conditions(
    table: Table, columns: Sequence[str], labels: Sequence[str] = (), reserved: Sequence[str] = ()
) -> tuple[Conditions, Tensor]:
    """Find what columns of a table mean, and read them.

    A column is of numbers if at least half of its known cells are, else of labels.

    Args:
        table: the table.
        columns: names of columns, or numbers counted from 1.
        labels: those whose numbers are labels.
        reserved: columns that cannot be conditions, since they hold the points.

    Returns:
        The conditions and their vectors, float64 ``(n, len(columns))``.

    Raises:
        TableError: a column is missing, or a cell in one of them cannot be used; the message names it.
    """
    keys = [table.key(table.index(column)) for column in columns]
    forced = {table.key(table.index(column)) for column in labels}
    wrong = [key for key in keys if keys.count(key) > 1 or key in reserved]
    if wrong:
        reason = "it holds the points" if wrong[0] in reserved else "it is named twice"
        raise TableError(f"{table.file}: column {wrong[0]!r} cannot be a condition: {reason}; choose other columns")
    if forced - set(keys):
        raise TableError(
            f"{table.file}: column {min(forced - set(keys))!r} is said to hold labels, but is no condition; "
            "name it among the conditions too"
        )
    cells = {
        key: _texts(table, key) if key in forced or not _mostly_numbers(table, key) else _numbers(table, key)
        for key in keys
    }
    try:
        conditions = Conditions.of(cells, labels=forced)
        return conditions, conditions.encode(cells)
    except ValueError as error:
        raise TableError(f"{table.file}: {error}") from None


def read_conditions(table: Table, conditions: Conditions) -> Tensor:
    """Return the condition vectors of a table's rows, float64 ``(n, c)``; every condition must have its column.

    A column of pictures holds the names of PNG files.

    Raises:
        TableError: a column is missing, or a cell is no number or no known label; the message names it.
    """
    vectors = []
    for column in conditions.columns:
        if not table.has(column.name):
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
        if not column.labels:
            vectors.append(_numbers(table, column.name)[:, None])
            continue
        texts = _texts(table, column.name)
        entries = {}
        for row, text in enumerate(texts):
            if text and text not in entries:
                try:
                    entries[text] = column.entry(text)
                except ValueError as error:
                    raise table.error(row, str(error), "repair that cell, or leave it empty: not known") from None
        vectors.append(np.array([entries.get(text, math.nan) for text in texts])[:, None])
    return torch.from_numpy(np.concatenate(vectors, axis=1))


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
    return table.columns[table.index(key)].mostly_numbers()


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
