"""Where a trained field departs from the exact one: ``python -m experiments.exact_fields``.

Airports on the sphere. A network is trained by flow matching on some of them; the minimum of its loss on these points
is `rfm.marginal_velocity`, which memorises them. At each time of a grid, with points drawn from the paths:

- on the training points: the loss of the exact field, below which no field can be, and how much more the network has,
  which is the mean of ``|v - v_exact|^2``;
- on held-out points: the loss of both, paths of other data that neither was fitted to.
"""

import argparse
import platform
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import torch
from torch import Tensor

import rfm
from manifolds import Sphere
from rfm.datasets import load
from rfm.sources import Uniform

TIMES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)
_SPHERE = Sphere(2)
_PAGE = """\
# The field that memorises

Flow matching on finitely many points has an exact minimum, `rfm.marginal_velocity`: the mean of the paths' velocities
over the data points that a place may be on its way to. Its flow ends at the training points and nowhere else. That a
trained network gives new points is because it *departs* from it. This page measures where.

```
python -m experiments.exact_fields --out docs/studies/exact-fields.md --figure docs/images/exact-fields.png
```

Measured {date} on {machine} (CPU, {threads} thread), seed {seed}: {count} airports for training and as many held out, a
network of 2 layers of 64 trained for {steps} steps, {draws:,} draws at each time, float64 for the exact field.

![Training and held-out loss of the exact and of the trained field against time](../images/exact-fields.png)

Losses are means of `|v - dx_t|^2` times `(1 - t)^2`, in square radians: squared errors of the end point that a velocity
points to. The *departure* is the same of `v - v_exact` on the training paths. Standard errors are below
{error:.1%} of the means, but for the exact training loss, which vanishes.

{table}

On the training points no field is below the exact one; the network is above it by the departure, up to the sampling
error of a difference. Until late the two agree to a percent or so: many data points share each place, and the mean
over them is smooth enough for a small network. Then the exact field knows which training point a path is about to
reach, and its loss falls to 0. On held-out points it leads to the wrong ones with certainty: from time {crossing:g}
on its loss is larger than the network's, in the end many times larger. What generalises is decided there.
"""


class Losses(NamedTuple):
    """Means at one time, times ``(1 - t)^2``."""

    time: float
    train_exact: float
    train_network: float
    departure: float
    held_out_exact: float
    held_out_network: float
    relative_error: float
    """The largest standard error of these, relative to the mean."""


def trained(points: Tensor, steps: int, seed: int) -> Callable[..., Tensor]:
    """Return a network trained on all the points by flow matching."""
    torch.manual_seed(seed)
    field = rfm.networks.VelocityField(_SPHERE, width=64, depth=2)
    path, source = rfm.GeodesicPath(_SPHERE), Uniform(_SPHERE)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(field.parameters(), lr=3e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        x_1 = points[torch.randint(len(points), (256,), generator=generator)].float()
        x_0 = source.sample((256,), generator=generator)
        t = torch.rand(256, generator=generator)
        loss = rfm.flow_matching_loss(field, path, x_0, x_1, t)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        decay.step()
    return field.eval().double()


@torch.no_grad()
def losses_at(
    time: float,
    exact: rfm.Field,
    network: Callable[..., Tensor],
    train: Tensor,
    held_out: Tensor,
    draws: int,
    seed: int,
) -> Losses:
    """Return the losses of both fields at one time, on paths to training and to held-out points."""
    generator = torch.Generator().manual_seed(seed)
    path, means, errors = rfm.GeodesicPath(_SPHERE), [], []

    def add(square: Tensor) -> None:
        means.append((1 - time) ** 2 * float(square.mean()))
        errors.append(float(square.std() / square.mean().clamp(min=1e-12)) / draws**0.5)

    for points in (train, held_out):
        x_1 = points[torch.randint(len(points), (draws,), generator=generator)]
        x_0 = _SPHERE.random_uniform(draws, generator=generator, dtype=torch.float64)
        made = path.sample(x_0, x_1, torch.full((draws,), time, dtype=torch.float64))
        v, u = exact(made.x_t, made.t), network(made.x_t, made.t)
        add((v - made.dx_t).square().sum(-1))
        add((u - made.dx_t).square().sum(-1))
        if points is train:
            add((u - v).square().sum(-1))
    # The exact field's own loss on its points vanishes late, and so does what its relative error means.
    first, second, third, fourth, fifth = means
    return Losses(time, first, second, third, fourth, fifth, max(errors[1:]))


def table(rows: list[Losses]) -> str:
    """Return a line for each time."""
    head = (
        "| time | training loss, exact | training loss, network | departure | held-out loss, exact "
        "| held-out loss, network |\n|---:|---:|---:|---:|---:|---:|"
    )
    return "\n".join([head, *(f"| {row[0]:g} | " + " | ".join(f"{v:.4f}" for v in row[1:6]) + " |" for row in rows)])


def draw(rows: list[Losses], figure: Path) -> None:
    """Plot the losses on the training points, with the departure, and on the held-out points."""
    figure.parent.mkdir(parents=True, exist_ok=True)
    times, train_exact, train_network, departure, held_out_exact, held_out_network, _ = zip(*rows, strict=True)
    drawing, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    # Most happens late: the time that is left, on a logarithmic scale that runs to the right.
    left_over = [1 - time for time in times]
    left.plot(left_over, train_exact, label="exact field")
    left.plot(left_over, train_network, label="trained network")
    left.plot(left_over, departure, "--", color="grey", label="departure of the network")
    right.plot(left_over, held_out_exact, label="exact field of the training points")
    right.plot(left_over, held_out_network, label="trained network")
    for axes, title in ((left, "paths to training points"), (right, "paths to held-out points")):
        axes.set(title=title, xlabel="1 - t, time left", xscale="log", xlim=(1.1, 0.009), yscale="log", ylim=(1e-4, 4))
        axes.legend(frameon=False)
    left.set_ylabel("loss times (1 - t)², rad²")
    drawing.savefig(figure, dpi=150)
    plt.close(drawing)


def main(arguments: list[str] | None = None) -> None:
    """Train, measure, print the table, and write page and figure if requested."""
    parser = argparse.ArgumentParser(prog="python -m experiments.exact_fields", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few points, steps and draws, to try the study")
    parser.add_argument("--seed", type=int, default=0, help="of the split, the network and the draws (default: 0)")
    parser.add_argument("--out", type=Path, help="the page to write")
    parser.add_argument("--figure", type=Path, help="the picture to write")
    options = parser.parse_args(arguments)
    count, steps, draws = (40, 50, 200) if options.quick else (200, 4000, 4000)
    points = load("airports").points.double()
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(options.seed))
    train, held_out = points[order[:count]], points[order[count : 2 * count]]
    exact = rfm.marginal_velocity(rfm.GeodesicPath(_SPHERE), train, Uniform(_SPHERE))
    network = trained(train, steps, options.seed)
    rows = [losses_at(t, exact, network, train, held_out, draws, options.seed + i) for i, t in enumerate(TIMES)]
    print(table(rows))
    if options.figure is not None:
        draw(rows, options.figure)
    if options.out is not None:
        better = [i for i, row in enumerate(rows) if row.held_out_exact <= row.held_out_network]
        facts = {
            "date": date.today().isoformat(),
            "machine": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "crossing": TIMES[min(max(better, default=-1) + 1, len(TIMES) - 1)],
            "error": max(row.relative_error for row in rows),
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        text = _PAGE.format(table=table(rows), count=count, steps=steps, draws=draws, seed=options.seed, **facts)
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
