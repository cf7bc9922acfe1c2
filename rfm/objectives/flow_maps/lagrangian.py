"""The Lagrangian objective: where a jump lands moves as the velocity there."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rfm.objectives.flow_maps.flow_map_objective import FlowMapObjective
from rfm.objectives.flow_maps.jump_batch import JumpBatch


@dataclass(frozen=True, kw_only=True)
class Lagrangian(FlowMapObjective):
    """``|d/dt X_{s,t}(x) - v(X_{s,t}(x), t)|^2``, the velocity v without gradients.

    The derivative is by forward mode, through the exponential map; its gradient takes about twice the time and memory
    of a velocity's. No derivative of the network in space is needed, which keeps it more stable than the Eulerian one.

    Boffi et al., How to build a consistency model, 2025, arXiv:2505.18825 (Lagrangian self-distillation); on manifolds:
    Davis et al., Generalised Flow Maps, 2025, arXiv:2510.21608 (G-LSD).
    """

    def jump_loss(self, jumps: JumpBatch, generator: torch.Generator | None = None) -> Tensor:
        def landing(time: Tensor) -> Tensor:
            return jumps.jump(jumps.x, jumps.s, time)

        landed, moved = torch.func.jvp(landing, (jumps.t,), (torch.ones_like(jumps.t),))[:2]
        # The metric is that of the place: a map is not to lower the loss by landing where lengths count less.
        landed, manifold = landed.detach(), jumps.manifold
        # Where points are classes, their representatives may move within them, which is no motion.
        residual = manifold.proju(landed, moved) - jumps.velocity(landed, jumps.t)
        return manifold.inner(landed, residual, residual)
