"""PyTorch's forward and reverse derivatives, with the types that they have here."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def jvp(function: Callable[..., Any], at: tuple[Tensor, ...], along: tuple[Tensor, ...]) -> tuple[Any, Any]:
    """Return a function's value at a point and its derivative along a direction."""
    result = torch.func.jvp(function, at, along)
    return result[0], result[1]


def vjp(function: Callable[..., Any], *at: Tensor) -> tuple[Any, Callable[[Tensor], tuple[Tensor, ...]]]:
    """Return a function's value at a point and the map from covectors there to gradients."""
    result = torch.func.vjp(function, *at)
    return result[0], result[1]
