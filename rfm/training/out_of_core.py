"""`fit_out_of_core`: train a flow on data that are larger than memory."""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from manifolds import Manifold
from manifolds.arguments import check_instance, integer, number, seed_of
from rfm.couplings import Coupling, Independent
from rfm.datasets.point_blocks import PointBlocks, PointChunk, mixed
from rfm.flow import Flow
from rfm.flow.progress import Report, counting_bar
from rfm.objectives import Objective
from rfm.objectives.objective import Loss
from rfm.sources import Source
from rfm.training.arguments import POINT_TOLERANCE
from rfm.training.fitting import fit
from rfm.training.loop import step_seed
from rfm.training.settings import Training
from rfm.training.weighted_points import Points, joined_points
from rfm.training.windows import HashSplit, LargeTrainingSet

SAMPLE = (50_000, 10_000, 10_000)
"""Rows that stand for those that train, validate and test, at most."""
BUFFER_ROWS, FAN_IN = 2**21, 32
_FAULTS = 100
"""Kinds of rows that are left out, of which the counts are kept apart."""


@dataclass(frozen=True)
class Survey:
    """What a pass over all rows finds.

    Args:
        rows: the training rows, to be read again.
        counts: how many rows train, validate and test.
        sample: some of each, one after the other.
        sides: the side of each of these ``(m,)``: 0 trains, 1 validates, 2 tests.
        skipped: how many rows were left out, by their fault.
    """

    rows: LargeTrainingSet
    counts: tuple[int, int, int]
    sample: Points = field(repr=False)
    sides: Tensor = field(repr=False)
    skipped: dict[str, int] = field(default_factory=dict)


def survey(
    blocks: PointBlocks,
    manifold: Manifold,
    split: HashSplit,
    *,
    sample: tuple[int, int, int] = SAMPLE,
    buffer_rows: int = BUFFER_ROWS,
    fan_in: int = FAN_IN,
    progress: bool = True,
) -> Survey:
    """Pass over all rows once: check them, count the sides of the split, and take a sample of each.

    Args:
        blocks: the rows.
        manifold: where they live.
        split: which rows train, validate and test.
        sample: how many rows stand for those that train, validate and test, at most; any is as likely as another.
        buffer_rows: see `LargeTrainingSet`, as for ``fan_in``.
        fan_in: likewise.
        progress: show a progress bar on stderr.

    Raises:
        ValueError: a point is not on the manifold, a row cannot be read, or no row trains or validates.
    """
    counts, total, masses = np.zeros(3, dtype=np.int64), 0, torch.zeros(len(blocks.sizes)).double()
    kept, skipped = [_Sample(size) for size in sample], Counter[str]()
    with counting_bar(progress, "survey", sum(blocks.sizes), "rows") as advance:
        for block in range(len(blocks.sizes)):
            rows = 0
            for chunk in blocks.chunks(block):
                manifold.check_point(chunk.x, tol=POINT_TOLERANCE)
                sides = split.sides(chunk)
                counts += np.bincount(sides, minlength=3)
                trains = torch.from_numpy(sides == 0)
                weights = trains.double() if chunk.weights is None else trains * chunk.weights
                masses[block] += weights.sum()
                total += int(mixed(chunk.key ^ _content(chunk)).sum(dtype=np.uint64))
                places = np.arange(rows, rows + len(sides), dtype=np.uint64)
                order = mixed(places ^ np.uint64(step_seed(split.seed, block)))
                for side, some in enumerate(kept):
                    some.add(chunk, sides == side, order)
                for finding, count in chunk.skipped.items():
                    skipped[finding if finding in skipped or len(skipped) < _FAULTS else "other faults"] += count
                rows += len(sides)
                advance(len(sides))
    _check_sides(counts, split, float(masses.sum()))
    digest = hashlib.sha256(repr((total % 2**64, counts.tolist())).encode()).hexdigest()
    parts = [side.points() for side in kept]
    rows_on_disk = LargeTrainingSet(blocks, split, masses, int(counts[0]), digest, buffer_rows, fan_in)
    found = tuple(torch.full((len(part.x),), side) for side, part in enumerate(parts) if part is not None)
    points = [part for part in parts if part is not None]
    number_of = (int(counts[0]), int(counts[1]), int(counts[2]))
    return Survey(rows_on_disk, number_of, joined_points(points), torch.cat(found), dict(skipped))


