"""Weights of a mixture, from the log-densities of its components."""

import math

import torch
from torch import Tensor

from manifolds.arguments import integer
from rfm.arrays import tensor_of

_OWNER = "likeliest_weights"


def likeliest_weights(
    log_p: Tensor, shares: Tensor | None = None, steps: int = 300, level: Tensor | None = None
) -> Tensor:
    """Return mixture weights by expectation maximisation from equal ones, ``(K,)``, sum 1.

    Only the weights move, so the likelihood has no local maximum beside the highest, and no step lowers it. A component
    that explains nothing tends to weight zero without reaching it.

    Args:
        log_p: log-densities of the components at the points, ``(m, K)``; -inf where one is impossible. Each point of
            positive share is possible for one component at least.
        shares: relative weights of the points, ``(m,)``, not negative; by default equal.
        steps: number of steps.
        level: of each component, ``(K,)``, from 0 on: weights then sum to one within each level. How much of a level
            there is at a point is part of ``log_p``, and may differ from point to point.

    Raises:
        ValueError: no points, a point that no component explains, or arguments of other shapes.

    References:
        Dempster, Laird and Rubin, "Maximum likelihood from incomplete data via the EM algorithm", 1977, section 4.3.
    """
    log_p = tensor_of(_OWNER, "log_p", log_p)
    steps = integer(_OWNER, "steps", steps, 0)
    if log_p.ndim != 2 or log_p.numel() == 0:
        raise ValueError(
            f"{_OWNER}: log_p must have shape (m, K), of at least one component at at least one point, got "
            f"{tuple(log_p.shape)}"
        )
    s = log_p.new_ones(len(log_p)) if shares is None else tensor_of(_OWNER, "shares", shares).to(log_p)
    if s.shape != log_p.shape[:1] or not bool((s >= 0).all()) or not 0 < float(s.sum()) < math.inf:
        raise ValueError(
            f"{_OWNER}: shares must be one number for each of the {len(log_p)} points, not negative and not all zero, "
            f"got shape {tuple(s.shape)}"
        )
    log_p, s = log_p[s > 0], s[s > 0] / s.sum()
    best = log_p.amax(-1, keepdim=True)
    if not bool(best.isfinite().all()):
        raise ValueError(
            f"{_OWNER}: {int((~best.isfinite()).sum())} of {len(log_p)} points have no finite log-density under any "
            "component; add one that is positive everywhere, such as a uniform background"
        )
    # Densities relative to the largest at each point: exponentials are taken once, and cannot overflow.
    p = (log_p - best).exp()
    level = torch.zeros(log_p.shape[1], dtype=torch.long, device=log_p.device) if level is None else level
    levels = int(level.max()) + 1
    weights = _of_sum_one(torch.ones_like(log_p[0]), level)
    for _ in range(steps):
        weights = weights * ((s / (p @ weights)) @ p)
        if levels > 1:
            weights = _of_sum_one(weights, level)
    return _of_sum_one(weights, level)


def _of_sum_one(weights: Tensor, level: Tensor) -> Tensor:
    """Return weights divided by their sums within levels."""
    total = weights.new_zeros(int(level.max()) + 1).index_add(0, level, weights)
    return weights / total[level]
