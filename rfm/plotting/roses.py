"""Rose diagrams: a density of directions around a circle, with the axis of a compass, a clock or mathematics."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rfm.plotting.figures import INK, PAPER
from rfm.plotting.layouts import Subject
from rfm.plotting.panels import Array, bin_count

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COMPASS = {"azim", "course", "cog", "dir", "wdir", "wd", "longitude", "aspect", "strike", "trend"}
_COMPASS_ENDS = ("azimuth", "bearing", "heading", "direction")
_CLOCK = {"hour": (24, 8), "hours": (24, 8), "time": (24, 8), "month": (12, 12), "weekday": (7, 7)}
"""Units in a turn, and how many of them are labelled."""
_POINTS = ("N", "NE", "E", "SE", "S", "SW", "W", "NW")
_BINS = 72


@dataclass(frozen=True)
class Dial:
    """How angles are laid around a circle.

    Args:
        clockwise: from the top and clockwise, as on a compass and a clock; else from the right and anticlockwise.
        labels: at equal distances from angle 0 on.
    """

    clockwise: bool
    labels: tuple[str, ...]


def dial_of(name: str, positive: bool) -> Dial:
    """Return the dial that a column's name suggests, that of mathematics where it suggests none.

    Args:
        name: of the column of angles.
        positive: its values run from 0 to a full turn, not from minus half a turn.
    """
    words = re.findall(r"[^\W\d_]+", name.casefold())
    if any(word in _COMPASS or word.endswith(_COMPASS_ENDS) for word in words):
        return Dial(True, _POINTS)
    for word in words:
        if word in _CLOCK:
            turn, ticks = _CLOCK[word]
            return Dial(True, tuple(f"{i * turn / ticks:g}" for i in range(ticks)))
    degrees = [30 * i if positive or i <= 6 else 30 * i - 360 for i in range(12)]
    return Dial(False, tuple(f"{d}°".replace("-", "\N{MINUS SIGN}") for d in degrees))


def draw_roses(
    figure: "Figure", places: Sequence[Any], subject: Subject, columns: Sequence[Array], name: str, positive: bool
) -> None:
    """Draw roses of sets of points, with the density of the flow around each.

    A sector's area is its share of the points: its radius is the square root of the density.

    Args:
        figure: where.
        places: for each set, a cell of a grid specification.
        subject: of a flow on ``FlatTorus(1)``.
        columns: for each set, angles in radians ``(n,)``.
        name: of the input's column, which chooses the dial.
        positive: as in `dial_of`.
    """
    dial = dial_of(name, positive)
    bins = bin_count(subject.count, _BINS)
    edges = np.linspace(0, 2 * math.pi, bins + 1)
    turn = np.linspace(0, 2 * math.pi, max(4, min(subject.evaluations, 721)))
    density = np.exp(subject.log_density(turn[:, None])) if subject.flow.source.has_density else np.zeros(0)
    turned = [x % (2 * math.pi) for x in columns]
    heights = [np.histogram(x, edges)[0] * bins / (2 * math.pi * max(len(x), 1)) for x in turned]
    top = max(float(values.max()) for values in (*heights, density) if len(values))
    for place, s, height in zip(places, subject.sets, heights, strict=True):
        # matplotlib's panel around a circle has no published types.
        axes: Any = figure.add_subplot(place, projection="polar")
        style: dict[str, Any] = {"alpha": 0.45, "edgecolor": "white", "linewidth": 0.3}
        axes.bar((edges[1:] + edges[:-1]) / 2, np.sqrt(height), 2 * math.pi / bins, color=s.colour, **style)
        if len(density):
            axes.plot(turn, np.sqrt(density), color=INK, linewidth=1.6)
        axes.set_title(s.title(min(subject.count, len(s.all))), fontsize=12, color=INK, parse_math=False)
        _dress(axes, dial, top)
        # Where fewest points are, they are not in the way of the label.
        axes.set_rlabel_position(math.degrees((edges[height.argmin()] + edges[height.argmin() + 1]) / 2))


def _dress(axes: Any, dial: Dial, top: float) -> None:
    if dial.clockwise:
        axes.set_theta_zero_location("N")
        axes.set_theta_direction(-1)
    n = len(dial.labels)
    axes.set_xticks(np.arange(n) * 2 * math.pi / n, dial.labels)
    axes.set_ylim(0, 1.05 * math.sqrt(max(top, 1e-9)))
    uniform = math.sqrt(1 / (2 * math.pi))
    axes.set_yticks([uniform], ["uniform"])
    axes.tick_params(labelsize=10, colors=INK)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_facecolor(PAPER)
    axes.grid(color="#bbbbbb", linewidth=0.5)
    axes.spines["polar"].set_edgecolor("#888888")
