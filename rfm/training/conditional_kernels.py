"""Kernel densities given a condition: strata, shares and weights that validation chooses."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.flow import StratifiedRefinement
from rfm.flow.stratified_refinement import level_shares
from rfm.sources import (
    Source,
    Strata,
    StratifiedKernels,
    default_source,
    kernel_concentrations,
    stratified_concentrations,
)
from rfm.training.mixture_choice import Choice, Clusters, cross_validated, stacked
from rfm.training.refinement import CARRIED, LEAST_KERNEL, Family
from rfm.training.weighted_points import Points, merged, thinned

_TAUS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Numbers of centres by which broader strata may count."""
_KNOTS = (8, 32)
"""Numbers of knots in each number; those between take as long again each, and differ little."""
WEIGHED = 1024
"""Validation points that decide on the weights of one density, at most; each set of known conditions has one."""
_BROADEST = 4096
"""Centres of the one stratum of all points, at most: little of the weight is theirs."""
_LEAST_POINTS = 4
"""Points of a stratum on average, below which there are no more knots."""
_LEAST_BROAD = 0.02
"""As `LEAST_KERNEL`, in broader strata: all points are their centres, which takes long, and little is theirs."""
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
        """Part, level and log-densities ``(m, K)``: of kernels, background, and the flow in two levels."""
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
    train, validation = known_points(train.positive, entries), known_points(validation.positive, entries)
    if not len(train.x) or not len(validation.x):
        raise ValueError(
            f"conditional_kernels: {len(train.x)} training and {len(validation.x)} validation points have a condition "
            "of which all is known; give it some of both"
        )
    train, validation = thinned(merged(train), CARRIED), thinned(validation, WEIGHED)
    source = default_source(manifold, train.x) if background is None else background
    family = _one_row_each if one_width else kernel_concentrations
    tau, found = chosen_strata(source, train, validation, labels, entries, family, one_width)
    clusters = Clusters.of(validation)
    if one_width:
        best = _one_width(found, tau, clusters.shares)
        weights = best.weights
    else:
        log_p, level = found.scored(tau)
        best = stacked(cross_validated(log_p, clusters, level=level), clusters)
        weights = sparse(found, tau, best.weights)
    return density_of(found, tau, weights, source, {"kernels": best.nll})


def known_points(points: Points, entries: tuple[int, ...]) -> Points:
    """Return the points of which these entries of the condition are known, with the others hidden."""
    assert points.condition is not None
    chosen_rows = points.take((~points.condition[:, list(entries)].isnan()).all(-1).nonzero()[:, 0])
    assert chosen_rows.condition is not None
    hidden = torch.full_like(chosen_rows.condition, math.nan)
    hidden[:, list(entries)] = chosen_rows.condition[:, list(entries)]
    return replace(chosen_rows, condition=hidden)


def chosen_strata(
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
    clusters = Clusters.of(held)
    background = source.log_prob(held.x).double()
    broad: tuple[Level, ...] = ()
    best = math.inf, _TAUS[0], Components(broad, background)
    for count in _KNOTS if numbers else (1,):
        strata = Strata.of(train.condition, labels, entries, count)
        first, *others = strata.levels
        if best[0] < math.inf and _mean_size(strata, train.condition) < _LEAST_POINTS:
            break
        # Broader strata have no numbers, so they are the same for any number of knots.
        broad = broad or tuple(level_of(source, i, s, train, held, family) for i, s in enumerate(others, start=1))
        found = Components((level_of(source, 0, first, train, held, family), *broad), background)
        nll, tau = best_tau(found, clusters, one_width)
        if nll >= best[0]:
            # With more knots strata become fewer points each, and each of these takes long.
            break
        best = nll, tau, found
    return best[1:]


def best_tau(found: Components, clusters: Clusters, one_width: bool = False) -> tuple[float, float]:
    """Return the mean NLL of points left out of the choice of weights, and the tau of which it is the smallest."""
    return min((_quick_nll(found, tau, clusters, one_width), tau) for tau in _TAUS)


def _mean_size(strata: Strata, condition: Tensor) -> float:
    """Return how many points lie in a stratum that has some, on average, with their parts."""
    stratum, part = strata.members(condition)
    return float(part.sum()) / max(1, len(stratum[part > 0].unique()))


def _quick_nll(found: Components, tau: float, clusters: Clusters, one_width: bool) -> float:
    if one_width:
        return _one_width(found, tau, clusters.shares).nll
    log_p, level = found.scored(tau)
    return cross_validated(log_p, clusters, level=level, steps=_QUICK_STEPS)[0].nll


def level_of(
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
    assert held.condition is not None
    if not strata.entries:
        train = thinned(train, _BROADEST)
    assert train.condition is not None
    k = stratified_concentrations(source.manifold, train.x, train.condition, strata, family).clamp(max=narrowest)
    # Rows that the bound has made alike are one kernel.
    k = torch.unique_consecutive(k, dim=0)
    weights = k.new_full((len(k),), 1 / len(k))
    own = StratifiedKernels(source.manifold, train.x, train.condition, strata, k, weights, source, train.weights)
    log_p = own.component_log_prob(held.x, held.condition)
    return Level(number, start, own, log_p, own.counts(held.condition))


def _one_row_each(manifold: Manifold, points: Tensor) -> Tensor:
    """Return concentrations that all centres share, ``(40, n)``."""
    return kernel_concentrations(manifold, points, absolute=40, neighbours=())


def _one_width(found: Components, tau: float, shares: Tensor) -> Choice:
    """Return the likeliest weights that are those of one width in all levels, with 1 % background in the last one."""
    log_p, _ = found.scored(tau)
    count, depth = found.levels[0].log_p.shape[1], found.depth
    # Columns are those of the levels, each with all widths, and the background's.
    by_width = log_p[:, : count * depth].unflatten(1, (depth, count))
    of_last = torch.logaddexp(by_width[:, -1] + math.log(0.99), log_p[:, [-1]] + math.log(0.01))
    mixed = torch.logsumexp(torch.cat([by_width[:, :-1], of_last[:, None]], dim=1), dim=1)
    k = int((shares @ mixed).argmax())
    weights = torch.zeros_like(log_p[0])
    weights[[k + count * i for i in range(depth)]] = 1.0
    weights[k + count * (depth - 1)], weights[-1] = 0.99, 0.01
    return Choice(weights, mixed[:, k], -float(shares @ mixed[:, k]))


def sparse(found: Components, tau: float, weights: Tensor) -> Tensor:
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


def density_of(
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
    matrix = torch.zeros(found.depth, len(kernels) + 2, dtype=torch.float64, device=weights.device)
    _, level = found.scored(tau)
    parts = [*kept_parts, len(found.levels), len(found.levels) + 1]
    for place, part in enumerate(parts):
        for i in range(found.depth):
            matrix[i, place] = weights[(columns == part) & (level == i)].sum()
    return StratifiedRefinement(kernels, levels, starts, matrix, source, tau, nll)
