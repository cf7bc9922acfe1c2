"""Large batches a block at a time, for maps that hold much more than their arguments while they work."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

BLOCK = 1 << 22
"""Numbers that a map may hold at a time, so that they stay in a processor's caches."""


def in_blocks(
    function: Callable[..., tuple[Tensor, ...]], batch: torch.Size, held: int, *arguments: Tensor
) -> tuple[Tensor, ...]:
    """Return ``function(*arguments)``, called for as many samples at a time as fit into `BLOCK`.

    Compiled, it is called once: the compiler plans memory by itself, and would unroll the blocks.

    Args:
        function: works on each sample alone; returns tensors that begin with the batch axes.
        batch: the batch axes, with which every argument begins.
        held: how many numbers the function holds for one sample, about.
        arguments: what is split.
    """
    rows = max(1, BLOCK // held)
    if torch.compiler.is_compiling() or math.prod(batch) <= rows:
        return function(*arguments)
    split = (a.reshape(-1, *a.shape[len(batch) :]).split(rows) for a in arguments)
    parts = zip(*(function(*block) for block in zip(*split, strict=True)), strict=True)
    return tuple(torch.cat(part).unflatten(0, batch) for part in parts)
