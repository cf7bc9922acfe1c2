"""Sequential Monte Carlo: from the source to the posterior by powers of the likelihood."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from manifolds.arguments import integer, number
from rfm.posterior.crank_nicolson import CrankNicolson
from rfm.posterior.draws import PosteriorDraws, clustered_size, effective_size, largest_power, raised, systematic
from rfm.posterior.importance import weighted
from rfm.posterior.proposals import Proposal, metropolis
from rfm.posterior.target import SourceTarget, State

_ENOUGH = 50
"""Effective draws of the first generation, from which the number that suffices is predicted."""


@dataclass(frozen=True)
class Tempering:
    """Particles that go from the source to the posterior while the likelihood is raised to powers from 0 to 1.

    Exact in the limit of many particles. Where some more draws of the prior would do they are taken as they are,
    weighted: that is importance sampling, which needs neither moves nor densities. Each power is the largest that
    leaves the particles worth ``share`` of their number; ``particles`` of them are chosen and moved by Metropolis
    steps, and where these have been, all of it, is the next generation: no step is wasted. The steps' size adapts
    from power to power. It gives the evidence, and finds modes that chains from few starts would miss.

    Args:
        proposal: of the moves.
        moves: Metropolis steps after each power; twice as many at the end.
        share: of the effective sample size kept at each step, in (0, 1).
        particles: moved, at least; each gives ``moves`` draws, so more where more draws are requested.
        prior_generations: draws of the prior are taken as they are where up to so many times those of the first
            generation are worth what is requested; 0 moves in any case.
        progress: called after each power with how many more hundredths of the likelihood are in; in all 100.

    References:
        Del Moral, Doucet and Jasra, Sequential Monte Carlo samplers, 2006; Jasra et al., Inference for Levy-driven
        stochastic volatility models via adaptive sequential Monte Carlo, 2011, for the powers; Dau and Chopin,
        Waste-free sequential Monte Carlo, 2022, arXiv:2011.02328, algorithm 2.
    """

    proposal: Proposal = field(default_factory=CrankNicolson)
    moves: int = 10
    share: float = 0.5
    particles: int = 1024
    prior_generations: int = 50
    progress: Callable[[int], Any] = field(default=lambda done: None, repr=False)

    def __post_init__(self) -> None:
        for name in ("moves", "particles"):
            integer("Tempering", name, getattr(self, name))
        integer("Tempering", "prior_generations", self.prior_generations, 0)
        if not 0 < number("Tempering", "share", self.share) < 1:
            raise ValueError(f"Tempering: share, of the effective sample size, is between 0 and 1, got {self.share}")

    def run(self, target: SourceTarget, n: int, generator: torch.Generator | None, like: Tensor) -> PosteriorDraws:
        """Return the last generation; arguments and errors are those of `Sampler`."""
        count = max(self.particles, -(-n // self.moves))
        first = target.drawn(count * self.moves, generator, like)
        size, worth = len(first.z), effective_size(first.log_likelihood)
        missing = math.ceil(n * size / worth) - size
        if worth >= _ENOUGH and missing < (self.prior_generations - 1) * size:
            self.progress(100)
            return weighted(target, first + target.drawn(missing, generator, like) if missing > 0 else first)
        log_likelihood = first.log_likelihood
        states: Callable[[Tensor], State] = functools.partial(target.states, first)
        # One size for all: a particle's own would remember where it has been.
        scale = torch.full((count,), 0.5, dtype=torch.float64, device=like.device)
        power, evidence, accepts, steps = 0.0, 0.0, [], 0
        ancestors = torch.arange(size, device=like.device)
        while power < 1:
            following = self._next_power(log_likelihood, power)
            log_w = raised(log_likelihood, following - power)
            evidence += float(log_w.logsumexp(0)) - math.log(len(log_w))
            rows = systematic(log_w, count, generator)
            done = round(100 * following) - round(100 * power)
            own, ancestors, power = states(rows), ancestors[rows], following
            steps += 1
            visited = []
            for _ in range(self.moves if power < 1 else 2 * self.moves):
                own, accept = metropolis(target, own, self.proposal, scale, power, generator)
                visited.append(own)
                accepts.append(accept.mean())
                scale = (scale * (accept.mean() - self.proposal.goal).exp()).clamp(1e-7, self.proposal.largest)
            state, ancestors = State.together(visited), ancestors.repeat(len(visited))
            log_likelihood, states = state.log_likelihood, state.take
            self.progress(done)
        founders = len(ancestors.unique())
        acceptance = float(torch.stack(accepts[-2 * self.moves :]).mean())
        log_w = torch.full_like(state.log_likelihood, -math.log(len(ancestors)))
        return PosteriorDraws(
            state.x,
            log_w,
            f"sequential Monte Carlo, {count} particles, {steps} powers",
            target.evaluations,
            clustered_size(self._functions(target, state), ancestors, log_w),
            acceptance=acceptance,
            log_evidence=evidence,
            diagnostics={"founders": float(founders), "powers": float(steps)},
            warnings=self._warnings(acceptance, founders),
        )

    @staticmethod
    def _functions(target: SourceTarget, state: State) -> Tensor:
        """Return functions of the state whose correlation within families is measured, ``(n, k)``."""
        parts = [target.manifold.embed(state.z), target.image.embed(state.x), state.log_likelihood[:, None]]
        return torch.cat([part.double() for part in parts], dim=-1)

    def _next_power(self, log_likelihood: Tensor, power: float) -> float:
        """Return the largest power that keeps the share, by bisection; 1 where it does."""
        step = largest_power(log_likelihood, self.share, 1 - power)
        if step == 1 - power:
            return 1.0
        # Where most particles have no likelihood at all no power keeps the share: drop them at once.
        return power + step if step > 0 else min(1.0, power + 1e-6)

    def _warnings(self, acceptance: float, founders: int) -> tuple[str, ...]:
        notes = []
        if acceptance < 0.05:
            notes.append(f"only {acceptance:.0%} of the last moves were accepted; raise moves")
        if founders < 20:
            notes.append(
                f"all draws descend from {founders} draws of the source; modes may be missing: raise particles or share"
            )
        return tuple(notes)
