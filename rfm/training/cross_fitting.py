"""Fitting to all points: what validation points decide elsewhere is decided by fits that hold out a part each.

Five fits hold out a fifth of the points each, equal ones or those of a group together. Their validations, step by step,
say when the fit to all points stops and which weights it keeps; the densities of their kernels at the points that they
held out choose the weights of the refinement, with all points in turn. No point decides on a model that it was trained
in.

References:
    Stone, Cross-validatory choice and assessment of statistical predictions, 1974. Wolpert, Stacked generalization,
    1992: weights of a mixture from densities at points held out.
"""

import copy
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rfm.flow import Flow
from rfm.objectives import Objective
from rfm.sources.folds import folds_of, places_of
from rfm.training.checkpoint import Validation
from rfm.training.mixture_choice import Clusters
from rfm.training.refinement import (
    NOT_INTEGRATED,
    VALIDATED,
    Candidate,
    assembled,
    candidates_of,
    reason_against,
    weights_of,
)
from rfm.training.settings import Budget, Training
from rfm.training.weighted_points import Points

_FOLDER = "folds"
_FEWEST = 5
"""Points at different places, or groups, below which folds would be too unlike each other."""


@dataclass(frozen=True)
class CrossFitted:
    """What fits to parts of the points found.

    Args:
        validations: means at each validation, in order; NaN where one of the fits has none.
        weights: those of all components of the refinement; None for no refinement.
        known: the NLL of flow, kernels and both on points held out.
        reason: why there is no refinement, in words; empty where it was not requested.
    """

    validations: Sequence[Validation]
    weights: Tensor | None
    known: Mapping[str, float]
    reason: str

    def validation(self, first: int) -> Callable[[nn.Module], Validation]:
        """Return what stands for the validations of a run that has had some already."""
        remaining = iter(self.validations[first:])
        return lambda field: next(remaining, Validation(math.nan))

    def refine(self, flow: Flow, data: Points, report: Callable[[float], None]) -> None:
        """Refine a flow that is trained on all points in place, with the weights found."""
        flow.refinement, flow.refinement_report = None, self.reason
        if self.weights is None:
            return
        kept = candidates_of(flow, data.positive, data.x[:1], merging=False, report=report)
        if kept is None:
            flow.refinement_report = NOT_INTEGRATED
            return
        flow.refinement = assembled(kept, self.weights.to(data.x.device), dict(self.known))
        flow.refinement_report = flow.refinement.describe()


def check_all_points(has_density: bool, objective: Objective) -> None:
    """Raise ValueError where a fit to all points has no likelihood to be judged by, or is itself one of likelihood."""
    if not has_density:
        raise ValueError("fit: validation=0 goes by the likelihood, which start points do not have; hold out a share")
    if not objective.by_likelihood:
        raise ValueError(
            f"fit: validation=0 goes by the likelihood, which does not tell what {type(objective).__name__} trains; "
            "hold out a share"
        )
    if objective.refines:
        raise ValueError(
            f"fit: {type(objective).__name__} goes on from a trained field, and validation=0 trains several; hold "
            "out a share"
        )


def cross_fit(
    fit: Callable[..., Flow],
    data: Points,
    rows: Tensor,
    budget: Budget,
    refined: bool,
    settings: Mapping[str, Any],
) -> CrossFitted:
    """Fit to all points but a part, for each part in turn.

    Args:
        fit: `rfm.fit`.
        data: the points.
        rows: points or labels of groups ``(n, ...)``; equal rows are in one part.
        budget: of the fit to all points; the others have the same number of steps.
        refined: find weights of a refinement too.
        settings: the arguments of the fit to all points.

    Raises:
        ValueError: there are too few points.
    """
    place = places_of(rows.reshape(len(rows), -1))
    count = int(place.max()) + 1
    if count < _FEWEST:
        raise ValueError(
            f"fit: validation=0 needs at least {_FEWEST} different points or groups, got {count}; add points"
        )
    fold = folds_of(place)
    training = settings["training"] or Training()
    if training.max_seconds is not None:
        training = replace(training, max_seconds=training.max_seconds / (int(fold.max()) + 2))
    flows, parts = [], []
    for i in range(int(fold.max()) + 1):
        part = (fold == i).nonzero()[:, 0]
        flows.append(fit(**_of_fold(settings, i, part, budget, training)))
        parts.append(part)
    sizes = torch.tensor([float(data.shares[part].sum()) for part in parts], dtype=torch.float64)
    validations = _means([flow.history for flow in flows], sizes)
    if not refined:
        return CrossFitted(validations, None, {}, "")
    found = _weights(flows, parts, data, place)
    if isinstance(found, str):
        return CrossFitted(validations, None, {}, found)
    return CrossFitted(validations, *found, "")


