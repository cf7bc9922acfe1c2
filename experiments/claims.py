"""What tutorials say of flow matching, measured: ``python -m experiments.claims [--quick]``.

Which path is faster, straighter and better; whether the circle contracts until t = 0.4; what is averaged near t = 0;
residual networks as Euler's method; what a trace costs beside a log-determinant.
"""

import argparse
import functools
import json
import math
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import rfm
from experiments.ancestors.planes import PLANES, Circle
from manifolds import Euclidean
from rfm.couplings import Coupling, Independent, OptimalTransport
from rfm.integrators import EULER, Adaptive, FixedStep
from rfm.metrics import flow_measures, paired_difference
from rfm.networks import VelocityField
from rfm.paths import DDIM
from rfm.paths.schedules import Cosine, Linear, Schedule, VariancePreserving

PLANE = Euclidean(2)
SCHEDULES: dict[str, Schedule] = {
    "linear": Linear(),
    "cosine": Cosine(),
    "variance-preserving": VariancePreserving(),
}
EVALUATIONS = (1, 2, 4, 8, 16, 32, 64)
RADII = (1.0, math.sqrt(3), 3.0)
DIMENSIONS = (2, 8, 32, 128)


@dataclass(frozen=True)
class Budget:
    """How much is trained and measured."""

    seeds: int = 2
    steps: int = 800
    batch: int = 256
    points: int = 4000
    scored: int = 500


QUICK = Budget(seeds=1, steps=20, batch=32, points=200, scored=20)


@dataclass
class PathResult:
    """A path's flows, means over seeds.

    Args:
        divergence: from the truth, in nats, one for each seed.
        bend: share of the paths' energy that straight lines would save.
        euler: distances from the exact ends, by number of evaluations.
        ddim: likewise.
    """

    divergence: list[float]
    bend: float
    euler: list[float]
    ddim: list[float]


