"""Rotations row by row: the maps of `SO3` and `SE3` for few points.

A hundred rotations take no longer than one: what takes time is the number of operations. On whole rows of a matrix
these are a tenth of those of `manifolds.rotation_entries`, whose formulas are the same; for more than some thousand
rotations those are faster. Here vectors are tensors ``(*batch, 3)`` and matrices ``(*batch, 3, 3)``; all of them
broadcast.
"""

import torch
from torch import Tensor

from manifolds.numerics import cos_and_sinc_of_root

_FEW, _FEW_ON_GPU = 9 * 2048, 9 * 2**18
"""Up to as many numbers this is faster; on a GPU, starting operations is what takes the time for longer."""


def few(x: Tensor, y: Tensor) -> bool:
    """Return whether so few points are better taken row by row; what is compiled never is."""
    if torch.compiler.is_compiling():
        return False
    return max(x.numel(), y.numel()) <= (_FEW_ON_GPU if x.is_cuda else _FEW)


def cross(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a x b``."""
    return torch.linalg.cross(*torch.broadcast_tensors(a, b), dim=-1)


def turned(x: Tensor, v: Tensor) -> Tensor:
    """Return ``x v``, without a matrix product, whose precision a user may have reduced."""
    return (x * v.unsqueeze(-2)).sum(-1)


def skew_of_product(x: Tensor, u: Tensor) -> Tensor:
    """Return ``vee(x' u)``: half the sum of the cross products of the rows of ``u`` and ``x``."""
    return cross(u, x).sum(-2) / 2


def times_hat(x: Tensor, omega: Tensor) -> Tensor:
    """Return ``x hat(omega)``."""
    return cross(x, omega.unsqueeze(-2))


def exponential(x: Tensor, omega: Tensor) -> Tensor:
    """Return the rotation that ``x`` becomes when its body turns by ``omega``, of its own frame."""
    cos, sinc = cos_and_sinc_of_root((omega * omega).sum(-1)[..., None, None] / 4)
    once = times_hat(x, omega)
    twice = times_hat(once, omega)
    return _orthonormalised(x + torch.addcmul(sinc * cos * once, sinc * sinc / 2, twice))


def _orthonormalised(x: Tensor) -> Tensor:
    half_excess = ((x * x).sum((-2, -1), keepdim=True) - 3) / 2
    change = cross(x.roll(-1, -2), x.roll(1, -2)) - x
    return torch.add(x, torch.addcmul(change, half_excess, x, value=-1), alpha=0.5)
