"""A whole training step beside the bare network's, and beside the loop of the reference implementation.

That loop (riemannian-fm's ``train.py``, read as a recipe, not run) draws batches from a ``DataLoader``, takes positions
and velocities of paths by ``vmap(jvp)``, and trains a perceptron that reads coordinates and time.
"""

import contextlib
import time

import torch

from experiments.benchmarks.harness import Row
from manifolds import Sphere
from rfm.fitting import launched
from rfm.flow import Flow
from rfm.networks import VelocityField
from rfm.training import Budget, Points, train


def rows(turns: int = 9, steps: int = 60) -> list[Row]:
    """Time `rfm.training.train` as `fit` calls it, without validations, at the default sizes and at width 512."""
    return [_row(width, batch, turns, steps) for width, batch in ((256, 512), (512, 1024))]


def _row(width: int, batch: int, turns: int, steps: int) -> Row:
    ratios, ours, bare = [], [], []
    for turn in range(turns + 1):
        pair = [0.0, 0.0]
        for i in (0, 1) if turn % 2 else (1, 0):
            pair[i] = (_training, _bare)[i](width, batch, steps)
        if turn:
            ours.append(pair[0])
            bare.append(pair[1])
            ratios.append(pair[0] / pair[1])
    middle = turns // 2
    what = f"training step on S^2, batch {batch}, width {width}, beside the bare network's step"
    parameters = sum(p.numel() for p in VelocityField(Sphere(2), width=width).parameters())
    return Row(
        what, sorted(ours)[middle], sorted(bare)[middle], sorted(ratios)[middle], 1.15, parameters, "same parameters"
    )


def _training(width: int, batch: int, steps: int) -> float:
    """Return seconds per step of the training loop, the first ten left out."""
    sphere = Sphere(2)
    flow = Flow(sphere, VelocityField(sphere, width=width))
    data = Points(sphere.random_uniform(10_000, generator=torch.Generator().manual_seed(0)))
    stamps = []
    budget = Budget(steps=10**9, batch_size=batch, learning_rate=1e-3, seed=0, max_seconds=None)

    class _EnoughError(Exception):
        pass

    def report(spent: float, record: dict[str, object]) -> None:
        stamps.append(time.perf_counter())
        if len(stamps) == steps:
            raise _EnoughError

    with launched(None, "cpu") as fabric, contextlib.suppress(_EnoughError):
        train(flow, data, data.take(torch.arange(10)), budget, fabric, report=report)
    return (stamps[-1] - stamps[9]) / (steps - 10)


def _bare(width: int, batch: int, steps: int) -> float:
    """Return seconds per step of the network alone, on fixed inputs."""
    sphere = Sphere(2)
    generator = torch.Generator().manual_seed(0)
    field = VelocityField(sphere, width=width)
    optimizer = torch.optim.AdamW(field.parameters(), lr=1e-3, fused=True)
    x, t = sphere.random_uniform(batch, generator=generator), torch.rand(batch, generator=generator)
    target = sphere.proju(x, torch.randn(batch, 3, generator=generator))
    start = 0.0
    for step in range(steps):
        if step == 10:
            start = time.perf_counter()
        loss = (field(x, t) - target).square().sum(-1).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return (time.perf_counter() - start) / (steps - 10)
