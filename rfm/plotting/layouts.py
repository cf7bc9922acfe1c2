"""Layouts: what a picture shows, and the pictures that are made of plane panels."""

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rfm.datasets.coordinates import Coordinates
from rfm.flow import Flow
from rfm.integrators import Adaptive
from rfm.plotting.borders import draw_border_in_plane
from rfm.plotting.figures import INK, PAPER, finish, new_figure
from rfm.plotting.panels import (
    Array,
    Limits,
    bin_count,
    colour_bar,
    draw_density,
    draw_grid,
    draw_histogram,
    point_style,
    shares,
)
from rfm.plotting.views import View
from rfm.regions import HighestDensity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours do not show a hundredth of a nat.
SOLVER = Adaptive(atol=1e-3, rtol=1e-3)
_PART = 1024
"""Points between two reports of progress."""
_DRAWS = 2000
"""From which the levels of highest-density regions are found."""
_OUTLINE = "#5ee6ff"
"""Of regions: apart from the density's colours and from coastlines."""


@dataclass(frozen=True)
class Points:
    """Data, or samples."""

    name: str
    colour: str
    all: Tensor

    def title(self, count: int) -> str:
        n = len(self.all)
        return f"{self.name}: {count:,} of {n:,} points" if n > count else f"{self.name}: {n:,} points"

    def some(self, count: int) -> Tensor:
        """Return ``count`` of the points, or all if there are not as many; files are often sorted, so at random."""
        order = torch.randperm(len(self.all), generator=torch.Generator().manual_seed(0))
        return self.all[order[:count].to(self.all.device)]


@dataclass(frozen=True)
class Subject:
    """What a picture shows; ``count`` points of each set are drawn.

    One subject may be drawn in several ways: log-densities are kept in ``computed``.
    """

    flow: Flow
    sets: list[Points]
    count: int
    title: str | None
    coordinates: Coordinates | None
    evaluations: int
    condition: Tensor | Mapping[str, Any] | None = None
    view: View | None = None
    progress: bool = False
    regions: tuple[float, ...] = ()
    computed: dict[Any, Array] = field(default_factory=dict, repr=False, compare=False)

    def columns(self, chart: Callable[[Tensor], Tensor]) -> list[Array]:
        """Return what is drawn of each set, in the coordinates of a page, ``(count, k)``."""
        return [chart(s.some(self.count)).double().cpu().numpy() for s in self.sets]

    def names(self, usual: str, k: int, unit: str = "") -> list[str]:
        """Return the labels of the first ``k`` axes, out of ``self.coordinates`` if it fits the manifold."""
        names = () if self.coordinates is None else self.coordinates.names
        fits = len(names) == math.prod(self.flow.manifold.event_shape)
        return [(names[i] if fits else f"{usual}{i + 1}") + unit for i in range(k)]

    def log_density(self, x: Array) -> Array:
        """Return the flow's log-density at points ``(n, *event_shape)``, nats, NaN outside of a set with a border.

        The same points are computed once.
        """
        key = (x.shape, x.tobytes())
        if key not in self.computed:
            # A page may show angles from 0 to a full turn.
            points = self.flow.manifold.unbounded.projx(torch.from_numpy(x)).float()
            options: dict[str, Any] = {"batch_size": _PART, "progress": True} if self.progress else {}
            values = self.flow.log_prob(points, solver=SOLVER, condition=self.condition, **options)
            self.computed[key] = torch.where(values.isneginf(), math.nan, values).double().cpu().numpy()
        return self.computed[key]


def draw_regions(axes: "Axes", subject: Subject, x: Array, y: Array, log_density: Array) -> None:
    """Outline the highest-density regions that a subject requests on a panel of its density, with their percentages.

    Args:
        axes: the panel.
        subject: whose flow it is of.
        x: the axes' coordinates of the columns of ``log_density``.
        y: those of its rows.
        log_density: nats.
    """
    if not subject.regions:
        return
    draws = HighestDensity(subject.flow, _DRAWS, condition=subject.condition, solver=SOLVER, progress=subject.progress)
    labels = {draws.level(p).log_density: f"{100 * p:g} %" for p in sorted(subject.regions, reverse=True)}
    style: dict[str, Any] = {"colors": _OUTLINE, "linewidths": 1.0, "linestyles": "solid", "zorder": 2.5}
    lines = axes.contour(x, y, log_density, levels=sorted(labels), **style)
    axes.clabel(lines, fmt=labels, fontsize=7)


