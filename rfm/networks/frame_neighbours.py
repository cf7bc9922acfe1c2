"""How the bodies next to each one in the row lie, seen from it."""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from manifolds.numerics.precision import in_full_precision


class FrameNeighbours(nn.Module):
    """A linear map of the relative poses of the nearest bodies in the row, which turning the whole does not change.

    Attention learns where bodies are by averages over many; this reads the few that a body is joined to without
    loss, so that a network that moves bodies block by block can close what is open between them.

    Args:
        width: of what it returns.
        reach: how many bodies on each side.
    """

    def __init__(self, width: int, reach: int = 4) -> None:
        super().__init__()
        self.reach = reach
        self.out = nn.Linear(2 * reach * 13, width)

    def forward(self, rotation: Tensor, position: Tensor, absent: Tensor) -> Tensor:
        """Return features of bodies ``(*batch, n, width)``; arguments as for `FrameAttention`."""
        out: Tensor = self.out(self._read(rotation, position, absent))
        return out

    @in_full_precision
    def _read(self, rotation: Tensor, position: Tensor, absent: Tensor) -> Tensor:
        """Return the relative poses of the nearest bodies, and which there are, ``(*batch, n, 26 reach)``."""
        frames = torch.cat([rotation, position[..., None]], dim=-1)
        there = (absent == 0).to(frames.dtype)[..., None, None]
        # One entry for each body within reach, itself in the middle: (*batch, n, 3, 4, 2 reach + 1).
        window = pad(frames, (0, 0, 0, 0, self.reach, self.reach)).unfold(-3, 2 * self.reach + 1, 1)
        seen = pad(there, (0, 0, 0, 0, self.reach, self.reach)).unfold(-3, 2 * self.reach + 1, 1)
        others = [i for i in range(2 * self.reach + 1) if i != self.reach]
        window, seen = window[..., others], seen[..., others]
        way = _SCALE * (window[..., 3, :] - position[..., None])
        relative = rotation.mT @ torch.cat([window[..., :3, :].flatten(-2), way], dim=-1)
        return torch.cat([(relative.unflatten(-1, (4, -1)) * seen).flatten(-3), seen.flatten(-3)], dim=-1)


_SCALE = 2.0
"""Neighbours are four tenths of the network's unit apart; their places count as much as their turns."""
