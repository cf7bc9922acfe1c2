"""The airports of the demo in one jump."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import rfm
from experiments.few_steps.measures import samples, told_apart
from experiments.few_steps.training import EQUATION, MAIN, OBJECTIVES, Budget
from manifolds import Sphere
from rfm.datasets import load
from rfm.integrators import Jumps
from rfm.likelihood import jump_log_prob
from rfm.networks import VelocityField


def measure_airports(budget: Budget, folder: Path) -> dict[str, Any]:
    """Return how one jump compares with the equation, on airports that neither has seen."""
    x = load("airports").points.float()
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
    held_out, rest = x[: len(x) // 5], x[len(x) // 5 :]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        field = VelocityField(Sphere(2), width=budget.width, depth=2, features=2 * budget.width, max_frequency=16.0)
    own = {"field": field, "refine": False, **plan(budget, 2)}
    flow = kept(folder / "airports-teacher", lambda: rfm.fit(rest, Sphere(2), **own))
    distilled = kept(
        folder / f"airports-{MAIN}",
        lambda: rfm.distil(flow, objective=OBJECTIVES[MAIN], points=10_000, solver=EQUATION, **plan(budget, 1)),
    )
    rows, n = [], len(held_out)
    for method, steps, drawer, how in (
        ("jumps", 1, distilled, {"steps": 1}),
        ("jumps", 2, distilled, {"steps": 2}),
        ("equation", 0, flow, {"solver": EQUATION}),
    ):
        drawn, seconds = samples(drawer, 4 * n, 2, **how)
        accuracy, error = told_apart(Sphere(2), drawn[:n], held_out)
        row = {"method": method, "steps": steps, "accuracy": accuracy, "accuracy_error": error, "seconds": seconds}
        rows.append(row)
    found = jump_log_prob(distilled.field, distilled.source, held_out, Jumps(2), check=False)
    known = found.log_prob.isfinite()
    return {
        "count": len(x),
        "samples": rows,
        "inverted": float(known.double().mean()),
        "nll_of_jumps": -float(found.log_prob[known].mean()),
        "nll": -float(flow.log_prob(held_out)[known].mean()),
        "date": time.strftime("%Y-%m-%d"),
    }


def plan(budget: Budget, share: int) -> dict[str, Any]:
    """Return how a flow or a map is trained, with a batch of so many shares."""
    size = share * budget.batch // 2
    return {"steps": budget.steps // 2, "batch_size": size, "progress": False, "training": rfm.Training(validations=3)}


def kept(target: Path, made: Callable[[], rfm.Flow]) -> rfm.Flow:
    """Return the flow that lies in a folder, made and saved there unless there is one."""
    if not (target / "flow.json").exists():
        made().save(target)
    return rfm.Flow.load(target)
