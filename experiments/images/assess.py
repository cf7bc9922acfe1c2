"""How good restored pictures are: their signal-to-noise ratio, and whether draws spread as much as they err."""

import functools
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

import rfm
from experiments.images.methods import TV_WEIGHTS, Method, methods, total_variation
from experiments.images.pictures import Pictures
from experiments.images.priors import with_classes
from experiments.images.problems import Restoration
from rfm.posterior import DivergenceError

_CLASS_KNOWN = "FLOWER"
"""The method that is told the class too, where there are classes."""

_GUIDANCE = (1.0, 2.0)
"""Weights of its guidance: 1 is the conditional flow."""


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


@dataclass(frozen=True)
class Result:
    """What was found on a task.

    Args:
        rows: of the table.
        truth: the pictures ``(n, pixels)``.
        draws: by method ``(k, n, pixels)``; one where a method has no prior.
        chosen: the methods with their settings.
    """

    rows: list[Row]
    truth: Tensor
    draws: dict[str, Tensor]
    chosen: dict[str, tuple[Method, float]]


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


def restored(
    flow: rfm.Flow, task: Restoration, method: Method, setting: float, y: Tensor, draws: int
) -> tuple[Tensor, float]:
    """Return draws ``(k, n, pixels)`` for each of ``n`` measurements, and evaluations of the velocity for each.

    A method that leaves the range of numbers gives NaN.
    """
    likelihood = task.likelihood(y)
    try:
        found = flow.posterior(
            likelihood,
            draws * len(y),
            method=method.make(setting, likelihood),
            generator=torch.Generator().manual_seed(0),
        )
    except DivergenceError:
        return torch.full((draws, len(y), flow.manifold.dim), math.nan), math.nan
    return found.points.unflatten(0, (draws, len(y))), found.evaluations / len(found.points)


def tuned(task: Restoration, flow: rfm.Flow, held_out: Tensor, quick: bool) -> dict[str, tuple[Method, float]]:
    """Return the methods with the setting that does best on pictures held out, by their single draws.

    Args:
        task: what is measured.
        flow: the prior.
        held_out: pictures ``(n, pixels)``.
        quick: few steps, nothing tuned.
    """
    chosen, y = {}, task.measured(held_out, seed=2)

    def quality(method: Method, setting: float) -> float:
        [found], _ = restored(flow, task, method, setting, y, 1)
        # What left the range of numbers is worse than anything.
        return float(signal_to_noise(found, held_out).mean().nan_to_num(-math.inf))

    for name, method in methods(task, flow, quick).items():
        settings = method.settings[:1] if quick else method.settings
        best = settings[0] if len(settings) == 1 else max(settings, key=functools.partial(quality, method))
        chosen[name] = method, best
    return chosen


def tuned_weight(task: Restoration, held_out: Tensor) -> float:
    """Return the weight of total variation that does best on pictures held out."""
    y = task.measured(held_out, seed=2)
    return max(TV_WEIGHTS, key=lambda weight: _mean(total_variation(task, y, weight), held_out))


def assess(
    task: Restoration, flow: rfm.Flow, pictures: Pictures, count: int, held_out: int, draws: int, quick: bool
) -> Result:
    """Return how all methods do on a task.

    Args:
        task: what is measured.
        flow: the prior.
        pictures: those held out for settings, and for tests.
        count: number of test pictures.
        held_out: number of pictures that settings are chosen on, by one draw for each.
        draws: for each test picture.
        quick: few steps, nothing tuned.
    """
    x, validation = pictures.test[:count], pictures.validation[:held_out]
    y = task.measured(x, seed=1)
    weight = TV_WEIGHTS[0] if quick else tuned_weight(task, validation)
    naive, smooth = task.without_prior(y), total_variation(task, y, weight)
    rows = [
        Row(task.prior, task.name, task.naive_name, _mean(naive, x)),
        Row(task.prior, task.name, f"total variation, {weight:g}", _mean(smooth, x)),
    ]
    chosen = tuned(task, flow, validation, quick)
    result = Result(rows, x, {task.naive_name: naive[None], "total variation": smooth[None]}, chosen)
    for name, prior, method, setting in _contest(flow, pictures, count, chosen):
        begun = time.perf_counter()
        found, evaluations = restored(prior, task, method, setting, y, min(draws, method.draws or draws))
        seconds = time.perf_counter() - begun
        full_name = name if len(method.settings) == 1 else f"{name}, {setting:g}"
        quality = _mean(found.mean(0), x), _mean(found, x), relative_spread(found, x)
        rows.append(Row(task.prior, task.name, full_name, *quality, evaluations, seconds))
        result.draws[name] = found
        print(rows[-1], file=sys.stderr, flush=True)
    return result


def _contest(
    flow: rfm.Flow, pictures: Pictures, count: int, chosen: dict[str, tuple[Method, float]]
) -> Iterator[tuple[str, rfm.Flow, Method, float]]:
    """Yield name, prior, method and setting: all methods, then one with the class known."""
    for name, (method, setting) in chosen.items():
        yield name, flow, method, setting
    if pictures.test_labels is not None:
        for guidance in _GUIDANCE:
            name = f"{_CLASS_KNOWN}, class known" + ("" if guidance == 1 else f", guidance {guidance:g}")
            yield name, with_classes(flow, pictures.test_labels[:count], guidance), *chosen[_CLASS_KNOWN]


def _mean(x: Tensor, truth: Tensor) -> float:
    return float(signal_to_noise(x, truth).mean())
