"""Densities on the earth's surface: flows, refined by kernels, beside kernel densities, on every split.

Test negative log-likelihood in nats with respect to the area of the unit sphere; smaller is better. Airports are split
by place; the four published sets in three ways: deduplicated (first of equal rows kept; the default), by place
("group"), and raw (duplicates cross the split: for comparison with papers alone). The flow starts from the uniform
distribution; the refined flow is what `rfm.fit` returns. Kernel densities have the training points as centres and their
weights from validation. Intervals are clustered by place.

    python -m experiments.earth [--datasets airports flood] [--splits deduplicated] [--seeds 5] [--out runs/earth]
"""

import argparse
from collections.abc import Sequence

import torch

from experiments.density_study import Problem, add_arguments, measure, place_labels, tables
from manifolds import Sphere
from rfm.datasets import Split, deduplicated_split, group_split, load, raw_split

DATASETS = ("airports", "volcano", "earthquake", "flood", "fire")
SPLITS = ("deduplicated", "group", "raw")
VOLCANO_SEEDS = 20
"""So few volcanoes stand alone that five splits decide nothing."""


def problem(dataset: str, split: str, seeds: int, every: int = 1) -> Problem:
    """Return a data set with one kind of split."""
    points = load(dataset).points[::every]

    def rows(seed: int) -> Split:
        if split == "raw":
            return raw_split(len(points), seed)
        return group_split(points, seed) if split == "group" else deduplicated_split(points, seed, sort_rows=True)

    count = VOLCANO_SEEDS if dataset == "volcano" and split == "deduplicated" and seeds >= 5 else seeds
    return Problem(f"{dataset}, {split}", Sphere(2), points, place_labels(points), rows, range(count), {})


def problems(datasets: Sequence[str], splits: Sequence[str], seeds: int, every: int = 1) -> list[Problem]:
    """Return the data sets, airports split by place alone: several rows of the list are one place."""
    found = []
    for dataset in datasets:
        for split in ("group",) if dataset == "airports" else splits:
            found.append(problem(dataset, split, seeds, every))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit every split that has not been, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m experiments.earth", description=__doc__.split("\n")[0])
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=DATASETS, help="default: all")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=SPLITS[:1], help="default: deduplicated")
    add_arguments(parser, "runs/earth")
    options = parser.parse_args(arguments)
    every = 1
    if options.quick:
        options.seeds, options.steps, options.integral_points, every = 1, options.steps or 20, 200, 20
    torch.manual_seed(0)
    found = {p.name: (p, measure(p, options)) for p in problems(options.datasets, options.splits, options.seeds, every)}
    print(tables(found))


if __name__ == "__main__":
    main()
