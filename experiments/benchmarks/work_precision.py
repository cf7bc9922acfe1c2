"""Error against seconds and field evaluations of our integrators, beside flow_matching's and torchdiffeq's.

python -m experiments.benchmarks work_precision
"""

import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

import rfm
from manifolds import SO3, Manifold, Sphere
from rfm import datasets
from rfm.integrators import BOGACKI_SHAMPINE, DORMAND_PRINCE, RK4, TSITOURAS, Adams, Adaptive, FixedStep, Method
from rfm.networks import VelocityField
from rfm.sources import IsotropicGaussianSO3

INTRO = """\
Two velocity networks are trained for a minute: on the world's airports, and on a mixture on SO(3). Every solver then
carries the same uniform points from time 0 to 1 along the same network, in float64, at a range of settings. The error
is the root mean square geodesic distance to a solution with tolerance 1e-10. torchdiffeq solves in the ambient space
and its result is projected at the end; flow_matching has no rotations. Graded steps are fixed ones that shrink towards
time 1; flow_matching makes none by itself, but takes times from its caller, and is shown with ours too, not counted.
Adams's steps evaluate the field once, and remember what it was before.
Solvers take turns in random order, so that a machine's moods strike all alike; seconds are medians of nine."""
TARGETS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
GOAL = 0.5
FIGURE = Path("docs/images/work-precision.png")
_TRAINING_STEPS, _POINTS, _TURNS = 1000, 128, 9
_SHORTEST = 0.05
"""Seconds that a solver is timed for at least, in each turn."""
_GRADING = 1.5
_FEW_GRADING = 1.3
_ADAMS_STEPS = (8, 10, 12, 16, 24, 32, 48, 64, 96, 128)
_GRADED_STEPS = (2, 3, 4, 6, 8, 11, 16, 22, 32, 43)
_STEPS = (4, 8, 16, 32, 64, 128)
_TOLERANCES = tuple(10.0**-k for k in range(1, 10))

Velocity = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Run:
    """One solver at one setting.

    Attributes:
        solver: its name.
        ours: whether it is one of rfm's; None for a peer that takes our steps, which is shown and not counted.
        solve: returns the end points and the evaluations per sample.
        error: root mean square geodesic distance to the reference, radians.
        off: largest distance from the manifold.
        evaluations: of the field, mean over samples.
        seconds: of every turn.
    """

    solver: str
    ours: bool | None
    solve: Callable[[], tuple[Tensor, float]]
    error: float = math.nan
    off: float = math.nan
    evaluations: float = math.nan
    seconds: list[float] = field(default_factory=list)

    @property
    def time(self) -> float:
        """Median seconds."""
        return statistics.median(self.seconds)


def sphere_problem(steps: int) -> tuple[Manifold, VelocityField]:
    """Return the sphere and a network trained on the airports."""
    sphere = Sphere(2)
    return sphere, _trained(sphere, datasets.airports().points, VelocityField(sphere, width=128, features=256), steps)


def rotations_problem(steps: int) -> tuple[Manifold, VelocityField]:
    """Return SO(3) and a network trained on a mixture of twelve isotropic Gaussians of scale 0.15."""
    rotations, generator = SO3(), torch.Generator().manual_seed(0)
    means = rotations.random_uniform(12, generator=generator)
    parts = [IsotropicGaussianSO3(mean, 0.15).sample((400,), generator=generator) for mean in means]
    network = VelocityField(rotations, width=128, features=256, max_frequency=8)
    return rotations, _trained(rotations, torch.cat(parts), network, steps)


def _trained(manifold: Manifold, points: Tensor, network: VelocityField, steps: int) -> VelocityField:
    rfm.fit(points, manifold, field=network, refine=False, steps=steps, batch_size=256)
    return network.double().requires_grad_(False)


