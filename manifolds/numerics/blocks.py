"""Large batches a block at a time, for maps that hold much more than their arguments while they work."""

import math
from collections.abc import Callable
from typing import TypeVar, cast

import torch
from torch import Tensor

Results = TypeVar("Results", bound=tuple[Tensor, ...])

BLOCK = 1 << 22
"""Numbers that a map may hold at a time: few enough for a cache, so many that calls cost little beside arithmetic."""


def in_blocks(function: Callable[..., Results], batch: torch.Size, held: int, *arguments: Tensor) -> Results:
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
    return cast(Results, tuple(torch.cat(part).unflatten(0, batch) for part in parts))