@dataclass(frozen=True)
class Chart:
    """The axes of a page.

    Args:
        names: a label for each axis.
        limits: what each axis shows, in the units of the page.
        unit: a unit of the page in units of the manifold.
        ticks: the distance between ticks; None leaves it to matplotlib.
        most_bins: most bins of a histogram along an axis.
    """

    names: list[str]
    limits: list[Limits]
    unit: float = 1.0
    ticks: float | None = None
    most_bins: int = 60

    def dress(self, axes: "Axes", title: str, i: int, j: int | None = None, y: str = "") -> None:
        """Give a panel axis ``i`` across and axis ``j`` upwards, or the label ``y``."""
        finish(axes, title, self.names[i], y if j is None else self.names[j])
        axes.set_xlim(*self.limits[i])
        if j is not None:
            axes.set_ylim(*self.limits[j])
        for axis, k in ((axes.xaxis, i), (axes.yaxis, j)):
            if k is not None and self.ticks is not None:
                low, high = self.limits[k]
                axis.set_ticks(np.arange(low, high + self.ticks / 2, self.ticks))


def line(subject: Subject, chart: Chart, columns: list[Array], density_label: str | None) -> "Figure":
    """Draw histograms over one axis, and the density unless ``density_label`` is None."""
    figure = new_figure(12, 5.5, subject.title)
    draw_line(figure.add_subplot(facecolor=PAPER), subject, chart, columns, density_label)
    return figure


def draw_line(axes: "Axes", subject: Subject, chart: Chart, columns: list[Array], density_label: str | None) -> None:
    """Draw what `line` does on a panel."""
    bins = bin_count(subject.count, chart.most_bins)
    styles: tuple[dict[str, Any], ...] = ({"histtype": "stepfilled", "alpha": 0.3}, {"histtype": "step", "lw": 1.6})
    for s, column, style in zip(subject.sets, columns, styles[-len(columns) :], strict=True):
        draw_histogram(axes, column[:, 0], chart.limits[0], bins, s.title(len(column)), color=s.colour, **style)
    if density_label is not None:
        x = np.linspace(*chart.limits[0], max(2, min(subject.evaluations, 1001)))
        density = np.exp(subject.log_density(chart.unit * x[:, None])) * chart.unit
        axes.plot(x, density, color=INK, linewidth=1.8, label="density of the flow")
    axes.set_ylim(0, 1.12 * axes.get_ylim()[1])  # room for the legend
    axes.legend(loc="upper center", ncols=3, frameon=False, fontsize=11, labelcolor=INK)
    chart.dress(axes, "", 0, y=density_label or "probability density")


def plane(subject: Subject, chart: Chart, columns: list[Array], density_label: str) -> "Figure":
    """Draw the log-density, then points, in square panels side by side."""
    panels = 1 + len(columns)
    figure = new_figure(4.2 * panels + 0.6, 5.5, subject.title)
    # The colour bar has a row of its own, so that the panels stay in line.
    rows = figure.add_gridspec(2, panels, height_ratios=(1, 0.04))
    density, *others = (figure.add_subplot(rows[0, i]) for i in range(panels))
    n = max(2, math.isqrt(subject.evaluations))
    centres = [low + (np.arange(n) + 0.5) * (high - low) / n for low, high in chart.limits]
    grid = np.stack(np.meshgrid(*centres), axis=-1).reshape(-1, 2)
    shown = draw_density(density, subject.log_density(chart.unit * grid).reshape(n, n), *chart.limits)
    place = figure.add_subplot(rows[1, 0])
    colour_bar(figure, shown, density_label, cax=place, orientation="horizontal", extend="both")
    chart.dress(density, "density of the flow", 0, 1)
    draw_regions(density, subject, centres[0], centres[1], subject.log_density(chart.unit * grid).reshape(n, n))
    for axes, s, column in zip(others, subject.sets, columns, strict=True):
        axes.scatter(column[:, 0], column[:, 1], color=s.colour, **point_style(subject.count))
        axes.set_facecolor(PAPER)
        chart.dress(axes, s.title(len(column)), 0, 1)
    for axes in (density, *others):
        axes.set_box_aspect(1)
        draw_border_in_plane(axes, subject.flow.manifold, chart.unit)
    return figure


