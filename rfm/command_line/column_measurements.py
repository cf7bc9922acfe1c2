"""What ``--given`` means: measurements of the columns of a table, in its units."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rfm.datasets.coordinates import Coordinates
from rfm.posterior import Likelihood, Measurement

_MARKS = ("±", "+-", "+/-")
_EXAMPLE = "write for example latitude=10±2, or latitude=10+-2"


@dataclass(frozen=True)
class Given:
    """A measurement of one column: its name, value and standard deviation, in the column's unit."""

    column: str
    value: float
    deviation: float


def parse_given(word: str) -> Given:
    """Return what a word such as ``latitude=10±2`` says.

    Raises:
        ValueError: it says nothing of the kind.
    """
    name, equals, rest = word.partition("=")
    mark = next((mark for mark in _MARKS if mark in rest), None)
    if not equals or not name.strip() or mark is None:
        raise ValueError(f"--given {word!r} is not COLUMN=VALUE±SD; {_EXAMPLE}")
    try:
        value, deviation = (float(part) for part in rest.split(mark))
    except ValueError:
        raise ValueError(f"--given {word!r} holds no two numbers about {mark}; {_EXAMPLE}") from None
    if not math.isfinite(value) or not 0 < deviation < math.inf:
        raise ValueError(
            f"--given {word!r}: the value must be finite and its standard deviation positive, got {value:g} and "
            f"{deviation:g}"
        )
    return Given(name.strip(), value, deviation)


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


def column_likelihood(words: Sequence[str], coordinates: Coordinates) -> ColumnLikelihood:
    """Return the likelihood of what ``--given`` says.

    Args:
        words: such as ``latitude=10±2``.
        coordinates: of the fit.

    Raises:
        ValueError: a word is not understood, a column is unknown or given twice, or a value is out of its range.
    """
    parts: dict[int, Measurement] = {}
    for own in map(parse_given, words):
        column = _column(own, coordinates)
        if column in parts:
            raise ValueError(f"--given {own.column} is given twice; combine the two measurements into one")
        reader, period = _reader(coordinates, column), coordinates.periods[column]
        parts[column] = Measurement(reader, own.value, own.deviation, period)
    return ColumnLikelihood(list(parts.values()))


def _column(given: Given, coordinates: Coordinates) -> int:
    """Return the number of a column that is measured, whichever case its name is written in."""
    names = [name.lower() for name in coordinates.names]
    if given.column.lower() not in names:
        raise ValueError(
            f"--given {given.column}: there is no such column; the flow has {', '.join(coordinates.names)}"
        )
    column = names.index(given.column.lower())
    if coordinates.names[column] in coordinates.ambiguous:
        raise ValueError(
            f"--given {given.column}: a rotation may have several values of this column; measure one with "
            "rfm.posterior.operators in Python"
        )
    largest = coordinates.largest[column]
    if largest is not None and abs(given.value) > largest:
        raise ValueError(
            f"--given {given.column}={given.value:g}: its values are from {-largest:g} to {largest:g} "
            f"{coordinates.unit}"
        )
    return column


def _reader(coordinates: Coordinates, column: int) -> Callable[[Tensor], Tensor]:
    """Return the operator that reads a column of points ``(n, *event_shape)``, ``(n,)``; it has no derivative."""

    def read(x: Tensor) -> Tensor:
        return torch.from_numpy(coordinates.columns_of(x.detach().cpu())[:, column].copy()).to(x.device)

    return read
