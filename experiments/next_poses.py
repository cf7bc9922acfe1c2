"""Where a camera will be in a while: the density of the next pose given a window of past ones, for several horizons.

Test negative log-likelihoods in nats with respect to dR dp, per cubed radian and cubed metre, of what
`rfm.control.fit_forecast` learns and of four competitors, each a density whose spread is fitted: constant velocity with
normal and with heavy-tailed errors, a linear prediction from the window with heavy-tailed errors, and nearest
neighbours of the window by kernels.
The track is cut into blocks of four seconds, which are held out complete; windows cross no border. In five folds every
block tests once, another fifth validates. Coverage is that of regions of 90 %. A run that was killed goes on where it
was.

    python -m experiments.next_poses [--out runs/next-poses] [--quick]
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import scipy.stats
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rfm.control import LinearMotion, fit_forecast, motion_coordinates, motion_from_coordinates
from rfm.datasets import MotionWindows, desk, motion_windows
from rfm.metrics import negative_log_likelihood, paired_difference
from rfm.regions import coverage

HORIZONS = (0.1, 0.3, 1.0)
FOLDS = 5
FLOW = "flow about a linear prediction"
CONSTANT, HEAVY = "constant velocity, normal errors", "constant velocity, heavy-tailed errors"
LINEAR, NEIGHBOURS = "linear prediction, heavy-tailed errors", "nearest neighbours (kernels)"
OTHERS = (CONSTANT, HEAVY, NEIGHBOURS, LINEAR)
REGION = 0.9
COVERED = 10
"""Coverage is measured on every tenth test window: neighbours nearly repeat each other."""
_DEGREES = (3.0, 4.0, 6.0, 8.0, 12.0, 20.0, 50.0)
_DRAWS = 100

Rows = tuple[Tensor, Tensor, Tensor]
"""Which windows train, validate and test."""


@dataclass(frozen=True)
class Scored:
    """What a density says of the test windows: log-densities ``(n,)``, and whether a region of 90 % holds each."""

    log_prob: Tensor
    held: Tensor


def rows_of(blocks: Tensor, fold: int) -> Rows:
    """Return a fold: a fifth of the blocks tests, the next fifth validates, the others train."""
    names = blocks.unique()
    parts = names[torch.randperm(len(names), generator=torch.Generator().manual_seed(0))].tensor_split(FOLDS)
    test, held = (torch.isin(blocks, parts[(fold + i) % FOLDS]) for i in (0, 1))
    train, held, test = (part.nonzero()[:, 0] for part in (~(test | held), held, test))
    return train, held, test


def constant_velocity(windows: MotionWindows, rows: Rows) -> Tensor:
    """Return the errors' coordinates ``(n, 6)`` of the velocity over a lag, damped in turning and in moving.

    Least squares damps it; the lag is the one whose normal errors make validation likeliest.
    """
    train, held, _ = rows
    future, tried = motion_coordinates(windows.future), []
    for lag in range(len(windows.lags)):
        past = motion_coordinates(windows.past[:, lag])
        guess = []
        for part in (slice(3), slice(3, 6)):
            a, b = past[train][:, part], future[train][:, part]
            guess.append(past[:, part] * ((a * b).sum() / a.square().sum()))
        errors = errors_of(motion_from_coordinates(torch.cat(guess, 1)), windows.future)
        tried.append((float(normal(errors, train)(errors[held]).mean()), errors))
    return max(tried, key=lambda pair: pair[0])[1]


def errors_of(guess: Tensor, future: Tensor) -> Tensor:
    """Return coordinates ``(n, 6)`` of what motions differ by from a guess."""
    return motion_coordinates(torch.linalg.solve(guess, future))


def volume(errors: Tensor) -> Tensor:
    """Return the log-density of dR dp with respect to coordinates: rotation vectors are longer than they reach."""
    half = errors[..., :3].norm(dim=-1) / 2
    return 2 * torch.sinc(half / math.pi).clamp(min=1e-300).log()


def normal(errors: Tensor, train: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the log-density of errors, normal with the covariance of those of training, with respect to dR dp."""
    factor = _factor(errors, train)

    def log_prob(e: Tensor) -> Tensor:
        constant = factor.diagonal().log().sum() + 3 * math.log(2 * math.pi)
        return -_squares(e, factor) / 2 - constant - volume(e)

    return log_prob


