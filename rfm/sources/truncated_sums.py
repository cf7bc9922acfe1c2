"""Sums of kernels over the centres that matter, block by block of points that are near each other."""

import math

import torch
from torch import Tensor

from rfm.sources.kernel_sums import log_varying_sums

TRUNCATION = 1e-9
"""Largest error of a density, relative to it: half is for what is left out, half for rounding of distances."""

_BLOCK = 32
"""Points to a block: fewer are nearer to each other, more share the work of finding their centres."""

_BLOCK_ELEMENTS = 2**21
"""Distances of a block at most, 16 MiB."""

_NEAREST = 32
"""Centres that bound the density from below."""

_LOG_UNDERFLOW = -700.0


def truncated_log_sums(
    x: Tensor, y: Tensor, concentrations: Tensor, log_a: Tensor, log_shares: Tensor, log_floor: Tensor
) -> Tensor:
    """Return ``log sum_i s_i a_i exp(-k_i |x - y_i|^2 / 2)`` for each x and row of a and k, ``(m, K)``.

    A centre is left out of a row for a block of points if, everywhere in the block, its term without the share ``s_i``
    is below `TRUNCATION` / 2 K times a lower bound of the sum of all rows and the floor. As shares sum to 1, all that
    is left out at a point is below half of `TRUNCATION` times that sum. A row of which nothing is left is -inf.

    Args:
        x: points ``(m, D)``, on the CPU.
        y: ``(n r, D)``, r successive ones in equal parts for each centre.
        concentrations: k, ``(K, n)``.
        log_a: log of the factors a, ``(K, n)``.
        log_shares: log of the shares s of the centres, ``(n,)``.
        log_floor: log of what is added to the sums of all rows, such as a background's density, ``(m,)``.
    """
    from scipy.spatial import cKDTree

    size = max(1, min(_BLOCK, _BLOCK_ELEMENTS // len(y)))
    # The leaves of the tree, one after another: successive points are near each other.
    order = torch.from_numpy(cKDTree(x.numpy(), leafsize=size).indices)
    log_sums = x.new_empty(len(x), len(log_a))
    for rows in order.split(size):
        log_sums[rows] = _block_log_sums(x[rows], y, concentrations, log_a, log_shares, float(log_floor[rows].min()))
    return log_sums


def _block_log_sums(x: Tensor, y: Tensor, k: Tensor, log_a: Tensor, log_shares: Tensor, log_floor: float) -> Tensor:
    """Return the sums for one block, ``(m, K)``."""
    copies = len(y) // k.shape[1]
    middle = x.mean(0)
    radius = (x - middle).norm(dim=-1).max()
    # From the middle to the nearest of a centre's representatives; from any point of the block it is within ``radius``.
    distance = (y - middle).norm(dim=-1).unflatten(0, (-1, copies)).amin(-1)
    near = distance.topk(min(_NEAREST, len(distance)), largest=False).indices
    least = log_a[:, near] + log_shares[near] - math.log(copies) - k[:, near] * ((distance[near] + radius) ** 2 / 2)
    log_least = max(log_floor, float(torch.logsumexp(least.flatten(), 0)))
    threshold = log_least + math.log(TRUNCATION / 2 / len(k))
    largest = log_a.amax(-1)
    if threshold < float(largest.max()) + _LOG_UNDERFLOW:
        return log_varying_sums(x, y, k, log_a + log_shares - math.log(copies))
    kept = torch.addcmul(log_a, k, (distance - radius).clamp(min=0).square() / 2, value=-1) > threshold
    used = kept.any(0).nonzero().flatten()
    if not len(used):
        # Far from all centres the floor is all that counts.
        return x.new_full((len(x), len(k)), -math.inf)
    k, log_a, log_shares, kept = k[:, used], log_a[:, used], log_shares[used], kept[:, used]
    square = _squared_distances(y.unflatten(0, (-1, copies))[used].flatten(0, 1) - middle, x - middle, float(k.max()))
    square = square.reshape(len(used), -1)
    sums = x.new_zeros(len(k), square.shape[1])
    for j in kept.any(-1).nonzero().flatten().tolist():
        at = kept[j].nonzero().flatten()
        terms = square if len(at) == len(square) else square.index_select(0, at)
        factors = (log_a[j, at] + log_shares[at] - largest[j]).exp() / copies
        sums[j] = factors @ torch.mul(terms, -k[j, at, None] / 2).exp_()
    return sums.unflatten(-1, (copies, -1)).sum(1).log().T + largest


def _squared_distances(y: Tensor, x: Tensor, k: float) -> Tensor:
    """Return ``|y - x|^2``, ``(n, m)``; where kernels matter, k times it errs by less than half of `TRUNCATION`."""
    rounding = 16 * torch.finfo(x.dtype).eps * k * float(x.square().sum(-1).max())
    if rounding < TRUNCATION / 2:
        lengths = torch.cat([y.square().sum(-1, keepdim=True), torch.ones_like(y[:, :1]), y], dim=-1)
        factors = torch.cat([torch.ones_like(x[:, :1]), x.square().sum(-1, keepdim=True), -2 * x], dim=-1)
        return lengths @ factors.T
    return torch.cdist(y, x, compute_mode="donot_use_mm_for_euclid_dist").square()
