"""Whether the angles of a table are in radians or degrees: by the columns' names, or by request."""

import re
from collections.abc import Sequence

import numpy as np

from rfm.datasets.tables import Table, TableError

_UNIT = r"°|deg|degs|degree|degrees|rad|rads|radian|radians"
_APART = re.compile(rf"\s*[_.-]?\s*[\[(]\s*({_UNIT})\s*[\])]\s*$|(?:^|[\s_./-]+)({_UNIT})$|(°)$", re.IGNORECASE)
_JOINED = re.compile(r"(?<=[a-z0-9])(Deg|Degs|Degrees?|Rad|Rads|Radians?)$")
_ROUNDING = 1e-4
_MANY = 11
"""Different rows, from which on it is no chance that all are small."""


def bare_name(name: str) -> str:
    """Return what a column is called without the unit of an angle: ``latitude`` for ``latitude [deg]``."""
    return _JOINED.sub("", _APART.sub("", name))


def unit_in_name(name: str) -> str | None:
    """Return "degrees" or "radians" where the name ends so: ``phi1_deg``, ``lon (rad)``, ``phiDeg``, ``theta [°]``."""
    suffix = _APART.search(name) or _JOINED.search(name)
    if suffix is None:
        return None
    unit = next(group for group in suffix.groups() if group)
    return "radians" if unit.casefold().startswith("rad") else "degrees"


def in_radians(table: Table, keys: Sequence[str], radians: bool | None, bounds: Sequence[float]) -> bool:
    """Return whether columns of angles are in radians; degrees, unless their names or ``radians`` state it.

    Args:
        table: the table.
        keys: the columns.
        radians: True for radians, False for degrees, None for neither.
        bounds: how large each angle is at most, in radians.

    Raises:
        TableError: names contradict each other or the request; or no unit is stated, and all of many angles are small
            enough to be radians.
    """
    names = [table.names[table.index(key)] for key in keys]
    units = {unit for name in names if (unit := unit_in_name(name))} if table.has_header else set()
    requested = {None: None, True: "radians", False: "degrees"}[radians]
    if len(units | {requested} - {None}) > 1:
        other = f"--{requested}" if requested and len(units) == 1 else "each other"
        raise TableError(
            f"{table.file}: the columns {' '.join(keys)} say {' and '.join(sorted(units))}, which contradicts {other}; "
            "give all angles in one unit, and say which it is"
        )
    if units or requested:
        return "radians" in units or requested == "radians"
    values = np.abs(table.numbers(keys))
    small = bool((values <= np.asarray(bounds) + _ROUNDING).all()) and bool((values != np.rint(values)).any())
    if small and len(np.unique(values, axis=0)) >= _MANY:
        raise TableError(
            f"{table.file}: the angles in {' '.join(keys)} are all small enough to be radians (at most "
            f"{values.max():.6g}), and nothing says whether they are; "
            f"add --radians or --degrees, or a unit to the columns' names, such as {keys[0]}_deg"
        )
    return False
