"""What each command does, on the library's public functions."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from manifolds import Manifold, Sphere
from rfm import datasets
from rfm.command_line import backbones as backbone_commands
from rfm.command_line.evaluation import evaluate as evaluate_flow
from rfm.command_line.named_objects import imported_manifold, named_coupling, named_source
from rfm.command_line.run_folder import RunData, describe_run, is_run_folder
from rfm.command_line.table_runs import (
    check_required,
    checked_output,
    condition_file,
    given_condition,
    known_columns,
    nearest,
    output_writer,
    parts,
    read_input,
    read_run,
    warn,
)
from rfm.conditions import Conditions
from rfm.couplings import Coupling
from rfm.datasets.splits import group_split
from rfm.flow import Flow
from rfm.flow.progress import counting_bar
from rfm.flow.saved_flow import saved_manifold
from rfm.records.descriptions import read_json
from rfm.sources import Source
from rfm.training.fitting import fit as fit_flow

_DRAWN = 1000
_DEMO_MARK = ".demo"


def fit(arguments: argparse.Namespace) -> None:
    """``rfm fit``: a table in, a run folder out."""
    manifold, data, conditions, unused = read_run(arguments)
    source = None if arguments.source is None else named_source(arguments.source)
    folder = Path(arguments.out)
    before = _steps_done(folder) if arguments.resume else None
    flow = _fit(manifold, data, arguments, conditions, source, named_coupling(arguments.coupling, manifold))
    record = _fitted(flow, data, folder) | {"unused_columns": unused, "resumed_at_step": before}
    text = _resumed_text(flow, before) + _fitted_text(flow, data, folder)
    _report(arguments, record, "\n".join([text, *_hints(data, folder, unused)]))


def sample(arguments: argparse.Namespace) -> None:
    """``rfm sample``: points in the columns and units of the input; or backbones."""
    if not arguments.manifold and backbone_commands.holds_backbones(Path(arguments.run)):
        backbone_commands.sample(arguments)
        return
    backbone_commands.check_others(arguments)
    flow, data = _load(arguments)
    out = checked_output(arguments)
    condition = given_condition(flow, arguments)
    if arguments.condition_file is not None:
        condition = condition_file(flow, arguments)
    check_required(flow, condition, arguments)
    if arguments.guidance != 1 and condition is None:
        raise ValueError("--guidance needs something to guide towards; give --condition or --condition-file")
    total = _DRAWN if arguments.n is None else arguments.n
    if condition is not None and condition.ndim == 2:
        total = len(condition)
    generator = torch.Generator(flow._dtype_and_device()[1]).manual_seed(arguments.seed)
    show = _shows_progress(arguments, total)
    known = known_columns(flow, condition)
    # The formats of tracks have no column for a score.
    layout = datasets.CSV if arguments.log_prob else data.coordinates.file_layout
    with output_writer(arguments, out, layout) as write, counting_bar(show, "sample", total) as advance:
        for rows in parts(total):
            drawn = flow.sample(
                len(rows),
                condition=condition if condition is None or condition.ndim == 1 else condition[rows.start : rows.stop],
                guidance=arguments.guidance,
                generator=generator,
                return_log_prob=arguments.log_prob,
                batch_size=arguments.batch_size,
                progress=advance,
            )
            points, scores = drawn if arguments.log_prob else (drawn, None)
            given = {
                name: cells[rows.start : rows.stop] if len(cells) == total else cells * len(rows)
                for name, cells in known.items()
            }
            complete = {name: given[name] for name in known if None not in known[name]}
            columns = dict(data.coordinates.leading(len(rows), complete, rows.start))
            columns |= dict(zip(data.coordinates.names, data.coordinates.columns_of(points).T, strict=True))
            write(columns if scores is None else columns | data.coordinates.score_columns(scores), given)


def log_prob(arguments: argparse.Namespace) -> None:
    """``rfm log-prob``: the density at the points of a table."""
    flow, data = _load(arguments)
    out = checked_output(arguments)
    table = data.coordinates.read(read_input(arguments.table))
    points = data.coordinates.points(table)
    condition = given_condition(flow, arguments)
    if condition is None and flow.conditions is not None:
        condition = datasets.read_conditions(table, flow.conditions)
        warn(arguments, flow.conditions.extrapolations(condition))
    show, total = _shows_progress(arguments, len(points)), len(points)
    with output_writer(arguments, out) as write, counting_bar(show, "log-prob", total) as advance:
        for rows in parts(total):
            part = slice(rows.start, rows.stop)
            scores = flow.log_prob(
                points[part],
                condition=condition if condition is None or condition.ndim == 1 else condition[part],
                batch_size=arguments.batch_size,
                progress=advance,
            )
            write(data.coordinates.score_columns(scores), {})
    _tell_columns(arguments, data, table)


def evaluate(arguments: argparse.Namespace) -> None:
    """``rfm evaluate``: test likelihood beside the baselines."""
    flow, data = _load(arguments)
    result = evaluate_flow(flow, data, _note(arguments))
    text = f"{result.table()}\npoints from {data.coordinates.describe()}"
    _report(arguments, describe_run(data) | result.record(), text)


def plot(arguments: argparse.Namespace) -> None:
    """``rfm plot``: the picture of a run."""
    flow, data = _load(arguments)
    arguments.out = arguments.out or str(Path(arguments.run) / "density.png")
    out = checked_output(arguments)
    assert out is not None
    condition = given_condition(flow, arguments)
    check_required(flow, condition, arguments)
    if condition is None:
        _draw(flow, data.points, data, out, data.source)
    else:
        assert flow.conditions is not None
        near = data.points if data.condition is None else data.points[nearest(flow.conditions, data, condition)]
        _draw(flow, near, data, out, f"{data.source}: {flow.conditions.title(condition) or 'nothing known'}", condition)
    _tell_columns(arguments, data)
    print(out)


def demo(arguments: argparse.Namespace) -> None:
    """``rfm demo``: the main job on real data."""
    dataset = datasets.load(arguments.dataset)
    folder = Path(arguments.out or f"runs/demo-{dataset.name}")
    arguments.out, arguments.steps, arguments.batch_size = str(folder), None, None
    # A demo is to be run again and again; only what an earlier demo made is replaced.
    arguments.resume, arguments.force = False, _is_demo(folder)
    source = f"{dataset.name}: {dataset.source}"
    data = RunData(
        dataset.points, group_split(dataset.points, arguments.seed), dataset.coordinates, source, dataset.sha256
    )
    note = _note(arguments)
    note(f"{len(dataset.points)} points, {source}")
    flow = _fit(Sphere(2), data, arguments)
    (folder / _DEMO_MARK).touch()
    result = evaluate_flow(flow, data, note)
    note("figure")
    figure = folder / "map.png"
    _draw(
        flow,
        data.points,
        data,
        figure,
        f"{dataset.name.capitalize()}: {len(dataset.points):,} points, and a flow fitted to them",
    )
    text = f"{result.table()}\n{_fitted_text(flow, data, folder)}\nmap: {figure}"
    _report(arguments, _fitted(flow, data, folder) | result.record() | {"map": str(figure)}, text)


def check(arguments: argparse.Namespace) -> int:
    """``rfm check``: the laws, on a user's manifold."""
    from manifolds.testing import check_manifold

    report = check_manifold(imported_manifold(arguments.manifold), seed=arguments.seed, compile=arguments.compile)
    print(report)
    return 0 if report.passed else 1


