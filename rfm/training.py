"""The training loop: regression of the field on conditional velocities, on Lightning Fabric.

Every step draws its batch from a generator seeded by the run's seed and the step's number. A batch therefore depends on
nothing but the step: a resumed run sees what the uninterrupted one would have seen, and each of several processes takes
its share of the batch that one process would have drawn.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from rfm.checkpoint import Checkpoint
from rfm.couplings import Coupling
from rfm.flow import Flow
from rfm.integrators import Adaptive, IntegrationError
from rfm.likelihood import log_prob
from rfm.losses import flow_matching_loss
from rfm.objectives import Objective
from rfm.paths import ConditionalPath, GeodesicPath
from rfm.times import TimeSampler, UniformAndLateTimes

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_WARMUP_STEPS = 100
_EMA_DECAY = 0.998
_EMA_EVERY, _EMA_LONG = 4, 1000
"""In a run of at least this many steps the weights are averaged every so many: they hardly move in between."""
_EMA_LONGEST_SHARE = 0.2
"""The weights are averaged over at most this share of a run, or a short one would remember where it began."""
_CONDITION_DROPOUT = 0.1
_PARTIAL_CONDITIONS = 0.3
_PATIENCE = 8
_VALIDATIONS = 16
_VALIDATION_POINTS = 512
_VALIDATION_SOLVER = Adaptive(atol=1e-3, rtol=1e-3)


@dataclass(frozen=True)
class Points:
    """Data points with what belongs to them.

    Args:
        x: ``(n, *event_shape)``.
        condition: ``(n, c)``, or None.
        weights: ``(n,)``, not negative, or None for equal ones.
    """

    x: Tensor
    condition: Tensor | None = None
    weights: Tensor | None = None

    def take(self, index: Tensor) -> "Points":
        """Return the points at ``index``."""
        condition = None if self.condition is None else self.condition[index]
        return Points(self.x[index], condition, None if self.weights is None else self.weights[index])

    def to(self, device: torch.device) -> "Points":
        """Return the points on ``device``."""
        condition = None if self.condition is None else self.condition.to(device)
        return Points(self.x.to(device), condition, None if self.weights is None else self.weights.to(device))


@dataclass(frozen=True)
class Budget:
    """How long to train, and how.

    Args:
        steps: optimiser steps.
        batch_size: pairs per step, over all processes.
        learning_rate: its peak; it warms up over 100 steps and falls to zero along a cosine.
        seed: of every random draw.
        max_seconds: a cap on the time spent training; the learning rate falls to zero by whichever end is nearer.
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


class Batches(Protocol):
    """What makes the training batch of each step, from nothing but the step's number."""

    generator: torch.Generator
    """Source of the step's randomness, seeded by `batch`."""

    def batch(self, step: int, rank: int = 0, world: int = 1) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
        """Return source points, targets, times and conditions: every ``world``-th pair from ``rank`` on."""
        ...


class BatchSampler:
    """Draws the training batch of each step from points.

    Args:
        flow: gives the source and the manifold.
        train: the data, on the device to train on.
        budget: batch size and seed.
        coupling: which source point goes with which target; independent when None.
        drop_condition: make a tenth of the conditions unknown (NaN), so that the field learns the unconditional
            velocity too (Ho & Salimans, Classifier-Free Diffusion Guidance, 2022, arXiv:2207.12598), and random parts
            of three more tenths where a condition has several entries, so that any of them may be given.
        times: how to draw times; `rfm.times.UniformAndLateTimes` when None.
    """

    def __init__(
        self,
        flow: Flow,
        train: Points,
        budget: Budget,
        coupling: Coupling | None,
        drop_condition: bool,
        times: TimeSampler | None = None,
    ) -> None:
        self.source, self.train, self.budget, self.coupling = flow.source, train, budget, coupling
        self.drop_condition = drop_condition
        self.times = UniformAndLateTimes() if times is None else times
        self.generator = torch.Generator(train.x.device)
        self.cumulative = None if train.weights is None else (train.weights / train.weights.sum()).double().cumsum(0)

    def batch(self, step: int, rank: int = 0, world: int = 1) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
        """Return source points, targets, times and conditions: every ``world``-th pair from ``rank`` on."""
        x, size = self.train.x, self.budget.batch_size
        generator = self.generator.manual_seed(mix_seed(self.budget.seed, step))
        like: dict[str, Any] = {"generator": generator, "device": x.device}
        if self.cumulative is None:
            index = torch.randint(len(x), (size,), **like)
        else:
            uniform = torch.rand(size, dtype=torch.float64, **like)
            index = torch.searchsorted(self.cumulative, uniform).clamp(max=len(x) - 1)
        x_0, x_1 = self.source.sample((size,), dtype=x.dtype, **like), x[index]
        t = self.times.sample((size,), dtype=x.dtype, **like)
        given = None if self.train.condition is None else self.train.condition[index]
        if given is not None and self.drop_condition:
            given = torch.where(_hidden(given.shape, like), math.nan, given)
        if self.coupling is not None:
            x_0 = x_0[self.coupling(x_0, x_1, condition=given, generator=generator)]
        share = slice(rank, None, world)
        condition = {} if given is None else {"condition": given[share]}
        return x_0[share], x_1[share], t[share], condition


