"""Densities on many splits of one data set: fit, score each test point once, compare in pairs.

What the studies of the earth's surface and of torsion angles share. Each split has a folder with the fitted flow (one
that ``rfm`` commands take) and the log-densities of its test points under every model, so that a run that was killed
goes on where it was. Differences are paired by test point, pooled over all splits, and clustered by place, chain or
block: a place that comes back in another split stays one observation.
"""

import argparse
import functools
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import rfm
from experiments.density_integrals import Integrator
from manifolds import Manifold
from rfm.baselines import NormalizingFlow
from rfm.conditions import Conditions
from rfm.datasets import Split
from rfm.metrics import Estimate, paired_difference
from rfm.sources import KernelMixture
from rfm.training import Points, conditional_kernels

Density = Callable[[Tensor], Tensor]
"""From points ``(n, *event_shape)`` to log-densities ``(n,)`` in nats."""
Fit = Callable[[Tensor, Tensor, int], Density]
"""From training points, validation points and a seed to a density."""

FLOW, REFINED = "flow", "flow, refined"
KERNELS, ADAPTIVE = "30 bandwidths", "adaptive kernels"
ONE_KERNEL, PER_CONDITION = "one kernel in the condition", "kernels per condition"
"""Kernel densities of a conditional problem, in place of those two."""
NOT_BEHIND_NATS = 0.01
"""How far the worse end of an interval may reach for "not behind"."""
LISTED = 30
"""Labels in a table, of all sizes."""
_ROUNDING_NATS = 1e-5
"""Two ways to the same density differ by this."""