def _tell_columns(arguments: argparse.Namespace, data: RunData, table: datasets.Table | None = None) -> None:
    """Say on stderr which columns points are from, where stdout is not for it."""
    print(f"rfm {arguments.command}: points from {data.coordinates.describe(table)}", file=sys.stderr)


def _fit(
    manifold: Manifold,
    data: RunData,
    arguments: argparse.Namespace,
    conditions: Conditions | None = None,
    source: Source | Callable[[Manifold, Tensor], Source] | None = None,
    coupling: Coupling | None = None,
) -> Flow:
    folder = Path(arguments.out)
    kept = torch.cat([data.split.train, data.split.validation])
    held = torch.arange(len(data.split.train), len(kept))
    _refuse_existing(folder, arguments)
    if _is_first_process() and not arguments.resume:
        data.keep_stream(folder)
    # First, so that a run killed while training can be resumed from the folder alone.
    flow = fit_flow(
        data.points[kept],
        manifold,
        condition=data.conditions_at(kept).get("condition"),
        conditions=conditions,
        weights=data.weights_at(kept),
        validation=held,
        source=source,
        coupling=coupling,
        steps=arguments.steps,
        batch_size=arguments.batch_size,
        max_seconds=arguments.max_seconds,
        seed=arguments.seed,
        device=arguments.device,
        out=folder,
        resume=arguments.resume,
        force=arguments.force,
        progress=not arguments.quiet,
    )
    if _is_first_process():
        data.save(folder)
    return flow


def _refuse_existing(folder: Path, arguments: argparse.Namespace) -> None:
    """Say how to go on in the words of the command line, before the library says it in its own."""
    if arguments.resume or arguments.force:
        return
    if (folder / "flow.json").exists() or (folder / "checkpoint.json").exists():
        what = "a flow" if (folder / "flow.json").exists() else "an unfinished run"
        raise FileExistsError(f"{folder} already holds {what}; use --resume, --force, or another --out")


