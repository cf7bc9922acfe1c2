"""Importance sampling whose proposal is learned: kernels about the draws that fit, round by round."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from manifolds.arguments import integer, number
from rfm.posterior.draws import PosteriorDraws, effective_size, largest_power, pareto_shape, raised, systematic
from rfm.posterior.target import SourceTarget, State, ZeroLikelihoodError
from rfm.sources import KernelMixture, Source

_MOST_CENTRES = 512
"""Of a proposal; more would not describe it better, and cost time in proportion."""
_MOST_DRAWS = 8
"""Draws of the last round for each requested one, at most: beyond, the proposal is at fault and not their number."""
_FEWEST = 20
"""Draws with any weight, below which the source is drawn from again."""
_GOOD_SHAPE = 0.7
"""Above this Pareto shape of the largest weights neither means nor effective sample sizes are to be trusted."""


class _Learned(NamedTuple):
    proposal: Source
    worth: float
    """Share of its draws that they were worth."""
    rounds: int


@dataclass(frozen=True)
class AdaptiveImportance:
    """Learn a proposal by rounds of importance sampling, then draw from it once and weight by the ratio of densities.

    Each round draws from the last proposal and pools its draws with all before, weighted by the posterior over the
    mixture of all proposals; kernels of several widths about the likeliest of them, and the source as their background,
    are the next proposal. While few draws carry the weight it counts to a power below one, so that a round never
    collapses on a single draw. Draws of the last round are independent given the proposal: their weights are unbiased,
    their effective sample size is that of independent draws, and the shape of the tail of their weights says whether it
    may be believed. For few dimensions, where the density is dear and narrow: slices of a joint density. On a manifold
    without kernels use `Tempering`.

    Args:
        draws: of a round.
        rounds: of learning at most.
        efficiency: share of a round's draws that they are to be worth before learning ends, in (0, 1).
        share: of the pooled draws that powers of the weights keep them worth, in (0, 1).
        progress: called after each round with how many more hundredths of the work are done; in all 100.

    References:
        Cappe, Guillin, Marin and Robert, Population Monte Carlo, 2004; Cornuet, Marin, Mira and Robert, Adaptive
        multiple importance sampling, 2012, for the pooled weights; Marin, Pudlo and Sedki, Consistency of adaptive
        importance sampling and recycling schemes, 2019, for keeping the last draws apart; Vehtari, Simpson, Gelman, Yao
        and Gabry, Pareto smoothed importance sampling, 2024, for the shape of the tail.
    """

    draws: int = 512
    rounds: int = 8
    efficiency: float = 0.35
    share: float = 0.05
    progress: Callable[[int], Any] = field(default=lambda done: None, repr=False)

    def __post_init__(self) -> None:
        for name in ("draws", "rounds"):
            integer("AdaptiveImportance", name, getattr(self, name))
        for name in ("efficiency", "share"):
            if not 0 < number("AdaptiveImportance", name, getattr(self, name)) < 1:
                raise ValueError(
                    f"AdaptiveImportance: {name} is a share of the draws, between 0 and 1, got {getattr(self, name)}"
                )

    def run(self, target: SourceTarget, n: int, generator: torch.Generator | None, like: Tensor) -> PosteriorDraws:
        """Return the last round; arguments and errors are those of `Sampler`.

        Raises:
            ValueError: the source's manifold has no kernel.
        """
        if target.manifold.kernel is None:
            raise ValueError(
                f"AdaptiveImportance: proposals are kernels, and {target.manifold} has none; use Tempering"
            )
        learned = self._learned(target, generator, like)
        # No worth at all is no reason to draw for ever.
        share = max(learned.worth, 1 / _MOST_DRAWS)
        count = max(n, self.draws, math.ceil(n / share))
        state, log_q = _drawn(target, learned.proposal, count, generator, like)
        if not bool((state.log_likelihood > -math.inf).any()):
            raise ZeroLikelihoodError(f"posterior: the likelihood is zero at all {count} draws of the last proposal")
        log_w = state.log_density(1.0) - log_q
        total, shape = log_w.logsumexp(0), pareto_shape(log_w)
        self.progress(100 - self._hundredths(self.rounds))
        return PosteriorDraws(
            state.x,
            log_w - total,
            f"importance sampling, {count} draws of a proposal learned in {learned.rounds} rounds of {self.draws}",
            target.evaluations,
            effective_size(log_w),
            log_evidence=float(total) - math.log(count),
            diagnostics={"pareto_shape": shape, "rounds": float(learned.rounds)},
            warnings=_warnings(shape),
        )

    def _learned(self, target: SourceTarget, generator: torch.Generator | None, like: Tensor) -> "_Learned":
        """Return the best proposal of all rounds."""
        state = target.states(target.drawn(self.draws, generator, like))
        proposals: list[Source] = [target.source]
        log_q = state.log_prior[:, None]
        best = _Learned(target.source, 0.0, 0)
        for done in range(1, self.rounds + 1):
            log_w = state.log_density(1.0)[-self.draws :] - log_q[-self.draws :, -1]
            worth = effective_size(log_w) / self.draws if bool((log_w > -math.inf).any()) else 0.0
            best = max(best, _Learned(proposals[-1], worth, 0), key=lambda own: own.worth)._replace(rounds=done)
            self.progress(self._hundredths(done) - self._hundredths(done - 1))
            if worth >= self.efficiency or done == self.rounds:
                break
            # Over the mixture of all proposals: where one of them was too thin others count.
            log_w = state.log_density(1.0) - log_q.logsumexp(1)
            proposals.append(self._proposal(target, state, log_w, generator))
            new, log_new = _drawn(target, proposals[-1], self.draws, generator, like)
            old = [proposal.log_prob(new.z).double() for proposal in proposals[:-1]]
            own = torch.cat([proposals[-1].log_prob(state.z).double(), log_new])
            log_q = torch.cat([torch.cat([log_q, torch.stack(old, 1)]), own[:, None]], 1)
            state = State.together([state, new])
        self.progress(self._hundredths(self.rounds) - self._hundredths(done))
        return best

    def _proposal(self, target: SourceTarget, state: State, log_w: Tensor, generator: torch.Generator | None) -> Source:
        """Return kernels about weighted draws, with the source as their background."""
        fits = (log_w > -math.inf).nonzero()[:, 0]
        if len(fits) < _FEWEST:
            return target.source
        log_w = log_w[fits]
        rows = systematic(raised(log_w, largest_power(log_w, self.share)), _MOST_CENTRES, generator)
        chosen, counts = fits[rows].unique(return_counts=True)
        own: dict[str, Any] = {"background": target.source, "sample_weights": counts.double()}
        return KernelMixture.fit(target.manifold, state.z[chosen], **own)

    def _hundredths(self, rounds: int) -> int:
        """Return how much of the work so many rounds are: the last one, apart, counts for two fifths."""
        return round(60 * rounds / self.rounds)


def _drawn(
    target: SourceTarget, proposal: Source, count: int, generator: torch.Generator | None, like: Tensor
) -> tuple[State, Tensor]:
    """Return the states of draws of a proposal, and its log-density there."""
    z = proposal.sample((count,), generator=generator, dtype=like.dtype, device=like.device)
    return target.at(z), proposal.log_prob(z).double()


def _warnings(shape: float) -> tuple[str, ...]:
    if shape <= _GOOD_SHAPE:
        return ()
    return (
        f"the largest weights have a tail of Pareto shape {shape:.2f}, above {_GOOD_SHAPE}: the proposal misses a part "
        "of the posterior, and the draws may be worth less than they seem; raise draws or rounds",
    )
