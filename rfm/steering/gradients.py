"""Gradients on manifolds, and where a field would end if it went straight on."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from manifolds import Manifold


def check_differentiable(owner: str, values: Tensor) -> None:
    """Raise ValueError unless torch can differentiate values, computed from points that require a gradient."""
    if not values.requires_grad:
        raise ValueError(
            f"{owner}: follows the gradient of a function of the points that has none: a region is flat, and torch "
            "differentiates its own operations only; use Tempering or Chains, which need no gradient"
        )


def gradient(owner: str, values: Tensor, x: Tensor) -> Tensor:
    """Return the derivatives of the sum of values ``(*batch)`` by the entries of ``x``.

    Args:
        owner: what needs them, for the message.
        values: computed from ``x``, such as log-likelihoods.
        x: points that require a gradient.

    Raises:
        ValueError: the values have none.
    """
    check_differentiable(owner, values)
    [found] = torch.autograd.grad(values.sum(), x)
    return found


def riemannian_gradient(manifold: Manifold, x: Tensor, ambient: Tensor) -> Tensor:
    """Return the tangent vector whose inner products are what an ambient gradient says.

    Args:
        manifold: where the points live.
        x: points ``(*batch, *event_shape)``.
        ambient: derivatives by the entries of ``x``, the same shape.
    """
    if manifold.metric_is_induced:
        return manifold.proju(x, ambient)
    basis = manifold.tangent_basis(x)
    axes = tuple(range(-len(manifold.event_shape), 0))
    slopes = (basis * ambient.unsqueeze(-1 - len(manifold.event_shape))).sum(axes)
    return (manifold.lift(slopes) * basis).sum(-1 - len(manifold.event_shape))


def end_point(
    manifold: Manifold, field: Callable[..., Tensor], x: Tensor, t: Tensor, **condition: Any
) -> tuple[Tensor, Tensor]:
    """Return the velocity at ``x``, and where the geodesic along it is at time 1.

    On conditional geodesics that run with ``t`` itself the latter is what the field predicts of the data: in flat
    space their mean given ``x``, elsewhere an approximation of it.

    Args:
        manifold: where the points live.
        field: ``field(x, t, **condition)``.
        x: points ``(*batch, *event_shape)``.
        t: times ``(*batch)``.
        condition: passed on to the field.
    """
    u = field(x, t, **condition)
    return u, manifold.expmap(x, manifold.lift(1 - t).to(u) * u)
