"""The course of a fit."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rfm.plotting.figures import DATA_COLOUR, INK, SAMPLE_COLOUR, finish, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_history(history: Sequence[Mapping[str, float]]) -> "Figure":
    """Draw the loss and the validation NLL of a fit against its steps.

    Args:
        history: ``Flow.history``, records with the keys ``step``, ``loss``, ``seconds`` and ``validation_nll``
            (nats) or ``validation_loss``. A record without a value for one of them, or with NaN, leaves a gap.

    Raises:
        ValueError: the history holds no record.
    """
    if not history:
        raise ValueError("plot_history: the history is empty; pass the .history of a flow that rfm.fit has returned")
    seconds = [float(record["seconds"]) for record in history if record.get("seconds") is not None]
    measure = "validation_loss" if any("validation_loss" in record for record in history) else "validation_nll"
    label_of = {"validation_loss": "validation loss", "validation_nll": "validation NLL (nats)"}
    figure = new_figure(12, 4.5, None)
    panels = figure.subplots(1, 2, sharex=True)
    for axes, key, label, colour in (
        (panels[0], "loss", "training loss", DATA_COLOUR),
        (panels[1], measure, label_of[measure], SAMPLE_COLOUR),
    ):
        steps, values = _series(history, key)
        axes.plot(steps, values, color=colour, linewidth=1.6, marker="o", markersize=3 if len(steps) > 1 else 6)
        title = label
        if values and key == measure:
            best = min(range(len(values)), key=values.__getitem__)
            axes.plot(steps[best], values[best], "o", markersize=9, markerfacecolor="none", markeredgecolor=INK)
            title = f"{label}: best {values[best]:.3f} at step {steps[best]:,.0f}"
        elif seconds:
            title = f"{label} over {max(seconds):,.0f} seconds"
        axes.grid(color="#dddddd", linewidth=0.7)
        axes.locator_params(axis="x", integer=True, nbins=6)
        finish(axes, title, "step", label)
        axes.xaxis.set_major_formatter("{x:,.0f}")
    return figure


def _series(history: Sequence[Mapping[str, float]], key: str) -> tuple[list[float], list[float]]:
    """Return the steps at which ``key`` has a finite value, and the values."""
    pairs = [(record["step"], record[key]) for record in history if record.get(key) is not None]
    finite = [(float(step), float(value)) for step, value in pairs if math.isfinite(value)]
    return [step for step, _ in finite], [value for _, value in finite]
