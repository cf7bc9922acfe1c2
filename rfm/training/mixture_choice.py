"""Weights of many components from few validation points, and what they are worth on points that did not choose them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rfm.metrics import Estimate, paired_difference
from rfm.sources import likeliest_weights
from rfm.sources.folds import folds_of, places_of
from rfm.training.weighted_points import Points

_STEPS = (50, 250)
"""Numbers of steps of expectation maximisation that are tried."""
_FEW_POINTS, _FEW_STEPS = 200, 10
"""Of fewer points than this, that number of steps is tried too; of more it is chosen by accident alone."""
_STACKING_STEPS = 300


@dataclass(frozen=True)
class Clusters:
    """Points that decide on weights, by clusters of such as are no independent observations.

    Args:
        shares: weights of the points, ``(m,)``, sum 1.
        number: of the cluster of each point, ``(m,)``: its group where points have groups, else its place.
        grouped: whether clusters are groups.
    """

    shares: Tensor
    number: Tensor
    grouped: bool

    @classmethod
    def of(cls, points: Points) -> "Clusters":
        """Return the clusters of points that are held out."""
        rows = points.x if points.group is None else points.group[:, None]
        return cls(points.shares, places_of(rows), points.group is not None)

    @property
    def fold(self) -> Tensor:
        """The fold of each point, ``(m,)``, one for all of a cluster."""
        return folds_of(self.number)

    @property
    def count(self) -> int:
        """How many points there are or, of groups, how many groups."""
        return int(self.number.max()) + 1 if self.grouped else len(self.number)

    def gain(self, log_p: Tensor, other: Tensor) -> Estimate:
        """Return the mean difference of log-densities ``(m,)``, with its standard error by clusters.

        Of groups it is that of the jackknife, which leaves out one at a time: the usual one is the same for groups of
        one size, and too small where one of them has most of the points.

        References:
            MacKinnon, Nielsen and Webb, Leverage, influence, and the jackknife in clustered regression models: Reliable
            inference using summclust, 2023, equation 14.
        """
        found = paired_difference(log_p, other, self.number, self.shares)
        if not self.grouped or found.count == 1:
            return found
        sums = log_p.new_zeros(2, int(self.number.max()) + 1, dtype=torch.float64)
        share, total = sums.index_add(1, self.number, torch.stack([self.shares, self.shares * (log_p - other)]))
        without = (found.mean - total) / (1 - share)
        variance = (found.count - 1) / found.count * (without - found.mean).square().sum()
        return Estimate(found.mean, float(variance.sqrt()), found.count)

    def gains(self, log_p: Tensor, other: Tensor) -> bool:
        """Return whether points are likelier by more than the standard error of the difference."""
        gain = self.gain(log_p, other)
        return gain.mean > gain.standard_error

    def clearly_gains(self, log_p: Tensor, other: Tensor) -> bool:
        """Return whether points are likelier with a 95 % interval, of Student's distribution, that excludes 0."""
        from scipy.special import stdtrit

        gain = self.gain(log_p, other)
        return gain.mean > float(stdtrit(gain.count - 1, 0.975)) * gain.standard_error


@dataclass(frozen=True)
class Choice:
    """Weights of the components of a mixture.

    Args:
        weights: ``(K,)``, sum 1.
        held_out: log-density of each point under weights that were chosen without its fold, ``(m,)``.
        nll: its negative mean, in nats, with the points' shares.
    """

    weights: Tensor
    held_out: Tensor
    nll: float


def cross_validated(
    log_p: Tensor,
    clusters: Clusters,
    *,
    level: Tensor | None = None,
    steps: Sequence[int] | None = None,
) -> list[Choice]:
    """Return the weights that expectation maximisation reaches after 50 and 250 steps.

    From equal weights each step moves away from the mean of all components towards the few that explain these points
    best. Where points are few, that is noise, and fewer steps hold on new points; where they are many, more. Of fewer
    than 200 points, or groups, 10 steps are among the choices.

    Args:
        log_p: log-densities of the components at the points, ``(m, K)``.
        clusters: the points, of which each fold holds out clusters; one cluster alone is held out from equal weights.
        level: of each component, ``(K,)``; weights sum to one within each, see `rfm.sources.likeliest_weights`.
        steps: other numbers of steps.
    """
    found, shares, fold = [], clusters.shares, clusters.fold
    for count in steps or (_STEPS if clusters.count >= _FEW_POINTS else (_FEW_STEPS, *_STEPS)):
        held_out = log_p.new_empty(len(log_p))
        for i in range(int(fold.max()) + 1):
            rest = fold != i
            # Without any other points weights are equal, which is where no step leads to.
            others = (log_p[rest], shares[rest], count) if bool(rest.any()) else (log_p, shares, 0)
            weights = likeliest_weights(*others, level)
            held_out[~rest] = torch.logsumexp(log_p[~rest] + weights.log(), dim=-1)
        found.append(Choice(likeliest_weights(log_p, shares, count, level), held_out, -float(shares @ held_out)))
    return found


def stacked(choices: Sequence[Choice], clusters: Clusters) -> Choice:
    """Return the choice that is best on points left out of it: one of these, or their mixture.

    The mixture's own weights, as few as there are choices, are those that make the left-out points likeliest. Where
    there are groups, which may be few as well, they are chosen without the fold that they are assessed on.

    Args:
        choices: of the same components, by the same folds.
        clusters: the points.
    """
    held_out, shares = torch.stack([choice.held_out for choice in choices], dim=-1), clusters.shares
    if clusters.grouped:
        [mixture] = cross_validated(held_out, clusters, steps=(_STACKING_STEPS,))
    else:
        share = likeliest_weights(held_out, shares, _STACKING_STEPS)
        mixed = torch.logsumexp(held_out + share.log(), dim=-1)
        mixture = Choice(share, mixed, -float(shares @ mixed))
    weights = torch.stack([choice.weights for choice in choices], dim=-1) @ mixture.weights
    return min([*choices, replace(mixture, weights=weights)], key=lambda choice: choice.nll)


def supported(choice: Choice, kernels: Choice, alone: Tensor, clusters: Clusters) -> Choice:
    """Return a choice of kernels and flow or, where groups do not support it, that of kernels alone.

    Many points of one group may prefer a choice by accident. Where there are groups, it has to be clear of what is
    simpler, of kernels alone and the flow alone the better.

    Args:
        choice: of all components.
        kernels: of the kernels at time 1.
        alone: log-density of the flow at the points, ``(m,)``.
        clusters: the points.
    """
    if not clusters.grouped:
        return choice
    simpler = kernels.held_out if kernels.nll < -float(clusters.shares @ alone) else alone
    return choice if clusters.clearly_gains(choice.held_out, simpler) else kernels
