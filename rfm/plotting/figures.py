"""Figures: how they are made, what they have in common, and how they are written."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfm.records.descriptions import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DATA_COLOUR = "#0072b2"
SAMPLE_COLOUR = "#d55e00"
INK = "#333333"
"""Blue and vermilion differ for colour-blind readers too. Source: Okabe and Ito, Color Universal Design, 2008."""

FORMATS = (".png", ".pdf", ".svg")
# Without the name of the software, which holds its version, and without the date.
_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    "svg": {"Creator": None, "Date": None},
}

ON_DENSITY = {DATA_COLOUR: "#56b4e9", SAMPLE_COLOUR: "#4fe0a5"}
"""The same over a density: lighter, as those of pictures would not be seen."""

PAPER = "#f7f7f5"
DENSITY_COLOURS = "magma"


def new_figure(width: float, height: float, title: str | None) -> "Figure":
    """Return an empty figure of ``width`` by ``height`` inches at 120 dots per inch, whose layout avoids overlap."""
    # matplotlib is slow to import, and only pictures need it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
    figure = Figure(figsize=(width, height), dpi=120, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    if title:
        # Titles and column names are text, whatever dollar signs they hold.
        figure.suptitle(title, fontsize=15, fontweight="bold", color=INK, parse_math=False)
    return figure


def finish(axes: "Axes", title: str, x: str = "", y: str = "") -> None:
    """Give a panel its title, the labels of its axes, and the common look."""
    axes.set_title(title, fontsize=12, color=INK, parse_math=False)
    axes.set_xlabel(x, fontsize=11, color=INK, parse_math=False)
    axes.set_ylabel(y, fontsize=11, color=INK, parse_math=False)
    axes.tick_params(labelsize=10, colors=INK)
    for spine in axes.spines.values():
        spine.set_edgecolor("#888888")
        spine.set_linewidth(0.8)


def save_figure(figure: "Figure", path: str | os.PathLike[str], dots_per_inch: float | None = None) -> None:
    """Write a figure as a PNG, PDF or SVG file, completely or not at all; the same figure makes the same bytes.

    Args:
        figure: the figure.
        path: a name that ends in one of `FORMATS`; its folder is made if need be, and an existing file is replaced.
        dots_per_inch: of a PNG; 120, for a figure of `new_figure`, by default.

    Raises:
        ValueError: the name ends otherwise.
    """
    from matplotlib import rc_context

    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ValueError(
            f"save_figure: figures are written as PNG, PDF or SVG, got the name {path.name!r}; "
            f"end it in {', '.join(FORMATS)}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = path.suffix.lower()[1:]

    def write(file: Path) -> None:
        # Names of elements in an SVG are random without a salt.
        with rc_context({"svg.hashsalt": "rfm"}):
            figure.savefig(file, format=kind, dpi=dots_per_inch or "figure", metadata=_METADATA[kind])

    write_atomically(path, write)
