"""Start points: where a flow from data to data begins, and which of them belong to which data point."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from manifolds import Manifold
from manifolds.arguments import shown
from rfm.arrays import indices_of
from rfm.couplings import Coupling, Independent
from rfm.objectives import Objective
from rfm.sources import Empirical, Source
from rfm.training.arguments import check_data, hold_out
from rfm.training.weighted_points import Points

_FEW = 20
"""Of fewer start points none are held out: those that remain would be another distribution."""


@dataclass(frozen=True)
class StartPoints:
    """What `rfm.fit` is given as ``start``.

    Args:
        x: ``(m, *event_shape)``, float64.
        weights: of the points ``(m,)``, or None for equal ones.
        pairs: which of them belongs to each data point ``(n,)``; None where they are not paired.
    """

    x: Tensor
    weights: Tensor | None = None
    pairs: Tensor | None = None

    def beside(self, data: Points) -> Points:
        """Return data points with the start points that they are paired with, where they are."""
        return data if self.pairs is None else replace(data, start=self.x[self.pairs])

    def sources(self, manifold: Manifold, validation: Any, count: int, seed: int) -> tuple[Source, Source]:
        """Return the distribution of the start points to train on, and that of the ones held out, where not paired.

        Args:
            manifold: where they live.
            validation: as for `rfm.fit`.
            count: how many data points there are.
            seed: of the split.
        """
        if len(self.x) < _FEW:
            source = Empirical(manifold, self.x, self.weights)
            return source, source
        share = len(validation) / count if np.ndim(validation) else float(validation)
        parts = hold_out(self.x, min(max(share, 1 / len(self.x)), 0.5), seed)
        for name, part in zip(("training", "validation"), parts, strict=True):
            if self.weights is not None and not bool(self.weights[part].sum() > 0):
                raise ValueError(
                    f"fit: the weights of all {name} start points are zero; remove some points of weight zero"
                )
        train, held = (
            Empirical(manifold, self.x[part], None if self.weights is None else self.weights[part]) for part in parts
        )
        return train, held


def check_start(start: Any, manifold: Manifold, pairs: Any, weights: Any, count: int) -> StartPoints | None:
    """Return start points, None for none; raise ValueError if they cannot be used.

    Args:
        start: points ``(m, *event_shape)``, or None.
        manifold: where they live.
        pairs: True for row i of both; an index into ``start`` for each data point ``(n,)``; None or False for neither.
        weights: of the start points.
        count: how many data points there are.
    """
    paired = pairs is not None and pairs is not False
    if start is None:
        if paired or weights is not None:
            name = "pairs" if paired else "start_weights"
            raise ValueError(f"fit: {name} belongs to start points, which are missing; pass start= too")
        return None
    try:
        known = check_data(start, manifold, None, weights)
    except ValueError as error:
        raise ValueError(f"fit: start: {str(error).removeprefix('fit: ')}") from None
    if not paired:
        return StartPoints(known.x, known.weights)
    if weights is not None:
        raise ValueError(
            "fit: pairs have one weight each, that of the data point; pass weights, leave out start_weights"
        )
    return StartPoints(known.x, None, _checked_pairs(pairs, len(known.x), count))


def check_start_use(start: StartPoints | None, source: Any, coupling: Coupling, objective: Objective) -> None:
    """Raise ValueError where start points come with something that contradicts them."""
    if start is None:
        return
    if not objective.pairs:
        raise ValueError(
            f"fit: {type(objective).__name__} looks at points alone, and at a source with a density; leave out start"
        )
    if start.pairs is None and source is not None:
        raise ValueError(
            "fit: start points are the source; leave out source, or pair its draws with the points by pairs"
        )
    if start.pairs is not None and coupling != Independent():
        raise ValueError("fit: pairs say which start point goes with which point; leave out either that or coupling")


def _checked_pairs(pairs: Any, starts: int, count: int) -> Tensor:
    if pairs is True:
        if starts != count:
            raise ValueError(
                f"fit: pairs=True pairs row i of start with row i of points, got {starts} and {count} rows; pass the "
                "row of start for each point as pairs, or leave it out"
            )
        return torch.arange(count)
    if isinstance(pairs, str | bool | int | float):
        raise ValueError(f"fit: pairs must be True or one row of start for each point, got {shown(pairs)}; pass True")
    index = indices_of("fit", "pairs", pairs)
    if len(index) != count or int(index.min()) < 0 or int(index.max()) >= starts:
        raise ValueError(
            f"fit: pairs must hold a row of start, from 0 to {starts - 1}, for each of the {count} points, got "
            f"{len(index)} from {int(index.min())} to {int(index.max())}"
        )
    return index
