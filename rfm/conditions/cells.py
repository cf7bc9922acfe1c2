"""What is given as values of conditions: from arrays and sequences to cells, and from cells to entries of vectors."""

import datetime
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rfm.arrays import TIMES


def is_unknown(value: Any) -> bool:
    """Return whether a value stands for not known: None, NaN or empty text."""
    return value is None or (isinstance(value, str) and not value.strip()) or value != value


def cells_of(values: Any) -> Any:
    """Return a list of cells, or one cell: a number, a text, or None where not known."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    if isinstance(values, np.ndarray | np.generic):
        if values.dtype.kind == "m":
            raise ValueError(
                f"a condition is a number or a text for each point, got spans of time ({values.dtype}); {TIMES}"
            )
        if values.dtype.kind == "M":
            values = np.where(np.isnat(values), "", np.datetime_as_string(values.astype("M8[us]")))
        values = values.tolist()
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        return _cell(values)
    return [_cell(value) for value in values]


def _cell(value: Any) -> Any:
    if isinstance(value, datetime.timedelta | np.timedelta64):
        raise ValueError(f"a condition is a number or a text for each point, got the span {str(value)[:40]}; {TIMES}")
    if value == value and isinstance(value, datetime.date | np.datetime64):
        return str(value) if isinstance(value, np.datetime64) else value.isoformat()
    value = value.item() if isinstance(value, np.generic | Tensor) else value
    if isinstance(value, list | tuple | dict | bytes | complex):
        raise ValueError(
            f"a condition is a number or a text for each point, got {str(value)[:40]}; give one column each"
        )
    return None if is_unknown(value) else value


def number_of(value: Any) -> float | None:
    """Return a value as a number; None if it is none."""
    try:
        return None if isinstance(value, bool) or (isinstance(value, str) and "_" in value) else float(value)
    except (TypeError, ValueError):
        return None


def text_of(value: Any) -> str:
    """Return a label as text; a whole number is written without decimals."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def entries_of(values: Any, entries: Callable[[Any], list[float]], width: int) -> Tensor:
    """Return the entries of one value ``(width,)`` or of several ``(n, width)``, NaN for None."""
    unknown, values = [math.nan] * width, cells_of(values)
    if not isinstance(values, list):
        return torch.tensor(unknown if values is None else entries(values), dtype=torch.float64)
    found = {value: unknown if value is None else entries(value) for value in set(values)}
    return torch.tensor([found[value] for value in values], dtype=torch.float64).reshape(len(values), width)


def check_name(name: Any) -> None:
    """Raise ValueError unless a condition has a name."""
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"a condition has a name, got {name!r}")
