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


def raised(log_weights: Tensor, power: float) -> Tensor:
    """Return ``power * log_weights``: -inf where that is at any positive power, and all 0 at power 0."""
    return log_weights * power if power > 0 else torch.zeros_like(log_weights)


def largest_power(log_weights: Tensor, share: float, most: float = 1.0) -> float:
    """Return the largest power of weights ``(n,)``, up to ``most``, that leaves them worth a share of their number.

    By bisection; 0 where no positive power does, since too many weights are zero.
    """
    n = len(log_weights)

    def keeps(power: float) -> bool:
        return effective_size(raised(log_weights, power)) >= share * n

    if keeps(most):
        return most
    low, high = 0.0, most
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if keeps(middle) else (low, middle)
    return low


def pareto_shape(log_weights: Tensor) -> float:
    """Return the shape k of the generalised Pareto distribution of the largest weights.

    The weights have ``1 / k`` finite moments: above 0.5 their variance is infinite, above 0.7 means and effective
    sample sizes of practicable numbers of draws are not to be trusted. NaN of fewer than five positive ones in the
    tail, which is the largest ``min(n / 5, 3 sqrt(n))``.

    Args:
        log_weights: logarithms of relative weights ``(n,)``.

    References:
        Zhang and Stephens, A new and efficient estimation method for the generalized Pareto distribution, 2009, with
        the prior on k of Vehtari, Simpson, Gelman, Yao and Gabry, Pareto smoothed importance sampling, 2024, appendix.
    """
    n = len(log_weights)
    ordered = (log_weights.double() - log_weights.max()).exp().sort().values
    m = min(n // 5, math.ceil(3 * math.sqrt(n)))
    if m < 5:
        return math.nan
    y = ordered[-m:] - ordered[-m - 1]
    y = y[y > 0]
    m = len(y)
    if m < 5:
        return math.nan
    count = 30 + int(math.sqrt(m))
    i = torch.arange(1, count + 1, dtype=y.dtype, device=y.device)
    theta = 1 / y[-1] + (1 - (count / (i - 0.5)).sqrt()) / (3 * y[(m + 2) // 4 - 1])
    shapes = torch.log1p(-theta[:, None] * y).mean(1)
    log_likelihood = m * ((-theta / shapes).log() - shapes - 1)
    mean = (torch.softmax(log_likelihood, 0) * theta).sum()
    # A prior of ten draws at k = 0.5.
    return float((m * torch.log1p(-mean * y).mean() + 5) / (m + 10))


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
