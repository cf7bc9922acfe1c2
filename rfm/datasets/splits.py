"""Training, validation and test rows, by the protocol of the published benchmarks, made exact.

``n // 10`` rows validate and as many test. A permutation by ``torch.randperm`` with a generator of its own, seeded, is
cut into three: its first part trains, the next validates, the last tests. The published sets hold exact duplicates.
`raw_split` lets them cross the split, as the literature does, and then a test likelihood is unbounded above: a density
that peaks at the training points gains without limit. `group_split` and `deduplicated_split` do not.

References:
    Mathieu and Nickel, Riemannian Continuous Normalizing Flows, 2020, arXiv 2006.10605: the earth data sets.
    Chen and Lipman, Flow Matching on General Geometries, 2023, arXiv 2302.03660: the shares 80, 10, 10 %.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from manifolds.arguments import integer, number, seed_of
from rfm.arrays import array_of, tensor_of


class Split(NamedTuple):
    """Row numbers of the original rows, from 0: three disjoint int64 tensors, each in the order of the permutation."""

    train: Tensor
    validation: Tensor
    test: Tensor


def raw_split(n: int, seed: int) -> Split:
    """Split ``n`` rows, whether or not some are equal.

    Raises:
        ValueError: there are fewer than 10 rows.
    """
    n = integer("raw_split", "n", n, 0)
    return _cut(_permutation(n, seed, "rows", 10), n - 2 * (n // 10), n - n // 10)


def group_split(points: ArrayLike | Tensor, seed: int, *, validation: float = 0.1, test: float = 0.1) -> Split:
    """Split rows so that equal rows stay together.

    Groups of equal rows, numbered by first appearance, are permuted and laid out one after the other, rows in their
    order inside. The cuts, those of `raw_split` by default, move to the nearest boundary between groups (the earlier
    one of two as near) that leaves a group to each part. So each cut is off by at most half a group, unless a single
    group outweighs a part or a share is below one group, and by nothing where no rows are equal.

    Args:
        points: rows, ``(n, ...)``; equal means equal bit for bit, but for the sign of zero.
        seed: of the permutation.
        validation: share of the rows that validate, above 0.
        test: share of the rows that test; 0 for no test.

    Raises:
        ValueError: there are fewer than 4 different rows, 2 without a test, or shares that leave no training rows.
    """
    validation, test = number("group_split", "validation", validation), number("group_split", "test", test)
    if not (validation > 0 and test >= 0 and validation + test < 1):
        raise ValueError(
            "group_split: validation must be a share above 0 and test one of at least 0, together below 1, got "
            f"{validation} and {test}"
        )
    group = _groups(points)[0]
    sizes = np.bincount(group)
    order = _permutation(len(sizes), seed, "different points", 4 if test > 0 else 2).numpy()
    ends = np.cumsum(sizes[order])
    n = len(group)
    tests, validations = int(n * test), int(n * validation)
    second = _nearest(ends[1:-1], n - tests) + 1 if test > 0 else len(ends) - 1
    first = _nearest(ends[:second], n - tests - validations)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    rows = torch.from_numpy(np.argsort(place[group], kind="stable"))
    return _cut(rows, int(ends[first]), int(ends[second]))


def deduplicated_split(points: ArrayLike | Tensor, seed: int, sort_rows: bool = False) -> Split:
    """Keep the first of equal rows, then split what is left as `raw_split` does.

    Args:
        points: rows, ``(n, ...)``; equal means equal bit for bit, but for the sign of zero.
        seed: of the permutation.
        sort_rows: before the split, put the rows that are left in ascending order (by the first number, then the
            second, and so on, as ``numpy.unique`` does), not in the order in which they come. That makes another
            split, which depends on the coordinates: figures quoted for sorted rows are for unit vectors x, y, z,
            `Dataset.points`.

    Raises:
        ValueError: there are fewer than 10 different rows.
    """
    first_by_appearance, first_sorted = _groups(points)[1:]
    first = torch.from_numpy(first_sorted if sort_rows else first_by_appearance)
    n = len(first)
    return _cut(first[_permutation(n, seed, "different rows", 10)], n - 2 * (n // 10), n - n // 10)


def block_labels(values: NDArray[np.float64] | Tensor, sizes: Sequence[float]) -> Tensor:
    """Return which block of a grid each row lies in, int64 ``(n,)``, numbered along the grid.

    For `rfm.datasets.group_split`: neighbours on a map or in time are no independent observations.

    Args:
        values: places or times, ``(n, d)``.
        sizes: edges of a block in their unit, ``(d,)``, above 0; the grid starts at the smallest values.

    Raises:
        ValueError: a size is not above 0.
    """
    array = tensor_of("block_labels", "values", values, torch.float64).detach().cpu().numpy()
    places = array.reshape(len(array), -1)
    edges = tensor_of("block_labels", "sizes", sizes, torch.float64).numpy()
    if edges.shape != places.shape[1:] or not (np.isfinite(edges) & (edges > 0)).all():
        raise ValueError(f"block_labels: sizes are {places.shape[1]} numbers above 0, got {list(sizes)}")
    # A value on an edge belongs to the block that begins there, whatever the rounding of its difference.
    cells = np.floor((places - places.min(0)) / edges + 1e-9)
    return torch.from_numpy(np.unique(cells, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64))


def group_labels(values: Any) -> Tensor:
    """Return which group each row is in, int64 ``(n,)``, numbered by first appearance: for `group_split`.

    Args:
        values: names or numbers of groups, such as of storms, chains or molecules, ``(n,)``; or rows of several such,
            ``(n, k)``, of which all are to be equal within a group.

    Raises:
        ValueError: there are no rows, or a group is not known.
    """
    rows = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    if rows.ndim not in (1, 2) or len(rows) == 0:
        raise ValueError(f"group_labels: groups have shape (n,) or (n, k), got {rows.shape}; give one for each point")
    rows = rows.reshape(len(rows), -1)
    unknown = int(np.array([cell is None or cell != cell or cell == "" for cell in rows.reshape(-1).tolist()]).sum())
    if unknown:
        raise ValueError(
            f"group_labels: {unknown} of {len(rows)} points have no group; name one for each, and for a point that "
            "stands alone one of its own"
        )
    # Names and numbers sort apart, and only whether they are equal counts.
    rows = rows.astype(str) if rows.dtype.kind == "O" else rows
    columns = [np.unique(column, return_inverse=True)[1].reshape(-1) for column in rows.T]
    return torch.from_numpy(_groups(np.stack(columns, axis=1))[0])


def _permutation(n: int, seed: int, what: str, least: int) -> Tensor:
    if n < least:
        parts = "training and validation" if least == 2 else "training, validation and test"
        raise ValueError(f"a split into {parts} needs at least {least} {what}, got {n}; add rows")
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed_of("split", seed)))


def _groups(points: ArrayLike | Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return each row's group, numbered by first appearance; the groups' first rows; and these in ascending order."""
    rows = array_of("split", "points", points)
    if rows.ndim < 1 or len(rows) == 0:
        raise ValueError(f"points have shape (n, ...) with n at least 1, got {rows.shape}")
    rows = rows.reshape(len(rows), -1)
    rows = rows + 0 if rows.dtype.kind == "f" else rows  # adding 0 turns -0.0 into 0.0
    first_sorted, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)[1:]
    by_appearance = np.argsort(first_sorted)
    rank = np.empty_like(by_appearance)
    rank[by_appearance] = np.arange(len(rank))
    return rank[inverse.reshape(-1)], first_sorted[by_appearance], first_sorted


def _cut(rows: Tensor, first: int, second: int) -> Split:
    return Split(rows[:first], rows[first:second], rows[second:])


def _nearest(values: NDArray[np.int64], target: int) -> int:
    return int(np.argmin(np.abs(values - target)))
