"""How near the test points a flow from data to data carries the start points that were held out."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rfm.command_line.run_folder import RunData, StartData
from rfm.flow import Flow
from rfm.metrics import (
    AmbientGaussianKernel,
    Estimate,
    maximum_mean_discrepancy,
    median_distance,
    wasserstein_distance,
)
from rfm.metrics.estimates import clustered_mean
from rfm.sources import Empirical

_MOST = 1000
"""Points compared: the work grows with their square."""


@dataclass(frozen=True)
class TransportEvaluation:
    """Distances between what start points become and the test points.

    Args:
        rows: what is compared with the test points, its squared maximum mean discrepancy and its Wasserstein distance:
            the start points as they are, what the flow makes of them, and training points, which are as near as can be.
        count: how many points of each are compared.
        pair_distance: mean distance between what a start point becomes and its own test point; None where unpaired.
        start_distance: mean distance between a start point and its own test point.
    """

    rows: tuple[tuple[str, Estimate, Estimate], ...]
    count: int
    pair_distance: Estimate | None = None
    start_distance: Estimate | None = None

    def table(self) -> str:
        """Return the table as text."""
        lines = [f"{'beside the test points':<34}squared MMD   standard error   Wasserstein distance"]
        lines += [f"{name:<34}{mmd.mean:>11.5f}{mmd.error_text(5):>17}{w.mean:>23.4f}" for name, mmd, w in self.rows]
        if self.pair_distance is not None and self.start_distance is not None:
            lines.append(
                f"mean distance of a start point from its own test point: {self.start_distance.mean:.4f}, after the "
                f"flow {self.pair_distance.mean:.4f}"
            )
        lines.append(f"{self.count} points of each; a flow from given points has no density, hence no likelihood")
        return "\n".join(lines)

    def record(self) -> dict[str, Any]:
        """Return the table as plain values, for JSON."""
        rows = {name: {"squared_mmd": mmd.mean, "wasserstein": w.mean} for name, mmd, w in self.rows}
        pairs = {"pair_distance": self.pair_distance, "start_distance": self.start_distance}
        return {"beside_test_points": rows, "compared": self.count} | {
            name: value.mean for name, value in pairs.items() if value is not None
        }


def evaluate_transport(flow: Flow, data: RunData, start: StartData) -> TransportEvaluation:
    """Compare what a flow makes of start points with the test points.

    Points with weights are compared by draws with these.

    Raises:
        ValueError: if no points were held out for testing, or fewer than 4.
    """
    test, train = data.split.test, data.split.train
    if len(test) < 4:
        raise ValueError(f"this run held out {len(test)} test points, 4 are needed; fit again with a larger test share")
    generator = torch.Generator().manual_seed(0)
    manifold, count = flow.manifold, min(len(test), _MOST)
    if start.paired:
        rows = test[:count]
        ends, starts = data.points[rows], start.points[rows]
    else:
        held = torch.arange(len(start.points)) if start.test is None else start.test
        weights = None if start.weights is None else start.weights[held]
        ends = _drawn(flow, data.points[test], data.weights_at(test), count, generator)
        starts = _drawn(flow, start.points[held], weights, count, generator)
        rows = test[:count]
    if flow.conditions is not None and not start.paired:
        raise ValueError("a conditional flow from unpaired start points is not evaluated; compare samples in Python")
    carried = flow.transport(starts, **data.conditions_at(rows)).double()
    own = _drawn(flow, data.points[train], data.weights_at(train), count, generator)
    kernel = AmbientGaussianKernel(manifold, median_distance(manifold, ends, ends))
    compared = {"start points": starts, "flow of the start points": carried, "training points": own}
    table = tuple(
        (name, maximum_mean_discrepancy(x, ends, kernel), wasserstein_distance(manifold, x, ends, blocks=1))
        for name, x in compared.items()
    )
    if not start.paired:
        return TransportEvaluation(table, count)
    after, before = (clustered_mean(manifold.dist(x, ends).double()) for x in (carried, starts))
    return TransportEvaluation(table, count, after, before)


def _drawn(flow: Flow, points: Tensor, weights: Tensor | None, count: int, generator: torch.Generator) -> Tensor:
    """Return so many of some points: in random order, or by weight where they have weights or are too few."""
    if weights is None and len(points) >= count:
        return points[torch.randperm(len(points), generator=generator)[:count]]
    return Empirical(flow.manifold, points, weights).sample((count,), generator, torch.float64)
