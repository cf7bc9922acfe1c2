"""Densities given a condition: refined flows beside kernels per condition and one kernel in the condition.

Test negative log-likelihood in nats given the condition, with respect to the volume; smaller is better. Airports given
their country and given their elevation, split by place; orientations of the grains of a steel given their phase, on
SO(3) modulo the rotations of the cube, split by blocks of the map. The refined flow is what `rfm.fit` returns. "Kernels
per condition" are adaptive kernels on the points of a label, or near in a number, shrunk towards those of all points;
"one kernel in the condition" is the classical estimate, of one width. Both are fitted to the training points and
chosen on validation, as `rfm evaluate` does. Intervals are clustered by place, or by block.

    python -m experiments.conditional [--problems country phase elevation] [--seeds 1] [--out runs/conditional]
        [--figure docs/images/conditions.png]
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

import rfm
from experiments import orientations
from experiments.density_study import Problem, add_arguments, label_table, measure, place_labels, tables
from experiments.guidance_on_airports import COUNTRIES, draw, picture
from manifolds import Sphere
from rfm.datasets import airports, find_conditions, group_split, read_table

PROBLEMS = ("country", "phase", "elevation")


def by_column(column: str, seeds: int, every: int) -> Problem:
    """Return the airports given a column of their table, those of which it is known."""
    dataset = airports()
    conditions, condition = find_conditions(read_table(dataset.path), [column])
    rows = (~condition[:, 0].isnan()).nonzero()[:, 0][::every]
    points, condition = dataset.points[rows], condition[rows]
    return Problem(
        f"airports, {column}",
        Sphere(2),
        points,
        place_labels(points),
        lambda seed: group_split(points, seed),
        range(seeds),
        {},
        condition,
        conditions,
    )


def draw_samples(problem: Problem, folder: Path, path: Path) -> None:
    """Draw the airports of two countries beside samples of the first flow: refined, not refined, and under guidance."""
    assert problem.condition is not None
    assert problem.conditions is not None
    flow = rfm.Flow.load(folder / problem.name / "seed-0" / "flow")
    kinds = {"refined": (flow, 1.0), "not refined": (flow.base, 1.0), "guidance 2": (flow.base, 2.0)}
    drawn = {
        country: {title: draw(own, country, weight) for title, (own, weight) in kinds.items()} for country in COUNTRIES
    }
    picture(drawn, problem.points, problem.conditions.decode(problem.condition)["country"], path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit every split that has not been, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m experiments.conditional", description=__doc__.split("\n")[0])
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=PROBLEMS, help="default: all")
    add_arguments(parser, "runs/conditional", seeds=1)
    parser.add_argument("--every", type=int, default=1, help="take each so-manieth point (default 1, all)")
    parser.add_argument("--figure", type=Path, help="PNG file for maps of airports given their country")
    options = parser.parse_args(arguments)
    every = options.every
    if options.quick:
        options.seeds, options.steps, every = 1, options.steps or 20, 30
    torch.manual_seed(0)
    problems = [
        orientations.problem(options.seeds, every * orientations.EVERY)
        if name == "phase"
        else by_column(name, options.seeds, every)
        for name in options.problems
    ]
    found = {problem.name: (problem, measure(problem, options)) for problem in problems}
    print(tables(found))
    for problem, scores in found.values():
        assert problem.conditions is not None
        for seed, own in scores.items():
            print(f"\n{problem.name}, seed {seed}: {own.choice}")
        if problem.conditions.labels[0] > 2:
            print(f"\n{label_table(problem, scores)}")
        if options.figure is not None and problem.conditions.names == ("country",):
            draw_samples(problem, options.out, options.figure)


if __name__ == "__main__":
    main()
