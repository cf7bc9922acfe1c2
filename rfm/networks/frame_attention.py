"""Attention between rigid bodies, blind to how the whole is turned or shifted."""

import math
from typing import cast

import torch
from torch import Tensor, nn

from manifolds.numerics.precision import in_full_precision


class FrameAttention(nn.Module):
    """Invariant point attention: each body has queries, keys and values that are points fixed to it, too.

    Jumper et al., Highly accurate protein structure prediction with AlphaFold, 2021, doi:10.1038/s41586-021-03819-2,
    supplementary algorithm 22. A pair attends by the product of vectors, by a bias from the pair's features, and by the
    distances between points that both carry. Of the squares ``|a|^2 - 2 a'b + |b|^2`` the first does not depend on the
    key and cancels in the softmax, so the points join the vectors in one matrix product.

    Args:
        width: of the bodies' features.
        pair_width: of the pairs' features.
        heads: number of heads.
        channels: length of each head's vectors.
        query_points: points of a head that distances are taken between.
        value_points: points of a head that are passed on.
    """

    def __init__(
        self, width: int, pair_width: int, heads: int, channels: int = 16, query_points: int = 4, value_points: int = 8
    ) -> None:
        super().__init__()
        self.heads, self.channels = heads, channels
        self.query_points, self.value_points = query_points, value_points
        self.vectors = nn.Linear(width, 3 * heads * channels, bias=False)
        self.points = nn.Linear(width, 3 * heads * (2 * query_points + value_points))
        self.pair_bias = nn.Linear(pair_width, heads, bias=False)
        # softplus of it is 1 at the start, as in the source.
        self.point_weight = nn.Parameter(torch.full((heads,), math.log(math.e - 1)))
        self.out = nn.Linear(heads * (channels + 4 * value_points + pair_width), width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, h: Tensor, pairs: Tensor, rotation: Tensor, position: Tensor, absent: Tensor) -> Tensor:
        """Return what each body learns from the others.

        Args:
            h: features ``(*batch, n, width)``.
            pairs: features ``(*batch, n, n, pair_width)``.
            rotation: body to space, ``(*batch, n, 3, 3)``.
            position: in units in which bodies are some units apart, near the origin, ``(*batch, n, 3)``.
            absent: added to the logits of every key ``(*batch, n)``: 0, or very negative where there is no body.
        """
        inputs = self.vectors(h), self.points(h), self.pair_bias(pairs)
        return cast(Tensor, self.out(self._attend(*inputs, pairs, rotation, position, absent)))

    # Squares of distances cancel, and points are places: the products are not those of a layer.
    @in_full_precision
    def _attend(
        self,
        vectors: Tensor,
        points: Tensor,
        bias: Tensor,
        pairs: Tensor,
        rotation: Tensor,
        position: Tensor,
        absent: Tensor,
    ) -> Tensor:
        q, k, v = vectors.unflatten(-1, (3, self.heads, self.channels)).unbind(-3)
        sizes = [self.query_points, self.query_points, self.value_points]
        local = points.unflatten(-1, (self.heads, -1, 3))
        placed = torch.einsum("...nij,...nhpj->...nhpi", rotation, local) + position[..., None, None, :]
        q_points, k_points, v_points = (part.flatten(-2) for part in placed.split(sizes, dim=-2))
        # Three terms of about equal variance: each has a third of the logit.
        share = math.sqrt(1 / 3)
        unit = share * math.sqrt(2 / (9 * self.query_points)) / 2
        weight = unit * nn.functional.softplus(self.point_weight)[:, None]
        queries = torch.cat([q * (share / math.sqrt(self.channels)), 2 * weight * q_points], dim=-1)
        keys = torch.cat([k, k_points], dim=-1)
        own = -weight[:, 0] * k_points.square().sum(-1) + absent[..., None]
        logits = torch.einsum("...qhc,...khc->...hqk", queries, keys)
        logits = logits + share * bias.movedim(-1, -3) + own.movedim(-1, -2)[..., None, :]
        attention = torch.softmax(logits, dim=-1)
        values = torch.einsum("...hqk,...khc->...qhc", attention, torch.cat([v, v_points], dim=-1))
        seen = torch.einsum("...hqk,...qkc->...qhc", attention, pairs)
        return self._read(values, seen, rotation, position)

    def _read(self, values: Tensor, seen: Tensor, rotation: Tensor, position: Tensor) -> Tensor:
        """Return the heads' values, their points in the frame of the querying body."""
        vectors, points = values.split([self.channels, 3 * self.value_points], dim=-1)
        away = points.unflatten(-1, (self.value_points, 3)) - position[..., None, None, :]
        local = torch.einsum("...nji,...nhpj->...nhpi", rotation, away)
        # Smooth where a point falls on the origin of the frame.
        distance = torch.sqrt(local.square().sum(-1) + 1e-6)
        return torch.cat([vectors, local.flatten(-2), distance, seen], dim=-1).flatten(-2)
