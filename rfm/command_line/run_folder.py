"""What a run folder holds beside the flow: the data it was fitted to, how it was split, and how its table was written.

With it, a run can be evaluated and plotted after the table has moved.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rfm.datasets.coordinate_choice import coordinates_from_dict
from rfm.datasets.coordinates import Coordinates
from rfm.datasets.splits import Split
from rfm.records.descriptions import (
    SavedFlowError,
    read_json,
    read_tensors,
    remove_other,
    write_atomically,
    write_json,
    write_tensors,
)

__all__ = ["RunData", "StartData", "describe_run", "is_run_folder", "saved_stream"]

_FILE = "run.json"
_STREAM = "input"
"""The file with what came through a pipe."""


@dataclass(frozen=True)
class StartData:
    """Where a flow from data to data starts.

    Args:
        points: start points ``(m, *event_shape)``, float64.
        paired: whether row i belongs to row i of the run's points; the split is then that of the points.
        weights: of the start points ``(m,)``; None for equal ones.
        test: indices of those held out for `rfm evaluate`, where they are not paired.
    """

    points: Tensor
    paired: bool = False
    weights: Tensor | None = None
    test: Tensor | None = None

    @property
    def kept(self) -> Tensor:
        """Indices of the start points to fit with, where they are not paired."""
        kept = torch.ones(len(self.points), dtype=torch.bool)
        if self.test is not None:
            kept[self.test] = False
        return kept.nonzero()[:, 0]

    def tensors(self) -> dict[str, Tensor]:
        """Return what is written to a run folder, by name."""
        own = {"start": self.points, "start_weights": self.weights, "start_test": self.test}
        known = {name: value for name, value in own.items() if value is not None}
        return known | {"start_paired": torch.tensor(self.paired)}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "StartData | None":
        """Return what `tensors` gave, None if there was nothing."""
        if "start" not in tensors:
            return None
        paired = bool(tensors["start_paired"])
        return cls(tensors["start"], paired, tensors.get("start_weights"), tensors.get("start_test"))


@dataclass(frozen=True)
class RunData:
    """The data of a run.

    Args:
        points: all points ``(n, *event_shape)``, float64.
        split: indices of training, validation and test points.
        coordinates: the columns and units that points are read from and written in.
        source: where the data came from, in words or as a file's name.
        sha256: of the table; empty where there was none.
        condition: vectors ``(n, c)``, or None; the flow's `Conditions` give their meaning.
        weights: of the points ``(n,)``, which fit and evaluation use; None for equal ones.
        blocks: labels ``(n,)`` of points that are not independent of each other, such as neighbours on a map: they are
            on one side of the split, and intervals are clustered by them; None where each point stands alone.
        start: start points, where the flow begins at given points.
        rounding: to what the points were rounded before they were spread over their cells, in words; empty if not.
        stream: the input's bytes if they came through a pipe, which cannot be read again to resume the run.
    """

    points: Tensor
    split: Split
    coordinates: Coordinates
    source: str
    sha256: str = ""
    condition: Tensor | None = None
    weights: Tensor | None = None
    blocks: Tensor | None = None
    stream: bytes | None = field(default=None, repr=False)
    start: StartData | None = None
    rounding: str = ""

    def blocks_at(self, index: Tensor) -> Tensor | None:
        """Return the labels of the blocks that some points lie in; None where there are none."""
        return None if self.blocks is None else self.blocks[index]

    def weights_at(self, index: Tensor) -> Tensor | None:
        """Return the weights of some points; None for equal ones."""
        return None if self.weights is None else self.weights[index]

    def conditions_at(self, index: Tensor) -> dict[str, Any]:
        """Return the conditions of some points as keyword arguments; none for an unconditional run."""
        return {} if self.condition is None else {"condition": self.condition[index]}

    def save_stream(self, folder: Path) -> None:
        """Write to a run folder what came through a pipe, before the run begins: for `saved_stream`."""
        if self.stream is not None:
            stream = self.stream
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / _STREAM, lambda file: _write_bytes(file, stream))

    def save(self, folder: Path) -> None:
        """Write to a run folder; ``run.json`` last."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {"points": self.points, "train": self.split.train, "validation": self.split.validation}
        tensors["test"] = self.split.test
        if self.condition is not None:
            tensors["condition"] = self.condition
        if self.weights is not None:
            tensors["weights"] = self.weights
        if self.blocks is not None:
            tensors["blocks"] = self.blocks
        if self.start is not None:
            tensors |= self.start.tensors()
        name = write_tensors(folder, "data", tensors)
        record = {
            "data": name,
            "source": self.source,
            "sha256": self.sha256,
            "coordinates": self.coordinates.to_dict(),
            "rounding": self.rounding,
            "fit": _fit_of(folder),
        }
        write_json(folder / _FILE, record)
        if self.stream is None:
            (folder / _STREAM).unlink(missing_ok=True)
        remove_other(folder, "data", name)

    @classmethod
    def load(cls, folder: Path) -> "RunData":
        """Read from a run folder.

        Raises:
            SavedFlowError: if there is none, or it is damaged.
        """
        if not is_run_folder(folder) or (record := read_json(folder / _FILE)).get("fit") != _fit_of(folder):
            # A fit writes its flow first; a kill may come between the two.
            raise SavedFlowError(
                f"{folder} holds no data, or those of an earlier fit, beside its flow; "
                "if rfm fit was interrupted, give the same command again with --resume; what Flow.save wrote is for "
                "rfm.Flow.load, in Python"
            )
        tensors = read_tensors(folder / Path(str(record.get("data"))).name)
        try:
            split = Split(tensors["train"], tensors["validation"], tensors["test"])
            coordinates = coordinates_from_dict(record["coordinates"])
            return cls(
                tensors["points"],
                split,
                coordinates,
                str(record["source"]),
                str(record["sha256"]),
                tensors.get("condition"),
                tensors.get("weights"),
                tensors.get("blocks"),
                start=StartData.of(tensors),
                rounding=str(record.get("rounding", "")),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise SavedFlowError(f"{folder / _FILE} is damaged ({error}); fit again") from None


def _fit_of(folder: Path) -> Any:
    """Return what identifies the fit whose flow a folder holds."""
    path = folder / "fit.json"
    return read_json(path).get("fingerprint") if path.is_file() else None


def saved_stream(folder: Path) -> bytes | None:
    """Return what `RunData.save_stream` wrote to a run folder; None if nothing."""
    path = folder / _STREAM
    return path.read_bytes() if path.is_file() else None


def _write_bytes(file: Path, content: bytes) -> None:
    file.write_bytes(content)


def is_run_folder(folder: Path) -> bool:
    """Return whether a folder holds run data."""
    return (folder / _FILE).is_file()


def describe_run(data: RunData) -> dict[str, Any]:
    """Return the counts of a run's data, for reports."""
    return {
        "data": data.source,
        "columns": list(data.coordinates.columns),
        **({"unit": data.coordinates.unit} if data.coordinates.unit else {}),
        "train": len(data.split.train),
        "validation": len(data.split.validation),
        "test": len(data.split.test),
        "weighted": data.weights is not None,
        **({"rounding": data.rounding} if data.rounding else {}),
        **({} if data.start is None else {"start": len(data.start.points), "paired": data.start.paired}),
        **({} if data.blocks is None else {"test_blocks": len(data.blocks[data.split.test].unique())}),
    }
