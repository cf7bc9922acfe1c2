"""Sums of kernels over all centres, for many widths at a time."""

import math

import torch
from torch import Tensor

_DROPPED_LOG_SHARE = 30.0
"""Kernels are dropped while all of them together are below exp(-30) = 1e-13 of the sum."""


def log_kernel_sums(x: Tensor, y: Tensor, concentrations: Tensor, log_shares: Tensor | None) -> Tensor:
    """Return ``log sum_i share_i exp(-k |x - y_i|^2 / 2)`` for each x and k, ``(m, K)``; None means equal shares.

    As k grows, fewer centres matter. A centre further than the nearest one by ``e`` in half the squared distance adds
    at most ``exp(-k e)`` times the largest share over the nearest one's; those that cannot matter to any row are left
    behind before the next, larger k.
    """
    # Squares of differences: 1 - <x, y> would lose all digits of chords near 1e-4, a kernel's width at k = 1e8.
    squared = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square()
    nearest = squared.amin(-1, keepdim=True)
    excess = (squared - nearest) / 2
    log_w = None if log_shares is None else log_shares.expand_as(excess)
    reach = (
        _DROPPED_LOG_SHARE
        + math.log(len(y))
        + (0.0 if log_shares is None else float(log_shares.max() - log_shares.min()))
    )
    sums = squared.new_empty(len(x), len(concentrations))
    for j in concentrations.argsort().tolist():
        k = float(concentrations[j])
        width = max([1, *(excess * k <= reach).sum(-1).tolist()])
        if width < excess.shape[-1] // 2:
            excess, kept = excess.topk(width, dim=-1, largest=False, sorted=False)
            log_w = None if log_w is None else log_w.gather(-1, kept)
        if log_w is None:
            # The nearest centre adds exactly 1, so this sum can neither overflow nor vanish.
            sums[:, j] = excess.mul(-k).exp().sum(-1).log() - math.log(len(y))
        else:
            sums[:, j] = torch.logsumexp(log_w - k * excess, dim=-1)
    return sums - concentrations * nearest / 2


def log_varying_sums(x: Tensor, y: Tensor, concentrations: Tensor, log_coefficients: Tensor) -> Tensor:
    """Return ``log sum_i a_i exp(-k_i |x - y_i|^2 / 2)`` for each x and row of k, ``(m, K)``.

    Args:
        x: ``(m, D)``.
        y: ``(n r, D)``, r successive ones for each centre.
        concentrations: k, ``(K, n)``.
        log_coefficients: log of the factors a, ``(K, n)``.
    """
    half = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square() / 2
    half = half.unflatten(-1, (concentrations.shape[1], -1))
    sums = [
        torch.logsumexp(torch.addcmul(a[:, None], half, k[:, None], value=-1), dim=(-2, -1))
        for k, a in zip(concentrations, log_coefficients, strict=True)
    ]
    return torch.stack(sums, dim=-1) if sums else half.new_empty(len(x), 0)
