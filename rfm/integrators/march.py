"""A batch that takes the same steps, on its way: where the samples are, and which have failed."""

import math

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.integrators.per_sample import lift
from rfm.integrators.solution import LEFT_DOMAIN, NOT_FINITE, SUCCEEDED


class March:
    """Where ``n`` samples are, and where they were at output times.

    Args:
        manifold: where the points live.
        x: where the samples start ``(n, *event_shape)``.
    """

    def __init__(self, manifold: Manifold, x: Tensor) -> None:
        self.manifold, self.x = manifold, x
        self.status = torch.where(_finite(x), SUCCEEDED, NOT_FINITE)
        self.outputs = [x]
        self.statuses = [self.status]

    def move(self, x: Tensor, outside: Tensor | None) -> None:
        """Go on to ``x``; samples that are outside ``(n)`` wait where they were last seen, and have failed."""
        if outside is not None:
            # The field is evaluated at points only.
            self.status = torch.where(outside & (self.status == SUCCEEDED), LEFT_DOMAIN, self.status)
            x = torch.where(self.manifold.lift(outside), self.x, x)
        self.x = x

    def output(self, *integrands: Tensor) -> None:
        """Note where the samples are; those have failed whose points, or what is integrated, are not finite."""
        finite = _finite(self.x)
        for q in integrands:
            finite = finite & _finite(q)
        self.status = torch.where((self.status == SUCCEEDED) & ~finite, NOT_FINITE, self.status)
        self.statuses.append(self.status)
        self.outputs.append(self.masked(self.x))

    def masked(self, values: Tensor, output: int = -1) -> Tensor:
        """Return values ``(n, ...)`` with NaN for the samples that had failed by an output time, by the last one."""
        return torch.where(lift(self.statuses[output] != SUCCEEDED, values), math.nan, values)


def _finite(x: Tensor) -> Tensor:
    return torch.isfinite(x.flatten(1) if x.ndim > 1 else x[:, None]).all(1)
