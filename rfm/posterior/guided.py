"""Draws by a field that a measurement steers."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from manifolds.arguments import check_instance
from rfm.field import Field, as_field
from rfm.integrators import FixedStep, IntegrationError, Method, integrate
from rfm.posterior.draws import PosteriorDraws
from rfm.posterior.target import SourceTarget
from rfm.steering import Steering


@dataclass(frozen=True)
class Guided:
    """Draw the source and follow a steered field: as biased as the steering is, which nothing here corrects.

    Args:
        steering: such as `FlowDPS`, `OTODE`, `FlowChef` and `rfm.steering.EnergyGuidance`, one after the other.
        solver: of the steered field.
    """

    steering: Sequence[Steering]
    solver: Method = field(default_factory=lambda: FixedStep(steps=50))

    def __post_init__(self) -> None:
        for own in self.steering:
            check_instance("Guided", "steering", own, Steering, "FlowDPS(manifold, likelihood)")

    def run(self, target: SourceTarget, n: int, generator: torch.Generator | None, like: Tensor) -> PosteriorDraws:
        """Return ``n`` draws; arguments and errors are those of `Sampler`."""
        steered = steered_field(target, self.steering)

        def chain(count: int) -> Tensor:
            z = target.noise(count, generator, like)
            return integrate(steered, target.manifold, z, (0.0, 1.0), self.solver).final

        return biased_draws(target, chain, n, " and ".join(own.name for own in self.steering))


def steered_field(target: SourceTarget, steering: Sequence[Steering]) -> Field:
    """Return the field of a posterior's prior, steered by one after the other."""
    start: Field = as_field(target.field)
    return functools.reduce(lambda f, steer: steer.applied_to(f), steering, start)


class DivergenceError(ValueError):
    """Draws that left the range of numbers."""

    def __init__(self, method: str) -> None:
        super().__init__(
            f"{method}: the draws became NaN or infinite: the steps are too long for a measurement as exact as this, "
            "or the likelihood is NaN; take more steps or a lower weight or rate, or use Tempering"
        )


def biased_draws(target: SourceTarget, chain: Callable[[int], Tensor], n: int, method: str) -> PosteriorDraws:
    """Return ``n`` draws of a method that is not exact, a batch at a time.

    Args:
        target: the posterior.
        chain: from a number of draws to points.
        n: how many.
        method: its name.

    Raises:
        DivergenceError: the draws are not finite.
    """
    counts = [min(target.batch_size, n - first) for first in range(0, n, target.batch_size)]
    try:
        points = torch.cat([chain(count).detach() for count in counts])
    except IntegrationError:
        raise DivergenceError(method) from None
    if not bool(points.isfinite().all()):
        raise DivergenceError(method)
    equal = torch.full((n,), -math.log(n), dtype=torch.float64, device=points.device)
    return PosteriorDraws(points, equal, method, target.evaluations, float(n), exact=False)
