"""What a training step minimises."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from rfm.sources import Source


class Objective(Protocol):
    """A loss for `rfm.fit` in place of flow matching; `rfm.MaximumLikelihood` is one.

    A run is resumed only with the same: a function of the same code, or an object of equal attributes.
    """

    def __call__(
        self,
        field: Callable[..., Tensor],
        source: Source,
        x_0: Tensor,
        x_1: Tensor,
        t: Tensor,
        *,
        generator: torch.Generator | None = None,
        **condition: Any,
    ) -> Tensor:
        """Return the loss of a batch, a scalar.

        Args:
            field: the velocity field in training.
            source: the distribution at time 0.
            x_0: draws from it ``(n, *event_shape)``, coupled to the data.
            x_1: data points, the same shape.
            t: times ``(n)``.
            generator: source of randomness, seeded by the run and the step.
            condition: the points' ``condition``, where there is one, for the field.
        """
        ...
