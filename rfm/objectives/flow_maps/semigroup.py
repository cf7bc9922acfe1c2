"""The semigroup objective: a jump is what two jumps on the same way make."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rfm.objectives.flow_maps.flow_map_objective import FlowMapObjective
from rfm.objectives.flow_maps.jump_batch import JumpBatch


@dataclass(frozen=True, kw_only=True)
class Semigroup(FlowMapObjective):
    """``d(X_{s,t}(x), X_{m,t}(X_{s,m}(x)))^2 / (t - s)^2`` with m at random between s and t; the default.

    The two jumps are the target, without gradients. It is the only objective without derivatives of the network, and so
    the cheapest and the one that any field can be trained by. The error of long jumps is that of short ones added up,
    and those of short ones are anchored by flow matching alone.

    Frans et al., One Step Diffusion via Shortcut Models, 2024, arXiv:2410.12557; Boffi et al., How to build a
    consistency model, 2025, arXiv:2505.18825 (progressive self-distillation).
    """

    def jump_loss(self, jumps: JumpBatch, generator: torch.Generator | None = None) -> Tensor:
        x, s, t = jumps.x, jumps.s, jumps.t
        share = torch.rand(s.shape, generator=generator, dtype=s.dtype, device=s.device)
        m = torch.lerp(s, t, share)
        with torch.no_grad():
            target = jumps.jump(jumps.jump(x, s, m), m, t)
        squared = jumps.manifold.squared_dist(jumps.jump(x, s, t), target)
        return squared / (t - s).square().clamp(min=_SHORTEST**2)


_SHORTEST = 1e-3
"""Spans below it count less: of two points as near, the distance is rounding."""
