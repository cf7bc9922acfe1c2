"""What draws from a posterior."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from rfm.posterior.draws import PosteriorDraws
from rfm.posterior.target import SourceTarget


@runtime_checkable
class Sampler(Protocol):
    """A method that draws from a posterior: `Importance`, `Chains`, `Tempering`."""

    def run(self, target: SourceTarget, n: int, generator: torch.Generator | None, like: Tensor) -> PosteriorDraws:
        """Return at least ``n`` draws, weighted, with their worth: all that the method has.

        Args:
            target: the posterior on the source.
            n: how many are to be chosen from them.
            generator: source of randomness, on the device of ``like``.
            like: a tensor of the dtype and device of points.

        Raises:
            ValueError: the likelihood is zero at all draws of the source that were tried.
        """
        ...
