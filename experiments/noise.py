"""Whether noise keeps the marginals, at 100,000 points: ``python -m experiments.noise``.

Points are drawn at a time of an exact flow by its equation without noise, and by that with noise and the exact score.
Two samples of one distribution differ by chance alone, so p-values are uniform; without the drift along the score they
are 0. The exact field is that of a path to four data points, whose score is known in closed form.
"""

import argparse
import platform
import time
from datetime import date
from pathlib import Path
from typing import NamedTuple

import torch
from scipy.stats import chi2
from torch import Tensor

from manifolds import FlatTorus, Manifold, Sphere
from rfm import Flow, GeodesicPath, marginal_velocity
from rfm.integrators import RK4, FixedStep, Stochastic
from rfm.paths import MarginalVelocity
from rfm.sources import Uniform, WrappedNormal

_TIME = 0.5
_WAVES = 20
_PAGE = """\
# Noise that keeps the marginals, at {points:,} points

The equation with noise, `dx = (v + g s) dt + sqrt(2 g) dW` with the exact score s, beside that without, at time
{time} of the exact flow from the uniform source on the sphere, or a wrapped normal one on the torus, to four points.
Each row compares {points:,} draws with as many others by Hotelling's test of the means of {waves} waves of their
coordinates: for one distribution p-values are uniform. *Largest gap* is that of a wave's two means, in standard errors.

- command: `{command}`
- date: {date}; {machine} CPU, {threads} thread; Python {python}, torch {torch}; float32; seed {seed}
- noise `g = {noise} (1 - t)`, by geodesic walks; the equation without noise by RK4 in 15 steps
- seconds of the processor

{table}

**What is exact.** In the limit of many steps, for every noise, if the score is that of the flow's own density; the
error falls as one over the number of steps, and so many points see it where there are few. *Without the score* is the
control: the same noise that is not balanced.
"""
_HEADER = "| manifold | draws | steps | largest gap | p-value | seconds |\n|---|---|---:|---:|---:|---:|"


class Comparison(NamedTuple):
    """How two samples differ."""

    largest: float
    """Difference of the means of a wave, in standard errors, at most."""
    p_value: float


def compare(m: Manifold, x: Tensor, y: Tensor) -> Comparison:
    """Return Hotelling's test of equal means of 20 fixed waves of the points' coordinates."""
    generator = torch.Generator().manual_seed(8)
    w = torch.randn(m.embed_dim, _WAVES, generator=generator, dtype=torch.float64)
    phase = 3 * torch.randn(_WAVES, generator=generator, dtype=torch.float64)
    a, b = (torch.sin(m.embed(z.double()) @ w + phase) for z in (x, y))
    gap = a.mean(0) - b.mean(0)
    spread = a.T.cov() / len(a) + b.T.cov() / len(b)
    statistic = float(gap @ torch.linalg.solve(spread, gap))
    return Comparison(float((gap.abs() / spread.diagonal().sqrt()).max()), float(chi2.sf(statistic, _WAVES)))


def exact_field(m: Manifold, seed: int) -> MarginalVelocity:
    """Return the exact field of a path to four points, which knows its score."""
    generator = torch.Generator().manual_seed(seed)
    centre, data = m.random_uniform(1, generator=generator), m.random_uniform(4, generator=generator)
    if not isinstance(m, Sphere):
        # All within a distance of 1 of the source's centre, so that the field does not jump where it is seen.
        towards = m.logmap(centre, data)
        data = m.expmap(centre, towards / m.lift(m.norm(centre, towards)))
    source = Uniform(m) if isinstance(m, Sphere) else WrappedNormal(m, centre[0], 0.4)
    return marginal_velocity(GeodesicPath(m), data, source)


def rows(m: Manifold, arguments: argparse.Namespace) -> list[str]:
    """Return the rows of the table for a manifold."""
    field, n, seed = exact_field(m, arguments.seed), arguments.points, arguments.seed
    flow = Flow(m, field, field.source)

    def noisy(steps: int, scored: bool) -> Stochastic:
        score = field.score if scored else lambda x, t: torch.zeros_like(x)
        noise = torch.Generator().manual_seed(seed + 1)
        return Stochastic(lambda t: arguments.noise * (1 - t), score, steps=steps, generator=noise)

    def drawn(solver: FixedStep | Stochastic, offset: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed + offset)
        return flow.sample(n, time=_TIME, generator=generator, solver=solver, batch_size=20_000)

    without = drawn(FixedStep(RK4, 15), 2)
    cases: list[tuple[str, int, FixedStep | Stochastic]] = [("without noise, other seed", 15, FixedStep(RK4, 15))]
    cases += [("with noise", steps, noisy(steps, True)) for steps in arguments.steps]
    cases.append(("noise without the score", arguments.steps[0], noisy(arguments.steps[0], False)))
    made = []
    for name, steps, solver in cases:
        start = time.process_time()
        found = compare(m, drawn(solver, 3), without)
        seconds = time.process_time() - start
        p = f"{found.p_value:.3f}" if found.p_value > 1e-3 else f"{found.p_value:.0e}"
        made.append(f"| {m} | {name} | {steps} | {found.largest:.2f} | {p} | {seconds:.0f} |")
        print(made[-1], flush=True)
    return made


def main(argv: list[str] | None = None) -> None:
    """Run all, print the table, and write the page if requested."""
    parser = argparse.ArgumentParser(prog="python -m experiments.noise", description=__doc__)
    parser.add_argument("--points", type=int, default=100_000, help="in each sample (default: 100000)")
    parser.add_argument("--steps", type=int, nargs="+", default=[40, 160], help="with noise (default: 40 160)")
    parser.add_argument("--noise", type=float, default=0.5, help="g at time 0 (default: 0.5)")
    parser.add_argument("--seed", type=int, default=0, help="of everything (default: 0)")
    parser.add_argument("--quick", action="store_true", help="a small run that shows that all parts work")
    parser.add_argument("--out", type=Path, help="write the page here")
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.points, arguments.steps = 1500, [20]
    torch.set_num_threads(1)
    print(_HEADER)
    table = [row for m in (Sphere(2), FlatTorus(2)) for row in rows(m, arguments)]
    if arguments.out:
        page = _PAGE.format(
            points=arguments.points,
            time=_TIME,
            waves=_WAVES,
            command=f"python -m experiments.noise --points {arguments.points} "
            f"--steps {' '.join(map(str, arguments.steps))} --noise {arguments.noise:g} --seed {arguments.seed} "
            f"--out {arguments.out}",
            date=date.today().isoformat(),
            machine=platform.machine(),
            threads=1,
            python=platform.python_version(),
            torch=torch.__version__,
            seed=arguments.seed,
            noise=f"{arguments.noise:g}",
            table="\n".join([_HEADER, *table]),
        )
        arguments.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
