"""Pictures of what was restored: the truth, what the mean, single draws and their spread are."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from experiments.images.assess import Result
from rfm.plotting import save_figure

_SHOWN = ("FLOWER", "FlowDPS", "PnP-Flow")
"""Methods whose pictures are drawn."""


def draw(results: Mapping[str, Result], shape: tuple[int, int, int], path: Path) -> None:
    """Draw one picture of each task, by method, to a file.

    Args:
        results: by task.
        shape: of a picture.
        path: PNG file.
    """
    from matplotlib.figure import Figure

    columns = 5 + 3 + 2 * (len(_SHOWN) - 1)
    figure = Figure(figsize=(1.25 * columns, 1.5 * len(results) + 0.3), layout="constrained")
    axes = figure.subplots(len(results), columns, squeeze=False)
    for i, ((name, result), row) in enumerate(zip(results.items(), axes, strict=True)):
        panels = _panels(result)
        for axis, (title, picture, spread) in zip(row, panels, strict=True):
            # Standard deviations from none to half of the range of grey values.
            grey = {"vmin": 0, "vmax": 1, "cmap": "magma"} if spread else {"vmin": -1, "vmax": 1, "cmap": "gray"}
            axis.imshow(picture.reshape(shape[1:]).numpy(), interpolation="nearest", **grey)
            axis.set(xticks=(), yticks=())
            if i == 0:
                axis.set_title(title, fontsize=8)
        row[0].set_ylabel(name.partition(",")[0], fontsize=8)
    save_figure(figure, path)


def _panels(result: Result) -> list[tuple[str, Tensor, bool]]:
    """Return title, picture and whether it is a spread, for the first picture of a task."""
    naive, smooth, *_ = result.draws.values()
    found = [
        ("truth", result.truth[0], False),
        ("no prior", naive[0, 0], False),
        ("total variation", smooth[0, 0], False),
    ]
    for k, name in enumerate(_SHOWN):
        own = result.draws[name][:, 0]
        found.append((f"{name}\nmean", own.mean(0), False))
        if k == 0:
            found += [
                ("\ndraw", own[0], False),
                ("\nanother", own[1 % len(own)], False),
                ("\nthird", own[2 % len(own)], False),
            ]
        found.append(("\nspread", own.std(0) if len(own) > 1 else torch.zeros_like(own[0]), True))
    return found
