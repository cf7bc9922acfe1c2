"""What the entries of condition vectors mean: named columns of numbers and of labels, into vectors and back.

A condition vector has one entry for each column: a number as it is, in the column's unit; a label as its position among
the column's labels. NaN stands for not known. In values given by name, None, NaN and empty text do.
"""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias, final

import numpy as np
import torch
from torch import Tensor

_MOST_LABELS = 1000
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
        unit: in words, for people; empty where it has none or the name says it.
    """

    kind: ClassVar[str] = "number"

    name: str
    low: float
    high: float
    unit: str = ""

    def __post_init__(self) -> None:
        _check_name(self.name)
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise ValueError(f"Number: low and high are finite and in order, got {self.low} and {self.high}")

    @property
    def labels(self) -> int:
        """The number of labels: none."""
        return 0

    def entry(self, value: Any) -> float:
        """Return the entry of a vector that a value means.

        Raises:
            ValueError: it is no finite number.
        """
        number = _number(value)
        if number is None or math.isinf(number):
            raise ValueError(f"{self.name}={str(value)[:40]} is not a finite number; {self.describe()}")
        return number

    def value(self, entry: float) -> float:
        """Return what an entry means."""
        return entry

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
    """A column of labels: text that says to which of several kinds a point belongs.

    Args:
        name: what it is called.
        values: the labels, all different.
    """

    kind: ClassVar[str] = "label"

    name: str
    values: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_name(self.name)
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
        text = _text(value)
        if text in self.values:
            return float(self.values.index(text))
        alike = [i for i, known in enumerate(self.values) if known.casefold() == text.casefold()]
        if len(alike) == 1:
            return float(alike[0])
        near = difflib.get_close_matches(text, self.values, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"{self.name} has no label {text[:40]!r}; {hint}it has {_listed(self.values)}")

    def value(self, entry: float) -> str:
        """Return what an entry means."""
        return self.values[int(entry)]

    def describe(self) -> str:
        """Return the name and the labels."""
        return f"{self.name} (a label: {_listed(self.values)})"

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments as JSON values."""
        return {"name": self.name, "values": list(self.values)}


Column: TypeAlias = Number | Label


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
        cls, named: Mapping[str, Any], *, labels: Iterable[str] = (), units: Mapping[str, str] | None = None
    ) -> "Conditions":
        """Find the columns' kinds, ranges and labels from data.

        Args:
            named: values by column: an array, or a sequence of numbers or of texts. Texts are labels.
            labels: columns whose numbers are labels too, such as years.
            units: units of columns of numbers, in words.

        Raises:
            ValueError: a column holds nothing known, infinite numbers, or hardly two values alike that could be labels.
        """
        forced = set(labels)
        columns = [_column(name, values, name in forced, (units or {}).get(name, "")) for name, values in named.items()]
        return cls(tuple(columns))

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(column.name for column in self.columns)

    @property
    def labels(self) -> tuple[int, ...]:
        """How many labels each column has; 0 for a column of numbers."""
        return tuple(column.labels for column in self.columns)

    def encode(self, named: Mapping[str, Any]) -> Tensor:
        """Return condition vectors.

        Args:
            named: by column, one value, or one for each point. What is left out is not known.

        Returns:
            ``(c,)`` if every value is one value, else ``(n, c)``; float64.

        Raises:
            ValueError: there is no such column or label, a value is no number, or the lengths differ.
        """
        given = {self._index(name): _cells(values) for name, values in named.items()}
        if len(given) < len(named):
            raise ValueError(f"a condition is given twice in {', '.join(named)}; give each once")
        lengths = {len(cells) for cells in given.values() if isinstance(cells, list)}
        if len(lengths) > 1:
            raise ValueError(f"conditions have different lengths, {sorted(lengths)}; give one value for each point")
        vectors = torch.full((*lengths, len(self.columns)), math.nan, dtype=torch.float64)
        for i, cells in given.items():
            entry = {cell: _entry(self.columns[i], cell) for cell in set(cells if isinstance(cells, list) else [cells])}
            own = [entry[cell] for cell in cells] if isinstance(cells, list) else entry[cells]
            vectors[..., i] = torch.as_tensor(own, dtype=torch.float64)
        return vectors

    def decode(self, vectors: Tensor) -> dict[str, list[Any]]:
        """Return the values of vectors ``(n, c)`` or ``(c,)`` by column; None where not known."""
        self.check(vectors)
        rows = vectors.reshape(-1, len(self.columns)).T.tolist()
        return {
            column.name: [None if math.isnan(entry) else column.value(entry) for entry in entries]
            for column, entries in zip(self.columns, rows, strict=True)
        }

    def check(self, vectors: Tensor) -> None:
        """Raise ValueError unless vectors ``(..., c)`` have an entry for each column, and labels where labels stand."""
        if vectors.ndim < 1 or vectors.shape[-1] != len(self.columns):
            raise ValueError(
                f"condition vectors have {len(self.columns)} entries ({', '.join(self.names)}), got shape "
                f"{tuple(vectors.shape)}"
            )
        for column, entries in zip(self.columns, vectors.unbind(-1), strict=True):
            known = entries[~entries.isnan()]
            if column.labels and bool(((known < 0) | (known >= column.labels) | (known != known.floor())).any()):
                raise ValueError(
                    f"entries of {column.name} are positions of labels, 0 to {column.labels - 1}, got "
                    f"{float(known.min()):g} to {float(known.max()):g}; use encode"
                )

    def extrapolations(self, vectors: Tensor) -> list[str]:
        """Return a sentence for each column with numbers beyond the range of the data."""
        sentences = []
        for column, entries in zip(self.columns, vectors.reshape(-1, len(self.columns)).unbind(-1), strict=True):
            if isinstance(column, Number):
                # Vectors may have passed through single precision.
                slack = 1e-6 * max(abs(column.low), abs(column.high))
                beyond = entries[(entries < column.low - slack) | (entries > column.high + slack)]
                if len(beyond):
                    also = f" and {len(beyond) - 1} more are" if len(beyond) > 1 else " is"
                    sentences.append(
                        f"{column.name}={float(beyond[0]):.6g}{also} outside of the data's range, {column.low:.6g} to "
                        f"{column.high:.6g}: the flow extrapolates"
                    )
        return sentences

    def describe(self) -> str:
        """Return the columns with their ranges and labels, in words."""
        return ", ".join(column.describe() for column in self.columns)

    def title(self, vector: Tensor) -> str:
        """Return what one vector ``(c,)`` says, in words; what is not known is left out."""
        known = {name: value for name, (value,) in self.decode(vector).items() if value is not None}
        texts = {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in known.items()}
        return ", ".join(f"{name} = {text}" for name, text in texts.items())

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
            return cls(tuple(_column_from_dict(dict(values)) for values in record["columns"]))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(f"these are not conditions: {repr(record)[:80]} ({reason})") from None

    def _index(self, name: str) -> int:
        wanted = str(name).strip().casefold()
        for i, column in enumerate(self.columns):
            if column.name.casefold() == wanted:
                return i
        raise ValueError(f"there is no condition {str(name)[:40]!r}; the conditions are {self.describe()}")


