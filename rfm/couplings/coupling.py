"""What a coupling is: source and data points in, pairs of them out."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from manifolds.arguments import check_instance


class Pairs(NamedTuple):
    """Points of source and data in pairs, with what belongs to the data points."""

    x_0: Tensor
    """Source points ``(n, *event_shape)``."""
    x_1: Tensor
    """The data point that each of them is led to, the same shape."""
    condition: Tensor | None = None
    """What each data point is conditional on ``(n, c)``."""


class Coupling(Protocol):
    """A way to pair the points of two batches."""

    def __call__(
        self,
        x_0: Tensor,
        x_1: Tensor,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Pairs:
        """Return as many pairs of points as are given, each data point with its own condition.

        Args:
            x_0: source points ``(n, *event_shape)``, drawn independently of the data.
            x_1: data points, the same shape. Points drawn by weight need no weights here.
            condition: what each data point is conditional on, ``(n, c)``, NaN where not known.
            generator: source of randomness, on the points' device.
        """
        ...


@dataclass(frozen=True)
class Independent:
    """The pairs as they were drawn: what training does by default."""

    def __call__(
        self,
        x_0: Tensor,
        x_1: Tensor,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Pairs:
        check_sizes("Independent", x_0, x_1)
        return Pairs(x_0, x_1, condition)


def checked_pairs(coupling: Coupling, pairs: Pairs, x_1: Tensor, condition: Tensor | None) -> Pairs:
    """Return what a coupling returned for data points and their conditions.

    Raises:
        ValueError: if they are no pairs of the same shapes.
    """
    check_instance(type(coupling).__name__, "the result", pairs, Pairs, "Pairs(x_0[index], x_1, condition)")
    shapes = [None if part is None else tuple(part.shape) for part in pairs]
    expected = [tuple(x_1.shape), tuple(x_1.shape), None if condition is None else tuple(condition.shape)]
    if shapes != expected:
        raise ValueError(
            f"{type(coupling).__name__}: the pairs must have x_0, x_1 and condition of shapes {_listed(expected)}, got "
            f"{_listed(shapes)}; return as many pairs as points are given"
        )
    return pairs


def check_sizes(owner: str, x_0: Tensor, x_1: Tensor) -> None:
    """Raise ValueError unless there is a source point for each data point."""
    if len(x_0) != len(x_1):
        raise ValueError(f"{owner}: needs as many sources as targets, got {len(x_0)} and {len(x_1)}; draw as many")


def _listed(shapes: list[tuple[int, ...] | None]) -> str:
    return ", ".join(map(str, shapes))
