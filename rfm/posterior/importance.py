"""Self-normalised importance sampling: draws of the prior, weighted by their likelihood."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from manifolds.arguments import integer
from rfm.posterior.draws import PosteriorDraws, effective_size
from rfm.posterior.target import PriorDraws, SourceTarget


@dataclass(frozen=True)
class Importance:
    """Draw from the prior and keep points in proportion to their likelihood.

    Exact in the limit of many draws, for any prior with draws and any likelihood; hopeless where the posterior is a
    small part of the prior, which the effective sample size says.

    Args:
        draws: from the prior, at least; as many as draws are requested, where that is more.

    References:
        Owen, Monte Carlo theory, methods and examples, 2013, chapter 9.
    """

    draws: int = 100_000

    def __post_init__(self) -> None:
        integer("Importance", "draws", self.draws)

    def run(self, target: SourceTarget, n: int, generator: torch.Generator | None, like: Tensor) -> PosteriorDraws:
        """Return weighted draws of the prior; arguments and errors are those of `Sampler`."""
        return weighted(target, target.drawn(max(n, self.draws), generator, like))


def weighted(target: SourceTarget, prior: PriorDraws) -> PosteriorDraws:
    """Return draws of the prior, weighted by their likelihood."""
    log_w = prior.log_likelihood
    total = log_w.logsumexp(0)
    return PosteriorDraws(
        prior.x,
        log_w - total,
        f"importance sampling, {len(log_w)} draws of the prior",
        target.evaluations,
        effective_size(log_w),
        log_evidence=float(total) - math.log(len(log_w)),
    )
