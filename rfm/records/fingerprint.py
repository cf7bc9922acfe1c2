"""Hashes of settings, which distinguish a run from another one, in this process or a later one.

An object counts by its class and its attributes, a function by its syntax tree and the values that it encloses, a
tensor by its bytes. No memory address counts, nor does what a function of another module does: that goes by its name.
Another version of Python finds the same, but for functions without source, which count by their bytecode.
"""

import functools
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from enum import Enum
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rfm.records.syntax import syntax


def fingerprint(*values: Any) -> str:
    """Return a hash of all that the values hold, 32 hexadecimal digits."""
    return _Describer(weights=True).digest(list(values))[:32]


def architecture(field: nn.Module) -> str:
    """Return a hash of all that a module holds but its weights, of which the shapes count.

    A checkpoint brings the weights, so a resumed run need not begin with those that the first one drew.
    """
    return _Describer(weights=False).digest(field)[:32]


class _Describer:
    """Turns values into JSON data; each object into a hash, once, so that one that holds itself has an end."""

    def __init__(self, weights: bool) -> None:
        self.weights = weights
        # With the objects, so that no other one takes over an address.
        self.known: dict[int, tuple[Any, str]] = {}

    def digest(self, value: Any) -> str:
        if id(value) not in self.known:
            self.known[id(value)] = value, "inside itself"
            text = json.dumps(self.content(value))
            self.known[id(value)] = value, hashlib.sha256(text.encode()).hexdigest()
        return self.known[id(value)][1]

    def content(self, value: Any) -> Any:
        match value:
            case None | bool() | int() | float() | complex() | str() | bytes():
                return repr(value)
            case Tensor() | np.ndarray():
                return self.numbers(value)
            case Mapping():
                return ["mapping", *sorted([self.digest(k), self.digest(v)] for k, v in value.items())]
            case Set():
                return ["set", *sorted(map(self.digest, value))]
            case CodeType():
                return syntax(value) or [value.co_code.hex(), list(value.co_names), *map(self.digest, value.co_consts)]
            case FunctionType():
                return ["function", *map(self.digest, _parts(value))]
            case MethodType():
                return ["method", self.digest(value.__func__), self.digest(value.__self__)]
            case functools.partial():
                return ["partial", *map(self.digest, (value.func, value.args, value.keywords))]
            case type() | BuiltinFunctionType():
                return f"{value.__module__}.{value.__qualname__}"
            case ModuleType():
                return value.__name__
            case Enum():
                return f"{self.content(type(value))}.{value.name}"
            case os.PathLike():
                # What else a path holds is kept from earlier questions, and is another thing in each version of Python.
                return [self.content(type(value)), self.digest(os.fspath(value))]
            case Sequence() if not isinstance(value, nn.Module):
                return ["sequence", *map(self.digest, value)]
        return self.instance(value)

    def numbers(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            flat = value.detach().cpu().contiguous().reshape(-1)
            data = flat.view(torch.uint8).numpy().tobytes() if len(flat) else b""
        elif value.dtype.hasobject:
            return [list(value.shape), self.digest(value.tolist())]
        else:
            data = value.tobytes()
        return [str(value.dtype), list(value.shape), hashlib.sha256(data).hexdigest()]

    def instance(self, value: Any) -> Any:
        value = getattr(value, "_orig_mod", value)  # what torch.compile wraps
        state = _module_state(value, self.weights) if isinstance(value, nn.Module) else object.__getstate__(value)
        # An object without attributes is identified by its text alone: a dtype, a path.
        content = self.digest(state) if state else re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))
        return [f"{type(value).__module__}.{type(value).__qualname__}", content]


def _module_state(module: nn.Module, weights: bool) -> dict[str, Any]:
    """Return the attributes of a module; hooks are numbered by the process, and training mode comes and goes."""
    state = {k: v for k, v in vars(module).items() if k != "training" and not re.fullmatch(r"_.*_hooks(_.*)?", k)}
    if not weights:
        for kind in ("_parameters", "_buffers"):
            transient = state["_non_persistent_buffers_set"]
            state[kind] = {k: v if k in transient or v is None else [*v.shape, v.dtype] for k, v in state[kind].items()}
    return state


def _parts(function: FunctionType) -> Iterator[Any]:
    """Yield what decides the value of a function: code, defaults, enclosed values, values and functions beside it."""
    yield from (function.__code__, function.__defaults__, function.__kwdefaults__)
    yield [cell.cell_contents for cell in function.__closure__ or ()]
    for name in sorted(_names(function.__code__)):
        value = function.__globals__.get(name)
        if isinstance(value, bool | int | float | str | Tensor) or (
            isinstance(value, FunctionType) and value.__module__ == function.__module__
        ):
            yield name, value


def _names(code: CodeType) -> set[str]:
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*inner)
