"""How far each way to draw from a posterior is off, where the posterior is known.

python -m experiments.inverse [--quick] [--draws 1000] [--seeds 3] [--problems sphere torus] [--figure FILE]
"""

import argparse
import datetime
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from experiments.inverse.figure import draw
from experiments.inverse.measures import Row, calibration, coverage, discrepancy, distance, modes_found
from experiments.inverse.problems import SOLVER, Mixture, Problem, plane, problems
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
    Sampler,
    Tempering,
)


def methods(problem: Problem, quick: bool) -> dict[str, Sampler]:
    """Return the methods by name; exact ones first."""
    m, y, steps = problem.flow.manifold, problem.measurement, 10 if quick else 60
    solver = FixedStep(steps=steps // 2)
    noise = float(y.noise.square().mean())
    centre = torch.zeros(m.event_shape) if isinstance(m, Euclidean) else None
    return {
        "Tempering": Tempering(moves=2 if quick else 10, particles=128 if quick else 4096),
        "Chains, random walk": Chains(warm_up=10 if quick else 200, thin=1 if quick else 15),
        "Chains, Hamiltonian": Chains(Hamiltonian(1 if quick else 3), warm_up=5 if quick else 40, thin=1),
        "Importance": Importance(2000 if quick else 50_000),
        "FLOWER": Flower(steps, coupled=True),
        "FLOWER, no draw": Flower(steps, draw=False, coupled=True),
        "OT-ODE": Guided([OTODE(m, y)], solver),
        "FlowDPS": Guided([FlowDPS(m, y)], solver),
        "FlowDPS, as its code": FlowDPSSteps(28, centre=centre),
        "FlowChef": Guided([FlowChef(m, y, 1.0)], solver),
        "PnP-Flow": PnPFlow(steps, coupled=True),
        "D-Flow": DFlow(1 if quick else 3, 20, weight=0.01 / (2 * noise)),
    }


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


def ranks(quick: bool) -> str:
    """Return the p-values of calibration of the exact methods."""
    mixture = Mixture(torch.tensor([[-2.0, 1.5], [2.0, 1.5], [0.0, -2.0]]), 0.4)
    rows, repeats = torch.tensor([[0.2, 1.0]]), 10 if quick else 60
    lines = ["| method | p-value of uniform ranks |", "|---|---:|"]
    exact: dict[str, Sampler] = {"Tempering": Tempering(particles=512), "Importance": Importance(8000)}
    for name, method in exact.items():
        lines.append(f"| {name} | {calibration(mixture, rows, 0.5, method, repeats, 0):.2f} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, and draw the figure."""
    parser = argparse.ArgumentParser(prog="python -m experiments.inverse", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few coarse steps, to see that it runs")
    parser.add_argument("--draws", type=int, default=1000, help="of each method (default 1000)")
    parser.add_argument("--seeds", type=int, default=3, help="how many (default 3)")
    parser.add_argument("--problems", nargs="+", metavar="NAME", help="such as sphere and torus (default: all)")
    parser.add_argument("--figure", type=Path, help="PNG file of draws on the plane")
    options = parser.parse_args(arguments)
    draws, seeds = (64, 1) if options.quick else (options.draws, options.seeds)
    rows = []
    for problem in problems(options.quick):
        if options.problems is not None and problem.name not in options.problems:
            continue
        rows.append(assess(problem, "exact draws", Tempering(), draws, seeds))
        rows += [assess(problem, n, m, draws, seeds) for n, m in methods(problem, options.quick).items()]
    print(f"{draws} draws, seeds 0 to {seeds - 1}, CPU, {datetime.date.today()}\n\n{table(rows)}", flush=True)
    print(f"\n{ranks(options.quick)}", flush=True)
    if options.figure is not None:
        problem = plane()
        chosen = methods(problem, options.quick)
        some = ("Tempering", "FLOWER", "OT-ODE", "FlowDPS", "FlowChef", "PnP-Flow", "D-Flow")
        draw(problem, {name: chosen[name] for name in some}, draws, options.figure)


if __name__ == "__main__":
    main()
