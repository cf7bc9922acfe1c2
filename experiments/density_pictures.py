"""Pictures of the studies of densities, from the flows that they left: maps, Ramachandran plots, pairs of angles.

Contours enclose a quarter, half, three quarters and nineteen twentieths of a refined flow's probability, the smallest
regions that do. Points are some of those of the test split.

    python -m experiments.density_pictures earth --runs runs/earth --figure docs/images/earth.png
    python -m experiments.density_pictures backbones --runs runs/torsions --figure docs/images/ramachandran.png
    python -m experiments.density_pictures rna --runs runs/torsions --figure docs/images/rna-pairs.png
"""

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import rfm
from experiments import earth, torsions
from experiments.density_study import Problem
from manifolds import FlatTorus
from rfm.integrators import Adaptive
from rfm.plotting import DATA_COLOUR, SAMPLE_COLOUR, draw_points, finish, new_figure, save_figure, world_map

Array = NDArray[Any]

SHARES = (0.95, 0.75, 0.5, 0.25)
"""Of the probability, inside each contour, from the outermost to the innermost."""
COLOURS = ("#e3eef6", "#b3d0e6", "#6fa5cd", "#2c6ca3")
SOLVER = Adaptive(atol=1e-3, rtol=1e-3)
"""A thousandth cannot be seen."""
ANGLES = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "chi")
SHOWN = 400
"""Points on a map, at most: more would hide the contours."""
DRAWN = 2000
"""Samples."""


def levels(log_density: Array, log_area: Array) -> Array:
    """Return the log-densities above which the shares of the probability lie, ascending, and then infinity."""
    mass = np.exp(log_density + log_area)
    order = np.argsort(-log_density, axis=None)
    inside = np.cumsum(mass.ravel()[order]) / mass.sum()
    found = [log_density.ravel()[order[np.searchsorted(inside, share)]] for share in SHARES]
    # Steps of a coarse grid may put two contours at one value.
    return np.append(np.maximum.accumulate(np.array(found) + 1e-9 * np.arange(len(found))), np.inf)


def contours(axes: Any, x: Array, y: Array, log_density: Array, log_area: Array) -> None:
    """Fill the regions that hold the shares of the probability, on grids of x ``(m,)`` and y ``(n,)``."""
    at = levels(log_density, log_area)
    axes.contourf(x, y, log_density, np.append(at[:-1], max(at[-2], float(log_density.max())) + 1), colors=COLOURS)
    axes.contour(x, y, log_density, at[:-1], colors=COLOURS[-1], linewidths=0.4, linestyles="solid")


def saved(problem: Problem, runs: Path) -> tuple[rfm.Flow, Array]:
    """Return the flow of the first split, and its test points."""
    flow = rfm.Flow.load(runs / problem.name / "seed-0" / "flow")
    return flow, problem.points[problem.split(0).test].numpy()


def sphere_grid(flow: rfm.Flow, evaluations: int) -> tuple[Array, Array, Array]:
    """Return longitudes and latitudes in radians, and the log-density where they cross.

    It is evaluated at the centres of cells of equal size, fewer along a parallel near the poles, and interpolated.
    """
    rows = math.isqrt(round(evaluations * math.pi / 4))
    longitude = np.linspace(-math.pi, math.pi, 2 * rows + 1)
    latitude = (np.arange(rows) + 0.5) * math.pi / rows - math.pi / 2
    places = [(np.arange(n) + 0.5) * 2 * math.pi / n - math.pi for n in (2 * rows * np.cos(latitude)).astype(int) + 4]
    north = np.repeat(latitude, [len(along) for along in places])
    east = np.concatenate(places)
    points = np.stack([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)], axis=-1)
    log_density = flow.log_prob(torch.from_numpy(points).float(), solver=SOLVER).double().numpy()
    parts = np.split(log_density, np.cumsum([len(along) for along in places])[:-1])
    inner = [np.interp(longitude, along, part, period=2 * math.pi) for along, part in zip(places, parts, strict=True)]
    return longitude, latitude, np.stack(inner)


def maps(runs: Path, evaluations: int) -> Any:
    """Return maps of places on the earth."""
    figure = new_figure(11, 6.4, None)
    cells = figure.add_gridspec(2, 2)
    for i, (dataset, split) in enumerate(
        [("airports", "group"), ("flood", "deduplicated"), ("earthquake", "deduplicated"), ("fire", "deduplicated")]
    ):
        flow, test = saved(earth.problem(dataset, split, 1), runs)
        axes = world_map(figure, cells[divmod(i, 2)], dataset, earth=True)
        longitude, latitude, log_density = sphere_grid(flow, evaluations)
        log_area = np.log(np.cos(latitude))[:, None] + np.zeros_like(log_density)
        contours(axes, longitude, latitude, log_density, log_area)
        # As many on each map, and few: in a split's own order, which is random.
        draw_points(axes, test[:SHOWN], SAMPLE_COLOUR, 6 * SHOWN)
    return figure


