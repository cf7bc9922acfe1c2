"""Training on points of a manifold: batches of pairs, and the likelihood of points held out.

Every step draws its batch from a generator that is seeded by the run's seed and the step's number. A batch therefore
depends on nothing but the step: a resumed run sees what the uninterrupted one would have seen, and each of several
processes takes its share of the batch that one process would have drawn.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rfm.couplings import Coupling, Independent
from rfm.couplings.coupling import checked_pairs
from rfm.flow import Flow
from rfm.integrators import Adaptive, IntegrationError
from rfm.likelihood import log_prob
from rfm.objectives import Objective
from rfm.sources import Source, likeliest_weights
from rfm.training.agreement import ACCURATE, agreeing, check_agreement, condition_of, excess
from rfm.training.arguments import check_splits
from rfm.training.checkpoint import Validation
from rfm.training.conditional_refinement import refine_given
from rfm.training.cross_fitting import CrossFitted
from rfm.training.floor import check_floor, loss_above_floor
from rfm.training.jitter import jitter_scales, jittered
from rfm.training.loop import step_seed
from rfm.training.matching import MatchingValidation
from rfm.training.mixture_choice import Clusters, cross_validated
from rfm.training.refinement import reason_against, refine, validation_components
from rfm.training.run import Run
from rfm.training.weighted_points import Points, thinned
from rfm.training.windows import LargeTrainingSet, Windows

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_CONDITION_DROPOUT = 0.1
_PARTIAL_CONDITIONS = 0.3
_VALIDATION_POINTS = 512
_WEIGHT_STEPS = 100
_VALIDATION_BATCHES = 4
_APART = 2**40
"""Numbers of steps that no run comes to."""
_VALIDATION_SOLVER = Adaptive(atol=1e-3, rtol=1e-3)


class BatchSampler:
    """Draws training batches, from a generator that the caller seeds.

    Args:
        source: the distribution at time 0, on that device; not drawn from where the data are paired with start points.
        train: the data, on the device to train on.
        size: pairs in a batch.
        objective: draws the times.
        coupling: which source point goes with which data point.
        drop_condition: make a tenth of the conditions unknown (NaN), so that the field learns the unconditional
            velocity too (Ho & Salimans, Classifier-Free Diffusion Guidance, 2022, arXiv:2207.12598), and random parts
            of three more tenths where a condition has several entries, so that any of them may be given.
        condition_widths: how many entries belong together, and are hidden together; one each by default.
        windows: where the data points of a step are from, in place of ``train``: they are drawn there, and not moved at
            random, since hardly any is seen more than a few times.
    """

    def __init__(
        self,
        source: Source,
        train: Points,
        size: int,
        objective: Objective,
        coupling: Coupling,
        drop_condition: bool,
        condition_widths: Sequence[int] | None = None,
        windows: Windows | None = None,
    ) -> None:
        self.windows = windows
        self.source, self.train, self.size, self.objective, self.coupling = source, train, size, objective, coupling
        self.drop_condition, self.condition_widths = drop_condition, condition_widths
        self.generator = torch.Generator(train.x.device)
        jitter = 0.0 if windows is not None else objective.jitter
        self.jitter_scales = jitter_scales(source.manifold, train.x, jitter) if jitter else None
        self.cumulative = None if train.weights is None else (train.weights / train.weights.sum()).double().cumsum(0)

    def batch(self, rank: int = 0, world: int = 1, step: int = 0) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
        """Return source points, data points, times and conditions: every ``world``-th pair from ``rank`` on."""
        x, size, generator = self.train.x, self.size, self.generator
        like: dict[str, Any] = {"generator": generator, "device": x.device}
        if self.windows is not None:
            own = self.windows.batch(step)
            paired, x_1, given = None, own.x, own.condition
        else:
            index = self._drawn(like)
            paired = None if self.train.start is None else self.train.start[index]
            x_1, given = x[index], None if self.train.condition is None else self.train.condition[index]
        x_0 = self.source.sample((size,), dtype=x.dtype, **like) if paired is None else paired
        if self.jitter_scales is not None:
            x_1 = jittered(self.source.manifold, x_1, self.jitter_scales[index], generator)
        t = self.objective.draw_times((size,), dtype=x.dtype, **like)
        if given is not None and self.drop_condition:
            given = torch.where(self._hidden_entries(len(given), like), math.nan, given)
        pairs = checked_pairs(self.coupling, self.coupling(x_0, x_1, condition=given, generator=generator), x_1, given)
        share = slice(rank, None, world)
        condition = {} if pairs.condition is None else {"condition": pairs.condition[share]}
        return pairs.x_0[share], pairs.x_1[share], t[share], condition

    def _drawn(self, like: dict[str, Any]) -> Tensor:
        """Return the numbers of the data points of a batch, by their weights."""
        if self.cumulative is None:
            return torch.randint(len(self.train.x), (self.size,), **like)
        uniform = torch.rand(self.size, dtype=torch.float64, **like)
        return torch.searchsorted(self.cumulative, uniform).clamp(max=len(self.train.x) - 1)

    def _hidden_entries(self, count: int, like: dict[str, Any]) -> Tensor:
        """Return which entries of a batch of conditions are to be unknown, ``(n, c)``."""
        assert self.train.condition is not None
        widths = self.condition_widths or [1] * self.train.condition.shape[-1]
        hidden = _hidden(torch.Size((count, len(widths))), like)
        return hidden if max(widths) == 1 else hidden.repeat_interleave(torch.tensor(widths, device=hidden.device), 1)

    def seeded_batch(self, seed: int) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
        """Return the batch of a seed."""
        self.generator.manual_seed(seed)
        return self.batch()


def train(
    flow: Flow,
    data: Points,
    validation: Points,
    run: Run,
    *,
    objective: Objective,
    coupling: Coupling = Independent(),
    drop_condition: bool = False,
    refined: bool = False,
    validation_source: Source | None = None,
    cross_fitted: CrossFitted | None = None,
    rows: LargeTrainingSet | None = None,
) -> None:
    """Train ``flow.field`` in place; the flow ends with the averaged weights of the best validation.

    Args:
        flow: manifold, field and source; the field is a module.
        data: training points.
        validation: points whose negative log-likelihood decides when to stop and which weights to keep; 512 of them,
            evenly spaced, if there are more. Where the source has no density, or the data are paired, it is the loss of
            pairs that are drawn once, see `rfm.training.matching`.
        run: a launched run.
        objective: what each step minimises.
        coupling: see `BatchSampler`.
        drop_condition: see `BatchSampler`.
        refined: end with `rfm.training.refinement.refine`, and let the likelihood under a quick refinement decide.
        validation_source: distribution of the start points of validation; the flow's source by default.
        cross_fitted: what other fits found on points that they held out, in place of validation points.
        rows: what batches are made of, where ``data`` are a sample of it.

    Raises:
        ValueError: if the batch or the objective cannot be shared by the processes there are, the loss is no longer
            finite, or the validation points have no finite likelihood at any time.
    """
    objective = objective.on(flow.manifold).to(run.fabric.device)
    fabric, size = run.fabric, run.budget.batch_size
    if size % fabric.world_size:
        raise ValueError(f"a batch of {size} does not divide among {fabric.world_size} processes; choose a multiple")
    check_splits(objective, fabric.world_size)
    if run.training.floor:
        check_floor(flow, data, objective, coupling)
    data = data.to(fabric.device)
    widths = None if flow.conditions is None else [column.width for column in flow.conditions.columns]
    windows = None if rows is None else rows.windows(flow.manifold, run.budget, data.x.dtype, fabric.device)
    sampler = BatchSampler(flow.source, data, size, objective, coupling, drop_condition, widths, windows)
    # A pair says more than the likelihood of its end, which a source of points does not have.
    by_likelihood = data.start is None and flow.source.has_density and objective.by_likelihood
    validate: Callable[[nn.Module], float | Validation]
    last_stage: Callable[[Callable[[float], None]], None] | None = None
    if refined:
        refining = refine if data.condition is None else refine_given
        last_stage = lambda report: refining(flow, data, validation.to(fabric.device), report)  # noqa: E731
    if cross_fitted is not None:
        validate = cross_fitted.validation(len(run.history))
        last_stage = lambda report: cross_fitted.refine(flow, data, report)  # noqa: E731
    elif by_likelihood:
        unconditional = refined and data.condition is None
        centres = data if unconditional and not reason_against(flow, data, validation) else None
        objective, validate = _by_likelihood(flow, validation, run, objective, centres)
    else:
        start = (flow.source if validation_source is None else validation_source).to(fabric.device)
        held = BatchSampler(start, validation.to(fabric.device), size, objective, coupling, drop_condition=False)
        validate = _by_matching(flow, held, run)

    def loss(model: nn.Module, step: int, rank: int, world: int) -> Tensor:
        x_0, x_1, t, condition = sampler.batch(rank, world, step)
        return objective(model, flow.source, x_0, x_1, t, generator=sampler.generator, **condition)

    def finish(report: Callable[[float], None]) -> None:
        if run.training.floor:
            # The floor is that of the points in memory.
            sampler.windows = None
            drawn = sampler.seeded_batch(step_seed(run.budget.seed, _APART + _VALIDATION_BATCHES))
            flow.history[-1] |= loss_above_floor(flow, data, objective, *drawn[:3])
        if last_stage is not None:
            started = run.training.clock()
            last_stage(report)
            if flow.refinement is not None:
                flow.history[-1]["refinement_seconds"] = run.training.clock() - started

    run.train(
        flow,
        loss,
        validate,
        validate_start=objective.refines or run.training.validate_start,
        finish=finish,
        generator=sampler.generator,
        # A captured step reads no new rows.
        capture=objective.repeats and run.training.capture is not False and windows is None,
        measure="validation_nll" if by_likelihood else "validation_loss",
    )


def _by_likelihood(
    flow: Flow, validation: Points, run: Run, objective: Objective, centres: Points | None
) -> tuple[Objective, Callable[[nn.Module], float | Validation]]:
    """Return the objective with a solve that is accurate enough for the flow, and what validates it."""
    # Evenly spaced: enough to tell better from worse, at a small share of the time that training takes.
    held_out = thinned(validation, _VALIDATION_POINTS).to(run.fabric.device)
    chosen = agreeing(objective, flow.to(run.fabric.device), held_out, run.history)
    return chosen, lambda field: _validate(flow, field, held_out, run.fabric, chosen, centres)


def _by_matching(flow: Flow, held: BatchSampler, run: Run) -> Callable[[nn.Module], float | Validation]:
    batches = [held.seeded_batch(step_seed(run.budget.seed, _APART + k)) for k in range(_VALIDATION_BATCHES)]
    source = flow.source.to(run.fabric.device)
    return MatchingValidation(batches, held.objective, source, run.budget.seed, run.fabric)


@torch.no_grad()
def _validate(
    flow: Flow,
    field: nn.Module,
    validation: Points,
    fabric: "Fabric",
    objective: Objective,
    centres: Points | None = None,
) -> Validation:
    """Return the mean negative log-likelihood of the validation points in nats, shared between the processes.

    With ``centres`` it is that of the flow in a mixture with kernels about them, weighted on these points, or where
    they have groups on other groups: training for longer may improve the flow and worsen what it is refined to. NaN
    where the field cannot be integrated.

    Raises:
        TrainingStoppedError: the log-density that the objective trains on is not that of the flow.
    """
    rows = torch.arange(fabric.global_rank, len(validation.x), fabric.world_size).to(fabric.device)
    part = validation.take(rows)
    source, condition = flow.source, condition_of(part)
    trained = objective.log_prob(field, source, part.x, **condition)
    log_p = None
    try:
        columns = [] if trained is None else [trained.double()[:, None]]
        solver = _VALIDATION_SOLVER if trained is None else ACCURATE
        columns.append(log_prob(field, source, part.x, solver, **condition).double()[:, None])
        if centres is not None:
            columns.append(validation_components(field, source, centres, part.x))
        log_p = torch.cat(columns, dim=1)
    except IntegrationError:
        # Not raised here: the other processes wait for this one's share.
        pass
    log_p = _gathered(log_p, rows, len(validation.x), fabric)
    beside: dict[str, float] = {} if objective.solver_steps is None else {"solver_steps": objective.solver_steps}
    if log_p is None:
        return Validation(math.nan, beside)
    shares = validation.shares
    if trained is not None:
        trained, log_p = log_p[:, 0], log_p[:, 1:]
        beside["solver_excess"] = excess(validation, trained, log_p[:, 0])
        check_agreement(objective, beside["solver_excess"])
    alone = -float(shares @ log_p[:, 0])
    if centres is None or not bool(log_p.isfinite().all()):
        return Validation(alone, beside)
    if validation.group is not None:
        # A few groups would be explained by weights of their own.
        refined = cross_validated(log_p, Clusters.of(validation), steps=(_WEIGHT_STEPS,))[0].nll
    else:
        weights = likeliest_weights(log_p, shares, _WEIGHT_STEPS)
        refined = -float(shares @ torch.logsumexp(log_p + weights.log(), dim=-1))
    return Validation.refined(refined, alone, beside)


def _gathered(part: Tensor | None, rows: Tensor, count: int, fabric: "Fabric") -> Tensor | None:
    """Return the rows of all processes, ``(count, K)``; None if any of them has none."""
    if fabric.world_size == 1:
        return part
    missing = torch.tensor(float(part is None), device=fabric.device)
    torch.distributed.all_reduce(missing)
    if part is None or missing > 0:
        return None
    full = part.new_zeros(count, part.shape[1])
    full[rows] = part
    torch.distributed.all_reduce(full)
    return full


def _hidden(shape: torch.Size, like: dict[str, Any]) -> Tensor:
    """Return which of the parts of a batch of conditions ``(n, c)`` are to be unknown."""
    n, c = shape
    draw = torch.rand(n, 1, **like)
    hidden = (draw < _CONDITION_DROPOUT).expand(n, c)
    if c > 1:
        partial = draw < _CONDITION_DROPOUT + _PARTIAL_CONDITIONS
        hidden = hidden | (partial & (torch.rand(n, c, **like) < 0.5))
    return hidden
