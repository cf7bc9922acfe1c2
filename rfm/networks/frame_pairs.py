"""What a network of frames reads of each pair of bodies."""

import torch
from torch import Tensor, nn

from manifolds.numerics.precision import in_full_precision
from rfm.networks.precision import ExactBuffers

_DISTANCES = 16
_FARTHEST = 4.0


class FramePairs(ExactBuffers):
    """Features of pairs that do not change when all bodies are turned or shifted together.

    How far apart they are in the row; their distance, on Gaussian bumps; in which direction the second lies, seen from
    the first, and how it is turned; the last three also in an earlier prediction; and the features of both bodies.

    Args:
        width: of the features of bodies.
        pair_width: of the features of pairs.
        reach: bodies farther apart in the row than this look equally far.
    """

    centres: Tensor

    def __init__(self, width: int, pair_width: int, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.apart = nn.Embedding(2 * reach + 1, pair_width)
        self.first = nn.Linear(width, pair_width)
        self.second = nn.Linear(width, pair_width, bias=False)
        self.now = nn.Linear(_DISTANCES + 12, pair_width)
        self.before = nn.Linear(_DISTANCES + 12, pair_width)
        self.mix = nn.Sequential(
            nn.LayerNorm(pair_width), nn.Linear(pair_width, pair_width), nn.SiLU(), nn.Linear(pair_width, pair_width)
        )
        # Denser where bodies are near: neighbours in a row are four tenths of a unit apart.
        self.register_buffer("centres", _FARTHEST * torch.linspace(0, 1, _DISTANCES) ** 1.5, persistent=False)

    def forward(
        self, h: Tensor, rotation: Tensor, position: Tensor, previous: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """Return ``(*batch, n, n, pair_width)``.

        Args:
            h: features of bodies ``(*batch, n, width)``.
            rotation: ``(*batch, n, 3, 3)``.
            position: in the network's unit, ``(*batch, n, 3)``.
            previous: rotations and positions predicted earlier, which may be shifted against the others.
        """
        place = torch.arange(h.shape[-2], device=h.device)
        steps = (place - place[:, None]).clamp(-self.reach, self.reach) + self.reach
        z = self.apart(steps) + self.first(h)[..., :, None, :] + self.second(h)[..., None, :, :]
        z = z + self.now(self._relative(rotation, position))
        if previous is not None:
            z = z + self.before(self._relative(*previous))
        return self.mix(z)

    @in_full_precision
    def _relative(self, rotation: Tensor, position: Tensor) -> Tensor:
        """Return bumps of the distance, direction and relative rotation of every pair, ``(*batch, n, n, 28)``."""
        way = position[..., None, :, :] - position[..., :, None, :]
        # A body has no direction to itself; the root is smooth there.
        distance = torch.sqrt(way.square().sum(-1, keepdim=True) + 1e-8)
        centres = self.centres.to(position)
        width = torch.diff(centres, append=centres[-1:] + 0.4)
        bumps = torch.exp(-(((distance - centres) / width) ** 2) / 2)
        direction = torch.einsum("...nji,...nmj->...nmi", rotation, way / (distance + 0.1))
        turn = torch.einsum("...nji,...mjk->...nmik", rotation, rotation).flatten(-2)
        return torch.cat([bumps, direction, turn], dim=-1)
