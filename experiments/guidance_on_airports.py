"""Airports given their country and elevation: what each condition is worth, and what guidance does.

Two tables and a map. Test negative log-likelihood in nats per steradian, with none, some and all conditions known, of
one flow. Then samples given a country, for each weight of guidance: the share whose nearest airport in the data lies in
that country, and the share of the country's airports that have a sample within 200 km. Guidance is for flows as they
are trained, so this one is not refined; `experiments.conditional` says what that adds.

    python -m experiments.guidance_on_airports [--steps 1500] [--run FOLDER] [--figure runs/guidance.png]
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

import rfm
from manifolds import Sphere
from rfm.conditions import Conditions
from rfm.datasets import EARTH_RADIUS_KM, Split, airports, find_conditions, group_split, read_table
from rfm.integrators import Adaptive
from rfm.metrics import negative_log_likelihood
from rfm.plotting import DATA_COLOUR, SAMPLE_COLOUR, draw_points, new_figure, world_map

COUNTRIES = ("CA", "CL")
WEIGHTS = (1.0, 1.5, 2.0, 3.0)
SHOWN = (1.0, 1.5, 3.0)
SOLVER = Adaptive(atol=1e-3, rtol=1e-3)
SAMPLES = 1000
TEST_POINTS = 1000
REACH_KM = 200.0


def fitted(
    points: Tensor, condition: Tensor, conditions: Conditions, split: Split, steps: int, run: Path | None
) -> rfm.Flow:
    """Fit a flow to the training points, or load it from a finished run."""
    index = torch.cat([split.train, split.validation])
    held = torch.arange(len(split.train), len(index))
    return rfm.fit(
        points[index],
        Sphere(2),
        condition=condition[index],
        conditions=conditions,
        validation=held,
        refine=False,
        steps=steps,
        device="cpu",
        out=run,
        resume=run is not None,
    )


def likelihoods(flow: rfm.Flow, points: Tensor, condition: Tensor) -> str:
    """Return a Markdown table of the test NLL by what is known."""
    assert flow.conditions is not None
    lines = ["| known | test NLL, nats | standard error |", "|---|---:|---:|"]
    names = flow.conditions.names
    for known in ((), *((name,) for name in names), names):
        hidden = torch.tensor([name not in known for name in names])
        own = torch.where(hidden, torch.nan, condition)
        nll = negative_log_likelihood(flow.log_prob(points, condition=own, solver=SOLVER).double(), groups=points)
        lines.append(f"| {' and '.join(known) or 'nothing'} | {nll.mean:.3f} | {nll.error_text()} |")
    return "\n".join(lines)


def draw(flow: rfm.Flow, country: str, weight: float) -> Tensor:
    """Return samples given a country, the same random draws for every weight."""
    generator = torch.Generator().manual_seed(0)
    return flow.sample(
        SAMPLES, condition={"country": country}, guidance=weight, generator=generator, solver=SOLVER
    ).double()


def guided(samples: dict[tuple[str, float], Tensor], points: Tensor, countries: Sequence[str | None]) -> str:
    """Return a Markdown table of how true to its country, and how spread over it, each set of samples is."""
    reach = 2 * torch.sin(torch.tensor(REACH_KM / EARTH_RADIUS_KM / 2))
    lines = ["| country | guidance | samples in it | its airports reached |", "|---|---:|---:|---:|"]
    for (country, weight), drawn in samples.items():
        there = torch.tensor([own == country for own in countries])
        true = there[torch.cdist(drawn, points).argmin(1)].double().mean()
        reached = (torch.cdist(points[there], drawn).amin(1) < reach).double().mean()
        lines.append(f"| {country} | {weight:g} | {100 * true:.1f} % | {100 * reached:.1f} % |")
    return "\n".join(lines)


def picture(drawn: dict[str, dict[str, Tensor]], points: Tensor, countries: Sequence[str | None], path: Path) -> None:
    """Draw a row of maps for each country: its airports, and samples by title."""
    columns = 1 + max(len(samples) for samples in drawn.values())
    figure = new_figure(4.5 * columns, 2.8 * len(drawn), "Airports given their country")
    grid = figure.add_gridspec(len(drawn), columns)
    for row, (country, samples) in enumerate(drawn.items()):
        own = points[torch.tensor([name == country for name in countries])]
        data = own[torch.randperm(len(own), generator=torch.Generator().manual_seed(0))[:SAMPLES]]
        axes = world_map(figure, grid[row, 0], f"{country}: data, {len(data):,} airports", earth=True)
        draw_points(axes, data.numpy(), DATA_COLOUR, SAMPLES)
        for column, (title, x) in enumerate(samples.items(), start=1):
            axes = world_map(figure, grid[row, column], f"{country}: {len(x):,} samples, {title}", earth=True)
            draw_points(axes, x.numpy(), SAMPLE_COLOUR, SAMPLES)
    rfm.plotting.save_figure(figure, path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit, print both tables, and draw the maps if ``--figure`` names a file."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.guidance_on_airports", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--steps", type=int, default=1500, help="optimiser steps (default 1500)")
    parser.add_argument("--run", type=Path, help="folder to keep the flow in, and to load it from")
    parser.add_argument("--figure", type=Path, help="PNG file for the maps")
    options = parser.parse_args(arguments)
    dataset = airports()
    conditions, condition = find_conditions(read_table(dataset.path), ["country", "elevation"])
    countries = conditions.decode(condition)["country"]
    split = group_split(dataset.points, 0)
    flow = fitted(dataset.points, condition, conditions, split, options.steps, options.run)
    print(f"{flow.stopped}, {flow.history[-1]['seconds']:.0f} s", file=sys.stderr)
    test = split.test[:TEST_POINTS]
    print(likelihoods(flow, dataset.points[test], condition[test]), end="\n\n")
    samples = {(country, weight): draw(flow, country, weight) for country in COUNTRIES for weight in WEIGHTS}
    print(guided(samples, dataset.points, countries))
    if options.figure is not None:
        shown = {c: {f"guidance {weight:g}": samples[c, weight] for weight in SHOWN} for c in COUNTRIES}
        picture(shown, dataset.points, countries, options.figure)


if __name__ == "__main__":
    main()