def is_unknown(value: Any) -> bool:
    """Return whether a value stands for not known: None, NaN or empty text."""
    return value is None or (isinstance(value, str) and not value.strip()) or value != value


def _column_from_dict(values: dict[str, Any]) -> Column:
    if values.pop("kind") == Label.kind:
        (labels,) = [values.pop("values")]
        if not isinstance(labels, list):
            raise TypeError("values is a list")
        return Label(values=tuple(labels), **values)
    if not all(isinstance(values[key], int | float) for key in ("low", "high")):
        raise TypeError("low and high are numbers")
    if not isinstance(values.get("unit", ""), str):
        raise TypeError("unit is text")
    return Number(**values)


def _column(name: str, values: Any, as_labels: bool, unit: str) -> Column:
    cells = _cells(values)
    if not isinstance(cells, list):
        raise ValueError(f"condition {name} is one value, {str(cells)[:40]}; give one for each point")
    known = [cell for cell in cells if cell is not None]
    if not known:
        raise ValueError(f"condition {name} holds nothing that is known; leave it out")
    if as_labels or any(isinstance(cell, str | bool) for cell in known):
        return Label(name, _labels(name, known))
    if any(math.isinf(cell) for cell in known):
        raise ValueError(f"condition {name} holds infinite numbers; use None where it is not known")
    return Number(name, float(min(known)), float(max(known)), unit)


def _labels(name: str, known: Sequence[Any]) -> tuple[str, ...]:
    texts = {_text(cell) for cell in known}
    if len(texts) > _MOST_LABELS or len(texts) > max(10, len(known) / 2):
        some = ", ".join(sorted(texts)[:3])
        raise ValueError(
            f"condition {name} holds {len(texts)} different texts in {len(known)} points ({some}, ...), too many to be "
            "labels; choose a column in which points share them"
        )
    numbers = {text: _number(text) for text in texts}
    if all(number is not None for number in numbers.values()):
        return tuple(sorted(texts, key=lambda text: (numbers[text] or 0.0, text)))
    return tuple(sorted(texts))


def _cells(values: Any) -> Any:
    """Return a list of cells, or one cell: a number, a text, or None where not known."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    if isinstance(values, np.ndarray | np.generic):
        values = values.tolist()
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        return _cell(values)
    return [_cell(value) for value in values]


def _cell(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic | Tensor) else value
    if isinstance(value, list | tuple | dict | bytes):
        raise ValueError(
            f"a condition is a number or a text for each point, got {str(value)[:40]}; give one column each"
        )
    return None if is_unknown(value) else value


def _entry(column: Column, cell: Any) -> float:
    return math.nan if cell is None else column.entry(cell)


def _number(value: Any) -> float | None:
    try:
        return None if isinstance(value, bool) or (isinstance(value, str) and "_" in value) else float(value)
    except (TypeError, ValueError):
        return None


def _text(value: Any) -> str:
    """Return a label as text; a whole number is written without decimals."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _listed(values: Sequence[str]) -> str:
    more = f" and {len(values) - _LISTED} more" if len(values) > _LISTED else ""
    return ", ".join(value if len(value) <= 40 else value[:37] + "..." for value in values[:_LISTED]) + more


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"a condition has a name, got {name!r}")
