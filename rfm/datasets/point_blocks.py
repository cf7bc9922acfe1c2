"""Points of a manifold in blocks, of data that are larger than memory: out of tables, arrays, or PyTorch data sets."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from manifolds import Manifold
from rfm.arrays import tensor_of
from rfm.conditions import Conditions
from rfm.datasets.condition_columns import find_conditions, read_conditions
from rfm.datasets.coordinate_choice import choose_coordinates
from rfm.datasets.coordinates import Coordinates
from rfm.datasets.observations import Roles, read_weights
from rfm.datasets.skipped_rows import SkippedRows
from rfm.datasets.table_blocks import CHUNK_ROWS, TableBlocks, joined, open_blocks
from rfm.datasets.tables import NumberColumn, Table, TableError

_SAMPLE_ROWS = 100_000
_GAMMA = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class PointChunk:
    """Some points of a block, with what belongs to them.

    Args:
        x: ``(n, *event_shape)``, float64.
        key: hashes of the values that the points were read from, ``(n,)``, equal for equal points.
        condition: vectors ``(n, c)``, or None.
        weights: ``(n,)``, or None.
        group: hashes of the groups that the points are of, ``(n,)``; None where each point stands alone.
        skipped: how many rows were left out, by their fault.
    """

    x: Tensor
    key: NDArray[np.uint64]
    condition: Tensor | None = None
    weights: Tensor | None = None
    group: NDArray[np.uint64] | None = None
    skipped: Mapping[str, int] = field(default_factory=dict)


class PointBlocks(ABC):
    """Points in blocks of rows, each of which can be read at any time."""

    conditions: Conditions | None = None
    """What the entries of conditions mean, where that is known."""

    @property
    @abstractmethod
    def sizes(self) -> Sequence[int]:
        """How many rows each block has."""

    @abstractmethod
    def chunks(self, block: int, rows: slice = slice(None)) -> Iterator[PointChunk]:
        """Yield the points of a block, or ``slice(start, None, step)`` of them, so many at once as memory allows."""


@dataclass(frozen=True, eq=False)
class TablePoints(PointBlocks):
    """Points out of tables.

    Args:
        blocks: the rows.
        coordinates: the columns that hold the points.
        roles: what other columns are for.
        conditions: what the condition's entries mean; None for no condition.
        skip_bad_rows: leave out rows that cannot be used, which are else an error.
    """

    blocks: TableBlocks
    coordinates: Coordinates
    roles: Roles = field(default_factory=Roles)
    conditions: Conditions | None = None
    skip_bad_rows: bool = False

    @property
    def sizes(self) -> Sequence[int]:
        return self.blocks.sizes

    def chunks(self, block: int, rows: slice = slice(None)) -> Iterator[PointChunk]:
        for table in self.blocks.chunks(block, rows):
            if not self.skip_bad_rows:
                yield self._chunk(table)
            elif (chunk := self._usable(table)) is not None:
                yield chunk

    def _usable(self, table: Table) -> PointChunk | None:
        """Return the points of the rows that can be used; None if there are none."""
        faults: dict[str, int] = {}
        while True:
            try:
                return replace(self._chunk(table), skipped=faults)
            except TableError as error:
                if len(error.rows) in (0, len(table)):
                    if error.rows:
                        return None
                    raise
                faults[error.finding] = len(error.rows)
                table = table.without(error.rows)

    def _chunk(self, table: Table) -> PointChunk:
        group = None
        if self.roles.groups or self.roles.blocks:
            places = [np.floor(table.numbers([c])[:, 0] / size + 1e-9) for c, size in self.roles.blocks.items()]
            group = hashes([*(_named(table, column) for column in self.roles.groups), *places])
        return PointChunk(
            self.coordinates.points(table),
            hashes([table.values(column) for column in self.coordinates.columns]),
            None if self.conditions is None else read_conditions(table, self.conditions),
            read_weights(table, self.roles.weights) if self.roles.weights else None,
            group,
        )


def open_points(
    paths: Sequence[str] | str,
    manifold: Manifold,
    columns: Sequence[str] | None = None,
    *,
    condition: Sequence[str] = (),
    labels: Sequence[str] = (),
    weights: str = "",
    groups: Sequence[str] = (),
    blocks: Mapping[str, float] | None = None,
    radians: bool | None = None,
    layout: str | None = None,
    skip_bad_rows: bool = False,
) -> TablePoints:
    """Return the points in files that need not fit into memory, for `rfm.fit_out_of_core`.

    ::

        points = rfm.datasets.open_points("folder/*.parquet", Sphere(2))
        flow = rfm.fit_out_of_core(points, Sphere(2), out="runs/large")

    Which columns hold what is decided by a sample of the rows, evenly spaced, and the smallest and the largest number
    and all labels of the conditions by a pass over these.

    Args:
        paths: see `rfm.datasets.open_blocks`.
        manifold: where the points live.
        columns: those that hold the points, see `rfm.datasets.choose_coordinates`.
        condition: columns that the density is conditional on, see `rfm.datasets.find_conditions`.
        labels: those of these whose numbers are labels.
        weights: the column of weights.
        groups: columns that name groups of rows which are held out together.
        blocks: sizes, by column of numbers, of blocks of rows which are; they begin at 0.
        radians: as for `rfm.datasets.choose_coordinates`.
        layout: likewise, how rotations are written.
        skip_bad_rows: leave out rows that cannot be used.

    Raises:
        TableError: the tables cannot be used; the message says why.
    """
    roles = Roles(condition, labels, weights, groups, dict(blocks or {}))
    rows = open_blocks(paths)
    table = rows.sample(_SAMPLE_ROWS)

    def choose(own: Table) -> Coordinates:
        return choose_coordinates(manifold, own, columns, radians, layout, roles.reserved(own))

    table, coordinates = SkippedRows().apply(table, choose) if skip_bad_rows else (table, choose(table))
    return points_of_blocks(rows, table, coordinates, roles, skip_bad_rows)


def points_of_blocks(
    rows: TableBlocks, sample: Table, coordinates: Coordinates, roles: Roles, skip_bad_rows: bool = False
) -> TablePoints:
    """Return the points of tables in known coordinates.

    Args:
        rows: the tables.
        sample: some of their rows.
        coordinates: the columns that hold the points.
        roles: what other columns are for.
        skip_bad_rows: leave out rows that cannot be used, which are else an error.
    """
    named = [word if sample.has(word) else word.rpartition(":")[0] for word in roles.condition]
    known = [sample.key(sample.index(name)) for name in [*named, *roles.groups, *roles.blocks, roles.weights] if name]
    conditions = None
    if roles.condition:
        keys = [sample.key(sample.index(name)) for name in named]
        seen = _with_all_labels(rows.with_columns(keys), sample, keys)
        conditions = find_conditions(seen, roles.condition, roles.labels, coordinates.columns)[0]
    return TablePoints(rows.with_columns([*coordinates.columns, *known]), coordinates, roles, conditions, skip_bad_rows)


def _with_all_labels(rows: TableBlocks, sample: Table, keys: Sequence[str]) -> Table:
    """Return a table of some columns of a sample, and of rows that hold their extremes, or texts not seen before."""
    found = [_columns_of(sample, keys)]
    seen = {key: set(sample.texts(key)) for key in keys if not _holds_numbers(sample, key)}
    for block in range(len(rows.sizes)):
        for table in rows.chunks(block):
            own, new = _columns_of(table, keys), set[int]()
            for i, key in enumerate(keys):
                if key in seen:
                    fresh = {text: row for row, text in enumerate(own.columns[i].texts) if text not in seen[key]}
                    seen[key] |= set(fresh)
                    new |= set(fresh.values())
                elif np.isfinite(values := own.columns[i].numbers).any():
                    new |= {int(np.nanargmin(values)), int(np.nanargmax(values))}
            if new:
                found.append(own.without(np.setdiff1d(np.arange(len(own)), sorted(new)).tolist()))
    return joined(found)


def _columns_of(table: Table, keys: Sequence[str]) -> Table:
    columns = [table.columns[table.index(key)] for key in keys]
    return Table(table.file, tuple(keys), True, columns, table.lines, row_word=table.row_word)


def _holds_numbers(table: Table, key: str) -> bool:
    return isinstance(table.columns[table.index(key)], NumberColumn)


class ArrayPoints(PointBlocks):
    """Points that an array holds, such as ``numpy.load(file, mmap_mode="r")``, or a data set of HDF5 or Zarr.

    Args:
        points: ``(n, *event_shape)``; whatever gives an array for a slice of rows.
        condition: vectors ``(n, c)`` or numbers ``(n,)``, likewise.
        weights: ``(n,)``, likewise.
        groups: numbers or names of groups ``(n,)``, likewise.
    """

    def __init__(
        self,
        points: NDArray[Any],
        condition: NDArray[Any] | None = None,
        weights: NDArray[Any] | None = None,
        groups: NDArray[Any] | None = None,
    ) -> None:
        self.points, self.condition, self.weights, self.groups = points, condition, weights, groups
        others = {"condition": condition, "weights": weights, "groups": groups}
        for name, values in others.items():
            if values is not None and len(values) != len(points):
                raise ValueError(f"ArrayPoints: {name} has {len(values)} rows, points {len(points)}; give one for each")

    @property
    def sizes(self) -> Sequence[int]:
        return [min(CHUNK_ROWS, len(self.points) - i) for i in range(0, len(self.points), CHUNK_ROWS)]

    def chunks(self, block: int, rows: slice = slice(None)) -> Iterator[PointChunk]:
        own = slice(block * CHUNK_ROWS, (block + 1) * CHUNK_ROWS)
        x = self._part("points", self.points, own, rows)
        if len(x):
            condition = None if self.condition is None else self._part("condition", self.condition, own, rows)
            yield PointChunk(
                x,
                hashes(list(x.flatten(1).numpy().T)),
                condition if condition is None or condition.ndim > 1 else condition[:, None],
                None if self.weights is None else self._part("weights", self.weights, own, rows),
                None if self.groups is None else hashes([np.asarray(self.groups[own])[rows]]),
            )

    @staticmethod
    def _part(name: str, values: NDArray[Any], own: slice, rows: slice) -> Tensor:
        return tensor_of("ArrayPoints", name, np.array(np.asarray(values[own])[rows]), torch.float64)


class Indexed(Protocol):
    """A data set of PyTorch, ``torch.utils.data.Dataset``: items by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class DatasetPoints(PointBlocks):
    """Points that a PyTorch data set makes, item by item.

    Args:
        dataset: items by number: points ``(*event_shape)``; the same item has to be the same point each time.
        conditional: items are pairs instead, of a point and a condition ``(c,)``.
    """

    def __init__(self, dataset: Indexed, conditional: bool = False) -> None:
        self.dataset, self.conditional = dataset, conditional

    @property
    def sizes(self) -> Sequence[int]:
        return [min(CHUNK_ROWS, len(self.dataset) - i) for i in range(0, len(self.dataset), CHUNK_ROWS)]

    def chunks(self, block: int, rows: slice = slice(None)) -> Iterator[PointChunk]:
        own = range(block * CHUNK_ROWS, min((block + 1) * CHUNK_ROWS, len(self.dataset)))[rows]
        items = [self.dataset[i] for i in own]
        if not items:
            return
        x, condition = zip(*items, strict=True) if self.conditional else (items, None)
        points = tensor_of("DatasetPoints", "points", list(x), torch.float64)
        known = None if condition is None else tensor_of("DatasetPoints", "condition", list(condition), torch.float64)
        yield PointChunk(points, hashes(list(points.flatten(1).numpy().T)), known)


