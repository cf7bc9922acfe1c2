"""The posterior seen from the source: the prior's source reweighted by the likelihood of where its points are carried.

A deterministic flow carries ``z`` of the source to ``T(z)``, so the posterior of ``T(z)`` given a likelihood ``L`` is
the image of the density ``p_0(z) L(T(z)) / Z`` on the source, with the field unchanged and without any Jacobian: what
chains on the source draw is exact for the flow as its solver carries it, however coarse the solver.

References:
    Deterministic flow posteriors as reweighted sources, 2026, arXiv:2606.24516.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.posterior.measurements import LogLikelihood, checked_log_likelihood
from rfm.sources import Source


class State(NamedTuple):
    """Points of the source ``z``, where they are carried, and their log-densities, all of batch shape ``(n,)``."""

    z: Tensor
    x: Tensor
    log_prior: Tensor
    log_likelihood: Tensor

    def log_density(self, power: float) -> Tensor:
        """Return the unnormalised log-density of the source times the likelihood to a power ``(n,)``."""
        # A power of 0 is the prior, also where the likelihood is zero.
        return self.log_prior + (power * self.log_likelihood if power else 0.0)

    def take(self, rows: Tensor) -> "State":
        """Return the states at these rows."""
        return State(*(part[rows] for part in self))

    def where(self, chosen: Tensor, lifted: Tensor, other: "State") -> "State":
        """Return the own states where ``chosen`` ``(n,)``, others elsewhere; ``lifted`` broadcasts to points."""
        masks = (lifted, lifted, chosen, chosen)
        return State(*(torch.where(m, a, b) for m, a, b in zip(masks, self, other, strict=True)))


class SourceTarget:
    """The posterior's density on the source.

    Args:
        source: of the prior.
        carry: from points of the source ``(n, *event_shape)`` to points of the data; differentiable for gradients.
        likelihood: from points of the data to log-likelihoods.
    """

    def __init__(self, source: Source, carry: Callable[[Tensor], Tensor], likelihood: LogLikelihood) -> None:
        self.source, self.carry, self.likelihood = source, carry, likelihood
        self.evaluations = 0

    @property
    def manifold(self) -> Manifold:
        """On which the source lives, and the data."""
        return self.source.manifold

    def drawn(self, count: int, generator: torch.Generator | None, like: Tensor) -> State:
        """Return the states of so many draws of the source.

        Args:
            count: how many.
            generator: source of randomness.
            like: a tensor of the dtype and device of points.

        Raises:
            ValueError: the likelihood is zero at all of them.
        """
        state = self.at(self.source.sample((count,), generator=generator, dtype=like.dtype, device=like.device))
        if not bool((state.log_likelihood > -math.inf).any()):
            raise ValueError(
                f"posterior: the likelihood is zero at all {count} draws of the prior; the measurement contradicts the "
                "flow, or needs more noise"
            )
        return state

    def at(self, z: Tensor) -> State:
        """Return the states of points of the source ``(n, *event_shape)``."""
        self.evaluations += len(z)
        x = self.carry(z)
        return State(z, x, self.source.log_prob(z).double(), checked_log_likelihood(self.likelihood, x, z.shape[:1]))

    def with_gradient(self, z: Tensor, power: float) -> tuple[State, Tensor]:
        """Return the states, and the Riemannian gradient of `State.log_density` at ``z``, ``(n, *event_shape)``."""
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            state = self.at(self.manifold.projx(leaf))
            [ambient] = torch.autograd.grad(state.log_density(power).sum(), leaf)
        # Zero likelihood has no gradient: such a point is left by the prior's.
        ambient = torch.nan_to_num(ambient, nan=0.0, posinf=0.0, neginf=0.0)
        basis = self.manifold.tangent_basis(z)
        axes = tuple(range(-len(self.manifold.event_shape), 0))
        slopes = (basis * ambient.unsqueeze(1)).sum(axes)
        gradient = (self.manifold.lift(slopes) * basis).sum(1)
        return State(*(part.detach() for part in state)), gradient
