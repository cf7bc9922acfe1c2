"""MeanFlow on manifolds, in the covariant form and in the plain one."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rfm.objectives.flow_maps.flow_map_objective import FlowMapObjective
from rfm.objectives.flow_maps.jump_batch import JumpBatch


@dataclass(frozen=True, kw_only=True)
class MeanFlow(FlowMapObjective):
    """``|u - target|^2`` with ``target = u + d/ds[(t - s) u(x_s, s, t) - log_{x_s}(y)]``, ``y = X_{s,t}(x)`` at rest.

    While ``x_s`` follows the velocity, the logarithm of where it is to land is its average velocity times what is left
    of the way. The bracket is zero at s, so its derivative is the same in all coordinates, tangent, and that of either
    term by any connection: with covariant ones, ``target = (t - s) D_s u - D_v log_x(y)``; in flat space
    ``v + (t - s) D_s u``, which is MeanFlow.

    Where y is beyond the cut locus, ``(t - s) u`` is not the logarithm of y, and is drawn to it.

    Geng et al., Mean Flows for One-step Generative Modeling, 2025, arXiv:2505.13447; on manifolds: Woo et al.,
    Riemannian MeanFlow, 2026, arXiv:2602.07744.
    """

    def jump_loss(self, jumps: JumpBatch, generator: torch.Generator | None = None) -> Tensor:
        manifold, span, x = jumps.manifold, jumps.span, jumps.x
        average = jumps.average_velocity(x, jumps.s)
        with torch.no_grad():
            followed = jumps.velocity(x, jumps.s)
            u, du = jumps.average_velocity_derivative(followed)
            # While x follows its velocity, and y stays.
            y = manifold.expmap(x, span * u)
            logarithm, moved = manifold.logmap_jvp(x, y, followed, torch.zeros_like(y))
            nearest = manifold.norm(x, span * u - logarithm) <= _ROUNDING * manifold.norm(x, logarithm)
            towards = logarithm / torch.where(span == 0, 1.0, span)
            target = torch.where(manifold.lift(nearest), span * du - moved, towards)
        residual = average - target
        return manifold.inner(x, residual, residual)


_ROUNDING = 1e-2
"""By what share a logarithm may differ from the vector that it is the logarithm of the end of, by rounding."""


@dataclass(frozen=True, kw_only=True)
class PlainMeanFlow(FlowMapObjective):
    """``|u - v - (t - s) D_s u|^2`` with the covariant derivative along the velocity, the target without gradients.

    The u that makes it zero is the mean of the velocities along the trajectory, carried back to x along it. In flat
    space that is where to jump; on a curved space a jump along it misses the flow's map, the more the longer the
    trajectory is and the more it bends. `MeanFlow` has no such error.

    Zhong et al., Riemannian MeanFlow for One-Step Generation on Manifolds, 2026, arXiv:2603.10718.

    Args:
        resolve_conflicts: where the gradients of the two terms of the loss, ``|u - v|^2`` and the one of the
            derivative, point against each other, take from each its part along the other (Yu et al., Gradient Surgery
            for Multi-Task Learning, 2020, arXiv:2001.06782). In one process.
    """

    resolve_conflicts: bool = False

    @property
    def splits(self) -> bool:
        return False

    def jump_loss(self, jumps: JumpBatch, generator: torch.Generator | None = None) -> Tensor:
        manifold, x = jumps.manifold, jumps.x
        average = jumps.average_velocity(x, jumps.s)
        with torch.no_grad():
            followed = jumps.velocity(x, jumps.s)
            ahead = jumps.span * jumps.covariant_derivative(followed)[1]
        residual = average - followed - ahead
        loss = manifold.inner(x, residual, residual)
        if not (self.resolve_conflicts and torch.is_grad_enabled()):
            return loss
        matching = manifold.inner(x, average - followed, average - followed)
        bending = -2 * manifold.inner(x, average, ahead)
        weights = [p for p in jumps.flow_map.parameters() if p.requires_grad]
        return loss.detach() + _zero_with_gradient(matching.mean(), bending.mean(), weights)


def _zero_with_gradient(first: Tensor, second: Tensor, weights: list[nn.Parameter]) -> Tensor:
    """Return zero, with the gradient of the sum of two terms without their conflict."""
    a, b = (
        [
            torch.zeros_like(weight) if g is None else g
            for weight, g in zip(
                weights, torch.autograd.grad(term, weights, retain_graph=True, allow_unused=True), strict=True
            )
        ]
        for term in (first, second)
    )
    against = _dot(a, b).clamp(max=0)
    back, forth = (against / _dot(g, g).clamp(min=torch.finfo(against.dtype).tiny) for g in (a, b))
    total = _dot(weights, [(1 - back) * p + (1 - forth) * q for p, q in zip(a, b, strict=True)])
    return total - total.detach()


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    return torch.stack([(p * q).sum() for p, q in zip(a, b, strict=True)]).sum()
