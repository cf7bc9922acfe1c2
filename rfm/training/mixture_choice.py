"""Weights of many components from few validation points, and what they are worth on points that did not choose them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rfm.sources import likeliest_weights

_FOLDS = 5
_STEPS = (50, 250)
"""Numbers of steps of expectation maximisation that are tried."""
_FEW_POINTS, _FEW_STEPS = 200, 10
"""Of fewer points than this, that number of steps is tried too; of more it is chosen by accident alone."""


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


def tried(
    log_p: Tensor,
    shares: Tensor,
    fold: Tensor,
    *,
    level: Tensor | None = None,
    steps: Sequence[int] | None = None,
) -> list[Choice]:
    """Return the weights that expectation maximisation reaches after 50 and 250 steps.

    From equal weights each step moves away from the mean of all components towards the few that explain these points
    best. Where points are few, that is noise, and fewer steps hold on new points; where they are many, more. Of fewer
    than 200 points 10 steps are among the choices.

    Args:
        log_p: log-densities of the components at the points, ``(m, K)``.
        shares: weights of the points, ``(m,)``, sum 1.
        fold: the part that each point is in, ``(m,)``, see `places_of`.
        level: of each component, ``(K,)``; weights sum to one within each, see `rfm.sources.likeliest_weights`.
        steps: other numbers of steps.
    """
    found = []
    for count in steps or (_STEPS if len(log_p) >= _FEW_POINTS else (_FEW_STEPS, *_STEPS)):
        held_out = log_p.new_empty(len(log_p))
        for i in range(int(fold.max()) + 1):
            rest = fold != i
            weights = likeliest_weights(log_p[rest], shares[rest], count, level)
            held_out[~rest] = torch.logsumexp(log_p[~rest] + weights.log(), dim=-1)
        found.append(Choice(likeliest_weights(log_p, shares, count, level), held_out, -float(shares @ held_out)))
    return found


def chosen(choices: Sequence[Choice], shares: Tensor) -> Choice:
    """Return the choice that is best on points left out of it: one of these, or their mixture.

    The mixture's own weights, as few as there are choices, are those that make the left-out points likeliest.

    Args:
        choices: of the same components, by the same folds.
        shares: weights of the points, ``(m,)``, sum 1.
    """
    held_out = torch.stack([choice.held_out for choice in choices], dim=-1)
    share = likeliest_weights(held_out, shares)
    mixed = torch.logsumexp(held_out + share.log(), dim=-1)
    weights = torch.stack([choice.weights for choice in choices], dim=-1) @ share
    return min([*choices, Choice(weights, mixed, -float(shares @ mixed))], key=lambda choice: choice.nll)


def places_of(x: Tensor) -> Tensor:
    """Return the number of the place of each point ``(m, *event_shape)``, equal for equal points, ``(m,)``."""
    # Adding 0 turns -0.0 into 0.0, which is the same place.
    return torch.unique(x.flatten(1) + 0, dim=0, return_inverse=True)[1]


def folds_of(place: Tensor) -> Tensor:
    """Return the fold of each point by its place, ``(m,)``; the same at every call."""
    count = int(place.max()) + 1
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).to(place.device)
    return order[place] % min(_FOLDS, count)
