"""The last stage of a fit: kernels about the training points, carried back by the flow, as its sources."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.field import as_field
from rfm.flow import Flow, Refinement
from rfm.integrators import Adaptive, IntegrationError, Method, integrate
from rfm.likelihood import log_prob, transport
from rfm.networks.modes import in_evaluation_mode
from rfm.networks.precision import precision_of_weights
from rfm.sources import KernelMixture, Source, kernel_concentrations
from rfm.training.mixture_choice import Choice, chosen, folds_of
from rfm.training.weighted_points import Points, thinned

STARTS = (1.0, 0.99, 0.98, 0.96, 0.92, 0.84, 0.68, 0.0)
"""Times at which kernels are tried, each twice as far from the data as the one before; at 0 stands the flow alone."""
_FEWEST = 40
"""Validation points, at different places, below which weights would be noise."""
_SCREENED, _CARRIED, _CARRIED_FAR = 1536, 50_000, 4096
"""Centres with which the starts are chosen, and that stand at one start at most; fewer where they have spread."""
_FAR = 0.9
"""Before this time kernels are so broad that fewer centres do, and each takes long to carry there."""
_CARRYING_SOLVER = Adaptive(atol=1e-5, rtol=1e-5)
"""Kernels of a thousandth of the unit are ten times as wide as its error; that of `rfm.Flow` is below it."""
_SCREENED_BY, _VALIDATED = 400, 2048
"""Validation points by which the starts are chosen, and the weights, at most."""
_SCREENING_SOLVER = Adaptive(atol=1e-4, rtol=1e-4)
_SCREENING_STEPS = (100,)
_MOST_STARTS, _WORTH = 3, 1e-3
"""Starts besides time 1, at most, and what each has to add, in nats."""
_screening_family = functools.partial(kernel_concentrations, absolute=8, neighbours=(2, 6, 20), ratios=4)
_LEAST_KERNEL, _LEAST_START = 1e-3, 0.02
"""Weights of a kernel, and of all that stands at one start, below which they are left out."""
_ERROR_SHARE = 0.1
"""The solver's error over the width of a kernel, at most."""
_PROBED = 64
"""Points on which that error is measured."""

_QUICK_STARTS, _QUICK_CENTRES = (1.0, 0.98), 1024
_QUICK_SOLVER = Adaptive(atol=1e-4, rtol=1e-4)
_quick_family = functools.partial(kernel_concentrations, absolute=4, neighbours=(6,), ratios=4, cap=1e5)

Family = Callable[[Manifold, Tensor], Tensor]
"""From a manifold and centres to concentrations ``(K, n)``."""


@dataclass(frozen=True)
class Candidate:
    """What may stand at one time: kernels of several widths on all centres and, last, the flow's own source.

    Args:
        start: the time.
        background: the flow's own source.
        kernels: with equal weights; None where only the source stands.
        log_p: log-densities at time 1 of the components at the validation points, ``(m, K + 1)``.
    """

    start: float
    background: Source
    kernels: KernelMixture | None
    log_p: Tensor

    def source(self, weights: Tensor) -> Source:
        """Return the mixture with weights ``(K + 1,)`` of any sum, without kernels of weight 0."""
        kept, own = weights[:-1] > 0, self.kernels
        if own is None or not bool(kept.any()):
            return self.background
        k = own.concentrations[kept]
        weights = torch.cat([weights[:-1][kept], weights[-1:]])
        return KernelMixture(own.manifold, own.points, k, weights / weights.sum(), own.background, own.sample_weights)


def candidates(
    field: Callable[..., Tensor],
    source: Source,
    starts: Sequence[float],
    centres: Points,
    x: Tensor,
    *,
    family: Family = kernel_concentrations,
    method: Method = _CARRYING_SOLVER,
    bounded: bool = True,
) -> list[Candidate]:
    """Return what may stand at each of descending times, on the centres carried back there.

    Args:
        field: the velocity field.
        source: the flow's own, the background of all kernels; at time 0 it is the flow itself.
        starts: times, descending from 1 or below; at 0 stands the flow's source alone.
        centres: training points.
        x: validation points ``(m, *event_shape)``.
        family: the concentrations of the kernels on carried centres.
        method: how to integrate.
        bounded: measure the solver's error, and let no kernel be narrower than ten times that.

    Raises:
        IntegrationError: if the field cannot be integrated.
    """
    manifold, at, found = source.manifold, 1.0, []
    integral = x.new_zeros(len(x))
    for start in starts:
        narrowest = math.inf
        if start < at:
            solution = transport(field, manifold, x, at, start, method)
            assert solution.integral is not None
            x, integral = solution.final, integral + solution.integral[-1]
            if start > 0:
                centres = thinned(centres, _CARRIED if start > _FAR else _CARRIED_FAR)
                centres = replace(centres, x=integrate(field, manifold, centres.x, (at, start), method).final)
                narrowest = _narrowest(field, manifold, centres, start, method) if bounded else math.inf
            at = start
        kernels = _kernels(source, centres, family, narrowest) if start > 0 else None
        own = source.log_prob(x)[:, None] if kernels is None else kernels.component_log_prob(x, truncate=True)
        found.append(Candidate(start, source, kernels, own.double() + integral.double()[:, None]))
    return found


