"""How many steps a flow on the sphere takes, and why: ``python -m experiments.steps_on_the_sphere``.

The airports of the world, once on the sphere and once as longitude and latitude in the plane: networks of one size,
each solver at a range of steps, and the error of end points and of log-densities.
"""

import argparse
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import rfm
from manifolds import Euclidean, Manifold, Sphere
from rfm import datasets
from rfm.integrators import EULER, MIDPOINT, RK4, TSITOURAS, Adams, Adaptive, FixedStep, Method
from rfm.networks import VelocityField
from rfm.sources import Uniform, WrappedNormal

_POINTS, _SCORED = 200, 50
_SOLVERS: dict[str, tuple[int, list[FixedStep]]] = {
    "Euler": (1, [FixedStep(EULER, n) for n in (12, 25, 100, 1000)]),
    "Euler, graded": (1, [FixedStep(EULER, n, 1.5) for n in (12, 25, 100, 1000)]),
    "midpoint": (2, [FixedStep(MIDPOINT, n) for n in (6, 12, 25, 50, 100)]),
    "RK4": (4, [FixedStep(RK4, n) for n in (3, 6, 12, 25, 50)]),
    "Adams, order 3, graded": (1, [FixedStep(Adams(3), n, 1.3) for n in (8, 12, 16, 24, 48, 96)]),
    "Adams, order 5, graded": (1, [FixedStep(Adams(5), n, 1.5) for n in (16, 24, 48, 96)]),
}
"""By name: evaluations per step, and the settings."""


@dataclass(frozen=True)
class Row:
    """A solver at a setting.

    Args:
        solver: its name.
        steps: how many.
        evaluations: of the network, per sample.
        error: root mean square distance from the exact ends, radians.
        nats: largest error of a log-density.
    """

    solver: str
    steps: int
    evaluations: float
    error: float
    nats: float


def problems(steps: int) -> dict[str, rfm.Flow]:
    """Return the two flows, in float64."""
    points = datasets.airports().points
    degrees = torch.stack([torch.atan2(points[:, 1], points[:, 0]), torch.asin(points[:, 2].clamp(-1, 1))], -1)
    plane = Euclidean(2)
    sets: dict[str, tuple[Manifold, Tensor, Uniform | WrappedNormal]] = {
        "sphere": (Sphere(2), points, Uniform(Sphere(2))),
        "plane": (plane, degrees, WrappedNormal(plane, torch.zeros(2), 1.0)),
    }
    flows = {}
    for name, (manifold, data, source) in sets.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            field = VelocityField(manifold, width=96, features=128, max_frequency=32.0)
        options: dict[str, Any] = {
            "source": source,
            "refine": False,
            "steps": steps,
            "batch_size": 256,
            "progress": False,
        }
        flows[name] = rfm.fit(data, manifold, field=field, device="cpu", **options).double()
    return flows


@torch.no_grad()
def measured(flow: rfm.Flow) -> list[Row]:
    """Return every solver at every setting, beside a solution to 1e-9."""
    generator = torch.Generator().manual_seed(1)
    x_0 = flow.source.sample((_POINTS,), generator=generator, dtype=torch.float64)
    exact: Method = Adaptive(TSITOURAS, 1e-9, 1e-9)
    end = rfm.integrate(flow.field, flow.manifold, x_0, (0.0, 1.0), exact).final
    scored = flow.sample(_SCORED, generator=generator, solver=exact)
    log_prob = flow.log_prob(scored, solver=exact)
    rows = []
    for name, (_, solvers) in _SOLVERS.items():
        for solver in solvers:
            solution = rfm.integrate(flow.field, flow.manifold, x_0, (0.0, 1.0), solver)
            error = float(flow.manifold.dist(solution.final, end).square().mean().sqrt())
            nats = float((flow.log_prob(scored, solver=solver) - log_prob).abs().max())
            rows.append(Row(name, solver.steps, float(solution.evaluations.double().mean()), error, nats))
    return rows


def table(results: dict[str, list[Row]]) -> str:
    """Return the rows side by side as markdown."""
    names = list(results)
    lines = [
        "| solver | steps | evaluations | "
        + " | ".join(f"{n}: ends, radians | {n}: density, nats" for n in names)
        + " |",
        "|---|---:|---:|" + "---:|---:|" * len(names),
    ]
    for rows in zip(*results.values(), strict=True):
        cells = " | ".join(f"{row.error:.1e} | {row.nats:.1e}" for row in rows)
        lines.append(f"| {rows[0].solver} | {rows[0].steps} | {rows[0].evaluations:.0f} | {cells} |")
    return "\n".join(lines)


def draw(results: dict[str, list[Row]], path: Path) -> None:
    """Save error against evaluations, a panel for each space."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 3.8), layout="constrained")
    for axes, (name, rows) in zip(figure.subplots(1, len(results), sharey=True), results.items(), strict=True):
        for i, solver in enumerate(_SOLVERS):
            own = [row for row in rows if row.solver == solver]
            style = ".--" if solver.startswith("Euler") else ".-"
            axes.loglog([r.evaluations for r in own], [r.error for r in own], style, color=f"C{i}", label=solver)
        axes.axhline(1e-2, color="0.8", zorder=0)
        axes.set(title=name, xlabel="evaluations of the network")
    figure.axes[0].set_ylabel("error of end points, radians")
    figure.axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=100)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, measure, print the table, and write page and picture."""
    parser = argparse.ArgumentParser(prog="python -m experiments.steps_on_the_sphere", description=__doc__)
    parser.add_argument("--out", type=Path, help="page whose table is written anew")
    parser.add_argument("--figure", type=Path, help="picture to draw")
    parser.add_argument("--quick", action="store_true", help="networks of a few steps, to see that all works")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    results = {name: measured(flow) for name, flow in problems(20 if options.quick else 1000).items()}
    made = table(results)
    print(made)
    if options.out is not None:
        head = (
            f"Measured {date.today().isoformat()} on a CPU ({platform.machine()}, 1 thread), torch "
            f"{torch.__version__}, seed 0, float64, {_POINTS} points and {_SCORED} densities."
        )
        text = options.out.read_text(encoding="utf-8")
        start, end = text.index("<!-- results -->") + len("<!-- results -->"), text.index("<!-- end -->")
        options.out.write_text(f"{text[:start]}\n\n{head}\n\n{made}\n\n{text[end:]}", encoding="utf-8")
    if options.figure is not None:
        draw(results, options.figure)


if __name__ == "__main__":
    main()
