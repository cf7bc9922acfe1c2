"""Couplings: transport cost, straightness of the flows trained with them, and time per batch.

python -m experiments.benchmarks.couplings [--steps 200] [--device cpu] [--out page.md]
"""

import argparse
import itertools
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

import rfm
from experiments.benchmarks.harness import HEADER, Row, in_turns, write_page
from manifolds import SO3, Manifold, Sphere
from rfm.couplings import Coupling, Independent, OptimalTransport, Sinkhorn
from rfm.networks import VelocityField
from rfm.sources import Uniform

_TIMES = 33
_INTRO = """\
**Cost**: mean squared geodesic distance of the pairs, over that of independent pairs. **Bend**: for flows trained
briefly with each coupling, the mean over trajectories and times of the squared deviation of the velocity, carried back
to the start, from its mean along the trajectory, over the mean squared velocity: 0 for geodesics at constant speed.
**Time**: median over batches, after one to warm up."""


def couplings(manifold: Manifold) -> dict[str, Coupling]:
    """Return the couplings by name."""
    return {
        "independent": Independent(),
        "optimal transport": OptimalTransport(manifold),
        "Sinkhorn": Sinkhorn(manifold),
        "Sinkhorn, regularisation 0.01": Sinkhorn(manifold, 0.01),
    }


def data(manifold: Manifold, count: int, device: torch.device | str = "cpu") -> Tensor:
    """Return points around eight centres, with a spread of about a third of a radian."""
    generator = torch.Generator(device).manual_seed(1)
    centres = manifold.random_uniform(8, generator=generator, device=device)
    centres = centres[torch.randint(8, (count,), generator=generator, device=device)]
    assert manifold.kernel is not None
    return manifold.kernel.sample(centres, torch.full((count,), 20.0, device=device), generator)


def cost_and_seconds(
    manifold: Manifold, coupling: Coupling, size: int, turns: int, device: torch.device | str
) -> tuple[float, float]:
    """Return mean cost of the pairs of a batch and median seconds per batch."""
    generator = torch.Generator(device).manual_seed(0)
    x_1 = data(manifold, size, device)
    costs, seconds = [], []
    for _ in range(turns + 1):
        x_0 = manifold.random_uniform(size, generator=generator, device=device)
        _wait(device)
        start = time.perf_counter()
        pairs = coupling(x_0, x_1, generator=generator)
        _wait(device)
        seconds.append(time.perf_counter() - start)
        costs.append(float(manifold.dist(pairs.x_0, pairs.x_1).square().mean()))
    return statistics.fmean(costs), statistics.median(seconds[1:])


def bend(manifold: Manifold, coupling: Coupling, steps: int, device: torch.device | str) -> float:
    """Train a small flow and return how far its trajectories are from geodesics: 0 for straight ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        field = VelocityField(manifold, width=64, depth=3, features=64, max_frequency=8.0)
    flow = rfm.fit(
        data(manifold, 2000),
        manifold,
        validation=range(16),  # nothing is decided by them here
        source=Uniform(manifold),
        field=field,
        coupling=coupling,
        refine=False,
        steps=steps,
        batch_size=256,
        device=device,
        progress=False,
    )
    x_0 = manifold.random_uniform(256, generator=torch.Generator().manual_seed(2))
    times = torch.linspace(0, 1, _TIMES)
    with torch.no_grad():
        path = flow.trajectory(x_0, times)
        velocity = torch.stack([field(x, t) for x, t in zip(path, times, strict=True)])
        return deviation(manifold, path, velocity)


def deviation(manifold: Manifold, path: Tensor, velocity: Tensor) -> float:
    """Return the mean squared deviation of velocities from their mean, over their mean square.

    Args:
        manifold: where the path runs; its transport is parallel.
        path: points ``(times, n, *event_shape)``.
        velocity: tangent vectors at them.
    """
    # Step by step, because transport along the path is what keeps the velocity of a geodesic the same.
    carried = velocity
    for i in range(len(path) - 1, 0, -1):
        moved = manifold.transp(path[i].expand_as(carried[i:]), path[i - 1].expand_as(carried[i:]), carried[i:])
        carried = torch.cat([carried[:i], moved])
    start = path[0].expand_as(carried)
    away = carried - carried.mean(0)
    return float(manifold.inner(start, away, away).mean() / manifold.inner(start, carried, carried).mean())


def rows(turns: int = 3) -> list[Row]:
    """Time our exact pairing beside scipy's assignment on the same costs; the results must be equally cheap."""
    return [_row(1024, turns), _row(2048, turns)]


def _row(size: int, turns: int) -> Row:
    from scipy.optimize import linear_sum_assignment

    manifold = Sphere(2)
    x_0, x_1 = manifold.random_uniform(size, generator=torch.Generator().manual_seed(0)), data(manifold, size)
    ours = OptimalTransport(manifold)

    def peer() -> Tensor:
        cost = manifold.dist(x_1[:, None], x_0[None]).square()
        return torch.from_numpy(linear_sum_assignment(cost.numpy())[1])

    def total(index: Tensor) -> float:
        return float(manifold.dist(x_0[index], x_1).double().square().mean())

    difference = abs(total(ours.indices(x_0, x_1)) - total(peer()))
    what = f"exact pairing on {manifold}, batch of {size:,}, beside scipy's assignment"
    return Row(what, *in_turns(lambda: ours(x_0, x_1), peer, turns), 1.0, difference, "difference of mean costs")


def table(steps: int, device: torch.device | str) -> Iterator[str]:
    """Yield the lines of a Markdown table of cost, bend and time for each manifold and coupling."""
    yield "| manifold | coupling | cost, batch of 1024 | bend | ms, batch of 1024 | ms, batch of 4096 |"
    yield "|---|---|---:|---:|---:|---:|"
    manifolds: list[Manifold] = [Sphere(2), SO3()]
    for manifold in manifolds:
        unit = 0.0
        for name, coupling in couplings(manifold).items():
            cost, seconds = cost_and_seconds(manifold, coupling, 1024, 3, device)
            unit = unit or cost
            # Large batches on one manifold: distances, which differ between manifolds, are the lesser part of the time.
            large = manifold is manifolds[0] and "0.01" not in name
            seconds_4096 = cost_and_seconds(manifold, coupling, 4096, 1, device)[1] if large else math.nan
            bent = bend(manifold, coupling, steps, device)
            last = f"{1e3 * seconds_4096:.0f}" if large else ""
            yield f"| {manifold} | {name} | {cost / unit:.3f} | {bent:.3f} | {1e3 * seconds:.1f} | {last} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.couplings", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--steps", type=int, default=200, help="optimiser steps of each flow (default 200)")
    parser.add_argument("--device", default="cpu", help="where to pair and to train (default cpu)")
    parser.add_argument("--out", type=Path, help="markdown file to write")
    options = parser.parse_args(arguments)
    lines = []
    for line in itertools.chain(table(options.steps, options.device), ("", HEADER), (row.line() for row in rows())):
        lines.append(line)
        print(line, flush=True)
    if options.out:
        command = f"python -m experiments.benchmarks.couplings --out {options.out}"
        write_page(options.out, "Couplings", _INTRO, command, "\n".join(lines), ("POT", "scipy"))


def _wait(device: torch.device | str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
