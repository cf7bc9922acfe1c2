"""How far each way to draw from a posterior is off, where the posterior is known.

Problems are named "mixture, 2-D", "mixture, 80-D", sphere, torus, rotations, earthquakes, torsions and motif; the last
three are fitted to real data, which `RFM_DATA` holds, and left out without it.

python -m experiments.inverse [--quick] [--draws 1000] [--seeds 3] [--problems sphere torus] [--figure FILE]
"""

import argparse
import datetime
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from experiments.inverse import fitted
from experiments.inverse.figure import draw
from experiments.inverse.measures import Row, calibration, coverage, discrepancy, distance, modes_found
from experiments.inverse.problems import SOLVER, Problem, eighty, plane, rotations, sphere, torus
from manifolds import Euclidean
from rfm.integrators import FixedStep
from rfm.posterior import (
    OTODE,
    Chains,
    DFlow,
    FlowChef,
    FlowDPS,
    FlowDPSSteps,
    Flower,
    Guided,
    Hamiltonian,
    Importance,
    PnPFlow,
    RandomWalk,
    Sampler,
    Tempering,
    Twisted,
)
from rfm.steering import Steering

BRIEF = ("Tempering", "Importance", "Chains, tempered", "OT-ODE", "FlowDPS", "FlowChef", "FLOWER", "PnP-Flow")
"""Methods that are tried where the flow is a network."""


