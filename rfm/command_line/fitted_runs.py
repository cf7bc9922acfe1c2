"""Runs: a flow and its data, fitted into a folder or read from it, and reported."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from manifolds import Manifold
from rfm.command_line.arguments import run_or_model
from rfm.command_line.backbones import holds_backbones
from rfm.command_line.messages import is_first_process
from rfm.command_line.named_objects import imported_manifold, source_by_name
from rfm.command_line.run_folder import RunData, describe_run
from rfm.conditions import Conditions
from rfm.couplings import Coupling, Independent
from rfm.flow import Flow
from rfm.flow.saved_flow import saved_manifold
from rfm.models.packaged import unpacked
from rfm.objectives import MaximumLikelihood
from rfm.records.descriptions import read_json
from rfm.sources import Source
from rfm.training import LargeTrainingSet, Training, fit

_REFINED = "likelihood"
"""The folder, in that of a run, where training by maximum likelihood keeps its checkpoint and its flow."""


def train_run(
    manifold: Manifold,
    data: RunData,
    arguments: argparse.Namespace,
    conditions: Conditions | None = None,
    source: Source | Callable[[Manifold, Tensor], Source] | None = None,
    coupling: Coupling = Independent(),
    likelihood_steps: int | None = None,
    rows: LargeTrainingSet | None = None,
) -> Flow:
    """Fit a flow as the arguments say, into their folder; with steps of maximum likelihood afterwards, if any.

    With ``rows`` the run's data are a sample of them.
    """
    folder = Path(arguments.out)
    index = torch.cat([data.split.train, data.split.validation])
    held = torch.arange(len(data.split.train), len(index))
    refuse_existing(folder, arguments)
    if likelihood_steps is not None and data.start is not None:
        raise ValueError(
            "--likelihood-steps trains a density, and a flow from given start points has none; leave out one of the two"
        )
    if likelihood_steps is not None and not len(held):
        raise ValueError("--likelihood-steps goes by validation points, and --validation 0 leaves none; leave out one")
    if is_first_process() and not arguments.resume:
        data.save_stream(folder)
    # First, so that a run killed while training can be resumed from the folder alone.
    settings: dict[str, Any] = {
        "condition": data.conditions_at(index).get("condition"),
        "conditions": conditions,
        "weights": data.weights_at(index),
        "validation": held if len(held) else 0.0,
        "groups": data.blocks_at(index),
        "batch_size": arguments.batch_size,
        "seed": arguments.seed,
        "device": arguments.device,
        "resume": arguments.resume,
        "more_steps": arguments.more_steps,
        "progress": not arguments.quiet,
        "rows": rows,
    }
    flow = fit(
        data.points[index],
        manifold,
        source=source,
        coupling=coupling,
        refine=arguments.refine,
        steps=arguments.steps,
        out=folder,
        training=replace(_training(arguments, arguments.max_seconds), floor=arguments.floor),
        **_start_arguments(data, index),
        **settings,
    )
    if is_first_process():
        data.save(folder)
    left = _seconds_left(flow, arguments.max_seconds)
    if likelihood_steps is not None and (left is None or left > 0):
        flow = _by_likelihood(flow, data.points[index], arguments, likelihood_steps, left, settings)
        if is_first_process():
            # The record of flow matching stays, from which the same command with --resume finds its way here again.
            flow.save(folder)
    return flow


def _by_likelihood(
    flow: Flow,
    points: Tensor,
    arguments: argparse.Namespace,
    steps: int,
    max_seconds: float | None,
    settings: dict[str, Any],
) -> Flow:
    """Go on from a flow by maximum likelihood, in a folder within its own."""
    assert isinstance(flow.field, nn.Module)
    return fit(
        points,
        flow.manifold,
        source=flow.source,
        field=flow.field,
        objective=MaximumLikelihood(),
        refine=arguments.refine,
        steps=steps,
        out=Path(arguments.out) / _REFINED,
        training=_training(arguments, max_seconds),
        **{**settings, "more_steps": None},
    )


def _training(arguments: argparse.Namespace, max_seconds: float | None) -> Training:
    return Training(max_seconds=max_seconds, force=arguments.force, validations=arguments.validations)


def _seconds_left(flow: Flow, cap: float | None) -> float | None:
    """Return how much of a cap on the time a flow's training has left; None where there is no cap."""
    return None if cap is None else cap - float(flow.history[-1].get("seconds", 0.0))


