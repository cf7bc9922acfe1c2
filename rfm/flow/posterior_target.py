"""A flow as a prior: what methods of `rfm.posterior` draw from."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from rfm.field import Field
from rfm.flow.condition_vectors import batches
from rfm.integrators import Method, integrate
from rfm.posterior import Carried, Likelihood, PosteriorDraws, Slice, SourceTarget, effective_size, slice_source
from rfm.sources import Source


def flow_target(
    field: Field,
    source: Source,
    start: float,
    likelihood: Likelihood,
    condition: Tensor | None,
    solver: Method,
    batch_size: int,
) -> SourceTarget:
    """Return the posterior on the source of a flow.

    Args:
        field: the velocity field.
        source: what stands at ``start``.
        start: the time of the source.
        likelihood: of points of the data.
        condition: one condition vector ``(c,)``, as the field takes it, or None.
        solver: how to carry points.
        batch_size: points carried together where no gradient is needed.
    """

    def carry(z: Tensor) -> Carried:
        size = len(z) if torch.is_grad_enabled() else batch_size
        parts = batches(z, condition, z.shape[:1], size)
        solutions = [integrate(field, source.manifold, x, (start, 1.0), solver, **own) for x, own in parts]
        count = sum(int(solution.evaluations.sum()) for solution in solutions)
        return Carried(torch.cat([solution.final for solution in solutions]), count)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        if condition is None:
            return field(x, t)
        return field(x, t, condition=condition.to(x).expand(len(x), *condition.shape))

    # Methods that guide know paths from time 0 only.
    return SourceTarget(source, carry, likelihood, velocity if start == 0 else None, batch_size)


def slice_target(
    known: Slice, joint: Callable[[Tensor], Tensor], draws: Tensor, likelihood: Likelihood, batch_size: int
) -> SourceTarget:
    """Return the density of the free part of a slice, on a source of that.

    Args:
        known: the slice.
        joint: log-density of points in nats.
        draws: of the flow ``(n, *event_shape)``, to choose the source by.
        likelihood: of points besides.
        batch_size: of methods.
    """
    source = slice_source(known, draws)
    reweighted = known.reweighted(joint, source, likelihood)
    return SourceTarget(source, lambda z: Carried(known.join(z), len(z)), reweighted, None, batch_size)


def corrected(draws: PosteriorDraws, log_ratio: Tensor, generator: torch.Generator | None) -> PosteriorDraws:
    """Return draws of the posterior of another prior, by importance weights: exact in the limit of many draws.

    Args:
        draws: of the posterior of the one.
        log_ratio: log-density of the other prior relative to the one, at the draws ``(n,)``.
        generator: source of randomness.
    """
    log_w = draws.log_weights + log_ratio.double()
    total = log_w.logsumexp(0)
    share = effective_size(log_w) / effective_size(draws.log_weights)
    n = len(log_w)
    notes = () if share > 0.1 else (f"the refinement changes the density so much that {share:.1%} of the draws count",)
    points = replace(draws, log_weights=log_w - total).resampled(n, generator)
    return replace(
        draws,
        points=points,
        log_weights=torch.full_like(log_w, -math.log(n)),
        method=f"{draws.method}, reweighted by the refinement",
        effective_sample_size=draws.effective_sample_size * share,
        log_evidence=draws.log_evidence + float(total),
        warnings=(*draws.warnings, *notes),
    )
