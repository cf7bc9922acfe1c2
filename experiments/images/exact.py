"""How far methods are from draws that are exact in the limit, where these can be had.

A picture of 8 x 8 pixels is a point of 64 dimensions, which particles can explore; one of 28 x 28 is not within reach.
Particles go from the source to the posterior by Hamiltonian moves: they need derivatives through the solve, and cross
the directions that nothing measures in some steps, where a random walk as short as the noise demands needs thousands.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import rfm
from experiments.images.assess import restored
from experiments.images.methods import Method
from experiments.images.problems import Restoration
from experiments.inverse.measures import sliced_wasserstein
from rfm.integrators import MIDPOINT, FixedStep
from rfm.posterior import Hamiltonian, Measurement, Tempering

_SOLVER = FixedStep(MIDPOINT, steps=5)
"""How the prior is carried: the posterior that is exact is that of the flow as it solves, to half of the noise."""
METHOD = Tempering(Hamiltonian(6), moves=2, particles=384)
QUICK = Tempering(Hamiltonian(1), moves=1, particles=16)
"""To see that it runs."""
_SEEDS = (0, 1)
"""Of two independent runs: what they differ by is the unit of all differences."""


@dataclass(frozen=True)
class Run:
    """Draws of a posterior by sequential Monte Carlo, and what is known of them.

    Args:
        y: what was measured.
        points: ``(k, pixels)``.
        worth: so many independent draws.
        founders: draws of the source that they descend from.
        acceptance: of the last moves.
        log_evidence: in nats.
        evaluations: of the velocity, for each draw; half of them with derivatives.
    """

    y: Tensor
    points: Tensor
    worth: float
    founders: float
    acceptance: float
    log_evidence: float
    evaluations: float


@dataclass(frozen=True)
class Deviation:
    """What draws of a method differ by from exact ones, in standard deviations of the posterior, over pictures.

    Args:
        mean: root mean square difference of the means of pixels.
        spread: that of their standard deviations.
        wasserstein: sliced, of order 2.
        misfit: root mean square of the residuals, in units of the noise.
    """

    mean: float
    spread: float
    wasserstein: float
    misfit: float


def exact_runs(
    task: Restoration, flow: rfm.Flow, y: Tensor, out: Path | None, method: Tempering = METHOD
) -> list[tuple[Run, Run]]:
    """Return two independent runs for each measurement ``(n, ...)``.

    Args:
        task: what is measured.
        flow: the prior.
        y: measurements.
        out: folder that keeps runs; what it has is not run again.
        method: how they are drawn.
    """
    pairs = []
    for i, own in enumerate(y):
        name = f"{task.name.partition(',')[0]}-{i}"
        first, second = (_kept(task, flow, own, seed, out and out / f"{name}-{seed}.pt", method) for seed in _SEEDS)
        pairs.append((first, second))
    return pairs


def _kept(task: Restoration, flow: rfm.Flow, y: Tensor, seed: int, path: Path | None, method: Tempering) -> Run:
    if path is not None and path.exists():
        kept = Run(**torch.load(path, weights_only=True))
        if torch.equal(kept.y, y):
            return kept
    run = _run(task, flow, y, seed, method)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(vars(run), path)
    worth = f"worth {run.worth:.0f}, evidence {run.log_evidence:.2f}, {run.evaluations:.0f} evaluations"
    print(f"{task.name}: exact draws {worth}", file=sys.stderr, flush=True)
    return run


def _run(task: Restoration, flow: rfm.Flow, y: Tensor, seed: int, method: Tempering) -> Run:
    count = method.particles
    measured = Measurement(task.physics, y, task.noise, shape=task.shape)
    generator = torch.Generator().manual_seed(seed)
    draws = flow.posterior(measured, count, method=method, solver=_SOLVER, generator=generator)
    known = draws.effective_sample_size, draws.diagnostics["founders"], draws.acceptance, draws.log_evidence
    return Run(y, draws.points, *known, draws.evaluations / count)


def deviations(
    task: Restoration,
    flow: rfm.Flow,
    y: Tensor,
    exact: Sequence[tuple[Run, Run]],
    chosen: Mapping[str, tuple[Method, float]],
) -> dict[str, Deviation]:
    """Return how far the methods are from exact draws; first what two exact runs differ by.

    Draws of a method are as many as those of a run, and are compared with each run on its own, as the two runs are with
    one another: a method that is exact differs by no more than these. Methods too costly for that are left out.

    Args:
        task: what is measured.
        flow: the prior.
        y: measurements ``(n, ...)``.
        exact: runs of each.
        chosen: the methods with their settings.
    """
    runs = torch.stack([torch.stack([run.points for run in pair]) for pair in exact], dim=2)
    found = {"exact, another run": deviation(task, runs[0], runs[1:], y)}
    for name, (method, setting) in chosen.items():
        if method.draws:
            continue
        draws, _ = restored(flow, task, method, setting, y, runs.shape[1])
        found[name] = deviation(task, draws, runs, y)
        print(f"{task.name}, {name}: {found[name]}", file=sys.stderr, flush=True)
    return found


def deviation(task: Restoration, draws: Tensor, runs: Tensor, y: Tensor) -> Deviation:
    """Return the deviation of draws ``(k, n, pixels)`` from runs ``(r, k, n, pixels)``, root mean squares over both."""
    unit = runs.var(1).mean((0, -1)).sqrt()
    mean = (draws.mean(0) - runs.mean(1)).square().mean(-1).sqrt() / unit
    spread = (draws.std(0) - runs.std(1)).square().mean(-1).sqrt() / unit
    apart = torch.tensor([[sliced_wasserstein(draws[:, i], run[:, i]) for i in range(len(y))] for run in runs]) / unit
    residual = (task.physics.A(draws.reshape(-1, *task.shape)) - y.repeat(len(draws), 1, 1, 1)) / task.noise
    return Deviation(*(float(value.square().mean().sqrt()) for value in (mean, spread, apart, residual)))