def fitted(data: Tensor, schedule: Schedule, budget: Budget, seed: int, coupling: Coupling = Independent()) -> rfm.Flow:
    """Return a flow along a Gaussian path; the network is the same for all."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        field = VelocityField(PLANE, width=96, depth=3, features=96, max_frequency=8.0)
    return rfm.fit(
        data,
        PLANE,
        field=field,
        objective=rfm.FlowMatching(rfm.GaussianPath(PLANE, schedule)),
        coupling=coupling,
        refine=False,
        steps=budget.steps,
        batch_size=budget.batch,
        seed=seed,
        device="cpu",
        progress=False,
        training=rfm.Training(learning_rate=1e-2),
    )


def measure_path(name: str, label: str, budget: Budget) -> PathResult:
    """Train a flow of each seed; measure error against evaluations, bend and divergence."""
    density, schedule = PLANES[name], SCHEDULES[label]
    lacks, bends, euler, ddim = list[float](), list[float](), list[list[float]](), list[list[float]]()
    for seed in range(budget.seeds):
        generator = torch.Generator().manual_seed(seed)
        flow = fitted(density.sample(budget.points, generator).float(), schedule, budget, seed)
        test = density.sample(budget.scored, generator)
        log_prob = flow.log_prob(test.float(), solver=Adaptive(atol=1e-5, rtol=1e-5)).double()
        lacks.append(paired_difference(density.log_prob(test), log_prob).mean)
        measures = flow_measures(flow, budget.scored, generator=generator)
        bends.append(measures.straightness.mean / measures.energy.mean)
        x_0 = flow.source.sample((budget.scored,), generator=generator)
        end = flow.trajectory(x_0, [0.0, 1.0], solver=Adaptive(atol=1e-5, rtol=1e-5))[-1]
        euler.append([_off(flow, x_0, end, FixedStep(EULER, n)) for n in EVALUATIONS])
        ddim.append([_off(flow, x_0, end, DDIM(schedule, n)) for n in EVALUATIONS])
    return PathResult(lacks, statistics.mean(bends), _means(euler), _means(ddim))


def _off(flow: rfm.Flow, x_0: Tensor, end: Tensor, solver: FixedStep | DDIM) -> float:
    return float((flow.trajectory(x_0, [0.0, 1.0], solver=solver)[-1] - end).norm(dim=-1).mean())


def _means(rows: list[list[float]]) -> list[float]:
    return [statistics.mean(column) for column in zip(*rows, strict=True)]


def radii(radius: float, times: Sequence[float], budget: Budget) -> dict[str, list[float]]:
    """Return the mean distance from the middle at times, of the exact marginals and of two trained flows."""
    generator = torch.Generator().manual_seed(0)
    data = Circle(radius, 0.05).sample(budget.points, generator).float()
    noise = torch.randn(budget.points, 2, generator=generator)
    found = {"exact": [float(((1 - t) * noise + t * data).norm(dim=-1).mean()) for t in times]}
    couplings: dict[str, Coupling] = {"independent pairs": Independent(), "optimal transport": OptimalTransport(PLANE)}
    for name, coupling in couplings.items():
        flow = fitted(data, Linear(), budget, 0, coupling)
        x = flow.trajectory(noise[:1000], list(times))
        found[name] = x.norm(dim=-1).mean(1).tolist()
    return found


def averaged(times: Sequence[float]) -> list[tuple[float, float, float]]:
    """Return, at each time, the spread of conditional velocities about their mean, and where the mean points to.

    The spread is the root of the loss's floor; the aim is where the exact marginal velocity at a place would lead by
    time 1, whose standard deviation over places is 0 where all places aim at one point.
    """
    generator = torch.Generator().manual_seed(0)
    data = PLANES["eight Gaussians"].sample(1000, generator)
    path = rfm.GaussianPath(PLANE, Linear())
    exact, found = rfm.marginal_velocity(path, data), []
    x_0 = torch.randn(1000, 2, generator=generator, dtype=torch.float64)
    for t in times:
        ways = path.sample(x_0, data, torch.full((1000,), t, dtype=torch.float64))
        mean = exact(ways.x_t, ways.t)
        aim = ways.x_t + (1 - t) * mean
        spread = (ways.dx_t - mean).square().sum(-1).mean().sqrt()
        found.append((t, float(spread), float(aim.var(0).sum().sqrt())))
    return found


class ResidualNetwork(nn.Module):
    """``x + f(x, k / blocks) / blocks``, block after block, all of one field: Euler's method, written as a network."""

    def __init__(self, field: Callable[[Tensor, Tensor], Tensor], blocks: int) -> None:
        super().__init__()
        self.field, self.blocks = field, blocks

    def forward(self, x: Tensor) -> Tensor:
        """Return what the last block makes of points ``(n, dim)``."""
        for k in range(self.blocks):
            x = x + self.field(x, torch.full(x.shape[:-1], k / self.blocks, dtype=x.dtype)) / self.blocks
        return x


def residual_errors(blocks: Sequence[int], points: int = 500) -> list[tuple[int, float, float]]:
    """Return the largest difference to Euler's method, and the mean error to the exact flow, by number of blocks."""
    generator = torch.Generator().manual_seed(0)
    exact = rfm.marginal_velocity(rfm.GaussianPath(PLANE), PLANES["eight Gaussians"].sample(200, generator))
    x = torch.randn(points, 2, generator=generator, dtype=torch.float64)
    # Short of time 1, where the field of finitely many points has no limit.
    last = 0.9

    def field(y: Tensor, s: Tensor) -> Tensor:
        return last * exact(y, last * s)

    end = rfm.integrate(field, PLANE, x, (0.0, 1.0), Adaptive(atol=1e-9, rtol=1e-9)).final
    found = []
    for count in blocks:
        with torch.no_grad():
            y = ResidualNetwork(field, count)(x)
        euler = rfm.integrate(field, PLANE, x, (0.0, 1.0), FixedStep(EULER, count)).final
        found.append((count, float((y - euler).abs().max()), float((y - end).norm(dim=-1).mean())))
    return found


