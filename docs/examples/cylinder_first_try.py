import torch
from torch import Tensor

from manifolds import Manifold


class Cylinder(Manifold):
    """The cylinder of radius 1 about the third axis of R^3, with the metric induced by it."""

    def __init__(self) -> None:
        super().__init__(dim=2, event_shape=(3,))

    def projx(self, x: Tensor) -> Tensor:
        rim = x[..., :2]
        return torch.cat([rim / rim.norm(dim=-1, keepdim=True), x[..., 2:]], dim=-1)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        outward = torch.cat([x[..., :2], torch.zeros_like(x[..., 2:])], dim=-1)
        return u - (outward * u).sum(-1, keepdim=True) * outward

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        angle = x[..., :1] * u[..., 1:2] - x[..., 1:2] * u[..., :1]
        return self._turned(x, angle, x[..., 2:] + u[..., 2:])

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        angle = torch.acos((x[..., :2] * y[..., :2]).sum(-1, keepdim=True).clamp(-1, 1))
        return torch.cat([-x[..., 1:2] * angle, x[..., :1] * angle, y[..., 2:] - x[..., 2:]], dim=-1)

    def _turned(self, x: Tensor, angle: Tensor, height: Tensor) -> Tensor:
        c, s = torch.cos(angle), torch.sin(angle)
        return torch.cat([c * x[..., :1] - s * x[..., 1:2], s * x[..., :1] + c * x[..., 1:2], height], dim=-1)
