"""Training batches of data larger than memory: shuffled windows of rows, which the seed of the run decides.

An epoch permutes the blocks and deals them into sets; a set's rows are dealt into windows that fit into a buffer, each
of rows from all blocks of the set; a window's rows are permuted and cut into batches. So a batch depends on nothing but
the step: a resumed run reads the window that it stopped in, and goes on.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manifolds import Manifold
from rfm.datasets.point_blocks import PointBlocks, PointChunk, mixed
from rfm.training.loop import step_seed
from rfm.training.settings import Budget
from rfm.training.weighted_points import Points, joined_points

_EPOCHS = 2**20
"""Windows that an epoch has fewer of."""


@dataclass(frozen=True)
class HashSplit:
    """Which rows train, validate and test, by a hash of their values: the same in any file, at any place, in any run.

    Args:
        seed: of the hash.
        validation: share of the groups, or of the different points, that validate.
        test: likewise, that test.
    """

    seed: int
    validation: float = 0.1
    test: float = 0.0

    def sides(self, chunk: PointChunk) -> NDArray[np.int64]:
        """Return the side of each point ``(n,)``: 0 trains, 1 validates, 2 tests."""
        key = chunk.key if chunk.group is None else chunk.group
        share = (mixed(key ^ np.uint64(step_seed(self.seed, 0))) >> np.uint64(11)) * 2.0**-53
        sides: NDArray[np.int64] = (share < self.validation + self.test).astype(np.int64) + (share < self.test)
        return sides


@dataclass(frozen=True)
class LargeTrainingSet:
    """Training rows on a disk.

    Args:
        blocks: all rows.
        split: which of them train.
        masses: the number of training rows of each block, or the sum of their weights.
        count: how many training rows there are.
        digest: of all rows, which tells data from others.
        buffer_rows: rows in memory at a time, beside as many that are read ahead.
        fan_in: blocks that a window's rows are from, at least, where there are so many.
    """

    blocks: PointBlocks = field(repr=False)
    split: HashSplit
    masses: Tensor = field(repr=False)
    count: int
    digest: str
    buffer_rows: int
    fan_in: int

    def windows(self, manifold: Manifold, budget: Budget, dtype: torch.dtype, device: torch.device) -> "Windows":
        """Return the batches of a run."""
        return Windows(self, manifold, budget, dtype, device)


class _Window(NamedTuple):
    """The rows of every block in ``blocks`` that begin with one of ``starts`` and come after ``step`` each."""

    blocks: tuple[int, ...]
    starts: tuple[int, ...]
    step: int


class Windows:
    """The batches of a run, by step.

    Args:
        rows: the training rows.
        manifold: where the points live; they are projected to it.
        budget: seed, batch size and steps.
        dtype: of the points and conditions of a batch.
        device: likewise.
    """

    def __init__(
        self, rows: LargeTrainingSet, manifold: Manifold, budget: Budget, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.rows, self.manifold, self.budget, self.dtype, self.device = rows, manifold, budget, dtype, device
        self.batches = max(1, rows.count // budget.batch_size)
        """Of an epoch."""
        self._epoch, self._plan, self._starts = -1, list[_Window](), torch.zeros(1, dtype=torch.int64)
        self._number, self._window, self._data = (-1, -1), _Window((), (), 1), Points(torch.empty(0))
        self._order, self._cumulative = torch.empty(0, dtype=torch.int64), torch.empty(0)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="windows")
        self._ahead: tuple[_Window, Future[Points]] | None = None

    def batch(self, step: int) -> Points:
        """Return the data points of a step, ``batch_size`` of them."""
        epoch, place = divmod(step, self.batches)
        number = self._enter(epoch, place)
        size, count = self.budget.batch_size, len(self._data.x)
        if self._data.weights is not None:
            generator = torch.Generator().manual_seed(step_seed(self.budget.seed + 1, step))
            uniform = torch.rand(size, dtype=torch.float64, generator=generator)
            index = torch.searchsorted(self._cumulative, uniform * self._cumulative[-1]).clamp(max=count - 1)
        else:
            first = (place - int(self._starts[number])) * size
            index = self._order[torch.arange(first, first + size) % count]
        return self._data.take(index.to(self._data.x.device))

    def plan(self, epoch: int) -> list["_Window"]:
        """Return the windows of an epoch, in their order."""
        return self._planned(epoch)[0]

    def _enter(self, epoch: int, place: int) -> int:
        """Have the window of a batch in memory; return its number."""
        if epoch != self._epoch:
            self._epoch, (self._plan, self._starts) = epoch, self._planned(epoch)
        number = int(torch.searchsorted(self._starts, place, right=True)) - 1
        if self._number != (epoch, number):
            self._number = epoch, number
            window = self._plan[number]
            if window != self._window:
                # One that is used no longer makes room first.
                self._data, ahead = Points(torch.empty(0)), self._ahead
                self._ahead = None
                self._data = ahead[1].result() if ahead is not None and ahead[0] == window else self.read(window)
                self._window = window
            self._shuffle(epoch, number)
            self._read_ahead(epoch, number)
        return number

    def _planned(self, epoch: int) -> tuple[list[_Window], Tensor]:
        """Return the windows of an epoch, and the number of the first batch of each."""
        rows, sizes = self.rows, torch.tensor(self.rows.blocks.sizes)
        seed = step_seed(self.budget.seed, epoch * _EPOCHS)
        order = torch.randperm(len(sizes), generator=torch.Generator().manual_seed(seed))
        count = max(1, min(int(sizes.sum()) // rows.buffer_rows, len(sizes) // rows.fan_in))
        plan, masses = list[_Window](), list[float]()
        for members in order.tensor_split(count):
            # In their own order: a window that holds the same rows again need not be read again.
            blocks = members.sort().values
            step = -(-int(sizes[blocks].sum()) // rows.buffer_rows)
            first = mixed(blocks.numpy().astype(np.uint64) + np.uint64(seed)) % np.uint64(step)
            for k in range(step):
                starts = tuple(((first + np.uint64(k)) % np.uint64(step)).tolist())
                plan.append(_Window(tuple(blocks.tolist()), starts, step))
                masses.append(float(rows.masses[blocks].sum()) / step)
        ends = torch.tensor(masses, dtype=torch.float64).cumsum(0)
        shares = torch.cat([ends.new_zeros(1), ends[:-1]]) / ends[-1]
        return plan, (shares * self.batches).floor().long()

    def read(self, window: _Window) -> Points:
        """Return the training rows of a window, on the device."""
        parts = list[Points]()
        for block, start in zip(window.blocks, window.starts, strict=True):
            for chunk in self.rows.blocks.chunks(block, slice(start, None, window.step)):
                own = torch.from_numpy(self.rows.split.sides(chunk) == 0)
                condition = None if chunk.condition is None else chunk.condition[own].to(self.dtype)
                weights = None if chunk.weights is None else chunk.weights[own]
                parts.append(Points(self.manifold.projx(chunk.x[own]).to(self.dtype), condition, weights))
        return joined_points(parts).to(self.device)

    def _shuffle(self, epoch: int, number: int) -> None:
        seed = step_seed(self.budget.seed, epoch * _EPOCHS + number + 1)
        if not len(self._data.x):
            raise ValueError(
                "fit_out_of_core: a window of rows has none that train; give a larger buffer_rows, or fewer groups to "
                "hold out"
            )
        if self._data.weights is None:
            self._order = torch.randperm(len(self._data.x), generator=torch.Generator().manual_seed(seed))
        else:
            self._cumulative = self._data.weights.double().cpu().cumsum(0)

    def _read_ahead(self, epoch: int, number: int) -> None:
        """Begin to read the next window, while this one is trained on, unless the run ends before it."""
        last = number + 1 == len(self._plan)
        first = (epoch + 1) * self.batches if last else epoch * self.batches + int(self._starts[number + 1])
        if first < self.budget.steps:
            window = self.plan(epoch + 1)[0] if last else self._plan[number + 1]
            if window != self._window:
                self._ahead = window, self._reader.submit(self.read, window)
