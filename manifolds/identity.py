"""Whether two objects are the same, part by part."""

from collections.abc import Mapping, Sequence, Set
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn


def same(a: Any, b: Any) -> bool:
    """Return whether two objects are of one class and hold the same: numbers, tensors, functions, objects.

    Tensors are the same if their values are, on whatever device and in whatever dtype; functions, if they have the same
    code and what they enclose is the same. A module is what its attributes, buffers and parameters are, not its mode or
    hooks.
    """
    return _same(a, b, {})


def _same(a: Any, b: Any, compared: dict[tuple[int, int], Any]) -> bool:
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    # An object may hold itself: what is being compared already decides.
    if (pair := (id(a), id(b))) in compared:
        return True
    # With the objects, so that no other ones take over their addresses.
    compared[pair] = a, b
    match a:
        case Tensor():
            return a.shape == b.shape and torch.equal(*_common(a, b))
        case bool() | int() | float() | complex() | str() | bytes() | Set():
            return bool(a == b)
        case Mapping():
            return a.keys() == b.keys() and all(_same(a[key], b[key], compared) for key in a)
        case nn.Module():
            return _same(_state(a), _state(b), compared)
        case Sequence():
            return len(a) == len(b) and all(_same(p, q, compared) for p, q in zip(a, b, strict=True))
        case FunctionType():
            return (a.__module__, a.__code__) == (b.__module__, b.__code__) and _same(
                _enclosed(a), _enclosed(b), compared
            )
        case type():
            return False
        case MethodType():
            return a.__func__ is b.__func__ and _same(a.__self__, b.__self__, compared)
    try:
        # What a copy would be made from: attributes, arguments, bytes.
        parts = a.__reduce_ex__(2), b.__reduce_ex__(2)
    except TypeError:
        return False
    return _same(*parts, compared)


def _common(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return both on the CPU and in the dtype that they promote to."""
    dtype = torch.promote_types(a.dtype, b.dtype)
    return a.detach().to("cpu", dtype), b.detach().to("cpu", dtype)


def _state(module: nn.Module) -> dict[str, Any]:
    """Return the attributes of a module, less the mode and the hooks."""
    parts = {"_parameters", "_buffers", "_modules"}
    bare = vars(nn.Module()).keys() - parts
    return {name: value for name, value in vars(module).items() if name not in bare}


def _enclosed(function: FunctionType) -> list[Any]:
    """Return what a function takes from where it was defined: defaults and enclosed values."""
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    return [function.__defaults__, function.__kwdefaults__, cells]
