"""The exponential moving average of a network's weights, which a run validates and returns."""

import copy

import torch
from torch import Tensor, nn

from manifolds.numerics.precision import LOW, at_least_float32

_EMA_DECAY = 0.998
_EMA_EVERY, _EMA_LONG = 4, 1000
"""In a run of at least this many steps the weights are averaged every so many: they hardly move in between."""
_EMA_LONGEST_SHARE = 0.2
"""The weights are averaged over at most this share of a run, or a short one would remember where it began."""


class WeightAverage:
    """An average over updates, in evaluation mode, and in float32 or more: bfloat16 loses a share of a thousandth.

    Args:
        field: the network, on the device that it is trained on.
        decay: of what was averaged before, at each update.
    """

    def __init__(self, field: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        # It is never trained.
        self.module = copy.deepcopy(field).eval()
        low = [p for p in self.module.parameters() if p.dtype in LOW]
        self._rounded = copy.deepcopy(field).eval() if low else None
        for parameter in low:
            parameter.data = parameter.data.to(at_least_float32(parameter.dtype))

    @torch.no_grad()
    def update(self, field: nn.Module) -> None:
        """Take in the weights of ``field``; the first ones as they are. Buffers are those of the field."""
        own: list[Tensor] = list(self.module.parameters())
        new: list[Tensor] = list(field.parameters())
        if self.updates:
            current: list[Tensor] = [b.detach().to(a.dtype) for a, b in zip(own, new, strict=True)]
            torch._foreach_lerp_(own, current, 1 - self.decay)
        else:
            _copy(own, new)
        _copy(list(self.module.buffers()), list(field.buffers()))
        self.updates += 1

    def in_precision_of_field(self) -> nn.Module:
        """Return the network with averaged weights, rounded to the dtypes that the field keeps its own in."""
        if self._rounded is None:
            return self.module
        self._rounded.load_state_dict(self.module.state_dict())
        return self._rounded


def averaging(steps: int) -> tuple[int, float]:
    """Return how often the average of the weights is updated, in steps, and its decay each time."""
    every = _EMA_EVERY if steps >= _EMA_LONG else 1
    return every, max(0.0, min(_EMA_DECAY, 1 - 1 / (_EMA_LONGEST_SHARE * steps))) ** every


def _copy(to: list[Tensor], values: list[Tensor]) -> None:
    for a, b in zip(to, values, strict=True):
        a.detach().copy_(b)