def runs(manifold: Manifold, velocity: Velocity, x: Tensor) -> list[Run]:
    """Return every solver at every setting."""
    ours: dict[str, list[Method]] = {
        "rfm RK4": [FixedStep(RK4, n) for n in _STEPS],
        "rfm RK4, graded": [FixedStep(RK4, n, _GRADING) for n in _STEPS],
        "rfm Dormand-Prince, graded": [FixedStep(DORMAND_PRINCE, n, _GRADING) for n in _GRADED_STEPS],
        "rfm Adams, order 3, graded": [FixedStep(Adams(3), n, _FEW_GRADING) for n in _ADAMS_STEPS],
        "rfm Adams, order 5, graded": [FixedStep(Adams(5), n, _GRADING) for n in _ADAMS_STEPS],
        "rfm Adams, adaptive": [Adaptive(Adams(), tol, tol) for tol in _TOLERANCES],
        "rfm Bogacki-Shampine 3(2)": [Adaptive(BOGACKI_SHAMPINE, tol, tol) for tol in _TOLERANCES[:5]],
        "rfm Dormand-Prince 5(4)": [Adaptive(DORMAND_PRINCE, tol, tol) for tol in _TOLERANCES],
        "rfm Tsitouras 5(4)": [Adaptive(TSITOURAS, tol, tol) for tol in _TOLERANCES],
    }
    all_runs = [Run(name, True, _ours(manifold, velocity, x, m)) for name, methods in ours.items() for m in methods]
    all_runs += [Run("torchdiffeq dopri5", False, _torchdiffeq(manifold, velocity, x, tol)) for tol in _TOLERANCES]
    if isinstance(manifold, Sphere):
        for method, cost in (("euler", 1), ("midpoint", 2), ("rk4", 4)):
            name = f"flow_matching {method}"
            all_runs += [Run(name, False, _flow_matching(velocity, x, method, cost, n)) for n in _STEPS]
        name = "flow_matching rk4, at our graded times"
        all_runs += [Run(name, None, _flow_matching(velocity, x, "rk4", 4, n, _GRADING)) for n in _STEPS]
    return all_runs


def _ours(manifold: Manifold, velocity: Velocity, x: Tensor, method: Method) -> Callable[[], tuple[Tensor, float]]:
    def solve() -> tuple[Tensor, float]:
        solution = rfm.integrate(velocity, manifold, x, (0.0, 1.0), method)
        return solution.final, float(solution.evaluations.double().mean())

    return solve


def _torchdiffeq(manifold: Manifold, velocity: Velocity, x: Tensor, tol: float) -> Callable[[], tuple[Tensor, float]]:
    from torchdiffeq import odeint

    def solve() -> tuple[Tensor, float]:
        count = 0

        def ambient(t: Tensor, y: Tensor) -> Tensor:
            nonlocal count
            count += 1
            return velocity(y, t)

        times = torch.tensor([0.0, 1.0], dtype=x.dtype)
        return manifold.projx(odeint(ambient, x, times, rtol=tol, atol=tol, method="dopri5")[-1]), count

    return solve


def _flow_matching(
    velocity: Velocity, x: Tensor, method: str, cost: int, steps: int, grading: float = 1.0
) -> Callable[[], tuple[Tensor, float]]:
    from flow_matching.solver import RiemannianODESolver
    from flow_matching.utils import ModelWrapper
    from flow_matching.utils.manifolds import Sphere as TheirSphere

    class Wrapped(ModelWrapper):  # type: ignore[misc]
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            # Its times are float32.
            return velocity(x, t.to(x))

    solver = RiemannianODESolver(TheirSphere(), Wrapped(torch.nn.Identity()))
    if grading == 1:
        return lambda: (solver.sample(x, step_size=1 / steps, method=method), cost * steps)
    [mesh] = FixedStep(RK4, steps, grading).mesh((0.0, 1.0))
    grid = torch.tensor(mesh)
    return lambda: (solver.sample(x, step_size=None, time_grid=grid, method=method), cost * steps)


