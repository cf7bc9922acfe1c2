"""Short polylines on a set that is known by its equations: where the search for a geodesic begins."""

import torch
from torch import Tensor

from manifolds.level_sets.constraint import Constraint

_SWEEPS = 6


def short_polyline(equations: Constraint, x: Tensor, y: Tensor, segments: int) -> Tensor:
    """Return the inner points of a polyline on the set from ``x`` to ``y``, ``(*batch, segments - 1, n)``.

    Gaps are halved until there are enough, and every new polyline is shortened by moving each point to the middle of
    its neighbours, and back to the set: Gauss-Seidel sweeps on the sum of squared gaps, the coarse polylines first,
    which settle what is slow on fine ones.

    Args:
        equations: of the set.
        x: start points ``(*batch, n)``.
        y: end points, the same shape.
        segments: a power of two.
    """
    reach = torch.linalg.vector_norm(y - x, dim=-1)[..., None, None]
    # A chord through the centre of something round has no nearest side: one is chosen.
    aside = (0.02 * reach) * torch.cos(torch.arange(1, equations.n + 1, dtype=x.dtype, device=x.device))
    middle = _near(equations, (x + y)[..., None, :] / 2 + aside, reach, 8)
    points = torch.cat([x[..., None, :], middle, y[..., None, :]], dim=-2)
    while points.shape[-2] < segments + 1:
        middles = _near(equations, (points[..., 1:, :] + points[..., :-1, :]) / 2, reach, 4)
        points = _woven(points, middles)
        for _ in range(_SWEEPS):
            odd = _near(equations, (points[..., :-2:2, :] + points[..., 2::2, :]) / 2, reach, 1)
            even = _near(equations, (odd[..., :-1, :] + odd[..., 1:, :]) / 2, reach, 1)
            points = _woven(torch.cat([points[..., :1, :], even, points[..., -1:, :]], dim=-2), odd)
    return points[..., 1:-1, :]


def _woven(points: Tensor, between: Tensor) -> Tensor:
    """Return ``points`` and those ``between`` them in turn."""
    pairs = torch.stack([points[..., :-1, :], between], dim=-2).flatten(-3, -2)
    return torch.cat([pairs, points[..., -1:, :]], dim=-2)


def _near(equations: Constraint, x: Tensor, reach: Tensor, rounds: int) -> Tensor:
    """Return points near the set, by Newton steps not longer than ``reach / 2``."""
    for _ in range(rounds):
        step = equations.newton_step(x).nan_to_num(0.0, 0.0, 0.0)
        length = torch.linalg.vector_norm(step, dim=-1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
        x = x + step * torch.clamp(reach / (2 * length), max=1.0)
    return x
