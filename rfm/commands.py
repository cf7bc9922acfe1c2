"""What each command does, on the library's public functions."""

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from manifolds import Euclidean, FlatTorus, Manifold, Sphere
from rfm import datasets
from rfm.conditions import Conditions
from rfm.couplings import Coupling, OptimalTransport, Sinkhorn
from rfm.datasets.download import file_sha256
from rfm.datasets.splits import Split, group_split
from rfm.datasets.tables import Table
from rfm.evaluation import Evaluation
from rfm.evaluation import evaluate as evaluate_flow
from rfm.fitting import fit as fit_flow
from rfm.flow import Flow, saved_manifold
from rfm.run_folder import RunData, describe_run, is_run_folder
from rfm.sources import KernelMixture, Source, Uniform, WrappedNormal


def fit(arguments: argparse.Namespace) -> None:
    """``rfm fit``: a table in, a run folder out."""
    table = datasets.read_table(arguments.table, minimum_rows=2)
    manifold = named_manifold(arguments.manifold, table, arguments.columns)
    coordinates = datasets.choose_coordinates(manifold, table, arguments.columns, arguments.radians)
    points = coordinates.points(table)
    conditions, condition = _conditions_of(table, arguments, coordinates.columns)
    data = RunData(
        points,
        _split(points, arguments.test_share, arguments.seed),
        coordinates,
        Path(arguments.table).name,
        file_sha256(Path(arguments.table)),
        condition,
        _weights(table, arguments.weights) if arguments.weights else None,
    )
    source = None if arguments.source is None else named_source(arguments.source)
    flow = _fit(manifold, data, arguments, conditions, source, named_coupling(arguments.coupling, manifold))
    _report(arguments, _fitted(flow, data, Path(arguments.out)), _fitted_text(flow, data, Path(arguments.out)))


def sample(arguments: argparse.Namespace) -> None:
    """``rfm sample``: points in the columns and units of the input."""
    flow, data = _load(arguments)
    out = _output(arguments)
    condition = _given(flow, arguments)
    if arguments.condition_file is not None:
        condition = _condition_file(flow, arguments)
    if arguments.guidance != 1 and condition is None:
        raise ValueError("--guidance needs something to guide towards\ngive --condition or --condition-file")
    total = _DRAWN if arguments.n is None else arguments.n
    if condition is not None and condition.ndim == 2:
        total = len(condition)
    generator = torch.Generator(flow._dtype_and_device()[1]).manual_seed(arguments.seed)
    drawn = flow.sample(
        total,
        condition=condition,
        guidance=arguments.guidance,
        generator=generator,
        return_log_prob=arguments.log_prob,
        batch_size=arguments.batch_size,
        progress=_shows_progress(arguments, total),
    )
    points, scores = drawn if arguments.log_prob else (drawn, None)
    names = list(data.coordinates.names)
    values = data.coordinates.columns_of(points)
    if scores is not None:
        columns = data.coordinates.score_columns(scores)
        names += list(columns)
        values = np.column_stack([values, *columns.values()])
    _write(arguments, out, names, values)


def log_prob(arguments: argparse.Namespace) -> None:
    """``rfm log-prob``: the density at the points of a table."""
    flow, data = _load(arguments)
    out = _output(arguments)
    table = datasets.read_table(arguments.table)
    points = data.coordinates.points(table)
    condition = _given(flow, arguments)
    if condition is None and flow.conditions is not None:
        condition = datasets.read_conditions(table, flow.conditions)
        _warn(arguments, flow.conditions.extrapolations(condition))
    if condition is not None:
        condition = condition.expand(len(points), -1)
    scores = flow.log_prob(
        points,
        condition=condition,
        batch_size=arguments.batch_size,
        progress=_shows_progress(arguments, len(points)),
    )
    columns = data.coordinates.score_columns(scores)
    _write(arguments, out, list(columns), np.column_stack(list(columns.values())))


def evaluate(arguments: argparse.Namespace) -> None:
    """``rfm evaluate``: test likelihood beside the baselines."""
    flow, data = _load(arguments)
    result = evaluate_flow(flow, data, _note(arguments))
    _report(arguments, describe_run(data) | _evaluated(result), result.table())


