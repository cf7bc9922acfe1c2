"""Draws of a posterior, with what the method that made them knows."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class PosteriorDraws:
    """Points of a posterior.

    A method returns all that it has, weighted; `rfm.Flow.posterior` returns as many of equal weight as are requested.

    Args:
        points: ``(n, *event_shape)``.
        log_weights: of the points, normalised: ``logsumexp`` is 0; equal where the method gives equal weights ``(n,)``.
        method: how they were drawn, in words.
        evaluations: velocities evaluated, over all points; derivatives are not counted. For a slice of a density it is
            how many densities were evaluated.
        effective_sample_size: how many independent equally weighted draws they are worth.
        acceptance: share of accepted proposals; NaN for methods without.
        log_evidence: log of the mean likelihood under the prior, in nats; NaN where the method does not know it.
        diagnostics: by name, such as ``r_hat``, ``bulk_ess`` and ``tail_ess``.
        warnings: what is doubtful, a sentence each; empty if nothing is.
        exact: whether the method is exact in the limit of its effort; others are biased, and their effective sample
            size is the number of points.
    """

    points: Tensor
    log_weights: Tensor
    method: str
    evaluations: int
    effective_sample_size: float
    acceptance: float = math.nan
    log_evidence: float = math.nan
    diagnostics: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    exact: bool = True

    @property
    def weights(self) -> Tensor:
        """Weights of the points, ``(n,)``, sum 1."""
        return self.log_weights.exp()

    def resampled(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return ``n`` points of equal weight, drawn with replacement (systematically), ``(n, *event_shape)``."""
        return self.points[systematic(self.log_weights, n, generator)]


def effective_size(log_weights: Tensor) -> float:
    """Return ``(sum w)^2 / sum w^2`` of weights given by their logarithms ``(n,)``: Kong 1992."""
    return float((2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)).exp())


_FEW_FAMILIES = 20


def clustered_size(values: Tensor, families: Tensor, log_weights: Tensor) -> float:
    """Return how many independent draws weighted ones are worth that fall into families of common descent.

    The least over several functions of ``sum w (f - mean)^2 / sum over families of (sum in the family of w (f -
    mean))^2``, at most `effective_size`: draws in a family count as one only as far as they still agree. Of fewer than
    20 families it is their number: what they differ by is then no measure of what was lost.

    Args:
        values: functions of the draws ``(n, k)``.
        families: label of each draw's family ``(n,)``.
        log_weights: logarithms of relative weights ``(n,)``.

    References:
        Lee and Whiteley, Variance estimation in the particle filter, 2018.
    """
    values, w = values.double(), torch.softmax(log_weights, 0)[:, None]
    off = values - (w * values).sum(0)
    _, labels = families.unique(return_inverse=True)
    zero = torch.zeros(int(labels.max()) + 1, off.shape[1], dtype=off.dtype, device=off.device)
    sums = zero.index_add_(0, labels, w * off)
    total, between = (w * off.square()).sum(0), sums.square().sum(0)
    if len(sums) < _FEW_FAMILIES:
        return float(len(sums))
    varying = total > 1e-12 * ((w * values.square()).sum(0) + 1 / len(off))
    if not bool(varying.any()):
        return float(len(sums))
    # At most that: families whose deviations cancel would seem better than independent draws.
    most = effective_size(log_weights)
    return float((total[varying] / between[varying]).min().clamp(min=1.0, max=most))


def systematic(log_weights: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
    """Return ``n`` row numbers, each as often as its weight says, up to one, in random order.

    Args:
        log_weights: logarithms of relative weights ``(m,)``.
        n: how many.
        generator: source of randomness, on the device of the weights.

    References:
        Kitagawa, Monte Carlo filter and smoother, 1996: systematic resampling.
    """
    device = log_weights.device
    cumulative = torch.softmax(log_weights, 0).cumsum(0)
    u = torch.rand(1, generator=generator, dtype=cumulative.dtype, device=device)
    at = (torch.arange(n, dtype=cumulative.dtype, device=device) + u) / n * cumulative[-1]
    rows = torch.searchsorted(cumulative, at).clamp(max=len(log_weights) - 1)
    return rows[torch.randperm(n, generator=generator, device=device)]
