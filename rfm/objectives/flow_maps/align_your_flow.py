"""Align Your Flow on manifolds, and the consistency models that are its jumps to time 1."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rfm.field import FlowMap
from rfm.objectives.flow_maps.derivatives import Velocity, covariant_derivative, landing_derivative
from rfm.objectives.flow_maps.flow_map_objective import FlowMapObjective


@dataclass(frozen=True, kw_only=True)
class AlignYourFlow(FlowMapObjective):
    """Moves landing points along their derivative ``D = d/ds X_{s,t}(x_s)``, which is zero for the map of the flow.

    The gradient is that of ``-2 <X, D> / (t - s)``, with D and the metric without gradients: the limit, per unit of
    velocity, of ``d(X_{s,t}(x_s), X_{s',t}(x_s'))^2`` as ``s'`` tends to s. The value is ``|D|^2``.

    Sabour, Fidler, Kreis, Align Your Flow, 2025, arXiv:2506.14603, the Eulerian objective; on manifolds: Woo et al.,
    Riemannian MeanFlow, 2026, arXiv:2602.07744.
    """

    def jump_loss(
        self,
        flow_map: FlowMap,
        velocity: Velocity,
        x: Tensor,
        s: Tensor,
        t: Tensor,
        *,
        generator: torch.Generator | None = None,
        **condition: Any,
    ) -> Tensor:
        return _aligned(flow_map, velocity, x, s, t, **condition)


@dataclass(frozen=True, kw_only=True)
class RiemannianConsistency(FlowMapObjective):
    """A consistency model: `AlignYourFlow` for jumps to time 1 alone, with more weight near the data.

    ``f(x, s) = exp_x((1 - s) u(x, s, 1))`` is to be the same along trajectories. Simplified, ``df/ds`` is replaced by
    ``v - u + (1 - s) D_v u``, at x in place of f, with the covariant derivative of ``u(., ., 1)``. That is the same in
    flat space; on a curved one it leaves out how geodesics spread, so the map of the flow does not make it zero.

    Jumps that end before time 1 are not trained: draw with ``steps=1``.

    Cheng et al., Riemannian Consistency Model, 2025, arXiv:2510.00983.

    Args:
        simplified: replace the derivative.
        spans: how to draw the times that jumps lead from, the first of each pair.
    """

    simplified: bool = False

    def jump_loss(
        self,
        flow_map: FlowMap,
        velocity: Velocity,
        x: Tensor,
        s: Tensor,
        t: Tensor,
        *,
        generator: torch.Generator | None = None,
        **condition: Any,
    ) -> Tensor:
        s, end = torch.minimum(s, t), torch.ones_like(t)
        loss = (_simplified if self.simplified else _aligned)(flow_map, velocity, x, s, end, **condition)
        return loss * s.square() / (1 - s).clamp(min=_SHORTEST)


def _aligned(flow_map: FlowMap, velocity: Velocity, x: Tensor, s: Tensor, t: Tensor, **condition: Any) -> Tensor:
    landed, moved = landing_derivative(flow_map, velocity, x, s, t, **condition)
    # Zero but for its derivative, by which the landing point is drawn to where it is moved in the time of the jump.
    residual = flow_map.manifold.proju(landed, flow_map.jump(x, s, t, **condition) - landed)
    span = (t - s).square().clamp(min=_SHORTEST**2)
    residual = residual - flow_map.manifold.lift(t - s) * moved
    return flow_map.manifold.inner(landed, residual, residual) / span


def _simplified(flow_map: FlowMap, velocity: Velocity, x: Tensor, s: Tensor, t: Tensor, **condition: Any) -> Tensor:
    with torch.no_grad():
        followed = velocity(x, s)
        average, derivative = covariant_derivative(flow_map, x, s, t, followed, **condition)
        moved = followed - average + flow_map.manifold.lift(t - s) * derivative
    residual = flow_map.average_velocity(x, s, t, **condition) - average - moved
    return flow_map.manifold.inner(x, residual, residual)


_SHORTEST = 5e-3
"""The time to the end from which on the weight grows no more, and the span from which on the loss does."""
