"""Conditions that are times: points in time as numbers since the first, and what comes round as places on a circle.

Times are texts in ISO 8601, such as ``2020-03-01`` or ``2020-03-01T12:30:00Z``, or datetime objects; without an offset
they count as UTC.
"""

import datetime
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from manifolds.arguments import number
from rfm.conditions.cells import check_name, entries_of

_DATE = re.compile(r"[+-]?\d{4}-\d{2}-\d{2}([T ].*)?")
_UNITS: Mapping[str, float] = {"seconds": 1.0, "minutes": 60.0, "hours": 3600.0, "days": 86400.0}
_LONG = 200.0
"""So many of a unit in all data, from which on it is the unit of the entries."""
_DIGITS = 9


def parse_time(text: str) -> datetime.datetime | None:
    """Return the time that a text in ISO 8601 means, at least a date; None for another text."""
    if not _DATE.fullmatch(text := text.strip()):
        return None
    # Nanoseconds, as NumPy writes them, have three digits more than a datetime.
    text = re.sub(r"(\.\d{6})\d+", r"\1", text)
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)


@final
@dataclass(frozen=True)
class Time:
    """A column of points in time, as numbers in a unit since the first.

    Args:
        name: what it is called.
        low: the first time in the data, in ISO 8601.
        high: the last time in the data.
        unit: of the entries: seconds, minutes, hours or days.
    """

    kind: ClassVar[str] = "time"
    width: ClassVar[int] = 1
    labels: ClassVar[int] = 0

    name: str
    low: str
    high: str
    unit: str = "days"

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.unit not in _UNITS:
            raise ValueError(f"Time: unit is one of {', '.join(_UNITS)}, got {str(self.unit)[:40]!r}")
        if parse_time(str(self.low)) is None or parse_time(str(self.high)) is None or self._span < 0:
            raise ValueError(f"Time: low and high are times in ISO 8601 and in order, got {self.low} and {self.high}")

    @classmethod
    def of(cls, name: str, texts: Iterable[str]) -> "Time":
        """Return the column of some times, in a unit that suits their span."""
        times = sorted(found for text in texts if (found := parse_time(text)) is not None)
        span = (times[-1] - times[0]).total_seconds()
        unit = next((unit for unit, size in _UNITS.items() if span / size < _LONG), "days")
        return cls(name, _iso(times[0]), _iso(times[-1]), unit)

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest entry in the data."""
        return 0.0, self._span / _UNITS[self.unit]

    def entry(self, value: Any) -> float:
        """Return the entry of a vector that a time means.

        Raises:
            ValueError: it is no time.
        """
        found = parse_time(_text(value))
        if found is None:
            raise ValueError(
                f"{self.name}={str(value)[:40]} is no time, such as 2020-03-01 or 2020-03-01T12:30:00; "
                f"{self.describe()}"
            )
        return (found - self._start).total_seconds() / _UNITS[self.unit]

    def vectors(self, values: Any) -> Tensor:
        """Return the entries that values mean, ``(1,)`` of one and ``(n, 1)`` of several."""
        return entries_of(values, lambda value: [self.entry(value)], self.width)

    def value(self, entries: Tensor) -> str:
        """Return the time that an entry ``(1,)`` means, to the second."""
        return _iso(self._start + datetime.timedelta(seconds=round(float(entries) * _UNITS[self.unit])))

    def title(self, entries: Tensor) -> str:
        """Return what an entry means, in words."""
        return f"{self.name} = {self.value(entries)}"

    def describe(self) -> str:
        """Return the name and the range."""
        return f"{self.name} (a time, {self.low} to {self.high} in the data, in {self.unit} since the first)"

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments as JSON values."""
        return {"name": self.name, "low": self.low, "high": self.high, "unit": self.unit}

    @property
    def _start(self) -> datetime.datetime:
        start = parse_time(self.low)
        assert start is not None
        return start

    @property
    def _span(self) -> float:
        last = parse_time(self.high)
        assert last is not None
        return (last - self._start).total_seconds()


def _of_year(time: datetime.datetime) -> float:
    """Return days since the year began, in years of equal length."""
    first = time.replace(month=1, day=1, hour=0, minute=0, second=0, microsecond=0)
    length = (first.replace(year=first.year + 1) - first).days if first.year < datetime.MAXYEAR else 365
    return (time - first).total_seconds() / 86400 / length * CLOCKS["year"][0]


def _of_week(time: datetime.datetime) -> float:
    return time.weekday() + _of_day(time) / 24


