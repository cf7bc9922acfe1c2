"""Imitation of handwriting: ``python -m experiments.imitation [--quick] [--spaces plane sphere poses]``."""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.imitation.fork import measure_fork
from experiments.imitation.measures import TOLERANCE, extent, milliseconds, rollouts, roughness, warped_distance
from experiments.imitation.policies import (
    EXECUTE,
    KINDS,
    QUICK,
    TRAIN,
    Budget,
    Trained,
    trained,
    uses_network_alone,
    without_cache,
)
from experiments.imitation.report import draw, write_page
from experiments.imitation.spaces import EVERY, SPACES, Space
from rfm.datasets import handwriting


def main(arguments: list[str] | None = None) -> None:
    """Measure what is missing in the folder, and write page and picture from all that is there."""
    parser = argparse.ArgumentParser(prog="python -m experiments.imitation", description=__doc__)
    parser.add_argument("--spaces", nargs="*", choices=SPACES, default=list(SPACES), help="where to draw")
    parser.add_argument("--no-fork", action="store_true", help="leave out the two ways round an obstacle")
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS), help="of policies")
    parser.add_argument("--runs", type=Path, default=Path("runs/imitation"), help="folder of policies and figures")
    parser.add_argument("--out", type=Path, help="page whose tables are written anew")
    parser.add_argument("--figure", type=Path, help="picture of rollouts")
    parser.add_argument("--quick", action="store_true", help="a few seconds, to see that all works")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    budget = QUICK if options.quick else Budget()
    options.runs.mkdir(parents=True, exist_ok=True)
    for name in options.spaces:
        for kind in options.kinds:
            # In the plane ambient numbers are the points themselves, and the default noise is about the actions.
            if name != "plane" or kind not in ("ambient flow", "default flow"):
                measure(SPACES[name], kind, budget, options.runs)
    if not options.no_fork:
        measure_fork(budget, options.runs)
    if options.out is not None:
        write_page(options.out, options.runs)
    if options.figure is not None:
        draw(options.runs, options.figure)


def demonstrations(space: Space, budget: Budget) -> Tensor:
    """Return the drawings of some shapes in a space, ``(shapes, 7, 100, *event_shape)``, in single precision."""
    return space.carried(handwriting().points[: budget.shapes, :, ::EVERY]).float()


def measure(space: Space, kind: str, budget: Budget, runs: Path) -> None:
    """Train a policy and measure it on held-out demonstrations, unless the figures are there."""
    stem = f"{space.name}-{kind.replace(' ', '-')}"
    target = runs / f"{stem}.json"
    if target.exists():
        return
    points = demonstrations(space, budget)
    policy = trained(kind, space, points[:, :TRAIN], budget, runs / stem)
    found, tracks = assessed(policy, points, budget)
    torch.save(tracks, runs / f"{stem}.pt")
    found |= {"space": space.name, "kind": kind, "steps": budget.steps, "stopped": policy.policy.flow.stopped}
    target.write_text(json.dumps(found, indent=1))
    print(f"{stem}: done", flush=True)


def assessed(policy: Trained, points: Tensor, budget: Budget) -> tuple[dict[str, Any], Tensor]:
    """Return the measures of each rollout, and the rollouts ``(draws, shapes, held out, moments, *event_shape)``."""
    m, held = policy.space.manifold, points[:, TRAIN:]
    shapes, count, moments = held.shape[:3]
    shape = torch.arange(shapes).repeat_interleave(count).repeat(budget.draws)
    goal = held.flatten(0, 1).repeat(budget.draws, *(1,) * (held.ndim - 2))
    tracks, off = rollouts(policy, goal[:, 0], shape[:, None], moments)
    size = extent(m, points)[shape].double()
    end = m.dist(tracks[:, -1], goal[:, -1]).double() / size
    warped = warped_distance(m, tracks, goal) / size
    rough = roughness(m, tracks) / roughness(m, points[:, :TRAIN].flatten(0, 1)).mean()
    one = {"now": goal[:1, 0], "before": goal[:1, 0], "shape": shape[:1, None]}
    found: dict[str, Any] = {
        "shape": shape.tolist(),
        "end": end.tolist(),
        "warped": warped.tolist(),
        "success": ((end < TOLERANCE) & (warped < TOLERANCE)).tolist(),
        "roughness": rough.tolist(),
        "off": off.tolist(),
        "milliseconds": milliseconds(lambda: policy.chunk(one)) / EXECUTE,
    }
    if uses_network_alone(policy.policy):
        found["milliseconds_without_cache"] = milliseconds(lambda: without_cache(policy.policy, one)) / EXECUTE
    return found, tracks.unflatten(0, (budget.draws, shapes, count))


if __name__ == "__main__":
    main()
