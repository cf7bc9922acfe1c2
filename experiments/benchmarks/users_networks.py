"""Velocity networks as users write them, without derivatives of their own: plain layers of PyTorch."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from manifolds import Manifold


class Perceptron(nn.Module):
    """Three hidden layers over the entries of a point, and time."""

    def __init__(self, manifold: Manifold, width: int = 256) -> None:
        super().__init__()
        self.manifold, size = manifold, torch.Size(manifold.event_shape).numel()
        sizes = (size + 1, width, width, width)
        hidden = [layer for a, b in itertools.pairwise(sizes) for layer in (nn.Linear(a, b), nn.SiLU())]
        self.layers = nn.Sequential(*hidden, nn.Linear(width, size))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        entries = _entries(self.manifold, x)
        v = self.layers(torch.cat([entries, t[..., None]], dim=-1))
        return self.manifold.proju(x, v.reshape(x.shape))


class Attention(nn.Module):
    """A token for each entry of a point, which attend to each other."""

    def __init__(self, manifold: Manifold, width: int = 64) -> None:
        super().__init__()
        self.manifold = manifold
        self.embedding, self.last = nn.Linear(2, width), nn.Linear(width, 1)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        entries = _entries(self.manifold, x)
        z = self.embedding(torch.stack([entries, t[..., None].expand_as(entries)], dim=-1))
        z = z + self.attention(z, z, z, need_weights=False)[0]
        return self.manifold.proju(x, self.last(nn.functional.silu(z)).reshape(x.shape))


class Convolution(nn.Module):
    """Convolutions along the entries of a point."""

    def __init__(self, manifold: Manifold, width: int = 64) -> None:
        super().__init__()
        self.manifold = manifold
        sizes = (2, width, width)
        hidden = [part for a, b in itertools.pairwise(sizes) for part in (_convolution(a, b), nn.SiLU())]
        self.layers = nn.Sequential(*hidden, _convolution(width, 1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        entries = _entries(self.manifold, x)
        v = self.layers(torch.stack([entries, t[..., None].expand_as(entries)], dim=-2))
        return self.manifold.proju(x, v.reshape(x.shape))


NETWORKS: dict[str, Callable[[Manifold], nn.Module]] = {
    "perceptron": Perceptron,
    "attention": Attention,
    "convolution": Convolution,
}


def _convolution(inputs: int, outputs: int) -> nn.Conv1d:
    return nn.Conv1d(inputs, outputs, 3, padding=1)


def _entries(manifold: Manifold, x: Tensor) -> Tensor:
    return x.flatten(x.ndim - len(manifold.event_shape))
