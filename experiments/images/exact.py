"""How far methods are from draws that are exact in the limit, where these can be had.

A picture of 8 x 8 pixels is a point of 64 dimensions, which particles can explore; one of 28 x 28 is not within reach.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

import rfm
from experiments.images.assess import restored
from experiments.images.methods import Method
from experiments.images.problems import Restoration
from rfm.integrators import EULER, FixedStep
from rfm.posterior import Measurement, Tempering

SOLVER = FixedStep(EULER, steps=10)
"""How the prior is carried: the posterior that is exact is that of the flow as it solves."""


@dataclass(frozen=True)
class Deviation:
    """Draws of a method beside exact ones, over pixels and pictures.

    Args:
        method: its name.
        mean: root mean square difference of the means, in units of the exact standard deviation.
        spread: root mean square of the standard deviations over that of the exact ones.
        misfit: root mean square of the residuals, in units of the noise.
    """

    method: str
    mean: float
    spread: float
    misfit: float


def exact_draws(task: Restoration, flow: rfm.Flow, y: Tensor, quick: bool) -> Tensor:
    """Return draws of the posterior of each measurement by sequential Monte Carlo, ``(k, n, pixels)``."""
    count = 32 if quick else 256
    method = Tempering(moves=1 if quick else 15, particles=count)
    found = []
    for i, own in enumerate(y):
        measured = Measurement(task.physics, own, task.noise, shape=task.shape)
        generator = torch.Generator().manual_seed(i)
        draws = flow.posterior(measured, count, method=method, solver=SOLVER, generator=generator)
        worth = f"worth {draws.effective_sample_size:.0f}, {draws.evaluations / count:.0f} evaluations per draw"
        print(f"exact draws of picture {i}: {worth}", *draws.warnings, sep="; ", file=sys.stderr, flush=True)
        found.append(draws.points)
    return torch.stack(found, dim=1)


def deviations(
    task: Restoration, flow: rfm.Flow, y: Tensor, chosen: Mapping[str, tuple[Method, float]], draws: int, quick: bool
) -> list[Deviation]:
    """Return how far the methods are from exact draws.

    Args:
        task: what is measured.
        flow: the prior.
        y: measurements ``(n, ...)``.
        chosen: the methods with their settings.
        draws: for each measurement.
        quick: few particles.
    """
    exact = exact_draws(task, flow, y, quick)
    mean, variance = exact.mean(0), exact.var(0).mean()

    def deviation(name: str, found: Tensor) -> Deviation:
        # The means of k draws differ by a k-th of the variance even where all is exact.
        off = (found.mean(0) - mean).square().mean() / variance
        residual = (task.physics.A(found.reshape(-1, *task.shape)) - y.repeat(len(found), 1, 1, 1)) / task.noise
        spread = (found.var(0).mean() / variance).sqrt()
        return Deviation(name, float(off.sqrt()), float(spread), float(residual.square().mean().sqrt()))

    halves = exact.unflatten(0, (2, -1))
    rows = [deviation("Tempering", exact), deviation("Tempering, half of its particles", halves[0])]
    rows += [deviation(name, restored(flow, task, m, setting, y, draws)[0]) for name, (m, setting) in chosen.items()]
    return rows