def methods(problem: Problem, quick: bool) -> dict[str, Sampler]:
    """Return the methods by name; exact ones first."""
    m, y, steps = problem.flow.manifold, problem.measurement, 10 if quick else 60
    solver = FixedStep(steps=steps // 2)
    noise = float(y.noise.square().mean())
    centre = torch.zeros(m.event_shape) if isinstance(m, Euclidean) else None
    warm_up, thin, brief = (10, 1, problem.brief) if quick else (200, 10, problem.brief)
    found: dict[str, Sampler] = {
        "Tempering": Tempering(moves=2 if quick or brief else 10, particles=128 if quick else 1024 if brief else 4096),
        "Tempering, random walk": Tempering(RandomWalk(), moves=2 if quick else 10, particles=128 if quick else 4096),
        "Chains, tempered": Chains(warm_up=warm_up, thin=1 if brief else thin, rungs=4 if brief else 8),
        "Chains": Chains(warm_up=warm_up, thin=thin),
        "Chains, random walk": Chains(RandomWalk(), warm_up=warm_up, thin=thin),
        "Chains, Hamiltonian": Chains(Hamiltonian(1 if quick else 3), warm_up=5 if quick else 40, thin=1),
        "Importance": Importance(1000 if quick else 10_000 if brief else 50_000),
        "Twisted": twisted(problem, None, quick),
        "Twisted, no lead": twisted(problem, [], quick),
        "Twisted OT-ODE": twisted(problem, [OTODE(m, y, start=0.02)], quick),
        "Twisted FlowDPS": twisted(problem, [FlowDPS(m, y)], quick),
        "Twisted FlowChef": twisted(problem, [FlowChef(m, y, 1.0)], quick),
        "FLOWER": Flower(steps, coupled=True),
        "FLOWER, no draw": Flower(steps, draw=False, coupled=True),
        "OT-ODE": Guided([OTODE(m, y)], solver),
        "FlowDPS": Guided([FlowDPS(m, y)], solver),
        "FlowDPS, as its code": FlowDPSSteps(28, centre=centre),
        "FlowChef": Guided([FlowChef(m, y, 1.0)], solver),
        "PnP-Flow": PnPFlow(steps, coupled=True),
        "D-Flow": DFlow(1 if quick else 3, 20, weight=0.01 / (2 * noise)),
    }
    return {name: method for name, method in found.items() if not brief or name in BRIEF}


def twisted(problem: Problem, steering: Sequence[Steering] | None, quick: bool) -> Twisted:
    """Return twisted sequential Monte Carlo; with fewer, gentler steps where each needs the score of the density."""
    if problem.score is not None:
        return Twisted(steering, problem.score, steps=10 if quick else 100, particles=64 if quick else 2048)
    return Twisted(
        steering,
        noise=lambda t: 1 - t,
        steps=4 if quick else 50,
        particles=64 if quick else 1024,
        solver=FixedStep(steps=4),
    )


def assess(problem: Problem, name: str, method: Sampler, draws: int, seeds: int) -> Row:
    """Return how a method does on a problem."""
    values: list[tuple[float, ...]] = []
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        exact, other = (problem.exact(draws, generator) for _ in range(2))
        null = [discrepancy(problem, problem.exact(draws, generator), exact) for _ in range(8)]
        begun = time.perf_counter()
        if name == "exact draws":
            x, evaluations, worth = other, 0.0, float(draws)
        else:
            found = problem.flow.posterior(
                problem.measurement, draws, method=method, solver=SOLVER, generator=generator
            )
            x, evaluations, worth = found.points, found.evaluations / draws, found.effective_sample_size
        seconds = time.perf_counter() - begun
        deviation = statistics.stdev(null)
        values.append(
            (
                distance(problem, x, exact),
                discrepancy(problem, x, exact) / deviation,
                coverage(problem, x, exact),
                modes_found(problem, x),
                worth,
                evaluations,
                seconds,
            )
        )
    means = [statistics.fmean(column) for column in zip(*values, strict=True)]
    print(problem.name, name, [f"{value:.3g}" for value in means], file=sys.stderr, flush=True)
    return Row(problem.name, name, *means)


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    lines = [
        "| problem | method | Wasserstein | MMD^2, deviations | coverage of 90 % | modes | worth | evaluations | s |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        modes = "" if row.modes != row.modes else f"{row.modes:.2f}"
        lines.append(
            f"| {row.problem} | {row.method} | {row.wasserstein:.3f} | {row.mmd:.1f} | {row.coverage:.2f} | {modes} | "
            f"{row.worth:.0f} | {row.evaluations:.0f} | {row.seconds:.1f} |"
        )
    return "\n".join(lines)


def ranks(replications: int, quick: bool) -> str:
    """Return the p-values of uniform ranks of the exact methods."""
    particles, draws = (64, 500) if quick else (512, 4000)
    exact: dict[str, Callable[[Problem], Sampler]] = {
        "Tempering": lambda problem: Tempering(moves=5, particles=particles),
        "Importance": lambda problem: Importance(draws),
        "Twisted": lambda problem: Twisted(None, problem.score, steps=10 if quick else 40, particles=particles),
    }
    lines = ["| problem | method | replications | p-value of uniform ranks |", "|---|---|---:|---:|"]
    for problem in (plane(), sphere(True), torus(True)):
        for name, method in exact.items():
            if name == "Twisted" and problem.score is None:
                continue
            p = calibration(problem, method(problem), replications, 0)
            lines.append(f"| {problem.name} | {name} | {replications} | {p:.2f} |")
            print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines)


def makers(fits: Path, quick: bool) -> dict[str, Callable[[], Problem]]:
    """Return what makes each problem, by its name."""
    found: dict[str, Callable[[], Problem]] = {
        "mixture, 2-D": plane,
        "mixture, 80-D": eighty,
        "sphere": lambda: sphere(quick),
        "torus": lambda: torus(quick),
        "rotations": lambda: rotations(quick),
    }
    if "RFM_DATA" in os.environ:
        found["earthquakes"] = lambda: fitted.earthquakes(fits, quick)
        found["torsions"] = lambda: fitted.torsions(fits, quick)
        found["motif"] = lambda: fitted.motif(fits, quick)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, and draw the figure."""
    parser = argparse.ArgumentParser(prog="python -m experiments.inverse", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few coarse steps, to see that it runs")
    parser.add_argument("--draws", type=int, default=1000, help="of each method (default 1000)")
    parser.add_argument("--seeds", type=int, default=3, help="how many (default 3)")
    parser.add_argument("--problems", nargs="*", metavar="NAME", help="such as sphere and torus (default: all)")
    parser.add_argument("--methods", nargs="*", metavar="NAME", help="such as Tempering and OT-ODE (default: all)")
    parser.add_argument("--replications", type=int, default=200, help="of the calibration (default 200; 0: none)")
    parser.add_argument("--fits", type=Path, default=Path("runs/inverse"), help="folder of fits to real data")
    parser.add_argument("--figure", type=Path, help="PNG file of draws on the plane")
    options = parser.parse_args(arguments)
    draws, seeds = (64, 1) if options.quick else (options.draws, options.seeds)
    known, rows = makers(options.fits, options.quick), []
    for name in set(options.problems or ()) - known.keys():
        parser.error(f"there is no problem {name!r}, or RFM_DATA does not say where its data are; take {[*known]}")
    for name, make in known.items():
        if options.problems is not None and name not in options.problems:
            continue
        problem = make()
        rows.append(assess(problem, "exact draws", Tempering(), draws, seeds))
        chosen = methods(problem, options.quick)
        for other in set(options.methods or ()) - chosen.keys():
            parser.error(f"there is no method {other!r} of {name}; take {[*chosen]}")
        kept = {n: m for n, m in chosen.items() if options.methods is None or n in options.methods}
        rows += [assess(problem, n, m, draws, seeds) for n, m in kept.items()]
    print(f"{draws} draws, seeds 0 to {seeds - 1}, CPU, {datetime.date.today()}\n\n{table(rows)}", flush=True)
    if options.replications:
        print(f"\n{ranks(10 if options.quick else options.replications, options.quick)}", flush=True)
    if options.figure is not None:
        problem = plane()
        chosen = methods(problem, options.quick)
        some = ("Tempering", "Twisted", "FLOWER", "OT-ODE", "FlowDPS", "FlowChef", "PnP-Flow")
        draw(problem, {name: chosen[name] for name in some}, draws, options.figure)


if __name__ == "__main__":
    main()
