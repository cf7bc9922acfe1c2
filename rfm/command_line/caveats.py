"""What a reader of a report should keep in mind, in words: few rows, ties, order, copying, error of the solver."""

import torch

from rfm.command_line.evaluation import Evaluation
from rfm.command_line.run_folder import RunData
from rfm.command_line.transport_evaluation import TransportEvaluation
from rfm.flow import Flow
from rfm.regions import Coverage

_FEW = 200
"""Independent test places under which an interval is wide."""
_TIED = 0.02
_ORDERED = 0.5
"""Rows follow each other if a row is nearer to the next than this share of the distance to any other."""
_NOTICEABLE = 0.01
"""Nats."""


def caveats(
    flow: Flow,
    data: RunData,
    evaluation: Evaluation | TransportEvaluation | None,
    found: Coverage | None,
    solver_error: dict[str, float] | None,
) -> list[str]:
    """Return sentences on what limits the conclusions from a run."""
    sentences = [*_of_the_data(flow, data), *_of_the_test(evaluation, found)]
    if flow.stopped.startswith("the cap"):
        sentences.append(f"Training was cut short: {flow.stopped}; with more time the density may be another.")
    if solver_error is not None:
        size = "noticeable: use a smaller tolerance" if solver_error["mean"] > _NOTICEABLE else "negligible"
        sentences.append(
            f"The solver changes log-densities by {solver_error['mean']:.1g} nats on average and "
            f"{solver_error['largest']:.1g} at most, on {solver_error['points']:.0f} test points; this is {size}."
        )
    if flow.conditions is not None and not flow.conditions.required:
        sentences.append("The picture and the calibration are of the density without conditions.")
    if not flow.source.has_density:
        sentences.append("A flow from given points has no density: there is neither a likelihood nor a calibration.")
    sentences.append("This is one fit, with one seed and one split; the intervals know nothing of how fits differ.")
    return sentences


def _of_the_data(flow: Flow, data: RunData) -> list[str]:
    sentences = []
    n, distinct = len(data.points), len(data.points.unique(dim=0))
    if n - distinct > _TIED * n:
        sentences.append(
            f"{n - distinct:,} of {n:,} points repeat another one: rounded coordinates or repeated events. They are on "
            "one side of the split, and a density that may become infinite there would be rewarded for it."
        )
    if len(data.split.train) < 500:
        sentences.append(f"Few rows: {len(data.split.train):,} training points show the broad shape of a density only.")
    ratio = _order(flow, data)
    if data.blocks is None and ratio is not None and ratio < _ORDERED:
        sentences.append(
            f"Rows are ordered, in time or in space: a row is {ratio:.2f} times as far from the next as from any "
            "other. The split is by row: test points have their neighbours among the training points, and the test "
            "likelihood is too good for new times or places; hold out blocks of rows (--blocks)."
        )
    return sentences


def _order(flow: Flow, data: RunData) -> float | None:
    """Return the median distance between following rows over that between rows at random; None for few rows."""
    if len(data.points) < 50:
        return None
    first = torch.linspace(0, len(data.points) - 2, 500).round().long()
    other = torch.randint(len(data.points), (500,), generator=torch.Generator().manual_seed(0))
    near, far = (flow.manifold.dist(data.points[first], data.points[i]).median() for i in (first + 1, other))
    return float(near / far) if far > 0 else None


def _of_the_test(evaluation: Evaluation | TransportEvaluation | None, found: Coverage | None) -> list[str]:
    if evaluation is None:
        return ["No test points were held out: fit again with a test share above 0 to know how good the density is."]
    if isinstance(evaluation, TransportEvaluation):
        return []
    sentences = []
    if evaluation.clusters < _FEW:
        sentences.append(
            f"The test has {evaluation.clusters:,} independent places or blocks, which is few: differences smaller "
            "than the intervals mean nothing."
        )
    difference = evaluation.against_kernel
    if difference is not None and difference.has_error and difference.interval_95[0] > 0:
        sentences.append(
            f"A kernel density ({evaluation.best_kernel}) is better than the flow by {difference.mean:.3f} nats a "
            "point: use it, or find out why."
        )
    if found is not None and "too" in found.describe():
        sentences.append(f"The density is not calibrated: {found.describe()}.")
    return sentences
