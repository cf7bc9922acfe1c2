"""Panels in a plane: log-densities, points, histograms, and how to choose their limits."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rfm.plotting.figures import DENSITY_COLOURS, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
Limits = tuple[float, float]


def colour_limits(log_density: Array, log_measure: Array | float = 0.0) -> Limits:
    """Return limits for a colour scale of log-densities that one wild value cannot stretch.

    They leave out the regions of lowest and of highest density that hold half a percent of the mass each: what the
    scale shows is where points are, however deep the density is elsewhere.

    Args:
        log_density: nats, at the centres of cells; NaN outside of a set with a border.
        log_measure: logarithms of the cells' sizes.
    """
    known = np.isfinite(log_density)
    log_mass, values = (log_density + log_measure)[known], log_density[known]
    order = np.argsort(values)
    mass = np.cumsum(np.exp(log_mass - log_mass.max())[order])
    low, high = values[order[np.searchsorted(mass, np.array([0.005, 0.995]) * mass[-1])]]
    if high - low < 1:  # an almost uniform density should look so
        low, high = (low + high - 1) / 2, (low + high + 1) / 2
    return float(low), float(high)


def colour_bar(figure: "Figure", shown: "ScalarMappable", label: str, **place: Any) -> None:
    """Add a colour bar with a label, placed by the arguments of ``Figure.colorbar``."""
    from matplotlib.ticker import MaxNLocator

    bar = figure.colorbar(shown, **place)
    bar.set_label(label, fontsize=11, color=INK)
    bar.locator = MaxNLocator(6, steps=[1, 2, 5, 10])
    bar.ax.tick_params(labelsize=10, colors=INK)
    bar.outline.set_linewidth(0)


def point_style(count: int) -> dict[str, Any]:
    """Return size and opacity of ``count`` dots: many are small and faint, so that clusters do not fill up."""
    crowd = math.sqrt(max(count, 1) / 1000)
    return {
        "s": float(np.clip(7 / crowd, 2.5, 25)),
        "alpha": float(np.clip(0.6 / math.sqrt(crowd), 0.25, 0.9)),
        "linewidths": 0,
    }


def draw_grid(axes: "Axes", values: Array, x: Limits, y: Limits, **style: Any) -> "ScalarMappable":
    """Draw values in a grid of cells as colours, ``(rows, columns)``, the first row lowest."""
    return axes.imshow(values, origin="lower", extent=(*x, *y), aspect="auto", cmap=DENSITY_COLOURS, **style)


def draw_density(axes: "Axes", log_density: Array, x: Limits, y: Limits) -> "ScalarMappable":
    """Draw log-densities at the centres of a grid of cells, smoothly."""
    low, high = colour_limits(log_density)
    style = {"interpolation": "bicubic", "interpolation_stage": "data"}
    if not np.isfinite(log_density).all():
        style = {"interpolation": "nearest"}
    return draw_grid(axes, log_density, x, y, vmin=low, vmax=high, **style)


def shares(x: Array, y: Array, x_limits: Limits, y_limits: Limits, bins: int) -> Array:
    """Return the percentage of points in each cell of a grid, ``(bins, bins)``, y along the first axis."""
    counts = np.histogram2d(y, x, bins=bins, range=(y_limits, x_limits))[0]
    return 100 * counts / max(len(x), 1)


def draw_histogram(axes: "Axes", x: Array, limits: Limits, bins: int, label: str, **style: Any) -> None:
    """Draw a histogram whose bars have area one in all, counting the points outside the limits."""
    weights = np.full(len(x), bins / ((limits[1] - limits[0]) * max(len(x), 1)))
    axes.hist(x, bins=bins, range=limits, weights=weights, label=label, **style)


def bin_count(points: int, most: int) -> int:
    """Return how many bins along an axis suit a number of points."""
    return int(np.clip(round(math.sqrt(points)), 10, most))


def robust_limits(values: Array) -> Limits:
    """Return limits that hold 99 percent of the values with a margin; -3 and 3 where there is no value."""
    if not len(values):
        return -3.0, 3.0
    low, high = np.quantile(values, [0.005, 0.995])
    margin = 0.1 * (high - low) or 1.0
    return float(low - margin), float(high + margin)
