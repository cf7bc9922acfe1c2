"""What the columns of poses are called: by ROS, TUM, EuRoC, OpenVINS, ORB-SLAM3 and people.

A name is cut into words: ``field.pose.orientation.w``, ``q_RS_w []``, ``orientation_w`` and ``qw`` are the real part of
a quaternion, ``p_RS_R_x [m]``, ``pose.position.x`` and ``tx`` the first coordinate of a position. Names that number the
parts of a quaternion (q0, q1, ...) do not say which is real, and are none of these.
"""

import re
from collections.abc import Sequence

from rfm.datasets.tables import Table, TableError

QUATERNION = ("qx", "qy", "qz", "qw")
POSITION = ("tx", "ty", "tz")
TIME = "time"

_UNIT = re.compile(r"\[([^\]]*)\]|\(([^)]*)\)")
_TURNS = r"q|quat|quaternion|ori|orient|orientation|rot|rotation|att|attitude"
_PLACES = r"p|pos|pose|position|t|trans|translation|loc|location"
_OF_QUATERNION = {"w": "qw", "x": "qx", "y": "qy", "z": "qz", "r": "qw", "i": "qx", "j": "qy", "k": "qz", "real": "qw"}
_NO_POSE = re.compile(r"v|vel|velocity|rate|speed|twist|linear|angular|acc|accel|acceleration|cov|covariance|std|var")
_TIMES = frozenset(("time", "timestamp", "timestamps", "stamp", "t", "sec", "secs", "seconds"))
_TICKS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1),
    **dict.fromkeys(("ms", "msec", "millisec", "millisecond", "milliseconds"), 10**3),
    **dict.fromkeys(("us", "µs", "usec", "microsec", "microsecond", "microseconds"), 10**6),
    **dict.fromkeys(("ns", "nsec", "nanosec", "nanosecond", "nanoseconds"), 10**9),
}


def pose_roles(names: Sequence[str]) -> list[str | None]:
    """Return what each column is: tx to tz, qx to qw, time (the first one only), or None for another."""
    roles: list[str | None] = []
    for name in names:
        role = _role(name)
        roles.append(None if role == TIME and TIME in roles else role)
    return roles


def pose_columns(table: Table, required: Sequence[str]) -> tuple[str, ...] | None:
    """Return the columns with these roles, in this order; None unless each is there exactly once."""
    roles = pose_roles(table.names) if table.has_header else []
    if any(roles.count(role) != 1 for role in required):
        return None
    return tuple(table.key(roles.index(role)) for role in required)


def check_order(table: Table, keys: Sequence[str], expected: Sequence[str], requirement: str) -> None:
    """Refuse columns whose names imply another order than the one in which they are to be read.

    Args:
        table: for the message.
        keys: the columns.
        expected: the role that each is to have.
        requirement: the option that requires this order, for the message.

    Raises:
        TableError: a name contradicts the order.
    """
    letters = [
        role[-1] if role and role != TIME else key.casefold() for key, role in zip(keys, pose_roles(keys), strict=True)
    ]
    if any(letter in "wxyz" and letter != role[-1] for letter, role in zip(letters, expected, strict=True)):
        raise TableError(
            f"{table.file}: the columns {' '.join(keys)} contradict {requirement} ({' '.join(expected)}); "
            "name them in that order, or the other format"
        )


def header_names(line: str) -> list[str]:
    """Return the column names in a comment line, units left on them; q_xyzw stands for four."""
    joined = _UNIT.sub(lambda unit: re.sub(r"\s+", "", unit[0]), line.replace('"', ""))
    joined = re.sub(r"\s+(?=[\[(])", "", joined)
    names = re.split(r"[\s,;]+", joined.strip().strip(",;"))
    return [part for name in names if _bare(name) for part in _expanded(name)]


def time_ticks(names: Sequence[str]) -> int | None:
    """Return how many units of the time column are a second, where its name states it."""
    for name, role in zip(names, pose_roles(names), strict=True):
        if role == TIME:
            units = [unit for groups in _UNIT.findall(name) for unit in groups if unit]
            return next((_TICKS[unit] for unit in [*units, *_words(name)] if unit.casefold() in _TICKS), None)
    return None


def _expanded(name: str) -> list[str]:
    stem, _, letters = _bare(name).rpartition("_")
    return [f"{stem}_{letter}" for letter in letters] if stem and letters in ("xyz", "xyzw", "wxyz") else [name]


def _bare(name: str) -> str:
    return _UNIT.sub("", name).strip().lstrip("#%").strip()


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^0-9a-zµ]+", _bare(name).casefold()) if word]


def _role(name: str) -> str | None:
    words = _words(name)
    if not words or any(map(_NO_POSE.fullmatch, words)):
        return None
    *before, last = words
    fused = re.fullmatch(rf"({_TURNS}|{_PLACES})([wxyzrijk])", last)
    if fused:
        before, last = [*before, fused[1]], fused[2]
    # q_WB_w, qWB_w: the frames stand between.
    turns = any(re.fullmatch(_TURNS, word) for word in before) or (before and re.fullmatch(r"q[a-z]{1,4}", before[-1]))
    if turns:
        short = last in "wxyz" or before[-1].startswith("q")
        return _OF_QUATERNION.get(last) if short else None
    if last in ("x", "y", "z") and (not before or any(re.fullmatch(_PLACES, word) for word in before)):
        return f"t{last}"
    return TIME if _TIMES.intersection(words) else None
