"""Align Your Flow on manifolds, and the consistency models that are its jumps to time 1."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rfm.objectives.flow_maps.flow_map_objective import FlowMapObjective
from rfm.objectives.flow_maps.jump_batch import JumpBatch


@dataclass(frozen=True, kw_only=True)
class AlignYourFlow(FlowMapObjective):
    """Moves landing points along their derivative ``D = d/ds X_{s,t}(x_s)``, which is zero for the map of the flow.

    The gradient is that of ``-2 <X, D> / (t - s)``, with D and the metric without gradients: the limit, per unit of
    velocity, of ``d(X_{s,t}(x_s), X_{s',t}(x_s'))^2`` as ``s'`` tends to s. The value is ``|D|^2``.

    Sabour, Fidler, Kreis, Align Your Flow, 2025, arXiv:2506.14603, the Eulerian objective; on manifolds: Woo et al.,
    Riemannian MeanFlow, 2026, arXiv:2602.07744.
    """

    def jump_loss(self, jumps: JumpBatch, generator: torch.Generator | None = None) -> Tensor:
        return _aligned(jumps)


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

    def jump_loss(self, jumps: JumpBatch, generator: torch.Generator | None = None) -> Tensor:
        s = torch.minimum(jumps.s, jumps.t)
        to_the_end = replace(jumps, s=s, t=torch.ones_like(s))
        loss = (_simplified if self.simplified else _aligned)(to_the_end)
        return loss * s.square() / (1 - s).clamp(min=_SHORTEST)


def _aligned(jumps: JumpBatch) -> Tensor:
    landed, moved = jumps.landing_derivative()
    # Zero but for its derivative, by which the landing point is drawn to where it is moved in the time of the jump.
    residual = jumps.manifold.proju(landed, jumps.jump(jumps.x, jumps.s, jumps.t) - landed) - jumps.span * moved
    squared_span = (jumps.t - jumps.s).square().clamp(min=_SHORTEST**2)
    return jumps.manifold.inner(landed, residual, residual) / squared_span


def _simplified(jumps: JumpBatch) -> Tensor:
    with torch.no_grad():
        followed = jumps.velocity(jumps.x, jumps.s)
        average, derivative = jumps.covariant_derivative(followed)
        moved = followed - average + jumps.span * derivative
    residual = jumps.average_velocity(jumps.x, jumps.s) - average - moved
    return jumps.manifold.inner(jumps.x, residual, residual)


_SHORTEST = 5e-3
"""The time to the end from which on the weight grows no more, and the span from which on the loss does."""
