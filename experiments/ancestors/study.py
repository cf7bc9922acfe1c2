"""What is measured of each fitted density, kept as data so that a run that was killed goes on."""

import json
import time
from pathlib import Path
from typing import Any

import torch

import rfm
from experiments.ancestors.budget import Budget, Fitted
from experiments.ancestors.data import points_of
from experiments.ancestors.models import SOLVER, methods
from rfm.integrators import EULER, Adaptive, FixedStep
from rfm.likelihood import NotInvertibleError
from rfm.metrics import classifier_two_sample, flow_measures, negative_log_likelihood, paired_difference

_TOLD_APART = 200
"""Test points of which a classifier can learn anything."""
_STRAIGHT = 500
EULER_STEPS = (1, 2, 4, 8, 16, 32)


def file_of(folder: Path, problem: str, seed: int) -> Path:
    """Return where the figures of a data set and a seed are kept."""
    return folder / f"{problem.replace(', ', '-').replace(' ', '-')}-{seed}.json"


def measure(problem: str, seed: int, budget: Budget, folder: Path, only: set[str] | None = None) -> None:
    """Fit and measure every method that the folder does not have yet, one after the other."""
    target = file_of(folder, problem, seed)
    found: dict[str, Any] = json.loads(target.read_text()) if target.exists() else {}
    points = points_of(problem, seed, budget.points)
    for name, fit in methods(problem).items():
        if name in found or (only is not None and name not in only):
            continue
        fitted = fit(points, budget, seed)
        found[name] = {"parameters": fitted.parameters, "train_seconds": fitted.seconds}
        found[name] |= _likelihood(fitted, points.test[: budget.scored], points.exact) | _samples(
            fitted, points, budget
        )
        found[name] |= {} if fitted.flow is None or fitted.jumps else _paths(fitted)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(found, indent=1))
        print(f"{problem}, seed {seed}, {name}: {found[name]}", flush=True)


def _likelihood(fitted: Fitted, test: torch.Tensor, exact: torch.Tensor | None) -> dict[str, Any]:
    try:
        with torch.no_grad():
            log_prob = fitted.log_prob(test).double()
    except NotInvertibleError as error:
        return {"no_density": str(error)}
    nll = negative_log_likelihood(log_prob)
    known: dict[str, Any] = {"nll": nll.mean, "nll_error": nll.standard_error}
    if exact is not None:
        # Paired: what the density lacks to the true one is known much better than either.
        lack = paired_difference(exact[: len(test)], log_prob)
        known |= {"divergence": lack.mean, "divergence_error": lack.standard_error}
    return known


def _samples(fitted: Fitted, points: Any, budget: Budget) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    start = time.process_time()
    drawn = fitted.sample(budget.drawn, generator)
    known: dict[str, Any] = {"draw_seconds": (time.process_time() - start) * 1000 / budget.drawn}
    # Inverse maps that were not kept within bounds overflow at some points.
    finite = drawn.isfinite().flatten(1).all(-1)
    known["not_finite"] = 1 - float(finite.double().mean())
    drawn = drawn[finite]
    count = min(len(points.test), len(drawn))
    if count >= _TOLD_APART:
        accuracy = classifier_two_sample(points.manifold, drawn[:count].float(), points.test[:count], folds=3)
        known |= {"accuracy": accuracy.mean, "accuracy_error": accuracy.standard_error}
    return known


@torch.no_grad()
def _paths(fitted: Fitted) -> dict[str, Any]:
    """How straight the flow's paths are, and how wrong few of Euler's steps along them."""
    flow = fitted.flow
    assert flow is not None
    generator = torch.Generator().manual_seed(2)
    measures = flow_measures(flow, _STRAIGHT, generator=generator, solver=SOLVER)
    x_0 = flow.source.sample((_STRAIGHT,), generator=generator)
    solved = rfm.integrate(flow.field, flow.manifold, x_0, (0.0, 1.0), Adaptive(atol=1e-5, rtol=1e-5))
    errors = {}
    for steps in EULER_STEPS:
        end = rfm.integrate(flow.field, flow.manifold, x_0, (0.0, 1.0), FixedStep(EULER, steps)).final
        errors[str(steps)] = float(flow.manifold.dist(end, solved.final).square().mean().sqrt())
    return {
        "straightness": measures.straightness.mean,
        "energy": measures.energy.mean,
        "evaluations": float(solved.evaluations.double().mean()),
        "euler_errors": errors,
    }
