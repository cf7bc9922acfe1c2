"""Poses in the columns of a table: a position, and a quaternion or the rows of a matrix."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manifolds import Manifold
from rfm.datasets.coordinates import Coordinates, as_array, as_float64
from rfm.datasets.pose_columns import POSITION, check_order, pose_columns, pose_roles
from rfm.datasets.rotation_columns import MATRIX_NAMES, numbers_from, rotation_of, rotations_from
from rfm.datasets.table_files import CSV, Layout
from rfm.datasets.table_reading import read_table
from rfm.datasets.tables import Table, TableError
from rfm.datasets.text_files import read_once
from rfm.datasets.tracks import SECONDS, TRACK_FORMATS, is_kitti, read_commented_table, read_track
from rfm.posterior import Slice

_NAMES: Mapping[str, tuple[str, ...]] = {
    "xyzw": (*POSITION, "qx", "qy", "qz", "qw"),
    "wxyz": (*POSITION, "qw", "qx", "qy", "qz"),
    "matrix": (*POSITION, *MATRIX_NAMES),
}

_OF_MATRIX_ROWS = (3, 7, 11, 0, 1, 2, 4, 5, 6, 8, 9, 10)
"""Where position and rotation stand in the first three rows of a matrix."""


@final
@dataclass(frozen=True)
class Poses(Coordinates):
    """Poses (R, p) that take the coordinates of a body (a camera) to those of the world: R a + p.

    Scores are in nats per cubed radian and cubed unit of length, whatever ``length`` is.

    Args:
        columns: position, then rotation, in the order of the convention.
        convention: how the rotation is written: "xyzw" or "wxyz", a quaternion with the real part last or first, or
            "matrix", nine entries row by row.
        layout: one of `rfm.datasets.tracks.TRACK_FORMATS` to write files as it does; empty for a table with a header.
        length: that of the manifold `manifolds.SE3`, which scores are computed with.
        start: where seconds count from in the input, in its own unit.
    """

    kind: ClassVar[str] = "poses"

    convention: str = "xyzw"
    layout: str = ""
    length: float = 1.0
    start: int | float = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.convention not in _NAMES or len(self.columns) != len(_NAMES[self.convention]):
            raise ValueError(
                f"Poses: convention is xyzw, wxyz or matrix, with 7, 7 or 12 columns, got {self.convention!r} and "
                f"{len(self.columns)} columns"
            )
        if self.layout and self.layout not in TRACK_FORMATS:
            raise ValueError(f"Poses: layout is {', '.join(TRACK_FORMATS)} or empty, got {self.layout!r}")
        if not (0 < self.length < math.inf and math.isfinite(self.start)):
            raise ValueError(f"Poses: length is positive and start finite, got {self.length} and {self.start}")

    @property
    def names(self) -> tuple[str, ...]:
        return TRACK_FORMATS[self.layout].pose_columns if self.layout else self._own

    @property
    def ambiguous(self) -> tuple[str, ...]:
        return () if self.convention == "matrix" else tuple(name for name in self.names if name in self._own[3:])

    @property
    def _own(self) -> tuple[str, ...]:
        numbered = any(column.isdecimal() for column in self.columns)
        return _NAMES[self.convention] if numbered else self.columns

    @property
    def file_layout(self) -> Layout:
        if not self.layout:
            return CSV
        known = TRACK_FORMATS[self.layout]
        return Layout(known.separator, known.comment)

    def read(self, path: str | os.PathLike[str]) -> Table:
        path = read_once(path)
        if not self.layout:
            return read_commented_table(path)
        table = read_table(path)
        # What rfm sample --log-prob wrote has a header of its own.
        ours = table.has_header and all(map(table.has, self.columns))
        return table if ours else read_track(path, self.layout, self.start)[0]

    def points(self, table: Table) -> Tensor:
        numbers = self._numbers(table)
        rotation = rotations_from(numbers[:, 3:], self.convention, table)
        poses = torch.zeros(len(numbers), 4, 4, dtype=torch.float64)
        poses[:, :3, :3], poses[:, :3, 3], poses[:, 3, 3] = rotation, torch.from_numpy(numbers[:, :3]), 1.0
        return poses

    def columns_of(self, points: Tensor) -> NDArray[np.float64]:
        x = torch.from_numpy(as_float64(points))
        numbers = np.concatenate([x[:, :3, 3].numpy(), numbers_from(x[:, :3, :3], self.convention)], axis=1)
        return np.stack([numbers[:, self._own.index(name)] for name in self.names], axis=1)

    def slice_of(self, manifold: Manifold, known: NDArray[np.float64]) -> Slice:
        given = dict(zip(self.names, known.tolist(), strict=True))
        position, rotation = ([given[name] for name in part] for part in (self._own[:3], self._own[3:]))
        rotated, placed = ([not math.isnan(value) for value in part] for part in (rotation, position))
        if not any(rotated):
            return Slice.of_position(position)
        if not all(rotated) or any(placed):
            raise ValueError(
                f"an orientation is known without error by all of {', '.join(self._own[3:])}, and the position is then "
                "not"
            )
        return Slice.of_orientation(rotation_of(rotation, self.convention))

    def leading(self, count: int, conditions: Mapping[str, Sequence[Any]], first: int = 0) -> dict[str, NDArray[Any]]:
        """Return the time, where the format has one: that of the condition, else the number of the sample."""
        if not self.layout or (ticks := TRACK_FORMATS[self.layout].ticks_per_second) is None:
            return {}
        time = TRACK_FORMATS[self.layout].columns[0]
        if SECONDS not in conditions or any(value is None for value in conditions[SECONDS]):
            return {time: np.arange(first, first + count)}
        elapsed = np.asarray(conditions[SECONDS], dtype=np.float64) * ticks
        integer_ticks = isinstance(self.start, int) and ticks > 1
        return {time: self.start + (np.rint(elapsed).astype(np.int64) if integer_ticks else elapsed)}

    def score_columns(self, log_prob: Tensor) -> dict[str, NDArray[Any]]:
        return {"log_prob_nats_per_radian3_unit3": as_array(log_prob) - 3 * math.log(self.length)}


def choose_poses(
    table: Table,
    keys: tuple[str, ...] | None,
    layout: str | None,
    length: float = 1.0,
    start: int | float = 0,
) -> Poses:
    """Return the coordinates in which a table holds poses: by a track's format, by what columns are called, or by both.

    Raises:
        TableError: it is not clear, above all in which order the quaternion is.
    """
    if keys is None and layout in TRACK_FORMATS:
        order = TRACK_FORMATS[layout].order
        own = TRACK_FORMATS[layout].pose_columns
        columns = tuple(own[i] for i in _OF_MATRIX_ROWS) if order == "matrix" else own
        return Poses(columns, order, layout, length, start)
    if keys is None and is_kitti(table):
        # The number of the frame may stand before the matrix.
        names = table.names[len(table.names) % 4 :]
        return Poses(tuple(names[i] for i in _OF_MATRIX_ROWS), "matrix", "kitti", length, start)
    if keys is None:
        for order, names in _NAMES.items():
            if all(map(table.has, names)):
                return Poses(tuple(table.key(table.index(name)) for name in names), order, "", length)
        if (pose := pose_columns(table, _NAMES["xyzw"])) is not None:
            return Poses(pose, "xyzw", "", length)
        raise TableError(
            f"{table.file}: it is not clear which columns hold the pose, and in which order the quaternion is; "
            f"{table.describe_columns()}; "
            "call them tx, ty, tz, qx, qy, qz, qw in a header, or add --format tum, kitti or euroc"
        )
    convention = layout if layout in _NAMES else "matrix" if len(keys) == 12 else _by_name(keys)
    if convention is None or len(keys) != len(_NAMES[convention]):
        raise TableError(
            f"{table.file}: --columns names {len(keys)}, and in which order the rotation is written is not clear; "
            "name three of position, then four of a quaternion with --format xyzw or wxyz (real part last or first)"
        )
    if convention != "matrix":
        requirement = (
            f"--format {convention}" if layout in _NAMES else "what --columns takes, a position and a quaternion"
        )
        check_order(table, keys, _NAMES[convention], requirement)
    return Poses(keys, convention, "", length)


def _by_name(keys: tuple[str, ...]) -> str | None:
    roles = pose_roles(keys[3:])
    return next((order for order, names in _NAMES.items() if roles == list(names[3:]) and order != "matrix"), None)
