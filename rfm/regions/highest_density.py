"""Highest-density regions: the smallest region that holds a given probability."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from manifolds.arguments import check_instance, integer, number
from rfm.flow import Flow
from rfm.integrators import Method

_BATCH = 4096
_DRAWS = 4000


@dataclass(frozen=True)
class Level:
    """The density at the border of a highest-density region.

    Args:
        probability: of the region.
        log_density: the points of the region have at least this log-density, in nats with respect to the Riemannian
            volume.
        interval_95: a 95 % interval of it, that of order statistics: it holds whatever the density is.
        count: how many draws it is estimated from.
    """

    probability: float
    log_density: float
    interval_95: tuple[float, float]
    count: int


class HighestDensity:
    """The highest-density regions of a flow, from the log-densities of its own draws.

    The region of probability p is ``{x: log p(x) >= t}``, with t the (1 - p) quantile of ``log p(X)`` for X drawn from
    the flow: of all regions with this probability it has the least volume.

    Args:
        flow: a flow with a density.
        draws: how many points to draw; the probability of a region is off by about ``sqrt(p (1 - p) / draws)``.
        condition: one condition ``(c,)`` or by name, as `rfm.Flow.sample` takes it; the regions are those of the
            density given it.
        generator: source of randomness; seed 0 by default, so that the same call gives the same regions.
        solver: how to integrate; adaptive by default.
        batch_size: points integrated together, which bounds memory.
        progress: show on stderr how many draws are done; or a function that is called with their number each time.

    Raises:
        ValueError: the flow has no density, or an argument is not as said.

    References:
        Hyndman, Computing and graphing highest density regions, The American Statistician 50, 1996, section 3.2.
    """

    def __init__(
        self,
        flow: Flow,
        draws: int = _DRAWS,
        *,
        condition: Tensor | Mapping[str, Any] | None = None,
        generator: torch.Generator | None = None,
        solver: Method | None = None,
        batch_size: int = _BATCH,
        progress: bool | Callable[[int], Any] = False,
    ) -> None:
        check_instance("HighestDensity", "flow", flow, Flow, "rfm.fit(points, manifold)")
        count = integer("HighestDensity", "draws", draws, 20)
        self.flow, self.condition, self.solver, self.batch_size = flow, condition, solver, batch_size
        if generator is None:
            generator = torch.Generator(flow._dtype_and_device()[1]).manual_seed(0)
        options: dict[str, Any] = {"condition": condition, "solver": solver, "batch_size": batch_size}
        self.draws, scores = flow.sample(count, return_log_prob=True, generator=generator, progress=progress, **options)
        """The points drawn, ``(draws, *event_shape)``."""
        self.log_densities = scores.detach().cpu().double().sort().values
        """Their log-densities in nats, ascending."""

    def level(self, probability: float) -> Level:
        """Return the level of the smallest region that holds a probability.

        Args:
            probability: above 0 and below 1.
        """
        p, n = checked_probability("HighestDensity.level", probability), len(self.log_densities)
        # The number of draws below the quantile is binomial, whatever the density is.
        spread = 1.96 * math.sqrt(n * p * (1 - p))
        ranks = [min(max(n * (1 - p) + shift, 0.0), n - 1.0) for shift in (-spread, -0.5, spread)]
        low, middle, high = (_at_rank(self.log_densities, rank) for rank in ranks)
        return Level(p, middle, (low, high), n)

    def contains(self, x: Tensor, probability: float) -> Tensor:
        """Return which points lie in the smallest region that holds a probability, truth values ``(*batch)``.

        Args:
            x: points ``(*batch, *event_shape)``.
            probability: above 0 and below 1.
        """
        level = self.level(probability).log_density
        return self._log_prob(x) >= level

    def probability_integral_transform(self, x: Tensor) -> Tensor:
        """Return the probability of the smallest region that holds each point, ``(*batch)``, from 0 to 1.

        Uniform where points are drawn from the flow's density: 0 at its mode, 1 in its tails.

        Args:
            x: points ``(*batch, *event_shape)``.
        """
        return share_above(self.log_densities, self._log_prob(x))

    def _log_prob(self, x: Tensor) -> Tensor:
        scores = self.flow.log_prob(x, condition=self.condition, solver=self.solver, batch_size=self.batch_size)
        return scores.detach().cpu().double()


def share_above(ordered: Tensor, values: Tensor) -> Tensor:
    """Return the share of ascending numbers ``(n,)`` above each value, equal ones halved; never quite 0 or 1."""
    left, right = (torch.searchsorted(ordered, values.contiguous(), right=side) for side in (False, True))
    below = (left + right).double() / 2
    return (len(ordered) - below + 0.5) / (len(ordered) + 1)


def checked_probability(owner: str, value: float) -> float:
    """Return a probability strictly between 0 and 1; raise ValueError otherwise."""
    p = number(owner, "probability", value)
    if not 0 < p < 1:
        raise ValueError(f"{owner}: probability must be above 0 and below 1, got {value}; for 90 % pass 0.9")
    return p


def _at_rank(ordered: Tensor, rank: float) -> float:
    """Return the number at a rank, counted from 0, between two ranks by interpolation."""
    below = math.floor(rank)
    above = min(below + 1, len(ordered) - 1)
    return float(torch.lerp(ordered[below], ordered[above], rank - below))
