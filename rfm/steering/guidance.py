"""Guidance towards a condition, without a classifier."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from rfm.field import Field, as_field
from rfm.steering.steering import Steering


class Guidance(Steering):
    """The field ``(1 - w) v(x, t) + w v(x, t, condition)``, tangent as both velocities are.

    Ho & Salimans, Classifier-free diffusion guidance, 2022, arXiv:2207.12598, in the tangent space.

    Args:
        weight: w; 1 is the conditional field, 0 the unconditional one.
    """

    name = "guidance"

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def check(self, where: str, field: Field, condition: Tensor | None) -> None:
        if condition is None:
            raise ValueError(f"{where}: guidance needs a condition to guide towards; pass condition=")
        if field.needs_condition:
            raise ValueError(
                f"{where}: guidance needs a velocity that knows no condition, which a field behind an encoder does not "
                "have; use guidance=1"
            )

    def applied_to(self, field: Callable[..., Tensor]) -> Field:
        return _Guided(as_field(field), self.weight)


class _Guided(Field):
    def __init__(self, field: Field, weight: float) -> None:
        self.field, self.weight = field, weight

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:  # type: ignore[override]
        if self.weight == 0:
            return self.field(x, t)
        return torch.lerp(*self.field.without_and_with(x, t, condition), self.weight)

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        yield from self.field.named_modules()
