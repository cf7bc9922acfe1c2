"""Training on points of a manifold: batches of pairs, and the likelihood of points held out.

Every step draws its batch from a generator that is seeded by the run's seed and the step's number. A batch therefore
depends on nothing but the step: a resumed run sees what the uninterrupted one would have seen, and each of several
processes takes its share of the batch that one process would have drawn.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rfm.couplings import Coupling, Independent
from rfm.couplings.coupling import checked_pairs
from rfm.flow import Flow
from rfm.integrators import Adaptive, IntegrationError
from rfm.likelihood import log_prob
from rfm.objectives import Objective
from rfm.sources import Source
from rfm.training.run import Run

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
        source: the distribution at time 0, on that device.
        train: the data, on the device to train on.
        size: pairs in a batch.
        objective: draws the times.
        coupling: which source point goes with which data point.
        drop_condition: make a tenth of the conditions unknown (NaN), so that the field learns the unconditional
            velocity too (Ho & Salimans, Classifier-Free Diffusion Guidance, 2022, arXiv:2207.12598), and random parts
            of three more tenths where a condition has several entries, so that any of them may be given.
    """

    def __init__(
        self,
        source: Source,
        train: Points,
        size: int,
        objective: Objective,
        coupling: Coupling,
        drop_condition: bool,
    ) -> None:
        self.source, self.train, self.size, self.objective, self.coupling = source, train, size, objective, coupling
        self.drop_condition = drop_condition
        self.generator = torch.Generator(train.x.device)
        self.cumulative = None if train.weights is None else (train.weights / train.weights.sum()).double().cumsum(0)

    def batch(self, rank: int = 0, world: int = 1) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
        """Return source points, data points, times and conditions: every ``world``-th pair from ``rank`` on."""
        x, size, generator = self.train.x, self.size, self.generator
        like: dict[str, Any] = {"generator": generator, "device": x.device}
        if self.cumulative is None:
            index = torch.randint(len(x), (size,), **like)
        else:
            uniform = torch.rand(size, dtype=torch.float64, **like)
            index = torch.searchsorted(self.cumulative, uniform).clamp(max=len(x) - 1)
        x_0, x_1 = self.source.sample((size,), dtype=x.dtype, **like), x[index]
        t = self.objective.draw_times((size,), dtype=x.dtype, **like)
        given = None if self.train.condition is None else self.train.condition[index]
        if given is not None and self.drop_condition:
            given = torch.where(_hidden(given.shape, like), math.nan, given)
        pairs = checked_pairs(self.coupling, self.coupling(x_0, x_1, condition=given, generator=generator), x_1, given)
        share = slice(rank, None, world)
        condition = {} if pairs.condition is None else {"condition": pairs.condition[share]}
        return pairs.x_0[share], pairs.x_1[share], t[share], condition


def train(
    flow: Flow,
    data: Points,
    validation: Points,
    run: Run,
    *,
    objective: Objective,
    coupling: Coupling = Independent(),
    drop_condition: bool = False,
) -> None:
    """Train ``flow.field`` in place; the flow ends with the averaged weights of the best validation.

    Args:
        flow: manifold, field and source; the field is a module.
        data: training points.
        validation: points whose negative log-likelihood decides when to stop and which weights to keep; 512 of them,
            evenly spaced, if there are more.
        run: a launched run.
        objective: what each step minimises.
        coupling: see `BatchSampler`.
        drop_condition: see `BatchSampler`.

    Raises:
        ValueError: if the batch or the objective cannot be shared by the processes there are, the loss is no longer
            finite, or the validation points have no finite likelihood at any time.
    """
    objective = objective.on(flow.manifold)
    fabric, size = run.fabric, run.budget.batch_size
    if size % fabric.world_size:
        raise ValueError(f"a batch of {size} does not divide among {fabric.world_size} processes; choose a multiple")
    if fabric.world_size > 1 and not objective.splits:
        raise ValueError(
            f"objective runs in one process, there are {fabric.world_size}; start it without torchrun, or "
            "leave objective out"
        )
    # Evenly spaced: enough to tell better from worse, at a small share of the time that training takes.
    some = torch.linspace(0, len(validation.x) - 1, min(len(validation.x), _VALIDATION_POINTS)).round().long()
    held_out = validation.take(some).to(fabric.device)
    sampler = BatchSampler(flow.source, data.to(fabric.device), size, objective, coupling, drop_condition)

    def loss(model: nn.Module, step: int, rank: int, world: int) -> Tensor:
        x_0, x_1, t, condition = sampler.batch(rank, world)
        return objective(model, flow.source, x_0, x_1, t, generator=sampler.generator, **condition)

    run.train(
        flow,
        loss,
        lambda field: _validate(flow, field, held_out, fabric),
        generator=sampler.generator,
        capture=objective.repeats and run.training.capture is not False,
    )


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
