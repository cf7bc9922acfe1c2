"""`fit`: from points on a manifold to a trained flow, with defaults chosen from the data."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from manifolds import Manifold
from manifolds.arguments import seed_of, shown
from manifolds.numerics.precision import at_least_float32
from rfm.conditions import Conditions
from rfm.couplings import Coupling, Independent
from rfm.field import as_field
from rfm.flow import Flow
from rfm.flow.progress import Report
from rfm.networks import VelocityField
from rfm.objectives import Objective
from rfm.objectives.objective import Loss
from rfm.records.fingerprint import architecture
from rfm.sources import Empirical, Source, default_source
from rfm.training.arguments import (
    check_data,
    check_digits,
    check_field,
    check_group_sides,
    check_metric,
    check_objects,
    check_shares,
    check_source,
    checked_groups,
    checked_objective,
    chosen_source,
    encoded_condition,
    hold_out,
    positive_integer,
)
from rfm.training.closed_form import Split, closed_form_flow
from rfm.training.continuation import check_continuation, continued
from rfm.training.cross_fitting import check_all_points, cross_fit, remove_folds
from rfm.training.finest_frequency import finest_frequency
from rfm.training.points import train
from rfm.training.run import Run
from rfm.training.settings import Training
from rfm.training.start_points import check_start, check_start_use
from rfm.training.weighted_points import Points
from rfm.training.windows import LargeTrainingSet

_BATCH_SIZE = 512


def fit(
    points: Tensor | np.ndarray[Any, Any],
    manifold: Manifold,
    *,
    condition: Tensor | np.ndarray[Any, Any] | Mapping[str, Any] | None = None,
    conditions: Conditions | None = None,
    weights: Tensor | np.ndarray[Any, Any] | None = None,
    start: Tensor | np.ndarray[Any, Any] | None = None,
    pairs: bool | Tensor | np.ndarray[Any, Any] | Sequence[int] | None = None,
    start_weights: Tensor | np.ndarray[Any, Any] | None = None,
    validation: float | Tensor | np.ndarray[Any, Any] | Sequence[int] = 0.1,
    groups: Tensor | np.ndarray[Any, Any] | Sequence[Any] | None = None,
    source: Source | Callable[[Manifold, Tensor], Source] | None = None,
    field: nn.Module | None = None,
    objective: Objective | Loss | None = None,
    coupling: Coupling = Independent(),
    refine: bool = True,
    steps: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    more_steps: int | None = None,
    progress: bool | Report = True,
    training: Training | None = None,
    rows: LargeTrainingSet | None = None,
) -> Flow:
    """Fit a flow to points on a manifold, by Riemannian flow matching.

    On a `manifolds.Mesh`, without conditions, start points or ``field``, nothing is trained unless there is an
    ``objective``: the field is known in closed form for a density of the points that the heat kernel makes, see
    `rfm.training.closed_form_field`, and what concerns steps has no effect.

    Under ``torchrun`` the processes share the work and get the same flow; with an ``objective`` that allows it.

    Args:
        points: data ``(n, *event_shape)``, at most 1e-3 off the manifold; they are projected to it.
        manifold: where they live.
        condition: what the density is conditional on: vectors ``(n, c)`` or numbers ``(n,)``, NaN where not known; or
            columns by name, of numbers or of texts that are labels, None where not known.
        conditions: what the entries of ``condition`` mean; found from its columns by default.
        weights: weights of the points ``(n,)``, for example inverse sampling probabilities; equal by default.
        start: start points ``(m, *event_shape)``, to fit a flow from them to the points: its source is the
            `rfm.sources.Empirical` distribution of those that are not held out, so it has no density. Validation is by
            the loss of pairs held out, and the history has the squared maximum mean discrepancy of what they become.
        pairs: which start point goes with which point: True where row i of both belong together, or the row of
            ``start`` for each point ``(n,)``; a pair is held out as one. By default they are not paired: a start point
            is drawn by itself, or by ``coupling``. Pairs with a ``source`` are for start points that were drawn from
            it, whose density the flow then has.
        start_weights: weights of the start points ``(m,)``. They and ``weights`` are relative: where the masses of both
            differ, each side is divided by its own.
        validation: share of the points held out to decide when to stop and which weights to keep, equal points
            together; or the indices of those points. Unpaired start points are held out by the same share. 0 trains on
            all points: when to stop, and the weights of the refinement, are then what five fits found that held out a
            fifth each, and it takes six times as long.
        groups: the group that each point belongs to ``(n,)``, names or numbers, such as of storms, chains or molecules:
            points of one are no independent observations, and are held out together; the refinement chooses by groups
            then, and takes more than kernels only where the gain by groups is clear. By default equal points are one.
            Beside indices of validation points no group may lie on both sides.
        source: distribution at time 0, or what makes one from the manifold and the training points, such as
            ``KernelMixture.fit``; it gets ``weights`` too if it has an argument ``sample_weights``. By default that of
            the objective, if it presumes one, else see `rfm.sources.default_source`.
        field: a velocity network ``field(x, t, **condition)``; a `rfm.networks.VelocityField` by default, whose finest
            scale follows the width of the kernel that suits the points best, as far as points can fill the dimensions
            there are. It is trained in place: a second fit of the same object changes the first flow.
        objective: what each step minimises: `rfm.FlowMatching` along geodesics by default, with a path or
            times of your own if given them; `rfm.MaximumLikelihood`; any `rfm.objectives.Objective`, or a function like
            it.
        coupling: how source and data points are paired in each batch; an objective that looks at data points alone
            has no use for any but `rfm.couplings.Independent`.
        refine: end by putting kernels about the training points, carried back by the flow, at times along it, with
            weights that the validation points choose, wherever these are likelier for it: see `rfm.flow.Refinement` and
            ``Flow.base``, the flow without. A conditional flow is refined by kernels of the points that share a
            condition, see `rfm.flow.ConditionalRefinement`. ``Flow.refinement_report`` says what was chosen, or why
            nothing was: no kernel on the manifold, pictures or more than three numbers as conditions, a kernel mixture
            as source, too few validation points, no gain. While a flow without conditions trains, a quick refinement
            decides when to stop and which weights to keep.
        steps: optimiser steps; by default as many as there are points, between 2,000 and 8,000.
        batch_size: pairs per step, 512 by default.
        seed: of every random draw; the same seed on the same device gives the same flow.
        device: "cpu", "cuda", ...; the first GPU where there is one.
        out: folder for checkpoints and the saved flow.
        more_steps: go on with the finished flow in ``out`` for so many steps, from a third of the learning rate; its
            weights are kept where none after are better. A run that is not finished is finished first.
        resume: go on from the checkpoint in ``out``, to the same result as an uninterrupted run; a finished run, also
            one that ended early, is loaded. One that a cap stopped goes on with what is left of the new cap.
        progress: show a progress bar on stderr; or a function that is called after every step with the share of the
            budget that is spent and a record of step, loss and the last validation.
        training: learning rate, cap on the time, validations, Fabric, whether to replace a flow or capture the step.
        rows: what batches are made of, where ``points`` are a sample of data larger than memory:
            `rfm.fit_out_of_core` gives both.

    Returns:
        The flow, on the CPU, with ``history``.

    Raises:
        ValueError: for points, weights or conditions that cannot be used, naming what, where and the remedy; or if the
            step cannot be captured.
        FileExistsError: if ``out`` holds a flow and neither ``resume`` nor ``Training.force`` is given.
    """
    settings = dict(locals())
    check_objects(manifold, coupling, conditions, training)
    chosen, refine = checked_objective(objective, coupling), bool(refine)
    training = Training() if training is None else training
    condition, conditions = encoded_condition(condition, conditions)
    data = check_data(points, manifold, condition, weights)
    given = check_start(start, manifold, pairs, start_weights, len(data.x))
    data = data if given is None else given.beside(data)
    check_start_use(given, source, coupling, chosen)
    seed = seed_of("fit", seed)
    data = data if groups is None else replace(data, group=checked_groups(groups, len(data.x)))
    alike = data.x if data.group is None else data.group
    train_index, validation_index = hold_out(alike, validation, seed)
    check_shares(data, train_index, validation_index)
    check_group_sides(data, train_index, validation_index)
    training_data = data.take(train_index)
    check_metric(manifold, training_data.x)
    validation_source = None
    if given is not None and given.pairs is None:
        source, validation_source = given.sources(manifold, validation, len(data.x), seed)
    source = _source(source, manifold, chosen, training_data)
    if objective is None and field is None and given is None and condition is None and coupling == Independent():
        held, held_weights = _parts(manifold, data.take(validation_index))
        split = Split(manifold.projx(training_data.x), training_data.weights, held, held_weights)
        known = closed_form_flow(manifold, source, split)
        if known is not None:
            identity = [manifold, source, data, validation_index]
            return _kept(known, identity, training, out, resume, more_steps, seed)
    chosen = chosen.on(manifold)
    field = chosen.velocity_of(_field(field, manifold, training_data, conditions, seed))
    flow = Flow(manifold, training.converted(field), source, conditions=conditions)
    data = _in_precision_of(flow, data)
    _check_field(flow, data.take(train_index))
    budget = training.budget(
        positive_integer("steps", steps, min(max(len(train_index) if rows is None else rows.count, 2000), 8000)),
        positive_integer("batch_size", batch_size, _BATCH_SIZE),
        seed,
        chosen.learning_rate,
    )
    identity = [manifold, architecture(field), source, conditions, chosen, coupling, data, validation_index, refine]
    identity += [] if validation_source is None else [validation_source]
    identity += [] if rows is None else [rows.digest, rows.buffer_rows, rows.fan_in]
    check_continuation(more_steps, out, validation_index)
    resume = resume or more_steps is not None
    run = Run(budget, identity, training=training, out=out, resume=resume, device=device, progress=progress)
    if run.is_finished:
        flow = run.load(flow)
        return flow if more_steps is None else continued(fit, flow, more_steps, validation_index, budget, settings)
    found = None
    if not len(validation_index):
        if rows is not None:
            raise ValueError("fit: validation=0 fits to parts of the points, and rows are of all; hold out a share")
        check_all_points(given is None and flow.source.has_density, chosen)
        found = cross_fit(fit, data, alike, budget, refine, settings)
    # A field of another kind need not know that NaN means not known.
    drop = as_field(flow.field).reads_unknown and data.condition is not None
    with run.launched():
        train(
            flow,
            data.take(train_index),
            data.take(validation_index),
            run,
            objective=chosen,
            coupling=coupling,
            drop_condition=drop,
            refined=refine,
            validation_source=validation_source,
            cross_fitted=found,
            rows=rows,
        )
    if found is not None:
        remove_folds(out)
    return flow if more_steps is None else continued(fit, flow, more_steps, validation_index, budget, settings)


def _kept(
    flow: Flow,
    identity: list[Any],
    training: Training,
    out: str | Path | None,
    resume: bool,
    more_steps: int | None,
    seed: int,
) -> Flow:
    """Return a flow that needed no training, saved where there is a folder, or the same one that is there already."""
    if more_steps is not None:
        raise ValueError(
            f"fit: more_steps goes on with the training of a network, and the flow on {flow.manifold} has none; pass "
            "objective=FlowMatching() to train one"
        )
    run = Run(training.budget(1, 1, seed, 1.0), identity, training=training, out=out, resume=resume)
    if run.is_finished:
        return run.load(flow)
    run.keep(flow)
    return flow


def _parts(manifold: Manifold, points: Points) -> tuple[Tensor | None, Tensor | None]:
    """Return points, on the manifold, and their weights; None for none."""
    return (manifold.projx(points.x), points.weights) if len(points.x) else (None, None)


def _source(
    source: Source | Callable[[Manifold, Tensor], Source] | None,
    manifold: Manifold,
    objective: Objective,
    data: Points,
) -> Source:
    """Return the source: the given one, the one fitted to the training points, or the default."""
    if source is None and data.start is not None:
        source = Empirical(manifold, data.start, data.weights)
    elif source is None:
        source = objective.source or default_source(manifold, data.x)
    elif not isinstance(source, Source):
        # From the training points alone: a source that knew those of validation would look better than it is.
        source = chosen_source(source, manifold, data)
    check_source(source, manifold)
    objective.check(manifold, source, data.x)
    return source


def _field(
    field: nn.Module | None, manifold: Manifold, data: Points, conditions: Conditions | None, seed: int
) -> nn.Module:
    """Return the network that is given, or a new one with the scales of the training points."""
    if field is None:
        labels = None if conditions is None else conditions.labels
        return seeded_field(manifold, data.x, data.condition, labels, seed)
    if not (isinstance(field, nn.Module) and any(p.requires_grad for p in field.parameters())):
        raise ValueError(
            f"fit: field must be a torch.nn.Module with parameters to train, got {shown(field)}; "
            "put a field that is known into rfm.Flow instead"
        )
    return field


def _in_precision_of(flow: Flow, data: Points) -> Points:
    """Return points on the manifold, and conditions, in the precision of a flow's field, at least float32."""
    assert isinstance(flow.field, nn.Module)
    dtype = at_least_float32(next((p.dtype for p in flow.field.parameters()), torch.float32))
    condition = data.condition
    if condition is not None:
        check_digits(condition, dtype, flow.conditions)
        condition = condition.to(dtype)
    x, start = (None if part is None else flow.manifold.projx(part).to(dtype) for part in (data.x, data.start))
    assert x is not None
    return replace(data, x=x, condition=condition, start=start)


