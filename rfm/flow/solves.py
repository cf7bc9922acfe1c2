"""The solves of a flow for one batch: points that set out from a source, and log-densities on the way back to it."""

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor

from rfm.field import Field
from rfm.flow.refinement import Refinement
from rfm.integrators import Method, integrate
from rfm.likelihood import Hutchinson, LogProbEstimate, estimate_log_prob, estimate_transport, log_prob, transport
from rfm.sources import Source


def carried(
    field: Field,
    source: Source,
    x: Tensor,
    start: float,
    solver: Method | None,
    estimator: Hutchinson | None,
    with_density: bool,
    **condition: Any,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return where points ``x`` of a source at ``start`` are at time 1, their log-densities, and errors of these."""
    if not with_density:
        return integrate(field, source.manifold, x, (start, 1.0), solver, **condition).final, None, None
    if estimator is None:
        solution, error = transport(field, source.manifold, x, start, 1.0, solver, **condition), None
    else:
        solution, error = estimate_transport(field, source.manifold, x, start, 1.0, estimator, solver, **condition)
    assert solution.integral is not None
    return solution.final, source.log_prob(x) - solution.integral[-1], error


def densities(
    field: Field, source: Source, start: float, refinement: Refinement | None
) -> tuple[Callable[..., Tensor], Callable[..., LogProbEstimate]]:
    """Return a flow's log-density, exact and estimated, as functions of ``x``, ``method`` and ``estimator``."""
    if refinement is None:
        own: dict[str, Any] = {"field": field, "source": source, "start": start}
        return functools.partial(log_prob, **own), functools.partial(estimate_log_prob, **own)
    own = {"field": field, "manifold": source.manifold}
    return functools.partial(refinement.log_prob, **own), functools.partial(refinement.estimate_log_prob, **own)
