"""The tables and the picture of the study, from the figures in its folder."""

import json
import platform
import re
import statistics
from datetime import date
from pathlib import Path
from typing import Any

import torch

from experiments.ancestors.budget import Budget
from experiments.ancestors.data import PROBLEMS
from experiments.ancestors.models import NORMALIZING, SAME_NETWORK, methods
from experiments.ancestors.planes import PLANES
from experiments.ancestors.study import EULER_STEPS, file_of

_BEGIN, _END = "<!-- results -->", "<!-- end -->"
Results = dict[str, list[dict[str, dict[str, Any]]]]
"""By data set, of each seed what was measured by method."""


def results(folder: Path) -> Results:
    """Return all figures in a folder."""
    found: Results = {}
    for problem in PROBLEMS:
        pattern = file_of(folder, problem, 0).name.replace("-0.json", "-*.json")
        files = sorted(file for file in folder.glob(pattern) if re.fullmatch(r".*-\d+\.json", file.name))
        if files:
            found[problem] = [json.loads(file.read_text()) for file in files]
    return found


def write_page(page: Path, folder: Path, budget: Budget, figure: Path | None = None) -> None:
    """Put the tables, and a link to the picture, between the marks of a page, whose text stays."""
    text = page.read_text(encoding="utf-8")
    found = results(folder)
    head = (
        f"Measured {date.today().isoformat()} on a CPU ({platform.machine()}, 1 thread), torch {torch.__version__}: "
        f"{budget.steps} steps of {budget.batch} points ({budget.likelihood_steps} by maximum likelihood, "
        f"{budget.map_steps} more for the map), networks of width {budget.width}. Seconds are the "
        "processor's, means over seeds; intervals are of 95 %."
    )
    parts = [head]
    if figure is not None:
        parts.append(f"![Divergence from the truth against seconds of training, by plane](../images/{figure.name})")
    for problem, seeds in found.items():
        parts += [f"### {problem[0].upper()}{problem[1:]}", _about(problem, len(seeds)), _table(problem, seeds)]
    parts += ["## Straightness and evaluations", _STRAIGHT, _straightness(found)]
    body = "\n\n".join(parts)
    start, end = text.index(_BEGIN) + len(_BEGIN), text.index(_END)
    page.write_text(f"{text[:start]}\n\n{body}\n\n{text[end:]}", encoding="utf-8")


_STRAIGHT = """\
Means over the planes and seeds. *Bend* is the share of a path's energy that a straight line at constant speed would
save; the last columns are the root mean square distance between the end points of so many steps of Euler's method and
the exact ones of the same flow, in units of a plane whose data have a spread of about 1."""


def _about(problem: str, seeds: int) -> str:
    counted = f"{seeds} seed{'s' if seeds > 1 else ''}."
    if problem not in PLANES:
        return counted
    entropy, error = PLANES[problem].entropy()
    certain = "exactly" if error == 0 else f"with standard error {error:.4f}"
    return f"Entropy {entropy:.3f} nats ({certain}): no density can have a lower NLL on average. {counted}"


def _table(problem: str, seeds: list[dict[str, dict[str, Any]]]) -> str:
    known = any("divergence" in row for row in seeds[0].values())
    last = "divergence from the truth" if known else "NLL, nats"
    lines = [
        f"| method | parameters | {last} | told apart | train, s | draw 1,000, s |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name in methods(problem):
        rows = [found[name] for found in seeds if name in found]
        if rows:
            lines.append(_row(name, rows, "divergence" if known else "nll"))
    return "\n".join(lines)


def _row(name: str, rows: list[dict[str, Any]], key: str) -> str:
    scored = [row for row in rows if key in row]
    value = pooled([(row[key], row[f"{key}_error"]) for row in scored]) if scored else "not one-to-one"
    if 0 < len(scored) < len(rows):
        value += f" ({len(scored)} of {len(rows)} seeds)"
    apart = [(100 * row["accuracy"], 100 * row["accuracy_error"]) for row in rows if "accuracy" in row]
    seconds, drawing = (statistics.mean(row[k] for row in rows) for k in ("train_seconds", "draw_seconds"))
    told = f"{pooled(apart, 0)} %" if apart else ""
    lost = statistics.mean(row.get("not_finite", 0.0) for row in rows)
    told += f", without {lost:.1%} that overflow" if lost else ""
    return f"| {name} | {rows[0]['parameters']:,} | {value} | {told} | {seconds:.0f} | {drawing:.2g} |"


def pooled(values: list[tuple[float, float]], digits: int = 3) -> str:
    """Return the mean over seeds, and half of its 95 % interval.

    Of its variance one part is that of the test points, the other that of training, as far as seeds show it.
    """
    mean = statistics.mean(value for value, _ in values)
    count = len(values)
    within = statistics.mean(error**2 for _, error in values) / count
    between = statistics.variance(value for value, _ in values) / count if count > 1 else 0.0
    return f"{mean:.{digits}f} ± {1.96 * max(within, between) ** 0.5:.{digits}f}"


def _straightness(found: Results) -> str:
    lines = [
        "| method | bend | evaluations to 1e-5 | " + " | ".join(f"Euler, {k}" for k in EULER_STEPS) + " |",
        "|---|---:|---:|" + "---:|" * len(EULER_STEPS),
    ]
    for name in SAME_NETWORK:
        rows = [seed[name] for problem in found if problem in PLANES for seed in found[problem] if name in seed]
        rows = [row for row in rows if "straightness" in row]
        if not rows:
            continue
        bend = statistics.mean(row["straightness"] / row["energy"] for row in rows)
        evaluations = statistics.mean(row["evaluations"] for row in rows)
        errors = [statistics.mean(row["euler_errors"][str(k)] for row in rows) for k in EULER_STEPS]
        lines.append(f"| {name} | {bend:.3f} | {evaluations:.0f} | {' | '.join(f'{e:.3f}' for e in errors)} |")
    return "\n".join(lines)


_SECONDS, _NATS = (2, 5, 10, 20, 50), (0.02, 0.05, 0.1, 0.2, 0.5)


def draw(folder: Path, path: Path) -> None:
    """Save the divergence from the truth against seconds of training, a panel for each plane."""
    import matplotlib
    from matplotlib.figure import Figure

    found = {name: seeds for name, seeds in results(folder).items() if name in PLANES}
    figure = Figure(figsize=(11, 6.6), layout="constrained")
    names = [*NORMALIZING, *SAME_NETWORK]
    panels = figure.subplots(2, 3, sharex=True, sharey=True)
    shown: dict[str, Any] = {}
    for axes, (problem, seeds) in zip(panels.flat, found.items(), strict=False):
        for i, name in enumerate(names):
            rows = [seed[name] for seed in seeds if "divergence" in seed.get(name, {})]
            x, y = ([row[key] for row in rows] for key in ("train_seconds", "divergence"))
            if rows:
                marker = "s" if name in NORMALIZING else "o"
                (shown[name],) = axes.plot(x, y, marker, color=matplotlib.colormaps["tab10"](i), markersize=6)
        axes.set(xscale="log", yscale="log", title=problem)
        axes.set_xticks(_SECONDS, _SECONDS)
        axes.set_yticks(_NATS, _NATS)
        axes.minorticks_off()
        axes.grid(color="0.92")
    for axes in panels[-1]:
        axes.set_xlabel("seconds to train", fontsize=10)
    for axes in panels[:, 0]:
        axes.set_ylabel("divergence, nats", fontsize=10)
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
