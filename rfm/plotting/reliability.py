"""Reliability curves: whether regions of a given probability hold as many points."""

from typing import TYPE_CHECKING

import numpy as np

from rfm.plotting.figures import DATA_COLOUR, INK, PAPER, finish, new_figure
from rfm.regions import Coverage

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_reliability(coverage: Coverage, *, title: str | None = None) -> "Figure":
    """Draw the share of points that highest-density regions hold against their probability, with 95 % intervals.

    On the diagonal a density is calibrated; beneath it, too concentrated; above it, too spread. Beside it stands the
    histogram of the probability integral transform, which is level for a calibrated density.

    Args:
        coverage: from `rfm.regions.coverage`.
        title: stands above everything.
    """
    figure = new_figure(9.6, 4.6, title)
    curve, histogram = figure.subplots(1, 2)
    probabilities = np.array([0.0, *coverage.probabilities, 1.0])
    shares = np.array([0.0, *(e.mean for e in coverage.shares), 1.0])
    # A single observation has no error.
    errors = np.nan_to_num([0.0, *(1.96 * e.standard_error for e in coverage.shares), 0.0])
    curve.plot([0, 1], [0, 1], color="#888888", linewidth=1, linestyle="--", label="calibrated")
    low, high = np.clip(shares - errors, 0, 1), np.clip(shares + errors, 0, 1)
    curve.fill_between(probabilities, low, high, color=DATA_COLOUR, alpha=0.2, linewidth=0, label="95 % interval")
    curve.plot(probabilities, shares, color=DATA_COLOUR, linewidth=1.8, marker="o", markersize=3, label="test points")
    curve.text(0.97, 0.06, "too concentrated", ha="right", color=INK, fontsize=9, alpha=0.8)
    curve.text(0.03, 0.74, "too spread", color=INK, fontsize=9, alpha=0.8)
    curve.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    curve.legend(loc="upper left", frameon=False, fontsize=9, labelcolor=INK)
    finish(curve, "reliability", "probability of the highest-density region", "share of test points in it")
    transforms = coverage.transforms.double().cpu().numpy()
    bins = int(np.clip(np.sqrt(len(transforms)), 5, 20))
    weights = np.full(len(transforms), bins / max(len(transforms), 1))
    histogram.hist(transforms, bins=bins, range=(0, 1), weights=weights, color=DATA_COLOUR, alpha=0.6)
    histogram.axhline(1.0, color="#888888", linewidth=1, linestyle="--")
    histogram.set_xlim(0, 1)
    finish(
        histogram, "probability integral transform", "probability of the smallest region that holds a point", "density"
    )
    for axes in (curve, histogram):
        axes.set_facecolor(PAPER)
        axes.set_box_aspect(1)
    return figure
