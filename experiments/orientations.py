"""Orientations of the grains of a steel given their phase, on SO(3) modulo the 24 rotations of the cube.

Test negative log-likelihood in nats with respect to the volume of SO(3), 8 pi^2 in all, for uniform, kernel densities
and a flow, and pole figures of data and samples. Grains are larger than the distance between measurements, so the map
is cut into blocks, which are held out whole: each fold trains on 9 of 15, validates on 3 and tests on 3, and intervals
are clustered by block. With five folds every block is tested once. A run that was killed goes on where it was.

    python -m experiments.orientations [--out runs/orientations] [--figure docs/images/orientations.png] [--quick]
"""

import argparse
import itertools
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import rfm
from manifolds import SO3, Octahedral, Quotient, RightMultiplication
from rfm.command_line.run_folder import RunData
from rfm.conditions import Conditions
from rfm.datasets import MapDataset, Orientations, Split, block_labels, steel
from rfm.integrators import Adaptive
from rfm.metrics import Estimate, negative_log_likelihood, paired_difference
from rfm.networks import VelocityField
from rfm.paths.times import UniformAndLateTimes
from rfm.plotting import plot_pole_figures, save_figure
from rfm.sources import KernelMixture

CUBE = Octahedral()
CUBIC = Quotient(SO3(), RightMultiplication(CUBE))
BLOCK_MICROMETRES = (58.5, 30.0)
"""Grains are longer along x. Two points this far apart are seldom in one grain."""

COORDINATES = Orientations(("phi1", "Phi", "phi2"), "bunge", radians=True)
CONCENTRATIONS = torch.logspace(0.5, 5, 16, dtype=torch.float64)
"""Down to kernels of 0.2 degrees, finer than the measurement."""

_CENTRES_EVERY = 3
SMOOTHED = 200_000
"""Points drawn from the kernels for the flow to learn."""

SOLVER = Adaptive(atol=1e-3, rtol=1e-3)
"""A thousandth of a radian cannot be seen, and moves the mean log-density by less than a hundredth of a nat."""

BANDS_MICROMETRES = (0.0, 8.0, 16.0, math.inf)
"""Of the distance from a test point to the nearest training point."""

KEPT_WIDTHS = (5, 7, 9, 11, 13, 16)
"""How many of the kernels, from the broadest on, the mixtures have that show what sharpness is worth."""

MODELS = ("uniform", "kernel mixture", "kernel mixture, by phase", "flow without phase", "flow with phase")


@dataclass(frozen=True)
class Options:
    """How much to do.

    Args:
        every: take each so-manieth point of the map.
        folds: how many of the five folds to fit.
        steps: optimiser steps of each.
        width: of the network.
        smoothed: points drawn from the kernels to train on.
        samples: drawn for the pole figures, of each phase.
        seed: of the folds and of training.
    """

    every: int = 1
    folds: int = 1
    steps: int = 1500
    width: int = 192
    smoothed: int = SMOOTHED
    samples: int = 1000
    seed: int = 0


def split_of(blocks: Tensor, fold: int, seed: int) -> Split:
    """Return a fold: a fifth of the blocks tests, the next fifth validates, the others train."""
    names = blocks.unique()
    parts = names[torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))].chunk(5)
    test, validation = (torch.isin(blocks, parts[(fold + i) % 5]) for i in (0, 1))
    return Split(*((part).nonzero()[:, 0] for part in (~(test | validation), validation, test)))


def run_data(dataset: MapDataset, options: Options) -> tuple[RunData, Conditions]:
    """Return the data of all folds, with the split of the first."""
    blocks = block_labels(dataset.map.places, BLOCK_MICROMETRES)[:: options.every]
    values = {"phase": dataset.map.phases[:: options.every]}
    conditions = Conditions.of(values)
    points = dataset.points[:: options.every]
    split = split_of(blocks, 0, options.seed)
    source = f"{dataset.name}: {dataset.source}"
    condition = conditions.encode(values)
    return RunData(points, split, COORDINATES, source, dataset.sha256, condition, blocks=blocks), conditions


def kernels(data: RunData, seed: int, entry: int | None = None, widths: int = 16) -> KernelMixture:
    """Return the kernel mixture of a fold, or that of the phase with this entry; validation weighs its widths."""
    assert data.condition is not None
    # A thousand points settle the weights of sixteen kernels; of a row every third point is a centre, as those between
    # lie in the same grain.
    order = torch.randperm(len(data.split.validation), generator=torch.Generator().manual_seed(seed))
    parts = [data.split.train[::_CENTRES_EVERY], data.split.validation[order[:1000]]]
    if entry is not None:
        parts = [part[data.condition[part, 0] == entry] for part in parts]
    points = [data.points[part] for part in parts]
    return KernelMixture.mixture(CUBIC, *points, concentrations=CONCENTRATIONS[:widths])


