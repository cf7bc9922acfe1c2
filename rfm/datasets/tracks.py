"""Tracks of poses in the formats of TUM RGB-D, KITTI and EuRoC.

The order of a quaternion is read from the header or from a format that is named; it is never guessed. TUM: time in
seconds, position in metres, quaternion with the real part last. KITTI: the first three rows of the pose matrix. EuRoC:
time in nanoseconds, position, quaternion with the real part first.

References:
    Sturm et al., A Benchmark for the Evaluation of RGB-D SLAM Systems, 2012, doi:10.1109/IROS.2012.6385773.
    Geiger et al., Are we ready for Autonomous Driving? The KITTI Vision Benchmark Suite, 2012.
    Burri et al., The EuRoC micro aerial vehicle datasets, 2016, doi:10.1177/0278364915620033.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from rfm.datasets.tables import Table, TableError, read_header, read_table
from rfm.datasets.text_files import read_once


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


TRACK_FORMATS = {
    "tum": TrackFormat(("timestamp", "tx", "ty", "tz", "qx", "qy", "qz", "qw"), "xyzw", 1, " ", "# "),
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

SECONDS = "seconds"
"""The column that `read_track` adds: time since the first pose. A time since 1970 has no digits left in float32."""

FRAME = "frame"
"""What it adds where the format has no time: the number of the row, from 0."""


def recognised_format(path: str | os.PathLike[str]) -> str | None:
    """Return the track format that a file's comment header names, or None.

    Raises:
        TableError: the file cannot be read.
    """
    for line in read_header(path):
        names = _header_names(line)
        for name, known in TRACK_FORMATS.items():
            if known.comment and names[: len(known.columns)] == list(known.columns):
                return name
    return None


def read_track(
    path: str | os.PathLike[str], layout: str | None = None, start: int | float | None = None, minimum_rows: int = 1
) -> tuple[Table, str]:
    """Read a track.

    Args:
        path: the file.
        layout: "tum", "kitti" or "euroc"; recognised by the header, or by 12 columns without one, when None.
        start: the time, in the file's unit, from which seconds count; the first pose's when None, and then times must
            not run back.
        minimum_rows: fewer are an error.

    Returns:
        The table, its columns named as the format names them and ``seconds`` or ``frame`` added, with
        its start; and the format.

    Raises:
        TableError: the format is not clear or contradicts the header, a row is too short, or times run back.
    """
    path = read_once(path)
    raw = read_table(path, minimum_rows)
    found = recognised_format(path)
    if layout is None:
        layout = found or ("kitti" if not raw.has_header and len(raw.names) == 12 else None)
    if layout is None:
        raise TableError(
            f"{raw.file}: the format of the track is not clear, and with it the order of the quaternion\n"
            "add --format tum (time x y z qx qy qz qw), kitti (12 numbers) or euroc (time x y z qw qx qy qz)"
        )
    _check_header(raw, layout, found, read_header(path))
    known = TRACK_FORMATS[layout]
    width = len(known.columns)
    if len(raw.names) < width or (layout != "euroc" and len(raw.names) != width):
        raise TableError(
            f"{raw.file}: a row of the format {layout} has {width} numbers ({' '.join(known.columns)}), here there are "
            f"{len(raw.names)}\nname another --format, or repair the file"
        )
    if known.ticks_per_second is None:
        added, name, start = [str(i) for i in range(len(raw))], FRAME, 0
    else:
        added, start = _seconds(raw, known.ticks_per_second, start)
        name = SECONDS
    # What follows the pose in EuRoC's files (velocities, biases) is not read.
    rows = [[*row[:width], more] for row, more in zip(raw.rows, added, strict=True)]
    return Table(raw.file, (*known.columns, name), True, rows, raw.lines, start), layout


def _header_names(line: str) -> list[str]:
    """Return the column names in a comment line, without units in brackets."""
    return re.sub(r"\[[^\]]*\]", " ", line).replace(",", " ").split()


def _check_header(raw: Table, layout: str, found: str | None, header: Sequence[str]) -> None:
    """Refuse a header that contradicts the format."""
    wanted = TRACK_FORMATS[layout]
    lines = [list(raw.names)] if raw.has_header else [_header_names(line) for line in header]
    for names in lines:
        real = next((i for i, name in enumerate(names) if name.casefold() in ("qw", "q_rs_w", "q_w")), None)
        at = None if wanted.order == "matrix" else 4 if wanted.order == "wxyz" else 7
        if (found not in (None, layout)) or (real is not None and real != at):
            raise TableError(
                f"{raw.file}: the header ({' '.join(names[:8])}) contradicts --format {layout}"
                f" ({' '.join(wanted.columns)})\nname the format that the file is written in"
            )


def _seconds(raw: Table, ticks: int, start: int | float | None) -> tuple[list[str], int | float]:
    """Return seconds since the start as text, exact to the digits of the file; and the start."""
    times = []
    for row, cells in enumerate(raw.rows):
        try:
            times.append(Fraction(cells[0]))
        except (ValueError, ZeroDivisionError):
            raise raw.error(row, f"{cells[0][:40]!r} is no time", "repair or remove that row") from None
    if start is None:
        _check_order(raw, times)
        # Nanoseconds since 1970 are whole numbers, with more digits than a float has.
        start = int(times[0]) if times[0].denominator == 1 else float(times[0])
    origin = Fraction(start) if isinstance(start, int) else Fraction(repr(start))
    return [repr(float((time - origin) / ticks)) for time in times], start


def _check_order(raw: Table, times: Sequence[Fraction]) -> None:
    """Refuse times that run back, or that hardly run at all: a few equal ones are rounding, and are kept."""
    equal = [row for row in range(1, len(times)) if times[row] == times[row - 1]]
    back = [row for row in range(1, len(times)) if times[row] < times[row - 1]]
    if back:
        finding = f"the time {raw.rows[back[0]][0]} is before that of the row above"
        raise raw.error(back[0], finding, "sort the rows by time")
    if len(equal) > max(1, _EQUAL_SHARE * len(times)):
        finding = f"the time {raw.rows[equal[0]][0]} is that of the row above, as in {len(equal)} of {len(raw)} rows"
        raise raw.error(equal[0], finding, "name the right --format, or keep one row for each time")


_EQUAL_SHARE = 0.01