def train(
    flow: Flow,
    data: Points | Batches,
    validation: Points | Callable[[nn.Module], float],
    budget: Budget,
    fabric: "Fabric",
    *,
    objective: Objective | None = None,
    coupling: Coupling | None = None,
    path: ConditionalPath | None = None,
    times: TimeSampler | None = None,
    drop_condition: bool = False,
    folder: Path | None = None,
    checkpoint: Checkpoint | None = None,
    fingerprint: str = "",
    report: Callable[[float, dict[str, Any]], None] | None = None,
) -> None:
    """Train ``flow.field`` in place; the flow ends with the averaged weights of the best validation.

    Args:
        flow: manifold, field and source; the field is a module.
        data: training points, or what makes the batches.
        validation: points whose negative log-likelihood decides when to stop and which weights to keep; 512 of them,
            evenly spaced, if there are more. Or a function that returns it, given the field with averaged weights.
        budget: steps, batch size, learning rate, seed, time.
        fabric: a launched Fabric: device, precision, processes.
        objective: what each step minimises; flow matching on geodesics when None.
        coupling: see `BatchSampler`.
        path: whose velocity is regressed on; the geodesic at constant speed when None.
        times: see `BatchSampler`.
        drop_condition: see `BatchSampler`.
        folder: where to keep checkpoints; none are kept when None.
        checkpoint: a checkpoint to go on from.
        fingerprint: what identifies data and settings in a checkpoint.
        report: called after every step with the share of the budget spent and a record of step, loss, seconds and
            the last validation_nll.

    Raises:
        ValueError: if the loss is no longer finite, or the validation points have no finite likelihood at any time.
    """
    assert isinstance(flow.field, nn.Module)
    parameters = [p for p in flow.field.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=budget.learning_rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    ema_every, ema_decay = _ema(budget.steps)
    average = torch.optim.swa_utils.AveragedModel(
        flow.field, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(ema_decay)
    )
    average.to(fabric.device)
    model, fabric_optimizer = fabric.setup(flow.field, optimizer)
    flow.source.to(fabric.device)
    if isinstance(validation, Points):
        # Evenly spaced: enough to tell better from worse, at a small share of the time that training takes.
        some = torch.linspace(0, len(validation.x) - 1, min(len(validation.x), _VALIDATION_POINTS)).round().long()
        validation = validation.take(some).to(fabric.device)
    state = Checkpoint.start() if checkpoint is None else checkpoint
    if checkpoint is not None:
        checkpoint.restore(flow.field, average.module, optimizer, parameters)
        average.n_averaged.fill_(checkpoint.step // ema_every)
    if isinstance(data, Points):
        data = BatchSampler(flow, data.to(fabric.device), budget, coupling, drop_condition, times)
    path = GeodesicPath(flow.manifold) if path is None else path
    every = max(1, budget.steps // _VALIDATIONS)
    started, cpu_started = time.monotonic() - state.seconds, time.process_time() - state.cpu_seconds
    running: Tensor | None = None

    spent = fabric.broadcast(budget.spent(state.step, state.seconds))
    while spent < 1 and state.since_best < _PATIENCE:
        for group in optimizer.param_groups:
            group["lr"] = budget.learning_rate_at(state.step, spent)
        x_0, x_1, t, condition = data.batch(state.step, fabric.global_rank, fabric.world_size)
        if objective is None:
            loss = flow_matching_loss(model, path, x_0, x_1, t, **condition)
        else:
            loss = objective(model, flow.source, x_0, x_1, t, generator=data.generator, **condition)
        fabric.backward(loss)
        nn.utils.clip_grad_norm_(parameters, 10.0)
        fabric_optimizer.step()
        fabric_optimizer.zero_grad()
        state.step += 1
        if state.step % ema_every == 0:
            average.update_parameters(flow.field)
        state.seconds = time.monotonic() - started
        if running is None and state.history:
            running = loss.new_tensor(state.history[-1]["loss"])
        running = loss.detach() if running is None else torch.lerp(running, loss.detach(), 0.02)
        spent = budget.spent(state.step, state.seconds)
        if budget.max_seconds and fabric.world_size > 1:
            # Clocks differ between processes; all must stop at the same step.
            spent = fabric.broadcast(spent)
        if state.step % every == 0 or spent >= 1:
            state.cpu_seconds = time.process_time() - cpu_started
            if isinstance(validation, Points):
                nll = _validate(flow, average.module, validation, fabric)
            else:
                nll = validation(average.module)
            if not math.isfinite(running):
                raise ValueError(
                    f"fit: training diverged by step {state.step} (loss {float(running):g}, validation NLL {nll:g}); "
                    "lower learning_rate, or look for outliers in the points"
                )
            state.record(nll, float(running), average.module)
            state.seconds, state.cpu_seconds = time.monotonic() - started, time.process_time() - cpu_started
            if folder is not None and fabric.is_global_zero:
                state.save(folder, fingerprint, flow.field, average.module, optimizer, parameters)
        if report is not None:
            report(spent, {"step": state.step, "loss": running, **state.last_validation})
    flow.history = state.history
    flow.stopped = _why(budget, state)
    if not state.best:
        raise ValueError(
            f"fit: no finite likelihood of the validation points at any of {len(state.history)} validations: the field "
            "cannot be integrated, or takes them where the source has no density; lower learning_rate, or take another "
            "source"
        )
    flow.field.load_state_dict(state.best)
    flow.eval()


@torch.no_grad()
def _validate(flow: Flow, field: nn.Module, validation: Points, fabric: "Fabric") -> float:
    """Return the mean negative log-likelihood of the validation points in nats, shared between the processes.

    NaN where the field cannot be integrated.
    """
    part = validation.take(torch.arange(fabric.global_rank, len(validation.x), fabric.world_size).to(fabric.device))
    condition = {} if part.condition is None else {"condition": part.condition}
    try:
        nll = -log_prob(field, flow.source, part.x, _VALIDATION_SOLVER, **condition).double()
    except IntegrationError:
        # Not raised here: the other processes wait for this one's share.
        nll = part.x.new_full((len(part.x),), math.nan, dtype=torch.float64)
    weights = torch.ones_like(nll) if part.weights is None else part.weights.to(nll)
    total = torch.stack([(weights * nll).sum(), weights.sum()])
    if fabric.world_size > 1:
        torch.distributed.all_reduce(total)
    return float(total[0] / total[1])


def _hidden(shape: torch.Size, like: dict[str, Any]) -> Tensor:
    """Return which entries of a batch of conditions ``(n, c)`` are to be unknown."""
    n, c = shape
    draw = torch.rand(n, 1, **like)
    hidden = (draw < _CONDITION_DROPOUT).expand(n, c)
    if c > 1:
        partial = draw < _CONDITION_DROPOUT + _PARTIAL_CONDITIONS
        hidden = hidden | (partial & (torch.rand(n, c, **like) < 0.5))
    return hidden


def _ema(steps: int) -> tuple[int, float]:
    """Return how often the average of the weights is updated, in steps, and its decay each time."""
    every = _EMA_EVERY if steps >= _EMA_LONG else 1
    return every, max(0.0, min(_EMA_DECAY, 1 - 1 / (_EMA_LONGEST_SHARE * steps))) ** every


def _why(budget: Budget, state: Checkpoint) -> str:
    if state.step >= budget.steps:
        return f"all {budget.steps} steps done"
    if state.since_best >= _PATIENCE:
        return f"validation NLL had not improved for {_PATIENCE} validations, at step {state.step} of {budget.steps}"
    return f"the cap of {budget.max_seconds:g} seconds was reached at step {state.step} of {budget.steps}"


def mix_seed(seed: int, step: int) -> int:
    """Return a seed for one step of one run: splitmix64, so that neighbouring steps get unrelated generators."""
    z = (seed * 0x9E3779B97F4A7C15 + (step + 1) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return (z ^ (z >> 31)) >> 1