def plot(arguments: argparse.Namespace) -> None:
    """``rfm plot``: the picture of a run."""
    flow, data = _load(arguments)
    arguments.out = arguments.out or str(Path(arguments.run) / "density.png")
    out = _output(arguments)
    assert out is not None
    condition = _given(flow, arguments)
    if condition is None:
        _draw(flow, data.points, data, out, data.source)
    else:
        assert flow.conditions is not None
        near = data.points[_nearest(flow.conditions, data, condition)]
        _draw(flow, near, data, out, f"{data.source}: {flow.conditions.title(condition) or 'nothing known'}", condition)
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
    _report(arguments, _fitted(flow, data, folder) | _evaluated(result) | {"map": str(figure)}, text)


def check(arguments: argparse.Namespace) -> int:
    """``rfm check``: the laws, on a user's manifold."""
    from manifolds.testing import check_manifold

    report = check_manifold(imported_manifold(arguments.manifold), seed=arguments.seed, compile=arguments.compile)
    print(report)
    return 0 if report.passed else 1


def named_manifold(name: str, table: Table, columns: Sequence[str] | None) -> Manifold:
    """Return the manifold that ``--manifold`` means for a table.

    Raises:
        ValueError: for an unknown name.
    """
    if ":" in name:
        return imported_manifold(name)
    counted = len(columns) if columns else sum(table.holds_numbers(i) for i in range(len(table.names)))
    makers: dict[str, Callable[[], Manifold]] = {
        "sphere": lambda: Sphere(max(2, len(columns or ()) - 1)),
        "torus": lambda: FlatTorus(max(1, counted)),
        "euclidean": lambda: Euclidean(max(1, counted)),
    }
    if name not in makers:
        raise ValueError(
            f"unknown manifold {name!r}\nchoose {', '.join(makers)}, or a manifold of your own as my_module:thing"
        )
    return makers[name]()


def imported_manifold(name: str) -> Manifold:
    """Return a manifold given as ``module:name``; the current folder counts as importable.

    Raises:
        ValueError: if it cannot be imported, or is no manifold.
    """
    thing = _imported(name, "manifold")
    try:
        manifold = thing() if isinstance(thing, type) else thing
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise ValueError(f"{name}: cannot be imported ({type(error).__name__}: {reason})\ncheck it in Python") from None
    if not isinstance(manifold, Manifold):
        raise ValueError(f"{name}: is not a manifolds.Manifold but {type(manifold).__name__}\nsubclass Manifold")
    return manifold


def named_source(name: str) -> Source | Callable[[Manifold, Tensor], Source]:
    """Return the source that ``--source`` means, or what makes it from the manifold and the training points.

    Raises:
        ValueError: for an unknown name, or one that cannot be imported.
    """
    if ":" in name:
        thing = _imported(name, "source")
        if not isinstance(thing, Source) and not callable(thing):
            raise ValueError(
                f"{name}: is neither a rfm.sources.Source nor a function but {type(thing).__name__}\n"
                "write a Source, or a function of manifold and points that returns one"
            )
        return thing if isinstance(thing, Source) else _checked_maker(name, thing)
    makers: dict[str, Callable[[Manifold, Tensor], Source]] = {
        "uniform": lambda m, points: Uniform(m),
        "wrapped-normal": WrappedNormal.fit,
        "kernel": KernelMixture.fit,
    }
    if name not in makers:
        raise ValueError(f"unknown source {name!r}\nchoose {', '.join(makers)}, or one of your own as my_module:thing")
    return makers[name]


def _checked_maker(name: str, make: Callable[..., Any]) -> Callable[[Manifold, Tensor], Source]:
    """Return ``make`` with its faults told in one sentence."""

    def checked(manifold: Manifold, points: Tensor) -> Source:
        try:
            source = make(manifold, points)
        except Exception as error:
            raise ValueError(
                f"{name}: cannot be called with a manifold and points ({type(error).__name__}: {error})\n"
                "check it in Python"
            ) from None
        if not isinstance(source, Source):
            raise ValueError(f"{name}: makes no rfm.sources.Source but {type(source).__name__}\nsubclass Source")
        return source

    return checked


