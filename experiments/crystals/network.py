"""One network for crystals of any size: types of atoms, places and cell in; a posterior and velocities out."""

import math

import torch
from torch import Tensor, nn

_HARMONICS = 4
_RANGES = (0.7, 1.4, 2.1, 2.8, 3.5, 4.9, 7.0)
"""Distances in angstroms at which pairs of atoms are seen, and how wide."""
_PAIR_WIDTH = 32


class CrystalNetwork(nn.Module):
    """A transformer over atoms, with features of pairs that no choice of an origin and no order of atoms changes.

    Places enter by the sines and cosines of their differences, and by a smooth periodic distance: with ``s`` the sines
    of the angles ``2 pi (f_i - f_j)`` over 2 pi and ``c`` twice the versines over ``(2 pi)^2``, it is the sum of
    ``G_ab s_a s_b`` for ``a != b`` and of ``G_aa c_a``, which is the squared distance of near atoms. The cell enters by
    its Cholesky factor L; its velocity is ``L S L'`` with a symmetric matrix S.

    Args:
        states: number of labels on the way.
        classes: number of labels of the data.
        width: of the features of an atom, a multiple of ``heads``.
        layers: of attention.
        heads: of attention.
    """

    def __init__(self, states: int, classes: int, width: int = 96, layers: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.labels = nn.Embedding(states, width)
        self.surroundings = nn.Sequential(nn.Linear(8 + 2 * _HARMONICS, width), nn.SiLU(), nn.Linear(width, width))
        self.pairs = nn.Sequential(
            nn.Linear(6 * _HARMONICS + len(_RANGES), _PAIR_WIDTH), nn.SiLU(), nn.Linear(_PAIR_WIDTH, _PAIR_WIDTH)
        )
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.logits, self.move = nn.Linear(width, classes), nn.Linear(width, 3)
        last = nn.Linear(width, 9)
        self.strain = nn.Sequential(nn.Linear(width, width), nn.SiLU(), last)
        nn.init.zeros_(self.move.weight)
        nn.init.zeros_(last.weight)

    def forward(self, labels: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits ``(n, k, classes)`` and velocities ``(n, 3 k + 9)``, see `rfm.discrete.JointNetwork`."""
        k = labels.shape[1]
        places, cell = x[:, : 3 * k].unflatten(-1, (k, 3)), x[:, 3 * k :].unflatten(-1, (3, 3))
        factor, failed = torch.linalg.cholesky_ex(cell)
        factor = torch.where((failed == 0)[:, None, None], factor, torch.eye(3, dtype=x.dtype, device=x.device))
        pairs = self.pairs(_pair_features(places, cell * k ** (2 / 3)))
        h = self.labels(labels) + self.surroundings(_surroundings(factor, t, k))[:, None]
        for block in self.blocks:
            h = block(h, pairs)
        h = self.norm(h)
        move = self.move(h)
        strain = self.strain(h.mean(1)).unflatten(-1, (3, 3))
        velocity = factor @ (strain + strain.mT) @ factor.mT
        return self.logits(h), torch.cat([(move - move.mean(1, keepdim=True)).flatten(1), velocity.flatten(1)], dim=-1)


class _Block(nn.Module):
    """Attention whose weights and values know of pairs, then a layer for each atom."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.bias, self.values = nn.Linear(_PAIR_WIDTH, heads), nn.Linear(heads * _PAIR_WIDTH, width)
        self.each = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))

    def forward(self, h: Tensor, pairs: Tensor) -> Tensor:
        q, k, v = self.qkv(self.first(h)).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        scores = torch.einsum("nihd,njhd->nhij", q, k) / math.sqrt(q.shape[-1]) + self.bias(pairs).movedim(-1, 1)
        weights = torch.softmax(scores, dim=-1)
        seen = torch.einsum("nhij,njhd->nihd", weights, v).flatten(-2)
        around = torch.einsum("nhij,nijp->nihp", weights, pairs).flatten(-2)
        h = h + self.out(seen) + self.values(around)
        out: Tensor = h + self.each(self.second(h))
        return out


def _pair_features(places: Tensor, cell: Tensor) -> Tensor:
    """Return features ``(n, k, k, f)`` of places in fractions and cells in square angstroms."""
    angle = 2 * math.pi * (places[:, :, None] - places[:, None])
    waves = [function(m * angle) for m in range(1, _HARMONICS + 1) for function in (torch.sin, torch.cos)]
    s, c = torch.sin(angle) / (2 * math.pi), 2 * (1 - torch.cos(angle)) / (2 * math.pi) ** 2
    diagonal = cell.diagonal(dim1=-2, dim2=-1)
    mixed = cell - torch.diag_embed(diagonal)
    squared = torch.einsum("nija,nab,nijb->nij", s, mixed, s) + torch.einsum("nija,na->nij", c, diagonal)
    distance = torch.sqrt(squared.clamp(min=0) + 1e-2)[..., None]
    near = torch.exp(-((distance - distance.new_tensor(_RANGES)) ** 2) / 2)
    return torch.cat([*waves, near], dim=-1)


def _surroundings(factor: Tensor, t: Tensor, k: int) -> Tensor:
    """Return what all atoms of a crystal see: the cell, how many they are, and the time, ``(n, f)``."""
    edges = torch.log(factor.diagonal(dim1=-2, dim2=-1))
    lower = factor[:, (1, 2, 2), (0, 0, 1)] / factor[:, (1, 2, 2), (1, 2, 2)]
    number = torch.full_like(t, math.log(k))
    times = t[:, None] * torch.arange(1, _HARMONICS + 1, dtype=t.dtype, device=t.device) * math.pi
    parts = [edges, lower, number[:, None], t[:, None], torch.cos(times), torch.sin(times)]
    return torch.cat(parts, dim=-1)
