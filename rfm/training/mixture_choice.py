"""Weights of many components from few validation points, and what they are worth on points that did not choose them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rfm.sources import likeliest_weights

_FOLDS = 5
STEPS = (10, 50, 250)
"""Numbers of steps of expectation maximisation that are tried."""


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


def chosen(log_p: Tensor, shares: Tensor, fold: Tensor, steps_tried: tuple[int, ...] = STEPS) -> Choice:
    """Return the weights that expectation maximisation finds, stopped as early as cross-fitting favours.

    From equal weights each step moves away from the mean of all components towards the few that explain these points
    best. Where points are few, that is noise, and fewer steps hold on new points; where they are many, more.

    Args:
        log_p: log-densities of the components at the points, ``(m, K)``.
        shares: weights of the points, ``(m,)``, sum 1.
        fold: the part that each point is in, ``(m,)``, see `folds_of`.
        steps_tried: numbers of steps to choose from.
    """
    best: Choice | None = None
    for steps in steps_tried:
        held_out = log_p.new_empty(len(log_p))
        for i in range(int(fold.max()) + 1):
            rest = fold != i
            weights = likeliest_weights(log_p[rest], shares[rest], steps)
            held_out[~rest] = torch.logsumexp(log_p[~rest] + weights.log(), dim=-1)
        nll = -float(shares @ held_out)
        if best is None or nll < best.nll:
            best = Choice(likeliest_weights(log_p, shares, steps), held_out, nll)
    assert best is not None
    return best


def folds_of(x: Tensor) -> Tensor:
    """Return the fold of each point ``(m, *event_shape)``, equal points together, ``(m,)``; the same at every call."""
    # Adding 0 turns -0.0 into 0.0, which is the same place.
    places, place = torch.unique(x.flatten(1) + 0, dim=0, return_inverse=True)
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(0)).to(x.device)
    return order[place] % min(_FOLDS, len(places))
