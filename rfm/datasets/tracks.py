"""Tracks of poses in the formats of TUM RGB-D, KITTI and EuRoC.

The order of a quaternion is read from the header or from a requested format; it is never guessed, and a header that
contradicts the format is refused, however it calls the columns: `rfm.datasets.pose_columns`. TUM: time in seconds,
position in metres, quaternion with the real part last; ``tum_ns`` and its like for other units of time. KITTI: the
first three rows of the pose matrix, or all four, also on four lines; KITTI-360 has the number of the frame before them.
EuRoC: time in nanoseconds, position, quaternion with the real part first.

References:
    Sturm et al., A Benchmark for the Evaluation of RGB-D SLAM Systems, 2012, doi:10.1109/IROS.2012.6385773.
    Geiger et al., Are we ready for Autonomous Driving? The KITTI Vision Benchmark Suite, 2012.
    Burri et al., The EuRoC micro aerial vehicle datasets, 2016, doi:10.1177/0278364915620033.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from math import isfinite
from statistics import median

import numpy as np

from rfm.datasets.pose_columns import POSITION, QUATERNION, TIME, header_names, pose_roles, time_ticks
from rfm.datasets.skipped_rows import SkippedRows
from rfm.datasets.table_reading import comment_lines, read_table
from rfm.datasets.tables import Table, TableError, parse_number
from rfm.datasets.text_files import read_lines, read_once


@dataclass(frozen=True)
class TrackFormat:
    """How a format writes a pose.

    Args:
        columns: names of its columns, in order; the first is the time, if there is one.
        order: how the rotation is written: xyzw, wxyz or matrix.
        ticks_per_second: unit of the time; None where there is none.
        separator: between numbers.
        comment: what a header starts with; None for no header.
    """

    columns: tuple[str, ...]
    order: str
    ticks_per_second: int | None
    separator: str
    comment: str | None

    @property
    def pose_columns(self) -> tuple[str, ...]:
        """The columns that hold the pose."""
        return self.columns if self.ticks_per_second is None else self.columns[1:]

    @property
    def roles(self) -> list[str | None]:
        """What the columns are, by `rfm.datasets.pose_columns.pose_roles`."""
        return pose_roles(self.columns)


_TUM = TrackFormat(("timestamp", *POSITION, *QUATERNION), "xyzw", 1, " ", "# ")
TRACK_FORMATS = {
    "tum": _TUM,
    **{
        f"tum_{unit}": replace(_TUM, columns=(f"timestamp_{unit}", *_TUM.columns[1:]), ticks_per_second=ticks)
        for unit, ticks in (("ms", 10**3), ("us", 10**6), ("ns", 10**9))
    },
    "kitti": TrackFormat(
        ("r11", "r12", "r13", "tx", "r21", "r22", "r23", "ty", "r31", "r32", "r33", "tz"), "matrix", None, " ", None
    ),
    "euroc": TrackFormat(
        ("timestamp", "p_RS_R_x", "p_RS_R_y", "p_RS_R_z", "q_RS_w", "q_RS_x", "q_RS_y", "q_RS_z"),
        "wxyz",
        10**9,
        ",",
        "#",
    ),
}
_OF_TICKS = {known.ticks_per_second or 1: name for name, known in TRACK_FORMATS.items() if name.startswith("tum")}

SECONDS = "seconds"
"""The column that `read_track` adds: time since the first pose. A time since 1970 has no digits left in float32."""

FRAME = "frame"
"""What it adds where the format has no time: the number of the row, from 0."""


_LONG_STEP, _SHORT_STEP = 4.0, 1e-5
"""Seconds from pose to pose, in the middle, beyond which the unit of the time is in doubt."""
_SINCE_1970 = (9.4e8, 4.2e9)
"""Seconds from 1970 to 1999 and to 2103."""


def recognised_format(path: str | os.PathLike[str]) -> str | None:
    """Return the track format that a file's comment header names, or None.

    Raises:
        TableError: the file cannot be read.
    """
    for names in map(header_names, comment_lines(path)):
        ticks, roles = time_ticks(names), pose_roles(names)
        if roles[: len(_TUM.columns)] == _TUM.roles:
            return _OF_TICKS[ticks or 1]
        if roles[: len(_TUM.columns)] == TRACK_FORMATS["euroc"].roles and _is_euroc(names, ticks):
            return "euroc"
    return None


def _is_euroc(names: Sequence[str], ticks: int | None) -> bool:
    """Return whether a header with EuRoC's columns leaves no doubt about the unit of the time."""
    return ticks == 10**9 or (ticks is None and [re.sub(r"\[.*", "", n) for n in names[1:8]] == _EUROC_NAMES)


