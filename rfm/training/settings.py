"""How a network is trained: what decides neither the model nor what it is trained to do."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from manifolds.arguments import number

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Training:
    """How `rfm.fit` and `rfm.fit_stream` train, where their defaults are not wanted.

    Args:
        learning_rate: peak learning rate of AdamW; it warms up over 100 steps and falls to zero along a cosine. By
            default that of the objective: 3e-3, and 5e-4 for maximum likelihood.
        max_seconds: a cap on the training time, all of it where a run is resumed; ``Flow.stopped`` says whether it was
            reached. A run with a cap does not repeat exactly.
        fabric: a Lightning Fabric of your own, for precision or other strategies, instead of ``device``. "bf16-mixed",
            and "16-mixed" on a GPU, run the network's layers low, "bf16-true" keeps its weights low too, "64-true"
            makes all float64; geometry, points and times are never in less than float32.
        force: replace a flow that ``out`` holds already.
        capture: on one GPU, replay the step as one CUDA graph, several times as fast where kernels are small; one that
            waits for the CPU, as for an exact coupling, is run plainly. By default `fit` does so where the objective
            allows it, and `fit_stream` does not, since it does not know what makes its batches: True is for those made
            on the GPU alone, where Python code is not run again. False is for a field whose Python code does not do the
            same at every step.

    Raises:
        ValueError: for a rate or a cap that is not a number above 0, or a precision that cannot be trained in.
    """

    learning_rate: float | None = None
    max_seconds: float | None = None
    fabric: "Fabric | None" = None
    force: bool = False
    capture: bool | None = None

    def __post_init__(self) -> None:
        if self.learning_rate is not None:
            object.__setattr__(self, "learning_rate", _above_zero("learning_rate", self.learning_rate))
        if self.max_seconds is not None:
            object.__setattr__(self, "max_seconds", _above_zero("max_seconds", self.max_seconds))
        if self.precision not in _PRECISIONS:
            low = self.precision == "16-true"
            fault = "in float16 small gradients and their squares are 0" if low else "it replaces layers"
            raise ValueError(
                f"Training: precision {self.precision!r} cannot be trained in ({fault}); use 'bf16-mixed', or "
                "'16-mixed' on a GPU"
            )

    @property
    def precision(self) -> str:
        """The name of the precision that a network is trained in."""
        return "32-true" if self.fabric is None else str(self.fabric.strategy.precision.precision)

    def converted(self, field: nn.Module) -> nn.Module:
        """Return a network with the dtype of weights that the precision asks for."""
        return field if self.fabric is None else self.fabric.strategy.precision.convert_module(field)


_PRECISIONS = ("32-true", "64-true", "bf16-mixed", "16-mixed", "bf16-true")


def _above_zero(name: str, value: float) -> float:
    own = number("Training", name, value)
    if not 0 < own < math.inf:
        raise ValueError(f"Training: {name} must be a number above 0, got {value}")
    return own