def fit_out_of_core(
    blocks: PointBlocks,
    manifold: Manifold,
    *,
    validation: float = 0.1,
    test: float = 0.0,
    buffer_rows: int = BUFFER_ROWS,
    fan_in: int = FAN_IN,
    source: Source | Callable[[Manifold, Tensor], Source] | None = None,
    field: nn.Module | None = None,
    objective: Objective | Loss | None = None,
    coupling: Coupling = Independent(),
    refine: bool = True,
    steps: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool | Report = True,
    training: Training | None = None,
) -> Flow:
    """Fit a flow to points that need not fit into memory; otherwise as `rfm.fit` does.

    ::

        points = rfm.datasets.open_points("folder/*.parquet", Sphere(2))
        flow = rfm.fit_out_of_core(points, Sphere(2), out="runs/large")

    A first pass checks all rows and takes a sample, by which the source, the scales of the network and the kernels of
    the refinement are chosen, as `rfm.fit` does with all points. Training then reads all rows, in an order that is
    shuffled anew in each epoch, see `rfm.training.windows`. Rows are held out by a hash of their values, or of their
    group: a row is on the same side whatever files it comes in, and so are its equals.

    Args:
        blocks: the points: `rfm.datasets.open_points` of files, `rfm.datasets.ArrayPoints` of an array on a disk,
            `rfm.datasets.DatasetPoints` of a PyTorch data set. Groups, weights and conditions are those of the blocks.
        manifold: where they live.
        validation: share of the points, or groups, that decide when to stop.
        test: share that is left out altogether.
        buffer_rows: rows in memory at a time, beside as many that are read ahead.
        fan_in: blocks that these rows are from, at least, where there are so many. Files that are sorted, by time or
            by place, need many; each is read once for every ``buffer_rows`` rows of them.
        source: as for `rfm.fit`, as for all that follow.
        field: likewise.
        objective: likewise; it may not move points by the distance of their neighbours.
        coupling: likewise.
        refine: likewise.
        steps: likewise.
        batch_size: likewise.
        seed: likewise, and of the split.
        device: likewise.
        out: likewise.
        resume: likewise.
        progress: likewise.
        training: likewise.

    Returns:
        The flow, on the CPU, with ``history``.

    Raises:
        ValueError: for rows or settings that cannot be used.
    """
    check_instance("fit_out_of_core", "blocks", blocks, PointBlocks, 'rfm.datasets.open_points("*.parquet", manifold)')
    split = HashSplit(seed_of("fit_out_of_core", seed), *_shares(validation, test))
    found = survey(
        blocks,
        manifold,
        split,
        buffer_rows=integer("fit_out_of_core", "buffer_rows", buffer_rows),
        fan_in=integer("fit_out_of_core", "fan_in", fan_in),
        progress=progress is True,
    )
    return fit(
        manifold=manifold,
        source=source,
        field=field,
        objective=objective,
        coupling=coupling,
        refine=refine,
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        device=device,
        out=out,
        resume=resume,
        progress=progress,
        training=training,
        **fit_arguments(found, blocks),
    )


def fit_arguments(found: Survey, blocks: PointBlocks) -> dict[str, Any]:
    """Return the arguments of `rfm.fit` that say which points there are."""
    own = found.sample.take((found.sides < 2).nonzero()[:, 0])
    held = (found.sides[found.sides < 2] == 1).nonzero()[:, 0]
    return {
        "points": own.x,
        "condition": own.condition,
        "conditions": blocks.conditions,
        "weights": own.weights,
        "groups": own.group,
        "validation": held,
        "rows": found.rows,
    }


def _shares(validation: float, test: float) -> tuple[float, float]:
    own = (number("fit_out_of_core", "validation", validation), number("fit_out_of_core", "test", test))
    if not (own[0] > 0 and own[1] >= 0 and sum(own) < 1):
        raise ValueError(
            f"fit_out_of_core: validation must be a share above 0 and test one of at least 0, together below 1, got "
            f"{validation} and {test}"
        )
    return own


def _check_sides(counts: NDArray[np.int64], split: HashSplit, mass: float) -> None:
    for side, name in enumerate(("train", "validate")):
        if not counts[side] or (side == 0 and mass <= 0):
            raise ValueError(
                f"of {counts.sum()} rows, {counts[0]} train (of weight {mass:g}), {counts[1]} validate and {counts[2]} "
                f"test, by a hash of their values or groups: there are too few to {name}; hold out another share than "
                f"{split.validation:g} and {split.test:g}, or add rows"
            )


def _content(chunk: PointChunk) -> NDArray[np.uint64]:
    """Return what else than points decides on a row."""
    own = np.zeros(len(chunk.key), dtype=np.uint64)
    parts = [part for part in (chunk.condition, chunk.weights) if part is not None]
    for values in parts:
        for column in values.reshape(len(own), -1).double().numpy().T:
            own = mixed(own ^ np.ascontiguousarray(column).view(np.uint64))
    return own if chunk.group is None else mixed(own ^ chunk.group)


class _Sample:
    """Rows of which any is as likely as another: those with the smallest of random numbers."""

    def __init__(self, size: int) -> None:
        self.size, self.parts, self.limit = size, list[tuple[NDArray[np.uint64], Points]](), np.uint64(2**64 - 1)

    def add(self, chunk: PointChunk, own: NDArray[np.bool_], order: NDArray[np.uint64]) -> None:
        """Add those of some rows that are ``own``, by their random numbers."""
        index = np.flatnonzero(own & (order <= self.limit))
        if not len(index):
            return
        rows = torch.from_numpy(index)
        group = None if chunk.group is None else torch.from_numpy(chunk.group.view(np.int64))
        self.parts.append((order[index], Points(chunk.x, chunk.condition, chunk.weights, group=group).take(rows)))
        if sum(len(part) for part, _ in self.parts) > 2 * self.size:
            self._thin()

    def _thin(self) -> None:
        order = np.concatenate([part for part, _ in self.parts])
        joined = joined_points([points for _, points in self.parts])
        chosen = np.sort(np.argsort(order, kind="stable")[: self.size])
        self.parts = [(order[chosen], joined.take(torch.from_numpy(chosen)))]
        self.limit = order[chosen].max()

    def points(self) -> Points | None:
        """Return the sample, in the order of the rows; None where there are none."""
        if not self.parts:
            return None
        self._thin()
        return self.parts[0][1]
