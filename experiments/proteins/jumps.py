"""Backbones in a few jumps, beside as many steps of the equation that the jumps were distilled from."""

import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import rfm
from experiments.proteins.report import HEADER, Reference, row
from manifolds import CentredPoses
from rfm.integrators import GEODESIC_EULER, FixedStep
from rfm.objectives import TrajectoryRegression
from rfm.paths import TimePairs
from rfm.proteins import Chains, atoms_from_frames
from rfm.records import read_json

JUMPS = (4, 8)


def jumps_report(
    run: Path,
    chains: Chains,
    out: Path,
    *,
    residues: int = 48,
    count: int = 32,
    equation_steps: int = 50,
    points: int = 256,
    steps: int = 600,
    batch_size: int = 8,
    pairs: int = 120,
    note: Callable[[str], Any] = lambda message: None,
) -> Iterator[str]:
    """Yield the lines of a table: jumps, Euler's steps of the same number, and 50 steps of the equation.

    Without self-conditioning, schedules of rotations, and closed bonds, which are not the equation's.

    Args:
        run: the folder of a finished run.
        chains: the data that it was trained on.
        out: folder of the distilled flow; a training that was stopped goes on there.
        residues: of each backbone that is drawn, and of those that are trained on.
        count: how many are drawn in each way.
        equation_steps: of the equation, for what is compared and for the trajectories that are trained on.
        points: how many of those.
        steps: optimiser steps.
        batch_size: backbones in each.
        pairs: as for the report.
        note: receives messages on what is being done.
    """
    trained = rfm.Flow.load(run)
    manifold = trained.manifold
    assert isinstance(manifold, CentredPoses)
    flow, reference = trained.on(CentredPoses(residues, manifold.length)), _reference(run, chains)
    solver = FixedStep(GEODESIC_EULER, equation_steps)
    note("distillation")
    few = rfm.distil(
        flow,
        objective=TrajectoryRegression(spans=TimePairs(ends=0.1)),
        solver=solver,
        points=points,
        steps=steps,
        batch_size=batch_size,
        out=out,
        resume=True,
        progress=False,
        training=rfm.Training(learning_rate=3e-4, validations=2),
    )
    last = few.history[-1]
    yield (
        f"- {residues} residues; {points} trajectories of {equation_steps} steps, {last['step']} optimiser steps of "
        f"{batch_size} backbones, {last.get('cpu_seconds', float('nan')):.0f} seconds of a core; {date.today()}"
    )
    yield ""
    yield HEADER
    ways: list[tuple[str, rfm.Flow, dict[str, Any]]] = [("equation", flow, {"solver": solver})]
    for k in JUMPS:
        ways += [("jumps", few, {"steps": k}), ("Euler", flow, {"solver": FixedStep(GEODESIC_EULER, k)})]
    for name, drawer, how in ways:
        steps_taken = how["steps"] if "steps" in how else how["solver"].steps
        note(f"{name}, {steps_taken}")
        drawn, seconds = _drawn(drawer, count, how)
        title = f"{len(drawn)} samples, {name}, {steps_taken} steps"
        yield row(title, drawn, reference.every_second(1), reference, pairs, seconds / count)


def _reference(run: Path, chains: Chains) -> Reference:
    return Reference.of(chains, int(read_json(run / "proteins.json")["settings"]["seed"]))


def _drawn(flow: rfm.Flow, count: int, how: dict[str, Any]) -> tuple[list[Tensor], float]:
    """Return backbones, and the seconds of processor time that they took."""
    started = time.process_time()
    frames = flow.sample(count, generator=torch.Generator().manual_seed(0), batch_size=16, **how)
    return list(atoms_from_frames(frames)), time.process_time() - started
