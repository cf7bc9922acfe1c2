"""How far the ratios of flow policy gradients are from the truth, on a circle, a sphere, rotations and flat space.

A flow is trained on two clusters of actions, and moved by a policy gradient step of FPO towards where an advantage is
high. At fresh actions of the old flow, the true ratio is that of the exact densities of the ten steps that drew them;
beside it stand the estimates from losses at shared noise and times, for several numbers of draws.

    python -m experiments.policy_ratios [--out docs/studies/policy-ratios.md] [--quick]
"""

import argparse
import copy
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import rfm
from experiments.page_tables import write_tables
from manifolds import SO3, Euclidean, FlatTorus, Manifold, Sphere
from rfm.control import ClippedSurrogate, LossDraws, LossRatio
from rfm.likelihood import euler_log_prob, euler_transport
from rfm.networks import VelocityField
from rfm.paths import GeodesicPath

SPACES: dict[str, Manifold] = {
    "T^1": FlatTorus(1),
    "S^2": Sphere(2),
    "SO(3)": SO3(),
    "R^2": Euclidean(2),
    "R^6": Euclidean(6),
}
COUNTS = (1, 8, 64)
"""Draws for an action; FPO takes 8."""
SAMPLER_STEPS = 10
_DIFFERENCE_STEPS = 20
"""Of Adam on the surrogate, on one batch of actions."""


@dataclass(frozen=True)
class Budget:
    """How much to do.

    Args:
        steps: optimiser steps of the old flow.
        actions: at which ratios are compared.
        draws: of noise and time for each, divided among replications.
        seeds: repetitions of everything.
    """

    steps: int = 500
    actions: int = 300
    draws: int = 512
    seeds: int = 3


QUICK = Budget(steps=5, actions=20, draws=128, seeds=1)