def by_phase(data: RunData, phases: int, seed: int, index: Tensor, widths: int = 16) -> Tensor:
    """Return the log-densities of points, given by index, under the kernel mixtures of their phases."""
    assert data.condition is not None
    log_prob = torch.empty(len(index), dtype=torch.float64)
    for entry in range(phases):
        here = data.condition[index, 0] == entry
        log_prob[here] = kernels(data, seed, entry, widths).log_prob(data.points[index[here]])
    return log_prob


def smoothed(data: RunData, phases: int, options: Options) -> tuple[Tensor, Tensor]:
    """Return what the flow learns: points and their phases, drawn from the kernel mixture of each phase.

    A flow that is shown the measurements themselves learns where the training grains are, and that other grains are
    nowhere; how far to doubt them is what the mixture has learned in validation.
    """
    assert data.condition is not None
    count = data.condition[data.split.train, 0].long().bincount() * options.smoothed // len(data.split.train)
    generator = torch.Generator().manual_seed(options.seed)
    drawn = [kernels(data, options.seed, i).sample((int(count[i]),), generator, torch.float64) for i in range(phases)]
    return torch.cat(drawn), torch.arange(phases).repeat_interleave(count)[:, None].double()


def fitted(data: RunData, conditions: Conditions, options: Options, out: Path) -> rfm.Flow:
    """Fit a fold, or go on with it, or load it; its folder is one that ``rfm`` commands take."""
    points, condition = smoothed(data, conditions.labels[0], options)
    # Likelihoods are exact, and cost more than training does: some of the validation blocks' points will do.
    held = data.split.validation[:: max(1, len(data.split.validation) // 256)]
    assert data.condition is not None
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        field = VelocityField(
            CUBIC,
            width=options.width,
            depth=3,
            features=2 * options.width,
            max_frequency=40.0,
            condition_dim=1,
            condition_labels=conditions.labels,
        )
    flow = rfm.fit(
        torch.cat([points, data.points[held]]),
        CUBIC,
        condition=torch.cat([condition, data.condition[held]]),
        conditions=conditions,
        validation=torch.arange(len(points), len(points) + len(held)),
        field=field,
        objective=rfm.FlowMatching(times=UniformAndLateTimes(finest=0.003)),
        # The points are drawn from kernels as it is; `experiments.conditional` refines.
        refine=False,
        batch_size=512,
        steps=options.steps,
        seed=options.seed,
        device="cpu",
        out=out,
        resume=True,
    )
    data.save(out)
    return flow


def scores(flow: rfm.Flow, data: RunData, conditions: Conditions, seed: int) -> Tensor:
    """Return the log-densities of the test points under each of `MODELS`, ``(n, 5)``."""
    assert data.condition is not None
    test = data.split.test
    x = data.points[test]
    columns = [
        torch.full((len(test),), -math.log(8 * math.pi**2), dtype=torch.float64),
        kernels(data, seed).log_prob(x),
        by_phase(data, conditions.labels[0], seed, test),
    ]
    for condition in (None, data.condition[test]):
        columns.append(flow.log_prob(x, condition=condition, solver=SOLVER).double())
    return torch.stack(columns, dim=-1)


def cached_scores(flow: rfm.Flow, data: RunData, conditions: Conditions, seed: int, out: Path) -> Tensor:
    """Return `scores`, kept beside the flow: after a kill they are not computed again."""
    from safetensors.torch import load_file, save_file

    file = out / "scores.safetensors"
    if not file.exists():
        temporary = file.with_suffix(".partial")
        save_file({"log_prob": scores(flow, data, conditions, seed)}, temporary)
        temporary.replace(file)
    return load_file(file)["log_prob"]


def table(log_prob: Tensor, blocks: Tensor) -> str:
    """Return the results as Markdown."""
    lines = ["| model | test NLL, nats | standard error |", "|---|---:|---:|"]
    for name, column in zip(MODELS, log_prob.mT, strict=True):
        nll = negative_log_likelihood(column, groups=blocks)
        lines.append(f"| {name} | {nll.mean:.2f} | {nll.error_text(2)} |")
    flow, kernel, free = (-log_prob[:, MODELS.index(n)] for n in (MODELS[4], MODELS[2], MODELS[3]))
    lines.append("")
    lines.append(f"flow with phase minus kernel mixture by phase: {words(paired_difference(flow, kernel, blocks))}")
    lines.append(f"flow with minus without phase: {words(paired_difference(flow, free, blocks))}")
    return "\n".join(lines)


def to_training(places: Tensor, split: Split) -> Tensor:
    """Return the distance from each test point of a map to the nearest training point, in micrometres."""
    train = places[split.train]
    return torch.cat([torch.cdist(part, train).amin(1) for part in places[split.test].split(256)])


def distance_table(log_prob: Tensor, distance: Tensor) -> str:
    """Return the results by the distance to what was trained on, as Markdown."""
    shown = [MODELS.index(name) for name in ("kernel mixture, by phase", "flow with phase")]
    lines = [f"| distance, micrometres | points | {' | '.join(MODELS[i] for i in shown)} |", "|---|---:|---:|---:|"]
    for low, high in itertools.pairwise(BANDS_MICROMETRES):
        own = -log_prob[(distance > low) & (distance <= high)][:, shown]
        band = f"above {low:g}" if high == math.inf else f"{low:g} to {high:g}" if low else f"up to {high:g}"
        if len(own):
            lines.append(f"| {band} | {len(own):,} | {' | '.join(f'{nll:.2f}' for nll in own.mean(0).tolist())} |")
    return "\n".join(lines)


def width_table(folds: Sequence[RunData], phases: int, seed: int) -> str:
    """Return what kernels that are no narrower than some width lose, by every fourth test point, as Markdown."""
    lines = ["| narrowest kernel, degrees | kernel mixture, by phase |", "|---:|---:|"]
    for widths in KEPT_WIDTHS:
        log_prob = torch.cat([by_phase(data, phases, seed, data.split.test[::4], widths) for data in folds])
        degrees = math.degrees(float(CONCENTRATIONS[widths - 1]) ** -0.5)
        lines.append(f"| {degrees:.1f} | {-float(log_prob.mean()):.2f} |")
    return "\n".join(lines)


def words(difference: Estimate) -> str:
    """Return a difference of NLLs with its interval."""
    return f"{difference.words(2)} nats, {difference.count} block{'s' * (difference.count > 1)}"


def picture(flow: rfm.Flow, data: RunData, conditions: Conditions, options: Options, path: Path) -> None:
    """Draw pole figures of each phase: as many data, of the full map, as samples."""
    assert data.condition is not None
    rows = {}
    for entry, phase in enumerate(conditions.columns[0].values):  # type: ignore[union-attr]
        own = data.points[data.condition[:, 0] == entry]
        order = torch.randperm(len(own), generator=torch.Generator().manual_seed(options.seed))
        own = own[order[: options.samples]]
        generator = torch.Generator().manual_seed(options.seed)
        drawn = flow.sample(options.samples, condition={"phase": phase}, generator=generator, solver=SOLVER)
        rows[phase] = {f"data ({len(own):,})": own, f"samples ({len(drawn):,})": drawn}
    cells = 56 if options.every == 1 else 16
    save_figure(plot_pole_figures(rows, CUBE, cells=cells), path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m experiments.orientations", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/orientations"), help="folder for a run per fold")
    parser.add_argument("--steps", type=int, default=Options.steps, help="optimiser steps of each fold (default 1500)")
    parser.add_argument("--folds", type=int, default=Options.folds, help="of five, how many to fit (default 1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figure", type=Path, help="PNG file for the pole figures (default: in --out)")
    parser.add_argument("--quick", action="store_true", help="a few points and steps of one fold, to see that it runs")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit the folds, print the tables, and draw the pole figures of the first fold's flow."""
    parsed = _parser().parse_args(arguments)
    options = Options(folds=parsed.folds, steps=parsed.steps, seed=parsed.seed)
    if parsed.quick:
        options = Options(every=97, folds=1, steps=12, width=32, smoothed=500, samples=50, seed=parsed.seed)
    dataset = steel()
    print(f"{len(dataset)} orientations, {dataset.map.dropped} not indexed and dropped", file=sys.stderr)
    data, conditions = run_data(dataset, options)
    places = torch.as_tensor(dataset.map.places)[:: options.every]
    scores_by_fold, folds, flows = [], [], []
    for fold in range(options.folds):
        own = RunData(**{**data.__dict__, "split": split_of(data.blocks, fold, options.seed)})  # type: ignore[arg-type]
        out = parsed.out / f"fold-{fold}"
        flow = fitted(own, conditions, options, out)
        print(f"fold {fold}: {flow.stopped}, {flow.history[-1]['cpu_seconds']:.0f} s of one core", file=sys.stderr)
        scores_by_fold.append(cached_scores(flow, own, conditions, options.seed, out))
        folds.append(own)
        flows.append(flow)
    assert data.blocks is not None
    log_prob = torch.cat(scores_by_fold)
    print(table(log_prob, torch.cat([data.blocks[own.split.test] for own in folds])), end="\n\n")
    print(distance_table(log_prob, torch.cat([to_training(places, own.split) for own in folds])), end="\n\n")
    print(width_table(folds, conditions.labels[0], options.seed), flush=True)
    picture(flows[0], data, conditions, options, parsed.figure or parsed.out / "pole-figures.png")


if __name__ == "__main__":
    main()