@dataclass(frozen=True)
class Problem:
    """A data set, and how it is split.

    Args:
        name: of the data set and the kind of split; also that of its folder.
        manifold: what the points lie on.
        points: ``(n, *event_shape)``.
        groups: a label of each point, ``(n,)``: points of one label are not independent.
        split: from a seed to rows that train, validate and test.
        seeds: of the splits.
        others: more densities by name, each fitted to ``(train, validation, seed)``.
        condition: what the densities are conditional on, vectors ``(n, c)`` of which all is known; None for nothing.
        conditions: what their entries mean.
        field: from the seed to the network of the flow; that of `rfm.fit` by default.
    """

    name: str
    manifold: Manifold
    points: Tensor
    groups: Tensor
    split: Callable[[int], Split]
    seeds: Sequence[int]
    others: Mapping[str, Fit]
    condition: Tensor | None = None
    conditions: Conditions | None = None
    field: Callable[[int], nn.Module] | None = None

    @property
    def kernels(self) -> tuple[str, str]:
        """The names of the kernel densities, from the weaker."""
        return (KERNELS, ADAPTIVE) if self.condition is None else (ONE_KERNEL, PER_CONDITION)

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the rows, in the order of the table."""
        return (FLOW, REFINED, *self.kernels, *self.others)


@dataclass(frozen=True)
class Scores:
    """What one split gave.

    Args:
        rows: of the test points in the data set, ``(n,)``.
        log_prob: by model, ``(n,)``, float64.
        seconds: of fitting and scoring, by model.
        integrals: of each density over the manifold, by model, with standard errors; empty if not computed.
        choice: what the refinement chose, in words.
    """

    rows: Tensor
    log_prob: dict[str, Tensor]
    seconds: dict[str, float]
    integrals: dict[str, Estimate]
    choice: str


def add_arguments(parser: argparse.ArgumentParser, out: str, seeds: int = 5) -> None:
    """Add what every study asks for."""
    parser.add_argument("--out", type=Path, default=Path(out), help=f"folder of the runs (default {out})")
    parser.add_argument("--seeds", type=int, default=seeds, help=f"number of splits, seeded from 0 (default {seeds})")
    parser.add_argument("--steps", type=int, help="optimiser steps of each fit (default: those of rfm.fit)")
    parser.add_argument(
        "--integral-points",
        type=int,
        default=0,
        help="draws to integrate the densities by, of runs that were scored too (default 0)",
    )
    parser.add_argument("--quick", action="store_true", help="one split of a few points and steps, to see that it runs")


def measure(problem: Problem, options: argparse.Namespace) -> dict[int, Scores]:
    """Fit and score every split, or read what an earlier run left, and say how far it is."""
    found = {}
    for seed in problem.seeds:
        start = time.perf_counter()
        found[seed] = _scored(problem, seed, options.out / problem.name / f"seed-{seed}", options)
        means = ", ".join(f"{m} {-float(p.mean()):.3f}" for m, p in found[seed].log_prob.items())
        print(
            f"{problem.name}, seed {seed}: {means} ({time.perf_counter() - start:.0f} s)", file=sys.stderr, flush=True
        )
    return found


def _scored(problem: Problem, seed: int, folder: Path, options: argparse.Namespace) -> Scores:
    scores, record = folder / "scores.safetensors", folder / "scores.json"
    rows = problem.split(seed)
    if not record.exists():
        folder.mkdir(parents=True, exist_ok=True)
        log_prob, text = _fit_and_score(problem, seed, rows, folder, options)
        save_file(log_prob, scores)
        record.write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")
    saved = json.loads(record.read_text(encoding="utf-8"))
    log_prob = load_file(scores)
    # A density that the run was not asked for then; the others stay as they are.
    if missing := {name: fit for name, fit in problem.others.items() if name not in log_prob}:
        _score_others(problem, seed, rows, missing, log_prob, saved["seconds"])
        save_file(log_prob, scores)
        record.write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")
    if options.integral_points and not saved["integrals"] and problem.condition is None:
        found = _integrals(problem, rows, folder, options.integral_points)
        saved["integrals"] = {name: (z.mean, z.standard_error, z.count) for name, z in found.items()}
        record.write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")
    integrals = {name: Estimate(*values) for name, values in saved["integrals"].items()}
    return Scores(rows.test, log_prob, saved["seconds"], integrals, saved["choice"])


def _fit_and_score(
    problem: Problem, seed: int, rows: Split, folder: Path, options: argparse.Namespace
) -> tuple[dict[str, Tensor], dict[str, object]]:
    test = problem.points[rows.test]
    seconds: dict[str, float] = {}
    log_prob: dict[str, Tensor] = {}
    densities: dict[str, Density] = {}
    start = time.perf_counter()
    flow = _fitted(problem, seed, rows, folder, options)
    seconds[REFINED] = time.perf_counter() - start
    given = {} if problem.condition is None else {"condition": problem.condition[rows.test]}
    densities[FLOW] = functools.partial(flow.base.log_prob, **given)
    densities[REFINED] = functools.partial(flow.log_prob, **given)
    for name in problem.kernels:
        start = time.perf_counter()
        densities[name] = _kernel_density(problem, name, rows)
        seconds[name] = time.perf_counter() - start
    for name, density in densities.items():
        start = time.perf_counter()
        log_prob[name] = density(test).double()
        seconds[f"{name}, scored"] = time.perf_counter() - start
    _score_others(problem, seed, rows, problem.others, log_prob, seconds)
    return log_prob, {"seconds": seconds, "integrals": {}, "choice": flow.refinement_report}


def _score_others(
    problem: Problem,
    seed: int,
    rows: Split,
    others: Mapping[str, Fit],
    log_prob: dict[str, Tensor],
    seconds: dict[str, float],
) -> None:
    """Fit more densities, and add their scores and seconds."""
    train, validation, test = (problem.points[part] for part in rows)
    for name, fit in others.items():
        start = time.perf_counter()
        density = fit(train, validation, seed)
        seconds[name] = time.perf_counter() - start
        start = time.perf_counter()
        log_prob[name] = density(test).double()
        seconds[f"{name}, scored"] = time.perf_counter() - start


def spline_flow(manifold: Manifold) -> dict[str, Fit]:
    """Return what fits zuko's circular spline flow, on a torus or in a chart of the sphere, by its name."""

    def fit(train: Tensor, validation: Tensor, seed: int) -> Density:
        flow = NormalizingFlow.fit(
            manifold, train, validation, seed=seed, steps=4000, transforms=4, hidden_features=(128, 128)
        )
        return lambda points: torch.cat([flow.log_prob(part) for part in points.split(4096)])

    return {"circular spline flow (zuko)": fit}


