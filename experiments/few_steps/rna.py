"""The published figure of few-step samplers, a biased discrepancy on RNA's seven torsion angles, beside its floor."""

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import rfm
from experiments.few_steps.airports import kept, plan
from experiments.few_steps.measures import samples
from experiments.few_steps.training import EQUATION, MAIN, OBJECTIVES, Budget
from experiments.torsions import rna_angles
from manifolds import FlatTorus
from rfm.metrics import GeodesicGaussianKernel
from rfm.networks import VelocityField

_SPLITS = 20
_TORUS = FlatTorus(7)


def measure_rna(budget: Budget, folder: Path) -> dict[str, Any]:
    """Return the published measure of one jump, of the equation, and of training rows in their place."""
    x = _TORUS.projx(rna_angles(published=True)[0].float())
    floor = []
    for seed in range(_SPLITS):
        test, train = _split(x, seed)
        rows = torch.randint(len(train), (len(test),), generator=torch.Generator().manual_seed(seed))
        floor.append(biased_discrepancy(train[rows], test))
    test, train = _split(x, 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        field = VelocityField(_TORUS, width=2 * budget.width, depth=2, features=2 * budget.width, max_frequency=4.0)
    own = {"field": field, "refine": False, **plan(budget, 2)}
    flow = kept(folder / "rna-teacher", lambda: rfm.fit(train, _TORUS, **own))
    distilled = kept(
        folder / f"rna-{MAIN}",
        lambda: rfm.distil(flow, objective=OBJECTIVES[MAIN], solver=EQUATION, **plan(budget, 1)),
    )
    drawn = {
        "one jump": samples(distilled, len(test), 2, steps=1)[0],
        "equation": samples(flow, len(test), 2, solver=EQUATION)[0],
    }
    values = torch.tensor(floor)
    return {
        "count": len(test),
        "floor": float(values.mean()),
        "floor_spread": float(values.std()),
        **{name: biased_discrepancy(own, test) for name, own in drawn.items()},
        "date": time.strftime("%Y-%m-%d"),
    }


def biased_discrepancy(x: Tensor, y: Tensor) -> float:
    """Return the root of the V-statistic with the kernel ``exp(-d^2)``, in which each point meets itself."""
    kernel = GeodesicGaussianKernel(_TORUS, 0.5**0.5)
    means = [
        torch.cat([kernel(p[:, None], b).mean(1) for p in a.split(256)]).mean() for a, b in ((x, x), (y, y), (x, y))
    ]
    return float((means[0] + means[1] - 2 * means[2]).clamp(min=0).sqrt())


def _split(x: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))]
    return x[: len(x) // 10], x[len(x) // 10 :]
