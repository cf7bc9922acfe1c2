"""Training and evaluation mode: dropout and batch normalisation act in the first only."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import nn

F = TypeVar("F", bound=Callable[..., Any])


@contextmanager
def in_evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put a module and all its parts in evaluation mode; each is in its own again afterwards."""
    with _modes_restored(module):
        module.eval()
        yield


def evaluating(method: F) -> F:
    """Decorate a method of a module: it runs in evaluation mode, and records nothing for gradients."""

    @functools.wraps(method)
    def evaluated(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad(), in_evaluation_mode(module):
            return method(module, *args, **kwargs)

    return cast(F, evaluated)


@contextmanager
def in_training_mode(module: nn.Module) -> Iterator[None]:
    """Put a module in training mode; each part is in its own again afterwards.

    Parts of a module in training mode that are held in evaluation mode, as frozen ones are, stay there.
    """
    with _modes_restored(module):
        if not module.training:
            module.train()
        yield


@contextmanager
def _modes_restored(module: nn.Module) -> Iterator[None]:
    modes = [(part, part.training) for part in module.modules()]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