def costs(dimensions: Sequence[int], repeats: int = 5) -> list[tuple[int, float, float, float, float]]:
    """Return milliseconds of the processor, for 64 points: velocity, exact trace, one probe, Jacobian and log-det."""
    found = []
    for dim in dimensions:
        network = nn.Sequential(nn.Linear(dim, 256), nn.SiLU(), nn.Linear(256, 256), nn.SiLU(), nn.Linear(256, dim))
        network.requires_grad_(False)
        x = torch.randn(64, dim, generator=torch.Generator().manual_seed(0))
        probe = torch.randn(64, dim, generator=torch.Generator().manual_seed(1)).sign()
        jacobian = torch.func.vmap(torch.func.jacfwd(network))

        def trace(y: Tensor, jacobian: Callable[[Tensor], Tensor] = jacobian) -> Tensor:
            return jacobian(y).diagonal(dim1=-2, dim2=-1).sum(-1)

        def estimate(y: Tensor, network: nn.Module = network, probe: Tensor = probe) -> Tensor:
            return (torch.func.jvp(network, (y,), (probe,))[1] * probe).sum(-1)

        def log_det(y: Tensor, jacobian: Callable[[Tensor], Tensor] = jacobian) -> Tensor:
            return torch.linalg.slogdet(jacobian(y))[1]

        timed = [_milliseconds(function, x, repeats) for function in (network, trace, estimate, log_det)]
        found.append((dim, timed[0], timed[1], timed[2], timed[3]))
    return found


def _milliseconds(function: Callable[[Tensor], Tensor], x: Tensor, repeats: int) -> float:
    function(x)
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        function(x)
        seconds.append(time.process_time() - start)
    return 1000 * statistics.median(seconds)


@dataclass(frozen=True)
class Results:
    """What the page shows.

    Args:
        paths: by density, by path.
        circles: by radius, the mean distances from the middle at ``times``.
        times: from 0 to 1.
    """

    paths: dict[str, dict[str, PathResult]]
    circles: dict[float, dict[str, list[float]]]
    times: list[float]


def measured(budget: Budget, densities: Sequence[str], folder: Path | None) -> Results:
    """Train and measure all that is trained and not in the folder yet."""
    times = [i / 20 for i in range(21)]
    circles = {
        radius: _kept(folder, f"circle-{radius:.2f}", functools.partial(radii, radius, times, budget))
        for radius in RADII
    }
    paths = {name: {label: _path(folder, name, label, budget) for label in SCHEDULES} for name in densities}
    return Results(paths, circles, times)


def _path(folder: Path | None, name: str, label: str, budget: Budget) -> PathResult:
    row = _kept(folder, f"{name}-{label}", lambda: asdict(measure_path(name, label, budget)))
    return PathResult(**row)


def _kept(folder: Path | None, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    target = None if folder is None else folder / f"{name.replace(' ', '-')}.json"
    if target is not None and target.exists():
        return json.loads(target.read_text(encoding="utf-8"))
    found = measure()
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(found, indent=1), encoding="utf-8")
        print(f"{target.name}: done", flush=True)
    return found


def tables(results: Results) -> dict[str, str]:
    """Return the tables as markdown, by the name of their marks in the page."""
    evaluations = " | ".join(f"Euler, {n}" for n in EVALUATIONS)
    paths = [f"| density | path | divergence, nats | bend | {evaluations} |"]
    paths.append("|---|---|---:|---:|" + "---:|" * len(EVALUATIONS))
    for density, found in results.paths.items():
        for label, result in found.items():
            own = f"{statistics.mean(result.divergence):.3f} ({', '.join(f'{d:.3f}' for d in result.divergence)})"
            paths.append(f"| {density} | {label} | {own} | {result.bend:.2f} | {_cells(result.euler)} |")
            if label != "linear":
                paths.append(f"| | with DDIM | | | {_cells(result.ddim)} |")
    circle = [
        "| radius | exact | independent pairs | optimal transport | 2 / (2 + R^2) |",
        "|---:|---:|---:|---:|---:|",
    ]
    for radius, curves in results.circles.items():
        least = (f"{results.times[min(range(len(c)), key=c.__getitem__)]:.2f}" for c in curves.values())
        circle.append(f"| {radius:.2f} | {' | '.join(least)} | {2 / (2 + radius**2):.2f} |")
    mean = ["| time | spread of velocities about their mean | of where the mean aims |", "|---:|---:|---:|"]
    mean += [f"| {t:g} | {spread:.2f} | {aim:.2f} |" for t, spread, aim in averaged((0.0, 0.1, 0.2, 0.4, 0.6, 0.8))]
    blocks = ["| blocks | difference to Euler's method | mean error to the exact flow |", "|---:|---:|---:|"]
    blocks += [f"| {k} | {same:.0e} | {off:.4f} |" for k, same, off in residual_errors((1, 2, 4, 8, 16, 32, 64, 128))]
    cost = ["| dimension | velocity | exact trace | one probe | log-determinant |", "|---:|---:|---:|---:|---:|"]
    cost += [f"| {d} | {v:.2f} | {a:.2f} | {p:.2f} | {b:.2f} |" for d, v, a, p, b in costs(DIMENSIONS)]
    made = {"paths": paths, "circle": circle, "averaged": mean, "blocks": blocks, "cost": cost}
    return {name: "\n".join(lines) for name, lines in made.items()}


