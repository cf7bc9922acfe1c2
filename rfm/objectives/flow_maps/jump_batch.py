"""The jumps of a training step, and their derivatives along what the points follow, in forward mode."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.field import FlowMap

Velocity = Callable[[Tensor, Tensor], Tensor]
"""From points and times to velocities."""


@dataclass(frozen=True)
class JumpBatch:
    """Jumps of a map that is trained, with what its points follow.

    Args:
        flow_map: what is trained.
        velocity: whose jumps they are to be, without gradients.
        x: points at time s ``(*batch, *event_shape)``.
        s: times that jumps lead from ``(*batch)``.
        t: times that they lead to, likewise.
        condition: for the map.
    """

    flow_map: FlowMap
    velocity: Velocity
    x: Tensor
    s: Tensor
    t: Tensor
    condition: Mapping[str, Any] = field(default_factory=dict)

    @property
    def manifold(self) -> Manifold:
        """Where the points live."""
        return self.flow_map.manifold

    @property
    def span(self) -> Tensor:
        """``t - s``, with the axes of a point appended."""
        return self.manifold.lift(self.t - self.s)

    def average_velocity(self, x: Tensor, s: Tensor) -> Tensor:
        """Return the average velocity from points x at times s to the times t."""
        return self.flow_map.average_velocity(x, s, self.t, **self.condition)

    def jump(self, x: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """Return where points x at times s are at times t."""
        return self.flow_map.jump(x, s, t, **self.condition)

    @torch.no_grad()
    def landing_derivative(self) -> tuple[Tensor, Tensor]:
        """Return where the points land, and its derivative while they follow the velocity: zero for the flow's map."""

        def landing(y: Tensor, time: Tensor) -> Tensor:
            return self.jump(y, time, self.t)

        along = self.velocity(self.x, self.s), torch.ones_like(self.s)
        landed, moved = torch.func.jvp(landing, (self.x, self.s), along)[:2]
        # Where points are classes, their representatives may move within them, which is no motion.
        return landed, self.manifold.proju(landed, moved)

    def average_velocity_derivative(self, followed: Tensor) -> tuple[Tensor, Tensor]:
        """Return the average velocity, and its ambient derivative while points follow tangent vectors ``followed``."""
        along = followed, torch.ones_like(self.s)
        u, du = torch.func.jvp(self.average_velocity, (self.x, self.s), along)[:2]
        return u, du

    def covariant_derivative(self, followed: Tensor) -> tuple[Tensor, Tensor]:
        """Return the average velocity, and its covariant derivative while points follow tangent vectors."""
        manifold = self.manifold
        if manifold.metric_is_induced:
            u, du = self.average_velocity_derivative(followed)
            return u, manifold.proju(self.x, du)

        def in_normal_coordinates(y: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
            # At their centre, a derivative of components is a covariant one.
            u = self.average_velocity(y, time)
            return torch.func.jvp(lambda z: manifold.logmap(self.x, z), (y,), (u,))[1], u

        along = followed, torch.ones_like(self.s)
        (_, u), (derivative, _) = torch.func.jvp(in_normal_coordinates, (self.x, self.s), along)[:2]
        return u, derivative
