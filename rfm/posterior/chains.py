"""Markov chains on the source manifold, many in one batch."""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from manifolds.arguments import integer
from rfm.posterior.crank_nicolson import CrankNicolson
from rfm.posterior.diagnostics import chain_diagnostics
from rfm.posterior.draws import PosteriorDraws, effective_size, systematic
from rfm.posterior.ladder import Ladder
from rfm.posterior.proposals import Proposal, metropolis
from rfm.posterior.target import SourceTarget, State

_FEWEST = 64
"""Draws of each chain: of fewer their agreement cannot be told from the time they need to mix."""
_SURE = 100.0
"""Effective draws of the prior from which the evidence is estimated."""


@dataclass(frozen=True)
class Chains:
    """Metropolis-corrected chains on the source: exact in the limit of long chains.

    Chains start from draws of the source that know nothing of how likely they are, but that it is possible at all, so
    that R-hat says whether they have found the same posterior: starts by likelihood would agree on the mode that is
    found first. Step sizes adapt during the warm-up alone, each chain its own, and stay fixed then, so that the chains
    are Markov. A chain alone does not go from one separate mode to another: with ``rungs`` each has copies at lower
    powers of the likelihood, down to fresh draws of the source, and exchanges states with them (parallel tempering).

    Args:
        proposal: `CrankNicolson`, `RandomWalk` or `Hamiltonian`.
        chains: how many run side by side, each for 64 draws or more.
        warm_up: steps that are thrown away.
        thin: steps between two draws of a chain.
        starts: draws of the source per chain to find starts of positive likelihood among; the evidence is estimated
            from them where there are no rungs.
        rungs: powers of the likelihood, from 1 to 0; each multiplies the cost. Powers between adapt in the warm-up.

    References:
        Robert and Casella, Monte Carlo statistical methods, 2004, chapter 7; Andrieu and Thoms, A tutorial on adaptive
        MCMC, 2008, algorithm 4, for the step sizes; `rfm.posterior.ladder` for the exchanges.
    """

    proposal: Proposal = field(default_factory=CrankNicolson)
    chains: int = 64
    warm_up: int = 200
    thin: int = 10
    starts: int = 32
    rungs: int = 1

    def __post_init__(self) -> None:
        integer("Chains", "rungs", self.rungs)

    def run(self, target: SourceTarget, n: int, generator: torch.Generator | None, like: Tensor) -> PosteriorDraws:
        """Return the states of all chains; arguments and errors are those of `Sampler`."""
        chains = self.chains
        ladder = Ladder(self.rungs, chains, like.device)
        state, evidence = self._started(target, ladder, generator, like)
        scale = torch.full((len(ladder.of_copies),), 0.5, dtype=torch.float64, device=like.device)
        for i in range(self.warm_up):
            state, accept = self._moved(target, ladder, state, scale, generator)
            # Robbins and Monro, with steps that shrink as the square root of time.
            change = (accept - self.proposal.goal) * 2 / math.sqrt(i + 4)
            scale[: len(accept)] *= change.exp()
            scale.clamp_(1e-7, self.proposal.largest)
            if i + 1 in (self.warm_up // 4, self.warm_up // 2, self.warm_up):
                ladder.equalise()
        ladder.steps.clear()
        per_chain = max(_FEWEST, -(-n // chains))
        points, log_likelihoods, accepts = [], [], []
        for _ in range(per_chain):
            for _ in range(self.thin):
                state, accept = self._moved(target, ladder, state, scale, generator)
                accepts.append(accept[:chains].mean())
            points.append(state.x[:chains])
            log_likelihoods.append(state.log_likelihood[:chains])
        drawn = torch.stack(points, dim=1)
        values = torch.cat([target.image.embed(drawn).double(), torch.stack(log_likelihoods, dim=1)[..., None]], dim=-1)
        diagnostics, notes = chain_diagnostics(values)
        if self.rungs > 1:
            diagnostics["exchange"] = 1 - max(ladder.rejections)
        flat = drawn.transpose(0, 1).flatten(0, 1)
        return PosteriorDraws(
            flat,
            torch.full((len(flat),), -math.log(len(flat)), dtype=torch.float64, device=flat.device),
            f"{chains} chains, {type(self.proposal).__name__}" + (f", {self.rungs} rungs" if self.rungs > 1 else ""),
            target.evaluations,
            # Few draws have no diagnostics.
            max(1.0, min(np.nan_to_num([diagnostics["bulk_ess"], diagnostics["tail_ess"]], nan=1.0))),
            acceptance=float(torch.stack(accepts).mean()),
            log_evidence=ladder.log_evidence if self.rungs > 1 else evidence,
            diagnostics=diagnostics,
            warnings=notes,
        )

    def _started(
        self, target: SourceTarget, ladder: Ladder, generator: torch.Generator | None, like: Tensor
    ) -> tuple[State, float]:
        """Return states of all copies, and the log-evidence by importance sampling, NaN where few draws matter."""
        draws = target.drawn(ladder.chains * self.starts, generator, like)
        possible = (draws.log_likelihood > -math.inf).double().log()
        sure = effective_size(draws.log_likelihood) >= _SURE
        evidence = float(draws.log_likelihood.logsumexp(0)) - math.log(len(possible)) if sure else math.nan
        return target.states(draws, systematic(possible, ladder.rungs * ladder.chains, generator)), evidence

    def _moved(
        self, target: SourceTarget, ladder: Ladder, state: State, scale: Tensor, generator: torch.Generator | None
    ) -> tuple[State, Tensor]:
        """Return the states after a step of every copy and exchanges, and probabilities of acceptance."""
        if ladder.rungs == 1:
            return metropolis(target, state, self.proposal, scale, 1.0, generator)
        # At power 0 draws are anew and independent.
        count = (ladder.rungs - 1) * ladder.chains
        rows = torch.arange(count, device=scale.device)
        moved, accept = metropolis(
            target, state.take(rows), self.proposal, scale[:count], ladder.of_copies[:count], generator
        )
        fresh = target.at(target.noise(ladder.chains, generator, state.z))
        return ladder.exchanged(State.together([moved, fresh]), generator), accept