def _fitted(problem: Problem, seed: int, rows: Split, folder: Path, options: argparse.Namespace) -> rfm.Flow:
    """Return the flow of a split, fitted or as an earlier run left it."""
    index = torch.cat([rows.train, rows.validation])
    given: dict[str, Any] = {}
    if problem.condition is not None:
        given = {"condition": problem.condition[index], "conditions": problem.conditions}
    return rfm.fit(
        problem.points[index],
        problem.manifold,
        validation=torch.arange(len(rows.train), len(index)),
        field=None if problem.field is None else problem.field(seed),
        steps=options.steps,
        seed=seed,
        out=folder / "flow",
        resume=True,
        **given,
    )


def _kernel_density(problem: Problem, name: str, rows: Split) -> Density:
    """Return the log-density, of the test points, of a kernel density that is fitted to the others."""
    train, validation = problem.points[rows.train], problem.points[rows.validation]
    if problem.condition is None:
        fit = {KERNELS: KernelMixture.mixture, ADAPTIVE: KernelMixture.adaptive}[name]
        return fit(problem.manifold, train, validation).log_prob
    assert problem.conditions is not None
    centres, held = (Points(problem.points[part], problem.condition[part]) for part in (rows.train, rows.validation))
    labels = problem.conditions.labels
    kernels = conditional_kernels(problem.manifold, centres, held, labels, one_width=name == ONE_KERNEL)
    return functools.partial(kernels.kernel_log_prob, condition=problem.condition[rows.test])