def heavy_tailed(errors: Tensor, rows: Rows) -> Scored:
    """Return Student's distribution on the test errors: degrees and scale make validation likeliest."""
    train, held, test = rows
    factor = _factor(errors, train)
    best: tuple[float, float, float] = (-math.inf, 0.0, 0.0)

    def log_prob(e: Tensor, degrees: float, scale: float) -> Tensor:
        gammas = math.lgamma((degrees + 6) / 2) - math.lgamma(degrees / 2) - 3 * math.log(degrees * math.pi)
        constant = gammas - float(factor.diagonal().log().sum()) - 6 * math.log(scale)
        tail = torch.log1p(_squares(e, factor) / scale**2 / degrees)
        return constant - (degrees + 6) / 2 * tail - volume(e)

    for degrees in _DEGREES:
        for scale in torch.logspace(-0.6, 0.3, 19).tolist():
            best = max(best, (float(log_prob(errors[held], degrees, scale).mean()), degrees, scale))
    _, degrees, scale = best
    # The squared distance over six is distributed as F(6, degrees).
    radius = 6 * float(scipy.stats.f.ppf(REGION, 6, degrees))
    held_in = _squares(errors[test], factor) / scale**2 < radius
    return Scored(log_prob(errors[test], degrees, scale), held_in.double())


def nearest(windows: MotionWindows, errors: Tensor, rows: Rows) -> Scored:
    """Return kernels about the errors of constant velocity of like windows, weighted by a kernel in the window.

    Both widths make validation likeliest; a hundredth of the weight is a broad normal distribution.
    """
    train, held, test = rows
    factor = _factor(errors, train)
    white = torch.linalg.solve_triangular(factor, errors.mT, upper=False).mT
    window = motion_coordinates(windows.past).flatten(1)
    window = (window - window[train].mean(0)) / window[train].std(0)
    constant = factor.diagonal().log().sum() + 3 * math.log(2 * math.pi)

    def log_weights(index: Tensor, width: float) -> Tensor:
        return torch.log_softmax(-torch.cdist(window[index], window[train]).square() / (2 * width**2), 1)

    def log_prob(z: Tensor, log_w: Tensor, width: float) -> Tensor:
        kernels = -torch.cdist(z, white[train]).square() / (2 * width**2) - 6 * math.log(width)
        broad = -z.square().sum(-1) / 18 - 6 * math.log(3)
        return torch.logaddexp((log_w + kernels).logsumexp(-1) + math.log(0.99), broad + math.log(0.01)) - constant

    tried = []
    for own in (0.5, 1.0, 2.0, 4.0, 8.0):
        log_w = log_weights(held, own)
        tried += [(float(log_prob(white[held], log_w, width).mean()), own, width) for width in (0.2, 0.4, 0.6, 0.8, 1)]
    _, own, width = max(tried)
    log_w = log_weights(test, own)
    few, generator = torch.arange(0, len(test), COVERED), torch.Generator().manual_seed(0)
    centres = torch.multinomial(log_w[few].exp(), _DRAWS, replacement=True, generator=generator)
    noise = torch.randn(len(few), _DRAWS, 6, generator=generator, dtype=white.dtype)
    kernel = torch.rand(len(few), _DRAWS, 1, generator=generator) < 0.99
    drawn = torch.where(kernel, white[train][centres] + width * noise, 3 * noise)
    at_draws = torch.stack([log_prob(z, w, width) for z, w in zip(drawn, log_w[few], strict=True)])
    at_points = log_prob(white[test], log_w, width)
    held_in = (at_draws > at_points[few][:, None]).double().mean(1) < REGION
    return Scored(at_points - volume(errors[test]), held_in.double())


def scores(windows: MotionWindows, rows: Rows, fold: int, steps: int) -> dict[str, Scored]:
    """Return every density on the test windows of a fold."""
    train, held, test = rows
    errors = constant_velocity(windows, rows)
    factor = _factor(errors, train)
    chi_squared = torch.distributions.Chi2(torch.tensor(6.0, dtype=torch.float64))
    inside = chi_squared.cdf(_squares(errors[test], factor)) < REGION
    linear = LinearMotion.fit(windows.past[train], windows.future[train], windows.past[held], windows.future[held])
    own = _taken(windows, torch.cat([train, held]))
    validation = torch.arange(len(train), len(train) + len(held))
    forecast = fit_forecast(own, validation=validation, steps=steps, seed=fold, progress=False)
    tested = _taken(windows, test)
    few = _taken(windows, test[::COVERED])
    covered = coverage(
        forecast.flow,
        forecast.remainder(few.past, few.future),
        condition=forecast.condition(few.past),
        probabilities=(REGION,),
        groups=few.blocks,
    )
    return {
        CONSTANT: Scored(normal(errors, train)(errors[test]), inside.double()),
        HEAVY: heavy_tailed(errors, rows),
        NEIGHBOURS: nearest(windows, errors, rows),
        LINEAR: heavy_tailed(errors_of(linear(windows.past), windows.future), rows),
        FLOW: Scored(forecast.window_log_prob(tested), (covered.transforms < REGION).double()),
    }