def named_coupling(name: str, manifold: Manifold) -> Coupling | None:
    """Return the coupling that ``--coupling`` means; None for independent pairs."""
    if name == "independent":
        return None
    return OptimalTransport(manifold) if name == "optimal-transport" else Sinkhorn(manifold)


def _imported(name: str, what: str) -> Any:
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ValueError(f"{name!r} does not name a {what}\nwrite my_module:thing, an object or a class")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise ValueError(f"{name}: cannot be imported ({type(error).__name__}: {reason})\ncheck it in Python") from None


_DRAWN = 1000
_DEMO_MARK = ".demo"


def _weights(table: Table, column: str) -> Tensor:
    weights = table.numbers([column])[:, 0]
    if (weights < 0).any():
        row = int(np.flatnonzero(weights < 0)[0])
        raise table.error(row, f"weight {weights[row]:.6g} is negative", "weights are at least 0; correct that row")
    return torch.from_numpy(weights)


def _conditions_of(
    table: Table, arguments: argparse.Namespace, taken: Sequence[str]
) -> tuple[Conditions | None, Tensor | None]:
    """Return what the columns of ``--condition`` mean, and their vectors."""
    if arguments.condition:
        return datasets.find_conditions(table, arguments.condition, arguments.label or (), taken)
    if arguments.label:
        raise ValueError("--label says which columns of --condition hold labels\ngive --condition too")
    return None, None


def _given(flow: Flow, arguments: argparse.Namespace) -> Tensor | None:
    """Return the condition vector ``(c,)`` that ``--condition`` means, or None; warn beyond the range of the data."""
    words = {}
    for word in arguments.condition:
        name, equals, value = word.partition("=")
        if not equals or name in words:
            fault = "is given twice" if name in words else "is not NAME=VALUE"
            raise ValueError(f"--condition {word!r} {fault}\nwrite for example magnitude=6, each name once")
        words[name] = value
    if not words:
        return None
    conditions = _conditional(flow, arguments)
    vector = conditions.encode(words)
    _warn(arguments, conditions.extrapolations(vector))
    return vector


def _condition_file(flow: Flow, arguments: argparse.Namespace) -> Tensor:
    conditions = _conditional(flow, arguments)
    if arguments.n is not None:
        raise ValueError("-n and --condition-file both say how many samples to draw\ngive one of them")
    vectors = datasets.read_conditions(datasets.read_table(arguments.condition_file), conditions)
    _warn(arguments, conditions.extrapolations(vectors))
    return vectors


def _conditional(flow: Flow, arguments: argparse.Namespace) -> Conditions:
    if flow.conditions is None:
        raise ValueError(
            f"the flow in {arguments.run} knows no conditions by name\n"
            "give none, or fit again with --condition and the columns"
        )
    return flow.conditions


def _warn(arguments: argparse.Namespace, sentences: Sequence[str]) -> None:
    for sentence in sentences:
        print(f"rfm {arguments.command}: {sentence}", file=sys.stderr)


