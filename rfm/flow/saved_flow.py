"""The folder of a saved flow: ``flow.json``, and the file of tensors that it names."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from manifolds import Manifold
from rfm.conditions import Conditions
from rfm.flow.conditional_refinement import recorded_refinement
from rfm.flow.flow_mixture import RefinedDensity
from rfm.records.descriptions import (
    SavedFlowError,
    build,
    describe,
    names_tensors,
    read_json,
    read_tensors,
    remove_other,
    split_arguments,
    write_json,
    write_tensors,
)
from rfm.sources import Source

FORMAT = "rfm flow"
FORMAT_VERSION = 2
"""Of what is written; version 1 knew of no start and no refinement, and is read as well."""


_LOADERS = {
    FORMAT: "rfm.Flow",
    "rfm discrete flow": "rfm.discrete.DiscreteFlow",
    "rfm joint flow": "rfm.discrete.JointFlow",
}
"""What reads each format."""


@dataclass(frozen=True)
class SavedFlow:
    """What a `rfm.Flow` is made of, beside its weights; the fields are those of the flow."""

    manifold: Manifold
    field: Callable[..., Tensor]
    source: Source
    conditions: Conditions | None
    history: list[dict[str, float]]
    stopped: str
    start: float = 0.0
    refinement: RefinedDensity | None = None
    refinement_report: str = ""


def write_flow(folder: Path, flow: SavedFlow, state: Mapping[str, Tensor]) -> None:
    """Write a flow and its state to a folder, as `rfm.Flow.save` says."""
    folder.mkdir(parents=True, exist_ok=True)
    shared: dict[str, Any] = {"manifold": flow.manifold}
    arguments: dict[str, Tensor] = {}
    manifold = describe(flow.manifold, tensors=arguments)
    field = describe(flow.field, shared, arguments)
    source = describe(flow.source, shared, arguments)
    # A refinement may hold the flow's own source.
    shared["source"] = flow.source
    refinement = None if flow.refinement is None else flow.refinement.record(shared, arguments)
    name = write_tensors(folder, "weights", {**state, **arguments})
    record = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "weights": name,
        "manifold": manifold,
        "field": field,
        "source": source,
        "start": flow.start,
        "refinement": refinement,
        "refinement_report": flow.refinement_report,
        "conditions": None if flow.conditions is None else flow.conditions.to_dict(),
        "history": flow.history,
        "stopped": flow.stopped,
    }
    write_json(folder / "flow.json", record)
    remove_other(folder, "weights", name)


def read_flow(
    folder: Path, manifold: Manifold | None, field: Callable[..., Tensor] | None, source: Source | None
) -> tuple[SavedFlow, dict[str, Tensor]]:
    """Return a saved flow and its state; arguments and errors as for `rfm.Flow.load`."""
    _check_passed("manifold", manifold, Manifold)
    _check_passed("source", source, Source)
    path = folder / "flow.json"
    record = read_record(folder, FORMAT, (1, FORMAT_VERSION))
    arguments, tensors = split_arguments(read_tensors(folder / record["weights"]))
    manifold = saved_manifold(folder) if manifold is None else manifold
    shared = {"manifold": manifold}
    if field is None:
        field = build(record.get("field"), f"{path}: field", shared, arguments)
    if source is None:
        source = build(record.get("source"), f"{path}: source", shared, arguments)
    if not callable(field) or isinstance(field, Manifold | Source) or not isinstance(source, Source):
        raise SavedFlowError(f"{path} is damaged: it names no field or no source; fit again")
    refinement = record.get("refinement")
    if refinement is not None:
        refinement = recorded_refinement(refinement, f"{path}: refinement", shared | {"source": source}, arguments)
    named, history = record.get("conditions"), record.get("history")
    try:
        conditions = None if named is None else Conditions.from_dict(named)
    except ValueError as error:
        raise SavedFlowError(f"{path} is damaged: {error}; fit again") from None
    history = history if isinstance(history, list) else []
    own = (manifold, field, source, conditions, history, str(record.get("stopped", "")))
    report = str(record.get("refinement_report", ""))
    return SavedFlow(*own, record.get("start", 0.0), refinement, report), tensors


def load_weights(flow: nn.Module, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Give a flow its saved state, in the precision that it was saved in.

    Raises:
        SavedFlowError: if it does not fit.
    """
    for name, tensor in flow.state_dict(keep_vars=True).items():
        if name in tensors and tensor.is_floating_point() and tensors[name].is_floating_point():
            tensor.data = tensor.data.to(tensors[name].dtype)
    try:
        flow.load_state_dict(tensors)
    except RuntimeError as error:
        fault = str(error).splitlines()[-1].strip()
        raise SavedFlowError(f"{folder}: the weights do not fit the field that flow.json names ({fault})") from None


def saved_manifold(folder: str | Path) -> Manifold:
    """Return the manifold of a saved flow: from its ``flow.json``, and its tensors where it is made of some.

    Raises:
        SavedFlowError: if the folder is not a saved flow, is damaged, or the manifold is one of your own.
    """
    path = Path(folder) / "flow.json"
    record = read_record(Path(folder), FORMAT, (1, FORMAT_VERSION))
    own = record.get("manifold")
    tensors = split_arguments(read_tensors(Path(folder) / record["weights"]))[0] if names_tensors(own) else {}
    manifold = build(own, f"{path}: manifold", tensors=tensors)
    if not isinstance(manifold, Manifold):
        raise SavedFlowError(f"{path} is damaged: it names no manifold; fit again")
    return manifold


def _check_passed(name: str, thing: object, kind: type) -> None:
    if thing is not None and not isinstance(thing, kind):
        found = f"{type(thing).__name__} {getattr(thing, '__qualname__', '')}".rstrip()
        raise ValueError(
            f"Flow.load: {name} must be a {kind.__name__}, got {found}; make it first, and pass the object"
        )


def read_record(folder: Path, kind: str, versions: Sequence[int]) -> dict[str, Any]:
    """Return what ``flow.json`` holds, with a format, a version and a name of weights that can be read.

    Args:
        folder: where a flow was saved.
        kind: the format's name, such as "rfm flow".
        versions: those that are understood.
    """
    path = folder / "flow.json"
    if not folder.is_dir():
        raise SavedFlowError(f"{folder} is not a folder; a saved flow is one that holds flow.json")
    record = read_json(path)
    found = record.get("format")
    if isinstance(found, str) and found in _LOADERS and found != kind:
        raise SavedFlowError(f"{path} holds an {found}, not an {kind}; load it with {_LOADERS[found]}.load")
    if found != kind or not isinstance(record.get("weights"), str):
        raise SavedFlowError(f"{path} is not a saved flow, or is damaged; fit again")
    if record.get("version") not in versions:
        known = " and ".join(map(str, versions))
        raise SavedFlowError(
            f"{path} has format version {record.get('version')}, this library reads {known}; "
            "load it with the version of the library that saved it"
        )
    if not re.fullmatch(r"weights-[0-9a-f]{16}\.safetensors", record["weights"]):
        raise SavedFlowError(f"{path} is damaged: weights must be a file beside it, got {record['weights'][:80]!r}")
    return record
