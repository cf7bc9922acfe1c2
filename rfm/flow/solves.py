"""The solves of a flow for one batch: points that set out from a source, and log-densities on the way back to it."""

import functools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from manifolds import Manifold
from manifolds.arguments import integer, number
from rfm.field import Field, as_flow_map
from rfm.flow.flow_mixture import RefinedDensity
from rfm.integrators import Jumps, Method, integrate
from rfm.likelihood import (
    Hutchinson,
    LogProbEstimate,
    estimate_log_prob,
    estimate_transport,
    jump_log_prob,
    jump_transport,
    log_prob,
    score,
    transport,
)
from rfm.sources import Source
from rfm.steering import Steering


def carried(
    field: Field,
    source: Source,
    x: Tensor,
    span: tuple[float, float],
    solver: Method | None,
    estimator: Hutchinson | None,
    with_density: bool,
    **condition: Any,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return where points ``x`` of a source at ``span[0]`` are at ``span[1]``, their log-densities, errors of these."""
    start, time = span
    if time == start:  # nothing to solve
        log_p = source.log_prob(x) if with_density else None
        return x, log_p, None if estimator is None or log_p is None else torch.zeros_like(log_p)
    if not with_density:
        return integrate(field, source.manifold, x, span, solver, **condition).final, None, None
    if isinstance(solver, Jumps):
        landed, log_det = jump_transport(field, source.manifold, x, solver, start=start, time=time, **condition)
        return landed, source.log_prob(x) - log_det, None
    if estimator is None:
        solution, error = transport(field, source.manifold, x, start, time, solver, **condition), None
    else:
        solution, error = estimate_transport(field, source.manifold, x, start, time, estimator, solver, **condition)
    assert solution.integral is not None
    return solution.final, source.log_prob(x) - solution.integral[-1], error


def densities(
    field: Field,
    source: Source,
    span: tuple[float, float],
    refinement: RefinedDensity | None,
    solver: Method | None = None,
) -> tuple[Callable[..., Tensor], Callable[..., LogProbEstimate]]:
    """Return a flow's log-density, exact and estimated, as functions of ``x``, ``method`` and ``estimator``."""
    if refinement is None:
        own: dict[str, Any] = {"field": field, "source": source, "start": span[0], "time": span[1]}
        exact = _density_of_jumps if isinstance(solver, Jumps) and span[0] < span[1] else _log_prob
        return functools.partial(exact, **own), functools.partial(estimate_log_prob, **own)
    own = {"field": field, "manifold": source.manifold}
    return functools.partial(refinement.log_prob, **own), functools.partial(refinement.estimate_log_prob, **own)


def _density_of_jumps(*, method: Jumps, **own: Any) -> Tensor:
    return jump_log_prob(method=method, **own).log_prob


def _log_prob(
    field: Field, source: Source, x: Tensor, method: Method | None, *, start: float, time: float, **condition: Any
) -> Tensor:
    """Return a log-density: in closed form where the field knows one, unless there is a method to solve it by."""
    if method is None and start == 0 and not condition:
        known = field.log_prob_from(source, x, torch.full_like(x.flatten(1)[:, 0], time))
        if known is not None:
            return known
    return log_prob(field, source, x, method, start=start, time=time, **condition)


def zero_outside(
    log_density: Callable[..., Tensor | LogProbEstimate],
    x: Tensor,
    inside: Tensor,
    condition: Tensor | None,
    like: tuple[torch.dtype, torch.device],
) -> Tensor | LogProbEstimate:
    """Return log-densities that are -inf at points outside of a bounded set.

    Args:
        log_density: of the points inside, a function of points and ``condition``.
        x: points ``(*batch, *event_shape)``.
        inside: which are in the set, ``(*batch)``.
        condition: one vector ``(c,)``, or a row for each point.
        like: dtype and device of the result.
    """
    dtype, device = like
    own = inside.to(x.device)
    full = torch.full(inside.shape, -math.inf, dtype=dtype, device=device)
    if condition is not None and condition.ndim > 1:
        condition = condition.expand(*inside.shape, condition.shape[-1])[inside.to(condition.device)]
    errors = torch.zeros_like(full)
    found = log_density(x[own], condition=condition)
    if isinstance(found, LogProbEstimate):
        errors[own.to(device)] = found.standard_error
        found = found.log_prob
        full[own.to(device)] = found
        return LogProbEstimate(full, errors)
    full[own.to(device)] = found
    return full


def scores(
    exact: Callable[..., Tensor], manifold: Manifold, x: Tensor, solver: Method | None, **condition: Any
) -> Tensor:
    """Return the gradients of a log-density that `densities` returned."""
    return score(lambda y: exact(x=y, method=solver, **condition), manifold, x)


def checked_time(where: str, time: float, start: float, refinement: RefinedDensity | None) -> float:
    """Return the time of a density of a flow.

    Raises:
        ValueError: unless it is a number from ``start`` to 1, and 1 where the flow is refined.
    """
    found = number(f"Flow.{where}", "time", time)
    if refinement is not None and found != 1:
        raise ValueError(
            f"Flow.{where}: this flow is refined by sources at several times, and has a density at time 1 alone; use "
            f"flow.base.{where}"
        )
    if not start <= found <= 1:
        raise ValueError(
            f"Flow.{where}: time must be from {start:g}, the source, to 1, the data, got {found:g}; choose one between"
        )
    return found


def jumps_of(where: str, steps: int, solver: Method | None) -> Method:
    """Return what takes so many jumps.

    Raises:
        ValueError: unless ``steps`` is a number of them, and no other solver is given.
    """
    if solver is not None:
        raise ValueError(f"Flow.{where}: got both steps and solver; steps are jumps of a flow map, leave out either")
    return Jumps(integer(f"Flow.{where}", "steps", steps))


def check_jumps(where: str, field: Field, steering: Sequence[Steering], estimated: bool) -> None:
    """Raise ValueError unless samples can be drawn, and densities computed, by the jumps of a field."""
    owner = f"Flow.{where}"
    if not field.needs_condition:  # else it is what stands behind the encoder that jumps
        as_flow_map(owner, field)
    if steering:
        names = " and ".join(own.name for own in steering)
        raise ValueError(
            f"{owner}: {names} changes velocities, and a jump has none on its way; distil with it, "
            "rfm.distil(flow, guidance=2), or leave steps out"
        )
    if estimated:
        raise ValueError(
            f"{owner}: the log-density of jumps has no divergence to estimate; leave out the estimator, or steps for "
            "that of the equation"
        )


def unsteered(refinement: RefinedDensity | None, steering: Sequence[Steering]) -> RefinedDensity | None:
    """Return the refinement that samples under steering are drawn from: none, with a warning.

    Its sources stand where the field alone has carried them; a steered field would take them elsewhere.
    """
    if refinement is None or not steering:
        return refinement
    names = " and ".join(own.name for own in steering)
    warnings.warn(
        f"Flow.sample: samples under {names} are of the flow without its refinement, which belongs to the field as it "
        "is; call flow.base.sample to say so",
        stacklevel=6,
    )
    return None
