"""Distillation: a trained flow's ordinary differential equation as a flow map, for samples in a few jumps."""

import copy
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from manifolds.arguments import check_instance, integer, number, seed_of
from rfm.field import Field, as_field
from rfm.flow import Flow
from rfm.flow.condition_vectors import vectors_of
from rfm.flow.progress import Report
from rfm.integrators import Adaptive, Method
from rfm.networks.second_time import with_second_time
from rfm.objectives import FlowMapObjective, Semigroup
from rfm.steering import Guidance
from rfm.training.fitting import fit, seeded_field
from rfm.training.settings import Training

_POINTS, _STEPS, _BLOCK = 20_000, 4000, 4096
_SOLVER = Adaptive(atol=1e-3, rtol=1e-3)


def distil(
    flow: Flow,
    *,
    objective: FlowMapObjective | None = None,
    points: int = _POINTS,
    condition: Tensor | Mapping[str, Any] | None = None,
    guidance: float = 1.0,
    field: nn.Module | None = None,
    solver: Method | None = None,
    steps: int = _STEPS,
    batch_size: int | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool | Report = True,
    training: Training | None = None,
) -> Flow:
    """Train a flow map to jump where the flow's field leads: ``rfm.distil(flow).sample(1000, steps=1)``.

    The map is trained on points on the way between draws from the source and samples of the flow, by the velocity of
    the flow; no data are needed. It is a field too: trajectories and log-densities of the new flow are those of the
    velocity that the map has at equal times, which is trained to be the old flow's, and samples without ``steps`` are
    drawn from that density.

    What a flow is refined by is kept. Its kernels stand at times along the flow, and a sample that begins at one of
    them jumps from there.

    Args:
        flow: a trained flow; it stays as it is.
        objective: how, see `rfm.objectives.FlowMapObjective`; `rfm.objectives.Semigroup` by default.
        points: how many samples of the flow are drawn to train on.
        condition: of those points, for a conditional flow: vectors ``(m, c)`` or columns by name, such as those of the
            training points; rows are drawn at random.
        guidance: distil the flow under classifier-free guidance of this weight, see `rfm.steering.Guidance`. The new
            flow then has it built in, for any condition, and the exact density of the guided equation; it is without
            the refinement, which belongs to the field as it was.
        field: a `rfm.FlowMap` to train, a module; by default the flow's own network with a second time, such as an
            `rfm.networks.AverageVelocity` for a `rfm.networks.VelocityField` and an `rfm.control.ActionMap` for an
            `rfm.control.ActionNetwork`, or a new `rfm.networks.AverageVelocity` where it has no such form.
        solver: of the samples; adaptive to 1e-3 by default.
        steps: optimiser steps, 4,000 by default; this and those that follow as for `rfm.fit`.
        batch_size: pairs per step.
        seed: of every random draw.
        device: "cpu", "cuda", ...
        out: folder for checkpoints and the saved flow.
        resume: go on from the checkpoint in ``out``.
        progress: show a progress bar on stderr, or a function.
        training: learning rate, cap on the time, and more.

    Returns:
        The flow of the map, with ``history``.

    Raises:
        ValueError: for a flow that cannot be distilled, or settings that cannot be used.
        FileExistsError: if ``out`` holds a flow and neither ``resume`` nor ``Training.force`` is given.
    """
    check_instance("distil", "flow", flow, Flow, "rfm.fit(points, manifold)")
    chosen = Semigroup() if objective is None else objective
    check_instance("distil", "objective", chosen, FlowMapObjective, "rfm.objectives.Semigroup()")
    count, seed = integer("distil", "points", points, 20), seed_of("distil", seed)
    weight = number("distil", "guidance", guidance)
    if flow.start:
        raise ValueError(f"distil: the flow starts at time {flow.start:g}, and jumps are trained from time 0")
    teacher = as_field(copy.deepcopy(flow.field))
    if teacher.needs_condition:
        raise ValueError(
            "distil: the flow's field is behind an encoder, and its conditions are no vectors; train a "
            "rfm.networks.EncodedMap by rfm.fit_stream(..., objective=rfm.objectives.Semigroup(velocity=flow.field))"
        )
    vectors = _rows(flow, teacher, condition, count, seed)
    if weight != 1:
        Guidance(weight).check("distil", teacher, vectors)
    velocity = teacher if weight == 1 else Guidance(weight).applied_to(teacher)
    solver = _SOLVER if solver is None else solver
    trajectories = _trajectories(flow, velocity, chosen.noted, count, vectors, solver, seed)
    x_1 = trajectories[-1]
    found = fit(
        x_1,
        flow.manifold,
        condition=vectors,
        conditions=flow.conditions,
        source=flow.source,
        field=_student(flow, x_1, vectors, seed) if field is None else field,
        objective=chosen.distilling(velocity, trajectories, vectors),
        refine=False,
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        device=device,
        out=out,
        resume=resume,
        progress=progress,
        training=training,
    )
    if weight == 1 and flow.refinement is not None:
        kept = Flow(flow.manifold, found.field, flow.source, conditions=flow.conditions, refinement=flow.refinement)
        kept.history, kept.stopped = found.history, found.stopped
        kept.refinement_report = flow.refinement_report
        found = kept.eval()
        if out is not None:
            found.save(out)
    return found


def _trajectories(
    flow: Flow,
    velocity: Field,
    times: Sequence[float],
    count: int,
    condition: Tensor | None,
    solver: Method,
    seed: int,
) -> Tensor:
    """Return trajectories of a velocity from draws of the flow's source, at times ``(k, n, *event_shape)``."""
    dtype, device = flow._dtype_and_device()
    generator = torch.Generator(device).manual_seed(seed)
    x_0 = flow.source.sample((count,), generator=generator, dtype=dtype, device=device)
    carried = Flow(flow.manifold, velocity, flow.source).eval()
    rows = [slice(i, i + _BLOCK) for i in range(0, count, _BLOCK)]
    own = [None if condition is None else condition[part] for part in rows]
    parts = [
        carried.trajectory(x_0[part], times, condition=given, solver=solver)
        for part, given in zip(rows, own, strict=True)
    ]
    return torch.cat(parts, dim=1)


def _student(flow: Flow, x_1: Tensor, condition: Tensor | None, seed: int) -> nn.Module:
    """Return the network to train: the flow's own with a second time, or a new one with the scales of its samples."""
    if isinstance(flow.field, nn.Module):
        with suppress(ValueError):
            return with_second_time(copy.deepcopy(flow.field))
    labels = None if flow.conditions is None else flow.conditions.labels
    return seeded_field(flow.manifold, x_1, condition, labels, seed)


def _rows(
    flow: Flow, field: Field, condition: Tensor | Mapping[str, Any] | None, count: int, seed: int
) -> Tensor | None:
    """Return a condition vector for each point, drawn from those that are given."""
    if condition is None:
        if field.condition_dim:
            raise ValueError(
                "distil: this flow is conditional; pass condition=, such as that of the training points, to train on"
            )
        return None
    vectors = vectors_of(flow.conditions, condition)
    vectors = vectors[None] if vectors.ndim == 1 else vectors
    generator = torch.Generator(vectors.device).manual_seed(seed)
    return vectors[torch.randint(len(vectors), (count,), generator=generator, device=vectors.device)]
