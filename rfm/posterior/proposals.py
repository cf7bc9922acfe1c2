"""Proposals of Metropolis chains on a manifold: random walks and Hamiltonian moves along geodesics."""

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.posterior.target import SourceTarget, State

Power = float | Tensor
"""Of the likelihood in a target: of all chains, or of each ``(n,)``."""


class Proposed(NamedTuple):
    """Where chains would go: the states and the log of the acceptance ratio, ``(n,)``."""

    state: State
    log_ratio: Tensor


class Proposal(Protocol):
    """A move that leaves the target invariant when it is accepted with its ratio."""

    goal: float
    """Acceptance that step sizes are adapted to."""

    largest: float = 20.0
    """Largest step size, beyond which none is tried."""

    def propose(
        self,
        target: SourceTarget,
        state: State,
        scale: Tensor,
        power: Power,
        generator: torch.Generator | None,
    ) -> Proposed:
        """Propose a move of every chain.

        Args:
            target: the posterior on the source.
            state: of the chains, ``(n,)``.
            scale: step size of each chain, ``(n,)``.
            power: of the likelihood in the target.
            generator: source of randomness.
        """
        ...


class RandomWalk(Proposal):
    """Go along a geodesic in a random direction, by a normal length.

    The density of a step is the same in both directions: so is the length of a geodesic, and so is what ``expmap``
    does to volumes along it. Hence no correction is due, on any manifold.

    References:
        Byrne and Girolami, Geodesic Monte Carlo on embedded manifolds, 2013, section 3; Besse, Manifolds all of whose
        geodesics are closed, 1978, lemma 6.12, for the symmetry of the volume distortion.
    """

    goal = 0.3

    def propose(
        self,
        target: SourceTarget,
        state: State,
        scale: Tensor,
        power: Power,
        generator: torch.Generator | None,
    ) -> Proposed:
        manifold = target.manifold
        step = manifold.lift(scale.to(state.z)) * normal_velocities(manifold, state.z, generator)
        new = target.at(manifold.projx(manifold.expmap(state.z, step)))
        return Proposed(new, new.log_density(power) - state.log_density(power))


class Hamiltonian(Proposal):
    """Leapfrog steps along geodesics, with gradients through the solve.

    A half step of the velocity along the gradient, a geodesic, another half step: reversible and volume-preserving
    on any manifold, so the acceptance ratio is the change of the total energy alone. A likelihood without a gradient,
    such as a region or one that torch cannot differentiate, counts as flat: moves stay exact, and are then geodesics
    that the acceptance alone corrects, no better than a random walk. Each move draws its step size anew, within a
    quarter of the scale: moves of one length come back to where they started where that is a period.

    Args:
        steps: leapfrog steps of a move; a single one is the Metropolis-adjusted Langevin algorithm.

    References:
        Byrne and Girolami, Geodesic Monte Carlo on embedded manifolds, 2013, algorithm 1; Neal, MCMC using Hamiltonian
        dynamics, 2011, section 4.2, for the step sizes.
    """

    goal = 0.8

    def __init__(self, steps: int = 4) -> None:
        if steps < 1:
            raise ValueError(f"Hamiltonian: steps must be at least 1, got {steps}")
        self.steps = steps

    def propose(
        self,
        target: SourceTarget,
        state: State,
        scale: Tensor,
        power: Power,
        generator: torch.Generator | None,
    ) -> Proposed:
        manifold = target.manifold
        z, v = state.z, normal_velocities(manifold, state.z, generator)
        kinetic = manifold.inner(z, v, v).double() / 2
        u = torch.rand(len(z), generator=generator, dtype=z.dtype, device=z.device)
        step = scale.to(z) * (0.75 + u / 2)
        size = manifold.lift(step)
        new, gradient = target.with_gradient(z, power)
        for _ in range(self.steps):
            z, v = manifold.shoot(z, v + size / 2 * gradient, step)
            z = manifold.projx(z)
            new, gradient = target.with_gradient(z, power)
            v = manifold.proju(z, v + size / 2 * gradient)
        change = new.log_density(power) - state.log_density(power)
        return Proposed(new, change + kinetic - manifold.inner(z, v, v).double() / 2)


def normal_velocities(manifold: Manifold, x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return tangent vectors at ``x`` ``(n, *event_shape)`` that are standard normal in every orthonormal basis."""
    if manifold.metric_is_induced:
        # A projection of ambient noise needs no basis, which is a matrix for each point.
        return manifold.proju(x, torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device))
    basis = manifold.tangent_basis(x)
    noise = torch.randn(len(x), manifold.dim, generator=generator, dtype=x.dtype, device=x.device)
    return (manifold.lift(noise) * basis).sum(1)


def metropolis(
    target: SourceTarget,
    state: State,
    proposal: Proposal,
    scale: Tensor,
    power: Power,
    generator: torch.Generator | None,
) -> tuple[State, Tensor]:
    """Move every chain once; return the states and the probabilities of acceptance ``(n,)``."""
    proposed = proposal.propose(target, state, scale, power, generator)
    log_ratio = proposed.log_ratio.nan_to_num(nan=-math.inf)
    u = torch.rand(len(log_ratio), generator=generator, dtype=torch.float64, device=log_ratio.device)
    accepted = u.log() < log_ratio
    return proposed.state.where(accepted, state), log_ratio.clamp(max=0).exp()
