"""Sums of kernels over the centres that matter, block by block of points that are near each other."""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from rfm.sources.kernel_sums import log_varying_sums


@dataclass(frozen=True)
class Precision:
    """How exact sums are."""

    dtype: torch.dtype
    """Of the terms, and of sums over them."""
    truncation: float
    """Largest error of a density, relative to it: half is for what is left out, half for rounding of distances."""
    log_underflow: float
    """Exponents below this are raised to it: the exponential would not be a normal number, and take ten times as
    long."""


DOUBLE = Precision(torch.float64, 1e-9, -700.0)
SINGLE = Precision(torch.float32, 1e-6, -80.0)
"""For points in single precision, whose rounding changes the exponent ``k |x - y|^2 / 2`` by more than that of the
exponent itself does wherever kernels are narrow."""

_BLOCK = 64
"""Points to a block: fewer are nearer to each other, more share the work of finding their centres."""

_REGION = 8
"""Blocks to a region, which leaves centres out that are far from all of them."""

_BLOCK_ELEMENTS = 2**22
"""Distances of a block at most, 32 MiB."""

_NEAREST = 32
"""Centres that bound the density from below."""


def precision_of(x: Tensor) -> Precision:
    """Return the precision of truncated sums at points that were given in one or the other."""
    return DOUBLE if x.dtype == torch.float64 else SINGLE


@dataclass(frozen=True)
class _Centres:
    """Centres with the coefficients of their terms.

    Args:
        y: ``(n, r, D)``, r representatives for each centre.
        k: concentrations over -2, ``(K, n)``.
        log_a: log of the factors, with which the terms of a row sum to a density if shares sum to 1, ``(K, n)``.
        log_shares: ``(n,)``.
    """

    y: Tensor
    minus_half_k: Tensor
    log_a: Tensor
    log_shares: Tensor

    def at(self, rows: Tensor) -> Self:
        """Return some of them."""
        k, log_a = self.minus_half_k[:, rows], self.log_a[:, rows]
        return type(self)(self.y[rows], k, log_a, self.log_shares[rows])

    @property
    def copies(self) -> int:
        """The number r of representatives."""
        return self.y.shape[1]


