"""What the entries of condition vectors mean: named columns of numbers and of labels, into vectors and back.

A condition vector has one entry for each column: a number as it is, in the column's unit; a label as its position among
the column's labels. NaN stands for not known. In values given by name, None, NaN and empty text do. A column of
pictures (`rfm.conditions.Picture`) has an entry for each pixel.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from rfm.conditions.cells import cells_of, number_of, text_of
from rfm.conditions.kinds import Column, Label, Number, column_from_dict
from rfm.conditions.pictures import Picture
from rfm.conditions.times import CLOCKS, Periodic, Time, parse_time

_MOST_LABELS = 1000


@final
@dataclass(frozen=True)
class Conditions:
    """The columns that a density is conditional on, in the order of the entries of a condition vector.

    Args:
        columns: at least one, with different names.
    """

    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        if not names or len({name.casefold() for name in names}) < len(names):
            raise ValueError(f"Conditions: columns have different names, whatever the case, got {names}")

    @classmethod
    def of(
        cls,
        values_by_column: Mapping[str, Any],
        *,
        labels: Iterable[str] = (),
        units: Mapping[str, str] | None = None,
        periods: Mapping[str, float | str] | None = None,
    ) -> "Conditions":
        """Find the columns' kinds, ranges and labels from data.

        Args:
            values_by_column: for each column an array, or a sequence of numbers, of times or of texts. Texts are
                labels, except those of times in ISO 8601.
            labels: columns whose numbers or times are labels too, such as years.
            units: units of columns of numbers, in words.
            periods: columns whose values come round again, and after how much: 12 for months; or "year", "week" or
                "day" for times.

        Raises:
            ValueError: a column holds nothing known, infinite numbers, or hardly two values alike that could be labels.
        """
        forced, periods = set(labels), periods or {}
        columns = [
            _periodic(name, values, periods[name])
            if name in periods
            else _column(name, values, name in forced, (units or {}).get(name, ""))
            for name, values in values_by_column.items()
        ]
        return cls(tuple(columns))

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(column.name for column in self.columns)

    @property
    def entry_names(self) -> tuple[str, ...]:
        """The name of the column that each entry of a vector belongs to."""
        return tuple(column.name for column in self.columns for _ in range(column.width))

    @property
    def labels(self) -> tuple[int, ...]:
        """How many labels each entry of a vector has; 0 for a number."""
        return tuple(column.labels for column in self.columns for _ in range(column.width))

    @property
    def width(self) -> int:
        """The length of the condition vectors."""
        return sum(column.width for column in self.columns)

    @property
    def required(self) -> tuple[str, ...]:
        """The names of the columns that must be known."""
        return tuple(column.name for column in self.columns if isinstance(column, Picture))

    def encode(self, values_by_column: Mapping[str, Any]) -> Tensor:
        """Return condition vectors.

        Args:
            values_by_column: for each column one value, or one for each point. What is left out is not known. A time
                counts for all that is taken from it too: ``time`` for ``time:year`` and ``time:day``.

        Returns:
            ``(c,)`` if every value is one value, else ``(n, c)``; float64.

        Raises:
            ValueError: there is no such column or label, a value is no number, a picture is missing or cannot be used,
                or the lengths differ.
        """
        known = {i: self.columns[i].vectors(values) for i, values in self._indexed(values_by_column).items()}
        for name in self.required:
            if self._index(name) not in known:
                raise ValueError(f"{name} is not given; it must be")
        lengths = {len(entries) for entries in known.values() if entries.ndim == 2}
        if len(lengths) > 1:
            raise ValueError(f"conditions have different lengths, {sorted(lengths)}; give one value for each point")
        vectors = torch.full((*lengths, self.width), math.nan, dtype=torch.float64)
        for i, part in enumerate(self._parts(vectors)):
            if i in known:
                part.copy_(known[i])
        return vectors

    def decode(self, vectors: Tensor) -> dict[str, list[Any]]:
        """Return the values of vectors ``(n, c)`` or ``(c,)`` by column; None where not known, and for pictures."""
        self.check(vectors)
        parts = self._parts(vectors.reshape(-1, self.width))
        return {
            column.name: [None if bool(entries.isnan().any()) else column.value(entries) for entries in part]
            for column, part in zip(self.columns, parts, strict=True)
        }

    def check(self, vectors: Tensor) -> None:
        """Raise ValueError unless vectors ``(..., c)`` have an entry for each column, and labels where labels stand."""
        if vectors.ndim < 1 or vectors.shape[-1] != self.width:
            raise ValueError(
                f"condition vectors have {self.width} entries ({', '.join(self.names)}), got shape "
                f"{tuple(vectors.shape)}"
            )
        for column, entries in zip(self.columns, self._parts(vectors), strict=True):
            known = entries[~entries.isnan()]
            if column.labels and bool(((known < 0) | (known >= column.labels) | (known != known.floor())).any()):
                raise ValueError(
                    f"entries of {column.name} are positions of labels, 0 to {column.labels - 1}, got "
                    f"{float(known.min()):g} to {float(known.max()):g}; use encode"
                )

    def extrapolations(self, vectors: Tensor) -> list[str]:
        """Return a sentence for each column with numbers outside the range of the data."""
        sentences = []
        for column, entries in zip(self.columns, self._parts(vectors), strict=True):
            if isinstance(column, Number | Time):
                low, high = column.bounds
                # Vectors may have passed through single precision.
                slack = 1e-6 * max(abs(low), abs(high))
                outside = entries[(entries < low - slack) | (entries > high + slack)]
                if len(outside):
                    also = f" and {len(outside) - 1} more are" if len(outside) > 1 else " is"
                    first, *ends = (
                        column.title(entry).partition(" = ")[2]
                        for entry in outside.new_tensor([[float(outside[0])], [low], [high]])
                    )
                    sentences.append(
                        f"{column.name}={first}{also} outside of the data's range, {' to '.join(ends)}: the flow "
                        "extrapolates"
                    )
        return sentences

    def describe(self) -> str:
        """Return the columns with their ranges and labels, in words."""
        return ", ".join(column.describe() for column in self.columns)

    def title(self, vector: Tensor) -> str:
        """Return the meaning of one vector ``(c,)``, in words; what is not known is left out."""
        parts = zip(self.columns, self._parts(vector), strict=True)
        return ", ".join(column.title(part) for column, part in parts if not bool(part.isnan().any()))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values from which `from_dict` makes the same object."""
        return {"columns": [{"kind": column.kind, **column.to_dict()} for column in self.columns]}

    @classmethod
    def from_dict(cls, record: Any) -> "Conditions":
        """Make conditions from the values that `to_dict` returned; whatever the values are, no code of theirs runs.

        Raises:
            ValueError: the record does not describe conditions.
        """
        try:
            return cls(tuple(column_from_dict(dict(values)) for values in record["columns"]))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(f"these are not conditions: {repr(record)[:80]} ({reason})") from None

    def _parts(self, vectors: Tensor) -> tuple[Tensor, ...]:
        """Return views of the columns' entries, ``(..., width)`` each."""
        return vectors.split([column.width for column in self.columns], dim=-1)

    def _indexed(self, values_by_column: Mapping[str, Any]) -> dict[int, Any]:
        """Return the values of each column by its position: one that is taken from a time also by the time's name."""
        indexed: dict[int, Any] = {}
        derived: dict[int, Any] = {}
        for name, values in values_by_column.items():
            taken = [i for i, column in enumerate(self.columns) if _source(column) == _key(name)]
            derived |= dict.fromkeys(taken, values)
            if not taken or any(_key(column.name) == _key(name) for column in self.columns):
                index = self._index(name)
                if index in indexed:
                    raise ValueError(f"a condition is given twice in {', '.join(values_by_column)}; give each once")
                indexed[index] = values
        return derived | indexed

    def _index(self, name: str) -> int:
        for i, column in enumerate(self.columns):
            if _key(column.name) == _key(name):
                return i
        raise ValueError(f"there is no condition {str(name)[:40]!r}; the conditions are {self.describe()}")


