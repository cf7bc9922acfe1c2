"""Few steps beside the equation: ``python -m experiments.few_steps [--quick] [--densities S2 SO3]``."""

import argparse
import itertools
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from experiments.few_steps.airports import measure_airports
from experiments.few_steps.densities import DENSITIES
from experiments.few_steps.report import draw, write_page
from experiments.few_steps.rna import measure_rna
from experiments.few_steps.study import PEERS_ON, compare, measure
from experiments.few_steps.training import OBJECTIVES, QUICK, Budget


def main(arguments: list[str] | None = None) -> None:
    """Measure what is missing in the folder, and write the page from all that is there."""
    parser = argparse.ArgumentParser(prog="python -m experiments.few_steps", description=__doc__)
    parser.add_argument("--densities", nargs="*", choices=DENSITIES, default=list(DENSITIES), help="which ones")
    parser.add_argument("--objectives", nargs="*", choices=OBJECTIVES, default=list(OBJECTIVES), help="to compare")
    parser.add_argument("--no-data", action="store_true", help="leave out airports and RNA")
    parser.add_argument("--runs", type=Path, default=Path("runs/few-steps"), help="folder of networks and figures")
    parser.add_argument("--out", type=Path, help="page whose tables are written anew")
    parser.add_argument("--figure", type=Path, help="picture of error against evaluations")
    parser.add_argument("--quick", action="store_true", help="a minute, to see that all works")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    budget = QUICK if options.quick else Budget()
    (options.runs / "peers").mkdir(parents=True, exist_ok=True)
    for name in options.densities:
        measure(name, budget, options.runs)
    for name, measured in ({} if options.no_data else {"airports": measure_airports, "rna": measure_rna}).items():
        _kept(options.runs / f"{name}.json", partial(measured, budget, options.runs))
    for name, objective in itertools.product(PEERS_ON, options.objectives):
        compare(name, objective, budget, options.runs)
    if options.out is not None:
        write_page(options.out, options.runs)
    if options.figure is not None:
        draw(options.runs, options.figure)


def _kept(target: Path, measured: Callable[[], dict[str, Any]]) -> None:
    """Measure and keep the figures, unless they are there."""
    if not target.exists():
        found = measured()
        target.write_text(json.dumps(found, indent=1))
        print(f"{target.name}: done", flush=True)


if __name__ == "__main__":
    main()
