"""Ancestors beside flow matching: ``python -m experiments.ancestors [--quick] [--problems ...] [--seeds 2]``."""

import argparse
from pathlib import Path

import torch

from experiments.ancestors.budget import QUICK, Budget
from experiments.ancestors.data import PROBLEMS
from experiments.ancestors.page import draw, write_page
from experiments.ancestors.study import measure

_QUICK_PROBLEMS = ("two moons", "torsions, glycine")


def main(arguments: list[str] | None = None) -> None:
    """Measure what is missing in the folder, and write page and picture from all that is there."""
    parser = argparse.ArgumentParser(prog="python -m experiments.ancestors", description=__doc__)
    parser.add_argument("--problems", nargs="*", choices=PROBLEMS, help="data sets (default: all)")
    parser.add_argument("--methods", nargs="*", help="names of the methods as in the table (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="which ones (default: 0 to 4)")
    parser.add_argument("--runs", type=Path, default=Path("runs/ancestors"), help="folder of the figures")
    parser.add_argument("--out", type=Path, help="page to write")
    parser.add_argument("--figure", type=Path, help="picture to draw")
    parser.add_argument("--quick", action="store_true", help="a minute, to see that all works")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    budget = QUICK if options.quick else Budget()
    problems = options.problems if options.problems is not None else _QUICK_PROBLEMS if options.quick else PROBLEMS
    for seed in options.seeds[:1] if options.quick else options.seeds:
        for problem in problems:
            measure(problem, seed, budget, options.runs, options.methods and set(options.methods))
    if options.out is not None:
        write_page(options.out, options.runs, budget, options.figure)
    if options.figure is not None:
        draw(options.runs, options.figure)


if __name__ == "__main__":
    main()
