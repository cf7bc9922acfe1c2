"""A flow as a prior: what methods of `rfm.posterior` draw from."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.field import Field
from rfm.flow.condition_vectors import batches
from rfm.integrators import Method, integrate
from rfm.posterior import (
    Carried,
    Likelihood,
    NearSlice,
    PosteriorDraws,
    Sampler,
    Slice,
    SourceTarget,
    ZeroLikelihoodError,
    at_points,
    pooled,
)
from rfm.posterior.draws import effective_size
from rfm.posterior.pooling import equally_weighted
from rfm.sources import Source

_NEAREST = 0.05
"""Share of the flow's draws that are nearest to a slice, whose distance says how much noise its known part gets."""
_EQUAL = 0.4
"""Effective share of weights on a slice below which the noise of its known part is halved."""
_HALVINGS = 8
"""Of that noise."""


class Part(NamedTuple):
    """A source along a flow, where it stands, and its share of the prior."""

    start: float
    mass: float
    source: Source


class Prior(NamedTuple):
    """A flow as a prior: a mixture of what its parts become.

    Args:
        field: the velocity field, given the condition.
        parts: sources along the flow; one at time 0 where it is not refined.
        condition: one condition vector ``(c,)``, as the field takes it, or None.
        solver: how to carry points.
        batch_size: points carried together where no gradient is needed.
    """

    field: Field
    parts: Sequence[Part]
    condition: Tensor | None
    solver: Method
    batch_size: int

    def target(self, part: Part, likelihood: Likelihood, guided: bool) -> SourceTarget:
        """Return the posterior on a part's source; ``guided``: whether methods may steer the field."""

        def carry(z: Tensor) -> Carried:
            if part.start == 1:
                return Carried(z, 0)
            size = len(z) if torch.is_grad_enabled() else self.batch_size
            own = batches(z, self.condition, z.shape[:1], size)
            span, manifold = (part.start, 1.0), part.source.manifold
            solutions = [integrate(self.field, manifold, x, span, self.solver, **given) for x, given in own]
            count = sum(int(solution.evaluations.sum()) for solution in solutions)
            return Carried(torch.cat([solution.final for solution in solutions]), count)

        # Methods that guide know paths from time 0 only.
        velocity = self._velocity if guided and part.start == 0 else None
        return SourceTarget(part.source, carry, likelihood, velocity, self.batch_size)

    def _velocity(self, x: Tensor, t: Tensor) -> Tensor:
        if self.condition is None:
            return self.field(x, t)
        return self.field(x, t, condition=self.condition.to(x).expand(len(x), *self.condition.shape))

    def draws(
        self,
        method: Sampler,
        likelihood: Likelihood,
        n: int,
        generator: torch.Generator | None,
        like: Tensor,
        guided: bool = True,
    ) -> PosteriorDraws:
        """Return draws of the posterior, weighted: of each part, in proportion to its share and evidence.

        Args:
            method: that draws.
            likelihood: of points.
            n: how many are to be chosen from them.
            generator: source of randomness.
            like: a tensor of the dtype and device of points.
            guided: whether methods may steer the field.

        Raises:
            ZeroLikelihoodError: the likelihood is zero at all draws of all parts.
            NoFieldError: the method guides, and a part is no flow from time 0.
        """
        found, log_masses = list[PosteriorDraws](), list[float]()
        for i, part in enumerate(self.parts):
            try:
                found.append(method.run(self.target(part, likelihood, guided), n, generator, like))
                log_masses.append(math.log(part.mass))
            except ZeroLikelihoodError:
                if not found and i == len(self.parts) - 1:
                    raise
        return pooled(found, log_masses)


class OnSlice:
    """Draws of a slice of a flow's density: near it first, and then moved there and reweighted.

    Args:
        prior: the flow.
        known: the slice.
        likelihood: of points of the slice.
        log_prob: the flow's log-density, in nats.
        draws: of the flow ``(n, *event_shape)``: how near the slice they come is a first guess of the noise.
    """

    def __init__(
        self,
        prior: Prior,
        known: Slice,
        likelihood: Likelihood,
        log_prob: Callable[[Tensor], Tensor],
        draws: Tensor,
    ) -> None:
        self.prior, self.known, self.likelihood, self.log_prob = prior, known, likelihood, log_prob
        self.manifold: Manifold = prior.parts[0].source.manifold
        self.like = draws
        missing = self.manifold.dim - known.manifold.dim
        apart = self.manifold.dist(draws, known.onto(draws)).double()
        self.noise = max(float(apart.quantile(_NEAREST)), 1e-6) / math.sqrt(missing)

    def run(self, method: Sampler, n: int, generator: torch.Generator | None) -> PosteriorDraws:
        """Return draws, weighted, with as little noise of the known part as leaves them nearly equal weights."""
        for left in reversed(range(_HALVINGS + 1)):
            near = NearSlice(self.known, self.manifold, self.noise, self.likelihood)
            own = self.prior.draws(method, near, n, generator, self.like, guided=False)
            # Densities cost more than samples: of as many as needed.
            own = equally_weighted(own, min(2 * n, len(own.points)), generator)
            at = self.known.onto(own.points)
            ratio = self.log_prob(at).double() - self.log_prob(own.points).double()
            if left and effective_size(ratio) < _EQUAL * len(ratio):
                self.noise /= 2
                continue
            break
        return at_points(own, at, ratio - near.log_mass)
