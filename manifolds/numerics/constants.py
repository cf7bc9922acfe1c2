"""Tensors that a module computes with but does not learn."""

from collections.abc import Callable
from typing import Self

from torch import Tensor, nn


class Constants(nn.Module):
    """A module whose tensors follow it to a device, and stay in float64 whatever dtype it is cast to.

    They are made from the constructor's arguments, so they are not part of the state that is saved.
    """

    def constant(self, name: str, value: Tensor) -> None:
        """Keep ``value``, in float64, as the attribute ``name``."""
        self.register_buffer(name, value.double(), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        exact = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, value in exact.items():
            moved = self._buffers[name]
            if value is not None and moved is not None and moved.dtype != value.dtype:
                self._buffers[name] = value.to(moved.device)
        return self
