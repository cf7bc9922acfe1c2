"""How far each way to draw from a posterior is off, where the posterior is known.

Problems are named "mixture, 2-D", "mixture, 80-D", sphere, torus, rotations, motif, earthquakes and torsions. The motif
is of conformations from real structures and the last two are fitted to real data, which `RFM_DATA` holds; they are left
out without it.

python -m experiments.inverse [--quick] [--draws 1000] [--seeds 3] [--problems sphere torus] [--page FILE]

What was computed is kept in a folder, and not computed again: a study that was stopped goes on where it was.
"""

import argparse
import datetime
import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.inverse import fitted
from experiments.inverse.assessment import Truth, assessed
from experiments.inverse.calibration import calibration
from experiments.inverse.figure import draw
from experiments.inverse.methods import methods, repeats
from experiments.inverse.motif import motif
from experiments.inverse.problems import Problem, eighty, plane, rotations, sphere, torus
from experiments.inverse.results import Results
from experiments.inverse.tables import PROBLEMS, assessments, ranks, write_page
from rfm.posterior import Importance, Sampler, Tempering, Twisted

CALIBRATED = ("mixture, 2-D", "sphere", "torus", "rotations")


def assess(problems: dict[str, Callable[[], Problem]], options: argparse.Namespace, results: Results) -> None:
    """Assess every method on every problem; seeds are the outer loop, so that a first table is there early."""
    for seed in range(options.seeds):
        for name, make in problems.items():
            problem = make()
            chosen = methods(problem, options.quick)
            for other in set(options.methods or ()) - chosen.keys():
                raise SystemExit(f"there is no method {other!r} of {name}; take {[*chosen]}")
            truth = functools.cache(lambda problem=problem, seed=seed: Truth.of(problem, options.draws, seed))
            kept = {n: m for n, m in chosen.items() if options.methods is None or n in options.methods}
            for method, sampler in {"exact draws": None, **kept}.items():
                settings = {"problem": name, "method": method, "seed": seed, "draws": options.draws}
                settings |= {"quick": options.quick}
                values = results.get(
                    settings, functools.partial(assessed, truth, sampler, seed, repeats(problem, method))
                )
                print(*settings.values(), values, file=sys.stderr, flush=True)


def calibrate(problems: dict[str, Callable[[], Problem]], options: argparse.Namespace, results: Results) -> None:
    """Calibrate the exact methods."""
    particles, draws = (64, 500) if options.quick else (512, 4000)
    exact: dict[str, Callable[[Problem], Sampler]] = {
        "Tempering": lambda problem: Tempering(moves=5, particles=particles),
        "Importance": lambda problem: Importance(draws),
        "Twisted": lambda problem: Twisted(None, problem.score, steps=10 if options.quick else 40, particles=particles),
    }
    for name, make in problems.items():
        problem = make()
        for method, sampler in exact.items():
            if method == "Twisted" and problem.score is None:
                continue
            settings = {"problem": name, "ranks": method, "replications": options.replications}
            settings |= {"quick": options.quick}
            compute = functools.partial(p_value, problem, sampler(problem), options.replications)
            values = results.get(settings, compute)
            print(*settings.values(), values, file=sys.stderr, flush=True)


def p_value(problem: Problem, method: Sampler, replications: int) -> dict[str, float]:
    """Return the p-value of uniform ranks, by name."""
    return {"p": calibration(problem, method, replications, 0)}


def makers(folder: Path, quick: bool) -> dict[str, Callable[[], Problem]]:
    """Return what makes each problem, by its name; each is made once."""
    found: dict[str, Callable[[], Problem]] = {
        "mixture, 2-D": plane,
        "mixture, 80-D": eighty,
        "sphere": lambda: sphere(quick),
        "torus": lambda: torus(quick),
        "rotations": lambda: rotations(quick),
    }
    if "RFM_DATA" in os.environ:
        found["motif"] = lambda: motif(quick)
        found["earthquakes"] = lambda: fitted.earthquakes(folder, quick)
        found["torsions"] = lambda: fitted.torsions(folder, quick)
    return {name: functools.cache(found[name]) for name in PROBLEMS if name in found}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, write the page and draw the figure."""
    parser = argparse.ArgumentParser(prog="python -m experiments.inverse", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few coarse steps, to see that it runs")
    parser.add_argument("--draws", type=int, default=1000, help="of each method (default 1000)")
    parser.add_argument("--seeds", type=int, default=3, help="how many (default 3; 0: print what is known already)")
    parser.add_argument("--problems", nargs="*", metavar="NAME", help="such as sphere and torus (default: all)")
    parser.add_argument("--methods", nargs="*", metavar="NAME", help="such as Tempering and OT-ODE (default: all)")
    parser.add_argument("--replications", type=int, default=200, help="of the calibration (default 200; 0: none)")
    parser.add_argument("--calibrated", nargs="*", metavar="NAME", default=CALIBRATED, help="problems (none: no names)")
    parser.add_argument("--out", type=Path, default=Path("runs/inverse"), help="folder of fits and results")
    parser.add_argument("--page", type=Path, help="Markdown file of the tables")
    parser.add_argument("--figure", type=Path, help="PNG file of draws on the plane")
    options = parser.parse_args(arguments)
    if options.quick:
        options.draws, options.replications, options.seeds = 64, 10, min(1, options.seeds)
    known, results = makers(options.out, options.quick), Results(options.out / "results.jsonl")
    for name in {*(options.problems or ()), *options.calibrated} - known.keys():
        parser.error(f"there is no problem {name!r}, or RFM_DATA does not say where its data are; take {[*known]}")
    chosen = {name: make for name, make in known.items() if options.problems is None or name in options.problems}
    assess(chosen, options, results)
    if options.seeds and options.replications:
        calibrate({name: known[name] for name in options.calibrated}, options, results)
    print(f"{options.draws} draws, CPU, {datetime.date.today()}\n")
    print(assessments(results, options.draws, options.quick, [*chosen]))
    print(f"\n{ranks(results, options.replications, options.quick)}")
    if options.page is not None:
        write_page(options.page, results, options.draws, options.replications, options.quick)
    if options.figure is not None:
        problem = plane()
        some = ("Tempering", "Twisted", "FLOWER", "OT-ODE", "FlowDPS", "FlowChef", "PnP-Flow")
        by_name = methods(problem, options.quick)
        draw(problem, {name: by_name[name] for name in some}, options.draws, options.figure)


if __name__ == "__main__":
    main()
