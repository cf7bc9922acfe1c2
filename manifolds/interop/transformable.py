"""Functions of batches that work under `torch.func`, whatever they do inside.

Libraries that were not written for it branch on values, loop over a batch or assign in place; `torch.func.vmap` refuses
that. But a function of a batch needs no help from vmap: one more axis is a larger batch.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

BatchFunction = Callable[..., Tensor]
"""Takes tensors ``(n, ...)`` and returns one ``(n, ...)``, row by row."""


def apply_to_rows(function: BatchFunction, *rows: Tensor) -> Tensor:
    """Return ``function(*rows)``, fit for vmap, forward- and reverse-mode derivatives of any order.

    Args:
        function: row by row; under `torch.func` it only ever sees ordinary tensors. Its derivatives are those that
            `torch.func.jvp` and `torch.func.vjp` of it give: an operation that has none raises.
        rows: tensors that share their first axis.
    """
    return _Rows.apply(function, *rows)  # type: ignore[no-untyped-call]


class _Rows(torch.autograd.Function):
    """The rules; derivatives are functions of rows too, so they come back here."""

    @staticmethod
    def forward(function: BatchFunction, *rows: Tensor) -> Tensor:
        result = function(*rows).detach()
        # An input returned as it is would be taken for one modified in place.
        return result.clone() if any(result.data_ptr() == row.data_ptr() for row in rows) else result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.function = inputs[0]
        ctx.save_for_backward(*inputs[1:])
        ctx.save_for_forward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows = ctx.saved_tensors

        def pullback(i: int) -> BatchFunction:
            return lambda g, *at: torch.func.vjp(ctx.function, *at)[1](g)[i]

        needed = ctx.needs_input_grad[1:]
        return None, *(apply_to_rows(pullback(i), grad, *rows) if needed[i] else None for i in range(len(rows)))

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> Tensor:
        rows, function = ctx.saved_tensors, ctx.function
        n = len(rows)

        def pushforward(*both: Tensor) -> Tensor:
            return torch.func.jvp(function, both[:n], both[n:])[1]

        # Forward mode refuses tensors whose entries share memory.
        along = (torch.zeros_like(a) if d is None else d.contiguous() for a, d in zip(rows, tangents, strict=True))
        return apply_to_rows(pushforward, *rows, *along)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], function: BatchFunction, *rows: Tensor) -> tuple[Tensor, int]:
        size = info.batch_size
        stacked = (
            row.unsqueeze(0).expand(size, *row.shape) if dim is None else row.movedim(dim, 0)
            for row, dim in zip(rows, in_dims[1:], strict=True)
        )
        result = apply_to_rows(function, *(a.flatten(0, 1).contiguous() for a in stacked))
        return result.unflatten(0, (size, -1)), 0
