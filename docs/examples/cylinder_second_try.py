import torch
from cylinder_first_try import Cylinder as FirstTry
from torch import Tensor


class Cylinder(FirstTry):
    """The first try with a sign for the angle."""

    # --8<-- [start:logmap]
    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        angle = torch.acos((x[..., :2] * y[..., :2]).sum(-1, keepdim=True).clamp(-1, 1))
        turn = x[..., :1] * y[..., 1:2] - x[..., 1:2] * y[..., :1]
        angle = torch.where(turn < 0, -angle, angle)
        return torch.cat([-x[..., 1:2] * angle, x[..., :1] * angle, y[..., 2:] - x[..., 2:]], dim=-1)

    # --8<-- [end:logmap]
