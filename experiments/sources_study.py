"""What a flow gains by starting from a kernel mixture of the training points instead of the uniform distribution.

The world's airports, split by place. Each row is a source and a coupling; the last is the kernel mixture by itself.
Mean test negative log-likelihood in nats with respect to the area of the unit sphere, smaller is better.

    python -m experiments.sources_study [--seeds 2] [--steps 2000] [--every 1] [--width 192] [--rows "kernel, nearby"]
"""

import argparse
import statistics
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

import rfm
from manifolds import Sphere
from rfm.couplings import Coupling, Independent, OptimalTransport, Pairs
from rfm.datasets import group_split, load
from rfm.metrics import negative_log_likelihood
from rfm.networks import VelocityField
from rfm.sources import KernelMixture, Source, Uniform


class Nearby:
    """Replaces each source point by one drawn from a kernel about its own target, or from the background.

    Source points then have the mixture's distribution as before, if its centres are the training points.

    Args:
        source: the kernel mixture.
    """

    def __init__(self, source: KernelMixture) -> None:
        self.source = source

    def __call__(
        self,
        x_0: Tensor,
        x_1: Tensor,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Pairs:
        mixture = self.source
        component = torch.multinomial(mixture.weights.to(x_1.device), len(x_1), True, generator=generator)
        kernels = len(mixture.concentrations)
        k = mixture.concentrations.to(x_1.device)[component.clamp(max=kernels - 1)]
        assert mixture.manifold.kernel is not None
        near = mixture.manifold.kernel.sample(x_1.double(), k, generator)
        far = mixture.background.sample((len(x_1),), generator, near.dtype, near.device)
        x_0 = torch.where(mixture.manifold.lift(component < kernels), near, far).to(x_1.dtype)
        return Pairs(x_0, x_1, condition)


ROWS = (
    "uniform, independent",
    "uniform, optimal transport",
    "kernel, independent",
    "kernel, optimal transport",
    "kernel, nearby",
)


def test_score(
    row: str, train: Tensor, validation: Tensor, test: Tensor, seed: int, steps: int, width: int | None
) -> float:
    """Fit the flow of a row and return its mean test NLL in nats."""
    sphere = Sphere(2)
    start, _, pairing = row.partition(", ")
    source: Source = Uniform(sphere) if start == "uniform" else KernelMixture.fit(sphere, train)
    coupling: Coupling = Independent()
    if pairing == "optimal transport":
        coupling = OptimalTransport(sphere)
    elif pairing == "nearby":
        assert isinstance(source, KernelMixture)
        coupling = Nearby(source)
    points = torch.cat([train, validation])
    held = torch.arange(len(train), len(points))
    field = None
    if width is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            field = VelocityField(sphere, width=width, features=width)
    flow = rfm.fit(
        points,
        sphere,
        validation=held,
        source=source,
        coupling=coupling,
        field=field,
        refine=False,
        steps=steps,
        seed=seed,
        progress=False,
    )
    print(row, seed, flow.stopped, [round(r["validation_nll"], 3) for r in flow.history], file=sys.stderr)
    return negative_log_likelihood(flow.log_prob(test)).mean


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit every row on every seed and print a table."""
    parser = argparse.ArgumentParser(prog="python -m experiments.sources_study", description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=2, help="number of splits (default 2)")
    parser.add_argument("--steps", type=int, default=2000, help="optimiser steps (default 2000)")
    parser.add_argument("--every", type=int, default=1, help="take one airport of so many (default 1, all)")
    parser.add_argument("--width", type=int, help="width of the network (default: that of rfm.fit)")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS, help="which to fit (default: all)")
    options = parser.parse_args(arguments)
    points = load("airports").points[:: options.every]
    scores: dict[str, list[float]] = {row: [] for row in (*options.rows, "kernel mixture itself")}
    for seed in range(options.seeds):
        train, validation, test = (points[rows] for rows in group_split(points, seed))
        for row in options.rows:
            scores[row].append(test_score(row, train, validation, test, seed, options.steps, options.width))
        mixture = KernelMixture.fit(Sphere(2), train)
        scores["kernel mixture itself"].append(negative_log_likelihood(mixture.log_prob(test)).mean)
    print("| source, coupling | test NLL, nats, by seed | mean |\n|---|---|---:|")
    for row, values in scores.items():
        print(f"| {row} | {', '.join(f'{v:.3f}' for v in values)} | {statistics.fmean(values):.3f} |")


if __name__ == "__main__":
    main()