def _start_arguments(data: RunData, index: Tensor) -> dict[str, Any]:
    """Return the arguments of `rfm.fit` that say where the flow starts, given the rows to fit."""
    start = data.start
    if start is None:
        return {}
    if start.paired:
        return {"start": start.points[index], "pairs": True}
    weights = None if start.weights is None else start.weights[start.kept]
    return {"start": start.points[start.kept], "start_weights": weights}


def refuse_existing(folder: Path, arguments: argparse.Namespace) -> None:
    """Raise with a remedy in terms of the command line, before the library raises in its own terms."""
    if arguments.resume or arguments.force:
        return
    if any((folder / name).exists() for name in ("flow.json", "checkpoint.json", "folds")):
        what = "a flow" if (folder / "flow.json").exists() else "an unfinished run"
        raise FileExistsError(f"{folder} already holds {what}; use --resume, --force, or another --out")


def steps_done(folder: Path) -> int | None:
    """Return the step at which the run in a folder is to be resumed; None where nothing is to go on from."""
    if (folder / "checkpoint.json").exists():
        return int(read_json(folder / "checkpoint.json").get("step", 0))
    history = read_json(folder / "flow.json").get("history") if (folder / "flow.json").exists() else None
    return int(history[-1]["step"]) if history else None


def load_run(arguments: argparse.Namespace) -> tuple[Flow, RunData]:
    """Return the flow and the data of a run folder, or of a packaged model, whose folder is the run from here on."""
    folder = Path(run_or_model(arguments))
    arguments.run = str(folder)
    if not arguments.manifold and holds_backbones(folder):
        raise ValueError(
            f"{folder} holds a flow of protein backbones, which rfm {arguments.command} does not know; "
            "rfm sample draws from it, python -m experiments.proteins report assesses it"
        )
    manifold = imported_manifold(arguments.manifold) if arguments.manifold else None
    if not arguments.source:
        return unpacked(Flow.load(folder, manifold=manifold)), RunData.load(folder)
    source = source_by_name(arguments.source)
    manifold = saved_manifold(folder) if manifold is None else manifold
    data = RunData.load(folder)
    if not isinstance(source, Source):
        source = source(manifold, manifold.projx(data.points[data.split.train]))
    return Flow.load(folder, manifold=manifold, source=source), data


def fitted_record(flow: Flow, data: RunData, folder: Path) -> dict[str, Any]:
    """Return the report of a fit, for JSON."""
    last = flow.history[-1] if flow.history else {}
    nll, loss = (
        min((record[name] for record in flow.history if name in record), default=None)
        for name in ("validation_nll", "validation_loss")
    )
    crossed = not len(data.split.validation)
    if flow.refinement is not None:
        nll = flow.refinement.validation_nll.get("refined", nll)
    return {
        "run": str(folder),
        **describe_run(data),
        **({} if flow.conditions is None else {"conditions": flow.conditions.to_dict()["columns"]}),
        "steps": last.get("step"),
        "seconds": last.get("seconds"),
        "refinement_seconds": last.get("refinement_seconds", 0.0),
        "validation_nll_nats": nll,
        **({} if loss is None else {"validation_loss": loss}),
        **{name: last[name] for name in ("loss_floor", "loss_above_floor") if name in last},
        **({"validated_on": "points held out by five other fits"} if crossed else {}),
        "stopped": flow.stopped,
        "refinement": {} if flow.refinement is None else flow.refinement.summary(),
        "refinement_report": flow.refinement_report,
    }


def fitted_text(flow: Flow, data: RunData, folder: Path) -> str:
    """Return the report of a fit, in lines."""
    record = fitted_record(flow, data, folder)
    best = record["validation_nll_nats"]
    validation = f"validation NLL {'not known' if best is None else f'{best:.3f} nats'}"
    if "validation_loss" in record:
        validation = f"validation loss {record['validation_loss']:.4g}, by pairs, as start points have no density"
    validation += f" on {record['validated_on']}" if "validated_on" in record else ""
    refined = f" and {record['refinement_seconds']:.0f} s of refinement" if record["refinement_seconds"] >= 0.5 else ""
    if "loss_floor" in record:
        validation += f"; loss {record['loss_above_floor']:.4g} above its floor of {record['loss_floor']:.4g}"
    return (
        f"fitted {record['train']} points in {record['seconds'] or 0:.0f} s{refined}; {validation}; "
        f"{flow.stopped}\n{flow.refinement_report + chr(10) if flow.refinement_report else ''}"
        f"points from {data.coordinates.describe()}\n"
        f"{'' if flow.conditions is None else f'conditional on {flow.conditions.describe()}' + chr(10)}run: {folder}"
    )