def remove_folds(out: str | Path | None) -> None:
    """Delete the fits to parts of the points, once that to all of them is saved."""
    if out is not None:
        shutil.rmtree(Path(out) / _FOLDER, ignore_errors=True)


def _of_fold(
    settings: Mapping[str, Any], number: int, held_out: Tensor, budget: Budget, training: Training
) -> dict[str, Any]:
    """Return the arguments of the fit that holds out one part."""
    out = settings["out"]
    return {
        **settings,
        "validation": held_out,
        # Trained in place.
        "field": copy.deepcopy(settings["field"]),
        "steps": budget.steps,
        "batch_size": budget.batch_size,
        "more_steps": None,
        "out": None if out is None else Path(out) / _FOLDER / str(number + 1),
        "resume": settings["resume"] and out is not None,
        "training": training,
    }


def _means(histories: Sequence[Sequence[Mapping[str, float]]], sizes: Tensor) -> list[Validation]:
    """Return the mean NLL at each validation that all fits came to; NaN where one has none."""
    shares = (sizes / sizes.sum()).tolist()

    def mean(records: Sequence[Mapping[str, float]], name: str) -> float:
        return sum(share * record.get(name, math.nan) for share, record in zip(shares, records, strict=True))

    found = []
    for records in zip(*histories, strict=False):
        nll, alone = mean(records, "validation_nll"), mean(records, "flow_nll")
        found.append(Validation.refined(nll, alone) if math.isfinite(alone) else Validation(nll))
    return found


def _weights(
    flows: Sequence[Flow], parts: Sequence[Tensor], data: Points, place: Tensor
) -> tuple[Tensor, Mapping[str, float]] | str:
    """Return the weights of the refinement's components, from densities at points held out, or why there are none."""
    if data.condition is not None:
        return "not refined: its density is conditional, and cross-fitting weights kernels of unconditional ones alone"
    columns: list[list[Candidate]] = []
    validated, places = [], []
    for flow, part in zip(flows, parts, strict=True):
        remaining = torch.ones(len(data.x), dtype=torch.bool)
        remaining[part] = False
        train = data.take(remaining.nonzero()[:, 0]).positive
        positive = part if data.weights is None else part[data.weights[part] > 0]
        chosen = positive[
            torch.linspace(0, len(positive) - 1, min(len(positive), VALIDATED // len(parts))).round().long()
        ]
        against = reason_against(flow.base, train, data.positive)
        if against:
            return f"not refined: {against}"
        kept = candidates_of(flow.base, train, data.x[chosen], merging=False)
        if kept is None:
            return NOT_INTEGRATED
        columns.append(kept)
        validated.append(chosen)
        places.append(place[chosen])
    if len({tuple(c.log_p.shape[1] for c in kept) for kept in columns}) > 1:
        return "not refined: the parts of the points are too few for kernels of the same widths"
    joined = [replace(c[0], log_p=torch.cat([own.log_p for own in c])) for c in zip(*columns, strict=True)]
    shares = data.take(torch.cat(validated)).shares
    return weights_of(joined, Clusters(shares, torch.cat(places), data.group is not None))
