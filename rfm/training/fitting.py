"""`fit`: from points on a manifold to a trained flow, with defaults chosen from the data."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from manifolds import Manifold
from manifolds.arguments import seed_of, shown
from manifolds.precision import at_least_float32
from rfm.conditions import Conditions
from rfm.couplings import Coupling
from rfm.field import as_field
from rfm.flow import Flow
from rfm.flow.progress import training_bar
from rfm.networks import VelocityField
from rfm.objectives import Objective
from rfm.paths import ConditionalPath, GeodesicPath
from rfm.paths.times import TimeSampler, UniformAndLateTimes
from rfm.records.descriptions import SavedFlowError, read_json, write_json
from rfm.records.fingerprint import architecture, fingerprint
from rfm.sources import Source, default_source
from rfm.training.arguments import (
    above_zero,
    check_data,
    check_digits,
    check_field,
    check_metric,
    check_objective,
    check_objects,
    check_path,
    check_precision,
    check_shares,
    check_source,
    hold_out,
    made_source,
    named,
    whole_above_zero,
)
from rfm.training.checkpoint import Checkpoint
from rfm.training.loop import Budget
from rfm.training.points import Points, train

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_BATCH_SIZE = 512
_LEARNING_RATE = 3e-3
_RECORD = "fit.json"
"""The file in a run folder that says which data and settings its flow belongs to."""


def fit(
    points: Tensor | np.ndarray[Any, Any],
    manifold: Manifold,
    *,
    condition: Tensor | np.ndarray[Any, Any] | Mapping[str, Any] | None = None,
    conditions: Conditions | None = None,
    weights: Tensor | np.ndarray[Any, Any] | None = None,
    validation: float | Tensor | np.ndarray[Any, Any] | Sequence[int] = 0.1,
    source: Source | Callable[[Manifold, Tensor], Source] | None = None,
    field: nn.Module | None = None,
    coupling: Coupling | None = None,
    path: ConditionalPath | None = None,
    times: TimeSampler | None = None,
    objective: Objective | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    max_seconds: float | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    fabric: "Fabric | None" = None,
    capture: bool = True,
    out: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    progress: bool = True,
) -> Flow:
    """Fit a flow to points on a manifold, by Riemannian flow matching.

    Under ``torchrun`` the processes share the work and get the same flow; not with an ``objective``.

    Args:
        points: data ``(n, *event_shape)``, at most 1e-3 off the manifold; they are projected to it.
        manifold: where they live.
        condition: what the density is conditional on: vectors ``(n, c)`` or numbers ``(n,)``, NaN where not known; or
            columns by name, of numbers or of texts that are labels, None where not known.
        conditions: what the entries of ``condition`` mean; found from its columns by default.
        weights: weights of the points ``(n,)``, for example inverse sampling probabilities; equal by default.
        validation: share of the points held out to decide when to stop and which weights to keep, equal points
            together; or the indices of those points.
        source: distribution at time 0, or what makes one from the manifold and the training points, such as
            ``KernelMixture.fit``; it gets ``weights`` too if it has an argument ``sample_weights``. By default that of
            the path, if it presumes one, else see `rfm.sources.default_source`.
        field: a velocity network ``field(x, t, **condition)``; a `rfm.networks.VelocityField` by default, whose finest
            scale is that of the distances between neighbouring points. It is trained in place: a second fit of the same
            object changes the first flow.
        coupling: pairing of source and data points in each batch; independent by default.
        path: the conditional path to train on, on the same manifold and from ``source`` if it presumes one; the
            geodesic at constant speed by default. The flow's density belongs to the path's start, so it is as wrong as
            that is far from the source; see `ConditionalPath.starts_at_source`.
        times: how to draw training times, whose density weights the errors; by default
            `rfm.paths.times.UniformAndLateTimes`, half of them uniform and half crowded at the data.
        objective: what each step minimises instead of flow matching, for example
            `rfm.MaximumLikelihood`; without a ``path``. One of your own is given ``times`` and
            sources paired by ``coupling``, maximum likelihood has no use for them.
        steps: optimiser steps; by default as many as there are points, between 2,000 and 8,000.
        batch_size: pairs per step, 512 by default.
        learning_rate: peak learning rate of AdamW, 3e-3 by default.
        max_seconds: a cap on the training time, all of it where a run is resumed; ``Flow.stopped`` says whether it was
            reached. A run with a cap does not repeat exactly.
        seed: of every random draw; the same seed on the same device gives the same flow.
        device: "cpu", "cuda", ...; the first GPU where there is one.
        fabric: a Lightning Fabric of your own, for precision or other strategies, instead of ``device``. "bf16-mixed",
            and "16-mixed" on a GPU, run the network's layers low, "bf16-true" keeps its weights low too, "64-true"
            makes all float64; geometry, points and times are never in less than float32.
        capture: on one GPU, replay the step as one CUDA graph, several times as fast where kernels are small; an
            ``objective``, or a step that waits for the CPU, as for an exact coupling, is run plainly. False for a field
            whose Python code does not do the same at every step.
        out: folder for checkpoints and the saved flow.
        resume: go on from the checkpoint in ``out``, to the same result as an uninterrupted run; a finished run, also
            one that ended early, is loaded. One that a cap stopped goes on with what is left of the new cap.
        force: replace a flow that ``out`` holds already.
        progress: show a progress bar on stderr.

    Returns:
        The flow, on the CPU, with ``history``.

    Raises:
        ValueError: for points, weights or conditions that cannot be used, naming what, where and the remedy; or if the
            step cannot be captured.
        FileExistsError: if ``out`` holds a flow and neither ``resume`` nor ``force`` is given.
    """
    check_objects(manifold, coupling, path, times, objective, conditions)
    if objective is not None:
        check_objective(objective, path, times, coupling)
    precision = check_precision(fabric)
    condition, conditions = named(condition, conditions)
    data = check_data(points, manifold, condition, weights)
    seed = seed_of("fit", seed)
    train_index, validation_index = hold_out(data.x, validation, seed)
    training_data = data.take(train_index)
    check_shares(data, train_index, validation_index)
    check_metric(manifold, training_data.x)
    given_path, path = path, GeodesicPath(manifold) if path is None else path
    times = UniformAndLateTimes() if times is None else times
    if source is None:
        source = path.source or default_source(manifold, training_data.x)
    elif not isinstance(source, Source):
        # From the training points alone: a source that knew those of validation would look better than it is.
        source = made_source(source, manifold, training_data)
    check_source(source, manifold)
    if given_path is not None:
        check_path(given_path, manifold, source, training_data.x)
    if field is not None and not (isinstance(field, nn.Module) and any(p.requires_grad for p in field.parameters())):
        raise ValueError(
            f"fit: field must be a torch.nn.Module with parameters to train, got {shown(field)}; "
            "put a field that is known into rfm.Flow instead"
        )
    if field is None:
        with _seeded(seed):
            labels = None if conditions is None else conditions.labels
            field = default_field(manifold, training_data.x, training_data.condition, labels)
    if fabric is not None:
        field = fabric.strategy.precision.convert_module(field)
    flow = Flow(manifold, field, source, conditions=conditions)
    dtype = at_least_float32(next((p.dtype for p in field.parameters()), torch.float32))
    data = Points(manifold.projx(data.x).to(dtype), data.condition, data.weights)
    if data.condition is not None:
        check_digits(data.condition, dtype, conditions)
        data = Points(data.x, data.condition.to(dtype), data.weights)
    few = torch.linspace(0, len(train_index) - 1, 8).long()
    tried = data.take(train_index[few])
    told = {} if tried.condition is None else {"condition": tried.condition}
    check_field("fit", field, manifold, tried.x, torch.linspace(0.1, 0.9, 8, dtype=dtype), told)
    budget = Budget(
        steps=whole_above_zero("steps", steps, min(max(len(train_index), 2000), 8000)),
        batch_size=whole_above_zero("batch_size", batch_size, _BATCH_SIZE),
        learning_rate=above_zero("learning_rate", _LEARNING_RATE if learning_rate is None else learning_rate),
        seed=seed,
        max_seconds=None if max_seconds is None else above_zero("max_seconds", max_seconds),
    )
    folder = None if out is None else Path(out)
    checkpoint, run = None, ""
    if folder is not None:
        settings = [
            budget.steps,
            budget.batch_size,
            budget.learning_rate,
            budget.seed,
            path,
            times,
            coupling,
            objective,
        ]
        settings += [] if precision == "32-true" else [precision]
        run = fingerprint(manifold, architecture(field), source, conditions, settings, data, validation_index)
        if resume and (folder / "flow.json").exists() and not (folder / "checkpoint.json").exists():
            check_same_run(folder, run, budget)
            return Flow.load(folder, manifold=manifold, field=field, source=source)
        checkpoint = open_run(folder, run, resume, force)
    with launched(fabric, device) as running, training_bar(progress and running.is_global_zero) as report:
        if budget.batch_size % running.world_size:
            raise ValueError(
                f"fit: a batch of {budget.batch_size} does not divide among {running.world_size} processes; "
                "choose a multiple"
            )
        if objective is not None and running.world_size > 1:
            raise ValueError(
                f"fit: objective runs in one process, there are {running.world_size}; start it without torchrun, or "
                "leave objective out"
            )
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        state = train(
            flow,
            data.take(train_index),
            data.take(validation_index),
            budget,
            running,
            objective=objective,
            coupling=coupling,
            path=path,
            times=times,
            # A field of another kind need not know that NaN means not known.
            drop_condition=as_field(field).reads_unknown and data.condition is not None,
            capture=capture,
            folder=folder,
            checkpoint=checkpoint,
            fingerprint=run,
            report=report,
        )
        flow.cpu()
        if folder is not None and running.is_global_zero:
            save_run(flow, folder, run, budget, state)
        running.barrier()
    return flow


def default_field(
    manifold: Manifold, points: Tensor, condition: Tensor | None = None, condition_labels: Sequence[int] | None = None
) -> VelocityField:
    """Return the velocity network that `fit` trains unless given another, with scales taken from the points.

    Args:
        manifold: where the points live.
        points: data ``(n, *event_shape)``.
        condition: condition vectors ``(n, c)``.
        condition_labels: how many labels each of their entries has, 0 for numbers; numbers alone by default.
    """
    embedded = manifold.embed(points.double())
    # A compact manifold has an origin and a scale of its own; elsewhere they are those of the data.
    if manifold.volume is None:
        mean = embedded.mean(0)
        offset, scale = mean.tolist(), float((embedded - mean).square().mean().sqrt()) or 1.0
    else:
        offset, scale = None, float(embedded.abs().max()) or 1.0
    known: dict[str, Any] = {}
    if condition is not None:
        mean = condition.double().nanmean(0).nan_to_num(0.0)
        unit = (condition.double() - mean).square().nanmean(0).sqrt().nan_to_num(0.0)
        known = {
            "condition_dim": condition.shape[-1],
            "condition_offset": mean.tolist(),
            "condition_scale": torch.where(unit > 0, unit, 1.0).tolist(),
            "condition_labels": condition_labels,
        }
    return VelocityField(
        manifold, max_frequency=_finest_frequency(embedded / scale), offset=offset, scale=scale, **known
    )


def _finest_frequency(embedded: Tensor) -> float:
    """Return the inverse of half the median distance between neighbours, between 4 and 128.

    Above 128, at a scale of half a degree on a sphere, noise between neighbours is all there is to learn.
    """
    from scipy.spatial import cKDTree

    rows = torch.unique(embedded, dim=0).numpy()
    if len(rows) < 2:
        return 4.0
    some = rows[:: max(1, len(rows) // 2000)]
    distance = float(np.median(np.asarray(cKDTree(rows).query(some, k=2)[0])[:, 1]))
    return min(max(2.0 / distance, 4.0), 128.0)


def save_run(flow: Flow, folder: Path, run: str, budget: Budget, state: Checkpoint) -> None:
    """Save a flow at the end of its run, with what identifies the run, in place of the checkpoint.

    The checkpoint of a run that a cap stopped is kept, for the run to go on from.
    """
    # A kill in between leaves the checkpoint, from which the same call with resume ends the run again.
    write_json(folder / _RECORD, {"fingerprint": run, "settings": asdict(budget)})
    flow.save(folder)
    if not state.capped:
        Checkpoint.remove(folder)


def check_same_run(folder: Path, run: str, budget: Budget) -> None:
    """Raise SavedFlowError unless a folder holds the flow of the run with this fingerprint."""
    record = read_json(folder / _RECORD) if (folder / _RECORD).exists() else {}
    if record.get("fingerprint") == run:
        return
    before, now = record.get("settings", {}), asdict(budget)
    changed = [name for name in before if name in now and name != "max_seconds" and before[name] != now[name]]
    told = ", ".join(f"{name} was {before[name]}, is {now[name]}" for name in changed)
    raise SavedFlowError(
        f"{folder} holds a flow that was fitted to other data or with other settings{f' ({told})' if told else ''}; "
        "resume with the same ones, force its replacement, or choose another folder"
    )


def open_run(folder: Path, run: str, resume: bool, force: bool) -> Checkpoint | None:
    """Refuse a folder that must not be written to, and return the checkpoint to go on from."""
    if any(path.exists() and not path.is_dir() for path in (folder, *folder.parents)):
        raise FileExistsError(f"{folder} is a file, or below one; choose another folder for the flow")
    if not (resume or force):
        for name, what in (("flow.json", "a flow"), ("checkpoint.json", "an unfinished run")):
            if (folder / name).exists():
                raise FileExistsError(
                    f"{folder} already holds {what}; resume it, force its replacement, or choose another folder"
                )
    return Checkpoint.load(folder, run) if resume else None


@contextmanager
def launched(fabric: "Fabric | None", device: torch.device | str | None) -> Iterator["Fabric"]:
    """Yield a launched Fabric; end the process group if it was begun here."""
    import torch.distributed as dist

    begun = dist.is_initialized()
    if fabric is None:
        fabric = _make_fabric(device)
        fabric.launch()
    try:
        yield fabric
    finally:
        # Left to the interpreter's exit, gloo's threads may outlive what they use.
        if dist.is_initialized() and not begun:
            dist.destroy_process_group()


def _make_fabric(device: torch.device | str | None) -> "Fabric":
    from lightning_fabric import Fabric

    # Its import asks for more.
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    distributed = int(os.environ.get("WORLD_SIZE", "1")) > 1
    try:
        kind = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        return Fabric(
            accelerator="cpu" if kind.type == "cpu" else "gpu" if kind.type == "cuda" else kind.type,
            devices=processes if distributed or kind.index is None else [kind.index],
            num_nodes=int(os.environ.get("GROUP_WORLD_SIZE", "1")),
            strategy="ddp" if distributed else "auto",
        )
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"fit: device {device!r} cannot be used here ({reason}); choose another, such as cpu"
        ) from None


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the initialisers of modules, which know global randomness only, and put it back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
