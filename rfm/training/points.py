"""Training on points of a manifold: regression of the field on conditional velocities.

Every step draws its batch from a generator that is seeded by the run's seed and the step's number. A batch therefore
depends on nothing but the step: a resumed run sees what the uninterrupted one would have seen, and each of several
processes takes its share of the batch that one process would have drawn.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rfm.couplings import Coupling
from rfm.flow import Flow
from rfm.integrators import Adaptive, IntegrationError
from rfm.likelihood import log_prob
from rfm.objectives import Objective
from rfm.objectives.regression import flow_matching_loss
from rfm.paths import ConditionalPath, GeodesicPath
from rfm.paths.times import TimeSampler, UniformAndLateTimes
from rfm.training.checkpoint import Checkpoint
from rfm.training.loop import Budget, optimise

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_CONDITION_DROPOUT = 0.1
_PARTIAL_CONDITIONS = 0.3
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


class BatchSampler:
    """Draws training batches, from a generator that the caller seeds.

    Args:
        flow: gives the source and the manifold.
        train: the data, on the device to train on.
        size: pairs in a batch.
        coupling: which source point goes with which target; independent when None.
        drop_condition: make a tenth of the conditions unknown (NaN), so that the field learns the unconditional
            velocity too (Ho & Salimans, Classifier-Free Diffusion Guidance, 2022, arXiv:2207.12598), and random parts
            of three more tenths where a condition has several entries, so that any of them may be given.
        times: how to draw times; `rfm.paths.times.UniformAndLateTimes` when None.
    """

    def __init__(
        self,
        flow: Flow,
        train: Points,
        size: int,
        coupling: Coupling | None,
        drop_condition: bool,
        times: TimeSampler | None = None,
    ) -> None:
        self.source, self.train, self.size, self.coupling = flow.source, train, size, coupling
        self.drop_condition = drop_condition
        self.times = UniformAndLateTimes() if times is None else times
        self.generator = torch.Generator(train.x.device)
        self.cumulative = None if train.weights is None else (train.weights / train.weights.sum()).double().cumsum(0)

    def batch(self, rank: int = 0, world: int = 1) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
        """Return source points, targets, times and conditions: every ``world``-th pair from ``rank`` on."""
        x, size, generator = self.train.x, self.size, self.generator
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
    data: Points,
    validation: Points,
    budget: Budget,
    fabric: "Fabric",
    *,
    objective: Objective | None = None,
    coupling: Coupling | None = None,
    path: ConditionalPath | None = None,
    times: TimeSampler | None = None,
    drop_condition: bool = False,
    capture: bool = True,
    folder: Path | None = None,
    checkpoint: Checkpoint | None = None,
    fingerprint: str = "",
    report: Callable[[float, dict[str, Any]], None] | None = None,
) -> Checkpoint:
    """Train ``flow.field`` in place; the flow ends with the averaged weights of the best validation.

    Args:
        flow: manifold, field and source; the field is a module.
        data: training points.
        validation: points whose negative log-likelihood decides when to stop and which weights to keep; 512 of them,
            evenly spaced, if there are more.
        budget: steps, batch size, learning rate, seed, time.
        fabric: a launched Fabric: device, precision, processes.
        objective: what each step minimises; flow matching on geodesics when None.
        coupling: see `BatchSampler`.
        path: whose velocity is regressed on; the geodesic at constant speed when None.
        times: see `BatchSampler`.
        drop_condition: see `BatchSampler`.
        capture: on a GPU, replay the step as one graph; an ``objective``, whose code is not known, never is.
        folder: where to keep checkpoints; none are kept when None.
        checkpoint: a checkpoint to go on from.
        fingerprint: what identifies data and settings in a checkpoint.
        report: called after every step with the share of the budget spent and a record of step, loss, seconds and
            the last validation_nll.

    Returns:
        Where the run ended.

    Raises:
        ValueError: if the loss is no longer finite, or the validation points have no finite likelihood at any time.
    """
    assert isinstance(flow.field, nn.Module)
    flow.source.to(fabric.device)
    # Evenly spaced: enough to tell better from worse, at a small share of the time that training takes.
    some = torch.linspace(0, len(validation.x) - 1, min(len(validation.x), _VALIDATION_POINTS)).round().long()
    held_out = validation.take(some).to(fabric.device)
    sampler = BatchSampler(flow, data.to(fabric.device), budget.batch_size, coupling, drop_condition, times)
    along = GeodesicPath(flow.manifold) if path is None else path

    def loss(model: nn.Module, step: int, rank: int, world: int) -> Tensor:
        x_0, x_1, t, condition = sampler.batch(rank, world)
        if objective is None:
            return flow_matching_loss(model, along, x_0, x_1, t, **condition)
        return objective(model, flow.source, x_0, x_1, t, generator=sampler.generator, **condition)

    state = optimise(
        flow.field,
        loss,
        lambda field: _validate(flow, field, held_out, fabric),
        budget,
        fabric,
        generator=sampler.generator,
        capture=capture and objective is None,
        folder=folder,
        checkpoint=checkpoint,
        fingerprint=fingerprint,
        report=report,
    )
    adopt(flow, state)
    return state


def adopt(flow: Flow, state: Checkpoint) -> None:
    """Give a flow the history of a run that has ended, and the averaged weights of its best validation.

    Raises:
        ValueError: if no validation was finite.
    """
    assert isinstance(flow.field, nn.Module)
    flow.history, flow.stopped = state.history, state.stopped
    if not state.best:
        raise ValueError(
            f"no finite likelihood of the validation points at any of {len(state.history)} validations: the field "
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
