"""Derivatives of maps of a point and a second argument, along several directions at once."""

from collections.abc import Callable

import torch
from torch import Tensor


def differential(
    function: Callable[[Tensor, Tensor], Tensor], x: Tensor, a: Tensor, dx: Tensor, da: Tensor
) -> tuple[Tensor, Tensor]:
    """Return ``function(x, a)`` and its derivatives, in forward mode, which composes with ``backward``.

    Args:
        function: of tensors ``(*batch, *event_shape)``, of each entry of a batch alone.
        x: the first argument.
        a: the second.
        dx: changes of the first, with any number of axes before those of ``x``.
        da: changes of the second, likewise.

    Returns:
        The value, in the shape of ``x`` and ``a`` together, and its derivatives, in that of all four.
    """
    dx, da = torch.broadcast_tensors(dx, da)
    shape = torch.broadcast_shapes(x.shape, a.shape)
    full = torch.broadcast_shapes(shape, dx.shape)
    stacked = full[: len(full) - len(shape)]
    inner = full[len(stacked) :]
    # Contiguous, because forward mode refuses tensors whose entries share memory; with one more axis, because it takes
    # plain numbers for double precision where what one point gives has no axes.
    at = tuple(p.expand(1, *inner).contiguous() for p in (x, a))
    along = tuple(d.expand(full).reshape(-1, 1, *inner).contiguous() for d in (dx, da))

    def one(*directions: Tensor) -> tuple[Tensor, Tensor]:
        value, change = torch.func.jvp(function, at, directions)[:2]
        return value, change

    if len(along[0]) == 1:
        value, change = one(*(d[0] for d in along))
    else:
        value, change = torch.func.vmap(one, out_dims=(None, 0))(*along)  # type: ignore[arg-type]
    value = value[0] if inner == shape else function(x, a)
    return value, change.reshape(*stacked, *change.shape[change.ndim - len(inner) :])
