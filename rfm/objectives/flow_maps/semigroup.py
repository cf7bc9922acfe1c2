"""The semigroup objective: a jump is what two jumps on the same way make."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rfm.field import FlowMap
from rfm.objectives.flow_maps.derivatives import Velocity
from rfm.objectives.flow_maps.flow_map_objective import FlowMapObjective


@dataclass(frozen=True, kw_only=True)
class Semigroup(FlowMapObjective):
    """``d(X_{s,t}(x), X_{m,t}(X_{s,m}(x)))^2 / (t - s)^2`` with m at random between s and t; the default.

    The two jumps are the target, without gradients. It is the only objective without derivatives of the network, and so
    the cheapest and the one that any field can be trained by. The error of long jumps is that of short ones added up,
    and those of short ones are anchored by flow matching alone.

    Frans et al., One Step Diffusion via Shortcut Models, 2024, arXiv:2410.12557; Boffi et al., How to build a
    consistency model, 2025, arXiv:2505.18825 (progressive self-distillation).
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
        share = torch.rand(s.shape, generator=generator, dtype=s.dtype, device=s.device)
        m = torch.lerp(s, t, share)
        with torch.no_grad():
            target = flow_map.jump(flow_map.jump(x, s, m, **condition), m, t, **condition)
        squared = flow_map.manifold.squared_dist(flow_map.jump(x, s, t, **condition), target)
        return squared / (t - s).square().clamp(min=_SHORTEST**2)


_SHORTEST = 1e-3
"""Spans below it count less: of two points as near, the distance is rounding."""
