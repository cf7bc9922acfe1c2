"""Networks in low precision: which of their parts are rounded, and which never are.

Geometry, times, conditional paths, losses and solves are in float32 or more (`manifolds.numerics.precision`). Of a
network the linear layers run in float16 or bfloat16 where the caller's ``torch.autocast`` is on, or where the weights
are of such a dtype: then the network runs under autocast to it, whoever calls it.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from manifolds.numerics.precision import LOW, from_float32

F = TypeVar("F", bound=Callable[..., Any])


def weight_of(module: nn.Module) -> Tensor | None:
    """Return the first parameter of a module, by which its precision is known; None where it has none."""
    # Five times as fast as its iterator of parameters.
    for parameter in module._parameters.values():
        if parameter is not None:
            return parameter
    for child in module._modules.values():
        if child is not None and (weight := weight_of(child)) is not None:
            return weight
    return None


def precision_of_weights(module: nn.Module) -> AbstractContextManager[Any]:
    """Return a context for calling a network: autocast to the dtype of its weights, where that is a low one."""
    weight = weight_of(module)
    if weight is None or weight.dtype not in LOW:
        return nullcontext()
    return torch.autocast(weight.device.type, dtype=weight.dtype)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Make new tensors in a dtype unless another is requested."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def in_precision_of_weights(method: F) -> F:
    """Return a method of a module that runs in `precision_of_weights`, and reads its inputs in float32 or more.

    A time near 1 is 1 in bfloat16, and coordinates lose what features of high frequency resolve.
    """

    @functools.wraps(method)
    def computed(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        with precision_of_weights(self):
            return from_float32(functools.partial(method, self), *args, **kwargs)

    return cast(F, computed)


class ExactBuffers(nn.Module):
    """A module whose own buffers stay in float32 or more where its weights are cast to less.

    Frequencies of thousands of radians and offsets of conditions would become others.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ExactBuffers":
        exact = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, value in exact.items():
            moved = self._buffers[name]
            if value is not None and moved is not None and moved.dtype in LOW:
                self._buffers[name] = value.to(moved.device)
        return self
