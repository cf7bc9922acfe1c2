"""How far each way to draw from a posterior is off, where the posterior is known.

Problems are named "mixture, 2-D", "mixture, 80-D", sphere, torus, rotations, motif, earthquakes and torsions. The motif
is of conformations from real structures and the last two are fitted to real data, which `RFM_DATA` holds; they are left
out without it.

python -m experiments.inverse [--quick] [--draws 1000] [--seeds 3] [--problems sphere torus] [--figure FILE]

What was computed is kept in a folder, and not computed again.
"""

import argparse
import datetime
import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.inverse import fitted
from experiments.inverse.assessment import Truth, assessed, row
from experiments.inverse.calibration import calibration
from experiments.inverse.figure import draw
from experiments.inverse.methods import methods
from experiments.inverse.motif import motif
from experiments.inverse.problems import Problem, eighty, plane, rotations, sphere, torus
from experiments.inverse.results import Results
from rfm.posterior import Importance, Sampler, Tempering, Twisted

HEAD = [
    "| problem | method | Wasserstein | MMD^2, deviations | coverage of 90 % | modes | worth | evaluations | s |",
    "|---|---|---:|---:|---:|---:|---:|---:|---:|",
]


def table(problems: dict[str, Callable[[], Problem]], options: argparse.Namespace, results: Results) -> list[str]:
    """Return a row for each problem and method; seeds are the outer loop, so that a first table is there early."""
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for seed in range(options.seeds):
        for name, make in problems.items():
            problem = make()
            chosen = methods(problem, options.quick)
            for other in set(options.methods or ()) - chosen.keys():
                raise SystemExit(f"there is no method {other!r} of {name}; take {[*chosen]}")
            truth = functools.cache(lambda problem=problem, seed=seed: Truth.of(problem, options.draws, seed))
            kept = {n: m for n, m in chosen.items() if options.methods is None or n in options.methods}
            for method, sampler in {"exact draws": None, **kept}.items():
                settings = {"problem": problem.name, "method": method, "seed": seed, "draws": options.draws}
                settings |= {"quick": options.quick}
                values = results.get(settings, functools.partial(assessed, truth, sampler, seed))
                found.setdefault((problem.name, method), []).append(values)
                print(*settings.values(), values, file=sys.stderr, flush=True)
    # Problems in their order, whatever the order they were finished in.
    return [*HEAD, *(row(*names, runs) for names, runs in found.items())]


def ranks(problems: dict[str, Callable[[], Problem]], options: argparse.Namespace, results: Results) -> list[str]:
    """Return the p-values of uniform ranks of the exact methods."""
    particles, draws = (64, 500) if options.quick else (512, 4000)
    exact: dict[str, Callable[[Problem], Sampler]] = {
        "Tempering": lambda problem: Tempering(moves=5, particles=particles),
        "Importance": lambda problem: Importance(draws),
        "Twisted": lambda problem: Twisted(None, problem.score, steps=10 if options.quick else 40, particles=particles),
    }
    lines = ["| problem | method | replications | p-value of uniform ranks |", "|---|---|---:|---:|"]
    for make in problems.values():
        problem = make()
        for name, method in exact.items():
            if name == "Twisted" and problem.score is None:
                continue
            count = 10 if options.quick else options.replications
            settings = {"problem": problem.name, "ranks": name, "replications": count, "quick": options.quick}
            compute = functools.partial(calibration, problem, method(problem), count, 0)
            p = results.get(settings, lambda compute=compute: {"p": compute()})["p"]
            lines.append(f"| {problem.name} | {name} | {count} | {p:.2f} |")
            print(lines[-1], file=sys.stderr, flush=True)
    return lines


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
    return {name: functools.cache(make) for name, make in found.items()}


CALIBRATED = ("mixture, 2-D", "sphere", "torus", "rotations")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, and draw the figure."""
    parser = argparse.ArgumentParser(prog="python -m experiments.inverse", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few coarse steps, to see that it runs")
    parser.add_argument("--draws", type=int, default=1000, help="of each method (default 1000)")
    parser.add_argument("--seeds", type=int, default=3, help="how many (default 3)")
    parser.add_argument("--problems", nargs="*", metavar="NAME", help="such as sphere and torus (default: all)")
    parser.add_argument("--methods", nargs="*", metavar="NAME", help="such as Tempering and OT-ODE (default: all)")
    parser.add_argument("--replications", type=int, default=200, help="of the calibration (default 200; 0: none)")
    parser.add_argument("--out", type=Path, default=Path("runs/inverse"), help="folder of fits and results")
    parser.add_argument("--figure", type=Path, help="PNG file of draws on the plane")
    options = parser.parse_args(arguments)
    if options.quick:
        options.draws, options.seeds = 64, 1
    known, results = makers(options.out, options.quick), Results(options.out / "results.jsonl")
    for name in set(options.problems or ()) - known.keys():
        parser.error(f"there is no problem {name!r}, or RFM_DATA does not say where its data are; take {[*known]}")
    chosen = {name: make for name, make in known.items() if options.problems is None or name in options.problems}
    lines = table(chosen, options, results)
    print(f"{options.draws} draws, seeds 0 to {options.seeds - 1}, CPU, {datetime.date.today()}\n")
    print("\n".join(lines), flush=True)
    if options.replications:
        lines = ranks({name: known[name] for name in CALIBRATED}, options, results)
        print("\n" + "\n".join(lines), flush=True)
    if options.figure is not None:
        problem = plane()
        some = ("Tempering", "Twisted", "FLOWER", "OT-ODE", "FlowDPS", "FlowChef", "PnP-Flow")
        by_name = methods(problem, options.quick)
        draw(problem, {name: by_name[name] for name in some}, options.draws, options.figure)


if __name__ == "__main__":
    main()
