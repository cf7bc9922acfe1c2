"""The page and the picture of the study."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.imitation.fork import fork_table
from experiments.imitation.policies import KINDS, TRAIN
from experiments.imitation.spaces import EVERY, SPACES
from experiments.page_tables import write_tables
from rfm.datasets import handwriting
from rfm.metrics import paired_difference
from rfm.plotting import new_figure, save_figure

_WORDS = {
    "flow": "flow on the manifold, 10 steps",
    "default flow": "the same, from the default noise",
    "regression": "Gaussian regression, 1 step",
    "diffusion": "diffusion in ambient numbers, 100 steps",
    "ambient flow": "flow in ambient numbers, 10 steps",
}
_SHOWN = ("GShape", "Multi_Models_1", "Sshape", "heee")


def figures(runs: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Return what was measured, by space and kind."""
    found = [json.loads(file.read_text()) for file in sorted(runs.glob("*.json"))]
    return {(each["space"], each["kind"]): each for each in found}


def write_page(page: Path, runs: Path) -> None:
    """Write the tables between the marks of a page anew."""
    write_tables(page, {"measures": _measures(runs), "differences": _differences(runs), "fork": fork_table(runs)})


def _measures(runs: Path) -> list[str]:
    head = "| space | policy | success, % | end, % | distance, % | roughness | off | ms per action |"
    lines = [head, "|---|---|---:|---:|---:|---:|---:|---:|"]
    for (space, kind), own in _ordered(runs):
        groups = torch.tensor(own["shape"])
        cells = [
            _interval([100.0 * x for x in own["success"]], groups, 0),
            _interval([100 * x for x in own["end"]], groups, 1),
            _interval([100 * x for x in own["warped"]], groups, 2),
            f"{sum(own['roughness']) / len(groups):.2f}",
            f"{sum(own['off']) / len(groups):.3f}" if kind in ("diffusion", "ambient flow") else "",
            _milliseconds(own),
        ]
        lines.append(f"| {space} | {_WORDS[kind]} | " + " | ".join(cells) + " |")
    return lines


def _differences(runs: Path) -> list[str]:
    """Return the flow against each of the others, paired by rollout, with intervals clustered by shape."""
    known = figures(runs)
    lines = ["| space | flow minus | success, points | distance, % of the extent |", "|---|---|---|---|"]
    for (space, kind), own in _ordered(runs):
        if kind != "flow" and (space, "flow") in known:
            flow, groups = known[space, "flow"], torch.tensor(own["shape"])
            cells = []
            for measure, digits in (("success", 0), ("warped", 2)):
                a, b = (100 * torch.tensor(each[measure], dtype=torch.float64) for each in (flow, own))
                d = paired_difference(a, b, groups=groups)
                low, high = d.interval_95
                cells.append(f"{d.mean:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})")
            lines.append(f"| {space} | {_WORDS[kind]} | " + " | ".join(cells) + " |")
    return lines


def _milliseconds(own: dict[str, Any]) -> str:
    """Return the time for an action, and that without what is kept between steps."""
    other = own.get("milliseconds_without_cache")
    return f"{own['milliseconds']:.1f}" + ("" if other is None or own["kind"] != "flow" else f" ({other:.1f})")


def _ordered(runs: Path) -> list[tuple[tuple[str, str], dict[str, Any]]]:
    known = figures(runs)
    return [((s, k), known[s, k]) for s in SPACES for k in KINDS if (s, k) in known]


def _interval(values: Sequence[float], groups: Tensor, digits: int) -> str:
    found = torch.tensor(values, dtype=torch.float64)
    estimate = paired_difference(found, torch.zeros_like(found), groups=groups)
    return f"{estimate.mean:.{digits}f} ± {1.96 * estimate.standard_error:.{digits}f}"


def draw(runs: Path, path: Path) -> None:
    """Draw demonstrations, and rollouts of every policy in the plane and, from above, on the sphere."""
    data = handwriting()
    columns = [(space, kind) for space in ("plane", "sphere") for kind in KINDS]
    columns = [(space, kind) for space, kind in columns if (runs / _file(space, kind)).exists()]
    rows = [name for name in _SHOWN if data.shapes.index(name) < len(_tracks(runs, *columns[0])[0])]
    figure = new_figure(2.0 * len(columns), 2.0 * max(1, len(rows)), None)
    axes = figure.subplots(max(1, len(rows)), len(columns), squeeze=False)
    for own in axes.flat:
        own.set_axis_off()
        own.set_aspect("equal")
    for line, name in zip(axes, rows, strict=False):
        shape = data.shapes.index(name)
        for own, (space, kind) in zip(line, columns, strict=True):
            drawings = SPACES[space].carried(data.points[shape, :, ::EVERY])
            for i, each in enumerate(drawings):
                style = {"color": "0.75", "lw": 2.0} if i < TRAIN else {"color": "black", "lw": 1.2}
                own.plot(each[:, 0], each[:, 1], **style)
            # The frame is that of the drawings, however far a rollout goes astray.
            own.margins(0.3)
            own.autoscale_view()
            own.autoscale(enable=False)
            for each in _tracks(runs, space, kind)[:, shape].flatten(0, 1):
                own.plot(each[:, 0], each[:, 1], color="#d55e00", lw=0.8)
    for own, (space, kind) in zip(axes[0], columns, strict=True):
        own.set_title(f"{space}: {kind}", fontsize=8)
    save_figure(figure, path)


def _file(space: str, kind: str) -> str:
    return f"{space}-{kind.replace(' ', '-')}.pt"


def _tracks(runs: Path, space: str, kind: str) -> Tensor:
    tracks: Tensor = torch.load(runs / _file(space, kind), weights_only=True)
    return tracks