def _cells(errors: list[float]) -> str:
    return " | ".join(f"{error:.3f}" for error in errors)


def write_page(page: Path, found: dict[str, str], budget: Budget) -> None:
    """Put the tables between their marks, ``<!-- NAME -->`` and ``<!-- end -->``; the text of the page stays."""
    text = page.read_text(encoding="utf-8")
    head = (
        f"Measured {date.today().isoformat()} on a CPU ({platform.machine()}, 1 thread), torch {torch.__version__}; "
        f"seeds from 0, {budget.seeds} of them; {budget.steps} steps of {budget.batch} points, {budget.points:,} "
        "training points; milliseconds of the processor for 64 points."
    )
    for name, table in ({"head": head} | found).items():
        start = text.index(f"<!-- {name} -->") + len(f"<!-- {name} -->")
        text = f"{text[:start]}\n\n{table}\n\n{text[text.index('<!-- end -->', start) :]}"
    page.write_text(text, encoding="utf-8")


def draw(results: Results, path: Path) -> None:
    """Save the mean radius against time for three circles, and error against evaluations for three paths."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5.8), layout="constrained")
    upper, lower = figure.subplots(2, 3)
    for axes, (radius, curves) in zip(upper, results.circles.items(), strict=True):
        for name, values in curves.items():
            axes.plot(results.times, values, ":k" if name == "exact" else "-", label=name)
        axes.axvline(0.4, color="0.8", zorder=0)
        axes.set(title=f"circle of radius {radius:.2f}", xlabel="time", ylabel="mean distance from the middle")
    upper[0].legend(frameon=False, fontsize=8)
    for axes, (density, found) in zip(lower, results.paths.items(), strict=False):
        for i, (label, result) in enumerate(found.items()):
            axes.loglog(EVALUATIONS, result.euler, ".-", color=f"C{i}", label=f"{label}, Euler")
            if label != "linear":
                axes.loglog(EVALUATIONS, result.ddim, ".--", color=f"C{i}", label=f"{label}, DDIM")
        axes.set(title=density, xlabel="evaluations", ylabel="distance from the exact end")
    lower[0].legend(frameon=False, fontsize=7)
    for axes in lower[len(results.paths) :]:
        axes.set_axis_off()
    figure.savefig(path, dpi=100)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all, print the tables, and write the page and the picture."""
    parser = argparse.ArgumentParser(prog="python -m experiments.claims", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2, help="how many, for the paths (default: 2)")
    parser.add_argument("--densities", nargs="+", choices=PLANES, default=["two moons", "eight Gaussians"])
    parser.add_argument("--runs", type=Path, help="folder of what was measured, to go on from")
    parser.add_argument("--out", type=Path, help="page whose tables are written anew")
    parser.add_argument("--figure", type=Path, help="picture to draw")
    parser.add_argument("--quick", action="store_true", help="seconds, to see that all works")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    budget = QUICK if options.quick else Budget(seeds=options.seeds)
    results = measured(budget, options.densities[:1] if options.quick else options.densities, options.runs)
    found = tables(results)
    print("\n\n".join(found.values()))
    if options.out is not None:
        write_page(options.out, found, budget)
    if options.figure is not None:
        draw(results, options.figure)


if __name__ == "__main__":
    main()
