"""The posterior seen from the source: the prior's source reweighted by the likelihood of where its points are carried.

A deterministic flow carries ``z`` of the source to ``T(z)``, so the posterior of ``T(z)`` given a likelihood ``L`` is
the image of the density ``p_0(z) L(T(z)) / Z`` on the source, with the field unchanged and without any Jacobian: what
chains on the source draw is exact for the flow as its solver carries it, however coarse the solver.

References:
    Deterministic flow posteriors as reweighted sources, 2026, arXiv:2606.24516.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.posterior.likelihood import Likelihood, checked_log_likelihood
from rfm.posterior.measurements import Measurement
from rfm.sources import Source
from rfm.steering.gradients import riemannian_gradient


class ZeroLikelihoodError(ValueError):
    """The likelihood is zero at all draws of the source that were tried."""


class NoFieldError(ValueError):
    """A method guides, and what is drawn from is no flow from time 0."""


class State(NamedTuple):
    """Points of the source ``z``, where they are carried, and their log-densities, all of batch shape ``(n,)``."""

    z: Tensor
    x: Tensor
    log_prior: Tensor
    log_likelihood: Tensor

    def log_density(self, power: float | Tensor) -> Tensor:
        """Return the unnormalised log-density of the source times the likelihood to a power ``(n,)``."""
        return self.log_prior + self.at_power(power)

    def at_power(self, power: float | Tensor) -> Tensor:
        """Return the log-likelihood times a power ``(n,)``; a power of 0 is the prior, also where that is -inf."""
        if isinstance(power, Tensor):
            return torch.where(power > 0, power * self.log_likelihood, 0.0)
        return power * self.log_likelihood if power else torch.zeros_like(self.log_likelihood)

    def take(self, rows: Tensor) -> "State":
        """Return the states at these rows."""
        return State(*(part[rows] for part in self))

    @staticmethod
    def together(states: "Sequence[State]") -> "State":
        """Return several states, one after the other, as one."""
        return State(*(torch.cat(parts) for parts in zip(*states, strict=True)))

    def where(self, chosen: Tensor, other: "State") -> "State":
        """Return the own states where ``chosen`` ``(n,)``, others elsewhere."""
        # Points of a slice have another rank than those of its free part.
        return State(
            *(torch.where(chosen.reshape(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(self, other, strict=True))
        )


class PriorDraws(NamedTuple):
    """Draws of the source ``z``, where they are carried, and log-likelihoods ``(n,)``.

    Their density is left out, which may cost more than all the rest: few of them need it, see `SourceTarget.states`.
    """

    z: Tensor
    x: Tensor
    log_likelihood: Tensor

    def __add__(self, other: "PriorDraws") -> "PriorDraws":  # type: ignore[override]
        """Return both, one after the other."""
        return PriorDraws(*(torch.cat(parts) for parts in zip(self, other, strict=True)))


class Carried(NamedTuple):
    """Points of the data, and how many velocities were evaluated on the way, over all of them."""

    x: Tensor
    evaluations: int


_ALL = slice(None)


class SourceTarget:
    """The posterior's density on the source.

    Args:
        source: of the prior.
        carry: from points of the source ``(n, *event_shape)`` to points of the data; differentiable for gradients.
        likelihood: from points of the data to log-likelihoods.
        field: ``field(x, t)``, which methods that guide need; None for a prior that is no flow.
        batch_size: points computed together by methods that guide.
        image: manifold of the points of the data; by default that of the source.
    """

    def __init__(
        self,
        source: Source,
        carry: Callable[[Tensor], Carried],
        likelihood: Likelihood,
        field: Callable[[Tensor, Tensor], Tensor] | None = None,
        batch_size: int = 4096,
        image: Manifold | None = None,
    ) -> None:
        self.source, self.carry, self.likelihood = source, carry, likelihood
        self.batch_size = batch_size
        self.image = source.manifold if image is None else image
        self.evaluations = 0
        self._field = field

    @property
    def manifold(self) -> Manifold:
        """On which the source lives."""
        return self.source.manifold

    def field(self, x: Tensor, t: Tensor) -> Tensor:
        """Return velocities, and count them.

        Raises:
            NoFieldError: the prior is no flow from time 0.
        """
        if self._field is None:
            raise NoFieldError(
                "posterior: this method guides a flow, and what is drawn from here is a slice of its density or a "
                "refined flow; use Tempering, Chains or Importance"
            )
        self.evaluations += len(x)
        return self._field(x, t)

    def measurement(self, method: str) -> Measurement:
        """Return the likelihood, for methods that need a measurement with Gaussian noise.

        Raises:
            ValueError: it is none.
        """
        if not isinstance(self.likelihood, Measurement):
            raise ValueError(
                f"{method}: needs a Measurement(operator, y, noise), whose noise is Gaussian; for other likelihoods "
                "use Tempering or Chains, which are exact"
            )
        return self.likelihood

    def noise(self, count: int, generator: torch.Generator | None, like: Tensor) -> Tensor:
        """Return draws of the source, ``(count, *event_shape)``."""
        return self.source.sample((count,), generator=generator, dtype=like.dtype, device=like.device)

    def drawn(self, count: int, generator: torch.Generator | None, like: Tensor) -> PriorDraws:
        """Return so many draws of the source.

        Args:
            count: how many.
            generator: source of randomness.
            like: a tensor of the dtype and device of points.

        Raises:
            ZeroLikelihoodError: the likelihood is zero at all of them.
        """
        draws = PriorDraws(*self._carried(self.noise(count, generator, like)))
        if not bool((draws.log_likelihood > -math.inf).any()):
            raise ZeroLikelihoodError(
                f"posterior: the likelihood is zero at all {count} draws of the prior; the measurement contradicts the "
                "flow, or needs more noise"
            )
        return draws

    def states(self, draws: PriorDraws, rows: Tensor | slice = _ALL) -> State:
        """Return the states of some draws of the source, with their density."""
        z, x, log_likelihood = (part[rows] for part in draws)
        return State(z, x, self.source.log_prob(z).double(), log_likelihood)

    def at(self, z: Tensor) -> State:
        """Return the states of points of the source ``(n, *event_shape)``."""
        return self.states(PriorDraws(*self._carried(z)))

    def _carried(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, evaluations = self.carry(z)
        self.evaluations += evaluations
        return z, x, checked_log_likelihood(self.likelihood, x, z.shape[:1])

    def with_gradient(self, z: Tensor, power: float | Tensor) -> tuple[State, Tensor]:
        """Return the states, and the Riemannian gradient of `State.log_density` at ``z``, ``(n, *event_shape)``.

        Where a likelihood is zero, or not differentiable at all, its gradient counts as zero: moves along it stay
        reversible, and are corrected as others are.
        """
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            state = self.at(self.manifold.projx(leaf))
            density = state.log_density(power).sum()
            # A region has no gradient, nor has a uniform source.
            known = torch.autograd.grad(density, leaf, allow_unused=True) if density.requires_grad else (None,)
        ambient = torch.zeros_like(z) if known[0] is None else known[0]
        ambient = torch.nan_to_num(ambient, nan=0.0, posinf=0.0, neginf=0.0)
        return State(*(part.detach() for part in state)), riemannian_gradient(self.manifold, z, ambient)
