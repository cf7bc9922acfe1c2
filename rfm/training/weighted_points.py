"""Data points with the conditions and weights that belong to them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Points:
    """Data points with what belongs to them.

    Args:
        x: ``(n, *event_shape)``.
        condition: ``(n, c)``, or None.
        weights: ``(n,)``, not negative, or None for equal ones.
        start: the start point that each is paired with, ``(n, *event_shape)``; None where they are not paired.
        group: the number of the group of each, ``(n,)``: points of one group are no independent observations. None
            where equal points alone belong together.
    """

    x: Tensor
    condition: Tensor | None = None
    weights: Tensor | None = None
    start: Tensor | None = None
    group: Tensor | None = None

    @property
    def shares(self) -> Tensor:
        """The weights divided by their sum, in float64, ``(n,)``."""
        w = self.x.new_ones(len(self.x)) if self.weights is None else self.weights.to(self.x.device)
        return w.double() / w.double().sum()

    @property
    def positive(self) -> "Points":
        """The points whose weight is not zero."""
        return self if self.weights is None else self.take((self.weights > 0).nonzero()[:, 0])

    def take(self, index: Tensor) -> "Points":
        """Return the points at ``index``."""
        return self._mapped(lambda rows: rows[index])

    def to(self, device: torch.device) -> "Points":
        """Return the points on ``device``."""
        return self._mapped(lambda rows: rows.to(device))

    def _mapped(self, function: Callable[[Tensor], Tensor]) -> "Points":
        parts = (self.condition, self.weights, self.start, self.group)
        return Points(function(self.x), *(None if part is None else function(part) for part in parts))


def joined_points(parts: Sequence[Points]) -> Points:
    """Return points one after the other; all have conditions, weights and so on, or none has."""

    def joined(own: Sequence[Tensor | None]) -> Tensor | None:
        known = [part for part in own if part is not None]
        return torch.cat(known) if known else None

    others = zip(*((part.condition, part.weights, part.start, part.group) for part in parts), strict=True)
    return Points(torch.cat([part.x for part in parts]), *map(joined, others))


def thinned(points: Points, most: int) -> Points:
    """Return at most so many of the points, evenly spaced."""
    if len(points.x) <= most:
        return points
    return points.take(torch.linspace(0, len(points.x) - 1, most).round().long().to(points.x.device))


def merged(points: Points) -> Points:
    """Return points, repeats of the same condition as one point with the sum of their weights, without groups."""
    # Adding 0 turns -0.0 into 0.0, which is the same place; what is not known is the same everywhere.
    parts = [points.x.flatten(1) + 0]
    if points.condition is not None:
        known = ~points.condition.isnan()
        parts += [torch.where(known, points.condition, 0.0).to(points.x), known.to(points.x)]
    rows, place = torch.unique(torch.cat(parts, dim=1), dim=0, return_inverse=True)
    if len(rows) == len(points.x):
        return points
    first = torch.full((len(rows),), len(points.x), device=place.device)
    first = first.scatter_reduce(0, place, torch.arange(len(points.x), device=place.device), "amin")
    weights = points.shares.new_zeros(len(rows)).index_add(0, place, points.shares)
    return Points(points.x[first] + 0, None if points.condition is None else points.condition[first], weights)
