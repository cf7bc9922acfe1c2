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
    PosteriorDraws,
    Sampler,
    Slice,
    SourceTarget,
    ZeroLikelihoodError,
    pooled,
    slice_source,
)
from rfm.sources import Source


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

    def target(self, part: Part, likelihood: Likelihood) -> SourceTarget:
        """Return the posterior on a part's source."""

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
        velocity = self._velocity if part.start == 0 else None
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
    ) -> PosteriorDraws:
        """Return draws of the posterior, weighted: of each part, in proportion to its share and evidence.

        Args:
            method: that draws.
            likelihood: of points.
            n: how many are to be chosen from them.
            generator: source of randomness.
            like: a tensor of the dtype and device of points.

        Raises:
            ZeroLikelihoodError: the likelihood is zero at all draws of all parts.
            NoFieldError: the method guides, and a part is no flow from time 0.
        """
        found, log_masses = list[PosteriorDraws](), list[float]()
        for i, part in enumerate(self.parts):
            try:
                found.append(method.run(self.target(part, likelihood), n, generator, like))
                log_masses.append(math.log(part.mass))
            except ZeroLikelihoodError:
                if not found and i == len(self.parts) - 1:
                    raise
        return pooled(found, log_masses)


def slice_draws(
    known: Slice,
    manifold: Manifold,
    joint: Callable[[Tensor], Tensor],
    draws: Tensor,
    likelihood: Likelihood,
    method: Sampler,
    n: int,
    generator: torch.Generator | None,
) -> PosteriorDraws:
    """Return draws of a slice of a density, weighted: of the free part, on a source of that.

    Args:
        known: the slice.
        manifold: of points.
        joint: log-density of points in nats.
        draws: of the flow ``(n, *event_shape)``, to choose the source by.
        likelihood: of points besides.
        method: that draws.
        n: how many are to be chosen from them.
        generator: source of randomness.
    """
    source = slice_source(known, manifold, draws)
    reweighted = known.reweighted(joint, source, likelihood)
    target = SourceTarget(source, lambda z: Carried(known.join(z), len(z)), reweighted, image=manifold)
    return method.run(target, n, generator, draws)