def measure(horizon: float, folds: int, steps: int, every: float, out: Path) -> dict[str, Tensor]:
    """Return what all folds of a horizon gave: by model, and the blocks, of the test windows."""
    dataset = desk()
    windows = motion_windows(dataset.points, dataset.seconds, horizon, every=every)
    found: list[dict[str, Tensor]] = []
    for fold in range(folds):
        file = out / f"{horizon:.3f}-{fold}.safetensors"
        if not file.exists():
            start, rows = time.process_time(), rows_of(windows.blocks, fold)
            own = {"blocks": windows.blocks[rows[2]], "few": windows.blocks[rows[2]][::COVERED]}
            for model, scored in scores(windows, rows, fold, steps).items():
                held = scored.held if len(scored.held) == len(own["few"]) else scored.held[::COVERED]
                own |= {f"{model}/log_prob": scored.log_prob, f"{model}/held": held.contiguous()}
            out.mkdir(parents=True, exist_ok=True)
            save_file({name: value.contiguous() for name, value in own.items()}, file)
            print(f"{horizon:.3f} s, fold {fold}: {time.process_time() - start:.0f} s", file=sys.stderr, flush=True)
        found.append(load_file(file))
    return {name: torch.cat([own[name] for own in found]) for name in found[0]}


def tables(found: Mapping[float, Mapping[str, Tensor]]) -> str:
    """Return test likelihoods, paired differences and coverage, by horizon, as Markdown."""
    models, heads = (*OTHERS, FLOW), [f"{horizon:.3g} s" for horizon in found]
    rule = "|---|" + "---:|" * len(heads)
    blocks = [f"| test NLL, nats | {' | '.join(heads)} |\n{rule}"]
    for model in models:
        estimates = [negative_log_likelihood(own[f"{model}/log_prob"], groups=own["blocks"]) for own in found.values()]
        blocks[-1] += f"\n| {model} | {' | '.join(f'{e.mean:.2f} ± {e.error_text(2)}' for e in estimates)} |"
    blocks.append(f"| flow minus | {' | '.join(heads)} |\n{rule}")
    for model in OTHERS:
        cells = []
        for own in found.values():
            better = paired_difference(-own[f"{FLOW}/log_prob"], -own[f"{model}/log_prob"], groups=own["blocks"])
            low, high = better.interval_95
            cells.append(f"{better.mean:+.2f} ({low:+.2f} to {high:+.2f})")
        blocks[-1] += f"\n| {model} | {' | '.join(cells)} |"
    blocks.append(f"| share in regions of 90 % | {' | '.join(heads)} |\n{rule}")
    for model in models:
        # A mean with a clustered error, of any number: of shares too.
        shares = [negative_log_likelihood(-own[f"{model}/held"], groups=own["few"]) for own in found.values()]
        blocks[-1] += (
            f"\n| {model} | {' | '.join(f'{100 * e.mean:.0f} ± {100 * e.standard_error:.0f} %' for e in shares)} |"
        )
    counts = [f"{len(own['blocks']):,} in {len(own['blocks'].unique())}" for own in found.values()]
    blocks[0] += f"\n| test windows, in blocks | {' | '.join(counts)} |"
    return "\n\n".join(blocks)


def _taken(windows: MotionWindows, rows: Tensor) -> MotionWindows:
    own = (windows.seconds[rows], windows.now[rows], windows.past[rows], windows.future[rows], windows.blocks[rows])
    return MotionWindows(*own, windows.horizon, windows.lags)


def _factor(errors: Tensor, train: Tensor) -> Tensor:
    own = errors[train]
    return torch.linalg.cholesky(own.mT @ own / len(own))


def _squares(errors: Tensor, factor: Tensor) -> Tensor:
    return torch.linalg.solve_triangular(factor, errors.mT, upper=False).square().sum(0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit all folds of all horizons, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m experiments.next_poses", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/next-poses"), help="folder of the scores")
    parser.add_argument("--steps", type=int, default=400, help="optimiser steps of each flow at most (default 400)")
    parser.add_argument("--quick", action="store_true", help="one horizon, few windows and steps, to see that it runs")
    options = parser.parse_args(arguments)
    horizons: Sequence[float] = HORIZONS
    folds, steps, every = FOLDS, options.steps, 1 / 30
    if options.quick:
        horizons, folds, steps, every = (0.3,), 1, 16, 1 / 6
    print(tables({horizon: measure(horizon, folds, steps, every, options.out) for horizon in horizons}))


if __name__ == "__main__":
    main()
