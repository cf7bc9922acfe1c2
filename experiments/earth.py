"""Densities on the earth's surface: flows, refined by kernels, beside kernel densities, on every split.

Test negative log-likelihood in nats with respect to the area of the unit sphere; smaller is better. Airports are split
by place; the four published sets in three ways: deduplicated (first of equal rows kept; the default), by place
("group"), and raw (duplicates cross the split: for comparison with papers alone). The flow starts from the uniform
distribution; the refined flow is what `rfm.fit` returns. Kernel densities have the training points as centres and their
weights from validation. Intervals are clustered by place.

With `--times` a table says how long fits took to the figures that Riemannian flow matching was published with. Those
are of raw splits, which are easier than the others.

    python -m experiments.earth [--datasets airports flood] [--splits deduplicated] [--seeds 5] [--out runs/earth]
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

import rfm
from experiments.density_study import (
    REFINED,
    Problem,
    Scores,
    add_arguments,
    measure,
    place_labels,
    spline_flow,
    tables,
)
from manifolds import Sphere
from rfm.datasets import Split, deduplicated_split, group_split, load, raw_split

DATASETS = ("airports", "volcano", "earthquake", "flood", "fire")
SPLITS = ("deduplicated", "group", "raw")
VOLCANO_SEEDS = 20
"""So few volcanoes stand alone that five splits decide nothing."""

PUBLISHED = {"volcano": -7.93, "earthquake": -0.28, "flood": 0.42, "fire": -1.86}
"""Test NLL in nats of Riemannian flow matching (Chen and Lipman, Flow Matching on General Geometries, 2023, arXiv
2302.03660, table 2), on raw splits."""


def problem(dataset: str, split: str, seeds: int, every: int = 1, peers: bool = False) -> Problem:
    """Return a data set with one kind of split."""
    points = load(dataset).points[::every]

    def rows(seed: int) -> Split:
        if split == "raw":
            return raw_split(len(points), seed)
        return group_split(points, seed) if split == "group" else deduplicated_split(points, seed, sort_rows=True)

    count = VOLCANO_SEEDS if dataset == "volcano" and split == "deduplicated" and seeds >= 5 else seeds
    others = spline_flow(Sphere(2)) if peers else {}
    return Problem(f"{dataset}, {split}", Sphere(2), points, place_labels(points), rows, range(count), others)


def problems(
    datasets: Sequence[str], splits: Sequence[str], seeds: int, every: int = 1, peers: bool = False
) -> list[Problem]:
    """Return the data sets, airports split by place alone: several rows of the list are one place."""
    found = []
    for dataset in datasets:
        for split in ("group",) if dataset == "airports" else splits:
            found.append(problem(dataset, split, seeds, every, peers))
    return found


def time_table(found: Mapping[str, tuple[Problem, Mapping[int, Scores]]], out: Path) -> str:
    """Return how long fits took to published figures, in processor seconds of one thread, as Markdown.

    Training validates with few kernels; only the refinement at its end has all of them.
    """
    lines = [
        "| data | published NLL | validated in training | fit | refinement, clock | test NLL | seeds at or below |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, (_, scores) in found.items():
        published = PUBLISHED.get(name.split(",")[0])
        if published is None:
            continue
        histories = [rfm.Flow.load(out / name / f"seed-{seed}" / "flow").history for seed in scores]
        times = [
            next((r["cpu_seconds"] for r in history if r["validation_nll"] <= published), None) for history in histories
        ]
        reached = [seconds for seconds in times if seconds is not None]
        during = (
            f"{statistics.fmean(reached):.0f} s ({len(reached)} of {len(times)} seeds)" if reached else "not reached"
        )
        fit = statistics.fmean(history[-1]["cpu_seconds"] for history in histories)
        refinement = statistics.fmean(history[-1].get("refinement_seconds", 0.0) for history in histories)
        nll = [-float(s.log_prob[REFINED].mean()) for s in scores.values()]
        below = sum(value <= published for value in nll)
        lines.append(
            f"| {name} | {published:.2f} | {during} | {fit:.0f} s | {refinement:.0f} s | {statistics.fmean(nll):.3f} | "
            f"{below} of {len(nll)} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit every split that has not been, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m experiments.earth", description=__doc__.split("\n")[0])
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=DATASETS, help="default: all")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=SPLITS[:1], help="default: deduplicated")
    parser.add_argument("--times", action="store_true", help="print how long fits took to published figures, too")
    parser.add_argument("--peers", action="store_true", help="fit zuko's circular spline flow too (extra: baselines)")
    add_arguments(parser, "runs/earth")
    options = parser.parse_args(arguments)
    every = 1
    if options.quick:
        options.seeds, options.steps, options.integral_points, every = 1, options.steps or 20, 200, 20
    torch.manual_seed(0)
    chosen = problems(options.datasets, options.splits, options.seeds, every, options.peers)
    found = {p.name: (p, measure(p, options)) for p in chosen}
    print(tables(found))
    if options.times:
        print("\n" + time_table(found, options.out))


if __name__ == "__main__":
    main()