_EUROC_NAMES = list(TRACK_FORMATS["euroc"].pose_columns)


def read_commented_table(
    path: str | os.PathLike[str], minimum_rows: int = 1, skipped: SkippedRows | None = None
) -> Table:
    """Read a table whose columns may be named in a comment line: one that names a quaternion.

    Raises:
        TableError: as `rfm.datasets.tables.read_table`; or the quaternion is one that turns the other way.
    """
    path = read_once(path)
    table = _unstacked(read_table(path, minimum_rows, skipped))
    comments = [header_names(line) for line in comment_lines(path)]
    _refuse_jpl(table, [list(table.names)] if table.has_header else comments)
    for names in comments:
        names_quaternion = set(QUATERNION) <= set(pose_roles(names))
        if names_quaternion and len(names) == len(table.names) and not table.has_header:
            return replace(table, names=tuple(names), has_header=True)
    return table


def read_track(
    path: str | os.PathLike[str], layout: str | None = None, start: int | float | None = None, minimum_rows: int = 1
) -> tuple[Table, str]:
    """Read a track.

    Args:
        path: the file.
        layout: one of `TRACK_FORMATS`; recognised by the header, or by 12, 13, 16 or 17 columns without one, when None.
        start: the time, in the file's unit, from which seconds count; the first pose's when None, and then times must
            not run back.
        minimum_rows: fewer are an error.

    Returns:
        The table, its columns named as the format names them and ``seconds`` or ``frame`` added, with
        its start; and the format, with the unit of the time that the header or times since 1970 say.

    Raises:
        TableError: the format is not clear or contradicts the header, a row is too short, times run back, or their unit
            is in doubt.
    """
    path = read_once(path)
    raw = _unstacked(read_table(path, minimum_rows))
    header = [list(raw.names)] if raw.has_header else [header_names(line) for line in comment_lines(path)]
    layout = layout or recognised_format(path) or ("kitti" if is_kitti(raw) else None)
    if layout is None:
        raise TableError(
            f"{raw.file}: the format of the track is not clear, and with it the order of the quaternion; "
            "add --format tum (time x y z qx qy qz qw), kitti (12 numbers) or euroc (time x y z qw qx qy qz)"
        )
    _refuse_jpl(raw, header)
    for names in header:
        _check_header(raw, layout, names)
    if layout == "euroc" and not any(QUATERNION[3] in pose_roles(names) for names in header):
        _check_separator(raw, path)
    known = TRACK_FORMATS[layout]
    if known.order == "matrix":
        return _matrices(raw, known), layout
    width = len(known.columns)
    in_header = any(len(names) == len(raw.names) and pose_roles(names)[:width] == known.roles for names in header)
    if len(raw.names) < width or (len(raw.names) > width and layout != "euroc" and not in_header):
        raise _wrong_width(raw, layout, known)
    if start is None:
        layout = _with_unit(raw, layout, header)
        known = TRACK_FORMATS[layout]
    added, start = _seconds(raw, known.ticks_per_second or 1, start)
    # What follows the pose (velocities, biases, covariances) is not read.
    rows = [[*row[:width], more] for row, more in zip(raw.rows, added, strict=True)]
    return Table.of_rows(raw.file, (*known.columns, SECONDS), True, rows, raw.lines, start), layout


def is_kitti(raw: Table) -> bool:
    """Return whether a table looks like KITTI's: 12 numbers, or KITTI-360's frame before them or a last row after."""
    if raw.has_header or len(raw.names) not in (12, 13, 16, 17):
        return False
    try:
        _kitti_cells(raw)
    except TableError:
        return False
    return True


def _wrong_width(raw: Table, layout: str, known: TrackFormat) -> TableError:
    return TableError(
        f"{raw.file}: a row of the format {layout} has {len(known.columns)} numbers ({' '.join(known.columns)}), here "
        f"there are {len(raw.names)}; name another --format, or repair the file"
    )


