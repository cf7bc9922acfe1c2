"""The Eulerian objective: all points of a trajectory jump to the same place."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rfm.objectives.flow_maps.flow_map_objective import FlowMapObjective
from rfm.objectives.flow_maps.jump_batch import JumpBatch


@dataclass(frozen=True, kw_only=True)
class Eulerian(FlowMapObjective):
    """``|d/ds X_{s,t}(x) + dX_{s,t}[v(x, s)]|^2``, the differential of the map without gradients.

    The sum is the derivative of the landing point while x follows the velocity, which is zero for the map of the flow.
    The second term is the differential of the map applied to the velocity, not the velocity itself: the two agree where
    ``s = t`` alone.

    Boffi et al., How to build a consistency model, 2025, arXiv:2505.18825 (Eulerian self-distillation); on manifolds:
    Davis et al., Generalised Flow Maps, 2025, arXiv:2510.21608 (G-ESD).
    """

    def jump_loss(self, jumps: JumpBatch, generator: torch.Generator | None = None) -> Tensor:
        def landing(time: Tensor) -> Tensor:
            return jumps.jump(jumps.x, time, jumps.t)

        landed, departing = torch.func.jvp(landing, (jumps.s,), (torch.ones_like(jumps.s),))[:2]
        total = jumps.landing_derivative()[1]
        manifold, landed = jumps.manifold, landed.detach()
        residual = manifold.proju(landed, departing) + (total - manifold.proju(landed, departing.detach()))
        return manifold.inner(landed, residual, residual)
