"""Draws of a posterior, with what the method that made them knows."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class PosteriorDraws:
    """Points of a posterior.

    Args:
        points: ``(n, *event_shape)``.
        log_weights: of the points, normalised: ``logsumexp`` is 0; equal where the method gives equal weights ``(n,)``.
        method: how they were drawn, in words.
        evaluations: how many times a point was carried from the source to the data.
        effective_sample_size: how many independent equally weighted draws they are worth.
        acceptance: share of accepted proposals; NaN for methods without.
        log_evidence: log of the mean likelihood under the prior, in nats; NaN where the method does not know it.
        diagnostics: by name, such as ``r_hat``, ``bulk_ess`` and ``tail_ess``.
        warnings: what is doubtful, a sentence each; empty if nothing is.
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
