"""A full training step beside the bare network's, and beside the loop of the reference implementation.

That loop (riemannian-fm's ``train.py``, read as a recipe, not run) draws batches from a ``DataLoader``, takes positions
and velocities of paths by ``vmap(jvp)``, and trains a perceptron that reads coordinates and time.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from experiments.benchmarks.harness import Row
from manifolds import Sphere
from rfm.flow import Flow
from rfm.networks import VelocityField
from rfm.objectives import FlowMatching
from rfm.training import Budget, Points, Run, Training, train


def rows(turns: int = 9, steps: int = 60) -> Iterator[Row]:
    """Time `train` as `fit` calls it, without validations, at the default batch and at width 512."""
    for width, batch in ((256, 512), (512, 1024)):
        what = f"training step on S^2, batch {batch}, width {width}, beside the bare network's step"
        yield _row(what, _bare, width, batch, 1.1, turns, steps)
    for width in (128, 512):
        what = f"training step on S^2, batch 512, width {width}, beside a DataLoader loop with a perceptron"
        yield _row(what, loader_loop, width, 512, 1.0, turns, steps)


def _row(
    what: str, other: Callable[[int, int, int], float], width: int, batch: int, goal: float, turns: int, steps: int
) -> Row:
    return steps_in_turns(
        what, lambda: timed_training(width, batch, steps)[0], lambda: other(width, batch, steps), width, goal, turns
    )


def steps_in_turns(
    what: str, ours: Callable[[], float], other: Callable[[], float], width: int, goal: float, turns: int
) -> Row:
    """Return the comparison of two functions that time themselves and return seconds per step."""
    ratios, times, others = [], [], []
    for turn in range(turns + 1):
        pair = [0.0, 0.0]
        for i in (0, 1) if turn % 2 else (1, 0):
            pair[i] = (ours, other)[i]()
        if turn:
            times.append(pair[0])
            others.append(pair[1])
            ratios.append(pair[0] / pair[1])
    middle = turns // 2
    parameters = sum(p.numel() for p in VelocityField(Sphere(2), width=width).parameters())
    return Row(
        what, sorted(times)[middle], sorted(others)[middle], sorted(ratios)[middle], goal, parameters, "our parameters"
    )


def timed_training(
    width: int, batch: int, steps: int, device: str = "cpu", capture: bool = True
) -> tuple[float, float]:
    """Return seconds per step of the training loop, the first ten left out, and the norm of all weights after them."""
    torch.manual_seed(0)
    sphere = Sphere(2)
    flow = Flow(sphere, VelocityField(sphere, width=width))
    data = Points(sphere.random_uniform(10_000, generator=torch.Generator().manual_seed(0)))
    stamps: list[float] = []
    budget = Budget(steps=10**9, batch_size=batch, learning_rate=1e-3, seed=0, max_seconds=None)

    class _EnoughError(Exception):
        pass

    def report(spent: float, record: dict[str, object]) -> None:
        stamps.append(_now(device, len(stamps) in (9, steps - 1)))
        if len(stamps) == steps:
            raise _EnoughError

    run = Run(budget, training=Training(capture=capture), device=device, progress=report)
    with run.launched(), contextlib.suppress(_EnoughError):
        train(flow, data, data.take(torch.arange(10)), run, objective=FlowMatching())
    norm = torch.nn.utils.parameters_to_vector(flow.parameters()).detach().double().norm()
    return (stamps[-1] - stamps[9]) / (steps - 10), float(norm)


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


def _now(device: str, exact: bool) -> float:
    """Return the time; if it has to be exact, once the GPU has finished all its work."""
    if exact and device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def loader_loop(width: int, batch: int, steps: int, device: str = "cpu", loads: bool = True) -> float:
    """Return seconds per step of a plain loop: loader, velocities by autodiff, a perceptron of six layers, Adam.

    Without the loader, batches are drawn from points that are on the device already.
    """
    sphere = Sphere(2)
    points = sphere.random_uniform(10_000, generator=torch.Generator().manual_seed(0))
    loader: Iterable[tuple[Tensor] | list[Tensor]]
    if loads:
        dataset, pinned = TensorDataset(points), device != "cpu"
        loader = DataLoader(dataset, batch_size=batch, shuffle=True, drop_last=True, pin_memory=pinned)
    else:
        there = points.to(device)
        loader = ((there[torch.randint(len(there), (batch,), device=device)],) for _ in range(steps))
    sizes = [4, *(width,) * 6]
    layers = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.SiLU())]
    field = nn.Sequential(*layers, nn.Linear(width, 3)).to(device)
    optimizer = torch.optim.Adam(field.parameters(), lr=1e-3)

    def path(a: Tensor, b: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        x_t, dx_t = torch.func.jvp(lambda s: sphere.expmap(a, s * sphere.logmap(a, b)), (t,), (torch.ones_like(t),))[:2]
        return x_t, dx_t

    stamps: list[float] = []
    while len(stamps) < steps:
        for (x_1,) in loader:
            x_1 = x_1.to(device, non_blocking=True)
            x_0, t = sphere.random_uniform(len(x_1), device=device), torch.rand(len(x_1), device=device)
            x_t, dx_t = torch.func.vmap(path)(x_0, x_1, t)
            velocity = sphere.proju(x_t, field(torch.cat([x_t, t[:, None]], dim=-1)))
            loss = (velocity - dx_t).square().sum(-1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            stamps.append(_now(device, len(stamps) in (9, steps - 1)))
            if len(stamps) == steps:
                break
    return (stamps[steps - 1] - stamps[9]) / (steps - 10)
