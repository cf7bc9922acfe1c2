"""The training loop, on Lightning Fabric: averaged weights, validation, checkpoints, resuming.

What a step draws has to depend on nothing but the run's seed and the step's number (`step_seed`). A resumed run then
sees what the uninterrupted one would have seen, and several processes share what one would have drawn. Where nothing
else changes from step to step, a GPU replays a captured step (`rfm.training.captured_step`).
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rfm.networks.modes import in_training_mode
from rfm.networks.precision import default_dtype, precision_of_weights
from rfm.training.captured_step import CapturedStep
from rfm.training.checkpoint import Checkpoint
from rfm.training.weight_average import WeightAverage

if TYPE_CHECKING:
    from lightning_fabric import Fabric

VALIDATIONS, PATIENCE = 16, 8
"""How many validations a run has, and how many in turn may pass without a better one, unless it says otherwise."""
_WARMUP_STEPS = 100
_LONGEST_GRADIENT = 10.0
_EMA_DECAY = 0.998
_EMA_EVERY, _EMA_LONG = 4, 1000
"""In a run of at least this many steps the weights are averaged every so many: they hardly move in between."""
_EMA_LONGEST_SHARE = 0.2
"""The weights are averaged over at most this share of a run, or a short one would remember where it began."""

Loss = Callable[[nn.Module, int, int, int], Tensor]
"""From the field, the step's number, and this process's number of how many, to the loss of its share of the batch."""


@dataclass(frozen=True)
class Budget:
    """How long to train, and how.

    Args:
        steps: optimiser steps.
        batch_size: pairs per step, over all processes.
        learning_rate: its peak; it warms up over 100 steps and falls to zero along a cosine.
        seed: of every random draw.
        max_seconds: a cap on the time spent training, before and after a resumption together; the learning rate falls
            to zero by whichever end is nearer.
    """

    steps: int
    batch_size: int
    learning_rate: float
    seed: int
    max_seconds: float | None = None

    def spent(self, step: int, seconds: float) -> float:
        """Return the share of the budget that is used up, at least 1 when training ends."""
        by_time = seconds / self.max_seconds if self.max_seconds else 0.0
        return max(step / self.steps, by_time)

    def learning_rate_at(self, step: int, spent: float) -> float:
        """Return the learning rate of a step."""
        return self.learning_rate * min(1.0, (step + 1) / _WARMUP_STEPS) * (1 + math.cos(math.pi * min(spent, 1.0))) / 2


def optimise(
    field: nn.Module,
    loss: Loss,
    validate: Callable[[nn.Module], float],
    budget: Budget,
    fabric: "Fabric",
    *,
    validations: int | None = None,
    patience: int | None = None,
    measure: str = "validation_nll",
    generator: torch.Generator | None = None,
    capture: bool = True,
    folder: Path | None = None,
    checkpoint: Checkpoint | None = None,
    fingerprint: str = "",
    report: Callable[[float, dict[str, Any]], None] | None = None,
) -> Checkpoint:
    """Train a network in place; what is returned holds the averaged weights of its best validation.

    Buffers, such as running statistics of batch normalisation, are not averaged but copied. The network is in training
    mode, and in its own again afterwards; that with averaged weights is in evaluation mode.

    Args:
        field: the network; it is moved to the fabric's device and ends with the weights of the last step.
        loss: of a step.
        validate: from the network with averaged weights to a number that is to be small; the same in every process, and
            NaN where it is not known yet.
        budget: steps, learning rate, seed, time.
        fabric: a launched Fabric: device, precision, processes. The network runs in its precision; points and times are
            as the loss makes them.
        validations: how many there are, spread evenly; each also writes a checkpoint. 16 by default.
        patience: training stops when so many validations have passed without a better one; 8 by default.
        measure: what the number is called in the history.
        generator: what the loss draws from, if that is all it needs of a step's number: it is seeded before each.
        capture: replay the step as one graph, where there is a ``generator``, on a GPU, in one process.
        folder: where to keep checkpoints; none are kept when None.
        checkpoint: a checkpoint to go on from.
        fingerprint: what identifies data and settings in a checkpoint.
        report: called after every step with the share of the budget spent and a record of step, loss, seconds and the
            last validation.

    Raises:
        ValueError: if the loss is no longer finite, or the step cannot be captured though it seemed so.
    """
    validations = VALIDATIONS if validations is None else validations
    patience = PATIENCE if patience is None else patience
    parameters = [p for p in field.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=budget.learning_rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    step_module, fabric_optimizer = fabric.setup(_Step(field, loss), optimizer)
    ema_every, ema_decay = _ema(budget.steps)
    average = WeightAverage(field, ema_decay)
    captures = capture and generator is not None and _on_one_gpu(fabric)
    state = Checkpoint.start(measure) if checkpoint is None else checkpoint
    if checkpoint is not None:
        checkpoint.restore(field, average.module, optimizer, parameters)
        average.updates = checkpoint.step // ema_every
        if checkpoint.precision:
            fabric.strategy.precision.load_state_dict(checkpoint.precision)
    every = max(1, budget.steps // validations)
    started, cpu_started = time.monotonic() - state.seconds, time.process_time() - state.cpu_seconds
    running: Tensor | None = None
    if captures:
        for group in optimizer.param_groups:
            group["lr"] = torch.tensor(budget.learning_rate, device=fabric.device)

    def step_loss() -> Tensor:
        value: Tensor = step_module(state.step, fabric.global_rank, fabric.world_size)
        return value

    def update(value: Tensor) -> None:
        fabric.backward(value)
        _clip(parameters, getattr(fabric.strategy.precision, "scaler", None))
        fabric_optimizer.step()
        fabric_optimizer.zero_grad()

    def plain() -> Tensor:
        value = step_loss()
        update(value)
        return value.detach()

    take = plain
    if captures:
        assert generator is not None
        take = CapturedStep(step_loss, update, optimizer, generator, tuple(field.buffers()))

    spent = fabric.broadcast(budget.spent(state.step, state.seconds))
    with in_training_mode(field), _own_randomness(fabric.device) as seed_layers:
        while spent < 1 and state.since_best < patience:
            _set_learning_rate(optimizer, budget.learning_rate_at(state.step, spent))
            if generator is not None:
                generator.manual_seed(step_seed(budget.seed, state.step))
            seed_layers(step_seed(budget.seed + 1 + fabric.global_rank, state.step))
            found_loss = take()
            state.step += 1
            if state.step % ema_every == 0:
                average.update(field)
            state.seconds = time.monotonic() - started
            if running is None and state.history:
                running = found_loss.new_tensor(state.history[-1]["loss"])
            running = found_loss if running is None else torch.lerp(running, found_loss, 0.02)
            spent = budget.spent(state.step, state.seconds)
            if budget.max_seconds and fabric.world_size > 1:
                # Clocks differ between processes; all must stop at the same step.
                spent = fabric.broadcast(spent)
            if state.step % every == 0 or spent >= 1:
                if fabric.device.type == "cuda":
                    # Steps are started ahead of the GPU; clocks are to show what is done.
                    torch.cuda.synchronize(fabric.device)
                    state.seconds = time.monotonic() - started
                state.cpu_seconds = time.process_time() - cpu_started
                if fabric.world_size > 1:
                    # Running statistics are those of each process's share of the batch.
                    for buffer in average.module.buffers():
                        torch.distributed.broadcast(buffer, 0)
                shown = average.in_precision_of_field()
                with precision_of_weights(shown):
                    found = validate(shown)
                if not math.isfinite(running):
                    raise ValueError(
                        f"training diverged by step {state.step} (loss {float(running):g}, {_words(measure)} "
                        f"{found:g}); lower learning_rate, or look for outliers in the points"
                    )
                state.record(found, float(running), shown)
                state.seconds, state.cpu_seconds = time.monotonic() - started, time.process_time() - cpu_started
                if folder is not None and fabric.is_global_zero:
                    state.precision = fabric.strategy.precision.state_dict()
                    state.save(folder, fingerprint, field, average.module, optimizer, parameters)
            if report is not None:
                report(spent, {"step": state.step, "loss": running, **state.last_validation})
    state.stopped = _why(budget, state, patience)
    state.capped = state.step < budget.steps and state.since_best < patience
    return state


@contextmanager
def _own_randomness(device: torch.device) -> Iterator[Callable[[int], None]]:
    """Yield what seeds the draws of layers such as dropout, which know global randomness only, and put that back."""
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        yield torch.cuda.manual_seed if cuda else _seed_cpu


def _seed_cpu(seed: int) -> None:
    torch.default_generator.manual_seed(seed)


class _Step(nn.Module):
    """The loss as a module: what wraps a network for precision or several processes wraps the whole step.

    So no input is rounded on the way in, and a loss may call any method of the field.
    """

    def __init__(self, field: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.field, self._loss, self._dtype = field, loss, torch.get_default_dtype()

    def forward(self, step: int, rank: int, world: int) -> Tensor:
        # Fabric makes the dtype of the weights the default one, but what a loss draws is in float32.
        with default_dtype(self._dtype), precision_of_weights(self.field):
            return self._loss(self.field, step, rank, world)


def _clip(parameters: list[nn.Parameter], scaler: Any) -> None:
    """Shorten the gradient to a norm of at most 10, times the scale that a loss in float16 is multiplied by."""
    if scaler is None:
        nn.utils.clip_grad_norm_(parameters, _LONGEST_GRADIENT)
        return
    # Unscaled by the fused optimiser later. The scale stays on the GPU: asking for it would wait for the step.
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    longest = scaler.scale(torch.full_like(norm, _LONGEST_GRADIENT))
    torch._foreach_mul_(gradients, (longest / (norm + 1e-6)).clamp(max=1))


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


def _ema(steps: int) -> tuple[int, float]:
    """Return how often the average of the weights is updated, in steps, and its decay each time."""
    every = _EMA_EVERY if steps >= _EMA_LONG else 1
    return every, max(0.0, min(_EMA_DECAY, 1 - 1 / (_EMA_LONGEST_SHARE * steps))) ** every


def _why(budget: Budget, state: Checkpoint, patience: int) -> str:
    if state.step >= budget.steps:
        return f"all {budget.steps} steps done"
    if state.since_best >= patience:
        return (
            f"{_words(state.measure)} had not improved for {patience} validations, at step {state.step} of "
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
