"""Cells of crystals as positive definite matrices: the inner products of their edges, which no rotation changes.

A cell with edges a, b, c is the point ``[[a.a, a.b, a.c], ...]`` of `manifolds.SPD` (3), in squared units of length. In
the affine-invariant metric a choice of other edges of the same lattice is an isometry, as is another unit of length; in
the log-Euclidean metric the latter alone.
"""

import torch
from torch import Tensor


def metric_tensor(lengths: Tensor, degrees: Tensor) -> Tensor:
    """Return the inner products of the edges of cells.

    Args:
        lengths: of the edges a, b and c, ``(*batch, 3)``, positive.
        degrees: the angles alpha, between b and c, beta, between a and c, and gamma, between a and b, ``(*batch, 3)``.

    Returns:
        Points of ``SPD(3)``, ``(*batch, 3, 3)``.

    Raises:
        ValueError: a length is not positive, or there is no cell with such angles.
    """
    lengths, degrees = (torch.as_tensor(a) for a in (lengths, degrees))
    if lengths.shape[-1:] != (3,) or degrees.shape[-1:] != (3,) or not bool((lengths > 0).all()):
        raise ValueError(
            f"metric_tensor: a cell has three positive lengths and three angles in degrees, got shapes "
            f"{tuple(lengths.shape)} and {tuple(degrees.shape)} and a least length of {float(lengths.min()):.3g}; give "
            "(a, b, c) and (alpha, beta, gamma)"
        )
    cos = torch.cos(torch.deg2rad(degrees))
    one = torch.ones_like(cos[..., 0])
    alpha, beta, gamma = cos.unbind(-1)
    rows = [torch.stack(row, dim=-1) for row in ((one, gamma, beta), (gamma, one, alpha), (beta, alpha, one))]
    cosines = torch.stack(rows, dim=-2)
    bad = torch.linalg.cholesky_ex(cosines).info != 0
    if bool(bad.any()):
        found = degrees.expand(*bad.shape, 3)[bad][0].tolist()
        raise ValueError(
            f"metric_tensor: no cell has the angles {found} degrees, of {int(bad.sum())} of {bad.numel()} cells; each "
            "must be less than the sum of the others, and all three sum to less than 360"
        )
    return lengths[..., :, None] * cosines * lengths[..., None, :]


def cell_parameters(metric: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lengths ``(*batch, 3)`` and angles in degrees ``(*batch, 3)`` of cells, see `metric_tensor`."""
    lengths = torch.sqrt(torch.diagonal(metric, dim1=-2, dim2=-1))
    cosines = metric / (lengths[..., :, None] * lengths[..., None, :])
    pairs = torch.stack([cosines[..., 1, 2], cosines[..., 0, 2], cosines[..., 0, 1]], dim=-1)
    return lengths, torch.rad2deg(torch.acos(pairs.clamp(-1, 1)))


def cell_volume(metric: Tensor) -> Tensor:
    """Return the volumes of cells ``(*batch)``: roots of determinants."""
    return torch.sqrt(torch.linalg.det(metric))
