"""`fit_stream`: train a flow on data that are made as they are needed, such as rendered pictures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from manifolds.arguments import check_function, check_instance, seed_of
from manifolds.numerics.precision import at_least_float32
from rfm.flow import Flow
from rfm.flow.progress import Report
from rfm.networks.precision import weight_of
from rfm.objectives import Objective
from rfm.objectives.objective import Loss as ObjectiveLoss
from rfm.paths import default_path
from rfm.records.fingerprint import architecture
from rfm.training.arguments import check_field, check_splits, checked_objective, positive_integer
from rfm.training.loop import Loss
from rfm.training.run import Run
from rfm.training.settings import Training

Draw = Callable[[torch.Generator], tuple[Tensor, Tensor, Tensor, dict[str, Any]]]
"""From a generator to source points, targets, times, and the arguments that the field is called with besides."""


def fit_stream(
    draw: Draw,
    flow: Flow,
    *,
    validate: Callable[[nn.Module], float],
    steps: int,
    objective: Objective | ObjectiveLoss | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool | Report = True,
    training: Training | None = None,
) -> Flow:
    """Train a flow on batches made step by step; otherwise as `rfm.fit` does.

    The batch may have any shape that broadcasts: ``n`` pictures with ``m`` source points and times each are pairs
    ``(n, m)``, with targets ``(n, 1)`` and conditions ``(n, 1, c)``. Under ``torchrun`` each process makes the batch
    and takes every so many-th part of it along its first axis, of the conditions too unless they are `rfm.Shared`; all
    get the same flow.

    Args:
        draw: makes the batch of a step with a generator, on whose device it is to be, and no other randomness: source
            points, targets, times, and what the field is called with besides, such as ``{"condition": pictures}``.
        flow: manifold, field and source; the field is trained in place.
        validate: returns the negative log-likelihood, in nats, of data held out, given the field with averaged weights.
            It decides when to stop and which weights to keep.
        steps: optimiser steps.
        objective: what each step minimises, as for `rfm.fit`: flow matching along geodesics by default,
            ``rfm.FlowMatching(path)`` along another path. Times are those that ``draw`` makes.
        seed: of every batch. The field's first weights are the caller's.
        device: "cpu", "cuda", ...; the first GPU where there is one.
        out: folder for checkpoints and the saved flow.
        resume: go on from the checkpoint in ``out``, to the same result as an uninterrupted run; a finished run, also
            one that ended early, is loaded. One that a cap stopped goes on with what is left of the new cap.
        progress: show a progress bar on stderr, or a function, as in `rfm.fit`.
        training: learning rate, cap on the time, Fabric, whether to replace a flow, and to capture the step: only where
            it says so, for a ``draw`` that makes everything on the GPU.

    Returns:
        The flow, on the CPU, with ``history``.

    Raises:
        ValueError: for settings that cannot be used, or if the step cannot be captured.
        FileExistsError: if ``out`` holds a flow and neither ``resume`` nor ``Training.force`` is given.
    """
    check_instance("fit_stream", "flow", flow, Flow, "Flow(manifold, field)")
    check_function("fit_stream", "draw", draw, "a function of a generator")
    field = flow.field
    if not isinstance(field, nn.Module):
        raise ValueError(f"fit_stream: the flow's field must be a torch.nn.Module, got {type(field).__name__}")
    training = Training() if training is None else training
    chosen = checked_objective(objective, owner="fit_stream")
    chosen.check_source(flow.manifold, flow.source)
    chosen = chosen.on(flow.manifold)
    field = flow.field = training.converted(chosen.velocity_of(field))
    budget = training.budget(
        positive_integer("steps", steps, steps), 0, seed_of("fit_stream", seed), chosen.learning_rate
    )
    identity = [flow.manifold, architecture(field), flow.source, draw, chosen]
    run = Run(budget, identity, training=training, out=out, resume=resume, device=device, progress=progress)
    if run.is_finished:
        return run.load(flow)
    with run.launched() as fabric:
        check_splits(chosen, fabric.world_size)
        generator = torch.Generator(fabric.device)
        loss = _loss(draw, flow, chosen.to(fabric.device), generator, run.first_step)
        # The same in all processes, lest one stops and the others wait for it.
        found = lambda model: fabric.broadcast(validate(model))  # noqa: E731
        run.train(flow, loss, found, generator=generator, capture=bool(training.capture))
    return flow


def _loss(draw: Draw, flow: Flow, objective: Objective, generator: torch.Generator, first: int) -> Loss:
    """Return the loss of a step, which also checks the field on the batch of the first one."""
    field = flow.field
    assert isinstance(field, nn.Module)
    weight = weight_of(field)
    dtype = at_least_float32(torch.float32 if weight is None else weight.dtype)
    # Where the field is checked: on any path from source to data.
    path = default_path(flow.manifold)

    def loss(model: nn.Module, step: int, rank: int, world: int) -> Tensor:
        x_0, x_1, t, given = draw(generator)
        # Points that were drawn in less are off the manifold by rounding.
        x_0, x_1 = (a if a.dtype == dtype else flow.manifold.projx(a.to(dtype)) for a in (x_0, x_1))
        t = t.to(dtype)
        given = {k: v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in given.items()}
        if step == first:
            sample = path.sample(x_0, x_1, t)
            check_field("fit_stream", field, flow.manifold, sample.x_t, sample.t, given)
        if world > 1:
            own = {"source points": x_0, "targets": x_1, "times": t, **given}
            x_0, x_1, t, *others = _shares(own, len(flow.manifold.event_shape), rank, world)
            given = dict(zip(given, others, strict=True))
        return objective(model, flow.source, x_0, x_1, t, generator=generator, **given)

    return loss


def _shares(values: dict[str, Any], event_ndim: int, rank: int, world: int) -> list[Any]:
    """Return every ``world``-th part of tensors along the first axis of their batch, from ``rank`` on.

    Args:
        values: source points, targets and times, and what the field is called with besides.
        event_ndim: how many axes a point has.
        rank: number of this process.
        world: of how many.
    """
    ranks = [event_ndim, event_ndim, 0]
    shapes = [value.shape[: value.ndim - ndim] for value, ndim in zip(values.values(), ranks, strict=False)]
    batch = torch.broadcast_shapes(*shapes)
    # Whatever has fewer axes than the batch is the same along the first one.
    least = [len(batch) + ndim for ndim in ranks] + [len(batch)] * (len(values) - 3)
    found = []
    for (name, value), ndim in zip(values.items(), least, strict=True):
        if not isinstance(value, Tensor) or value.ndim < ndim or (value.shape[0] == 1 < batch[0]):
            found.append(value)
            continue
        if value.shape[0] != batch[0] or batch[0] % world:
            raise ValueError(
                f"fit_stream: {name} has {value.shape[0]} parts along its first axis, in a batch {tuple(batch)} that "
                f"{world} processes share; make the axis a multiple of them, and mark what has no parts, rfm.Shared"
            )
        found.append(value[rank::world])
    return found
