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
from rfm.likelihood import transport
from rfm.networks.modes import in_evaluation_mode
from rfm.networks.precision import precision_of_weights
from rfm.sources import KernelMixture, Source, kernel_concentrations
from rfm.training.mixture_choice import Choice, Clusters, cross_validated, stacked, supported
from rfm.training.weighted_points import Points, merged, thinned

STARTS = (1.0, 0.98, 0.92, 0.0)
"""Times at which sources stand: kernels, kernels where the flow has spread dense clusters a little and more, and the
flow alone. Other starts between take as long again, and leave points held out as likely as these do."""
_SUBSETS = ((0,), (0, 1, 3), (0, 1, 2, 3))
"""Which of them the choice is among: kernels alone, the fewest, and all. Fewer weights are less noise."""
FEWEST = 40
"""Validation points, at different places, below which weights would be noise."""
FEWEST_GROUPS = 2
"""Their groups, likewise."""
CARRIED, _CARRIED_FAR = 50_000, 4096
"""Centres at one start before time 1, at most; fewer where kernels are broad, as each takes long to carry there."""
_FAR = 0.95
"""From this time down they are."""
CARRYING_SOLVER = Adaptive(atol=1e-6, rtol=1e-6)
"""Centres are as exact as the default solver makes the points that are scored; that of the narrowest kernels is a tenth
of a thousandth."""
FLOW_SOLVER = Adaptive(atol=1e-4, rtol=1e-4)
"""For the way from the last kernels to the flow's own source, which is broad."""
VALIDATED = 2048
"""Validation points that decide on the weights, at most."""
NOT_INTEGRATED = "not refined: the field could not be integrated back from all training points"
LEAST_KERNEL, _LEAST_START = 1e-3, 0.02
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
    method: Method = CARRYING_SOLVER,
    bounded: bool = True,
    merging: bool = True,
    report: Callable[[float], None] = lambda share: None,
) -> list[Candidate]:
    """Return what may stand at each of descending times, on the centres carried back there.

    Args:
        field: the velocity field.
        source: the flow's own, the background of all kernels; at time 0 it is the flow itself.
        starts: times, descending from 1 or below; at 0 stands the flow's source alone.
        centres: training points.
        x: validation points ``(m, *event_shape)``.
        family: the concentrations of the kernels on carried centres.
        method: how to integrate where there are kernels.
        bounded: measure the solver's error, and let no kernel be narrower than ten times that.
        merging: make one kernel of those that this bound has made alike; else there are as many for any centres.
        report: called with the share that is done.

    Raises:
        IntegrationError: if the field cannot be integrated.
    """
    manifold, at, found = source.manifold, 1.0, []
    integral = x.new_zeros(len(x))
    # Each start takes a passage of the centres, one of the validation points, and the sums over all pairs.
    done, stages = 0, 3 * len(starts)

    def advance(stages_done: int) -> None:
        nonlocal done
        done += stages_done
        report(done / stages)

    report(0.0)
    for start in starts:
        narrowest = math.inf
        if start < at:
            solution = transport(field, manifold, x, at, start, method if start > 0 else FLOW_SOLVER)
            assert solution.integral is not None
            x, integral = solution.final, integral + solution.integral[-1]
            advance(1)
            if start > 0:
                centres = thinned(centres, CARRIED if start > _FAR else _CARRIED_FAR)
                centres = replace(centres, x=integrate(field, manifold, centres.x, (at, start), method).final)
                advance(1)
                narrowest = narrowest_kernel(field, manifold, centres, start, method) if bounded else math.inf
            at = start
        kernels = _kernels(source, centres, family, narrowest, merging) if start > 0 else None
        own = source.log_prob(x)[:, None] if kernels is None else kernels.component_log_prob(x, truncate=True)
        found.append(Candidate(start, source, kernels, own.double() + integral.double()[:, None]))
        advance(3 * len(found) - done)
    return found


