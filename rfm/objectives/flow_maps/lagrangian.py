"""The Lagrangian objective: where a jump lands moves as the velocity there."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rfm.field import FlowMap
from rfm.objectives.flow_maps.derivatives import Velocity
from rfm.objectives.flow_maps.flow_map_objective import FlowMapObjective


@dataclass(frozen=True, kw_only=True)
class Lagrangian(FlowMapObjective):
    """``|d/dt X_{s,t}(x) - v(X_{s,t}(x), t)|^2``, the velocity v without gradients.

    The derivative is by forward mode, through the exponential map; its gradient takes about twice the time and memory
    of a velocity's. No derivative of the network in space is needed, which keeps it more stable than the Eulerian one.

    Boffi et al., How to build a consistency model, 2025, arXiv:2505.18825 (Lagrangian self-distillation); on manifolds:
    Davis et al., Generalised Flow Maps, 2025, arXiv:2510.21608 (G-LSD).
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
            return flow_map.jump(x, s, time, **condition)

        landed, moved = torch.func.jvp(landing, (t,), (torch.ones_like(t),))[:2]
        # The metric is that of the place: a map is not to lower the loss by landing where lengths count less.
        landed, manifold = landed.detach(), flow_map.manifold
        # Where points are classes, their representatives may move within them, which is no motion.
        residual = manifold.proju(landed, moved) - velocity(landed, t)
        return manifold.inner(landed, residual, residual)
