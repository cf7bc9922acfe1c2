"""The kinds of columns that `rfm.conditions` has: numbers, labels, times, what comes round, and pictures."""

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias, final

from torch import Tensor

from manifolds.arguments import number
from rfm.conditions.cells import check_name, entries_of, number_of, text_of
from rfm.conditions.pictures import Picture
from rfm.conditions.times import Periodic, Time

_LISTED = 20
"""Labels that a message lists."""


@final
@dataclass(frozen=True)
class Number:
    """A column of numbers.

    Args:
        name: what it is called.
        low: the smallest value in the data.
        high: the largest value in the data.
        unit: in words, for people; empty where it has none or the name states it.
    """

    kind: ClassVar[str] = "number"
    width: ClassVar[int] = 1

    name: str
    low: float
    high: float
    unit: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)
        for name in ("low", "high"):
            object.__setattr__(self, name, number("Number", name, getattr(self, name)))
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise ValueError(f"Number: low and high are finite and in order, got {self.low} and {self.high}")

    @property
    def labels(self) -> int:
        """The number of labels: none."""
        return 0

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest entry in the data."""
        return self.low, self.high

    def entry(self, value: Any) -> float:
        """Return the entry of a vector that a value means.

        Raises:
            ValueError: it is no finite number.
        """
        number = number_of(value)
        if number is None or math.isinf(number):
            raise ValueError(f"{self.name}={str(value)[:40]} is not a finite number; {self.describe()}")
        return number

    def vectors(self, values: Any) -> Tensor:
        """Return the entries that values mean, ``(1,)`` of one and ``(n, 1)`` of several."""
        return entries_of(values, lambda value: [self.entry(value)], self.width)

    def value(self, entries: Tensor) -> float:
        """Return what an entry ``(1,)`` means."""
        return float(entries)

    def title(self, entries: Tensor) -> str:
        """Return what an entry means, in words."""
        return f"{self.name} = {float(entries):.6g}"

    def describe(self) -> str:
        """Return the name and the range."""
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.name} (a number, {self.low:.6g} to {self.high:.6g}{unit} in the data)"

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments as JSON values."""
        return {"name": self.name, "low": self.low, "high": self.high, "unit": self.unit}


@final
@dataclass(frozen=True)
class Label:
    """A column of labels: text that assigns a point to one of several kinds.

    Args:
        name: what it is called.
        values: the labels, all different.
    """

    kind: ClassVar[str] = "label"
    width: ClassVar[int] = 1

    name: str
    values: tuple[str, ...]

    def __post_init__(self) -> None:
        check_name(self.name)
        texts = isinstance(self.values, tuple) and all(isinstance(value, str) and value for value in self.values)
        if not texts or not self.values or len(set(self.values)) < len(self.values):
            raise ValueError(f"Label: values is a tuple of different texts, got {str(self.values)[:80]}")

    @property
    def labels(self) -> int:
        """The number of labels."""
        return len(self.values)

    def entry(self, value: Any) -> float:
        """Return the entry of a vector that a label means; its case matters only where it decides.

        Raises:
            ValueError: there is no such label.
        """
        text = text_of(value)
        if text in self.values:
            return float(self.values.index(text))
        alike = [i for i, known in enumerate(self.values) if known.casefold() == text.casefold()]
        if len(alike) == 1:
            return float(alike[0])
        near = difflib.get_close_matches(text, self.values, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"{self.name} has no label {text[:40]!r}; {hint}it has {_listed(self.values)}")

    def vectors(self, values: Any) -> Tensor:
        """Return the entries that values mean, ``(1,)`` of one and ``(n, 1)`` of several."""
        return entries_of(values, lambda value: [self.entry(value)], self.width)

    def value(self, entries: Tensor) -> str:
        """Return what an entry ``(1,)`` means."""
        return self.values[int(entries)]

    def title(self, entries: Tensor) -> str:
        """Return what an entry means, in words."""
        return f"{self.name} = {self.value(entries)}"

    def describe(self) -> str:
        """Return the name and the labels."""
        return f"{self.name} (a label: {_listed(self.values)})"

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments as JSON values."""
        return {"name": self.name, "values": list(self.values)}


Column: TypeAlias = Number | Label | Time | Periodic | Picture
_KINDS: dict[str, Any] = {kind.kind: kind for kind in (Number, Label, Time, Periodic, Picture)}


def column_from_dict(values: dict[str, Any]) -> Column:
    """Make a column from its kind and the values that ``to_dict`` returned; raise if they do not describe one."""
    kind = _KINDS[values.pop("kind")]
    if kind is Label:
        (labels,) = [values.pop("values")]
        if not isinstance(labels, list):
            raise TypeError("values is a list")
        return Label(values=tuple(labels), **values)
    if kind is Number:
        if not all(isinstance(values[key], int | float) for key in ("low", "high")):
            raise TypeError("low and high are numbers")
        if not isinstance(values.get("unit", ""), str):
            raise TypeError("unit is text")
    if kind is Periodic and not all(isinstance(values[key], int | float) for key in ("period", "low")):
        raise TypeError("period and low are numbers")
    if kind in (Time, Periodic) and not all(
        isinstance(values.get(key, ""), str) for key in ("unit", "clock", "source")
    ):
        raise TypeError("unit, clock and source are texts")
    column: Column = kind(**values)
    return column


def _listed(values: Sequence[str]) -> str:
    more = f" and {len(values) - _LISTED} more" if len(values) > _LISTED else ""
    return ", ".join(value if len(value) <= 40 else value[:37] + "..." for value in values[:_LISTED]) + more