def _kernels(source: Source, centres: Points, family: Family, narrowest: float) -> KernelMixture:
    """Return kernels on centres, none narrower than a concentration allows, with equal weights."""
    k = family(source.manifold, centres.x).clamp(max=narrowest)
    # Rows that the bound has made alike are one kernel.
    k = torch.unique_consecutive(k, dim=0)
    weights = torch.full((len(k) + 1,), 1 / (len(k) + 1), dtype=torch.float64)
    return KernelMixture(source.manifold, centres.x, k, weights, source, centres.weights)


def _narrowest(
    field: Callable[..., Tensor], manifold: Manifold, centres: Points, start: float, method: Method
) -> float:
    """Return the concentration of the narrowest kernel that is ten times as wide as the solver's error."""
    error = solver_error(field, manifold, thinned(centres, _PROBED).x, start, method)
    return (_ERROR_SHARE / error) ** 2


def solver_error(
    field: Callable[..., Tensor], manifold: Manifold, x: Tensor, start: float, method: Method | None = None
) -> float:
    """Return how far a solve from ``start`` to 1 and back takes points from where they were, at most.

    In the unit of the coordinates that kernels measure distances in; rounding of the points' dtype is part of it.
    """
    there = integrate(field, manifold, x, (start, 1.0), method).final
    back = integrate(field, manifold, there, (1.0, start), method).final
    assert manifold.kernel is not None
    apart = manifold.kernel.embed(back.double()) - manifold.kernel.embed(x.double())
    rounding = torch.finfo(x.dtype).eps
    return max(float(torch.linalg.vector_norm(apart, dim=-1).max()), rounding)


def reason_against(flow: Flow, data: Points, validation: Points) -> str:
    """Return why a flow cannot be refined, in words; empty if it can."""
    if data.condition is not None:
        return "its density is conditional, and kernels know of no condition"
    if data.start is not None or not flow.source.has_density:
        return "it goes from given start points, which have no density"
    if isinstance(flow.source, KernelMixture):
        return "its source is a kernel density already"
    kernel = flow.manifold.kernel
    if kernel is None:
        return f"there is no smoothing kernel on {flow.manifold}"
    try:
        kernel.sample(data.x[:1].double(), data.x.new_ones(1, dtype=torch.float64), torch.Generator(data.x.device))
    except ValueError as error:
        return str(error)
    places = len(torch.unique(validation.x.flatten(1), dim=0))
    if places < _FEWEST:
        return f"{places} different validation points are too few to weight kernels by, {_FEWEST} are needed"
    return ""


def validation_components(field: Callable[..., Tensor], source: Source, centres: Points, x: Tensor) -> Tensor:
    """Return log-densities of a few kernels at few times, ``(m, K)``, in about the time that the flow's own takes.

    Args:
        field: the velocity field.
        source: the flow's own.
        centres: training points; 1,024 of them are used.
        x: validation points ``(m, *event_shape)``.

    Raises:
        IntegrationError: if the field cannot be integrated.
    """
    few = thinned(centres, _QUICK_CENTRES)
    return _joined(
        candidates(field, source, _QUICK_STARTS, few, x, family=_quick_family, method=_QUICK_SOLVER, bounded=False)
    )


@torch.no_grad()
def refine(flow: Flow, data: Points, validation: Points) -> None:
    """Refine a flow in place by kernels along it, where validation gains; ``flow.refinement_report`` says how.

    Kernels of the standard family stand about the training points, carried back to each of `STARTS`; all of them, and
    the flow itself, are weighted on the validation points by `rfm.training.mixture_choice.chosen`. At time 1 they are
    the kernel density, which is therefore among what is chosen from. A kernel before time 1 is at least ten times as
    wide as the solver's error. What is hardly used is left out. The flow stays as it is unless the points that were
    left out of the choice are likelier by more than the standard error of the difference.

    The starts are chosen with 1,536 of the centres, evenly spaced, where there are more. At most 50,000 are carried to
    a start, and 4,096 to one before 0.9; at time 1 all of them stand.

    Args:
        flow: manifold, field and source, trained.
        data: training points, on the device of the flow.
        validation: points that decide on all weights, likewise.
    """
    flow.refinement, flow.refinement_report = _refinement(flow, data, validation)


