"""Values that an instrument or a report has rounded: found, and spread evenly over the cells that they stand for.

Equal rows come about in two ways. An event that is recorded again repeats a place exactly, and must not be on both
sides of a split. A direction that is rounded to ten degrees ties with a third of its neighbours, which are independent
of it: where ties are held out together, whole directions are missing from the training points; and where they are left
as they are, a density has no maximum, since it may be a spike at each value.

The two are told apart by the cells beside: rounded values of a smooth density fill neighbouring cells of the grid about
as densely as their own, repeats do not.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manifolds.arguments import seed_of

_FEWEST = 50
"""Rows, below which nothing is concluded."""
_TIED = 0.1
"""The share of rows that repeat others, from which on it matters."""
_MORE = 3.0
"""So many times as many pairs in one cell as in neighbouring ones are repeats."""
_DIGITS = 6


@dataclass(frozen=True)
class Rounding:
    """To what the numbers of a table are rounded.

    Args:
        steps: the size of a cell in each column, in its unit.
        tied: how many rows are equal to another.
        count: of how many.
    """

    steps: tuple[float, ...]
    tied: int
    count: int

    def spread(self, values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
        """Return values ``(n, d)`` moved evenly at random within their cells, the same for the same seed."""
        generator = np.random.default_rng(seed_of("rounding", seed))
        return values + (generator.random(values.shape) - 0.5) * np.asarray(self.steps)

    def describe(self, columns: Sequence[str], unit: str) -> str:
        """Return what was found, in words."""
        sizes = list(dict.fromkeys(f"{step:.6g}" for step in self.steps))
        of = f" {unit}" if unit else ""
        return (
            f"{' and '.join(columns)} {'is' if len(columns) == 1 else 'are'} rounded to {' and '.join(sizes)}{of}: "
            f"{self.tied:,} of {self.count:,} rows share their values"
        )


def find_rounding(values: NDArray[np.float64], periods: Sequence[float | None] | None = None) -> Rounding | None:
    """Return to what values are rounded where that makes many of them equal; None where it does not.

    Args:
        values: numbers, ``(n, d)``.
        periods: after how much those of a column repeat, as angles do; None where they do not.
    """
    if len(values) < _FEWEST:
        return None
    steps = [_step(column) for column in values.T]
    if any(step is None for step in steps):
        return None
    sizes = np.array(steps, dtype=np.float64)
    cells = np.rint((values - values.min(axis=0)) / sizes).astype(np.int64)
    turns = [
        round(period / size) if period and math.isclose(period / size, round(period / size), abs_tol=1e-6) else None
        for period, size in zip(periods or [None] * len(sizes), sizes, strict=True)
    ]
    for axis, turn in enumerate(turns):
        if turn is not None:
            cells[:, axis] %= turn
    places, counts = np.unique(cells, axis=0, return_counts=True)
    tied = int(counts[counts > 1].sum())
    if 1 - len(places) / len(cells) < _TIED:
        return None
    own = float((counts * (counts - 1)).sum())
    if own > _MORE * _neighbouring_pairs(places, counts, turns):
        return None
    return Rounding(tuple(sizes.tolist()), tied, len(values))


def _step(column: NDArray[np.float64]) -> float | None:
    """Return the largest size of cells whose centres are all values, at most six decimals long; None for no grid."""
    distinct = np.unique(column)
    if len(distinct) < 2:
        return None
    for digits in range(_DIGITS + 1):
        scaled = (distinct - distinct[0]) * 10**digits
        if np.abs(scaled).max() < 2**52 and np.allclose(scaled, np.rint(scaled), rtol=0, atol=1e-5):
            return float(np.gcd.reduce(np.rint(scaled).astype(np.int64))) / 10**digits
    return None


def _neighbouring_pairs(places: NDArray[np.int64], counts: NDArray[np.int64], turns: Sequence[int | None]) -> float:
    """Return how many pairs are in cells side by side, for each of the directions to a side, on average."""
    known = {tuple(place): int(count) for place, count in zip(places.tolist(), counts.tolist(), strict=True)}
    total = 0
    for axis, turn in enumerate(turns):
        for place, count in known.items():
            beside = place[axis] + 1
            beside = beside % turn if turn else beside
            total += count * known.get((*place[:axis], beside, *place[axis + 1 :]), 0)
    return total / len(turns)
