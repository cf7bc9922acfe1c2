"""Couplings: which source point is paired with which data point."""

from typing import Protocol

import torch
from torch import Tensor

from manifolds import Manifold


class Coupling(Protocol):
    """A way to pair the points of two batches.

    It returns, for each target, the index of its source. Targets keep their order, so what belongs to them (labels,
    conditions, weights) stays in place.
    """

    def __call__(self, x_0: Tensor, x_1: Tensor) -> Tensor:
        """Return indices ``(n,)`` into ``x_0`` for targets ``x_1``, both ``(n, *event_shape)``."""
        ...


class OptimalTransport:
    """The pairing of least total squared geodesic distance in each batch.

    Tong et al., Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport, 2023,
    arXiv:2302.00482, with the cost of the manifold; exact, by `scipy.optimize.linear_sum_assignment`.

    Args:
        manifold: whose distance is the cost.

    Raises:
        ValueError: on use, if the batches differ in size.
    """

    def __init__(self, manifold: Manifold) -> None:
        self.manifold = manifold

    def __call__(self, x_0: Tensor, x_1: Tensor) -> Tensor:
        from scipy.optimize import linear_sum_assignment

        if len(x_0) != len(x_1):
            raise ValueError(
                f"OptimalTransport: needs as many sources as targets, got {len(x_0)} and {len(x_1)}; draw as many"
            )
        cost = self.manifold.dist(x_1[:, None], x_0[None]) ** 2
        _, index = linear_sum_assignment(cost.detach().cpu().numpy())
        return torch.as_tensor(index, device=x_0.device)