def pairs(subject: Subject, chart: Chart, columns: list[Array], *, scatter: bool) -> "Figure":
    """Draw marginals of pairs of coordinates, data above samples: dots, or shares of points as colours."""
    chosen = list(itertools.combinations(range(len(chart.names)), 2))
    figure = new_figure(4 * len(chosen) + 1, 4.4 * len(columns) + 0.4, subject.title)
    grid = figure.subplots(len(columns), len(chosen), squeeze=False)
    bins = bin_count(subject.count // 4, chart.most_bins)
    for column_of_panels, (i, j) in zip(grid.T, chosen, strict=True):
        x_limits, y_limits = chart.limits[i], chart.limits[j]
        cells = [shares(column[:, i], column[:, j], x_limits, y_limits, bins) for column in columns]
        # One scale for data and samples, which a single crowded cell cannot stretch.
        top = max(float(np.quantile(cells, 0.998)), 1e-9)
        for axes, s, column, share in zip(column_of_panels, subject.sets, columns, cells, strict=True):
            axes.set_box_aspect(1)
            chart.dress(axes, s.title(len(column)), i, j)
            axes.set_facecolor(PAPER)
            if scatter:
                axes.scatter(column[:, i], column[:, j], color=s.colour, **point_style(subject.count))
                continue
            shown = draw_grid(axes, share, x_limits, y_limits, vmin=0, vmax=top, interpolation="nearest")
        if not scatter:
            label = f"percent of points per cell ({bins} x {bins} cells)"
            place = list(column_of_panels)
            colour_bar(figure, shown, label, ax=place, extend="max", location="bottom", aspect=30)
    return figure


def pair_matrix(subject: Subject, chart: Chart, columns: list[Array]) -> "Figure":
    """Draw all pairs of coordinates in a square of panels: data below the diagonal, samples above, both along it.

    Without data, samples are on both sides. Rows and columns are named at the edges.
    """
    k = len(chart.names)
    figure = new_figure(1.75 * k + 1.2, 1.75 * k + (1.2 if subject.title else 0.7), subject.title)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)  # type: ignore[union-attr, call-arg]
    panels = figure.subplots(k, k, squeeze=False)
    bins = bin_count(subject.count // 8, chart.most_bins // 2)
    cells = {
        (i, j): shares(c[:, j], c[:, i], chart.limits[j], chart.limits[i], bins)
        for i, j in itertools.product(range(k), repeat=2)
        if i != j
        for c in [columns[0 if i > j else -1]]
    }
    # One scale for all, which a single crowded cell cannot stretch.
    top = max(float(np.quantile(list(cells.values()), 0.99)), 1e-9)
    for (i, j), axes in np.ndenumerate(panels):
        chart.dress(axes, "", j, None if i == j else i)
        axes.set_xlabel(axes.get_xlabel() if i == k - 1 else "", fontsize=9)
        axes.set_ylabel(chart.names[i] if j == 0 else "", fontsize=9, color=INK, parse_math=False)
        axes.tick_params(labelsize=7, length=2, labelbottom=i == k - 1, labelleft=j == 0 and i > 0, left=i != j)
        axes.set_facecolor(PAPER)
        axes.set_box_aspect(1)
        for axis, a in ((axes.xaxis, j), (axes.yaxis, i)):
            if chart.ticks is not None and (axis is axes.xaxis or i != j):
                low, high = chart.limits[a]
                axis.set_ticks([low, (low + high) / 2, high])
        if i != j:
            shown = draw_grid(axes, cells[i, j], chart.limits[j], chart.limits[i], vmin=0, vmax=top)
            continue
        for s, column in zip(subject.sets, columns, strict=True):
            draw_histogram(axes, column[:, i], chart.limits[i], 2 * bins, s.name, color=s.colour, histtype="step")
    label = f"percent of points per cell ({bins} x {bins} cells)"
    colour_bar(figure, shown, label, ax=panels, extend="max", shrink=0.6, aspect=30)
    titles = [s.title(len(c)) for s, c in zip(subject.sets, columns, strict=True)]
    handles = panels[0, 0].get_legend_handles_labels()[0]
    sides = [" (below the diagonal)", " (above)"] if len(titles) == 2 else [""]
    texts = [title + side for title, side in zip(titles, sides, strict=True)]
    figure.legend(handles, texts, loc="outside lower center", ncols=2, frameon=False, labelcolor=INK)
    return figure
