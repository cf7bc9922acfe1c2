"""Data moved at random, by less than neighbours are apart: a likelihood has no maximum where points may be spikes."""

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.sources.kernel_widths import neighbours_of

_NEIGHBOURS = 6


def jitter_scales(manifold: Manifold, x: Tensor, share: float) -> Tensor:
    """Return a share of the distance of each point to the sixth nearest other place, ``(n,)``; 0 where there is one.

    Args:
        manifold: where the points live.
        x: points ``(n, *event_shape)``.
        share: of the distance.
    """
    found = neighbours_of(manifold, x.double(), (_NEIGHBOURS,))
    return x.new_zeros(len(x)) if found is None else share * manifold.dist(x, x[found.row[0]])


def jittered(manifold: Manifold, x: Tensor, scales: Tensor, generator: torch.Generator) -> Tensor:
    """Return points moved along geodesics, by normal vectors of standard deviations ``(n,)`` in each direction."""
    basis = manifold.tangent_basis(x)
    size = scales[:, None] * torch.randn(basis.shape[:2], generator=generator, dtype=x.dtype, device=x.device)
    return manifold.expmap(x, (manifold.lift(size) * basis).sum(1))
