"""Draws of each method on the plane, beside exact ones."""

from collections.abc import Mapping
from pathlib import Path

import torch

from experiments.inverse.problems import SOLVER, Problem
from rfm.plotting import save_figure
from rfm.posterior import Sampler


def draw(problem: Problem, methods: Mapping[str, Sampler], draws: int, path: Path) -> None:
    """Draw prior, exact posterior and the draws of methods, side by side, to a file."""
    from matplotlib.figure import Figure

    generator = torch.Generator().manual_seed(0)
    exact = problem.exact(draws, generator)
    prior = problem.flow.sample(draws, generator=generator, solver=SOLVER)
    panels = {"prior": prior, "exact posterior": exact}
    for name, method in methods.items():
        found = problem.flow.posterior(problem.measurement, draws, method=method, solver=SOLVER, generator=generator)
        panels[name] = found.points
    columns = 3
    figure = Figure(figsize=(9, 3 * -(-len(panels) // columns)), layout="constrained")
    axes = figure.subplots(-(-len(panels) // columns), columns, sharex=True, sharey=True)
    for axis, (name, x) in zip(axes.flat, panels.items(), strict=True):
        axis.scatter(*exact.T, s=2, color="0.8", label="exact", rasterized=True)
        axis.scatter(*x.T, s=2, color="C7" if name == "prior" else "C0", rasterized=True)
        axis.set_title(name, fontsize=10)
        axis.set(xlim=(-4, 4), ylim=(-4, 4), aspect="equal", xticks=(-3, 0, 3), yticks=(-3, 0, 3))
    save_figure(figure, path)
