"""Divergence of a velocity field, exact or estimated, and the log-density of the flow that it generates."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from manifolds import Manifold
from manifolds.arguments import whole
from rfm.arrays import points_of
from rfm.integrators import Method, Solution, integrate
from rfm.networks.differentiable_operations import with_right_derivatives
from rfm.sources import Source


def rademacher(
    *shape: int,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return independent signs, 1 or -1 with equal probability; the arguments are those of `torch.randn`."""
    bits = torch.randint(2, shape, generator=generator, device=device)
    return bits.to(torch.get_default_dtype() if dtype is None else dtype) * 2 - 1


@dataclass(frozen=True)
class Hutchinson:
    """The stochastic estimator of the divergence: one directional derivative per probe, whatever the dimension.

    Hutchinson, A stochastic estimator of the trace of the influence matrix, Commun. Stat. Simul. Comput. 19 (1990),
    433-450. The noise is ambient and stays the same along one solve, so that the integrand is a function of time
    (FFJORD, Grathwohl et al. 2019, arXiv:1810.01367); `Manifold.divergence_probes` makes it tangent, in a way that is
    smooth along the path and unbiased in any metric.

    It pays where the dimension is much larger than the number of probes. On a sphere or on SO(3) the exact divergence
    costs two or three derivatives.

    Args:
        probes: directional derivatives per point, at least 1; the standard error falls with the root of their number,
            and is NaN for one.
        generator: source of randomness, on the device of the points.
        draw: a function with the signature of `rademacher`, whose entries are independent with mean 0 and variance 1:
            signs have the least variance; `torch.randn` gives normal ones.
    """

    probes: int = 1
    generator: torch.Generator | None = None
    draw: Callable[..., Tensor] = rademacher

    def __post_init__(self) -> None:
        object.__setattr__(self, "probes", whole("Hutchinson", "probes", self.probes, None))
        if self.probes < 1:
            raise ValueError(f"Hutchinson: probes must be at least 1, got {self.probes}")

    def noise(self, manifold: Manifold, x: Tensor) -> Tensor:
        """Return ambient noise for points ``x``, ``(*batch, probes, *event_shape)``."""
        shape = (*manifold.batch_shape(x), self.probes, *manifold.event_shape)
        return self.draw(*shape, generator=self.generator, dtype=x.dtype, device=x.device)


class LogProbEstimate(NamedTuple):
    """Log-densities estimated with `Hutchinson`."""

    log_prob: Tensor
    """Nats, with respect to the Riemannian volume, ``(*batch)``."""
    standard_error: Tensor
    """That of each log-density over the probes, in nats, ``(*batch)``; NaN for a single probe."""


def divergence(
    field: Callable[..., Tensor],
    manifold: Manifold,
    x: Tensor,
    t: Tensor,
    *,
    estimator: Hutchinson | None = None,
    **condition: Any,
) -> tuple[Tensor, Tensor]:
    """Return the field and its Riemannian divergence, exact unless an estimator is given.

    The trace is taken over the tangent space: ``dim`` directional derivatives, not one per ambient coordinate. A field
    may offer them itself, in closed form, as ``pushforward(x, t, tangents, **condition)`` which returns ``u`` and the
    derivatives of ``u`` along ``tangents`` ``(*batch, dim, *event_shape)``; others are differentiated in forward mode.

    Args:
        field: ``field(x, t, **condition)``, tangent at ``x``.
        manifold: where the points live.
        x: points ``(*batch, *event_shape)``.
        t: times ``(*batch)``.
        estimator: how to estimate the divergence instead, with new noise at every call.
        condition: passed on to the field.

    Returns:
        ``u`` of the shape of ``x``, and the divergence ``(*batch)`` with respect to the Riemannian volume.
    """
    # Forward mode refuses tensors that overlap themselves, as expanded ones do.
    x = points_of("divergence", manifold, x).contiguous()
    if estimator is not None:
        u, estimates = divergence_estimates(field, manifold, x, t, estimator.noise(manifold, x), **condition)
        return u, estimates.mean(-1)
    vectors, covectors = manifold.divergence_frame(x)
    u, terms = _along(field, manifold, x, t, vectors, covectors, condition)
    return u, terms.sum(-1) + manifold.log_volume_derivative(x, u)