@torch.no_grad()
def measure(manifold: Manifold, velocity: Velocity, points: int, turns: int) -> list[Run]:
    """Return the runs with answers compared first, and then timed in turns."""
    x = manifold.random_uniform(points, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    exact = rfm.integrate(velocity, manifold, x, (0.0, 1.0), Adaptive(TSITOURAS, 1e-10, 1e-10)).final
    all_runs = runs(manifold, velocity, x)
    for run in tqdm(all_runs, desc=f"answers on {manifold}", file=sys.stderr):
        y, run.evaluations = run.solve()
        run.error = float(manifold.dist(y, exact).square().mean().sqrt())
        run.off = float((manifold.projx(y) - y).abs().max())
    for turn in tqdm(range(turns), desc=f"turns on {manifold}", file=sys.stderr):
        # In another order each time: a machine that is slow for a while is so for others.
        for run in random.Random(turn).sample(all_runs, len(all_runs)):
            # Once is not enough for what takes milliseconds: it finds cold caches and sleeping threads.
            start, solves = time.perf_counter(), 0
            while solves == 0 or time.perf_counter() - start < _SHORTEST:
                run.solve()
                solves += 1
            run.seconds.append((time.perf_counter() - start) / solves)
    return all_runs


def cost_at(all_runs: list[Run], error: float, cost: Callable[[Run], float]) -> float:
    """Return what one solver needs to reach an error, interpolated between settings; infinite where none reaches it."""
    ordered = sorted(all_runs, key=cost)
    for before, after in zip([None, *ordered], ordered, strict=False):
        if after.error > error:
            continue
        if before is None:
            return cost(after)
        share = math.log(before.error / error) / math.log(before.error / after.error)
        return math.exp(math.log(cost(before)) * (1 - share) + math.log(cost(after)) * share)
    return math.inf


def best(all_runs: list[Run], ours: bool, error: float, cost: Callable[[Run], float]) -> tuple[float, str]:
    """Return the least cost of reaching an error, over our solvers or the others, and whose it is."""
    names = dict.fromkeys(run.solver for run in all_runs if run.ours == ours)
    return min((cost_at([run for run in all_runs if run.solver == name], error, cost), name) for name in names)


def report(manifold: Manifold, all_runs: list[Run]) -> str:
    """Return two markdown tables: every run, and the ratios at equal error."""
    lines = [
        f"### {manifold}",
        "",
        "| solver | error | off the manifold | evaluations | ms |",
        "|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {r.solver} | {r.error:.1e} | {r.off:.0e} | {r.evaluations:.0f} | {1e3 * r.time:.0f} |" for r in all_runs
    ]
    lines += ["", "| error | ours | best other | seconds, ours / other | evaluations | goal reached |"]
    lines += ["|---:|---|---|---:|---:|---|"]
    for error in TARGETS:
        (own, name), (other, rival) = (best(all_runs, ours, error, lambda r: r.time) for ours in (True, False))
        calls = [best(all_runs, ours, error, lambda r: r.evaluations)[0] for ours in (True, False)]
        if not math.isfinite(other):
            lines.append(f"| {error:.0e} | {name}, {1e3 * own:.0f} ms | none reached it | | | |")
            continue
        verdict = "yes" if own / other <= GOAL else "no"
        lines.append(
            f"| {error:.0e} | {name}, {1e3 * own:.0f} ms | {rival}, {1e3 * other:.0f} ms | {own / other:.2f} | "
            f"{calls[0] / calls[1]:.2f} | {verdict} |"
        )
    return "\n".join([*lines, ""])


def draw(results: list[tuple[Manifold, list[Run]]], path: Path) -> None:
    """Save error against seconds and against evaluations, one row per manifold."""
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.5 * len(results)), layout="constrained")
    for axes, (manifold, all_runs) in zip(figure.subplots(len(results), 2, squeeze=False), results, strict=True):
        for i, name in enumerate(dict.fromkeys(run.solver for run in all_runs)):
            own = [run for run in all_runs if run.solver == name]
            colour = matplotlib.colormaps["tab20"](i)
            style = {"label": name, "marker": ".", "color": colour, "linestyle": "-" if own[0].ours else "--"}
            axes[0].loglog([r.time for r in own], [r.error for r in own], **style)
            axes[1].loglog([r.evaluations for r in own], [r.error for r in own], **style)
        axes[0].set(title=str(manifold), xlabel="seconds", ylabel="error, radians")
        axes[1].set(title=str(manifold), xlabel="field evaluations per sample", ylabel="error, radians")
        axes[1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.02, 1.0), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def lines(threads: int, figure: Path = FIGURE) -> Iterator[str]:
    """Train, measure, save the picture and yield the tables."""
    yield f"![error against seconds and evaluations](images/{figure.name})"
    yield ""
    results = []
    for problem in (sphere_problem, rotations_problem):
        manifold, network = problem(_TRAINING_STEPS)
        results.append((manifold, measure(manifold, network, _POINTS, _TURNS)))
        yield report(*results[-1])
    draw(results, figure)
