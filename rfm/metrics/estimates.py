"""The mean of a log-likelihood with its standard error, and whether one density is better than another."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from manifolds.numerics.precision import in_full_precision
from rfm.arrays import array_of, tensor_of


@dataclass(frozen=True)
class Estimate:
    """A mean over independent observations.

    Args:
        mean: in the unit of the observations; nats, for log-likelihoods.
        standard_error: of the mean, same unit; NaN for a single observation.
        count: number of independent observations: points, or groups of points where they are clustered; those of
            weight zero are not counted.
    """

    mean: float
    standard_error: float
    count: int

    @property
    def interval_95(self) -> tuple[float, float]:
        """The mean plus and minus 1.96 standard errors: for some tens of observations or more."""
        return self.mean - 1.96 * self.standard_error, self.mean + 1.96 * self.standard_error

    @property
    def has_error(self) -> bool:
        """Whether there is a standard error: one observation alone tells nothing of how much the mean varies."""
        return not math.isnan(self.standard_error)

    def error_text(self, digits: int = 3) -> str:
        """Return the standard error for a table, with this many decimals, or "unknown"."""
        return f"{self.standard_error:.{digits}f}" if self.has_error else "unknown"

    def words(self, digits: int = 3) -> str:
        """Return the mean, with its sign, and the interval, with this many decimals."""
        if not self.has_error:
            return f"{self.mean:+.{digits}f} (of a single independent observation: no interval)"
        low, high = self.interval_95
        return f"{self.mean:+.{digits}f} (95 % interval {low:+.{digits}f} to {high:+.{digits}f})"


@in_full_precision
def negative_log_likelihood(log_prob: Tensor, weights: Tensor | None = None, groups: Tensor | None = None) -> Estimate:
    """Return the mean of ``-log_prob`` with its standard error, points taken as independent unless grouped.

    Points at one place are not independent, nor are neighbours that a split held out together: give their places, or
    the labels of their blocks, as ``groups``. The standard error is then clustered, as in `paired_difference`.

    With weights it is the self-normalised mean ``m = sum w_i x_i / sum w_i``, whose standard error is
    ``sqrt(n / (n - 1) * sum (w_i (x_i - m))^2) / sum w_i`` over the n points of positive weight (the delta method).
    Weights are relative, such as inverse sampling probabilities, and no counts of repeats: only their ratios matter.

    Args:
        log_prob: log-densities of the test points in nats, any shape.
        weights: of the points, same shape; equal by default.
        groups: ``(n, ...)``: labels or the points themselves; rows equal bit for bit, but for the sign of zero, are
            one group. By default each point is its own.

    Raises:
        ValueError: ``log_prob`` is empty or holds NaN, weights are not as said, negative, or all zero, or groups have
            not one row for each point.

    References:
        Owen, Monte Carlo theory, methods and examples, 2013, section 9.2: self-normalised importance sampling.
    """
    scores = _scores("log_prob", log_prob)
    shares = _shares("negative_log_likelihood", weights, scores)
    return clustered_mean(-scores.flatten(), groups, shares, "negative_log_likelihood")


@in_full_precision
def paired_difference(
    log_prob_a: Tensor, log_prob_b: Tensor, groups: Tensor | None = None, weights: Tensor | None = None
) -> Estimate:
    """Return the mean of ``log_prob_a - log_prob_b`` over the same points: positive where ``a`` is the better model.

    Points at one place are not independent: given ``groups``, the standard error is the cluster-robust one,
    ``sqrt(G / (G - 1) * sum over groups of (sum in the group of (d_i - mean))^2) / n`` with G groups, and ``count`` is
    G. For several splits, join their test points: a place that comes back in another split stays one group. With
    weights the mean is that of `negative_log_likelihood`, ``w_i (d_i - mean)`` takes the place of ``d_i - mean``, and
    ``sum w_i`` that of ``n``.

    Args:
        log_prob_a: log-densities in nats, ``(n,)``.
        log_prob_b: the other model's at the same points, ``(n,)``.
        groups: ``(n, ...)``: labels or the points themselves; rows equal bit for bit, but for the sign of zero, are
            one group. By default each point is its own.
        weights: of the points, ``(n,)``; equal by default.

    Raises:
        ValueError: shapes differ, a tensor is empty, or one holds NaN; or weights are negative, or all zero.

    References:
        Liang and Zeger, Longitudinal data analysis using generalized linear models, Biometrika 73, 1986, eq. 7.
    """
    a, b = _scores("log_prob_a", log_prob_a), _scores("log_prob_b", log_prob_b)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(
            "paired_difference: log_prob_a and log_prob_b must have one shape (n,), the same points in the same order, "
            f"got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    return clustered_mean(a - b, groups, _shares("paired_difference", weights, a), "paired_difference")


def _scores(name: str, log_prob: Tensor) -> Tensor:
    """Return log-densities detached, in float64 on the CPU."""
    values = tensor_of("estimate", name, log_prob, torch.float64).detach().cpu()
    nan = int(values.isnan().sum())
    if values.numel() == 0 or nan:
        finding = f"{nan} of {values.numel()} NaN" if nan else "none"
        raise ValueError(
            f"{name} must hold log-densities, got {finding}; check the points and the model that scored them"
        )
    return values


def _shares(name: str, weights: Tensor | None, log_prob: Tensor) -> Tensor:
    """Return the points' weights divided by their sum, flat, in float64 on the CPU; equal ones for None."""
    own = torch.ones(log_prob.shape) if weights is None else weights
    w = tensor_of(name, "weights", own, torch.float64).detach().cpu()
    if w.shape != log_prob.shape or not bool((w.isfinite() & (w >= 0)).all()) or not bool((w > 0).any()):
        raise ValueError(
            f"{name}: weights must be one finite number per point, shape {tuple(log_prob.shape)}, none negative and "
            f"not all zero, got shape {tuple(w.shape)} with minimum {float(w.min()) if w.numel() else math.nan}"
        )
    w = w.flatten()
    return w / w.sum()


