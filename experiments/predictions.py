"""What a network predicts, and by which loss it learns: velocities and end points on three curved spaces.

Data are drawn from a known mixture of four bumps on the sphere, the hyperbolic plane and the rotations. All rows have
the same network, the same steps and the same sampler; they differ in what the output means and how its error is
measured. The score is ``KL(data | flow)`` in nats, from exact log-densities of test points: 0 is perfect.

- velocity: ``|v - dx_t|^2``.
- end point, tangent: ``|log_x(prediction) - log_x(x_1)|^2``, whose minimiser gives the marginal velocity.
- end point, tangent, weighted: the same over ``(1 - t)^2 + 0.01``, nearly the loss of the velocity.
- end point, geodesic: ``dist(prediction, x_1)^2``, with the curvature that the others lack, and another minimiser.
- end point, geodesic, weighted: likewise.

    python -m experiments.predictions [--seeds 2] [--steps 1000] [--out docs/benchmarks/predictions.md] [--quick]
"""

import argparse
import datetime
import math
import platform
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

import rfm
from manifolds import SO3, Hyperboloid, Manifold, Sphere
from rfm.metrics import AmbientGaussianKernel, maximum_mean_discrepancy, median_distance
from rfm.networks import VelocityField
from rfm.sources import KernelMixture, Source, Uniform, WrappedNormal

TEST_POINTS = 1000


def near_end(t: Tensor) -> Tensor:
    """Return weights that make errors of end points into errors of velocities, nearly, and stay bounded."""
    return 1 / ((1 - t).square() + 0.01)


ROWS = {
    "velocity": rfm.FlowMatching(),
    "end point, tangent": rfm.FlowMatching(predicts="end point"),
    "end point, tangent, weighted": rfm.FlowMatching(predicts="end point", weight=near_end),
    "end point, geodesic": rfm.FlowMatching(predicts="end point", distance="geodesic"),
    "end point, geodesic, weighted": rfm.FlowMatching(predicts="end point", distance="geodesic", weight=near_end),
}


class Bumps(Source):
    """An equal mixture of distributions of one kind about different points, whose density is known.

    Args:
        parts: the distributions, all on one manifold.
    """

    def __init__(self, parts: Sequence[Source]) -> None:
        super().__init__(parts[0].manifold)
        self.parts = parts

    def sample(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        drawn = torch.stack([part.sample(shape, generator, dtype, device) for part in self.parts])
        which = torch.randint(len(self.parts), shape, generator=generator, device=device)
        return drawn[which, torch.arange(len(which))]

    def log_prob(self, x: Tensor) -> Tensor:
        return torch.stack([part.log_prob(x) for part in self.parts]).logsumexp(0) - math.log(len(self.parts))


def spaces() -> dict[str, tuple[Manifold, Source]]:
    """Return the spaces with their data."""
    generator = torch.Generator().manual_seed(1)
    sphere, plane, rotations = Sphere(2), Hyperboloid(2), SO3()
    kernels = {}
    for manifold in (sphere, rotations):
        centres = manifold.random_uniform(4, generator=generator, dtype=torch.float64)
        concentration, weights = torch.tensor([20.0]), torch.tensor([1.0, 0.0])
        kernels[manifold] = KernelMixture(manifold, centres, concentration, weights, Uniform(manifold))
    angle = torch.arange(4, dtype=torch.float64) * (math.pi / 2)
    away = 2 * torch.stack([torch.zeros_like(angle), angle.cos(), angle.sin()], dim=-1)
    origin = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    places = plane.expmap(origin.expand(4, 3), away)
    return {
        "S^2": (sphere, kernels[sphere]),
        "H^2": (plane, Bumps([WrappedNormal(plane, mean, 0.3) for mean in places])),
        "SO(3)": (rotations, kernels[rotations]),
    }


def scores(
    manifold: Manifold, data: Source, row: str, seed: int, points: int, steps: int, width: int
) -> tuple[float, float]:
    """Fit one row; return the divergence of Kullback and Leibler in nats, and the squared discrepancy of samples."""
    generator = torch.Generator().manual_seed(seed)
    train, test, other = (data.sample((n,), generator, torch.float64) for n in (points, TEST_POINTS, TEST_POINTS))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        field = VelocityField(manifold, width=width, depth=2, features=2 * width, max_frequency=8.0)
    flow = rfm.fit(
        train, manifold, objective=ROWS[row], field=field, steps=steps, batch_size=256, seed=seed, device="cpu",
        progress=False,
    )  # fmt: skip
    divergence = float((data.log_prob(test) - flow.log_prob(test).double()).mean())
    drawn = flow.sample(TEST_POINTS, generator=generator).double()
    kernel = AmbientGaussianKernel(manifold, median_distance(manifold, test, other) / 2)
    discrepancy = maximum_mean_discrepancy(drawn, other, kernel).mean
    print(
        f"{manifold} | {row} | seed {seed}: {divergence:.4f} nats, {discrepancy:.5f}; {flow.stopped}", file=sys.stderr
    )
    return divergence, discrepancy


def report(options: argparse.Namespace) -> str:
    """Return the page, with its table."""
    lines = [
        "| space | prediction and loss | KL, nats, mean | by seed | squared MMD x 1000, mean |",
        "|---|---|---:|---|---:|",
    ]
    for name, (manifold, data) in spaces().items():
        for row in ROWS:
            found = [
                scores(manifold, data, row, seed, options.points, options.steps, options.width)
                for seed in range(options.seeds)
            ]
            kl, mmd = zip(*found, strict=True)
            each = ", ".join(f"{value:.3f}" for value in kl)
            lines.append(
                f"| {name} | {row} | {statistics.fmean(kl):.3f} | {each} | {1000 * statistics.fmean(mmd):.2f} |"
            )
    return _HEAD.format(
        options=options,
        date=datetime.date.today(),
        python=platform.python_version(),
        machine=platform.machine(),
        torch=torch.__version__,
    ) + "\n".join(lines)


_HEAD = """\
# What a network predicts

- command: `python -m experiments.predictions --seeds {options.seeds} --steps {options.steps} \
--points {options.points} --width {options.width} --out docs/benchmarks/predictions.md`
- date: {date}; {machine} CPU, one thread; Python {python}, torch {torch}; float32; seeds 0 to {options.last_seed}
- data: {options.points} draws from a mixture of four bumps whose density is known; batch 256, width {options.width},
  two hidden layers; one network, one sampler, one number of steps for all rows

KL(data | flow) in nats by exact log-densities of 1000 test points, 0 is perfect; MMD between as many samples and data,
Gaussian kernel in the ambient coordinates, half the median distance wide.

"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit every row on every space and print the table."""
    parser = argparse.ArgumentParser(prog="python -m experiments.predictions", description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=2, help="number of runs of each row (default 2)")
    parser.add_argument("--steps", type=int, default=1000, help="optimiser steps (default 1000)")
    parser.add_argument("--points", type=int, default=4000, help="training points (default 4000)")
    parser.add_argument("--width", type=int, default=48, help="width of the network (default 48)")
    parser.add_argument("--quick", action="store_true", help="one seed, 30 steps: to see that it runs")
    parser.add_argument("--out", type=Path, help="also write the page to this file")
    options = parser.parse_args(arguments)
    if options.quick:
        options.seeds, options.steps, options.points, options.width = 1, 30, 400, 16
    options.last_seed = options.seeds - 1
    page = report(options)
    print(page)
    if options.out is not None:
        options.out.write_text(page + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
