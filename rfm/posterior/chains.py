"""Markov chains on the source manifold, many in one batch."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rfm.posterior.diagnostics import chain_diagnostics
from rfm.posterior.draws import PosteriorDraws, systematic
from rfm.posterior.proposals import Proposal, RandomWalk, metropolis
from rfm.posterior.target import SourceTarget


@dataclass(frozen=True)
class Chains:
    """Metropolis-corrected chains on the source: exact in the limit of long chains.

    Chains start from draws of the source, chosen in proportion to their likelihood; step sizes adapt during the warm-up
    alone, each chain its own, and stay fixed then, so that the chains are Markov.

    Args:
        proposal: `RandomWalk` or `Hamiltonian`.
        chains: how many run side by side, at most; fewer where few draws are requested.
        warm_up: steps that are thrown away.
        thin: steps between two draws of a chain.
        starts: draws of the source per chain to choose starts from.

    References:
        Robert and Casella, Monte Carlo statistical methods, 2004, chapter 7; Andrieu and Thoms, A tutorial on adaptive
        MCMC, 2008, algorithm 4, for the step sizes.
    """

    proposal: Proposal = field(default_factory=RandomWalk)
    chains: int = 256
    warm_up: int = 200
    thin: int = 10
    starts: int = 32

    def run(self, target: SourceTarget, n: int, generator: torch.Generator | None, like: Tensor) -> PosteriorDraws:
        """Return ``n`` draws; arguments and errors are those of `Sampler`."""
        # Some sixty draws of each chain: with fewer their agreement cannot be told from the time they need to mix.
        chains = min(self.chains, max(4, n // 64))
        state = target.drawn(chains * self.starts, generator, like)
        state = state.take(systematic(state.log_likelihood, chains, generator))
        scale = torch.full((chains,), 0.5, dtype=torch.float64, device=like.device)
        for i in range(self.warm_up):
            state, accept = metropolis(target, state, self.proposal, scale, 1.0, generator)
            # Robbins and Monro, with steps that shrink as the square root of time.
            scale = (scale.log() + (accept - self.proposal.goal) * 2 / math.sqrt(i + 4)).clamp(-16, 3).exp()
        per_chain = -(-n // chains)
        points, log_likelihoods, accepts = [], [], []
        for _ in range(per_chain):
            for _ in range(self.thin):
                state, accept = metropolis(target, state, self.proposal, scale, 1.0, generator)
                accepts.append(accept.mean())
            points.append(state.x)
            log_likelihoods.append(state.log_likelihood)
        drawn = torch.stack(points, dim=1)
        values = torch.cat(
            [target.manifold.embed(drawn).double(), torch.stack(log_likelihoods, dim=1)[..., None]], dim=-1
        )
        diagnostics, notes = chain_diagnostics(values)
        # Chains side by side: a cut takes the last draws of all of them.
        flat = drawn.transpose(0, 1).flatten(0, 1)[-n:]
        return PosteriorDraws(
            flat,
            torch.full((n,), -math.log(n), dtype=torch.float64, device=flat.device),
            f"{chains} chains, {type(self.proposal).__name__}",
            target.evaluations,
            min(diagnostics["bulk_ess"], float(n)),
            acceptance=float(torch.stack(accepts).mean()),
            diagnostics=diagnostics,
            warnings=notes,
        )
