"""The state of a training run, saved so that a killed run can go on to the same result."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rfm.records.descriptions import SavedFlowError, read_json, read_tensors, remove_other, write_json, write_tensors

_FILE = "checkpoint.json"
_STEM = "checkpoint"
_TIE = 0.01
"""Share of the flow's own likelihood that decides between refined ones: where kernels alone are as likely from the
first steps on, the flow is to be trained all the same, and may pass them later."""


class Validation(NamedTuple):
    """What a validation finds."""

    value: float
    """What is to be small; NaN where it is not known yet."""
    beside: Mapping[str, float] = MappingProxyType({})
    """What the history notes besides."""
    tie: float = 0.0
    """Is added where validations are compared: a little of what decides between values that are alike."""

    @classmethod
    def refined(cls, value: float, alone: float, beside: Mapping[str, float] = MappingProxyType({})) -> "Validation":
        """Return the validation of a refined flow, which notes that of the flow alone too."""
        return cls(value, {**beside, "flow_nll": alone}, _TIE * alone)

    @classmethod
    def of(cls, found: "float | Validation") -> "Validation":
        """Return a number as a validation that finds no more."""
        return found if isinstance(found, Validation) else cls(found)


@dataclass
class Checkpoint:
    """Where a run stands.

    Weights, averaged weights and optimiser state live in the training's own objects; they are gathered on `save` and
    put back by `restore`.
    """

    measure: str = "validation_nll"
    """What is validated, as the history names it; small is good."""
    step: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    """Of this process: what the run would take on a machine of its own, more or less."""
    since_best: int = 0
    best_value: float = math.inf
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    """Averaged weights of the best validation so far; empty before the first."""
    stopped: str = ""
    """Why the run ended, in words."""
    capped: bool = False
    """Whether it was a cap on the time that ended it: with a larger one it can go on."""
    precision: dict[str, Any] = field(default_factory=dict)
    """What the precision keeps between steps: the scale of losses, where gradients are in float16."""
    tensors: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def start(cls, measure: str = "validation_nll") -> "Checkpoint":
        """Return the state before the first step."""
        return cls(measure)

    @property
    def _clocks(self) -> dict[str, float]:
        return {"seconds": round(self.seconds, 3), "cpu_seconds": round(self.cpu_seconds, 3)}

    @property
    def last_validation(self) -> dict[str, float]:
        """The last finite validation, if there was one."""
        known = [record[self.measure] for record in self.history if self.measure in record]
        return {self.measure: known[-1]} if known else {}

    def record(self, found: float | Validation, loss: float | None, average: nn.Module) -> None:
        """Note a validation, and keep the averaged weights if it is the best.

        Before the first finite one there is nothing to improve on, and no patience to lose.
        """
        value, beside, tie = Validation.of(found)
        # A field that cannot be integrated yet has no likelihood; JSON has no word for that but leaving it out.
        known = {self.measure: value} if math.isfinite(value) else {}
        others = {name: number for name, number in beside.items() if math.isfinite(number)}
        # Nor is there a loss before the first step.
        losses = {} if loss is None else {"loss": loss}
        self.history.append({"step": self.step, **losses, **known, **others, **self._clocks})
        if known and value + tie < self.best_value:
            self.best_value, self.since_best = value + tie, 0
            self.best = {key: value.detach().clone() for key, value in average.state_dict().items()}
        elif math.isfinite(self.best_value):
            self.since_best += 1

    def save(
        self,
        folder: Path,
        fingerprint: str,
        model: nn.Module,
        average: nn.Module,
        optimizer: torch.optim.Optimizer,
        parameters: list[nn.Parameter],
    ) -> None:
        """Write the state; interrupted, the folder holds the one before."""
        tensors = {f"model.{key}": value for key, value in model.state_dict().items()}
        tensors |= {f"average.{key}": value for key, value in average.state_dict().items()}
        tensors |= {f"best.{key}": value for key, value in self.best.items()}
        for i, parameter in enumerate(parameters):
            tensors |= {f"optimizer.{i}.{key}": value for key, value in optimizer.state[parameter].items()}
        name = write_tensors(folder, _STEM, tensors)
        record = {
            "fingerprint": fingerprint,
            "tensors": name,
            "step": self.step,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "since_best": self.since_best,
            "measure": self.measure,
            "best_value": self.best_value if math.isfinite(self.best_value) else None,
            "history": self.history,
            "precision": self.precision,
        }
        write_json(folder / _FILE, record)
        remove_other(folder, _STEM, name)

    @classmethod
    def load(cls, folder: Path, fingerprint: str) -> "Checkpoint | None":
        """Return the saved state, or None where there is none.

        Raises:
            SavedFlowError: if it is damaged, or belongs to other data or settings.
        """
        path = folder / _FILE
        if not path.exists():
            return None
        record = read_json(path)
        if record.get("fingerprint") != fingerprint:
            raise SavedFlowError(
                f"{path} belongs to a run with other data or settings; resume with the same ones, or choose another out"
            )
        tensors = read_tensors(folder / Path(str(record.get("tensors"))).name)
        best_value = record["best_value"]
        return cls(
            measure=record["measure"],
            step=record["step"],
            seconds=record["seconds"],
            cpu_seconds=record["cpu_seconds"],
            since_best=record["since_best"],
            best_value=math.inf if best_value is None else best_value,
            history=record["history"],
            best=_part(tensors, "best."),
            precision=record.get("precision", {}),
            tensors=tensors,
        )

    @staticmethod
    def remove(folder: Path) -> None:
        """Delete the saved state, after the run is done: not after one that was capped, which can go on."""
        (folder / _FILE).unlink(missing_ok=True)
        remove_other(folder, _STEM, "")

    def restore(
        self,
        model: nn.Module,
        average: nn.Module,
        optimizer: torch.optim.Optimizer,
        parameters: list[nn.Parameter],
    ) -> None:
        """Put weights, averages and optimiser state back."""
        model.load_state_dict(_part(self.tensors, "model."))
        average.load_state_dict(_part(self.tensors, "average."))
        for i, parameter in enumerate(parameters):
            entries: dict[str, Any] = _part(self.tensors, f"optimizer.{i}.")
            optimizer.state[parameter] = {
                # Adam counts its steps in a tensor that stays on the CPU unless it is fused on a GPU.
                key: value.to(parameter.device) if value.ndim or parameter.is_cuda else value
                for key, value in entries.items()
            }
        self.tensors = {}


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
