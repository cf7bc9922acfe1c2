"""The last stage of a fit of a conditional flow: kernels of the points that share a condition, carried back by the flow."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.conditions import Conditions
from rfm.field import as_field
from rfm.flow import ConditionalRefinement, Flow, FlowMixture, StratifiedRefinement
from rfm.flow.stratified_refinement import level_shares
from rfm.integrators import IntegrationError, integrate
from rfm.likelihood import transport
from rfm.metrics import paired_difference
from rfm.networks.modes import in_evaluation_mode
from rfm.networks.precision import precision_of_weights
from rfm.sources import Source, Strata, StratifiedKernels, default_source, kernel_concentrations, stratified_concentrations
from rfm.training.mixture_choice import Choice, chosen, folds_of, places_of, tried
from rfm.training.refinement import (
    CARRIED,
    CARRYING_SOLVER,
    FEWEST,
    FLOW_SOLVER,
    LEAST_KERNEL,
    VALIDATED,
    Family,
    narrowest_kernel,
    reason_against,
    unconditional_refinement,
)
from rfm.training.weighted_points import Points, merged, thinned

_START = 0.98
"""The time of kernels that the flow has carried back, where all of a condition is known."""
_TAUS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
_KNOTS = (4, 8, 16, 32)
_MOST_NUMBERS = 3
"""Strata of more numbers than this hold a point or none."""
_ALL_SUBSETS = 3
"""Up to so many entries, each set of them that may be known has a density of its own; of more, all, each and none."""
_LEAST_BROAD = 0.02
"""Weight of a kernel in broader strata, as `LEAST_KERNEL`: there are as many centres as points, and little is theirs."""
_QUICK_STEPS = (50,)
"""Steps of expectation maximisation by which numbers of knots and tau are chosen."""


@dataclass(frozen=True)
class Level:
    """Kernels of equal weights on strata, and what they are worth at the validation points.

    Args:
        number: 0 for the narrowest strata.
        start: the time at which the kernels stand.
        kernels: the kernels.
        log_p: log-densities at time 1 of each at the validation points, ``(m, K)``.
        counts: effective numbers of centres that tell of these points, ``(m,)``.
    """

    number: int
    start: float
    kernels: StratifiedKernels
    log_p: Tensor
    counts: Tensor

    def weighted(self, weights: Tensor) -> StratifiedKernels:
        """Return kernels with weights ``(K,)`` of any sum, without those of weight 0."""
        kept, own = weights > 0, self.kernels
        arguments = (own.strata, own.concentrations[kept], weights[kept] / weights.sum(), own.background)
        return StratifiedKernels(own.manifold, own.points, own.condition, *arguments, own.sample_weights)


@dataclass(frozen=True)
class Components:
    """All that a density given a condition may be made of, at the validation points.

    Args:
        levels: kernels, those at time 1 first, from the narrowest strata on.
        background: log-density of the flow's source at time 1, ``(m,)``.
        flow: log-density of the flow, ``(m,)``; None for kernels alone.
    """

    levels: tuple[Level, ...]
    background: Tensor
    flow: Tensor | None = None

    @property
    def depth(self) -> int:
        """The number of levels."""
        return max(level.number for level in self.levels) + 1

    @property
    def _firsts(self) -> list[int]:
        return [i for i, level in enumerate(self.levels) if level.start == 1]

    @property
    def columns(self) -> list[tuple[int, int, Tensor]]:
        """Part, level and log-densities ``(m, K)`` of the components: kernels, background, and the flow in two levels."""
        found = [(i, own.number, own.log_p) for i, own in enumerate(self.levels)]
        n, last = len(self.levels), self.depth - 1
        found.append((n, last, self.background[:, None]))
        if self.flow is not None:
            found += [(n + 1, level, self.flow[:, None]) for level in dict.fromkeys((0, last))]
        return found

    def scored(self, tau: float) -> tuple[Tensor, Tensor]:
        """Return log-densities with the shares of their levels ``(m, C)``, and the level of each ``(C,)``."""
        counts = [self.levels[i].counts for i in self._firsts[:-1]]
        log_shares = level_shares(counts, tau, self.background).log()
        parts = [own + log_shares[:, [level]] for _, level, own in self.columns]
        numbers = [level for _, level, own in self.columns for _ in range(own.shape[1])]
        return torch.cat(parts, dim=1), torch.tensor(numbers, device=self.background.device)

    @property
    def parts(self) -> Tensor:
        """The part of each column, as `rfm.flow.StratifiedRefinement` counts them, ``(C,)``."""
        numbers = [part for part, _, own in self.columns for _ in range(own.shape[1])]
        return torch.tensor(numbers, device=self.background.device)


def conditional_kernels(
    manifold: Manifold,
    train: Points,
    validation: Points,
    labels: Sequence[int],
    *,
    background: Source | None = None,
    one_width: bool = False,
) -> StratifiedRefinement:
    """Return the kernel density given a condition: that of `rfm.fit` where nothing is gained by the flow.

    Kernels of strata, of `rfm.sources.kernel_concentrations`, shrunk towards those of broader strata; knots, shares and
    weights are chosen on validation. All entries of the conditions are known; points of which one is not are left out.

    Args:
        manifold: a manifold with a kernel.
        train: centres with conditions.
        validation: points that all is chosen by.
        labels: how many labels each entry of the conditions has, 0 for a number.
        background: by default `rfm.sources.default_source` of the centres.
        one_width: one width of kernel on all points, and one kernel in the condition: the classical conditional density
            estimate (Hall, Racine and Li, Cross-validation and the estimation of conditional probability densities,
            2004), with a hundredth of the weight that the condition does not decide on the background.

    Raises:
        ValueError: there is no kernel, or there are too few points whose conditions are known.
    """
    entries = tuple(range(len(labels)))
    train, validation = _known(train, entries), thinned(_known(validation, entries), VALIDATED)
    if not len(train.x) or not len(validation.x):
        raise ValueError(
            f"conditional_kernels: {len(train.x)} training and {len(validation.x)} validation points have a condition "
            "of which all is known; give it some of both"
        )
    train = thinned(merged(train), CARRIED)
    source = default_source(manifold, train.x) if background is None else background
    family = _one_row_each if one_width else kernel_concentrations
    tau, found = _chosen_strata(source, train, validation, labels, entries, family, one_width)
    shares, fold = validation.shares, folds_of(places_of(validation.x))
    if one_width:
        weights = _one_width(found, tau, shares)
    else:
        log_p, level = found.scored(tau)
        weights = _sparse(found, tau, chosen(tried(log_p, shares, fold, level=level), shares).weights)
    return _density(found, tau, weights, source, {})


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
    against = reason_against(flow, data, validation) or _condition_without_kernel(flow, data)
    if against:
        flow.refinement_report = f"not refined: {against}"
        return
    assert data.condition is not None
    c = data.condition.shape[1]
    labels = tuple(as_field(flow.field).condition_labels or [0] * c)
    sets = _sets(c, as_field(flow.field).reads_unknown)
    known, densities, reports = list[tuple[int, ...]](), list[FlowMixture](), list[str]()
    for i, entries in enumerate(sets):

        def own_report(share: float, i: int = i) -> None:
            report((i + share) / len(sets))

        with torch.no_grad(), in_evaluation_mode(flow), precision_of_weights(flow):
            density: FlowMixture | None
            if entries:
                density, text = _given_entries(flow, data, validation, labels, entries, own_report)
            else:
                plain = [Points(part.x, None, part.weights) for part in (data, validation)]
                density, text = unconditional_refinement(flow, *plain, own_report)
        reports.append(f"given {_names(flow.conditions, entries)}: {text}")
        if density is not None:
            known.append(entries)
            densities.append(density)
    report(1.0)
    if densities:
        flow.refinement = ConditionalRefinement(known, densities, flow.source, c)
    flow.refinement_report = "; ".join(reports)


def _condition_without_kernel(flow: Flow, data: Points) -> str:
    """Return why the conditions of a flow have no kernel, in words; empty if they have."""
    field, conditions = as_field(flow.field), flow.conditions
    if field.needs_condition or (conditions is not None and conditions.required):
        return "it is conditional on what an encoder reads, such as pictures, and there is no kernel in those"
    assert data.condition is not None
    labels = field.condition_labels or [0] * data.condition.shape[1]
    numbers = sum(not count for count in labels)
    if numbers > _MOST_NUMBERS:
        return f"it is conditional on {numbers} numbers, and points that share more than {_MOST_NUMBERS} are too few"
    return ""


def _sets(c: int, reads_unknown: bool) -> list[tuple[int, ...]]:
    """Return the sets of known entries that have a density each, all of them first."""
    if not reads_unknown:
        return [tuple(range(c))]
    sizes = range(c, -1, -1) if c <= _ALL_SUBSETS else (c, 1, 0)
    return [entries for size in sizes for entries in itertools.combinations(range(c), size)]


def _names(conditions: Conditions | None, entries: tuple[int, ...]) -> str:
    if not entries:
        return "nothing"
    return ", ".join(f"entry {i}" if conditions is None else conditions.names[i] for i in entries)


def _known(points: Points, entries: tuple[int, ...]) -> Points:
    """Return the points of which these entries of the condition are known, with the others hidden."""
    assert points.condition is not None
    chosen_rows = points.take((~points.condition[:, list(entries)].isnan()).all(-1).nonzero()[:, 0])
    assert chosen_rows.condition is not None
    hidden = torch.full_like(chosen_rows.condition, math.nan)
    hidden[:, list(entries)] = chosen_rows.condition[:, list(entries)]
    return replace(chosen_rows, condition=hidden)


def _given_entries(
    flow: Flow,
    data: Points,
    validation: Points,
    labels: tuple[int, ...],
    entries: tuple[int, ...],
    report: Callable[[float], None],
) -> tuple[StratifiedRefinement | None, str]:
    """Return the density given some entries, None where validation does not gain, and what it is in words."""
    train, held = merged(_known(data, entries)), thinned(_known(validation, entries), VALIDATED)
    places = len(torch.unique(held.x.flatten(1), dim=0)) if len(held.x) else 0
    if places < FEWEST or not len(train.x):
        return None, f"not refined: {places} different validation points are too few, {FEWEST} are needed"
    train = thinned(train, CARRIED)
    place = places_of(held.x)
    shares, fold = held.shares, folds_of(place)
    tau, kernels = _chosen_strata(flow.source, train, held, labels, entries)
    report(0.4)
    try:
        found = _with_flow(flow, kernels, train, held, carried=len(entries) == len(labels), report=report)
    except IntegrationError:
        return None, "not refined: the field could not be integrated back from all training points"
    assert found.flow is not None
    alone, choices = _choices(kernels, found, tau, shares, fold)
    best = chosen([*alone, *choices], shares)
    nll = {
        "flow": -float(shares @ found.flow),
        "kernels": min(choice.nll for choice in alone),
        "refined": best.nll,
    }
    gain = paired_difference(best.held_out, found.flow, place, shares)
    values = (
        f"validation NLL {nll['refined']:.3f} nats, of the flow alone {nll['flow']:.3f}, of its kernels alone "
        f"{nll['kernels']:.3f}"
    )
    if not gain.mean > gain.standard_error:
        return None, f"not refined: {values}"
    density = _density(found, tau, _sparse(found, tau, best.weights), flow.source, nll)
    report(1.0)
    return density, f"{density.describe()}; {values}"


def _chosen_strata(
    source: Source,
    train: Points,
    held: Points,
    labels: Sequence[int],
    entries: tuple[int, ...],
    family: Family = kernel_concentrations,
    one_width: bool = False,
) -> tuple[float, Components]:
    """Return tau, and the kernels at time 1 with so many knots, that make validation points left out likeliest."""
    assert train.condition is not None
    numbers = any(not labels[i] for i in entries)
    shares, fold = held.shares, folds_of(places_of(held.x))
    background = source.log_prob(held.x).double()
    broad: tuple[Level, ...] = ()
    best: tuple[float, float, Components] | None = None
    for count in _KNOTS if numbers else (1,):
        strata = Strata.of(train.condition, labels, entries, count)
        first, *others = strata.levels
        # Broader strata have no numbers, so they are the same for any number of knots.
        broad = broad or tuple(_level(source, i, s, train, held, family) for i, s in enumerate(others, start=1))
        found = Components((_level(source, 0, first, train, held, family), *broad), background)
        for tau in _TAUS:
            nll = _quick_nll(found, tau, shares, fold, one_width)
            if best is None or nll < best[0]:
                best = (nll, tau, found)
    assert best is not None
    return best[1:]


def _quick_nll(found: Components, tau: float, shares: Tensor, fold: Tensor, one_width: bool) -> float:
    log_p, level = found.scored(tau)
    if one_width:
        weights = _one_width(found, tau, shares)
        return -float(shares @ torch.logsumexp(log_p + weights.log(), dim=-1))
    return tried(log_p, shares, fold, level=level, steps=_QUICK_STEPS)[0].nll


def _level(
    source: Source,
    number: int,
    strata: Strata,
    train: Points,
    held: Points,
    family: Family,
    start: float = 1.0,
    narrowest: float = math.inf,
) -> Level:
    """Return kernels of equal weights about the training points, at the validation points where they are at a time."""
    assert train.condition is not None
    assert held.condition is not None
    k = stratified_concentrations(source.manifold, train.x, train.condition, strata, family).clamp(max=narrowest)
    # Rows that the bound has made alike are one kernel.
    k = torch.unique_consecutive(k, dim=0)
    weights = torch.full((len(k),), 1 / len(k), dtype=torch.float64)
    own = StratifiedKernels(
        source.manifold, train.x, train.condition, strata, k, weights, source, train.weights
    )
    log_p = own.component_log_prob(held.x, held.condition)
    return Level(number, start, own, log_p, own.counts(held.condition))


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
        own = _level(
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
    kernels: Components, found: Components, tau: float, shares: Tensor, fold: Tensor
) -> tuple[list[Choice], list[Choice]]:
    """Return weights of the kernels at time 1 alone, and of everything, with zeros for what is left out."""
    log_p, level = found.scored(tau)
    everything = tried(log_p, shares, fold, level=level)
    log_p, level = kernels.scored(tau)
    alone = tried(log_p, shares, fold, level=level)
    # Of the parts in ``found`` the background's number is that of the last but one.
    of_kernels = found.parts < len(kernels.levels)
    of_kernels |= found.parts == len(found.levels)
    wide = [
        replace(own, weights=torch.zeros_like(everything[0].weights).masked_scatter(of_kernels, own.weights))
        for own in alone
    ]
    return wide, everything


def _one_row_each(manifold: Manifold, points: Tensor) -> Tensor:
    """Return concentrations that all centres share, ``(40, n)``."""
    return kernel_concentrations(manifold, points, absolute=40, neighbours=())


def _one_width(found: Components, tau: float, shares: Tensor) -> Tensor:
    """Return weights of the kernels of one width in all levels, the likeliest, with 1 % background in the last one."""
    log_p, level = found.scored(tau)
    count, depth = found.levels[0].log_p.shape[1], found.depth
    best, weights = -math.inf, torch.zeros_like(log_p[0])
    for k in range(count):
        own = torch.zeros_like(log_p[0])
        own[[k + count * i for i in range(depth)]] = 1.0
        own[k + count * (depth - 1)], own[-1] = 0.99, 0.01
        mean = float(shares @ torch.logsumexp(log_p + own.log(), dim=-1))
        best, weights = max((best, weights), (mean, own), key=lambda pair: pair[0])
    assert len(level) == count * depth + 1
    return weights


def _sparse(found: Components, tau: float, weights: Tensor) -> Tensor:
    """Return weights of which those that are hardly used are 0, of sum 1 in each level.

    Kernels at time 1 remain in each level, and the background is never without weight.
    """
    log_p, level = found.scored(tau)
    sums = torch.zeros(found.depth, dtype=weights.dtype, device=weights.device)
    kept = weights >= torch.where(level == 0, LEAST_KERNEL, _LEAST_BROAD)
    for i in range(found.depth):
        own = (level == i) & (found.parts == i)
        kept[(torch.where(own, weights, -1.0)).argmax()] = True
    background = (found.parts == len(found.levels)).nonzero()[0, 0]
    points = len(log_p)
    # As if one point more had been seen, far from all: the likelihood alone may leave nothing for such.
    weights = torch.where(kept, weights.clamp(min=1e-12), 0.0)
    weights[background] = weights[background] + 1 / (points + 1)
    return weights / sums.index_add(0, level, weights)[level]


def _density(
    found: Components, tau: float, weights: Tensor, source: Source, nll: dict[str, float]
) -> StratifiedRefinement:
    """Return the density with weights of the columns of components."""
    kernels, levels, starts = list[StratifiedKernels](), list[int](), list[float]()
    kept_parts, columns = list[int](), found.parts
    for i, own in enumerate(found.levels):
        if float(weights[columns == i].sum()) > 0:
            kernels.append(own.weighted(weights[columns == i]))
            levels.append(own.number)
            starts.append(own.start)
            kept_parts.append(i)
    matrix = torch.zeros(found.depth, len(kernels) + 2, dtype=torch.float64)
    _, level = found.scored(tau)
    parts = [*kept_parts, len(found.levels), len(found.levels) + 1]
    for place, part in enumerate(parts):
        for i in range(found.depth):
            matrix[i, place] = weights[(columns == part) & (level == i)].sum()
    return StratifiedRefinement(kernels, levels, starts, matrix, source, tau, nll)