def _refinement(flow: Flow, data: Points, validation: Points) -> tuple[Refinement | None, str]:
    data, validation = data.positive, validation.positive
    against = reason_against(flow, data, validation)
    if against:
        return None, f"not refined: {against}"
    validation = thinned(validation, _VALIDATED)
    x, shares, field = validation.x, validation.shares, as_field(flow.field)
    try:
        with in_evaluation_mode(flow), precision_of_weights(flow):
            starts = _promising_starts(field, flow.source, data, thinned(validation, _SCREENED_BY))
            kept = candidates(field, flow.source, starts, data, x)
            alone = kept[-1].log_p[:, -1] if starts[-1] == 0 else _of_flow(field, flow.source, x)
    except IntegrationError:
        return None, "not refined: the field could not be integrated back from all training points"
    fold = folds_of(x)
    kernels = chosen(kept[0].log_p, shares, fold)
    weights, choice = _sparse(kept, shares, fold)
    known = {"flow": -float(shares @ alone), "kernels": kernels.nll, "refined": choice.nll}
    difference = choice.held_out - alone
    gain = shares @ difference
    if not gain > torch.linalg.vector_norm(shares * (difference - gain)):
        return None, (
            f"not refined: validation NLL {known['flow']:.3f} nats of the flow, {known['refined']:.3f} with kernels"
        )
    parts = [(c, w) for c, w in zip(kept, _by_start(kept, weights), strict=True) if float(w.sum()) > 0]
    sources = [c.source(w) for c, w in parts]
    refinement = Refinement([c.start for c, _ in parts], sources, torch.stack([w.sum() for _, w in parts]), known)
    return refinement, refinement.describe()


def _promising_starts(field: Callable[..., Tensor], source: Source, data: Points, validation: Points) -> list[float]:
    """Return time 1 and the others that add to the likelihood of points held out, one after the other, descending.

    With a few kernels on some of the centres. Each is the one that adds most to those before it, while that is worth a
    passage of the solver.
    """
    few: dict[str, Any] = {"family": _screening_family, "method": _SCREENING_SOLVER, "bounded": False}
    tried = candidates(field, source, STARTS, thinned(data, _SCREENED), validation.x, **few)
    shares, fold = validation.shares, folds_of(validation.x)
    kept, rest = tried[:1], tried[1:]
    best = chosen(_joined(kept), shares, fold, _SCREENING_STEPS).nll
    while rest:
        scored = [(chosen(_joined([*kept, c]), shares, fold, _SCREENING_STEPS).nll, c) for c in rest]
        nll, most = min(scored, key=lambda pair: pair[0])
        if not nll < best - _WORTH or len(kept) > _MOST_STARTS:
            break
        best, kept, rest = nll, [*kept, most], [c for c in rest if c is not most]
    return sorted((c.start for c in kept), reverse=True)


def _of_flow(field: Callable[..., Tensor], source: Source, x: Tensor) -> Tensor:
    return log_prob(field, source, x, _SCREENING_SOLVER).double()


def _sparse(parts: list[Candidate], shares: Tensor, fold: Tensor) -> tuple[Tensor, Choice]:
    """Return weights of all components, those that are hardly used 0, and the choice among the others.

    The background at the first start, time 1, is never without weight.
    """
    log_p = _joined(parts)
    weights = chosen(log_p, shares, fold).weights
    totals = torch.cat([w.sum().expand(len(w)) for w in _by_start(parts, weights)])
    used = (weights >= _LEAST_KERNEL) & (totals >= _LEAST_START)
    choice = chosen(log_p[:, used], shares, fold)
    weights = torch.zeros_like(weights)
    weights[used] = choice.weights
    # As if one point more had been seen, far from all: the likelihood alone may leave nothing for such.
    weights = weights * len(fold) / (len(fold) + 1)
    weights[parts[0].log_p.shape[1] - 1] += 1 / (len(fold) + 1)
    return weights, choice


def _joined(parts: list[Candidate]) -> Tensor:
    return torch.cat([c.log_p for c in parts], dim=1)


def _by_start(parts: list[Candidate], weights: Tensor) -> tuple[Tensor, ...]:
    return weights.split([c.log_p.shape[1] for c in parts])