def divergence_estimates(
    field: Callable[..., Tensor], manifold: Manifold, x: Tensor, t: Tensor, noise: Tensor, **condition: Any
) -> tuple[Tensor, Tensor]:
    """Return the field and one unbiased estimate of its Riemannian divergence per probe.

    Args:
        field: ``field(x, t, **condition)``, tangent at ``x``.
        manifold: where the points live.
        x: points ``(*batch, *event_shape)``.
        t: times ``(*batch)``.
        noise: ``(*batch, probes, *event_shape)``, see `Hutchinson.noise`.
        condition: passed on to the field.

    Returns:
        ``u`` of the shape of ``x``, and the estimates ``(*batch, probes)``.
    """
    x = x.contiguous()
    vectors, covectors = manifold.divergence_probes(x, noise)
    u, terms = _along(field, manifold, x, t, vectors, covectors, condition)
    return u, terms + manifold.log_volume_derivative(x, u)[..., None]


def log_prob(
    field: Callable[..., Tensor],
    source: Source,
    x: Tensor,
    method: Method | None = None,
    **condition: Any,
) -> Tensor:
    """Return the log-density at ``x`` of the flow that carries the source at time 0 along the field to time 1.

    The continuous change of variables, Chen & Lipman 2023, arXiv:2302.03660, equation 6: ``log p_0(x_0)`` minus the
    integral of the divergence along the path back from ``x``.

    Args:
        field: the velocity field.
        source: the distribution at time 0.
        x: points ``(*batch, *event_shape)``.
        method: how to integrate.
        condition: passed on to the field.

    Returns:
        Nats, with respect to the Riemannian volume, ``(*batch)``.
    """
    solution = transport(field, source.manifold, x, 1.0, 0.0, method, **condition)
    assert solution.integral is not None
    return source.log_prob(solution.final) + solution.integral[-1]


def estimate_log_prob(
    field: Callable[..., Tensor],
    source: Source,
    x: Tensor,
    estimator: Hutchinson,
    method: Method | None = None,
    **condition: Any,
) -> LogProbEstimate:
    """Return `log_prob` with an estimated divergence, and its standard error."""
    solution, error = estimate_transport(field, source.manifold, x, 1.0, 0.0, estimator, method, **condition)
    assert solution.integral is not None
    return LogProbEstimate(source.log_prob(solution.final) + solution.integral[-1], error)


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

    def with_divergence(y: Tensor, t: Tensor, **own: Any) -> tuple[Tensor, Tensor]:
        return divergence(field, manifold, y, t, **own)

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

    def with_estimates(y: Tensor, t: Tensor, noise_of_probes: Tensor, **own: Any) -> tuple[Tensor, Tensor]:
        return divergence_estimates(field, manifold, y, t, noise_of_probes, **own)

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


def _along(
    field: Callable[..., Tensor],
    manifold: Manifold,
    x: Tensor,
    t: Tensor,
    vectors: Tensor,
    covectors: Tensor,
    condition: dict[str, Any],
) -> tuple[Tensor, Tensor]:
    """Return ``u``, and ``<w_i, Du e_i>`` for vectors ``e_i`` and covectors ``w_i``, ``(*batch, k)``."""
    axis = x.ndim - len(manifold.event_shape)
    own = getattr(field, "pushforward", None)
    if own is not None:
        u, du = own(x, t, vectors, **condition)
    else:
        velocity = with_right_derivatives(lambda y: field(y, t, **condition))

        def along(e: Tensor) -> tuple[Tensor, Tensor]:
            value, derivative = torch.func.jvp(velocity, (x,), (e,))[:2]
            return value, derivative

        # The new axis goes first: vmap cannot put it elsewhere where a derivative is zero for all directions alike.
        u, du = torch.func.vmap(along, in_dims=axis, out_dims=(None, 0))(vectors)  # type: ignore[arg-type]
        # Forward mode may take plain numbers for double precision where a point has no batch.
        du = du.movedim(0, axis).to(u.dtype)
    return u, (du * covectors).flatten(axis + 1).sum(-1)