def trained(m: Manifold, budget: Budget, seed: int) -> rfm.Flow:
    """Return a flow of actions in two clusters."""
    generator = torch.Generator().manual_seed(seed)
    centres = m.projx(1.2 * torch.randn(2, *m.event_shape, generator=generator))
    base = centres[torch.randint(2, (2000,), generator=generator)]
    noise = 0.4 * torch.randn(base.shape, generator=generator)
    points = m.projx(m.expmap(base, m.proju(base, noise)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        field = VelocityField(m, width=64, depth=2, features=64, max_frequency=4.0)
    training = rfm.Training(validations=1, learning_rate=3e-3)
    own: dict[str, Any] = {"steps": budget.steps, "batch_size": 256, "seed": seed, "device": "cpu"}
    return rfm.fit(points, m, field=field, refine=False, training=training, progress=False, **own)


def acted(flow: rfm.Flow, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return actions of the few steps, and their log-densities."""
    x_0 = flow.source.sample((count,), generator=generator)
    actions, log_det = euler_transport(flow.field, flow.manifold, x_0, SAMPLER_STEPS)
    return actions, flow.source.log_prob(x_0) - log_det


def moved(flow: rfm.Flow, generator: torch.Generator) -> rfm.Flow:
    """Return the flow after an iteration of FPO, with an advantage that is a slope of the coordinates."""
    new, path = copy.deepcopy(flow), GeodesicPath(flow.manifold)
    actions, _ = acted(flow, 512, generator)
    height = flow.manifold.embed(actions) @ torch.randn(flow.manifold.embed_dim, generator=generator)
    advantages = (height - height.mean()) / height.std()
    draws = LossDraws.draw(flow.source, 8, actions, generator=generator)
    old = draws.losses(flow.field, path, actions).detach()
    optimiser = torch.optim.Adam(new.parameters(), lr=3e-4)
    for _ in range(_DIFFERENCE_STEPS):
        optimiser.zero_grad()
        log_ratio = LossRatio().log_ratio(old, draws.losses(new.field, path, actions))
        ClippedSurrogate()(log_ratio, advantages).backward()
        optimiser.step()
    return new.eval().requires_grad_(False)


@torch.no_grad()
def compared(old: rfm.Flow, new: rfm.Flow, budget: Budget, generator: torch.Generator) -> dict[str, Any]:
    """Return how the estimates of ratios relate to the true ones at fresh actions of the old flow."""
    actions, log_old = acted(old, budget.actions, generator)
    found = euler_log_prob(new.field, new.source, actions, SAMPLER_STEPS, check=False).log_prob
    known = found.isfinite()
    actions, truth = actions[known], (found - log_old)[known].double()
    path = GeodesicPath(old.manifold)
    draws = LossDraws.draw(old.source, budget.draws, actions, generator=generator)
    difference = (draws.losses(old.field, path, actions) - draws.losses(new.field, path, actions)).double()
    best = difference.mean(0)
    rows = {}
    for count in COUNTS:
        sets = difference.unflatten(0, (-1, count))
        estimate = sets.mean(1)
        rows[str(count)] = {
            "correlation": _correlation(estimate, truth.expand_as(estimate)),
            "spread": float(estimate.std(0).mean()),
            "bias": float(estimate.exp().mean()) - float(truth.exp().mean()),
            "bias_per_draw": float(sets.exp().mean()) - float(truth.exp().mean()),
            "sign": float(((estimate > 0) == (truth > 0)).double().mean()),
        }
    centred = best - best.mean()
    return {
        "lost": int((~known).sum()),
        "truth": float(truth.std()),
        "slope": float((centred * (truth - truth.mean())).sum() / centred.square().sum()),
        "limit": _correlation(best, truth),
        "counts": rows,
    }


def _correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def measured(name: str, seed: int, budget: Budget) -> dict[str, Any]:
    """Return the figures of one space and seed."""
    generator = torch.Generator().manual_seed(1000 + seed)
    old = trained(SPACES[name], budget, seed).eval().requires_grad_(False)
    new = moved(old.requires_grad_(True), generator)
    return compared(old.requires_grad_(False), new, budget, generator)


def table(figures: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return the results as Markdown: means over the seeds, with the range of what matters most."""
    head = "| space | spread of the true log-ratio | draws | correlation | noise of the estimate |"
    lines = [head + " bias of r | per draw | right sign, % |", "|---|---:|---:|---:|---:|---:|---:|---:|"]
    for name, found in figures.items():
        for count in COUNTS:
            rows = [each["counts"][str(count)] for each in found]
            cells = [
                _range([row["correlation"] for row in rows], 2),
                f"{_mean([row['spread'] for row in rows]):.3f}",
                f"{_mean([row['bias'] for row in rows]):+.3f}",
                f"{_mean([row['bias_per_draw'] for row in rows]):+.3f}",
                f"{100 * _mean([row['sign'] for row in rows]):.0f}",
            ]
            truth = f"{_mean([each['truth'] for each in found]):.3f}"
            lines.append(f"| {name} | {truth} | {count} | " + " | ".join(cells) + " |")
    lines += ["", "| space | correlation of the mean of all draws | slope of the truth on it | not invertible |"]
    lines.append("|---|---:|---:|---:|")
    for name, found in figures.items():
        limit, slope = _range([each["limit"] for each in found], 2), _range([each["slope"] for each in found], 2)
        lines.append(f"| {name} | {limit} | {slope} | {sum(each['lost'] for each in found)} |")
    return lines


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _range(values: Sequence[float], digits: int) -> str:
    return f"{_mean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main(arguments: list[str] | None = None) -> None:
    """Measure what is missing in the folder, and print the table, or write it into a page."""
    parser = argparse.ArgumentParser(prog="python -m experiments.policy_ratios", description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/policy-ratios"), help="folder of figures")
    parser.add_argument("--out", type=Path, help="page whose table is written anew")
    parser.add_argument("--quick", action="store_true", help="a few seconds, to see that all works")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    budget = QUICK if options.quick else Budget()
    options.runs.mkdir(parents=True, exist_ok=True)
    figures: dict[str, list[dict[str, Any]]] = {}
    for name in SPACES:
        for seed in range(budget.seeds):
            target = options.runs / f"{re.sub(r'[^A-Z0-9]', '', name)}-{seed}.json"
            if not target.exists():
                target.write_text(json.dumps(measured(name, seed, budget), indent=1))
                print(f"{name}, seed {seed}: done", flush=True)
            figures.setdefault(name, []).append(json.loads(target.read_text()))
    lines = table(figures)
    print("\n".join(lines))
    if options.out is not None:
        write_tables(options.out, {"ratios": lines})


if __name__ == "__main__":
    main()