def _steps_done(folder: Path) -> int | None:
    """Return the step at which the run in a folder is to be resumed; None where nothing is to go on from."""
    if (folder / "checkpoint.json").exists():
        return int(read_json(folder / "checkpoint.json").get("step", 0))
    history = read_json(folder / "flow.json").get("history") if (folder / "flow.json").exists() else None
    return int(history[-1]["step"]) if history else None


def _resumed_text(flow: Flow, before: int | None) -> str:
    """Return what resuming a run at a step has done, as a line; nothing where none was resumed."""
    if before is None or not flow.history:
        return ""
    last = int(flow.history[-1]["step"])
    if last == before:
        return f"resumed at step {before}: nothing left to train, {flow.stopped}\n"
    return f"resumed at step {before}, trained to step {last}\n"


def _hints(data: RunData, folder: Path, unused: Sequence[str]) -> Iterator[str]:
    """Yield what else is to be known of a fit, in lines."""
    if unused:
        yield f"columns of numbers that are not used: {', '.join(unused[:12])}{', ...' if len(unused) > 12 else ''}"
    if describe_run(data).get("test_blocks") == 1:
        yield "one block tests, which tells nothing of how a test score varies: make --blocks smaller"
    if (folder / "checkpoint.json").exists():
        yield "--resume with a larger --max-seconds goes on"


def _is_first_process() -> bool:
    import os

    return os.environ.get("RANK", "0") == "0"


def _is_demo(folder: Path) -> bool:
    return (folder / _DEMO_MARK).exists() or ((folder / "checkpoint.json").exists() and not is_run_folder(folder))


def _load(arguments: argparse.Namespace) -> tuple[Flow, RunData]:
    folder = Path(arguments.run)
    if not arguments.manifold and backbone_commands.holds_backbones(folder):
        raise ValueError(
            f"{folder} holds a flow of protein backbones, which rfm {arguments.command} does not know; "
            "rfm sample draws from it, python -m experiments.proteins report judges it"
        )
    manifold = imported_manifold(arguments.manifold) if arguments.manifold else None
    if not arguments.source:
        return Flow.load(folder, manifold=manifold), RunData.load(folder)
    source = named_source(arguments.source)
    manifold = saved_manifold(folder) if manifold is None else manifold
    data = RunData.load(folder)
    if not isinstance(source, Source):
        source = source(manifold, manifold.projx(data.points[data.split.train]))
    return Flow.load(folder, manifold=manifold, source=source), data


def _report(arguments: argparse.Namespace, record: dict[str, Any], text: str) -> None:
    if _is_first_process():
        print(json.dumps(record, indent=1) if arguments.json else text)


def _fitted(flow: Flow, data: RunData, folder: Path) -> dict[str, Any]:
    last = flow.history[-1] if flow.history else {}
    best = min((record["validation_nll"] for record in flow.history if "validation_nll" in record), default=None)
    return {
        "run": str(folder),
        **describe_run(data),
        **({} if flow.conditions is None else {"conditions": flow.conditions.to_dict()["columns"]}),
        "steps": last.get("step"),
        "seconds": last.get("seconds"),
        "validation_nll_nats": best,
        "stopped": flow.stopped,
    }


def _fitted_text(flow: Flow, data: RunData, folder: Path) -> str:
    record = _fitted(flow, data, folder)
    best = record["validation_nll_nats"]
    validation = "not known" if best is None else f"{best:.3f} nats"
    return (
        f"fitted {record['train']} points in {record['seconds'] or 0:.0f} s; validation NLL {validation}; "
        f"{flow.stopped}\n"
        f"points from {data.coordinates.describe()}\n"
        f"{'' if flow.conditions is None else f'conditional on {flow.conditions.describe()}' + chr(10)}run: {folder}"
    )


def _draw(flow: Flow, points: Tensor, data: RunData, path: Path, title: str, condition: Tensor | None = None) -> None:
    from rfm.plotting import plot_flow, save_figure

    some = points if len(points) else None
    save_figure(plot_flow(flow, some, title=title, coordinates=data.coordinates, condition=condition), path)


def _note(arguments: argparse.Namespace) -> Callable[[str], None]:
    """Return a function that tells what is being done, on stderr."""
    return lambda message: None if arguments.quiet else print(f"{message} ...", file=sys.stderr, flush=True)


def _shows_progress(arguments: argparse.Namespace, total: int) -> bool:
    """Return whether there is enough to do for a bar to be of use."""
    return not arguments.quiet and total > arguments.batch_size