def _kernels(source: Source, centres: Points, family: Family, narrowest: float, merging: bool) -> KernelMixture:
    """Return kernels on centres, none narrower than a concentration allows, with equal weights."""
    k = family(source.manifold, centres.x).clamp(max=narrowest)
    if merging:
        # Rows that the bound has made alike are one kernel.
        k = torch.unique_consecutive(k, dim=0)
    weights = torch.full((len(k) + 1,), 1 / (len(k) + 1), dtype=torch.float64)
    return KernelMixture(source.manifold, centres.x, k, weights, source, centres.weights)


def narrowest_kernel(
    field: Callable[..., Tensor], manifold: Manifold, centres: Points, start: float, method: Method
) -> float:
    """Return the concentration of the narrowest kernel that is ten times as wide as the solver's error."""
    few = thinned(centres, _PROBED)
    own = {} if few.condition is None else {"condition": few.condition}
    error = solver_error(field, manifold, few.x, start, method, **own)
    return (_ERROR_SHARE / error) ** 2


def solver_error(
    field: Callable[..., Tensor],
    manifold: Manifold,
    x: Tensor,
    start: float,
    method: Method | None = None,
    **condition: Any,
) -> float:
    """Return how far a solve from ``start`` to 1 and back takes points from where they were, at most.

    In the unit of the coordinates that kernels measure distances in; rounding of the points' dtype is part of it.
    """
    there = integrate(field, manifold, x, (start, 1.0), method, **condition).final
    back = integrate(field, manifold, there, (1.0, start), method, **condition).final
    assert manifold.kernel is not None
    apart = manifold.kernel.embed(back.double()) - manifold.kernel.embed(x.double())
    rounding = torch.finfo(x.dtype).eps
    return max(float(torch.linalg.vector_norm(apart, dim=-1).max()), rounding)


def reason_against(flow: Flow, data: Points, validation: Points) -> str:
    """Return why a flow cannot be refined, in words; empty if it can."""
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
    if places < FEWEST:
        return f"{places} different validation points are too few to weight kernels by, {FEWEST} are needed"
    if validation.group is not None and len(validation.group.unique()) < FEWEST_GROUPS:
        return "all validation points are of one group, which does not tell of others; hold out more groups"
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
    quick = candidates(field, source, _QUICK_STARTS, few, x, family=_quick_family, method=_QUICK_SOLVER, bounded=False)
    return torch.cat([c.log_p for c in quick], dim=1)


@torch.no_grad()
def refine(flow: Flow, data: Points, validation: Points, report: Callable[[float], None] = lambda share: None) -> None:
    """Refine a flow in place by kernels along it, where validation gains; ``flow.refinement_report`` says how.

    Kernels of the standard family stand about the training points, at time 1 and, carried back, at 0.98 and 0.92. At
    time 1 they are those of the kernel density `rfm.sources.KernelMixture.adaptive`. The choice is among these alone,
    them with the kernels at 0.98 and the flow itself, everything, and mixtures of these, see
    `rfm.training.mixture_choice.stacked`: what is likeliest on validation points that did not choose its weights. A
    kernel before time 1 is at least ten times as wide as the solver's error; at most 50,000 stand at 0.98, and 4,096 at
    0.92. What is hardly used is left out. The flow stays as it is unless the points that were left out of the choice
    are likelier by more than the standard error of the difference, clustered by place. Where validation points have
    groups, these stand for places, and more than kernels at time 1 is chosen only where it is clear of these and of the
    flow, see `rfm.training.mixture_choice.supported`.

    Args:
        flow: manifold, field and source, trained.
        data: training points, on the device of the flow.
        validation: points that decide on all weights, likewise.
        report: called with the share that is done.
    """
    flow.refinement, flow.refinement_report = unconditional_refinement(flow, data, validation, report)


