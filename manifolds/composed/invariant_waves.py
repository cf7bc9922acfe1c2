"""Random Fourier features with fixed frequencies, to average over a group."""

import math

import torch
from torch import Tensor

from manifolds.numerics.constants import Constants


class InvariantWaves(Constants):
    """Cosines with fixed pseudo-random frequencies and phases, of an embedding.

    The frequencies come from a Kronecker sequence, so that they are the same on every machine and touch no random
    state; they are normal, with standard deviations 1, 2 and 4 in turn, because the classes of a large group differ in
    high frequencies only.

    Args:
        dim: intrinsic dimension of the manifold.
        embed_dim: length of embedded points.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, dim: int, embed_dim: int) -> None:
        super().__init__()
        self.count = max(64, 2 * dim + 1)
        k = torch.arange(1, self.count + 1, dtype=torch.float64)[:, None]
        # The ratios are powers of the root of g^(n + 1) = g + 1: Roberts, The Unreasonable Effectiveness of
        # Quasirandom Sequences (2018).
        n = embed_dim + 1
        ratio = 2.0
        for _ in range(64):
            ratio = (1 + ratio) ** (1 / (n + 1))
        uniform = torch.frac(0.5 + k * ratio ** -torch.arange(1, n + 1, dtype=torch.float64))
        scale = 2.0 ** torch.arange(self.count, dtype=torch.float64).remainder(3)[:, None]
        self.constant("frequencies", scale * math.sqrt(2) * torch.erfinv(2 * uniform[:, :-1] - 1))
        self.constant("phases", 2 * math.pi * uniform[:, -1])

    def features(self, z: Tensor) -> Tensor:
        """Return ``(..., count)`` for embedded points ``(..., embed_dim)``."""
        return torch.cos(z @ self.frequencies.to(z).mT + self.phases.to(z))
