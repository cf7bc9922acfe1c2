"""Orientations of the grains of a steel given their phase, on SO(3) modulo the 24 rotations of the cube.

Test negative log-likelihood in nats with respect to the volume of SO(3), 8 pi^2 in all, of the uniform density, a flow,
the flow refined as `rfm.fit` returns it, and kernel densities, as in the study of conditions; pole figures of data and
samples. Grains are larger than the distance between measurements, so the map is cut into blocks, which are held out
complete: each fold trains on 9 of 15, validates on 3 and tests on 3, kernels and refinement are chosen by block, and
intervals are clustered by block. With five folds every block is tested once. A run that was killed goes on where it
was.

    python -m experiments.orientations [--folds 5] [--out runs/orientations] [--figure docs/images/orientations.png]
"""

import argparse
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import rfm
from experiments.density_study import (
    FLOW,
    ONE_KERNEL,
    PER_CONDITION,
    REFINED,
    Density,
    Problem,
    Scores,
    add_arguments,
    label_table,
    labels_of,
    measure,
    tables,
)
from manifolds import SO3, Octahedral, Quotient, RightMultiplication
from rfm.conditions import Conditions
from rfm.datasets import Split, block_labels, steel
from rfm.integrators import Adaptive
from rfm.networks import VelocityField
from rfm.plotting import plot_pole_figures, save_figure

CUBE = Octahedral()
CUBIC = Quotient(SO3(), RightMultiplication(CUBE))
BLOCK_MICROMETRES = (58.5, 30.0)
"""Grains are longer along x. Two points this far apart are seldom in one grain."""
FOLDS = 5
EVERY = 4
"""Of the map every fourth point: those between lie in the same grain."""
STEPS = 600
UNIFORM = "uniform"
BANDS_MICROMETRES = (0.0, 8.0, 16.0, math.inf)
"""Of the distance from a test point to the nearest training point."""
SOLVER = Adaptive(atol=1e-3, rtol=1e-3)
"""Of what is drawn: a thousandth of a radian cannot be seen."""
_SAMPLES = 1000


def split_of(blocks: Tensor, fold: int, seed: int) -> Split:
    """Return a fold: a fifth of the blocks tests, the next fifth validates, the others train."""
    names = blocks.unique()
    parts = names[torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))].chunk(FOLDS)
    test, validation = (torch.isin(blocks, parts[(fold + i) % FOLDS]) for i in (0, 1))
    return Split(*((part).nonzero()[:, 0] for part in (~(test | validation), validation, test)))


def problem(folds: int, every: int = EVERY) -> Problem:
    """Return the orientations given their phase; the seeds of the splits are the folds.

    Args:
        folds: how many of the five.
        every: take each so-manieth point of the map.
    """
    dataset = steel()
    phases = dataset.map.phases[::every]
    conditions = Conditions.of({"phase": phases})
    blocks = block_labels(dataset.map.places, BLOCK_MICROMETRES)[::every]

    def network(seed: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            own: dict[str, Any] = {"condition_dim": 1, "condition_labels": conditions.labels}
            # Points of one grain are near-copies: the default frequency follows them, and finds the training grains.
            return VelocityField(CUBIC, width=128, depth=3, features=256, max_frequency=20.0, **own)

    return Problem(
        "steel, phase",
        CUBIC,
        dataset.points[::every],
        labels_of([str(label) for label in blocks.tolist()]),
        lambda fold: split_of(blocks, fold % FOLDS, fold // FOLDS),
        range(folds),
        {UNIFORM: _uniform},
        conditions.encode({"phase": phases}),
        conditions,
        network,
        grouped=True,
    )


def _uniform(train: Tensor, validation: Tensor, seed: int) -> Density:
    def log_prob(x: Tensor) -> Tensor:
        return torch.full((len(x),), -math.log(8 * math.pi**2), dtype=torch.float64)

    return log_prob


def to_training(places: Tensor, split: Split) -> Tensor:
    """Return the distance from each test point of a map to the nearest training point, in micrometres."""
    train = places[split.train]
    return torch.cat([torch.cdist(part, train).amin(1) for part in places[split.test].split(256)])


def distance_table(found: Mapping[int, Scores], distance: Tensor) -> str:
    """Return the results by the distance of the test points to what was trained on, as Markdown."""
    shown = (PER_CONDITION, ONE_KERNEL, FLOW, REFINED)
    log_prob = {model: torch.cat([scores.log_prob[model] for scores in found.values()]) for model in shown}
    lines = [f"| distance, micrometres | points | {' | '.join(shown)} |", "|---|" + "---:|" * (1 + len(shown))]
    for low, high in itertools.pairwise(BANDS_MICROMETRES):
        own = (distance > low) & (distance <= high)
        band = f"above {low:g}" if high == math.inf else f"{low:g} to {high:g}" if low else f"up to {high:g}"
        if bool(own.any()):
            cells = [f"{-float(log_prob[model][own].mean()):.2f}" for model in shown]
            lines.append(f"| {band} | {int(own.sum()):,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _phases(one: Problem) -> list[str]:
    assert one.conditions is not None
    count = one.conditions.labels[0]
    return one.conditions.decode(torch.arange(float(count))[:, None])["phase"]


def picture(flow: rfm.Flow, one: Problem, path: Path, samples: int, cells: int) -> None:
    """Draw pole figures of each phase: as many data, of the full map, as samples."""
    assert one.condition is not None
    rows = {}
    for entry, phase in enumerate(_phases(one)):
        own = one.points[one.condition[:, 0] == entry]
        own = own[torch.randperm(len(own), generator=torch.Generator().manual_seed(0))[:samples]]
        generator = torch.Generator().manual_seed(0)
        drawn = flow.sample(len(own), condition={"phase": phase}, generator=generator, solver=SOLVER)
        rows[phase] = {f"data ({len(own):,})": own, f"samples ({len(drawn):,})": drawn}
    save_figure(plot_pole_figures(rows, CUBE, cells=cells), path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit the folds, print the tables, and draw the pole figures of the first fold's flow."""
    parser = argparse.ArgumentParser(prog="python -m experiments.orientations", description=__doc__.split("\n")[0])
    add_arguments(parser, "runs/orientations")
    parser.add_argument("--folds", dest="seeds", type=int, default=FOLDS, help="of five, how many to fit (default 5)")
    parser.add_argument("--every", type=int, default=EVERY, help=f"take each so-manieth point (default {EVERY})")
    parser.add_argument("--figure", type=Path, help="PNG file for the pole figures (default: in --out)")
    options = parser.parse_args(arguments)
    options.steps = options.steps or STEPS
    if options.quick:
        options.seeds, options.steps, options.every = 1, 12, 40
    torch.manual_seed(0)
    one = problem(options.seeds, options.every)
    found = measure(one, options)
    places = torch.as_tensor(steel().map.places)[:: options.every]
    distance = torch.cat([to_training(places, one.split(fold)) for fold in found])
    print(tables({one.name: (one, found)}), end="\n\n")
    print(distance_table(found, distance), end="\n\n")
    print(label_table(one, found), end="\n\n")
    for fold, scores in found.items():
        print(f"fold {fold}: {scores.choice}", flush=True)
    flow = rfm.Flow.load(options.out / one.name / "seed-0" / "flow")
    samples, cells = (50, 16) if options.quick else (_SAMPLES, 56)
    picture(flow, one, options.figure or options.out / "pole-figures.png", samples, cells)


if __name__ == "__main__":
    main()
