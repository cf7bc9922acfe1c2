"""How good restored pictures are: peak signal-to-noise ratio, and whether the spread of draws is that of their errors."""

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import rfm
from experiments.images.methods import TV_WEIGHTS, Method, methods, total_variation
from experiments.images.problems import Restoration
from rfm.integrators import FixedStep, IntegrationError
from rfm.posterior import Sampler

_TUNED_ON = 8
"""Pictures that settings are chosen on, one draw for each."""


@dataclass(frozen=True)
class Row:
    """One method on one task, means over pictures.

    Args:
        prior: name of the pictures.
        task: its name.
        method: its name, with the setting that was chosen.
        mean: peak signal-to-noise ratio of the mean of the draws, in dB.
        single: that of single draws; NaN for a method that gives one picture.
        spread: standard deviation of draws, root mean square over pixels, relative to the error of their mean that
            draws of the posterior would have: 1 where calibrated.
        evaluations: of the velocity, for each draw.
        seconds: for all draws.
    """

    prior: str
    task: str
    method: str
    mean: float
    single: float = math.nan
    spread: float = math.nan
    evaluations: float = 0.0
    seconds: float = 0.0


def signal_to_noise(x: Tensor, truth: Tensor) -> Tensor:
    """Return peak signal-to-noise ratios of pictures with values from -1 to 1, in dB, ``(*batch)``."""
    return 10 * torch.log10(4 / (x.clamp(-1, 1) - truth).square().mean(-1))


def relative_spread(draws: Tensor, truth: Tensor) -> float:
    """Return the spread of draws over the error of their mean, 1 for draws of the posterior, on average.

    Args:
        draws: ``(k, n, pixels)``.
        truth: ``(n, pixels)``.
    """
    error = (draws.mean(0) - truth).square().mean()
    # The mean of k draws is itself off by a k-th of their variance.
    return float((draws.var(0).mean() * (1 + 1 / len(draws)) / error).sqrt())


def restored(flow: rfm.Flow, task: Restoration, method: Method, setting: float, y: Tensor, draws: int) -> tuple[Tensor, float]:
    """Return draws ``(k, n, pixels)`` for each of ``n`` measurements, and evaluations of the velocity for each.

    A method that leaves the range of numbers gives NaN.
    """
    likelihood = task.likelihood(y)
    try:
        found = flow.posterior(
            likelihood, draws * len(y), method=method.make(setting, likelihood), generator=torch.Generator().manual_seed(0)
        )
    except IntegrationError:
        return torch.full((draws, len(y), flow.manifold.dim), math.nan), math.nan
    return found.points.unflatten(0, (draws, len(y))), found.evaluations / len(found.points)


def tuned(settings: Sequence[float], quality: Callable[[float], float]) -> float:
    """Return the setting of the highest quality; the only one untried."""
    if len(settings) == 1:
        return settings[0]
    found = {setting: quality(setting) for setting in settings}
    return max(found, key=lambda setting: -math.inf if math.isnan(found[setting]) else found[setting])


def assess(task: Restoration, flow: rfm.Flow, x: Tensor, held_out: Tensor, draws: int, quick: bool) -> list[Row]:
    """Return how all methods do on a task.

    Args:
        task: what is measured.
        flow: the prior.
        x: test pictures ``(n, pixels)``.
        held_out: pictures to choose settings on.
        draws: for each picture.
        quick: few steps, nothing tuned.
    """
    held_out = held_out[: 2 if quick else _TUNED_ON]
    y, other = task.measured(x, seed=1), task.measured(held_out, seed=2)
    weight = tuned(TV_WEIGHTS[-1:] if quick else TV_WEIGHTS, lambda w: _mean(total_variation(task, other, w), held_out))
    rows = [
        Row(task.prior, task.name, task.naive_name, _mean(task.without_prior(y), x)),
        Row(task.prior, task.name, f"total variation, {weight:g}", _mean(total_variation(task, y, weight), x)),
    ]
    for name, method in methods(task, flow, quick).items():
        settings = method.settings[:1] if quick else method.settings
        setting = tuned(settings, lambda s: _mean(restored(flow, task, method, s, other, 1)[0][0], held_out))
        begun = time.perf_counter()
        found, evaluations = restored(flow, task, method, setting, y, min(draws, method.draws or draws))
        rows.append(
            Row(
                task.prior,
                task.name,
                name if len(method.settings) == 1 else f"{name}, {setting:g}",
                _mean(found.mean(0), x),
                _mean(found, x),
                relative_spread(found, x),
                evaluations,
                time.perf_counter() - begun,
            )
        )
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def _mean(x: Tensor, truth: Tensor) -> float:
    return float(signal_to_noise(x, truth).mean())