# KITTI.


def _unstacked(raw: Table) -> Table:
    """Return a table of 4 x 4 matrices, each on four lines of which the last is 0 0 0 1, with one on a line."""
    if raw.has_header or len(raw.names) != 4 or len(raw) % 4:
        return raw
    values = np.stack([column.numbers for column in raw.columns], axis=1).reshape(-1, 4, 4)
    if not (values[:, 3] == (0, 0, 0, 1)).all():
        return raw
    cells = raw.rows
    rows = [[cell for row in cells[i : i + 4] for cell in row] for i in range(0, len(cells), 4)]
    return Table.of_rows(raw.file, tuple(str(i + 1) for i in range(16)), False, rows, raw.lines[::4])


def _matrices(raw: Table, known: TrackFormat) -> Table:
    if raw.has_header or len(raw.names) not in (12, 13, 16, 17):
        raise _wrong_width(raw, "kitti", known)
    rows = [[*cells, frame] for frame, cells in _kitti_cells(raw)]
    return Table.of_rows(raw.file, (*known.columns, FRAME), True, rows, raw.lines, 0)


def _kitti_cells(raw: Table) -> list[tuple[str, Sequence[str]]]:
    """Return the frame's number and the first three rows of the matrix, for each row of the table."""
    numbered, last = len(raw.names) % 4 == 1, -1
    matrices: list[tuple[str, Sequence[str]]] = []
    for i, row in enumerate(raw.rows):
        frame, cells = (row[0], row[1:]) if numbered else (str(i), row)
        if not re.fullmatch(r"\d+", frame) or int(frame) <= last:
            raise raw.error(i, f"{frame[:40]!r} is no number of a frame, larger than the one above", "repair that row")
        if [parse_number(cell) for cell in cells[12:]] not in ([], [0, 0, 0, 1]):
            raise raw.error(i, "the last row of this matrix is not 0 0 0 1", "repair or remove that row")
        last = int(frame)
        matrices.append((frame, cells[:12]))
    return matrices


# What a header and a separator say.


def _refuse_jpl(raw: Table, header: Sequence[Sequence[str]]) -> None:
    """Refuse quaternions that are named after the frames they map between, as OpenVINS does: q_GtoI."""
    for names in header:
        for name in names:
            if re.match(r"#?q_[A-Za-z0-9]+?(to|To|_to_)[A-Z0-9]", name):
                raise TableError(
                    f"{raw.file}: the header names {name}, by JPL's convention a turn of axes, not of the body; "
                    "call the columns tx ty tz qx qy qz qw once they take the body's coordinates to the world's: JPL's "
                    "q_GtoI does so as it is, real part last"
                )


def _check_header(raw: Table, layout: str, names: Sequence[str]) -> None:
    """Refuse a header that contradicts the format, or that leaves the order of the quaternion open."""
    known, roles = TRACK_FORMATS[layout], pose_roles(names)
    turns = [role for role in roles if role in QUATERNION]
    bare = [name.casefold() for name in names]
    contradiction = TableError(
        f"{raw.file}: the header ({' '.join(names[:8])}) contradicts --format {layout}"
        f" ({' '.join(known.columns)}); name the format that the file is written in"
    )
    if "q" in bare and not turns:
        # Names of groups, not of columns, as OpenVINS writes them.
        if "p" in bare and bare.index("q") < bare.index("p"):
            raise contradiction
        return
    if not turns and not (len(names) == len(raw.names) and roles[0] == TIME):
        return
    if known.order == "matrix":
        if turns:
            raise contradiction
        return
    ticks = time_ticks(names)
    # In TUM's format another unit of time is one of its variants.
    if ticks not in (None, known.ticks_per_second) and layout != "tum":
        raise contradiction
    complete = sorted(turns) == sorted(QUATERNION)
    if len(names) == len(raw.names) or (complete and TIME in roles):
        # The names stand over the columns.
        over = [*known.roles, *([None] * len(names))]
        if any(
            role != expected
            for role, expected in zip(roles, over, strict=False)
            if role in (*POSITION, *QUATERNION, TIME)
        ):
            raise contradiction
        return
    if not complete:
        raise TableError(
            f"{raw.file}: the header ({' '.join(names[:8])}) names a part of the quaternion, and not where it stands; "
            f"name all columns ({' '.join(known.columns)}), or none"
        )
    places = [i for i, role in enumerate(roles) if role in POSITION]
    first = min(i for i, role in enumerate(roles) if role in QUATERNION)
    if turns != [role for role in known.roles if role in QUATERNION] or any(i > first for i in places):
        raise contradiction


