"""The last stage of a fit of a conditional flow: kernels of points that share a condition, carried back by the flow."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rfm.conditions import Conditions
from rfm.field import as_field
from rfm.flow import ConditionalRefinement, Flow, FlowMixture, StratifiedRefinement
from rfm.integrators import IntegrationError, integrate
from rfm.likelihood import transport
from rfm.networks.modes import in_evaluation_mode
from rfm.networks.precision import precision_of_weights
from rfm.sources import kernel_concentrations
from rfm.training.conditional_kernels import (
    WEIGHED,
    Components,
    best_tau,
    chosen_strata,
    density_of,
    known_points,
    level_of,
    sparse,
)
from rfm.training.mixture_choice import Choice, Clusters, cross_validated, stacked, supported
from rfm.training.refinement import (
    CARRIED,
    CARRYING_SOLVER,
    FEWEST,
    FLOW_SOLVER,
    narrowest_kernel,
    reason_against,
    unconditional_refinement,
)
from rfm.training.weighted_points import Points, merged, thinned

_START = 0.98
"""The time of kernels that the flow has carried back, where all of a condition is known."""
_MOST_NUMBERS = 3
"""Strata of more numbers than this hold a point or none."""
_ALL_SUBSETS = 3
"""Up to so many entries, each set of them that may be known has a density of its own; of more, all, each and none."""


def refine_given(
    flow: Flow, data: Points, validation: Points, report: Callable[[float], None] = lambda share: None
) -> None:
    """Refine a conditional flow in place, where validation gains; ``flow.refinement_report`` says how.

    For each set of entries of a condition that may be known there is a density of its own: kernels of the points that
    share those entries, those of broader strata, see `rfm.flow.StratifiedRefinement`, and the flow; where all entries
    are known also kernels at time 0.98, each carried back given its own condition. Given nothing it is that of
    `rfm.training.refinement.refine`.

    Args:
        flow: manifold, field and source, trained.
        data: training points with conditions, on the device of the flow.
        validation: points that decide on all weights, likewise.
        report: called with the share that is done.
    """
    data, validation = data.positive, validation.positive
    assert data.condition is not None
    against = reason_against(flow, data, validation) or reason_against_condition(flow, data.condition)
    if against:
        flow.refinement_report = f"not refined: {against}"
        return
    labels = condition_labels(flow, data.condition)
    c = len(labels)
    sets = _sets(_columns(flow.conditions, c), as_field(flow.field).reads_unknown)
    report(0.0)
    known, densities, reports = list[tuple[int, ...]](), list[FlowMixture](), list[str]()
    for i, entries in enumerate(sets):

        def own_report(share: float, i: int = i) -> None:
            report((i + share) / len(sets))

        with torch.no_grad(), in_evaluation_mode(flow), precision_of_weights(flow):
            density: FlowMixture | None
            if entries:
                density, text = _given_entries(flow, data, validation, labels, entries, own_report)
            else:
                plain, held = (replace(part, condition=None) for part in (data, thinned(validation, WEIGHED)))
                density, text = unconditional_refinement(flow, plain, held, own_report)
        reports.append(f"given {_names(flow.conditions, entries)}: {text}")
        if density is not None:
            known.append(entries)
            densities.append(density)
    report(1.0)
    if densities:
        flow.refinement = ConditionalRefinement(known, densities, flow.source, c)
    flow.refinement_report = "; ".join(reports)


def reason_against_condition(flow: Flow, condition: Tensor) -> str:
    """Return why there are no kernels given the condition vectors ``(n, c)`` of a flow, in words; else nothing."""
    field, conditions = as_field(flow.field), flow.conditions
    if field.needs_condition or (conditions is not None and conditions.required):
        return "it is conditional on what an encoder reads, such as pictures, and there is no kernel in those"
    numbers = sum(not count for count in condition_labels(flow, condition))
    if numbers > _MOST_NUMBERS:
        return f"it is conditional on {numbers} numbers, and points that share more than {_MOST_NUMBERS} are too few"
    return ""


def condition_labels(flow: Flow, condition: Tensor) -> tuple[int, ...]:
    """Return how many labels each entry of the condition vectors ``(n, c)`` of a flow has, 0 for a number."""
    if flow.conditions is not None:
        return flow.conditions.labels
    return tuple(as_field(flow.field).condition_labels or [0] * condition.shape[1])


def _columns(conditions: Conditions | None, c: int) -> list[tuple[int, ...]]:
    """Return the entries of each column of conditions, which are known together: two, where numbers come round."""
    widths = [1] * c if conditions is None else [column.width for column in conditions.columns]
    ends = itertools.accumulate(widths)
    return [tuple(range(end - width, end)) for width, end in zip(widths, ends, strict=True)]


def _sets(columns: Sequence[tuple[int, ...]], reads_unknown: bool) -> list[tuple[int, ...]]:
    """Return the sets of known entries that have a density each, all of them first."""
    count = len(columns)
    sizes = [count]
    if reads_unknown:
        sizes = list(range(count, -1, -1)) if count <= _ALL_SUBSETS else [count, 1, 0]
    chosen = [known for size in sizes for known in itertools.combinations(columns, size)]
    return [tuple(itertools.chain.from_iterable(known)) for known in chosen]


def _names(conditions: Conditions | None, entries: tuple[int, ...]) -> str:
    if not entries:
        return "nothing"
    names = [f"entry {i}" if conditions is None else conditions.entry_names[i] for i in entries]
    return ", ".join(dict.fromkeys(names))


def _given_entries(
    flow: Flow,
    data: Points,
    validation: Points,
    labels: tuple[int, ...],
    entries: tuple[int, ...],
    report: Callable[[float], None],
) -> tuple[StratifiedRefinement | None, str]:
    """Return the density given some entries, None where validation does not gain, and what it is in words."""
    train, held = merged(known_points(data, entries)), thinned(known_points(validation, entries), WEIGHED)
    places = len(torch.unique(held.x.flatten(1), dim=0)) if len(held.x) else 0
    if places < FEWEST or not len(train.x):
        return None, f"not refined: {places} different validation points are too few, {FEWEST} are needed"
    train = thinned(train, CARRIED)
    clusters = Clusters.of(held)
    shares = clusters.shares
    tau, kernels = chosen_strata(flow.source, train, held, labels, entries)
    report(0.4)
    try:
        found = _with_flow(flow, kernels, train, held, carried=len(entries) == len(labels), report=report)
    except IntegrationError:
        return None, "not refined: the field could not be integrated back from all training points"
    assert found.flow is not None
    # Broader strata count for less where there are kernels alone, and for more where the flow is among what they hold.
    tries = {own: _choices(kernels, found, own, clusters) for own in (tau, best_tau(found, clusters)[1])}
    own_kernels = min(tries[tau][0], key=lambda choice: choice.nll)
    bests = {own: stacked([*alone, *choices], clusters) for own, (alone, choices) in tries.items()}
    tau_of_best = min(bests, key=lambda own: bests[own].nll)
    best = supported(bests[tau_of_best], own_kernels, found.flow, clusters)
    tau = tau if best is own_kernels else tau_of_best
    nll = {"flow": -float(shares @ found.flow), "kernels": own_kernels.nll, "refined": best.nll}
    values = (
        f"validation NLL {nll['refined']:.3f} nats, of the flow alone {nll['flow']:.3f}, of its kernels alone "
        f"{nll['kernels']:.3f}"
    )
    if not clusters.gains(best.held_out, found.flow):
        return None, f"not refined: {values}"
    density = density_of(found, tau, sparse(found, tau, best.weights), flow.source, nll)
    report(1.0)
    return density, f"{density.describe()}; {values}"


def _with_flow(
    flow: Flow,
    kernels: Components,
    train: Points,
    held: Points,
    *,
    carried: bool,
    report: Callable[[float], None],
) -> Components:
    """Return the components with the flow itself and, if ``carried``, kernels that it has carried back.

    Raises:
        IntegrationError: if the field cannot be integrated.
    """
    field, m = as_field(flow.field), flow.manifold
    x, at, integral, levels = held.x, 1.0, torch.zeros_like(kernels.background), kernels.levels
    if carried:
        solution = transport(field, m, x, at, _START, CARRYING_SOLVER, condition=held.condition)
        assert solution.integral is not None
        x, at, integral = solution.final, _START, integral + solution.integral[-1]
        report(0.5)
        there = integrate(field, m, train.x, (1.0, _START), CARRYING_SOLVER, condition=train.condition).final
        centres = replace(train, x=there)
        report(0.7)
        bound = narrowest_kernel(field, m, centres, _START, CARRYING_SOLVER)
        own = level_of(
            flow.source,
            0,
            levels[0].kernels.strata,
            centres,
            replace(held, x=x),
            kernel_concentrations,
            _START,
            bound,
        )
        levels = (*levels, replace(own, log_p=own.log_p + integral[:, None]))
        report(0.8)
    solution = transport(field, m, x, at, 0.0, FLOW_SOLVER, condition=held.condition)
    assert solution.integral is not None
    alone = flow.source.log_prob(solution.final).double() + integral + solution.integral[-1]
    return replace(kernels, levels=levels, flow=alone)


def _choices(
    kernels: Components, found: Components, tau: float, clusters: Clusters
) -> tuple[list[Choice], list[Choice]]:
    """Return weights of the kernels at time 1 alone, and of everything, with zeros for what is left out."""
    log_p, level = found.scored(tau)
    everything = cross_validated(log_p, clusters, level=level)
    log_p, level = kernels.scored(tau)
    alone = cross_validated(log_p, clusters, level=level)
    # Of the parts in ``found`` the background's number is that of the last but one.
    of_kernels = found.parts < len(kernels.levels)
    of_kernels |= found.parts == len(found.levels)
    wide = [
        replace(own, weights=torch.zeros_like(everything[0].weights).masked_scatter(of_kernels, own.weights))
        for own in alone
    ]
    return wide, everything
