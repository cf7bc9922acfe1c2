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
    TrajectoryRegression,
)
from rfm.paths import TimePairs

EQUATION = Adaptive(atol=1e-3, rtol=1e-3)
"""How the equation is solved for samples."""
TRAJECTORIES = Adaptive(atol=1e-4, rtol=1e-4)
"""How it is solved for what maps are trained on."""

SPANS = TimePairs(ends=0.6)
"""Between which times maps are trained to jump: often from one end to the other."""

OBJECTIVES: dict[str, FlowMapObjective] = {
    "trajectories": TrajectoryRegression(invertibility=0.5, spans=SPANS),
    "semigroup": Semigroup(invertibility=0.3, spans=SPANS),
    "Lagrangian": Lagrangian(invertibility=0.3, spans=SPANS),
    "Eulerian": Eulerian(spans=SPANS),
    "MeanFlow, covariant": MeanFlow(spans=SPANS),
    "MeanFlow, plain": PlainMeanFlow(spans=SPANS),
    "consistency": RiemannianConsistency(spans=SPANS),
    "Align Your Flow": AlignYourFlow(spans=SPANS),
}
"""What maps are distilled by; the first ones with what makes them one-to-one."""

MAIN = "trajectories"
"""What the maps of the study are distilled by."""


@dataclass(frozen=True)
class Budget:
    """How much is trained and measured.

    Args:
        width: of the networks, of two hidden layers.
        points: draws from the density that the flow is trained on.
        teacher_steps: optimiser steps of the flow.
        teacher_batch: pairs in each.
        steps: of each map.
        batch: jumps in each.
        trajectories: of the flow, that maps are trained on.
        learning_rate: of all, its peak.
        samples: for the discrepancy.
        classified: points of each sample for the classifier.
        scored: points whose log-densities are compared.
        timed: samples drawn to time.
    """

    width: int = 64
    points: int = 300_000
    teacher_steps: int = 3000
    teacher_batch: int = 1024
    steps: int = 3000
    batch: int = 512
    trajectories: int = 50_000
    learning_rate: float = 1e-2
    samples: int = 100_000
    classified: int = 10_000
    scored: int = 10_000
    timed: int = 20_000

    @property
    def training(self) -> rfm.Training:
        """How all are trained."""
        return rfm.Training(validations=6, patience=6, learning_rate=self.learning_rate)


QUICK = Budget(16, 1000, 20, 64, 10, 64, 200, 1e-2, 400, 200, 50, 200)


def teacher(name: str, density: Mixture, budget: Budget, folder: Path) -> rfm.Flow:
    """Return the flow of a density, trained on draws from it, or the one that lies in the folder."""
    target = folder / f"{name}-teacher"
    if (target / "flow.json").exists():
        return rfm.Flow.load(target)
    x = density.sample((budget.points,), generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        field = VelocityField(density.manifold, width=budget.width, depth=2, features=64, max_frequency=3.0)
    return rfm.fit(
        x,
        density.manifold,
        field=field,
        refine=False,
        steps=budget.teacher_steps,
        batch_size=budget.teacher_batch,
        validation=0.005,
        out=target,
        resume=True,
        progress=False,
        training=budget.training,
    )


def student(name: str, flow: rfm.Flow, objective: str, budget: Budget, folder: Path) -> rfm.Flow:
    """Return the flow of a map, distilled from a flow by an objective, or the one that lies in the folder."""
    target = folder / f"{name}-{label(objective)}"
    if (target / "flow.json").exists():
        return rfm.Flow.load(target)
    return rfm.distil(
        flow,
        objective=OBJECTIVES[objective],
        solver=TRAJECTORIES,
        points=budget.trajectories,
        steps=budget.steps,
        batch_size=budget.batch,
        out=target,
        resume=True,
        progress=False,
        training=budget.training,
    )


def label(objective: str) -> str:
    """Return the name of an objective as a part of a file's name."""
    return objective.replace(", ", "-").replace(" ", "-")
