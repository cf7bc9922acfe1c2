"""The folder of a saved flow of labels: ``flow.json``, and the file of tensors that it names."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from rfm.flow.saved_flow import load_weights, read_record
from rfm.records.descriptions import (
    SavedFlowError,
    build,
    describe,
    read_tensors,
    remove_other,
    split_arguments,
    write_json,
    write_tensors,
)

_VERSION = 1


class LabelFlow(nn.Module):
    """What a flow of labels keeps of its fit."""

    def __init__(self) -> None:
        super().__init__()
        self.history: list[dict[str, float]] = []
        """One record per validation during the fit: step, loss, seconds, and cross_entropy in nats per position."""
        self.stopped = ""
        """Why the fit ended, in words."""


F = TypeVar("F", bound=LabelFlow)


def write_parts(folder: Path, kind: str, parts: Mapping[str, Any], flow: LabelFlow) -> None:
    """Write a flow to a folder, which holds the old flow or the new one whenever this is interrupted.

    Args:
        folder: made where there is none.
        kind: the format's name.
        parts: constructor arguments.
        flow: what they make, with its weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arguments: dict[str, Tensor] = {}
    described = {name: describe(part, {}, arguments) for name, part in parts.items()}
    name = write_tensors(folder, "weights", {**flow.state_dict(), **arguments})
    record = {"format": kind, "version": _VERSION, "weights": name, **described}
    write_json(folder / "flow.json", record | {"history": flow.history, "stopped": flow.stopped})
    remove_other(folder, "weights", name)


def read_parts(folder: Path, kind: str, make: Callable[..., F], parts: Mapping[str, Any]) -> F:
    """Return a saved flow in evaluation mode.

    Args:
        folder: where it was saved.
        kind: the format's name.
        make: its class.
        parts: constructor arguments that are passed in, None for those that the folder has.

    Raises:
        SavedFlowError: if the folder is not a saved flow, is damaged, or needs an object passed in.
    """
    path = folder / "flow.json"
    record = read_record(folder, kind, (_VERSION,))
    arguments, tensors = split_arguments(read_tensors(folder / record["weights"]))
    own = {
        name: build(record.get(name), f"{path}: {name}", {}, arguments) if part is None else part
        for name, part in parts.items()
    }
    try:
        flow = make(**own)
    except ValueError as error:
        raise SavedFlowError(f"{path} is damaged: {error}; fit again") from None
    load_weights(flow, tensors, folder)
    flow.history, flow.stopped = record.get("history", []), str(record.get("stopped", ""))
    return flow.eval()
