"""Parts of points that are held out in turn: equal points share one."""

import torch
from torch import Tensor


def places_of(x: Tensor) -> Tensor:
    """Return the number of the place of each point ``(m, *event_shape)``, equal for equal points, ``(m,)``."""
    # Adding 0 turns -0.0 into 0.0, which is the same place.
    return torch.unique(x.flatten(1) + 0, dim=0, return_inverse=True)[1]


def folds_of(place: Tensor, folds: int = 5) -> Tensor:
    """Return the fold of each point by its place, ``(m,)``: a random part of the places, the same at every call.

    Args:
        place: numbers ``(m,)``, as `places_of` returns them.
        folds: how many there are; fewer where there are fewer places.
    """
    count = int(place.max()) + 1
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).to(place.device)
    return order[place] % min(folds, count)
