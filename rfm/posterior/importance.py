"""Self-normalised importance sampling: draws of the prior, weighted by their likelihood."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from manifolds.arguments import integer
from rfm.posterior.draws import PosteriorDraws, effective_size, systematic
from rfm.posterior.target import SourceTarget


@dataclass(frozen=True)
class Importance:
    """Draw from the prior and keep points in proportion to their likelihood.

    Exact in the limit of many draws, for any prior with draws and any likelihood; hopeless where the posterior is a
    small part of the prior, which the effective sample size says. The draws returned are resampled, of equal weight.

    Args:
        draws: from the prior.

    References:
        Owen, Monte Carlo theory, methods and examples, 2013, chapter 9.
    """

    draws: int = 100_000

    def __post_init__(self) -> None:
        integer("Importance", "draws", self.draws)

    def run(self, target: SourceTarget, n: int, generator: torch.Generator | None, like: Tensor) -> PosteriorDraws:
        """Return ``n`` draws; arguments and errors are those of `Sampler`."""
        state = target.drawn(self.draws, generator, like)
        x, log_w = state.x, state.log_likelihood
        total = log_w.logsumexp(0)
        size = effective_size(log_w)
        worth = f"the {self.draws} draws of the prior are worth {size:.1f} of the posterior"
        notes = () if size >= min(100.0, n) else (f"{worth}; use Chains or Tempering, or more draws",)
        rows = systematic(log_w, n, generator)
        equal = torch.full((n,), -math.log(n), dtype=torch.float64, device=x.device)
        evidence = float(total) - math.log(self.draws)
        return PosteriorDraws(
            x[rows],
            equal,
            "importance sampling",
            target.evaluations,
            min(size, float(n)),
            log_evidence=evidence,
            warnings=notes,
        )