def unconditional_refinement(
    flow: Flow, data: Points, validation: Points, report: Callable[[float], None]
) -> tuple[Refinement | None, str]:
    """Return what `refine` refines a flow by, None where nothing is gained, and what it is in words."""
    data, validation = data.positive, validation.positive
    against = reason_against(flow, data, validation)
    if against:
        return None, f"not refined: {against}"
    validation = thinned(validation, VALIDATED)
    kept = candidates_of(flow, data, validation.x, report=report)
    if kept is None:
        return None, NOT_INTEGRATED
    found = weights_of(kept, Clusters.of(validation))
    if isinstance(found, str):
        return None, found
    refinement = assembled(kept, *found)
    return refinement, refinement.describe()


@torch.no_grad()
def candidates_of(
    flow: Flow, data: Points, x: Tensor, merging: bool = True, report: Callable[[float], None] = lambda share: None
) -> list[Candidate] | None:
    """Return what may stand at each start on the training points; None where the field cannot be integrated."""
    try:
        with in_evaluation_mode(flow), precision_of_weights(flow):
            # Repeats are one centre: carried apart by rounding, they would pass for neighbours.
            return candidates(
                as_field(flow.field), flow.source, STARTS, merged(data), x, merging=merging, report=report
            )
    except IntegrationError:
        return None


def weights_of(kept: list[Candidate], clusters: Clusters) -> tuple[Tensor, dict[str, float]] | str:
    """Return weights of all components, with the validation NLL of flow, kernels and both; or why there are none.

    Args:
        kept: the candidates, with their densities at points that are held out.
        clusters: these points.
    """
    alone, (kernels, choice) = kept[-1].log_p[:, -1], _choices(kept, clusters)
    choice = supported(choice, kernels, alone, clusters)
    known = {"flow": -float(clusters.shares @ alone), "kernels": kernels.nll, "refined": choice.nll}
    if not clusters.gains(choice.held_out, alone):
        return (
            f"not refined: no gain beyond chance, with validation NLL {known['flow']:.3f} nats of the flow, "
            f"{known['refined']:.3f} with kernels"
        )
    return _sparse(kept, choice.weights), known


def assembled(kept: list[Candidate], weights: Tensor, known: dict[str, float]) -> Refinement:
    """Return the refinement with weights of all components, 0 for what is left out."""
    parts = [(c, w) for c, w in zip(kept, _by_start(kept, weights), strict=True) if float(w.sum()) > 0]
    sources = [c.source(w) for c, w in parts]
    return Refinement([c.start for c, _ in parts], sources, torch.stack([w.sum() for _, w in parts]), known)


def _choices(kept: list[Candidate], clusters: Clusters) -> tuple[Choice, Choice]:
    """Return the best weights of the kernels at time 1 alone, and of everything, with zeros for what is left out."""
    start = torch.cat([torch.full_like(c.log_p[0], i) for i, c in enumerate(kept)])
    log_p, choices = torch.cat([c.log_p for c in kept], dim=1), list[Choice]()
    for subset in _SUBSETS:
        own = torch.isin(start, start.new_tensor(subset))
        for choice in cross_validated(log_p[:, own], clusters):
            choices.append(replace(choice, weights=torch.zeros_like(start).masked_scatter(own, choice.weights)))
    alone = [choice for choice in choices if not bool(choice.weights[start > 0].any())]
    return min(alone, key=lambda choice: choice.nll), stacked(choices, clusters)


def _sparse(parts: list[Candidate], weights: Tensor) -> Tensor:
    """Return weights of which those that are hardly used are 0, with sum 1.

    The background at the first start, time 1, is never without weight.
    """
    totals = torch.cat([w.sum().expand(len(w)) for w in _by_start(parts, weights)])
    weights = torch.where((weights >= LEAST_KERNEL) & (totals >= _LEAST_START), weights, 0.0)
    points = parts[0].log_p.shape[0]
    # As if one point more had been seen, far from all: the likelihood alone may leave nothing for such.
    weights = weights / weights.sum() * points / (points + 1)
    weights[parts[0].log_p.shape[1] - 1] += 1 / (points + 1)
    return weights


def _by_start(parts: list[Candidate], weights: Tensor) -> tuple[Tensor, ...]:
    return weights.split([c.log_p.shape[1] for c in parts])
