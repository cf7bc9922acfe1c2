"""The Eulerian objective: all points of a trajectory jump to the same place."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rfm.field import FlowMap
from rfm.objectives.flow_maps.derivatives import Velocity, landing_derivative
from rfm.objectives.flow_maps.flow_map_objective import FlowMapObjective


@dataclass(frozen=True, kw_only=True)
class Eulerian(FlowMapObjective):
    """``|d/ds X_{s,t}(x) + dX_{s,t}[v(x, s)]|^2``, the differential of the map without gradients.

    The sum is the derivative of the landing point while x follows the velocity, which is zero for the map of the flow.
    The second term is the differential of the map applied to the velocity, not the velocity itself: the two agree where
    ``s = t`` alone.

    Boffi et al., How to build a consistency model, 2025, arXiv:2505.18825 (Eulerian self-distillation); on manifolds:
    Davis et al., Generalised Flow Maps, 2025, arXiv:2510.21608 (G-ESD).
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
        def landing(time: Tensor) -> Tensor:
            return flow_map.jump(x, time, t, **condition)

        landed, departing = torch.func.jvp(landing, (s,), (torch.ones_like(s),))[:2]
        total = landing_derivative(flow_map, velocity, x, s, t, **condition)[1]
        manifold, landed = flow_map.manifold, landed.detach()
        residual = manifold.proju(landed, departing) + (total - manifold.proju(landed, departing.detach()))
        return manifold.inner(landed, residual, residual)
