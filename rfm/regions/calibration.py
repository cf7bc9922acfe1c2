"""Whether regions hold as many new points as they should: the reliability of a density."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from manifolds.arguments import check_instance, integer
from rfm.arrays import points_of, tensor_of
from rfm.flow import Flow
from rfm.flow.condition_vectors import vectors_of
from rfm.integrators import Method
from rfm.metrics.estimates import Estimate, clustered_mean
from rfm.regions.highest_density import HighestDensity, checked_probability

_BATCH = 4096
_DRAWS = 4000
_DRAWS_FOR_EACH = 100
PROBABILITIES = tuple(i / 20 for i in range(1, 20))
"""Of the regions whose coverage is measured by default."""


@dataclass(frozen=True)
class Coverage:
    """Which share of points the highest-density regions hold: the reliability curve of a density.

    Args:
        probabilities: of the regions, ascending.
        shares: the share of the points that each region holds. A density as concentrated as the points has shares
            equal to the probabilities; lower ones mean that it is too concentrated, higher ones that it is too spread.
        transforms: the probability integral transform of each point, ``(n,)``: the probability of the smallest region
            that holds it, uniform for points drawn from the density.
        draws: how many draws all points were compared with; infinite where each was compared with its own.
    """

    probabilities: tuple[float, ...]
    shares: tuple[Estimate, ...]
    transforms: Tensor
    draws: float = math.inf

    @property
    def largest_deviation(self) -> tuple[float, float, float]:
        """Where a share is farthest from its probability: the probability, the share and its standard error."""
        pairs = zip(self.probabilities, self.shares, strict=True)
        p, share = max(pairs, key=lambda pair: abs(pair[1].mean - pair[0]))
        return p, share.mean, share.standard_error

    def describe(self) -> str:
        """Return the verdict in a line."""
        p, share, error = self.largest_deviation
        text = f"the region of {100 * p:.0f} % holds {100 * share:.1f} % of the points"
        if math.isnan(error):
            return f"{text}; a single independent observation has no interval"
        # The farthest of several shares is farther than one chosen beforehand would be: Kolmogorov's bound, or
        # Smirnov's where draws are finite too.
        if abs(share - p) < _KOLMOGOROV_95 * math.sqrt(1 / self.shares[0].count + 1 / self.draws):
            return f"{text}, the farthest off of all; this is within what chance explains"
        kind = "too concentrated" if share < p else "too spread"
        return f"{text} (standard error {100 * error:.1f} %): the density is {kind}"

    def record(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return {
            "probability": list(self.probabilities),
            "share": [e.mean for e in self.shares],
            "standard_error": [e.standard_error if e.has_error else None for e in self.shares],
        }


_KOLMOGOROV_95 = 1.358
"""The 95 % quantile of Kolmogorov's statistic, ``sqrt(n) max |F_n - F|``."""


def coverage(
    flow: Flow,
    points: Tensor,
    *,
    condition: Tensor | Mapping[str, Any] | None = None,
    probabilities: Sequence[float] = PROBABILITIES,
    groups: Tensor | None = None,
    weights: Tensor | None = None,
    draws: int | None = None,
    generator: torch.Generator | None = None,
    solver: Method | None = None,
    batch_size: int = _BATCH,
) -> Coverage:
    """Return which share of points the highest-density regions of a flow hold.

    Args:
        flow: a flow with a density.
        points: ``(n, *event_shape)``, such as test points: a flow is rarely wrong about those it was fitted to.
        condition: one condition for all, or ``(n, c)``, that of each point, as `rfm.Flow.log_prob` takes it; each
            point is then compared with draws of its own.
        probabilities: of the regions, above 0 and below 1.
        groups: ``(n, ...)``: points of equal rows are no independent observations, as in
            `rfm.metrics.paired_difference`; by default, the places of the points.
        weights: of the points, ``(n,)``; equal by default.
        draws: of the flow; 4000, or 100 for each point where each has a condition of its own.
        generator: source of randomness; seed 0 by default.
        solver: how to integrate; adaptive by default.
        batch_size: points integrated together, which bounds memory.

    Returns:
        The shares; standard errors include that of the draws.

    Raises:
        ValueError: the flow has no density, there is no point, or an argument is not as said.

    References:
        Gneiting, Balabdaoui and Raftery, Probabilistic forecasts, calibration and sharpness, JRSS B 69, 2007, section
        3.1; for regions of several dimensions, Hyndman, The American Statistician 50, 1996.
    """
    check_instance("coverage", "flow", flow, Flow, "rfm.fit(points, manifold)")
    x = points_of("coverage", flow.manifold, points)
    levels = tuple(sorted(checked_probability("coverage", p) for p in probabilities))
    if not len(x) or x.ndim != 1 + len(flow.manifold.event_shape) or not levels:
        raise ValueError(
            f"coverage: needs points (n, *event_shape) and probabilities, got {tuple(x.shape)} and {levels}"
        )
    if generator is None:
        generator = torch.Generator(flow._dtype_and_device()[1]).manual_seed(0)
    options: dict[str, Any] = {"solver": solver, "batch_size": batch_size}
    given = None if condition is None else vectors_of(flow.conditions, condition)
    if given is not None and given.ndim > 1:
        count = integer("coverage", "draws", _DRAWS_FOR_EACH if draws is None else draws, 20)
        transforms, common = _against_own_draws(flow, x, given, count, generator, options), math.inf
    else:
        count = integer("coverage", "draws", _DRAWS if draws is None else draws, 20)
        regions = HighestDensity(flow, count, condition=given, generator=generator, **options)
        transforms, common = regions.probability_integral_transform(x), count
    if groups is None:
        groups = x.detach().cpu()
    shares = None
    if weights is not None:
        shares = tensor_of("coverage", "weights", weights, torch.float64).cpu()
        shares = shares / shares.sum()
    estimates = []
    for p in levels:
        share = clustered_mean((transforms <= p).double(), groups, shares, "coverage")
        error = math.hypot(share.standard_error, math.sqrt(p * (1 - p) / common))
        estimates.append(Estimate(share.mean, error, share.count))
    return Coverage(levels, tuple(estimates), transforms, common)


def _against_own_draws(
    flow: Flow, x: Tensor, condition: Tensor, count: int, generator: torch.Generator, options: dict[str, Any]
) -> Tensor:
    """Return the transform of each point against draws given its own condition, ``(n,)``."""
    _, scores = flow.sample(
        (count, len(x)), condition=condition.expand(count, *condition.shape), generator=generator, return_log_prob=True,
        **options,
    )  # fmt: skip
    own = flow.log_prob(x, condition=condition, **options).detach().cpu().double()
    above = (scores.detach().cpu().double() > own).sum(0).double()
    # Where the point stands among count + 1 equals is uniform over the ranks; within a rank, by a draw.
    u = torch.rand(len(x), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (above + u) / (count + 1)
