"""What is measured for each density, as plain data."""

import itertools
import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import rfm
from experiments.few_steps.densities import DENSITIES, planted
from experiments.few_steps.measures import DENSITY, discrepancy, likelihoods, misses, samples, told_apart
from experiments.few_steps.training import EQUATION, MAIN, Budget, label, student, teacher
from manifolds import Manifold
from rfm.integrators import EULER, Adams, FixedStep, Method

STEPS = (1, 2, 4, 8)
PEERS_ON = ("S2", "SO3")
"""Where the other objectives are compared."""
PLANTED = 0.02
"""The divergence, in nats, that the classifier has to detect."""


def euler(steps: int) -> Method:
    """Return as many steps of Euler's method."""
    return FixedStep(EULER, steps)


def adams(steps: int) -> Method:
    """Return as many steps of Adams's method, which shrink towards the data."""
    return FixedStep(Adams(3), steps, grading=1.3)


def measure(name: str, budget: Budget, folder: Path) -> None:
    """Keep all figures of one density in the folder; those that are there are not measured again."""
    density, draw = DENSITIES[name](), torch.Generator().manual_seed(1)
    flow = teacher(name, density, budget, folder)
    jumps = student(name, flow, MAIN, budget, folder)
    record = Record(folder / f"{name}.json", name, asdict(budget) | {"objective": MAIN})
    reference, again = (density.sample((budget.samples,), generator=draw) for _ in range(2))
    judge, scored = _Judge(density.manifold, reference, budget), reference[: budget.scored]

    def off() -> Tensor:
        other = planted(density, PLANTED, reference[: 2 * budget.classified])
        return other.sample((budget.samples,), generator=torch.Generator().manual_seed(2))

    def compared(method: str, steps: int, drawn: Callable[[], Tensor]) -> None:
        record.add("samples", {"method": method, "steps": steps}, lambda: judge(drawn()))

    compared("another sample of the density", 0, lambda: again)
    compared(f"planted divergence of {PLANTED} nats", 0, off)

    @cache
    def solved() -> Tensor:
        return flow.log_prob(scored, solver=DENSITY)

    def likelihood(steps: int, tolerance: float) -> dict[str, float]:
        return likelihoods(jumps, density, scored, solved(), steps, tolerance)

    for steps in STEPS:
        compared("jumps", steps, partial(_drawn, jumps, budget, steps=steps))
    for steps, tolerance in itertools.product((1, 2), (1e-4, 1e-2)):
        key = {"steps": steps, "tolerance": tolerance}
        record.add("likelihoods", key, partial(likelihood, steps, tolerance))
    record.add("misses", {"steps": 1}, lambda: misses(flow, jumps, budget.scored))
    record.add("seconds", {}, lambda: _seconds(flow, jumps, budget))
    compared("equation", 0, partial(_drawn, flow, budget, solver=EQUATION))
    for steps in (16, 8, 4):
        compared("Adams", steps, partial(_drawn, flow, budget, solver=adams(steps)))
    for steps in reversed(STEPS):
        compared("Euler", steps, partial(_drawn, flow, budget, solver=euler(steps)))


def _drawn(flow: rfm.Flow, budget: Budget, **how: Any) -> Tensor:
    return samples(flow, budget.samples, 2, **how)[0]


class Record:
    """Figures in a file, which is written after each of them.

    Args:
        path: the file.
        name: of the density.
        budget: what was trained and measured.
    """

    def __init__(self, path: Path, name: str, budget: dict[str, Any]) -> None:
        self.path = path
        self.figures: dict[str, Any] = {"name": name, "budget": budget}
        if path.exists():
            self.figures = json.loads(path.read_text())

    def add(self, kind: str, key: dict[str, Any], measured: Callable[[], dict[str, float]]) -> None:
        """Measure a row of a kind, unless one of this key is there."""
        rows = self.figures.setdefault(kind, [])
        if any(key.items() <= row.items() for row in rows):
            return
        rows.append(key | measured())
        self.figures["date"] = time.strftime("%Y-%m-%d")
        self.path.write_text(json.dumps(self.figures, indent=1))


def compare(name: str, objective: str, budget: Budget, folder: Path) -> None:
    """Keep the figures of a map that was distilled by an objective, in fewer steps of fewer jumps than the study's."""
    budget = replace(budget, steps=budget.steps // 5, batch=budget.batch // 2, trajectories=budget.trajectories // 5)
    density = DENSITIES[name]()
    flow = teacher(name, density, budget, folder)
    start = time.process_time()
    jumps = student(name, flow, objective, budget, folder / "peers")
    spent = time.process_time() - start
    record = Record(
        folder / "peers" / f"{name}-{label(objective)}.json", name, asdict(budget) | {"objective": objective}
    )
    reference = density.sample((budget.samples,), generator=torch.Generator().manual_seed(1))
    judge = _Judge(density.manifold, reference, budget)
    record.add("training", {"objective": objective}, lambda: {"seconds": spent})
    for steps in (1, 2):
        drawn = _drawn(jumps, budget, steps=steps)
        record.add("samples", {"method": "jumps", "steps": steps}, partial(judge, drawn))
    scored = reference[: budget.scored]

    def likelihood() -> dict[str, float]:
        return likelihoods(jumps, density, scored, flow.log_prob(scored, solver=DENSITY), 1, 1e-4)

    record.add("likelihoods", {"steps": 1}, likelihood)


class _Judge:
    """Compares samples with one of the density."""

    def __init__(self, manifold: Manifold, reference: Tensor, budget: Budget) -> None:
        self.manifold, self.reference, self.budget = manifold, reference, budget

    def __call__(self, x: Tensor) -> dict[str, float]:
        mmd, mmd_error = discrepancy(self.manifold, x, self.reference)
        few = self.budget.classified
        accuracy, error = told_apart(self.manifold, x[:few], self.reference[:few])
        return {"mmd2": mmd, "mmd2_error": mmd_error, "accuracy": accuracy, "accuracy_error": error}


def _seconds(flow: rfm.Flow, jumps: rfm.Flow, budget: Budget) -> dict[str, float]:
    """Return processor seconds for a million samples, by what is timed for fewer."""
    share = 1e6 / budget.timed
    return {
        "one jump": share * samples(jumps, budget.timed, 3, steps=1)[1],
        "two jumps": share * samples(jumps, budget.timed, 3, steps=2)[1],
        "Adams, 4": share * samples(flow, budget.timed, 3, solver=adams(4))[1],
        "Adams, 8": share * samples(flow, budget.timed, 3, solver=adams(8))[1],
        "Adams, 16": share * samples(flow, budget.timed, 3, solver=adams(16))[1],
        "equation": share * samples(flow, budget.timed, 3, solver=EQUATION)[1],
    }
