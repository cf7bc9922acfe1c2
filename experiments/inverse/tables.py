"""The tables of what was computed, and the page that holds them."""

import math
import platform
import statistics
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import torch

from experiments.inverse.results import Results

PROBLEMS = ("mixture, 2-D", "mixture, 80-D", "sphere", "torus", "rotations", "motif", "earthquakes", "torsions")
"""Names of the problems, in the order of the table."""

_COLUMNS = ("wasserstein", "mmd", "mmd_at_worth", "coverage", "modes", "worth", "evaluations", "seconds")

_PAGE = """\
# Posteriors that are known

[Inverse problems](../inverse-problems.md#how-far-each-is-off) says what the problems and the columns are.

- command: `python -m experiments.inverse --draws {draws} --page {page}`
- date: {date}; {machine} CPU, 1 thread; Python {python}, torch {torch}; seeds from 0
- means over the seeds; after ± the standard deviation between them

{table}

## Calibration

Ranks of true points, and of their likelihoods, among 63 posterior draws: the p-value of uniform ranks of the worst
quantity, times their number.

{ranks}
"""


def assessments(results: Results, draws: int, quick: bool, problems: Sequence[str] = PROBLEMS) -> str:
    """Return the table of methods, a row for each problem and method that was assessed with so many draws."""
    found: dict[str, dict[str, list[dict[str, float]]]] = {name: {} for name in problems}
    for settings, values in results.known:
        if settings.get("draws") == draws and settings["quick"] == quick and settings["problem"] in found:
            found[settings["problem"]].setdefault(settings["method"], []).append(values)
    lines = [
        "| problem | method | seeds | Wasserstein | MMD^2, deviations | at its worth | coverage of 90 % | modes "
        "| worth | evaluations | seconds |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for problem, methods in found.items():
        lines += [_row(problem, method, runs, draws) for method, runs in methods.items()]
    return "\n".join(lines)


def ranks(results: Results, replications: int, quick: bool) -> str:
    """Return the table of p-values of uniform ranks."""
    lines = ["| problem | method | replications | p-value |", "|---|---|---:|---:|"]
    for name in PROBLEMS:
        for settings, values in results.known:
            own = (settings["problem"], settings.get("replications"), settings["quick"])
            if own == (name, replications, quick):
                lines.append(f"| {name} | {settings['ranks']} | {replications} | {values['p']:.2f} |")
    return "\n".join(lines) if len(lines) > 2 else "Nothing is computed yet."


def write_page(path: Path, results: Results, draws: int, replications: int, quick: bool) -> None:
    """Write the page of both tables."""
    text = _PAGE.format(
        draws=draws,
        page=path,
        date=date.today().isoformat(),
        machine=platform.machine(),
        python=platform.python_version(),
        torch=torch.__version__,
        table=assessments(results, draws, quick),
        ranks=ranks(results, replications, quick),
    )
    path.write_text(text, encoding="utf-8")


def _row(problem: str, method: str, runs: Sequence[Mapping[str, float]], draws: int) -> str:
    mean = {name: statistics.fmean(run.get(name, math.nan) for run in runs) for name in _COLUMNS}
    spread = f" ± {statistics.stdev(run['wasserstein'] for run in runs):.3f}" if len(runs) > 1 else ""
    doubtful = mean["worth"] < 0.99 * draws and not math.isnan(mean["mmd_at_worth"])
    at_worth = f"{mean['mmd_at_worth']:.1f}" if doubtful else ""
    modes = "" if math.isnan(mean["modes"]) else f"{mean['modes']:.2f}"
    return (
        f"| {problem} | {method} | {len(runs)} | {mean['wasserstein']:.3f}{spread} | {mean['mmd']:.1f} | "
        f"{at_worth} | "
        f"{mean['coverage']:.2f} | {modes} | {mean['worth']:.0f} | {mean['evaluations']:.0f} | {mean['seconds']:.1f} |"
    )
