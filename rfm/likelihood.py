"""Divergence of a velocity field, and the exact log-density of the flow that it generates."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.integrators import Method, Solution, integrate
from rfm.sources import Source


def divergence(
    field: Callable[..., Tensor], manifold: Manifold, x: Tensor, t: Tensor, **condition: Any
) -> tuple[Tensor, Tensor]:
    """Return the field and its exact Riemannian divergence.

    The trace is taken over the tangent space: ``dim`` directional derivatives, not one per ambient coordinate. A field
    may offer them itself, in closed form, as ``pushforward(x, t, tangents, **condition)`` which returns ``u`` and the
    derivatives of ``u`` along ``tangents`` ``(*batch, dim, *event_shape)``; others are differentiated in forward mode.

    Args:
        field: ``field(x, t, **condition)``, tangent at ``x``.
        manifold: where the points live.
        x: points ``(*batch, *event_shape)``.
        t: times ``(*batch)``.
        condition: passed on to the field.

    Returns:
        ``u`` of the shape of ``x``, and the divergence ``(*batch)`` with respect to the Riemannian volume.
    """
    # Forward mode refuses tensors that overlap themselves, as expanded ones do.
    x = x.contiguous()
    frame, coframe = manifold.divergence_frame(x)
    axis = x.ndim - len(manifold.event_shape)
    own = getattr(field, "pushforward", None)
    if own is not None:
        u, du = own(x, t, frame, **condition)
    else:

        def along(e: Tensor) -> tuple[Tensor, Tensor]:
            value, derivative = torch.func.jvp(lambda y: field(y, t, **condition), (x,), (e,))[:2]
            return value, derivative

        # The new axis goes first: vmap cannot put it elsewhere where a derivative is zero for all directions alike.
        u, du = torch.func.vmap(along, in_dims=axis, out_dims=(None, 0))(frame)  # type: ignore[arg-type]
        du = du.movedim(0, axis)
    trace = (du * coframe).flatten(axis).sum(-1)
    return u, trace + manifold.log_volume_derivative(x, u)


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

    return integrate(with_divergence, manifold, x, (start, end), method, with_integral=True, **condition)
