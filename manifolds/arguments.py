"""Numbers and objects that are given as arguments: as Python's own, or refused with a sentence.

What NumPy, a data frame or a tensor holds as a number is one; kept as Python's own it is written to JSON, compared and
shown alike.
"""

import inspect
import math
import numbers
import operator
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from torch import Tensor


def integer(owner: str, name: str, value: Any, least: int | None = 1) -> int:
    """Return a whole number as an int; 3.0 is one.

    Args:
        owner: what takes it, for the message.
        name: the argument.
        value: a number, of Python, NumPy or torch.
        least: the smallest that is allowed; None where the caller checks that.

    Raises:
        ValueError: it is none, or too small.
    """
    found = None
    if not isinstance(value, bool):
        with suppress(TypeError):
            found = operator.index(value)
        if found is None and isinstance(value, numbers.Real) and float(value).is_integer():
            found = int(float(value))
    if found is None:
        raise ValueError(f"{owner}: {name} must be a whole number, got {shown(value)}; choose another")
    if least is not None and found < least:
        raise ValueError(f"{owner}: {name} must be at least {least}, got {found}; choose another")
    return found


def number(owner: str, name: str, value: Any) -> float:
    """Return a real number as a float; its range is for the caller to check.

    Args:
        owner: what takes it, for the message.
        name: the argument.
        value: a number, of Python, NumPy or torch.

    Raises:
        ValueError: it is none.
    """
    if not getattr(value, "ndim", 0):
        with suppress(TypeError, ValueError, RuntimeError, OverflowError):
            # The sign, because a text that spells a number is none.
            return float(+value.detach() if isinstance(value, Tensor) else +value)
    raise ValueError(f"{owner}: {name} must be a number, got {shown(value)}; pass one, such as 0.5")


def positive(owner: str, name: str, value: Any, remedy: str = "choose another") -> float:
    """Return a number above 0, finite, as a float.

    Raises:
        ValueError: it is none, with the remedy.
    """
    found = number(owner, name, value)
    if not 0 < found < math.inf:
        raise ValueError(f"{owner}: {name} must be positive and finite, got {shown(value)}; {remedy}")
    return found


def seed_of(owner: str, value: Any) -> int:
    """Return the seed of a generator as an int.

    Raises:
        ValueError: it is no whole number from 0 to 2^63 - 1.
    """
    try:
        seed = operator.index(value)
    except TypeError:
        seed = -1
    if isinstance(value, bool) or not 0 <= seed < 2**63:
        raise ValueError(
            f"{owner}: seed must be at least 0 and below 2^63, a whole number, got {shown(value)}; choose another"
        )
    return seed


def check_instance(owner: str, name: str, value: Any, kind: type, example: str) -> None:
    """Raise ValueError unless an argument is an object of a class: neither the class itself, nor a name of one.

    Args:
        owner: what takes it, for the message.
        name: the argument.
        value: what was passed.
        kind: the class.
        example: how to make such an object.
    """
    if not isinstance(value, kind):
        remedy = next((call_of(known) for known in _kinds(kind) if value is known or _names(value, known)), example)
        raise ValueError(f"{owner}: {name} must be an object of {kind.__name__}, got {shown(value)}; pass {remedy}")


def check_function(owner: str, name: str, value: Any, example: str) -> None:
    """Raise ValueError unless an argument can be called and is no class: an object, or a function.

    Args:
        owner: what takes it, for the message.
        name: the argument.
        value: what was passed.
        example: how to make such an object.
    """
    if inspect.isclass(value) or not callable(value):
        remedy = call_of(value) if inspect.isclass(value) else example
        raise ValueError(f"{owner}: {name} must be an object or a function, got {shown(value)}; pass {remedy}")


def _kinds(kind: type) -> Iterator[type]:
    """Yield a class and all that are derived from it."""
    yield kind
    derived: type
    for derived in kind.__subclasses__():
        yield from _kinds(derived)


def _names(value: Any, kind: type) -> bool:
    """Return whether a text names a class: its name or the end of it, such as torus for FlatTorus."""
    return isinstance(value, str) and bool(value) and kind.__name__.casefold().endswith(value.casefold())


def call_of(kind: type) -> str:
    """Return how an object of a class is made: ``Sphere(2)``, where a whole number is all that it takes."""
    needed = required(kind)
    alone = len(needed) == 1 and needed[0].annotation in (int, "int")
    return f"{kind.__name__}({'2' if alone else ', '.join(p.name for p in needed)})"


def required(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the arguments that a function or a class cannot do without."""
    parameters = inspect.signature(function).parameters.values()
    return [p for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]


def shown(value: Any) -> str:
    """Return what a value is in a few words, on one line, for messages."""
    if inspect.isclass(value):
        return f"the class {value.__name__}"
    if inspect.ismodule(value):
        return f"the module {value.__name__}"
    if inspect.isroutine(value):
        return f"function {value.__name__}"
    text = " ".join(repr(value).split())
    kind = type(value).__name__
    return text if len(text) <= 60 and not hasattr(value, "shape") else f"{kind} {text[:60]}"