def _of_day(time: datetime.datetime) -> float:
    return time.hour + time.minute / 60 + (time.second + time.microsecond * 1e-6) / 3600


CLOCKS: Mapping[str, tuple[float, str, Callable[[datetime.datetime], float]]] = {
    "year": (365.2425, "days since January began", _of_year),
    "week": (7.0, "days since Monday began", _of_week),
    "day": (24.0, "hours since midnight", _of_day),
}
"""What times come round in: the period, the unit that it is in, and the place in it."""


@final
@dataclass(frozen=True)
class Periodic:
    """A column whose values come round again, such as months, hours and directions: a place on a circle, two entries.

    So December is as near to January as to November, and the density is the same where a period ends and the next
    begins.

    Args:
        name: what it is called.
        period: after how much values come round.
        low: where the range begins in which values are written.
        clock: "year", "week" or "day" for the time of it, of times; empty for numbers.
        source: the column of times that it is taken from; ``name`` where empty.
    """

    kind: ClassVar[str] = "periodic"
    width: ClassVar[int] = 2
    labels: ClassVar[int] = 0

    name: str
    period: float
    low: float = 0.0
    clock: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)
        for field in ("period", "low"):
            object.__setattr__(self, field, number("Periodic", field, getattr(self, field)))
        if not (0 < self.period < math.inf and math.isfinite(self.low)):
            raise ValueError(f"Periodic: period is above 0 and low finite, got {self.period} and {self.low}")
        if self.clock and self.clock not in CLOCKS:
            raise ValueError(f"Periodic: clock is {', '.join(CLOCKS)} or empty, got {str(self.clock)[:40]!r}")

    @classmethod
    def of(cls, name: str, period: float, values: Iterable[float]) -> "Periodic":
        """Return the column of some numbers, with the range that they are written in.

        Raises:
            ValueError: they spread over more than a period.
        """
        known = list(values)
        low, high = min(known), max(known)
        if high - low > period * (1 + 1e-9):
            raise ValueError(
                f"condition {name} runs from {low:.6g} to {high:.6g}, over more than a period of {period:g}; give the "
                "right period, in its unit"
            )
        start = -period / 2 if low < 0 and high <= period / 2 else 0.0 if low >= 0 and high < period else low
        return cls(name, period, start)

    @classmethod
    def of_clock(cls, name: str, source: str, clock: str) -> "Periodic":
        """Return the column of the time of year, week or day."""
        return cls(name, CLOCKS[clock][0], 0.0, clock, source)

    def number(self, value: Any) -> float:
        """Return where in a period a value is: a number or, with a clock, a time.

        Raises:
            ValueError: it is neither.
        """
        time = parse_time(_text(value)) if self.clock else None
        if time is not None:
            return CLOCKS[self.clock][2](time)
        try:
            found = float("nan") if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            found = math.nan
        if not math.isfinite(found):
            kind = "no time and no finite number" if self.clock else "not a finite number"
            raise ValueError(f"{self.name}={str(value)[:40]} is {kind}; {self.describe()}")
        return found

    def vectors(self, values: Any) -> Tensor:
        """Return the entries that values mean, ``(2,)`` of one and ``(n, 2)`` of several."""
        return entries_of(values, self._place, self.width)

    def _place(self, value: Any) -> list[float]:
        turn = 2 * math.pi * (self.number(value) / self.period)
        return [math.cos(turn), math.sin(turn)]

    def value(self, entries: Tensor) -> float:
        """Return the number that entries ``(2,)`` mean."""
        x, y = entries.double().tolist()
        value = math.atan2(y, x) / (2 * math.pi) * self.period
        value = round(self.low + (value - self.low) % self.period, 4 if entries.dtype == torch.float32 else _DIGITS)
        return value - self.period if value >= self.low + self.period else value

    def title(self, entries: Tensor) -> str:
        """Return what entries mean, in words."""
        return f"{self.name} = {self.value(entries):.6g}"

    def describe(self) -> str:
        """Return the name and the period."""
        unit = f" {CLOCKS[self.clock][1]}, or a time" if self.clock else ""
        return f"{self.name} (a number{unit}, which comes round after {self.period:g})"

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments as JSON values."""
        own = {"name": self.name, "period": self.period, "low": self.low}
        return own | ({"clock": self.clock, "source": self.source} if self.clock else {})


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime.date) else str(value)


def _iso(time: datetime.datetime) -> str:
    """Return a time in UTC as text: a date alone at midnight."""
    time = time.astimezone(datetime.UTC).replace(tzinfo=None)
    return time.date().isoformat() if time.time() == datetime.time() else time.isoformat()
