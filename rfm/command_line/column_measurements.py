"""What ``--given`` means: measurements of the columns of a table, in its units, and columns known without error."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from manifolds import Manifold
from rfm.datasets.coordinates import Coordinates
from rfm.posterior import Likelihood, Measurement, Slice

_MARKS = ("±", "+-", "+/-")
_EXAMPLE = "write for example latitude=10±2, or latitude=10+-2"


@dataclass(frozen=True)
class Given:
    """What is known of one column.

    Args:
        column: its name.
        value: in the column's unit.
        deviation: one standard deviation, in that unit; None for a value known without error.
        source: where this was said, for messages.
    """

    column: str
    value: float
    deviation: float | None
    source: str

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"{self.source}: the value must be finite, got {self.value:g}")
        if self.deviation is not None and not 0 < self.deviation < math.inf:
            raise ValueError(
                f"{self.source}: the standard deviation must be positive and finite, got {self.deviation:g}; for a "
                f"value known without error give {self.column}={self.value:g}"
            )


def parse_given(word: str) -> Given:
    """Return what a word such as ``latitude=10±2`` says, or ``x=1.2``, which is known without error.

    Raises:
        ValueError: it says nothing of the kind.
    """
    name, equals, rest = word.partition("=")
    if not equals or not name.strip():
        raise ValueError(f"--given {word!r} is neither COLUMN=VALUE±SD nor a file; {_EXAMPLE}")
    mark = next((mark for mark in _MARKS if mark in rest), None)
    try:
        value, *deviation = [float(part) for part in (rest.split(mark) if mark else [rest])]
        if len(deviation) != bool(mark):
            raise ValueError
    except ValueError:
        about = f"two numbers about {mark}" if mark else "number"
        raise ValueError(f"--given {word!r} holds no {about}; {_EXAMPLE}") from None
    return Given(name.strip(), value, deviation[0] if mark else None, f"--given {word!r}")


class ColumnLikelihood(Likelihood):
    """Measurements of columns, all of which hold.

    Args:
        parts: of one column each.
    """

    def __init__(self, parts: Sequence[Measurement]) -> None:
        self.parts = parts

    def __call__(self, x: Tensor) -> Tensor:
        return torch.stack([part(x) for part in self.parts]).sum(0)

    def doubts(self, draws: Tensor) -> tuple[str, ...]:
        return tuple(note for part in self.parts for note in part.doubts(draws))


def likelihood_and_slice(
    given: Sequence[Given], coordinates: Coordinates, manifold: Manifold
) -> tuple[ColumnLikelihood | None, Slice | None]:
    """Return the likelihood of columns that were measured, and the slice of those known without error; None for none.

    Args:
        given: of different columns.
        coordinates: of the fit.
        manifold: of the flow.

    Raises:
        ValueError: a column is unknown or given twice, or a value is out of its range, or it cannot be known without
            error.
    """
    parts: dict[int, Measurement] = {}
    known = np.full(len(coordinates.names), np.nan)
    for own in given:
        column = _column(own, coordinates)
        if column in parts or not math.isnan(known[column]):
            raise ValueError(f"{own.source}: {own.column} is given twice; combine the two measurements into one")
        if own.deviation is None:
            known[column] = own.value
        else:
            reader, period = _reader(coordinates, column), coordinates.periods[column]
            parts[column] = _measurement(own, reader, period)
    likelihood = ColumnLikelihood(list(parts.values())) if parts else None
    return likelihood, None if np.isnan(known).all() else _slice(given, coordinates, manifold, known)


def _measurement(given: Given, reader: Callable[[Tensor], Tensor], period: float | None) -> Measurement:
    assert given.deviation is not None
    try:
        return Measurement(reader, given.value, given.deviation, period)
    except ValueError as error:
        raise ValueError(f"{given.source}: {str(error).removeprefix('Measurement: ')}") from None


def _slice(
    given: Sequence[Given],
    coordinates: Coordinates,
    manifold: Manifold,
    known: "np.ndarray[tuple[int], np.dtype[np.float64]]",
) -> Slice:
    exact = next(own for own in given if own.deviation is None)
    try:
        return coordinates.slice_of(manifold, known)
    except ValueError as error:
        fault = str(error).removeprefix("Slice.of_entries: ")
        raise ValueError(
            f"{exact.source} has no ±: {fault}; give its standard deviation, such as {exact.column}={exact.value:g}±1"
        ) from None


def _column(given: Given, coordinates: Coordinates) -> int:
    """Return the number of a column that is given, whichever case its name is written in."""
    names = [name.lower() for name in coordinates.names]
    if given.column.lower() not in names:
        raise ValueError(
            f"{given.source}: there is no column {given.column}; the flow has {', '.join(coordinates.names)}"
        )
    column = names.index(given.column.lower())
    if coordinates.names[column] in coordinates.ambiguous and given.deviation is not None:
        raise ValueError(
            f"{given.source}: a rotation may have several values of this column; measure one with "
            "rfm.posterior.operators in Python"
        )
    largest = coordinates.largest[column]
    if largest is not None and abs(given.value) > largest:
        raise ValueError(
            f"{given.source}: {given.column} is from {-largest:g} to {largest:g} {coordinates.unit}, got "
            f"{given.value:g}"
        )
    return column


def _reader(coordinates: Coordinates, column: int) -> Callable[[Tensor], Tensor]:
    """Return the operator that reads a column of points ``(n, *event_shape)``, ``(n,)``; it has no derivative."""

    def read(x: Tensor) -> Tensor:
        return torch.from_numpy(coordinates.columns_of(x.detach().cpu())[:, column].copy()).to(x.device)

    return read