def _check_field(flow: Flow, data: Points) -> None:
    """Raise ValueError unless a flow's field gives a few of the training points velocities that can be used."""
    assert isinstance(flow.field, nn.Module)
    tried = data.take(torch.linspace(0, len(data.x) - 1, 8).long())
    condition = {} if tried.condition is None else {"condition": tried.condition}
    times = torch.linspace(0.1, 0.9, 8, dtype=tried.x.dtype)
    check_field("fit", flow.field, flow.manifold, tried.x, times, condition)


def default_field(
    manifold: Manifold, points: Tensor, condition: Tensor | None = None, condition_labels: Sequence[int] | None = None
) -> VelocityField:
    """Return the velocity network that `fit` trains unless given another, with scales taken from the points.

    Args:
        manifold: where the points live.
        points: data ``(n, *event_shape)``.
        condition: condition vectors ``(n, c)``.
        condition_labels: how many labels each of their entries has, 0 for numbers; numbers alone by default.
    """
    embedded = manifold.embed(points.double())
    # A compact manifold has an origin and a scale of its own; elsewhere they are those of the data.
    if manifold.volume is None:
        mean = embedded.mean(0)
        offset, scale = mean.tolist(), float((embedded - mean).square().mean().sqrt()) or 1.0
    else:
        offset, scale = None, float(embedded.abs().max()) or 1.0
    known: dict[str, Any] = {}
    if condition is not None:
        mean = condition.double().nanmean(0).nan_to_num(0.0)
        unit = (condition.double() - mean).square().nanmean(0).sqrt().nan_to_num(0.0)
        known = {
            "condition_dim": condition.shape[-1],
            "condition_offset": mean.tolist(),
            "condition_scale": torch.where(unit > 0, unit, 1.0).tolist(),
            "condition_labels": condition_labels,
        }
    return VelocityField(
        manifold, max_frequency=finest_frequency(manifold, points.double(), scale), offset=offset, scale=scale, **known
    )


def seeded_field(
    manifold: Manifold, points: Tensor, condition: Tensor | None, labels: Sequence[int] | None, seed: int
) -> VelocityField:
    """Return `default_field` with weights that a seed decides."""
    with _seeded(seed):
        return default_field(manifold, points, condition, labels)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the initialisers of modules, which know global randomness only, and put it back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
