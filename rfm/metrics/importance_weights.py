"""Means under one density from draws of another."""

from dataclasses import dataclass

import torch
from torch import Tensor

from manifolds.numerics.precision import in_full_precision
from rfm.arrays import tensor_of
from rfm.metrics.estimates import Estimate


@dataclass(frozen=True)
class ImportanceWeights:
    """Weights by which draws of one density stand for another, as `importance_weights` makes them.

    Args:
        weights: of the draws ``(n,)``, of sum 1.
        integral: of the other density, as the draws see it: 1 where they reach all of it.
    """

    weights: Tensor
    integral: Estimate

    @property
    def effective_size(self) -> float:
        """How many draws of the other density tell as much: ``1 / sum w^2``."""
        return float(1 / self.weights.square().sum())

    @in_full_precision
    def mean(self, values: Tensor) -> Estimate:
        """Return the self-normalised mean of values at the draws, ``(n,)``, with its standard error.

        Raises:
            ValueError: unless there is one value for each draw.
        """
        values = tensor_of("ImportanceWeights.mean", "values", values, torch.float64).to(self.weights)
        if values.shape != self.weights.shape:
            raise ValueError(
                f"ImportanceWeights.mean: takes one value for each of {len(self.weights)} draws, got shape "
                f"{tuple(values.shape)}; call it once for each quantity"
            )
        mean = (self.weights * values).sum()
        error = (self.weights * (values - mean)).square().sum().sqrt()
        return Estimate(float(mean), float(error), len(values))


@in_full_precision
def importance_weights(log_prob: Tensor, log_prob_of_draws: Tensor) -> ImportanceWeights:
    """Return weights that make draws of one density stand for another one.

    For a distilled flow: samples of a few jumps with the log-density of what was drawn, and the log-density of the
    equation at them, or an exact one::

        x, log_q = few.sample(10_000, steps=1, return_log_prob=True)
        weights = importance_weights(few.log_prob(x), log_q)
        weights.mean(x[:, 2])

    Means are then exact in the limit of many draws, for jumps that are one-to-one; where several points jump to one,
    ``log_q`` counts one of them, and the weights are too large there.

    Args:
        log_prob: of the density whose means are to be known, at the draws, nats ``(n,)``.
        log_prob_of_draws: of the density that was drawn from, likewise.

    Raises:
        ValueError: for shapes that differ, a NaN, or weights that are all zero.
    """
    owner, float64 = "importance_weights", torch.float64
    log_p = tensor_of(owner, "log_prob", log_prob, float64)
    log_q = tensor_of(owner, "log_prob_of_draws", log_prob_of_draws, float64).to(log_p.device)
    if log_p.ndim != 1 or log_p.shape != log_q.shape or len(log_p) < 2:
        raise ValueError(
            f"{owner}: takes two log-densities of one shape (n,) with n of at least 2, got {tuple(log_p.shape)} and "
            f"{tuple(log_q.shape)}"
        )
    log_ratio = log_p - log_q
    if bool(log_ratio.isnan().any()) or not bool(log_ratio.max().isfinite()):
        unknown, largest = int(log_ratio.isnan().sum()), float(log_ratio.nan_to_num(nan=-torch.inf).max().exp())
        raise ValueError(
            f"{owner}: the ratio of densities is not known at {unknown} of {len(log_ratio)} draws, and at most "
            f"{largest:g}; leave out draws without a log-density, and look for draws where the other density is zero"
        )
    ratio = log_ratio.exp()
    integral = Estimate(float(ratio.mean()), float(ratio.std() / len(ratio) ** 0.5), len(ratio))
    return ImportanceWeights(torch.softmax(log_ratio, 0), integral)
