"""Points of a manifold out of a table, with all that belongs to them: conditions, weights, groups, rounding."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manifolds import Manifold
from rfm.conditions import Conditions
from rfm.conditions.times import parse_time
from rfm.datasets.column_names import number_columns
from rfm.datasets.condition_columns import find_conditions
from rfm.datasets.coordinate_choice import choose_coordinates, read_points
from rfm.datasets.coordinates import Coordinates
from rfm.datasets.frames import table_from
from rfm.datasets.rounding import Rounding
from rfm.datasets.skipped_rows import SkippedRows
from rfm.datasets.splits import block_labels, group_labels
from rfm.datasets.tables import Table


@dataclass(frozen=True)
class Roles:
    """What columns of a table are for, besides the points.

    Args:
        condition: what the density is conditional on, see `rfm.datasets.find_conditions`.
        labels: those of these whose numbers are labels.
        weights: of the points; empty for equal ones.
        groups: rows that are alike in all of these are no independent observations, such as those of one storm.
        blocks: sizes, by column, of blocks of rows that are none either, such as neighbours on a map or in time.
    """

    condition: Sequence[str] = ()
    labels: Sequence[str] = ()
    weights: str = ""
    groups: Sequence[str] = ()
    blocks: dict[str, float] = field(default_factory=dict)

    def reserved(self, table: Table) -> list[str]:
        """Return the columns that hold something else than points."""
        conditions = [word if table.has(word) else word.rpartition(":")[0] for word in self.condition]
        return [*conditions, *([self.weights] if self.weights else ()), *self.groups]


@dataclass(frozen=True, eq=False)
class Observations:
    """Points out of a table, and what `rfm.fit` takes beside them.

    Args:
        table: the rows, as read.
        coordinates: the columns that hold the points.
        points: ``(n, *event_shape)``, float64.
        conditions: what the entries of ``condition`` mean; None for no condition.
        condition: vectors ``(n, c)``, float64, NaN where not known; or None.
        weights: of the points ``(n,)``, or None.
        groups: labels ``(n,)`` of rows that are not independent of each other; None where each row stands alone.
        rounding: to what the points' columns are rounded; the points are then spread over their cells.
        skipped: the rows that were left out.
    """

    table: Table = field(repr=False)
    coordinates: Coordinates
    points: Tensor = field(repr=False)
    conditions: Conditions | None = None
    condition: Tensor | None = field(default=None, repr=False)
    weights: Tensor | None = field(default=None, repr=False)
    groups: Tensor | None = field(default=None, repr=False)
    rounding: Rounding | None = None
    skipped: SkippedRows = field(default_factory=SkippedRows, repr=False)

    @property
    def arguments(self) -> dict[str, Any]:
        """What `rfm.fit` takes beside points and manifold, by name."""
        own = {
            "condition": self.condition,
            "conditions": self.conditions,
            "weights": self.weights,
            "groups": self.groups,
        }
        return {name: value for name, value in own.items() if value is not None}

    def unused(self, roles: Roles) -> list[str]:
        """Return the columns of numbers that are for nothing."""
        taken = [*roles.reserved(self.table), *roles.blocks]
        return [key for key in number_columns(self.table, taken) if key not in self.coordinates.columns]


def read_observations(
    data: Any,
    manifold: Manifold,
    columns: Sequence[str] | None = None,
    *,
    condition: Sequence[str] = (),
    labels: Sequence[str] = (),
    weights: str = "",
    groups: Sequence[str] = (),
    radians: bool | None = None,
    layout: str | None = None,
    skip_bad_rows: bool = False,
    spread_ties: bool = True,
    seed: int = 0,
) -> Observations:
    """Return the points in a file or a frame, and what belongs to them, for `rfm.fit`.

    ::

        found = read_observations(frame, Sphere(2), condition=["magnitude", "month:12"], groups=["sequence"])
        flow = rfm.fit(found.points, Sphere(2), **found.arguments)

    Args:
        data: a file's name, or a frame, a data set or a mapping, see `rfm.datasets.table_from`.
        manifold: where the points live.
        columns: those that hold the points; found by their names when None, see `rfm.datasets.choose_coordinates`.
        condition: columns that the density is conditional on, see `rfm.datasets.find_conditions`.
        labels: those of these whose numbers are labels.
        weights: the column of weights.
        groups: columns that name groups of rows which are held out together.
        radians: as for `rfm.datasets.choose_coordinates`.
        layout: likewise.
        skip_bad_rows: leave out rows that cannot be used; ``skipped`` says which.
        spread_ties: spread rounded points over their cells, where many are equal because of it.
        seed: of that.

    Raises:
        TableError: the table cannot be used; the message says why.
    """
    roles = Roles(condition, labels, weights, groups)
    skipped = SkippedRows() if skip_bad_rows else None
    if isinstance(data, str | os.PathLike):
        table, layout = read_points(data, layout, minimum_rows=2, skipped=skipped)
    else:
        table = table_from(data)

    def choose(rows: Table) -> Coordinates:
        return choose_coordinates(manifold, rows, columns, radians, layout, roles.reserved(rows))

    table, coordinates = (table, choose(table)) if skipped is None else skipped.apply(table, choose)
    return observations_of(table, coordinates, roles, skipped, spread_ties, seed)


def observations_of(
    table: Table,
    coordinates: Coordinates,
    roles: Roles,
    skipped: SkippedRows | None = None,
    spread_ties: bool = True,
    seed: int = 0,
) -> Observations:
    """Return the points of a table in known coordinates, and what belongs to them.

    Args:
        table: the table.
        coordinates: the columns that hold the points.
        roles: what other columns are for.
        skipped: notes rows that cannot be used, which are then left out; they are an error when None.
        spread_ties: see `read_observations`, as for ``seed``.
        seed: likewise.

    Raises:
        TableError: the table cannot be used; the message says why.
    """

    def read(rows: Table) -> tuple[Tensor, tuple[Conditions | None, Tensor | None], Tensor | None, Tensor | None]:
        found: tuple[Conditions | None, Tensor | None] = (None, None)
        if roles.condition:
            found = find_conditions(rows, roles.condition, roles.labels, coordinates.columns)
        weights = read_weights(rows, roles.weights) if roles.weights else None
        return coordinates.points(rows), found, weights, _groups(rows, roles)

    table, (points, found, weights, groups) = (table, read(table)) if skipped is None else skipped.apply(table, read)
    rounding = coordinates.rounding(table) if spread_ties else None
    if rounding is not None:
        points = coordinates.points(coordinates.spread(table, rounding, seed))
    return Observations(
        table, coordinates, points, *found, weights, groups, rounding, SkippedRows() if skipped is None else skipped
    )


def read_weights(table: Table, column: str) -> Tensor:
    """Return the weights in a column, refused where one is negative."""
    weights = table.numbers([column])[:, 0]
    rows = np.flatnonzero(weights < 0).tolist()
    if rows:
        finding, remedy = f"weight {weights[rows[0]]:.6g} is negative", "weights are at least 0; correct that row"
        raise table.error(rows[0], finding, remedy, rows)
    return torch.from_numpy(weights)


def _groups(table: Table, roles: Roles) -> Tensor | None:
    """Return labels of the rows by groups and by blocks, where there are any."""
    labels = []
    if roles.groups:
        names = [table.texts(column) for column in roles.groups]
        bad = [row for row, cells in enumerate(zip(*names, strict=True)) if not all(cells)]
        if bad:
            remedy = "name one in each row, and for a row that stands alone one of its own"
            raise table.error(bad[0], f"no group is named in {' '.join(roles.groups)}", remedy, bad)
        labels.append(group_labels(np.array(names, dtype=str).T))
    if roles.blocks:
        places = np.stack([days_or_numbers(table, column) for column in roles.blocks], axis=1)
        labels.append(block_labels(places, list(roles.blocks.values())))
    return labels[0] if labels else None


def days_or_numbers(table: Table, column: str) -> NDArray[np.float64]:
    """Return a column's numbers ``(n,)``; of times, days since the first."""
    texts = table.texts(column)
    if parse_time(texts[0]) is None:
        return table.numbers([column])[:, 0]
    times = [parse_time(text) for text in texts]
    bad = [row for row, time in enumerate(times) if time is None]
    if bad:
        finding = f"{texts[bad[0]][:40]!r} is no time such as 2020-03-01T12:30 in column {column!r}"
        raise table.error(bad[0], finding, "repair or remove that row", bad)
    days = np.array([time.timestamp() for time in times if time is not None]) / 86400
    return days - days.min()
