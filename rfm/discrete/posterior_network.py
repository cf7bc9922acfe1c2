"""A network for the posterior of the data's labels."""

import math

import torch
from torch import Tensor, nn

from manifolds.arguments import integer


class PosteriorNetwork(nn.Module):
    """A transformer over positions: logits of each label of the data, given a sequence on the way and the time.

    Args:
        states: number of labels on the way.
        classes: number of labels of the data.
        length: of the sequences.
        width: of the features, a multiple of ``heads``.
        layers: of attention.
        heads: of attention.
    """

    def __init__(
        self, states: int, classes: int, length: int, width: int = 64, layers: int = 2, heads: int = 4
    ) -> None:
        super().__init__()
        sizes = {"states": states, "classes": classes, "length": length, "width": width, "layers": layers}
        states, classes, length, width, layers = (integer("PosteriorNetwork", k, v) for k, v in sizes.items())
        self.states, self.classes, self.length = states, classes, length
        self.width, self.layers, self.heads = width, layers, integer("PosteriorNetwork", "heads", heads)
        self.labels = nn.Embedding(states, width)
        self.places = nn.Parameter(torch.randn(length, width) / math.sqrt(width))
        self.time = nn.Sequential(nn.Linear(2 * _WAVES, width), nn.SiLU(), nn.Linear(width, width))
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.logits = nn.Linear(width, classes)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return logits ``(n, length, classes)`` for labels ``(n, length)`` and times ``(n,)``."""
        angles = math.pi * t[:, None].to(self.places) * torch.arange(1, _WAVES + 1, device=t.device)
        time = self.time(torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1))
        logits: Tensor = self.logits(self.encoder(self.labels(x) + self.places + time[:, None]))
        return logits


_WAVES = 8
