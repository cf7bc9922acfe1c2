"""A training run: its folder, fingerprint, checkpoint, device and seed, opened, resumed and finished in one place."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from rfm.flow import Flow
from rfm.flow.progress import Report, training_bar
from rfm.records.descriptions import SavedFlowError, read_json, write_json
from rfm.records.fingerprint import fingerprint
from rfm.training.checkpoint import Checkpoint, Validation
from rfm.training.loop import Loss, optimise
from rfm.training.settings import Budget, Training

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_RECORD = "fit.json"
"""The file in a run folder that says which data and settings its flow belongs to."""


class Model(Protocol):
    """What a run trains, such as a `rfm.Flow`: a network, and what is saved with it; a module."""

    history: list[dict[str, float]]
    stopped: str

    @property
    def network(self) -> nn.Module:
        """What the optimiser changes."""

    def save(self, folder: Path) -> None:
        """Save to a folder, whole at any moment; its ``flow.json`` is written last."""

    def to(self, device: torch.device) -> Any:
        """Move to a device."""

    def eval(self) -> Any:
        """Set the evaluation mode."""


class Run:
    """A run of training, opened here, then launched and trained, or loaded where it is finished.

    ::

        run = Run(budget, identity, out=out, resume=True)
        if run.is_finished:
            return run.load(flow)
        with run.launched() as fabric:
            run.train(flow, loss, validate)

    Args:
        budget: steps, learning rate, seed, time, validations.
        identity: whatever decides the result besides the budget and the precision: manifold, architecture, data, ...;
            see `rfm.records.fingerprint`. A run is resumed only with the same.
        training: the Fabric, and whether to replace a flow.
        out: the folder; nothing is kept when None.
        resume: go on from the folder's checkpoint; a finished run can be loaded. A cap on the time may be another one.
        device: "cpu", "cuda", ...; the first GPU where there is one.
        progress: show a progress bar on stderr; or a function that is called after every step, in the first process.

    Raises:
        SavedFlowError: if the folder holds a run with other data or settings, or a damaged one.
        FileExistsError: if it holds a flow and neither ``resume`` nor ``training.force`` is given.
    """

    def __init__(
        self,
        budget: Budget,
        identity: Sequence[Any] = (),
        *,
        training: Training | None = None,
        out: str | Path | None = None,
        resume: bool = False,
        device: torch.device | str | None = None,
        progress: bool | Report = True,
    ) -> None:
        self.budget, self.training = budget, Training() if training is None else training
        self.folder = None if out is None else Path(out)
        self.device, self.progress = device, progress
        self._report: Report | None = None
        self.checkpoint: Checkpoint | None = None
        self.fingerprint, self.is_finished = "", False
        self._fabric: Fabric | None = None
        if self.folder is not None:
            settings = asdict(replace(budget, max_seconds=None))
            self.fingerprint = fingerprint(*identity, settings, self.training.precision)
            self._open(self.folder, resume)

    def _open(self, folder: Path, resume: bool) -> None:
        """Refuse a folder that must not be written to, and read the checkpoint to go on from."""
        if any(path.exists() and not path.is_dir() for path in (folder, *folder.parents)):
            raise FileExistsError(f"{folder} is a file, or below one; choose another folder for the flow")
        if not (resume or self.training.force):
            for name, what in (("flow.json", "a flow"), ("checkpoint.json", "an unfinished run")):
                if (folder / name).exists():
                    raise FileExistsError(
                        f"{folder} already holds {what}; resume it, force its replacement, or choose another folder"
                    )
        if resume and (folder / "flow.json").exists() and not (folder / "checkpoint.json").exists():
            self._check_same(folder)
            self.is_finished = True
        elif resume:
            self.checkpoint = Checkpoint.load(folder, self.fingerprint)

    def _check_same(self, folder: Path) -> None:
        """Raise SavedFlowError unless a folder holds the flow of this run."""
        record = read_json(folder / _RECORD) if (folder / _RECORD).exists() else {}
        if record.get("fingerprint") == self.fingerprint:
            return
        before, now = record.get("settings", {}), asdict(self.budget)
        changed = [name for name in before if name in now and name != "max_seconds" and before[name] != now[name]]
        changes = ", ".join(f"{name} was {before[name]}, is {now[name]}" for name in changed)
        raise SavedFlowError(
            f"{folder} holds a flow that was fitted to other data or with other settings"
            f"{f' ({changes})' if changes else ''}; resume "
            "with the same ones, force its replacement, or choose another folder"
        )

    @property
    def history(self) -> list[dict[str, float]]:
        """What the validations have found that came before the run, if it is resumed."""
        return [] if self.checkpoint is None else self.checkpoint.history

    @property
    def first_step(self) -> int:
        """The step that the run begins or goes on with."""
        return 0 if self.checkpoint is None else self.checkpoint.step

    @property
    def fabric(self) -> "Fabric":
        """The Fabric of a launched run: device, precision, processes."""
        assert self._fabric is not None, "a run has a Fabric within run.launched()"
        return self._fabric

    def load(self, flow: Flow) -> Flow:
        """Return the flow of a finished run, with the manifold, field and source of ``flow``."""
        assert self.folder is not None
        assert isinstance(flow.field, nn.Module)
        return Flow.load(self.folder, manifold=flow.manifold, field=flow.field, source=flow.source)

    def keep(self, flow: Model) -> None:
        """Save a flow that needs no training, where there is a folder, with what identifies the run."""
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._record(self.folder)
            flow.save(self.folder)

    @contextmanager
    def launched(self) -> Iterator["Fabric"]:
        """Yield a launched Fabric; a process group that is begun here ends with the process."""
        import torch.distributed as dist

        from rfm.training.process_group import end_at_exit

        begun, fabric = dist.is_initialized(), self.training.fabric
        if fabric is None:
            fabric = _make_fabric(self.device)
            fabric.launch()
            if dist.is_initialized() and not begun:
                end_at_exit()
        self._fabric = fabric
        try:
            with training_bar(fabric.is_global_zero and self.progress) as self._report:
                yield fabric
        finally:
            self._fabric = None

    def train(
        self,
        flow: Model,
        loss: Loss,
        validate: Callable[[nn.Module], float | Validation],
        *,
        generator: torch.Generator | None = None,
        capture: bool = False,
        measure: str = "validation_nll",
        validate_start: bool = False,
        finish: Callable[[Callable[[float], None]], None] | None = None,
    ) -> None:
        """Train a flow's network in place, once launched; leave the flow on the CPU, and in the folder if there is one.

        The flow ends with the averaged weights of the best validation, and with ``history``.

        Args:
            flow: what is trained.
            loss: of a step.
            validate: from the network with averaged weights to a number that is to be small.
            generator: see `rfm.training.loop.optimise`, as for the arguments that follow.
            capture: replay the step as one graph, where there is a ``generator``, on a GPU, in one process.
            measure: what the number is called in the history.
            validate_start: validate the weights before the first step too.
            finish: what is left to do to the flow, with its last weights, on the device, before it is saved: its
                refinement; it gets a function to call with the share that is done.

        Raises:
            ValueError: if the loss is no longer finite, the step cannot be captured, or no validation was finite.
        """
        fabric = self.fabric
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        flow.to(fabric.device)
        state = optimise(
            flow.network,
            loss,
            validate,
            self.budget,
            fabric,
            measure=measure,
            validate_start=validate_start,
            generator=generator,
            capture=capture,
            folder=self.folder,
            checkpoint=self.checkpoint,
            fingerprint=self.fingerprint,
            report=self._report,
            clock=self.training.clock,
        )
        _adopt(flow, state)
        if finish is not None:
            finish(lambda share: self._report_refinement(share, state))
        flow.to(torch.device("cpu"))
        if self.folder is not None and fabric.is_global_zero:
            self._save(flow, self.folder, state)
        fabric.barrier()

    def _report_refinement(self, share: float, state: Checkpoint) -> None:
        if self._report is not None:
            last = {"step": state.step, "loss": state.history[-1]["loss"], "replayed": False}
            self._report(1.0, {**last, **state.last_validation, "refinement": share})

    def _save(self, flow: Model, folder: Path, state: Checkpoint) -> None:
        """Save a flow at the end of its run, with what identifies the run, in place of the checkpoint.

        The checkpoint of a run that a cap stopped is kept, for the run to go on from.
        """
        # A kill in between leaves the checkpoint, from which the same call with resume ends the run again.
        self._record(folder)
        flow.save(folder)
        if not state.capped:
            Checkpoint.remove(folder)

    def _record(self, folder: Path) -> None:
        write_json(folder / _RECORD, {"fingerprint": self.fingerprint, "settings": asdict(self.budget)})


def _adopt(flow: Model, state: Checkpoint) -> None:
    """Give a flow the history of a run that has ended, and the averaged weights of its best validation."""
    flow.history, flow.stopped = state.history, state.stopped
    if not state.best:
        raise ValueError(
            f"no finite likelihood of the validation points at any of {len(state.history)} validations: the field "
            "cannot be integrated, or takes them where the source has no density; lower learning_rate, or take another "
            "source"
        )
    flow.network.load_state_dict(state.best)
    flow.eval()


def _make_fabric(device: torch.device | str | None) -> "Fabric":
    from lightning_fabric import Fabric

    # Its import lowers the level.
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
        raise ValueError(f"device {device!r} cannot be used here ({reason}); choose another, such as cpu") from None
