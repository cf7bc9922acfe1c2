"""Distances between neighbouring points of a data set: the scale of its finest structure, place by place."""

import numpy as np
import torch
from torch import Tensor

from manifolds import Manifold


def neighbour_distances(manifold: Manifold, x: Tensor, m: int) -> Tensor:
    """Return how far each point is from the ``m``-th nearest of the other places, ``(n,)``.

    Places are distinct points; which is the ``m``-th is found by distances between embedded points, and how far it is
    measured on the manifold. Where there are fewer places it is the last; 0 where there is one.

    Args:
        manifold: where the points live.
        x: points ``(n, *event_shape)``.
        m: at least 1.
    """
    from scipy.spatial import cKDTree

    embedded = manifold.embed(x.double()).cpu().numpy()
    places, first, inverse = np.unique(embedded, axis=0, return_index=True, return_inverse=True)
    m = min(m, len(places) - 1)
    if m < 1:
        return x.new_zeros(len(x))
    farthest = np.asarray(cKDTree(places).query(places, k=[m + 1])[1])[:, 0]
    other = torch.from_numpy(first[farthest][inverse.reshape(-1)]).to(x.device)
    return manifold.dist(x, x[other])