def _check_separator(raw: Table, path: str | os.PathLike[str]) -> None:
    """Refuse what ORB-SLAM3 writes for EuRoC's sequences: spaces, and the real part last."""
    if not re.search("[,;\t]", read_lines(path)[raw.lines[0] - 1]):
        raise TableError(
            f"{raw.file}: EuRoC's files have commas and the real part first, this one spaces, as ORB-SLAM3 "
            "writes them, the real part last; add --format tum_ns if it is last, or name the columns in a first line: "
            "#timestamp[ns],p_x,p_y,p_z,q_w,q_x,q_y,q_z"
        )


# Time.


def _with_unit(raw: Table, layout: str, header: Sequence[Sequence[str]]) -> str:
    """Return the format with the unit of the time that the header or times since 1970 imply, or raise."""
    known = TRACK_FORMATS[layout]
    # In a line of prose a word such as sec names no column.
    over = [names for names in header if pose_roles(names)[:1] == [TIME]]
    over = [names for names in over if len(names) == len(raw.names) or set(QUATERNION) <= set(pose_roles(names))]
    units = [ticks for names in over if (ticks := time_ticks(names)) is not None]
    if units:
        return _OF_TICKS[units[0]] if layout == "tum" else layout
    times = [value for cell in raw.columns[0].texts if (value := parse_number(cell)) is not None and isfinite(value)]
    step = median(abs(b - a) for a, b in pairwise(times)) if len(times) > 1 else 0.0
    ticks = known.ticks_per_second or 1
    if step == 0 or _SHORT_STEP <= step / ticks <= _LONG_STEP:
        return layout
    least, most = _SINCE_1970
    fits = [unit for unit in _OF_TICKS if least <= times[0] / unit <= most and step / unit <= _LONG_STEP]
    if layout == "tum" and fits:
        return _OF_TICKS[fits[0]]
    others = "--format tum_ns, tum_us or tum_ms" if known.order == "xyzw" else "by another --format"
    raise TableError(
        f"{raw.file}: times are {step:.3g} apart, which --format {layout} takes for {step / ticks:.3g} seconds; "
        f"name the unit: {others}, or a first line that says it, such as '# {known.columns[0]}[s] "
        f"{' '.join(known.pose_columns)}'"
    )


def _seconds(raw: Table, ticks: int, start: int | float | None) -> tuple[list[str], int | float]:
    """Return seconds since the start as text, exact to the digits of the file; and the start."""
    times = []
    for row, cell in enumerate(raw.columns[0].texts):
        try:
            times.append(Fraction(cell))
        except (ValueError, ZeroDivisionError):
            raise raw.error(row, f"{cell[:40]!r} is no time", "repair or remove that row") from None
    if start is None:
        _check_order(raw, times)
        # Nanoseconds since 1970 are whole numbers, with more digits than a float has.
        start = int(times[0]) if times[0].denominator == 1 else float(times[0])
    origin = Fraction(start) if isinstance(start, int) else Fraction(repr(start))
    return [repr(float((time - origin) / ticks)) for time in times], start


def _check_order(raw: Table, times: Sequence[Fraction]) -> None:
    """Refuse times that run back, or that hardly run at all: a few equal ones are rounding, and are accepted."""
    equal = [row for row in range(1, len(times)) if times[row] == times[row - 1]]
    back = [row for row in range(1, len(times)) if times[row] < times[row - 1]]
    if back:
        finding = f"the time {raw.columns[0].text(back[0])} is before that of the row above"
        raise raw.error(back[0], finding, "sort the rows by time")
    if len(equal) > max(1, _EQUAL_SHARE * len(times)):
        cell = raw.columns[0].text(equal[0])
        finding = f"the time {cell} is that of the row above, as in {len(equal)} of {len(raw)} rows"
        raise raw.error(equal[0], finding, "name the right --format, or keep one row for each time")


_EQUAL_SHARE = 0.01
