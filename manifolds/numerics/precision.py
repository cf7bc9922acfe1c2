"""Geometry in float32 or more, whatever precision the networks around it run in.

A point in bfloat16 is off its manifold by a thousandth, and what maps subtract is often smaller: under
``torch.autocast``, or given float16 or bfloat16, they would lose every digit. So the public methods of a class that is
`FullPrecision`, built-in or a user's own, switch autocast off and compute in float32 where they are given less:

======================================= ================================================================
inputs                                  result
======================================= ================================================================
all in float16, or all in bfloat16      computed in float32, rounded to the dtype of the inputs
some in float16 or bfloat16             computed and returned in the dtype that all promote to
float32 or float64, under autocast      as without autocast
======================================= ================================================================

Tensors without axes, such as one time for all points, do not decide the dtype, as in torch's own promotion.
Reverse-mode derivatives are as exact where ``backward`` is called outside of the autocast region, as torch asks anyway.
"""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import FunctionType
from typing import Any, Self, TypeVar, cast

import torch
from torch import Tensor, nn

F = TypeVar("F", bound=Callable[..., Any])

LOW = frozenset({torch.float16, torch.bfloat16})
"""The dtypes that are good enough for a network's layers alone."""

any_autocast = torch._C._is_any_autocast_enabled
"""Returns whether autocast is on, for whichever device."""

_F16, _BF16 = torch.float16, torch.bfloat16


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """Return float32 in place of a dtype of fewer digits."""
    return torch.float32 if dtype in LOW else dtype


def full_precision(device: torch.device | str) -> AbstractContextManager[Any]:
    """Return a context in which autocast is off on a device."""
    kind = torch.device(device).type
    needed = any_autocast() and torch.amp.is_autocast_available(kind)
    return torch.autocast(kind, enabled=False) if needed else nullcontext()


def in_full_precision(function: F) -> F:
    """Return the function, or method, with autocast off and inputs of at least float32; see the module's table."""

    @functools.wraps(function)
    def computed(*args: Any, **kwargs: Any) -> Any:
        if any_autocast() or any(map(is_low, args)) or any(map(is_low, kwargs.values())):
            return _computed(function, args, kwargs)
        return function(*args, **kwargs)

    return cast(F, computed)


def _method_in_full_precision(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return the same as `in_full_precision`, in a third of a microsecond: maps are called in inner loops."""

    @functools.wraps(method)
    def computed(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not any_autocast():
            for value in args:
                # By identity: not all that is passed can be hashed.
                if (dtype := getattr(value, "dtype", value)) is _F16 or dtype is _BF16:
                    break
            else:
                if not kwargs:
                    return method(self, *args)
                if not any(map(is_low, kwargs.values())):
                    return method(self, *args, **kwargs)
        return _computed(functools.partial(method, self), args, kwargs)

    return computed


class FullPrecision:
    """A class whose public methods compute in float32 or more, those of its subclasses included.

    All that a class body defines by ``def`` counts, class methods too, except properties and names with an underscore.
    """

    in_any_precision: frozenset[str] = frozenset({"extra_repr", "forward"})
    """Methods that are left as they are: they do not compute, or mind the dtype that they are given."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, method in list(vars(cls).items()):
            if name[0] == "_" or name in cls.in_any_precision:
                continue
            if isinstance(method, FunctionType):
                setattr(cls, name, _method_in_full_precision(method))
            elif isinstance(method, classmethod):
                setattr(cls, name, classmethod(_method_in_full_precision(method.__func__)))


class FullPrecisionModule(FullPrecision, nn.Module):
    """A module that is `FullPrecision`, whose tensors are not rounded below float32 with the network that holds it."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(functools.partial(_not_rounded, fn), recurse)  # type: ignore[no-untyped-call]
        return self


def _not_rounded(fn: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
    moved = fn(tensor)
    if moved.dtype in LOW and tensor.is_floating_point() and tensor.dtype not in LOW:
        return tensor.to(moved.device, torch.promote_types(tensor.dtype, torch.float32))
    return moved


def _computed(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    with full_precision(_device([*args, *kwargs.values()])):
        return from_float32(function, *args, **kwargs)


def from_float32(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return ``function(*args, **kwargs)``, computed from inputs of at least float32, as the module's table says."""
    given = [*args, *kwargs.values()]
    if not any(map(is_low, given)):
        return function(*args, **kwargs)
    known = [dtype for value in given if (dtype := _dtype(value)) is not None]
    with_axes = [dtype for value in given if getattr(value, "ndim", 1) and (dtype := _dtype(value)) is not None]
    dtype = functools.reduce(torch.promote_types, with_axes or known)
    working = at_least_float32(dtype)
    args = tuple(_raised(value, working) for value in args)
    kwargs = {name: _raised(value, working) for name, value in kwargs.items()}
    result = function(*args, **kwargs)
    return _rounded(result, dtype) if dtype in LOW else result


def is_low(value: Any) -> bool:
    """Return whether it is a tensor in float16 or bfloat16, or one of these dtypes."""
    return _dtype(value) in LOW


def _dtype(value: Any) -> torch.dtype | None:
    """Return the dtype of a tensor of real numbers, or one that a draw is asked for; None for all else."""
    dtype = getattr(value, "dtype", value)
    return dtype if isinstance(dtype, torch.dtype) and dtype.is_floating_point else None


def _device(values: list[Any]) -> torch.device | str:
    """Return where the computation runs: the device of a tensor or generator, or the one that a draw is asked for."""
    for value in values:
        device = getattr(value, "device", value)
        if isinstance(device, torch.device):
            return device
    return next((value for value in values if isinstance(value, str)), torch.get_default_device())


def _raised(value: Any, dtype: torch.dtype) -> Any:
    if not is_low(value):
        return value
    return value.to(dtype) if isinstance(value, Tensor) else dtype


def _rounded(result: Any, dtype: torch.dtype) -> Any:
    """Return a result, or a tuple or list of them, with its real numbers in ``dtype``."""
    if isinstance(result, Tensor):
        return result.to(dtype) if result.is_floating_point() else result
    if isinstance(result, tuple | list):
        parts = [_rounded(part, dtype) for part in result]
        return type(result)(*parts) if hasattr(result, "_fields") else type(result)(parts)
    return result
