"""Between the columns of a table and the points of a manifold, with units.

Coordinates know which columns hold a point, in which units, and how to write points and scores the way the input was
written. `rfm.datasets.choose_coordinates` finds them from a manifold and a header; ``to_dict`` and
`rfm.datasets.coordinates_from_dict` keep them in JSON.
"""

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from manifolds import Manifold
from rfm.arrays import array_of
from rfm.datasets.rounding import Rounding, find_rounding
from rfm.datasets.table_files import CSV, Layout
from rfm.datasets.table_reading import read_table
from rfm.datasets.tables import Table, TableError
from rfm.posterior import Slice

_ROUNDED_DEGREES = 0.02
"""How far radians of three or four digits are from a degree."""


@dataclass(frozen=True)
class Coordinates(ABC):
    """What every kind of coordinates does. Subclasses hold JSON values only.

    Args:
        columns: where a point stands in the input: names of columns or, for a file without a header, their numbers,
            counted from 1, as text. `names` are those of the output.
    """

    kind: ClassVar[str]

    columns: tuple[str, ...]

    def __post_init__(self) -> None:
        columns = self.columns
        texts = isinstance(columns, tuple) and all(isinstance(column, str) for column in columns)
        if not texts or not columns or len(set(columns)) < len(columns):
            raise ValueError(f"{type(self).__name__}: columns is a tuple of different names, got {columns!r}")

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The names of the output's columns, in its order: the input's names, or usual ones if it had none."""

    @property
    def unit(self) -> str:
        """The unit of the columns in words; empty where they have none, or several."""
        return ""

    @property
    def periods(self) -> tuple[float | None, ...]:
        """After how much the values of each column of the output repeat, as angles do; None where they do not."""
        return (None,) * len(self.names)

    @property
    def largest(self) -> tuple[float | None, ...]:
        """The largest size of the values of each column of the output; None where there is none, or they repeat."""
        return (None,) * len(self.names)

    def in_columns(self, table: Table, columns: Sequence[str]) -> Self:
        """Return the same coordinates, in other columns of a table; a TableError unless there are as many of them."""
        keys = tuple(table.key(table.index(column)) for column in columns)
        if len(set(keys)) < len(keys) or len(keys) != len(self.columns):
            raise TableError(
                f"{table.file}: --columns names {' '.join(keys)}, where {len(self.columns)} different columns are "
                f"needed in place of {' '.join(self.columns)}; name these in that order"
            )
        return replace(self, columns=keys)

    @property
    def rounds(self) -> bool:
        """Whether each column alone may be rounded, as angles are, and the parts of a unit vector are not."""
        return False

    def within_range(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return values of ``columns`` ``(n, len(columns))`` that were moved a little, back within their range."""
        return values

    @property
    def ambiguous(self) -> tuple[str, ...]:
        """Columns of the output that one point may have several values of, as quaternions have two."""
        return ()

    def slice_of(self, manifold: Manifold, known: NDArray[np.float64]) -> Slice:
        """Return the points some of whose columns are known without error.

        Args:
            manifold: of the points.
            known: a value for each of `names`, NaN where not known, at least one known.

        Raises:
            ValueError: such columns are never known without error, or not these alone.
        """
        raise ValueError(f"{', '.join(self.names)} are not coordinates that can be known without error")

    def describe(self, table: Table | None = None) -> str:
        """Return which columns hold the points, of the input or of another table, and in which unit."""
        keys = self.columns if table is None else self._columns_in(table)
        what = f"column{'s' * (len(keys) > 1)} {', '.join(keys)}"
        return f"{what}, in {self.unit}" if self.unit else what

    def read(self, path: str | os.PathLike[str]) -> Table:
        """Return the table in a file that is written like the input."""
        return read_table(path)

    @abstractmethod
    def points(self, table: Table) -> Tensor:
        """Return the points of a table, float64 ``(n, *event_shape)``.

        Raises:
            TableError: a column is missing, or a row holds no point; the message names it.
        """

    @abstractmethod
    def columns_of(self, points: Tensor) -> NDArray[np.float64]:
        """Return points ``(n, *event_shape)`` in the input's units, ``(n, len(names))`` in the order of `names`."""

    @property
    def file_layout(self) -> Layout:
        """How files of points are written."""
        return CSV

    def leading(self, count: int, conditions: Mapping[str, Sequence[Any]], first: int = 0) -> dict[str, NDArray[Any]]:
        """Return columns that stand before the points in a file of samples, by name; none by default.

        Args:
            count: how many samples there are.
            conditions: the conditions that they were drawn for by name, one for each sample, None where not known.
            first: how many samples stand before them in the file.
        """
        return {}

    @abstractmethod
    def score_columns(self, log_prob: Tensor) -> dict[str, NDArray[Any]]:
        """Return log-densities ``(n,)``, given in nats with respect to the Riemannian volume, by name with unit."""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values from which `coordinates_from_dict` makes the same object."""
        record = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {"kind": self.kind, **record}

    def rounding(self, table: Table) -> Rounding | None:
        """Return to what a table's points are rounded, where many are equal because of it; see `find_rounding`."""
        if not self.rounds:
            return None
        periods = dict(zip(self.names, self.periods, strict=True))
        values, own = self._numbers(table), [periods[name] for name in self._own]
        if self.unit != "radians":
            return find_rounding(values, own)
        # In degrees, before they were converted.
        degrees = np.rint(np.degrees(values))
        if np.abs(np.degrees(values) - degrees).max() > _ROUNDED_DEGREES:
            return find_rounding(values, own)
        found = find_rounding(degrees, [None if period is None else math.degrees(period) for period in own])
        return None if found is None else replace(found, steps=tuple(math.radians(step) for step in found.steps))

    def spread(self, table: Table, rounding: Rounding, seed: int) -> Table:
        """Return a table whose rounded points are spread evenly over their cells, the same for the same seed."""
        values = self.within_range(rounding.spread(self._numbers(table), seed))
        return table.with_numbers(dict(zip(self._columns_in(table), values.T, strict=True)))

    def _numbers(self, table: Table) -> NDArray[np.float64]:
        """Return the numbers of ``columns``, in that order.

        Where the input had no header, a table with our own names for its columns, as we write it, is found by them.
        """
        return table.numbers(self._columns_in(table))

    def _columns_in(self, table: Table) -> tuple[str, ...]:
        numbered = any(column.isdecimal() for column in self.columns)
        ours = numbered and table.has_header and all(table.has(name) for name in self._own)
        return self._own if ours else self.columns

    @property
    def _own(self) -> tuple[str, ...]:
        """Names in the order of ``columns``."""
        return self.names


# Conversions.


def output_names(columns: Sequence[str], usual: Sequence[str]) -> tuple[str, ...]:
    """Return the input's names, or the usual ones if a column is known by its number alone."""
    numbered = any(column.isdecimal() for column in columns)
    return tuple(usual) if numbered else tuple(columns)


def wrapped_degrees(angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return angles in [-180, 180)."""
    angle = np.fmod(angle, 360.0)
    return np.where(angle >= 180, angle - 360, np.where(angle < -180, angle + 360, angle))


def positive_angles(angle: NDArray[np.float64], turn: float = 360.0) -> NDArray[np.float64]:
    """Return angles in [0, turn)."""
    shifted = np.where(angle < 0, angle + turn, angle)
    # A tiny negative angle plus a turn rounds to the turn, which is 0.
    return np.where(shifted >= turn, 0.0, shifted)


def as_array(values: Tensor) -> NDArray[Any]:
    """Return a tensor as an array of its own type."""
    return array_of("coordinates", "values", values)


def as_float64(points: Tensor) -> NDArray[np.float64]:
    """Return a tensor as an array in float64."""
    return as_array(points).astype(np.float64)