def _nearest(conditions: Conditions, data: RunData, wanted: Tensor) -> Tensor:
    """Return the indices of the points with the wanted labels and, of those, the tenth with the nearest numbers."""
    assert data.condition is not None
    labels = torch.tensor([bool(count) for count in conditions.labels])
    known = ~wanted.isnan()
    alike = (data.condition == wanted)[:, labels & known].all(-1).nonzero()[:, 0]
    numbers = data.condition[alike][:, ~labels & known]
    if not numbers.shape[1]:
        return alike
    spread = (numbers - numbers.nanmean(0)).square().nanmean(0).sqrt()
    distance = ((numbers - wanted[~labels & known]) / torch.where(spread > 0, spread, 1.0)).square().sum(-1)
    order = distance.nan_to_num(torch.inf).argsort()
    return alike[order[: max(1, len(alike) // 10)]]


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
        raise FileExistsError(f"{folder} already holds {what}\nuse --resume, --force, or another --out")


def _is_first_process() -> bool:
    import os

    return os.environ.get("RANK", "0") == "0"


def _is_demo(folder: Path) -> bool:
    return (folder / _DEMO_MARK).exists() or ((folder / "checkpoint.json").exists() and not is_run_folder(folder))


def _split(points: Tensor, test_share: float, seed: int) -> Split:
    """Hold out shares of the points for testing and validation, equal points together."""
    places, place = torch.unique(points.flatten(1), dim=0, return_inverse=True)
    if len(places) < 4:
        raise ValueError(
            f"the table holds {len(places)} different points, too few to hold some out\ngive it at least 4"
        )
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    position = rank[place]
    test = round(len(places) * test_share)
    validation = max(1, round(len(places) * 0.1))
    first_test, first_validation = len(places) - test, len(places) - test - validation
    is_test = position >= first_test
    is_validation = ~is_test & (position >= first_validation)
    rows = torch.arange(len(points))
    return Split(rows[~is_test & ~is_validation], rows[is_validation], rows[is_test])


def _load(arguments: argparse.Namespace) -> tuple[Flow, RunData]:
    folder = Path(arguments.run)
    manifold = imported_manifold(arguments.manifold) if arguments.manifold else None
    if not arguments.source:
        return Flow.load(folder, manifold=manifold), RunData.load(folder)
    source = named_source(arguments.source)
    manifold = saved_manifold(folder) if manifold is None else manifold
    data = RunData.load(folder)
    if not isinstance(source, Source):
        source = source(manifold, manifold.projx(data.points[data.split.train]))
    return Flow.load(folder, manifold=manifold, source=source), data


def _output(arguments: argparse.Namespace) -> Path | None:
    """Return the file to write, refused if it exists."""
    if arguments.out is None:
        return None
    out = Path(arguments.out)
    if out.is_dir():
        raise IsADirectoryError(f"--out {out} is a folder\nname a file in it")
    if out.exists() and not arguments.force:
        raise FileExistsError(f"--out {out} exists\nuse --force to replace it, or another name")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"--out {out}: the folder {out.parent} does not exist\nmake it first")
    return out


def _write(arguments: argparse.Namespace, out: Path | None, names: list[str], values: np.ndarray[Any, Any]) -> None:
    if arguments.json:
        columns = {name: values[:, i].tolist() for i, name in enumerate(names)}
        text = json.dumps(columns, allow_nan=False)
        if out is None:
            print(text)
        else:
            from rfm.serialization import write_json

            write_json(out, columns)
    else:
        datasets.write_table(sys.stdout if out is None else out, names, values)


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
        f"{'' if flow.conditions is None else f'conditional on {flow.conditions.describe()}' + chr(10)}run: {folder}"
    )


def _evaluated(result: Evaluation) -> dict[str, Any]:
    record: dict[str, Any] = {
        "test_nll_nats": {
            name: {"mean": estimate.mean, "standard_error": estimate.standard_error} for name, estimate in result.rows
        }
    }
    if result.against_kernel is not None:
        difference = result.against_kernel
        record["flow_minus_best_kernel_nats"] = {
            "mean": difference.mean,
            "interval_95": list(difference.interval_95),
        }
    if result.against_unconditional is not None:
        difference = result.against_unconditional
        record["conditional_minus_unconditional_nats"] = {
            "mean": difference.mean,
            "interval_95": list(difference.interval_95),
        }
    return record


def _draw(flow: Flow, points: Tensor, data: RunData, path: Path, title: str, condition: Tensor | None = None) -> None:
    from rfm.plotting import plot_flow, save_figure

    save_figure(plot_flow(flow, points, title=title, coordinates=data.coordinates, condition=condition), path)


def _note(arguments: argparse.Namespace) -> Callable[[str], None]:
    """Return a function that tells what is being done, on stderr."""
    return lambda message: None if arguments.quiet else print(f"{message} ...", file=sys.stderr, flush=True)


def _shows_progress(arguments: argparse.Namespace, total: int) -> bool:
    """Return whether there is enough to do for a bar to be of use."""
    return not arguments.quiet and total > arguments.batch_size