def _key(name: str) -> str:
    return str(name).strip().casefold()


def _source(column: Column) -> str:
    """Return the name of the times that a column is taken from; empty for none."""
    return _key(column.source) if isinstance(column, Periodic) else ""


def _known(name: str, values: Any) -> list[Any]:
    """Return the values that are known, of a column with one for each point."""
    cells = cells_of(values)
    if not isinstance(cells, list):
        raise ValueError(f"condition {name} is one value, {str(cells)[:40]}; give one for each point")
    known = [cell for cell in cells if cell is not None]
    if not known:
        raise ValueError(f"condition {name} holds nothing that is known; leave it out")
    return known


def _periodic(name: str, values: Any, period: float | str) -> Column:
    """Return a column whose values come round again."""
    known = _known(name, values)
    if isinstance(period, str):
        if period not in CLOCKS:
            raise ValueError(
                f"condition {name}: a period is a number, or one of {', '.join(CLOCKS)}, got {period[:40]!r}"
            )
        column = Periodic.of_clock(name, name.removesuffix(f":{period}"), period)
        for cell in set(known):
            column.number(cell)
        return column
    numbers = [number_of(cell) for cell in known]
    bad = next((cell for cell, found in zip(known, numbers, strict=True) if found is None or math.isinf(found)), None)
    if bad is not None:
        raise ValueError(f"condition {name} comes round after {period:g}, and {str(bad)[:40]!r} is not a finite number")
    return Periodic.of(name, period, [float(found) for found in numbers if found is not None])


def _column(name: str, values: Any, as_labels: bool, unit: str) -> Column:
    known = _known(name, values)
    texts = {cell for cell in known if isinstance(cell, str)}
    if not as_labels and len(texts) and len(texts) == len(set(known)) and all(map(parse_time, texts)):
        return Time.of(name, texts)
    if as_labels or any(isinstance(cell, str | bool) for cell in known):
        return Label(name, _labels(name, known))
    if any(math.isinf(cell) for cell in known):
        raise ValueError(f"condition {name} holds infinite numbers; use None where it is not known")
    return Number(name, float(min(known)), float(max(known)), unit)


def _labels(name: str, known: Sequence[Any]) -> tuple[str, ...]:
    texts = {text_of(cell) for cell in known}
    if len(texts) > _MOST_LABELS or len(texts) > max(10, len(known) / 2):
        some = ", ".join(sorted(texts)[:3])
        raise ValueError(
            f"condition {name} holds {len(texts)} different texts in {len(known)} points ({some}, ...), too many to be "
            "labels; choose a column in which points share them"
        )
    numbers = {text: number_of(text) for text in texts}
    if all(number is not None for number in numbers.values()):
        return tuple(sorted(texts, key=lambda text: (numbers[text] or 0.0, text)))
    return tuple(sorted(texts))
