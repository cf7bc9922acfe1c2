"""Derivatives of flow maps along what points follow, in forward mode."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.field import FlowMap

Velocity = Callable[[Tensor, Tensor], Tensor]
"""From points and times to velocities."""


@torch.no_grad()
def landing_derivative(
    flow_map: FlowMap, velocity: Velocity, x: Tensor, s: Tensor, t: Tensor, **condition: Any
) -> tuple[Tensor, Tensor]:
    """Return where points land, and the derivative of that while they follow a velocity: zero for the flow's own map.

    Args:
        flow_map: the map.
        velocity: what the points follow.
        x: points at time s ``(*batch, *event_shape)``.
        s: their times ``(*batch)``.
        t: times that they jump to, likewise.
        condition: for the map.
    """

    def landing(y: Tensor, time: Tensor) -> Tensor:
        return flow_map.jump(y, time, t, **condition)

    landed, moved = torch.func.jvp(landing, (x, s), (velocity(x, s), torch.ones_like(s)))[:2]
    # Where points are classes, their representatives may move within them, which is no motion.
    return landed, flow_map.manifold.proju(landed, moved)


def average_velocity_derivative(
    flow_map: FlowMap, x: Tensor, s: Tensor, t: Tensor, followed: Tensor, **condition: Any
) -> tuple[Tensor, Tensor]:
    """Return the average velocity, and its ambient derivative while points follow tangent vectors ``followed``."""

    def average(y: Tensor, time: Tensor) -> Tensor:
        return flow_map.average_velocity(y, time, t, **condition)

    u, du = torch.func.jvp(average, (x, s), (followed, torch.ones_like(s)))[:2]
    return u, du


def covariant_derivative(
    flow_map: FlowMap, x: Tensor, s: Tensor, t: Tensor, followed: Tensor, **condition: Any
) -> tuple[Tensor, Tensor]:
    """Return the average velocity, and its covariant derivative while points follow tangent vectors ``followed``."""
    manifold = flow_map.manifold
    if manifold.metric_is_induced:
        u, du = average_velocity_derivative(flow_map, x, s, t, followed, **condition)
        return u, manifold.proju(x, du)

    def in_normal_coordinates(y: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        # At their centre, a derivative of components is a covariant one.
        u = flow_map.average_velocity(y, time, t, **condition)
        return torch.func.jvp(lambda z: manifold.logmap(x, z), (y,), (u,))[1], u

    (_, u), (derivative, _) = torch.func.jvp(in_normal_coordinates, (x, s), (followed, torch.ones_like(s)))[:2]
    return u, derivative


def log_derivative(manifold: Manifold, x: Tensor, y: Tensor, followed: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``log_x(y)`` and its ambient derivative while x follows a tangent vector and y stays."""
    return manifold.logmap_jvp(x, y, followed, torch.zeros_like(y))