def clustered_mean(
    values: Tensor, groups: Any = None, shares: Tensor | None = None, owner: str = "clustered_mean"
) -> Estimate:
    """Return the mean of values ``(n,)`` with the standard error of `paired_difference`: the one rule of all means.

    Args:
        values: float64, on the CPU.
        groups: ``(n, ...)``, rows equal bit for bit are one group; by default each value is its own.
        shares: weights of the values, ``(n,)``, sum 1; equal by default.
        owner: whose arguments these are, for messages.
    """
    shares = torch.full_like(values, 1 / len(values)) if shares is None else shares
    labels = None if groups is None else _labels(owner, groups, len(values))
    # A point without weight is no observation, and its score may be infinite.
    counted = shares > 0
    values, shares = values[counted], shares[counted]
    mean = shares @ values
    count, residuals = len(values), shares * (values - mean)
    if labels is not None:
        label = torch.unique(labels[counted], return_inverse=True)[1]
        count = int(label.max()) + 1
        if count < len(values):
            residuals = torch.zeros(count, dtype=torch.float64).index_add_(0, label, residuals)
    if count == 1:
        return Estimate(float(mean), math.nan, 1)
    variance = count / (count - 1) * residuals.square().sum()
    return Estimate(float(mean), float(variance.sqrt()), count)


def _labels(owner: str, groups: Any, count: int) -> Tensor:
    """Return a number for each row, alike for equal rows, ``(n,)``."""
    rows = array_of(owner, "groups", groups)
    if rows.ndim < 1 or len(rows) != count:
        raise ValueError(
            f"{owner}: groups must have one row for each of the {count} points, got shape {rows.shape}; give their "
            "places, or one label each"
        )
    rows = rows.reshape(count, -1)
    # Adding 0 turns -0.0 into 0.0, which is the same place.
    rows = rows + 0 if rows.dtype.kind == "f" else rows
    return torch.from_numpy(np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1))