def truncated_log_sums(
    x: Tensor,
    y: Tensor,
    concentrations: Tensor,
    log_a: Tensor,
    log_shares: Tensor,
    log_floor: Tensor,
    precision: Precision = DOUBLE,
) -> Tensor:
    """Return ``log sum_i s_i a_i exp(-k_i |x - y_i|^2 / 2)`` for each x and row of a and k, ``(m, K)``.

    A centre is left out of a row for a block of points if, everywhere in the block, its term without the share ``s_i``
    is below the truncation / 2 K times a lower bound of the sum of all rows and the floor. As shares sum to 1, all that
    is left out at a point is below half of the truncation times that sum. A row of which nothing is left is -inf.

    Args:
        x: points ``(m, D)``, in double precision, on the CPU.
        y: ``(n r, D)``, r successive ones in equal parts for each centre.
        concentrations: k, ``(K, n)``.
        log_a: log of the factors a, ``(K, n)``.
        log_shares: log of the shares s of the centres, ``(n,)``.
        log_floor: log of what is added to the sums of all rows, such as a background's density, ``(m,)``.
        precision: of the sums.
    """
    from scipy.spatial import cKDTree

    size = max(1, min(_BLOCK, _BLOCK_ELEMENTS // len(y)))
    centres = _Centres(y.unflatten(0, (len(log_shares), -1)), concentrations / -2, log_a, log_shares)
    # The leaves of the tree, one after another: successive points are near each other.
    order = torch.from_numpy(cKDTree(x.numpy(), leafsize=size).indices)
    log_sums = x.new_empty(len(x), len(log_a))
    for region in order.split(_REGION * size):
        near = _near(x[region], centres, float(log_floor[region].min()), precision)
        for rows in region.split(size):
            log_sums[rows] = _block_log_sums(x[rows], near, float(log_floor[rows].min()), precision)
    return log_sums


def _near(x: Tensor, centres: _Centres, log_floor: float, precision: Precision) -> _Centres:
    """Return the centres that are left out of some row at most."""
    middle = x.mean(0)
    radius = (x - middle).norm(dim=-1).max()
    # From the middle to the nearest of a centre's representatives; from any of the points it is within ``radius``.
    distance = (centres.y - middle).norm(dim=-1).amin(-1)
    nearest, farthest = (distance - radius).clamp(min=0).square(), (distance + radius).square()
    kept, _ = _kept(centres, nearest, farthest, log_floor, precision)
    return centres.at(kept.any(0).nonzero().flatten())


def _kept(
    centres: _Centres, nearest: Tensor, farthest: Tensor, log_floor: float, precision: Precision
) -> tuple[Tensor, float]:
    """Return which terms are not left out, ``(K, n)``, and the log of the bound for those that are.

    Args:
        centres: all.
        nearest: a lower bound of the squared distance of each centre from all points of a block, ``(n,)``.
        farthest: an upper bound of that of its nearest representative, ``(n,)``.
        log_floor: log of what is added at least.
        precision: of the sums.
    """
    k, log_a = centres.minus_half_k, centres.log_a
    near = nearest.topk(min(_NEAREST, len(nearest)), largest=False).indices
    least = log_a[:, near] + centres.log_shares[near] - math.log(centres.copies) + k[:, near] * farthest[near]
    log_least = max(log_floor, float(torch.logsumexp(least.flatten(), 0)))
    threshold = log_least + math.log(precision.truncation / 2 / len(k))
    return torch.addcmul(log_a, k, nearest) > threshold, threshold


def _block_log_sums(x: Tensor, centres: _Centres, log_floor: float, precision: Precision) -> Tensor:
    """Return the sums for one block, ``(m, K)``."""
    k, log_a, log_shares, copies = centres.minus_half_k, centres.log_a, centres.log_shares, centres.copies
    if not len(log_shares):
        return x.new_full((len(x), len(k)), -math.inf)
    middle = x.mean(0)
    square = _squared_distances((centres.y - middle).flatten(0, 1), x - middle, -2 * float(k.min()), precision)
    square = square.unflatten(0, (-1, copies))
    to_nearest = square[:, 0] if copies == 1 else square.amin(1)
    kept, threshold = _kept(centres, to_nearest.amin(-1), to_nearest.amax(-1), log_floor, precision)
    largest = log_a.amax(-1)
    if threshold < float(largest.max()) + precision.log_underflow:
        if precision.dtype != DOUBLE.dtype:
            return _block_log_sums(x, centres, log_floor, DOUBLE)
        return log_varying_sums(x, centres.y.flatten(0, 1), -2 * k, log_a + log_shares - math.log(copies))
    square = square.flatten(1).to(precision.dtype)
    row, column = kept.nonzero().unbind(-1)
    exponents = k[row, column][:, None].to(precision.dtype)
    factors = ((log_a[row, column] + log_shares[column] - largest[row]).exp() / copies).to(precision.dtype)
    sums, start = square.new_zeros(len(k), square.shape[1]), 0
    for j, end in enumerate(row.bincount(minlength=len(k)).cumsum(0).tolist()):
        terms = square.index_select(0, column[start:end]).mul_(exponents[start:end])
        sums[j] = factors[start:end] @ terms.clamp_(min=precision.log_underflow).exp_()
        start = end
    return sums.unflatten(-1, (copies, -1)).sum(1).to(x.dtype).log().T + largest


def _squared_distances(y: Tensor, x: Tensor, k: float, precision: Precision) -> Tensor:
    """Return ``|y - x|^2``, ``(n, m)``; where kernels matter, k times it errs by less than half of the truncation."""
    rounding = 16 * torch.finfo(x.dtype).eps * k * float(x.square().sum(-1).max())
    if rounding < precision.truncation / 2:
        lengths = torch.cat([y.square().sum(-1, keepdim=True), torch.ones_like(y[:, :1]), y], dim=-1)
        factors = torch.cat([torch.ones_like(x[:, :1]), x.square().sum(-1, keepdim=True), -2 * x], dim=-1)
        return lengths @ factors.T
    return torch.cdist(y, x, compute_mode="donot_use_mm_for_euclid_dist").square()
