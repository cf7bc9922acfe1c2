"""Tensors with an entry for each sample."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Samples:
    """What is known of ``n`` samples: tensors ``(n, ...)``, tables of them ``(rows, n, ...)``, others of this kind.

    A field is None for all samples or for none of them.
    """

    tables: ClassVar[tuple[str, ...]] = ()
    """Names of the fields that are tables."""

    def take(self, rows: Tensor) -> Self:
        """Return some of the samples."""
        return self._mapped(lambda value, axis: value.index_select(axis, rows))

    def where(self, accept: Tensor, otherwise: Self) -> Self:
        """Return these samples where ``accept`` ``(n)`` is true, others elsewhere."""

        def chosen(value: Tensor, axis: int, other: Tensor) -> Tensor:
            return value if value is other else torch.where(lift(accept, value, axis), value, other)

        return self._mapped(chosen, otherwise)

    def _mapped(self, function: Callable[..., Tensor], *others: Self) -> Self:
        def result(name: str, axis: int) -> Any:
            value = getattr(self, name)
            beside = [getattr(other, name) for other in others]
            if value is None or any(other is None for other in beside):
                return None
            if isinstance(value, Samples):
                return value._mapped(function, *beside)
            return function(value, axis, *beside)

        return type(self)(**{f.name: result(f.name, int(f.name in self.tables)) for f in fields(self)})


def lift(s: Tensor, like: Tensor, axis: int = 0) -> Tensor:
    """Append axes of length one to numbers ``(n)`` or ``()``, so that they multiply ``like``, whose ``axis`` is n."""
    return s[(..., *(None,) * (like.ndim - 1 - axis))]


def number(value: float, like: Tensor) -> Tensor:
    """Return a number as a tensor ``()`` of the dtype and on the device of another."""
    return torch.full((), value, dtype=like.dtype, device=like.device)


def either(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """Return which samples are in ``a`` or in ``b``, None for none."""
    if a is None or b is None:
        return b if a is None else a
    return a | b


def combine(weights: Sequence[float], terms: Sequence[Tensor]) -> Tensor:
    """Return the sum of ``weights[i] * terms[i]``, leaving out zero weights."""
    total = None
    for weight, term in zip(weights, terms, strict=False):
        if weight != 0:
            total = weight * term if total is None else torch.add(total, term, alpha=weight)
    return torch.zeros_like(terms[0]) if total is None else total
