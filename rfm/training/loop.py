"""The training loop, on Lightning Fabric: averaged weights, validation, checkpoints, resuming.

What a step draws has to depend on nothing but the run's seed and the step's number (`step_seed`). A resumed run then
sees what the uninterrupted one would have seen, and several processes share what one would have drawn. Where nothing
else changes from step to step, a GPU replays a captured step (`rfm.training.captured_step`).
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rfm.flow.progress import Report
from rfm.networks.modes import in_training_mode
from rfm.networks.precision import default_dtype, precision_of_weights
from rfm.training.captured_step import CapturedStep
from rfm.training.checkpoint import Checkpoint, Validation
from rfm.training.settings import Budget
from rfm.training.weight_average import WeightAverage, averaging

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Loss = Callable[[nn.Module, int, int, int], Tensor]
"""From the field, the step's number, and this process's number of how many, to the loss of its share of the batch."""


class TrainingStoppedError(Exception):
    """Raised by a validation that ends the training, with the reason: the weights validated are not kept."""


def optimise(
    field: nn.Module,
    loss: Loss,
    validate: Callable[[nn.Module], float | Validation],
    budget: Budget,
    fabric: "Fabric",
    *,
    measure: str = "validation_nll",
    validate_start: bool = False,
    generator: torch.Generator | None = None,
    capture: bool = True,
    folder: Path | None = None,
    checkpoint: Checkpoint | None = None,
    fingerprint: str = "",
    report: Report | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Checkpoint:
    """Train a network in place; what is returned holds the averaged weights of its best validation.

    Buffers, such as running statistics of batch normalisation, are not averaged but copied. The network is in training
    mode, and in its own again afterwards; that with averaged weights is in evaluation mode.

    Args:
        field: the network; it is moved to the fabric's device and ends with the weights of the last step.
        loss: of a step.
        validate: from the network with averaged weights to a number that is to be small, alone or in a `Validation`;
            the same in every process, and NaN where it is not known yet. It may raise `TrainingStoppedError`.
        budget: steps, learning rate, seed, time, validations.
        fabric: a launched Fabric: device, precision, processes. The network runs in its precision; points and times are
            as the loss makes them.
        measure: what the number is called in the history.
        validate_start: validate the weights before the first step too.
        generator: what the loss draws from, if that is all it needs of a step's number: it is seeded before each.
        capture: replay the step as one graph, where there is a ``generator``, on a GPU, in one process.
        folder: where to keep checkpoints; none are kept when None.
        checkpoint: a checkpoint to go on from.
        fingerprint: what identifies data and settings in a checkpoint.
        report: called after every step.
        clock: returns the seconds that have passed.

    Raises:
        ValueError: if the loss is no longer finite, the step cannot be captured though it seemed so, or a validation
            raises `TrainingStoppedError` before any has been kept.
    """
    state = Checkpoint.start(measure) if checkpoint is None else checkpoint
    loop = _Loop(field, loss, budget, fabric, state, generator, capture, clock)
    if checkpoint is not None:
        loop.restore()
    every = max(1, budget.steps // budget.validations)
    spent = fabric.broadcast(budget.spent(state.step, state.seconds))
    with in_training_mode(field), _own_randomness(fabric.device) as seed_layers:
        if validate_start and checkpoint is None:
            loop.validate(validate)
        while spent < 1 and state.since_best < budget.patience and not state.stopped:
            seed_layers(step_seed(budget.seed + 1 + fabric.global_rank, state.step))
            loop.step(spent)
            spent = budget.spent(state.step, state.seconds)
            if budget.max_seconds and fabric.world_size > 1:
                # Clocks differ between processes; all must stop at the same step.
                spent = fabric.broadcast(spent)
            if state.step % every == 0 or spent >= 1:
                loop.validate(validate)
                if folder is not None and fabric.is_global_zero:
                    loop.save(folder, fingerprint)
            if report is not None:
                report(spent, loop.record())
    state.capped = not state.stopped and state.step < budget.steps and state.since_best < budget.patience
    state.stopped = state.stopped or _why(budget, state)
    return state


class _Loop:
    """What training goes through in steps: a network, its optimiser, the average of its weights, the clocks.

    Args:
        field: see `optimise`, as for those that follow.
        loss: of a step.
        budget: steps, learning rate, seed, time.
        fabric: a launched Fabric.
        state: where the run stands.
        generator: what the loss draws from.
        capture: replay the step as one graph, where it can be.
        clock: returns the seconds that have passed.
    """

    def __init__(
        self,
        field: nn.Module,
        loss: Loss,
        budget: Budget,
        fabric: "Fabric",
        state: Checkpoint,
        generator: torch.Generator | None,
        capture: bool,
        clock: Callable[[], float],
    ) -> None:
        self.field, self.budget, self.fabric, self.state, self.generator = field, budget, fabric, state, generator
        self.parameters = [p for p in field.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=budget.learning_rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True
        )
        self.step_module, self.fabric_optimizer = fabric.setup(_Step(field, loss), self.optimizer)
        self.ema_every, ema_decay = averaging(budget.steps)
        self.average = WeightAverage(field, ema_decay)
        self.running: Tensor | None = None
        """A moving average of the loss."""
        self._take: Callable[[], Tensor] = self._plain
        if capture and generator is not None and _on_one_gpu(fabric):
            self._take = CapturedStep(self._loss, self._update, self.optimizer, generator, tuple(field.buffers()))
            for group in self.optimizer.param_groups:
                group["lr"] = torch.tensor(budget.learning_rate, device=fabric.device)
        self._clock, self._started = clock, clock() - state.seconds
        self._cpu_started = time.process_time() - state.cpu_seconds

    def record(self) -> dict[str, Any]:
        """Return what is reported of the last step."""
        replayed = isinstance(self._take, CapturedStep) and self._take.captured
        return {"step": self.state.step, "loss": self.running, "replayed": replayed, **self.state.last_validation}

    def restore(self) -> None:
        """Put back what a checkpoint holds."""
        state = self.state
        state.restore(self.field, self.average.module, self.optimizer, self.parameters)
        self.average.updates = state.step // self.ema_every
        if state.precision:
            self.fabric.strategy.precision.load_state_dict(state.precision)

    def step(self, spent: float) -> None:
        """Take one step, when that share of the budget is spent."""
        budget, state = self.budget, self.state
        _set_learning_rate(self.optimizer, budget.learning_rate_at(state.step, spent))
        if self.generator is not None:
            self.generator.manual_seed(step_seed(budget.seed, state.step))
        loss = self._take()
        state.step += 1
        if state.step % self.ema_every == 0:
            self.average.update(self.field)
        state.seconds = self._clock() - self._started
        if self.running is None and state.history and "loss" in state.history[-1]:
            self.running = loss.new_tensor(state.history[-1]["loss"])
        self.running = loss if self.running is None else torch.lerp(self.running, loss, 0.02)

    def _loss(self) -> Tensor:
        value: Tensor = self.step_module(self.state.step, self.fabric.global_rank, self.fabric.world_size)
        return value

    def _update(self, value: Tensor) -> None:
        self.fabric.backward(value)
        scaler = getattr(self.fabric.strategy.precision, "scaler", None)
        _clip(self.parameters, self.budget.max_gradient_norm, scaler)
        self.fabric_optimizer.step()
        self.fabric_optimizer.zero_grad()

    def _plain(self) -> Tensor:
        value = self._loss()
        self._update(value)
        return value.detach()

    def validate(self, validate: Callable[[nn.Module], float | Validation]) -> None:
        """Note what a validation of the averaged weights finds, and keep them if they are the best.

        Raises:
            ValueError: if the loss is no longer finite, or the first validation ends the training.
        """
        state, device = self.state, self.fabric.device
        if device.type == "cuda":
            # Steps are started ahead of the GPU; clocks are to show what is done.
            torch.cuda.synchronize(device)
            state.seconds = self._clock() - self._started
        state.cpu_seconds = time.process_time() - self._cpu_started
        if self.fabric.world_size > 1:
            # Running statistics are those of each process's share of the batch.
            for buffer in self.average.module.buffers():
                torch.distributed.broadcast(buffer, 0)
        averaged = self.average.in_precision_of_field()
        try:
            with precision_of_weights(averaged):
                found = Validation.of(validate(averaged))
        except TrainingStoppedError as reason:
            if not state.best:
                raise ValueError(str(reason)) from None
            state.stopped = f"{reason}, at step {state.step} of {self.budget.steps}"
            return
        if self.running is not None and not math.isfinite(self.running):
            raise ValueError(
                f"training diverged by step {state.step} (loss {float(self.running):g}, {_words(state.measure)} "
                f"{found.value:g}); lower learning_rate, or look for outliers in the points"
            )
        state.record(found, None if self.running is None else float(self.running), averaged)
        state.seconds = self._clock() - self._started
        state.cpu_seconds = time.process_time() - self._cpu_started

    def save(self, folder: Path, fingerprint: str) -> None:
        """Write a checkpoint."""
        self.state.precision = self.fabric.strategy.precision.state_dict()
        self.state.save(folder, fingerprint, self.field, self.average.module, self.optimizer, self.parameters)


@contextmanager
def _own_randomness(device: torch.device) -> Iterator[Callable[[int], None]]:
    """Yield what seeds the draws of layers such as dropout, which know global randomness only, and put that back."""
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        yield torch.cuda.manual_seed if cuda else _seed_cpu


def _seed_cpu(seed: int) -> None:
    torch.default_generator.manual_seed(seed)


class _Step(nn.Module):
    """The loss as a module: what wraps a network for precision or several processes wraps the step as one.

    So no input is rounded on the way in, and a loss may call any method of the field.
    """

    def __init__(self, field: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.field, self._loss, self._dtype = field, loss, torch.get_default_dtype()

    def forward(self, step: int, rank: int, world: int) -> Tensor:
        # Fabric makes the dtype of the weights the default one, but what a loss draws is in float32.
        with default_dtype(self._dtype), precision_of_weights(self.field):
            return self._loss(self.field, step, rank, world)


def _clip(parameters: list[nn.Parameter], longest: float, scaler: Any) -> None:
    """Shorten the gradient to a norm of ``longest``, times the scale that a loss in float16 is multiplied by."""
    if scaler is None:
        nn.utils.clip_grad_norm_(parameters, longest)
        return
    # Unscaled by the fused optimiser later. The scale stays on the GPU: asking for it would wait for the step.
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    scaled = scaler.scale(torch.full_like(norm, longest))
    torch._foreach_mul_(gradients, (scaled / (norm + 1e-6)).clamp(max=1))


def _on_one_gpu(fabric: "Fabric") -> bool:
    """Return whether there is one process with a GPU, and nothing between it and the gradients."""
    from lightning_fabric.strategies.single_device import SingleDeviceStrategy

    return fabric.device.type == "cuda" and isinstance(fabric.strategy, SingleDeviceStrategy)


def _set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            # In place: a captured step reads it there.
            group["lr"].fill_(value)
        else:
            group["lr"] = value


def _why(budget: Budget, state: Checkpoint) -> str:
    if state.step >= budget.steps:
        return f"all {budget.steps} steps done"
    if state.since_best >= budget.patience:
        return (
            f"{_words(state.measure)} had not improved for {budget.patience} validations, at step {state.step} of "
            f"{budget.steps}"
        )
    return f"the cap of {budget.max_seconds:g} seconds was reached at step {state.step} of {budget.steps}"


def _words(measure: str) -> str:
    return measure.replace("_", " ").replace("nll", "NLL")


def step_seed(seed: int, step: int) -> int:
    """Return a seed for one step of one run: splitmix64, so that neighbouring steps get unrelated generators."""
    z = (seed * 0x9E3779B97F4A7C15 + (step + 1) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return (z ^ (z >> 31)) >> 1
