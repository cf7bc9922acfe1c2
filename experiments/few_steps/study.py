"""What is measured for each density, as plain data."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import rfm
from experiments.few_steps.densities import DENSITIES, planted
from experiments.few_steps.measures import discrepancy, likelihoods, samples, told_apart
from experiments.few_steps.training import Budget, student, teacher
from manifolds import Manifold
from rfm.integrators import EULER, Adams, Adaptive, FixedStep, Method

STEPS = (1, 2, 4, 8)
_EQUATION = Adaptive(atol=1e-3, rtol=1e-3)
PEERS_ON = ("S2",)
"""Where the other objectives are compared."""
PLANTED = 0.02
"""The divergence, in nats, that the classifier has to detect."""


def euler(steps: int) -> Method:
    """Return as many steps of Euler's method."""
    return FixedStep(EULER, steps)


def adams(steps: int) -> Method:
    """Return as many steps of Adams's method, which shrink towards the data."""
    return FixedStep(Adams(3), steps, grading=1.3)


def measure(name: str, budget: Budget, folder: Path) -> dict[str, Any]:
    """Return all figures of one density."""
    density = DENSITIES[name]()
    m, draw = density.manifold, torch.Generator().manual_seed(1)
    flow = teacher(name, density, budget, folder)
    jumps = student(name, flow, "semigroup", budget, folder)
    reference = density.sample((budget.samples,), generator=draw)
    judge = _Judge(m, reference, budget)
    rows = [judge("another sample of the density", 0, density.sample((budget.samples,), generator=draw))]
    other = planted(density, PLANTED, reference[:20_000])
    rows.append(judge(f"planted divergence of {PLANTED} nats", 0, other.sample((budget.samples,), generator=draw)))
    for steps in STEPS:
        rows.append(judge("jumps", steps, samples(jumps, budget.samples, 2, steps=steps)[0]))
    for steps in STEPS:
        rows.append(judge("Euler", steps, samples(flow, budget.samples, 2, solver=euler(steps))[0]))
    for steps in (4, 8):
        rows.append(judge("Adams", steps, samples(flow, budget.samples, 2, solver=adams(steps))[0]))
    rows.append(judge("equation", 0, samples(flow, budget.samples, 2, solver=_EQUATION)[0]))
    scored = reference[: budget.scored]
    return {
        "name": name,
        "samples": rows,
        "likelihoods": [likelihoods(jumps, density, scored, k, tol) for k in (1, 2) for tol in (1e-4, 1e-2)],
        "seconds": _seconds(flow, jumps, budget),
        "divergence": float((density.log_prob(scored) - flow.log_prob(scored)).mean()),
        "date": time.strftime("%Y-%m-%d"),
    }


def compare(name: str, objective: str, budget: Budget, folder: Path) -> dict[str, Any]:
    """Return the figures of a map that was distilled by an objective in half of the steps, so that all can be."""
    density = DENSITIES[name]()
    flow = teacher(name, density, budget, folder)
    start = time.process_time()
    jumps = student(name, flow, objective, replace(budget, steps=budget.steps // 2), folder / "peers")
    spent = time.process_time() - start
    reference = density.sample((budget.samples,), generator=torch.Generator().manual_seed(1))
    judge = _Judge(density.manifold, reference, budget)
    rows = [judge("jumps", steps, samples(jumps, budget.samples, 2, steps=steps)[0]) for steps in (1, 2)]
    scored = likelihoods(jumps, density, reference[: budget.scored], 1, 1e-4)
    return {"name": name, "objective": objective, "samples": rows, "likelihoods": [scored], "seconds": spent}


class _Judge:
    """Compares samples with one of the density."""

    def __init__(self, manifold: Manifold, reference: Tensor, budget: Budget) -> None:
        self.manifold, self.reference, self.budget = manifold, reference, budget

    def __call__(self, method: str, steps: int, x: Tensor) -> dict[str, Any]:
        mmd, mmd_error = discrepancy(self.manifold, x, self.reference)
        few = self.budget.classified
        accuracy, error = told_apart(self.manifold, x[:few], self.reference[:few])
        return {
            "method": method,
            "steps": steps,
            "mmd2": mmd,
            "mmd2_error": mmd_error,
            "accuracy": accuracy,
            "accuracy_error": error,
        }


def _seconds(flow: rfm.Flow, jumps: rfm.Flow, budget: Budget) -> dict[str, float]:
    """Return processor seconds for a million samples, by what is timed for fewer."""
    share = 1e6 / budget.timed
    return {
        "one jump": share * samples(jumps, budget.timed, 3, steps=1)[1],
        "two jumps": share * samples(jumps, budget.timed, 3, steps=2)[1],
        "Adams, 8": share * samples(flow, budget.timed, 3, solver=adams(8))[1],
        "equation": share * samples(flow, budget.timed, 3, solver=_EQUATION)[1],
        "equation, default": share * samples(flow, budget.timed, 3)[1],
    }
