"""How a network is trained: what decides neither the model nor what it is trained to do."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from manifolds.arguments import integer, number

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_WARM_UP_STEPS = 100


@dataclass(frozen=True)
class Training:
    """How `rfm.fit` and `rfm.fit_stream` train, where the defaults do not serve.

    Args:
        learning_rate: peak learning rate of AdamW; it warms up over 100 steps and falls to zero along a cosine. By
            default that of the objective: 3e-3, and 5e-4 for maximum likelihood.
        max_seconds: a cap on the training time, all of it where a run is resumed; ``Flow.stopped`` says whether it was
            reached. A run with a cap does not repeat exactly. The refinement that `rfm.fit` ends with is not in it; how
            long that took, the last record of ``Flow.history`` says.
        fabric: a Lightning Fabric of your own, for precision or other strategies, instead of ``device``. "bf16-mixed",
            and "16-mixed" on a GPU, run the network's layers low, "bf16-true" keeps its weights low too, "64-true"
            makes all float64; geometry, points and times are never in less than float32.
        force: replace a flow that ``out`` holds already.
        capture: on one GPU, replay the step as one CUDA graph, several times as fast where kernels are small; one that
            waits for the CPU, as for an exact coupling, is run plainly. By default `fit` does so where the objective
            allows it, and `fit_stream` does not, since it does not know what makes its batches: True is for those made
            on the GPU alone, where Python code is not run again. False is for a field whose Python code does not do the
            same at every step.
        validations: how many there are during the run, spread evenly; each writes a checkpoint.
        validate_start: validate the weights before the first step too, so that a field which was trained before keeps
            them where no step after is better.
        patience: training stops when so many validations have passed without a better one.
        max_gradient_norm: gradients longer than this are shortened to it, so that an outlier spoils no weights.
        floor: at the end, note in the last record of ``Flow.history`` the least loss that any field could have on the
            training points, ``loss_floor``, and how far the field's lies above it, ``loss_above_floor``; where that is
            known in closed form, see `rfm.marginal_velocity`. It takes 256 conditional densities for each training
            point: from a second for 4,000 on a sphere to a minute on positive definite matrices.
        clock: returns the seconds that ``max_seconds`` caps: those on the clock by default, ``time.process_time`` for
            those that the processor worked.

    Raises:
        ValueError: for a rate, a cap, a norm or a number of validations that is not above 0, or a precision that cannot
            be trained in.
    """

    learning_rate: float | None = None
    max_seconds: float | None = None
    fabric: "Fabric | None" = None
    force: bool = False
    capture: bool | None = None
    validations: int = 16
    validate_start: bool = False
    patience: int = 8
    max_gradient_norm: float = 10.0
    floor: bool = False
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_gradient_norm", _above_zero("max_gradient_norm", self.max_gradient_norm))
        for name in ("validations", "patience"):
            object.__setattr__(self, name, integer("Training", name, getattr(self, name)))
        for name in ("learning_rate", "max_seconds"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _above_zero(name, getattr(self, name)))
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

    def budget(self, steps: int, batch_size: int, seed: int, learning_rate: float) -> "Budget":
        """Return how long to train, for so many steps of batches of that size, by default at that rate."""
        return Budget(
            steps,
            batch_size,
            learning_rate if self.learning_rate is None else self.learning_rate,
            seed,
            self.max_seconds,
            self.validations,
            self.patience,
            self.max_gradient_norm,
        )

    def converted(self, field: nn.Module) -> nn.Module:
        """Return a network with the dtype of weights that the precision requires."""
        return field if self.fabric is None else self.fabric.strategy.precision.convert_module(field)


@dataclass(frozen=True)
class Budget:
    """How long to train, and how.

    Args:
        steps: optimiser steps.
        batch_size: pairs per step, over all processes.
        learning_rate: its peak; it warms up over 100 steps and falls to zero along a cosine.
        seed: of every random draw.
        max_seconds: a cap on the time spent training, before and after a resumption together; the learning rate falls
            to zero by whichever end is nearer.
        validations: how many there are, spread evenly; each writes a checkpoint.
        patience: how many of them in turn may pass without a better one.
        max_gradient_norm: to which the gradient is shortened where it is longer.
    """

    steps: int
    batch_size: int
    learning_rate: float
    seed: int
    max_seconds: float | None = None
    validations: int = Training.validations
    patience: int = Training.patience
    max_gradient_norm: float = Training.max_gradient_norm

    def spent(self, step: int, seconds: float) -> float:
        """Return the share of the budget that is used up, at least 1 when training ends."""
        by_time = seconds / self.max_seconds if self.max_seconds else 0.0
        return max(step / self.steps, by_time)

    def learning_rate_at(self, step: int, spent: float) -> float:
        """Return the learning rate of a step."""
        warm_up = min(1.0, (step + 1) / _WARM_UP_STEPS)
        return self.learning_rate * warm_up * (1 + math.cos(math.pi * min(spent, 1.0))) / 2


_PRECISIONS = ("32-true", "64-true", "bf16-mixed", "16-mixed", "bf16-true")


def _above_zero(name: str, value: float) -> float:
    own = number("Training", name, value)
    if not 0 < own < math.inf:
        raise ValueError(f"Training: {name} must be a number above 0, got {value}")
    return own
