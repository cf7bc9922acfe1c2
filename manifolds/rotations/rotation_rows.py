"""Rotations row by row: the maps of `SO3` and `SE3` for few points.

A hundred rotations take no longer than one: what takes time is the number of operations. On whole rows of a matrix
these are a tenth (of a projection) to a fifth (of an exponential) of those of `manifolds.rotations.rotation_entries`,
whose formulas are the same; for two thousand rotations or more those are faster. Here vectors are tensors
``(*batch, 3)`` and matrices ``(*batch, 3, 3)``; all of them broadcast, and promote as in an addition.
"""

import math

import torch
from torch import Tensor

from manifolds.numerics import cos_and_sinc_of_root

FEW, FEW_ON_GPU = 1024, 2**18
"""Up to as many rotations rows are faster; more on a GPU, where starting an operation takes the time for longer."""


def few(like: Tensor, *batches: torch.Size) -> bool:
    """Return whether rotations of so many points are better taken row by row; what is compiled never is.

    Args:
        like: one of the tensors; under ``vmap`` its shape, and so the answer, is that of a single sample.
        batches: batch shapes that broadcast against each other.
    """
    if torch.compiler.is_compiling():
        return False
    batch = batches[0] if len(set(batches)) == 1 else torch.broadcast_shapes(*batches)
    return math.prod(batch) <= (FEW_ON_GPU if like.is_cuda else FEW)


def cross(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a x b``."""
    if a.dtype != b.dtype:
        dtype = torch.promote_types(a.dtype, b.dtype)
        a, b = a.to(dtype), b.to(dtype)
    # It broadcasts by itself, which takes less time, but not over a number of axes that differs.
    if a.ndim != b.ndim:
        a, b = torch.broadcast_tensors(a, b)
    return torch.linalg.cross(a, b, dim=-1)


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
