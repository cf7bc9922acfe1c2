"""`fit_stream`: train a flow on data that are made as they are needed, such as rendered pictures."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from manifolds.arguments import check_function, check_instance, seed_of
from manifolds.precision import at_least_float32
from rfm.fingerprint import architecture, fingerprint
from rfm.fit_arguments import above_zero, check_field, check_precision, whole_above_zero
from rfm.fitting import check_same_run, launched, open_run, save_run
from rfm.flow import Flow
from rfm.losses import flow_matching_loss
from rfm.optimisation import Budget, optimise
from rfm.paths import GeodesicPath
from rfm.precision import weight_of
from rfm.progress import training_bar
from rfm.training import adopt

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Draw = Callable[[torch.Generator], tuple[Tensor, Tensor, Tensor, dict[str, Any]]]
"""From a generator to source points, targets, times, and the arguments that the field is called with besides."""


def fit_stream(
    draw: Draw,
    flow: Flow,
    *,
    validate: Callable[[nn.Module], float],
    steps: int,
    learning_rate: float = 3e-3,
    max_seconds: float | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    fabric: "Fabric | None" = None,
    capture: bool = False,
    out: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    progress: bool = True,
) -> Flow:
    """Train a flow on batches made step by step, in one process; otherwise as `rfm.fit` does.

    The batch may have any shape that broadcasts: ``n`` pictures with ``m`` source points and times each are pairs
    ``(n, m)``, with targets ``(n, 1)`` and conditions ``(n, 1, c)``.

    Args:
        draw: makes the batch of a step with a generator, on whose device it is to be, and no other randomness: source
            points, targets, times, and what the field is called with besides, such as ``{"condition": pictures}``.
        flow: manifold, field and source; the field is trained in place.
        validate: returns the negative log-likelihood, in nats, of data held out, given the field with averaged weights.
            It decides when to stop and which weights to keep.
        steps: optimiser steps.
        learning_rate: peak learning rate of AdamW.
        max_seconds: a cap on the training time, all of it where a run is resumed; ``Flow.stopped`` says whether it was
            reached. A run with a cap does not repeat exactly.
        seed: of every batch. The field's first weights are the caller's.
        device: "cpu", "cuda", ...; the first GPU where there is one.
        fabric: a Lightning Fabric of your own, for precision, instead of ``device``; see `rfm.fit`.
        capture: on a GPU, replay the step as one graph, several times as fast where kernels are small; for a ``draw``
            that makes everything on the GPU, where Python code is not run again.
        out: folder for checkpoints and the saved flow.
        resume: go on from the checkpoint in ``out``, to the same result as an uninterrupted run; a finished run, also
            one that ended early, is loaded. One that a cap stopped goes on with what is left of the new cap.
        force: replace a flow that ``out`` holds already.
        progress: show a progress bar on stderr.

    Returns:
        The flow, on the CPU, with ``history``.

    Raises:
        ValueError: for settings that cannot be used, or if the step cannot be captured.
        FileExistsError: if ``out`` holds a flow and neither ``resume`` nor ``force`` is given.
    """
    check_instance("fit_stream", "flow", flow, Flow, "Flow(manifold, field)")
    check_function("fit_stream", "draw", draw, "a function of a generator")
    field = flow.field
    if not isinstance(field, nn.Module):
        raise ValueError(f"fit_stream: the flow's field must be a torch.nn.Module, got {type(field).__name__}")
    precision = check_precision(fabric)
    if fabric is not None:
        field = flow.field = fabric.strategy.precision.convert_module(field)
    weight = weight_of(field)
    dtype = at_least_float32(torch.float32 if weight is None else weight.dtype)
    budget = Budget(
        steps=whole_above_zero("steps", steps, steps),
        batch_size=0,
        learning_rate=above_zero("learning_rate", learning_rate),
        seed=seed_of("fit_stream", seed),
        max_seconds=None if max_seconds is None else above_zero("max_seconds", max_seconds),
    )
    folder = None if out is None else Path(out)
    checkpoint, run = None, ""
    if folder is not None:
        # A run may be resumed with another cap.
        settings = asdict(replace(budget, max_seconds=None))
        kept = [] if precision == "32-true" else [precision]
        run = fingerprint(flow.manifold, architecture(field), flow.source, settings, draw, *kept)
        if resume and (folder / "flow.json").exists() and not (folder / "checkpoint.json").exists():
            check_same_run(folder, run, budget)
            return Flow.load(folder, manifold=flow.manifold, field=field, source=flow.source)
        checkpoint = open_run(folder, run, resume, force)
        folder.mkdir(parents=True, exist_ok=True)
    with launched(fabric, device) as fabric, training_bar(progress) as report:
        if fabric.world_size > 1:
            raise ValueError("fit_stream: runs in one process; start it without torchrun")
        flow.source.to(fabric.device)
        first = 0 if checkpoint is None else checkpoint.step
        path, generator = GeodesicPath(flow.manifold), torch.Generator(fabric.device)

        def loss(model: nn.Module, step: int, rank: int, world: int) -> Tensor:
            x_0, x_1, t, given = draw(generator)
            # Points that were drawn in less are off the manifold by rounding.
            x_0, x_1 = (a if a.dtype == dtype else flow.manifold.projx(a.to(dtype)) for a in (x_0, x_1))
            t = t.to(dtype)
            given = {k: v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in given.items()}
            if step == first:
                sample = path.sample(x_0, x_1, t)
                check_field("fit_stream", field, flow.manifold, sample.x_t, sample.t, given)
            return flow_matching_loss(model, path, x_0, x_1, t, **given)

        state = optimise(
            field,
            loss,
            validate,
            budget,
            fabric,
            generator=generator,
            capture=capture,
            folder=folder,
            checkpoint=checkpoint,
            fingerprint=run,
            report=report,
        )
        adopt(flow, state)
        flow.cpu()
        if folder is not None:
            save_run(flow, folder, run, budget, state)
    return flow
