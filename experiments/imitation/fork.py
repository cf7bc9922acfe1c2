"""Two ways round an obstacle on the sphere: where the mean of what was demonstrated is the one thing not to do."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.imitation.measures import rollouts
from experiments.imitation.policies import Budget, trained
from experiments.imitation.spaces import SPACES
from manifolds import Sphere

OBSTACLE = 0.3
"""Radius in radians, about the point where equator and first meridian meet."""
DEMONSTRATIONS, MOMENTS, ROLLOUTS, STEPS = 40, 60, 200, 500
KINDS = ("flow", "regression")


def ways(count: int, seed: int = 0) -> Tensor:
    """Return tracks along the equator that pass the obstacle to the north or south by the flip of a coin.

    Each ``(count, MOMENTS, 3)`` begins at one longitude, up to a hundredth of a radian, and rises as far as it likes.
    """
    generator = torch.Generator().manual_seed(seed)
    side = 2 * torch.randint(2, (count, 1), generator=generator) - 1
    height = 0.55 + 0.1 * torch.rand(count, 1, generator=generator)
    start = 0.01 * torch.randn(count, 1, generator=generator)
    longitude = torch.linspace(-1.2, 1.2, MOMENTS).expand(count, MOMENTS) + start
    latitude = side * height * torch.cos(longitude.clamp(-1.2, 1.2) * math.pi / 2.4) ** 2
    across = torch.cos(latitude)
    points = [across * torch.cos(longitude), across * torch.sin(longitude), torch.sin(latitude)]
    return torch.stack(points, dim=-1)


def measure_fork(budget: Budget, runs: Path) -> None:
    """Train on the two ways and let policies go, unless the figures are there."""
    own = replace(budget, steps=min(budget.steps, STEPS))
    (runs / "fork").mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        target = runs / "fork" / f"{kind}.json"
        if not target.exists():
            policy = trained(kind, SPACES["sphere"], ways(DEMONSTRATIONS)[None], own, runs / "fork" / kind)
            starts = ways(ROLLOUTS, seed=1)[:, 0]
            tracks, _ = rollouts(policy, starts, torch.zeros(ROLLOUTS, 1), MOMENTS)
            torch.save(tracks, target.with_suffix(".pt"))
            target.write_text(json.dumps(assessed_ways(tracks), indent=1))
            print(f"fork, {kind}: done", flush=True)


def assessed_ways(tracks: Tensor) -> dict[str, Any]:
    """Return which tracks ``(n, MOMENTS, 3)`` hit the obstacle, pass it to the north, and end on the other side."""
    middle = torch.tensor([1.0, 0.0, 0.0]).to(tracks)
    closest = Sphere(2).dist(tracks, middle)
    at = closest.argmin(1)
    north = torch.take_along_dim(tracks[..., 2], at[:, None], 1)[:, 0] > 0
    goal = torch.tensor([math.cos(1.2), math.sin(1.2), 0.0]).to(tracks)
    return {
        "hit": (closest.amin(1) < OBSTACLE).tolist(),
        "north": north.tolist(),
        "end": Sphere(2).dist(tracks[:, -1], goal).tolist(),
    }


def fork_table(runs: Path) -> list[str]:
    """Return the results as Markdown."""
    words = {"flow": "flow on the manifold", "regression": "Gaussian regression"}
    head = "| policy | hit the obstacle, % | passed to the north, % | end, radians from the goal |"
    lines = [head, "|---|---:|---:|---:|"]
    for kind in KINDS:
        file = runs / "fork" / f"{kind}.json"
        if file.exists():
            own = json.loads(file.read_text())
            clear = [north for north, hit in zip(own["north"], own["hit"], strict=True) if not hit]
            share = f"{_share(clear)} of {len(clear)} that did not" if clear else "none passed"
            end = sum(own["end"]) / len(own["end"])
            lines.append(f"| {words[kind]} | {_share(own['hit'])} | {share} | {end:.2f} |")
    return lines


def _share(values: list[bool]) -> str:
    """Return a share in percent, with the half-width of its 95 % interval (Agresti and Coull's)."""
    n = len(values) + 4
    p = (sum(values) + 2) / n
    return f"{100 * sum(values) / len(values):.0f} ± {196 * math.sqrt(p * (1 - p) / n):.0f}"
