"""Densities carried along a field: the continuous change of variables."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from manifolds import Manifold
from manifolds.numerics.precision import at_least_float32
from rfm.integrators import Method, Solution, integrate
from rfm.likelihood.derivatives import differentiable
from rfm.likelihood.divergences import Hutchinson, divergence, divergence_estimates
from rfm.sources import Source


class LogProbEstimate(NamedTuple):
    """Log-densities estimated with `Hutchinson`."""

    log_prob: Tensor
    """Nats, with respect to the Riemannian volume, ``(*batch)``."""
    standard_error: Tensor
    """That of each log-density over the probes, in nats, ``(*batch)``; NaN for a single probe."""


def log_prob(
    field: Callable[..., Tensor],
    source: Source,
    x: Tensor,
    method: Method | None = None,
    *,
    start: float = 0.0,
    time: float = 1.0,
    **condition: Any,
) -> Tensor:
    """Return the log-density at ``x`` of the flow that carries the source along the field to a later time.

    The continuous change of variables, Chen & Lipman 2023, arXiv:2302.03660, equation 6: ``log p_0(x_0)`` minus the
    integral of the divergence along the path back from ``x``.

    Args:
        field: the velocity field.
        source: the distribution at time ``start``.
        x: points ``(*batch, *event_shape)``.
        method: how to integrate.
        start: when the source's points set out, from 0 to below 1.
        time: of the density, at least ``start``, where it is the source's.
        condition: passed on to the field.

    Returns:
        Nats, with respect to the Riemannian volume, ``(*batch)``.
    """
    source.check_density("log_prob")
    if time == start:
        return source.log_prob(x)
    solution = transport(field, source.manifold, x, time, start, method, **condition)
    assert solution.integral is not None
    return source.log_prob(solution.final) + solution.integral[-1]


def estimate_log_prob(
    field: Callable[..., Tensor],
    source: Source,
    x: Tensor,
    estimator: Hutchinson,
    method: Method | None = None,
    *,
    start: float = 0.0,
    time: float = 1.0,
    **condition: Any,
) -> LogProbEstimate:
    """Return `log_prob` with an estimated divergence, and its standard error."""
    source.check_density("estimate_log_prob")
    if time == start:
        log_p = source.log_prob(x)
        return LogProbEstimate(log_p, torch.zeros_like(log_p))
    solution, error = estimate_transport(field, source.manifold, x, time, start, estimator, method, **condition)
    assert solution.integral is not None
    return LogProbEstimate(source.log_prob(solution.final) + solution.integral[-1], error)


def score(log_density: Callable[[Tensor], Tensor], manifold: Manifold, x: Tensor) -> Tensor:
    """Return the gradient of a log-density at ``x`` with respect to the metric, in reverse mode.

    Of a density that is the result of a solve it differentiates the solve, and needs second derivatives of the field.

    Args:
        log_density: from points ``(*batch, *event_shape)`` to nats ``(*batch)``, each of its own point alone.
        manifold: where the points live.
        x: points ``(*batch, *event_shape)``.

    Returns:
        Tangent vectors at ``x``, of its shape, in nats per unit of length.
    """
    with torch.enable_grad():
        y = x.detach().to(at_least_float32(x.dtype)).requires_grad_()
        # A density may be constant, and then knows nothing of y.
        total = log_density(manifold.projx(y)).sum() + (0 * y).sum()
        (covector,) = torch.autograd.grad(total, [y])
    return manifold.riemannian_gradient(y.detach(), covector)


def transport(
    field: Callable[..., Tensor],
    manifold: Manifold,
    x: Tensor,
    start: float,
    end: float,
    method: Method | None = None,
    **condition: Any,
) -> Solution:
    """Move points along the field and integrate its divergence on the way.

    The log-density of a moving point changes by minus the integral from ``start`` to ``end``.
    """
    known = differentiable(field)

    def with_divergence(y: Tensor, t: Tensor, **own: Any) -> tuple[Tensor, Tensor]:
        return divergence(known, manifold, y, t, **own)

    return integrate(
        with_divergence, manifold, x, (start, end), method, with_integral=True, velocity=field, **condition
    )


def estimate_transport(
    field: Callable[..., Tensor],
    manifold: Manifold,
    x: Tensor,
    start: float,
    end: float,
    estimator: Hutchinson,
    method: Method | None = None,
    **condition: Any,
) -> tuple[Solution, Tensor]:
    """Move points along the field and integrate an estimate of its divergence on the way, all probes in one solve.

    Returns:
        The solution, and the standard error of its last integral over the probes ``(*batch)``.
    """
    known = differentiable(field)

    def with_estimates(y: Tensor, t: Tensor, noise_of_probes: Tensor, **own: Any) -> tuple[Tensor, Tensor]:
        return divergence_estimates(known, manifold, y, t, noise_of_probes, **own)

    def alone(y: Tensor, t: Tensor, noise_of_probes: Tensor, **own: Any) -> Tensor:
        return field(y, t, **own)

    condition["noise_of_probes"] = estimator.noise(manifold, x)
    solution = integrate(
        with_estimates, manifold, x, (start, end), method, with_integral=True, velocity=alone, **condition
    )
    assert solution.integral is not None
    mean, k = solution.integral.mean(-1), estimator.probes
    spread = torch.linalg.vector_norm(solution.integral[-1] - mean[-1, ..., None], dim=-1)
    error = spread / math.sqrt(k * (k - 1)) if k > 1 else torch.full_like(spread, math.nan)
    return replace(solution, integral=mean), error