def hashes(columns: Sequence[ArrayLike]) -> NDArray[np.uint64]:
    """Return a hash of each row of columns ``(n,)`` of numbers or texts, ``(n,)``: the same in every run.

    Numbers count by their value in float64, and of 0 the sign does not; splitmix64 mixes them.
    """
    key = np.zeros(len(np.asarray(columns[0])), dtype=np.uint64)
    for values in columns:
        key = mixed(key ^ _bits(np.asarray(values)))
    return key


def mixed(key: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return hashes of numbers, by splitmix64 (Steele et al., Fast splittable pseudorandom generators, 2014)."""
    z = key + _GAMMA
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _bits(values: NDArray[Any]) -> NDArray[np.uint64]:
    if values.dtype.kind in "fiub":
        return (values.astype(np.float64) + 0.0).view(np.uint64)
    texts, places = np.unique(values.astype(str), return_inverse=True)
    own = [int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") for text in texts.tolist()]
    return np.array(own, dtype=np.uint64)[places.reshape(-1)]


def _named(table: Table, column: str) -> NDArray[Any]:
    """Return the cells of a column of groups, refused where one is empty."""
    texts = table.texts(column)
    bad = [row for row, text in enumerate(texts) if not text]
    if bad:
        raise table.error(
            bad[0],
            f"no group is named in {column}",
            "name one in each row, and for a row that stands alone one of its own",
            bad,
        )
    return np.array(texts, dtype=str)