def ramachandran(runs: Path, evaluations: int) -> Any:
    """Return Ramachandran plots of the classes of residues that were fitted."""
    kinds = [kind for kind in torsions.BACKBONES if (runs / kind / "seed-0" / "flow").exists()]
    figure = new_figure(3.6 * len(kinds), 3.9, None)
    side = math.isqrt(evaluations)
    # Both ends, which are one angle, so that contours go to the edge.
    angle = np.linspace(-math.pi, math.pi, side + 1)
    grid = torch.from_numpy(np.stack(np.meshgrid(angle, angle), axis=-1).reshape(-1, 2))
    for i, kind in enumerate(kinds):
        flow, test = saved(torsions.problem(kind, 1), runs)
        axes = figure.add_subplot(1, len(kinds), i + 1)
        points = FlatTorus(2).projx(grid).float()
        log_density = flow.log_prob(points, solver=SOLVER).double().numpy().reshape(side + 1, side + 1)
        contours(axes, np.degrees(angle), np.degrees(angle), log_density, np.zeros_like(log_density))
        shown = np.degrees(test[:1500])
        axes.scatter(shown[:, 0], shown[:, 1], s=1.5, color=SAMPLE_COLOUR, alpha=0.5, linewidths=0)
        finish(axes, kind, "phi, degrees", "psi, degrees" if i == 0 else "")
        axes.set_aspect("equal")
        axes.set_xticks(range(-180, 181, 90))
        axes.set_yticks(range(-180, 181, 90))
    return figure


def pairs(runs: Path, evaluations: int) -> Any:
    """Return all pairs of the angles of RNA: data below the diagonal, as many samples above it."""
    problem = torsions.problem("rna, published", 1)
    flow, _ = saved(problem, runs)
    order = torch.randperm(len(problem.points), generator=torch.Generator().manual_seed(0))[:evaluations]
    data = np.degrees(problem.points[order].numpy())
    drawn = flow.sample(len(order), generator=torch.Generator().manual_seed(0), solver=SOLVER)
    samples = np.degrees(drawn.double().numpy())
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = new_figure(10, 10, None)
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01))
    for i, name in enumerate(ANGLES):
        for j, other in enumerate(ANGLES):
            axes = figure.add_subplot(len(ANGLES), len(ANGLES), len(ANGLES) * i + j + 1)
            if i == j:
                bins = np.linspace(-180, 180, 73).tolist()
                for values, colour in ((data, DATA_COLOUR), (samples, SAMPLE_COLOUR)):
                    axes.hist(values[:, i], bins=bins, histtype="step", color=colour, linewidth=0.9)
                axes.set_yticks([])
            else:
                values, colour = (data, DATA_COLOUR) if i > j else (samples, SAMPLE_COLOUR)
                axes.scatter(values[:, j], values[:, i], s=0.8, color=colour, alpha=0.35, linewidths=0)
                axes.set_ylim(-180, 180)
                axes.set_yticks([-180, 0, 180] if j == 0 else [])
            finish(axes, "", other if i == len(ANGLES) - 1 else "", name if j == 0 else "")
            axes.set_xlim(-180, 180)
            axes.set_xticks([-180, 0, 180] if i == len(ANGLES) - 1 else [])
            axes.tick_params(labelsize=7)
    return figure


PICTURES: dict[str, tuple[Callable[[Path, int], Any], int]] = {
    "earth": (maps, 8_000),
    "backbones": (ramachandran, 10_000),
    "rna": (pairs, DRAWN),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw one of the pictures."""
    parser = argparse.ArgumentParser(prog="python -m experiments.density_pictures", description=__doc__.split("\n")[0])
    parser.add_argument("picture", choices=PICTURES)
    parser.add_argument("--runs", type=Path, required=True, help="folder of the study's runs")
    parser.add_argument("--figure", type=Path, required=True, help="PNG file to write")
    parser.add_argument("--evaluations", type=int, help="densities in each panel, or draws (default by the picture)")
    options = parser.parse_args(arguments)
    draw, evaluations = PICTURES[options.picture]
    save_figure(draw(options.runs, options.evaluations or evaluations), options.figure)


if __name__ == "__main__":
    main()
