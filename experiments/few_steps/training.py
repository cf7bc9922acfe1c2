"""The flow that is distilled, and the maps that it is distilled to."""

from dataclasses import dataclass
from pathlib import Path

import torch

import rfm
from experiments.few_steps.densities import Mixture
from rfm.integrators import Adaptive
from rfm.networks import VelocityField
from rfm.objectives import (
    AlignYourFlow,
    Eulerian,
    FlowMapObjective,
    Lagrangian,
    MeanFlow,
    PlainMeanFlow,
    RiemannianConsistency,
    Semigroup,
)

EQUATION = Adaptive(atol=1e-3, rtol=1e-3)
"""How the equation is solved for samples."""

OBJECTIVES: dict[str, FlowMapObjective] = {
    "semigroup": Semigroup(invertibility=0.3),
    "Lagrangian": Lagrangian(invertibility=0.3),
    "Eulerian": Eulerian(),
    "MeanFlow, covariant": MeanFlow(),
    "MeanFlow, plain": PlainMeanFlow(),
    "consistency": RiemannianConsistency(),
    "Align Your Flow": AlignYourFlow(),
}
"""What maps are distilled by; the first ones with the penalty that makes them one-to-one."""


@dataclass(frozen=True)
class Budget:
    """How much is trained and measured.

    Args:
        width: of the networks, of two hidden layers.
        teacher_steps: optimiser steps of the flow.
        steps: of each map.
        batch: pairs per step.
        samples: for the discrepancy.
        classified: points of each sample for the classifier.
        scored: points whose log-densities are compared.
        timed: samples drawn to time.
    """

    width: int = 64
    teacher_steps: int = 1500
    steps: int = 2000
    batch: int = 256
    samples: int = 100_000
    classified: int = 10_000
    scored: int = 2_000
    timed: int = 20_000


QUICK = Budget(16, 20, 10, 64, 400, 200, 50, 200)


def teacher(name: str, density: Mixture, budget: Budget, folder: Path) -> rfm.Flow:
    """Return the flow of a density, trained on draws from it, or the one that lies in the folder."""
    target = folder / f"{name}-teacher"
    if (target / "flow.json").exists():
        return rfm.Flow.load(target)
    generator = torch.Generator().manual_seed(0)
    x = density.sample((20 * budget.batch if budget.samples < 1000 else 50_000,), generator=generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        field = VelocityField(density.manifold, width=budget.width, depth=2, features=64, max_frequency=3.0)
    flow = rfm.fit(
        x,
        density.manifold,
        field=field,
        refine=False,
        steps=budget.teacher_steps,
        batch_size=2 * budget.batch,
        validation=0.01,
        progress=False,
        training=rfm.Training(validations=3),
    )
    flow.save(target)
    return flow


def student(name: str, flow: rfm.Flow, objective: str, budget: Budget, folder: Path) -> rfm.Flow:
    """Return the flow of a map, distilled from a flow by an objective, or the one that lies in the folder."""
    target = folder / f"{name}-{label(objective)}"
    if (target / "flow.json").exists():
        return rfm.Flow.load(target)
    found = rfm.distil(
        flow,
        objective=OBJECTIVES[objective],
        solver=EQUATION,
        points=20_000 if budget.samples >= 1000 else 200,
        steps=budget.steps,
        batch_size=budget.batch,
        progress=False,
        training=rfm.Training(validations=3),
    )
    found.save(target)
    return found


def label(objective: str) -> str:
    """Return the name of an objective as a part of a file's name."""
    return objective.replace(", ", "-").replace(" ", "-")