def _integrals(problem: Problem, rows: Split, folder: Path, count: int) -> dict[str, Estimate]:
    """Return the integrals of the flow, refined and not, and of the kernels, solved as ``log_prob`` does by default.

    The flow alone, which takes several times as long, gets a tenth of the draws, but four for each control variate.
    """
    flow = rfm.Flow.load(folder / "flow")
    kernels = KernelMixture.adaptive(problem.manifold, problem.points[rows.train], problem.points[rows.validation])
    integrator = Integrator(kernels, count)
    every = max(1, min(10, count // (4 * integrator.design.shape[1])))
    return {
        FLOW: integrator.integral(flow.base.log_prob, every),
        REFINED: integrator.integral(flow.log_prob),
        ADAPTIVE: integrator.integral_of_kernels(),
    }


def verdict(difference: Estimate) -> str:
    """Return whether a model is better, by its log-density minus another's."""
    if not difference.has_error:
        return "one observation"
    low, high = difference.interval_95
    if abs(difference.mean) < _ROUNDING_NATS:
        return "not behind"
    if low > 0:
        return "clear"
    if high < 0:
        return "behind" if low < -NOT_BEHIND_NATS else "a little behind"
    return "undecided" if low < -NOT_BEHIND_NATS else "not behind"


def tables(problems: Mapping[str, tuple[Problem, Mapping[int, Scores]]]) -> str:
    """Return two tables as Markdown: mean test NLL of each model, and paired differences to the kernels."""
    blocks = [_means(problems), _differences(problems)]
    if any(s.integrals for _, found in problems.values() for s in found.values()):
        blocks.append(_integral_table(problems))
    return "\n\n".join(blocks)


def _means(problems: Mapping[str, tuple[Problem, Mapping[int, Scores]]]) -> str:
    models = dict.fromkeys(m for problem, _ in problems.values() for m in problem.models)
    lines = [f"| test NLL, nats | {' | '.join(problems)} |", "|---|" + "---:|" * len(problems)]
    for model in models:
        cells = []
        for _, found in problems.values():
            values = [-float(s.log_prob[model].mean()) for s in found.values() if model in s.log_prob]
            cells.append(f"{statistics.fmean(values):.3f} ± {statistics.pstdev(values):.3f}" if values else "")
        lines.append(f"| {model} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _differences(problems: Mapping[str, tuple[Problem, Mapping[int, Scores]]]) -> str:
    lines = ["| refined flow minus | data | NLL, nats | 95 % interval | each seed | |", "|---|---|---:|---|---|---|"]
    compared = dict.fromkeys(m for problem, _ in problems.values() for m in (*problem.kernels, *problem.models))
    for other in [m for m in compared if m != REFINED]:
        for name, (problem, found) in problems.items():
            if other not in problem.models:
                continue
            a, b = (torch.cat([s.log_prob[m] for s in found.values()]) for m in (REFINED, other))
            labels = problem.groups[torch.cat([s.rows for s in found.values()])]
            # Of log-densities: positive where the refined flow is better.
            better = paired_difference(a, b, groups=labels)
            low, high = better.interval_95
            each = ", ".join(f"{float((s.log_prob[other] - s.log_prob[REFINED]).mean()):+.3f}" for s in found.values())
            interval = f"{-high:+.3f} to {-low:+.3f}" if better.has_error else "none"
            lines.append(f"| {other} | {name} | {-better.mean:+.3f} | {interval} | {each} | {verdict(better)} |")
    return "\n".join(lines)


def _integral_table(problems: Mapping[str, tuple[Problem, Mapping[int, Scores]]]) -> str:
    lines = ["| integral of the density | data | mean over seeds | standard error |", "|---|---|---:|---:|"]
    for name, (problem, found) in problems.items():
        for model in problem.models:
            own = [s.integrals[model] for s in found.values() if model in s.integrals]
            if own:
                error = math.sqrt(sum(z.standard_error**2 for z in own)) / len(own)
                lines.append(f"| {model} | {name} | {statistics.fmean(z.mean for z in own):.4f} | {error:.4f} |")
    return "\n".join(lines)


def label_table(problem: Problem, found: Mapping[int, Scores], count: int = LISTED) -> str:
    """Return a Markdown table of so many labels of all sizes: their points, and the mean test NLL of each model."""
    assert problem.condition is not None
    assert problem.conditions is not None
    rows = torch.cat([scores.rows for scores in found.values()])
    own = problem.condition[:, 0].long()
    tested = own[rows].unique()
    sizes = torch.bincount(own)[tested]
    order = tested[sizes.argsort(descending=True, stable=True)]
    few = order[torch.linspace(0, len(order) - 1, min(count, len(order))).round().long()]
    lines = [
        f"| {problem.conditions.names[0]} | points | tested | {' | '.join(problem.models)} |",
        "|---|" + "---:|" * (2 + len(problem.models)),
    ]
    for label in few.tolist():
        here = own[rows] == label
        means = [_mean(found, model, here) for model in problem.models]
        name = problem.conditions.decode(torch.tensor([[float(label)]]))[problem.conditions.names[0]][0]
        cells = [str(int((own == label).sum())), str(int(here.sum())), *(f"{mean:.3f}" for mean in means)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    chosen = torch.isin(own[rows], few)
    cells = [f"{_mean(found, model, chosen):.3f}" for model in problem.models]
    lines.append(f"| all {len(few)} | | {int(chosen.sum())} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(found: Mapping[int, Scores], model: str, here: Tensor) -> float:
    return -float(torch.cat([scores.log_prob[model] for scores in found.values()])[here].mean())


def labels_of(names: Sequence[str]) -> Tensor:
    """Return a number for each name, alike for equal ones, ``(n,)``."""
    numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([numbers[name] for name in names])


def place_labels(points: Tensor) -> Tensor:
    """Return a number for each point, alike for equal ones, ``(n,)``."""
    return torch.unique(points.flatten(1) + 0.0, dim=0, return_inverse=True)[1]
