"""The tables and the pictures of the study."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.page_tables import write_tables
from experiments.policies.attitude import steered
from experiments.policies.passages import FLEET, HALF_WAY, RADIUS, Passages
from experiments.policies.tasks import METHODS, TASKS
from experiments.policies.training import assessed
from rfm.plotting import new_figure, save_figure

_COLOURS = {"PPO": "#0072b2", "FPO": "#e69f00", "FPO++": "#d55e00"}
Runs = dict[tuple[str, str], list[dict[str, Any]]]


def figures(runs: Path) -> Runs:
    """Return what was measured of all seeds, by task and method."""
    found: Runs = {}
    for file in sorted(runs.glob("*.json")):
        each = json.loads(file.read_text())
        found.setdefault((each["task"], each["method"]), []).append(each)
    return {(task, method): found[task, method] for task in TASKS for method in METHODS if (task, method) in found}


def write_page(page: Path, runs: Path) -> None:
    """Write the tables between the marks of a page anew."""
    known = figures(runs)
    write_tables(page, {"returns": _returns(known), "passages": _passages(known)})


def _returns(known: Runs) -> list[str]:
    head = "| task | policy | seeds | steps | return, without noise | return, as drawn | CPU minutes |"
    lines = [head, "|---|---|---:|---:|---:|---:|---:|"]
    for (task, method), found in known.items():
        certain = _mean([each["final"] for each in found]) if TASKS[task].certain else ""
        minutes = sum(each["seconds"] for each in found) / len(found) / 60
        cells = [str(len(found)), f"{found[0]['steps']:,}", certain, _mean([each["drawn"] for each in found])]
        lines.append(f"| {task} | {method} | " + " | ".join(cells) + f" | {minutes:.1f} |")
    earned = assessed(TASKS["Attitude"], lambda seen, _: steered(seen), True)
    lines.append(f"| Attitude | controller on SO(3) | | | {_mean([earned])} | | |")
    return lines


def _mean(returns: Sequence[Sequence[float]]) -> str:
    """Return the mean, and the range of the seeds where there are several: too few for an interval."""
    seeds = torch.tensor(returns, dtype=torch.float64).mean(1)
    digits = 2 if float(seeds.mean().abs()) < 20 else 1
    low, mean, high = (f"{float(value):.{digits}f}" for value in (seeds.min(), seeds.mean(), seeds.max()))
    return mean if len(seeds) == 1 else f"{mean} ({low} to {high})"


def _passages(known: Runs) -> list[str]:
    lines = ["| policy | seed | passed to the north, % | met the obstacle, % | detour, radians |"]
    lines.append("|---|---:|---:|---:|---:|")
    for method in METHODS:
        for each in known.get(("Passages", method), []):
            own = each["ways"]
            length, hit, north = Passages(FLEET).passed(torch.tensor(own["points"]), torch.tensor(own["obstacles"]))
            clear = ~hit
            share = f"{100 * float(north[clear].float().mean()):.0f}" if bool(clear.any()) else "none passed"
            cells = [share, f"{100 * float(hit.float().mean()):.0f}", f"{float(length.mean()) - 2 * HALF_WAY:.2f}"]
            lines.append(f"| {method} | {each['seed']} | " + " | ".join(cells) + " |")
    return lines


def draw_curves(runs: Path, path: Path) -> None:
    """Draw the learning curves: the mean of the seeds, and the range between them."""
    known = figures(runs)
    tasks = [task for task in TASKS if any(task == name for name, _ in known)]
    columns = min(3, max(1, len(tasks)))
    rows = -(-max(1, len(tasks)) // columns)
    figure = new_figure(3.6 * columns, 2.6 * rows, None)
    axes = figure.subplots(rows, columns, squeeze=False)
    for own in axes.flat[len(tasks) :]:
        own.set_axis_off()
    for own, task in zip(axes.flat, tasks, strict=False):
        for method in METHODS:
            found = known.get((task, method), [])
            grid = np.linspace(0, TASKS[task].steps, 41)[1:]
            curves = [np.interp(grid, each["at"], each["returns"]) for each in found if each["at"]]
            if curves:
                label = f"{method}, {len(curves)} seed{'s' * (len(curves) > 1)}"
                own.plot(grid / 1000, np.mean(curves, 0), color=_COLOURS[method], label=label)
                own.fill_between(
                    grid / 1000, np.min(curves, 0), np.max(curves, 0), color=_COLOURS[method], alpha=0.2, lw=0
                )
        own.set_title(task, fontsize=9)
        if own.lines:
            own.legend(fontsize=7, frameon=False)
        own.tick_params(labelsize=7)
        own.set_xlabel("thousands of steps", fontsize=8)
        own.set_ylabel("return of training episodes", fontsize=8)
    save_figure(figure, path)


def draw_ways(runs: Path, path: Path) -> None:
    """Draw the ways that robots of one seed took round an obstacle, for each method."""
    known = {method: found[0] for (task, method), found in figures(runs).items() if task == "Passages"}
    figure = new_figure(3.2 * max(1, len(known)), 3.0, None)
    axes = figure.subplots(1, max(1, len(known)), squeeze=False)[0]
    for own, (method, each) in zip(axes, known.items(), strict=False):
        points, obstacle = (torch.tensor(each["ways"][name])[:FLEET] for name in ("points", "obstacles"))
        environment = Passages(FLEET)
        hit = environment.passed(points, obstacle)[1]
        for way, met in zip(_degrees(environment.way(points)).unbind(1), hit.tolist(), strict=True):
            own.plot(way[:, 0], way[:, 1], color="0.6" if met else _COLOURS[method], lw=0.8, ls=":" if met else "-")
        own.fill(*_degrees(_circle(obstacle[0])).unbind(-1), color="black", alpha=0.8, lw=0)
        own.set_title(f"{method}: {FLEET} robots", fontsize=9)
        own.set_xlim(-75, 75)
        own.set_ylim(-80, 80)
        own.set_aspect("equal")
        own.tick_params(labelsize=7)
        own.set_xlabel("longitude, degrees", fontsize=8)
        own.set_ylabel("latitude, degrees", fontsize=8)
    save_figure(figure, path)


def _circle(centre: torch.Tensor) -> torch.Tensor:
    """Return the border of an obstacle ``(100, 3)``."""
    east = torch.nn.functional.normalize(torch.linalg.cross(torch.tensor([0.0, 0.0, 1.0]), centre), dim=0)
    north = torch.linalg.cross(centre, east)
    angle = torch.linspace(0, 2 * torch.pi, 100)[:, None]
    aside = torch.cos(angle) * east + torch.sin(angle) * north
    return np.cos(RADIUS) * centre + np.sin(RADIUS) * aside


def _degrees(points: torch.Tensor) -> torch.Tensor:
    """Return longitudes and latitudes of points ``(*batch, 3)``, ``(*batch, 2)``."""
    return torch.rad2deg(
        torch.stack([torch.atan2(points[..., 1], points[..., 0]), torch.asin(points[..., 2].clamp(-1, 1))], -1)
    )
