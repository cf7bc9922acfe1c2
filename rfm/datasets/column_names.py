"""What the columns of a table hold, by what they are called and by their range: for a choice that is not spelt out.

A name is read as words, whatever the case and the separators, without its unit: ``decimalLatitude``,
``wind_direction``, ``Longitude (deg)``. What is not clear is left out or refused, and never guessed.
"""

import math
import re
from collections.abc import Sequence
from itertools import pairwise

from rfm.datasets.angle_units import bare_name, unit_in_name
from rfm.datasets.tables import Table, TableError

LATITUDE_NAMES = frozenset({"lat", "latitude"})
LONGITUDE_NAMES = frozenset({"lon", "long", "lng", "longitude"})
SKY_NAMES: tuple[tuple[frozenset[str], frozenset[str]], ...] = (
    (
        frozenset({"dec", "de", "decl", "declination", "dej2000", "de_icrs", "dec_icrs", "dec_j2000", "decdeg"}),
        frozenset({"ra", "right_ascension", "rightascension", "raj2000", "ra_icrs", "ra_j2000", "radeg"}),
    ),
    (frozenset({"glat", "gal_lat"}), frozenset({"glon", "gal_lon"})),
    (frozenset({"elat", "ecl_lat", "beta_ecl"}), frozenset({"elon", "ecl_lon", "lambda_ecl"})),
)
"""What astronomers call latitudes and longitudes: equatorial, galactic and ecliptic."""

_COMPASS = {"azimuth", "azim", "bearing", "heading", "course", "cog", "direction", "dir", "wdir", "wd", "longitude"}
_ENDS = ("direction", "azimuth", "bearing", "heading", "longitude", "angle")
_TERRAIN = {"aspect", "strike", "dip", "rake", "trend", "plunge"}
_TURNS = {"angle", "angles", "orientation", "rotation", "yaw", "pitch", "roll", "torsion", "dihedral", "phase"}
_GREEK = {"phi", "psi", "omega", "chi", "theta", "tau", "alpha", "beta", "gamma", "delta", "epsilon", "zeta"}
_ANGLES = _COMPASS | _TERRAIN | _TURNS | _GREEK | set("φϕψωχθτδεζ")
_MEASURES = {"error", "err", "std", "sd", "sigma", "uncertainty", "variance", "var", "quality", "flag", "count", "id"}
_NO_ANGLES = _MEASURES | {"speed", "velocity", "rate"}
"""Words that make of an angle's name another quantity's: ``direction_std``."""
_INDEX = {"id", "ids", "index", "idx", "row", "rows", "no", "nr", "uid", "uuid", "fid", "gid", "oid", "objectid"}
_TIMES = {"time", "timestamp", "datetime", "date", "year", "month", "day", "hour", "minutes", "seconds", "frame", "utc"}
_FEWEST_NUMBERED = 3
"""So many rows, numbered one by one, are no accident."""


def is_latitude(name: str) -> bool:
    """Return whether a column is called like a latitude, or a declination."""
    return _last_word(name) in LATITUDE_NAMES or any(bare_name(name).casefold() in names for names, _ in SKY_NAMES)


def is_longitude(name: str) -> bool:
    """Return whether a column is called like a longitude, or a right ascension."""
    return _last_word(name) in LONGITUDE_NAMES or any(bare_name(name).casefold() in names for _, names in SKY_NAMES)


def number_columns(table: Table, reserved: Sequence[str] = ()) -> list[str]:
    """Return the columns that hold numbers, except those reserved for something else."""
    used = {table.index(column) for column in reserved}
    return [table.key(i) for i in range(len(table.names)) if i not in used and table.holds_numbers(i)]


def coordinate_columns(table: Table, reserved: Sequence[str] = ()) -> list[str]:
    """Return the columns of numbers that may be coordinates: neither row numbers nor times."""
    return [key for key in number_columns(table, reserved) if not _numbers_rows(table, key)]


def angle_columns(table: Table, radians: bool | None, reserved: Sequence[str] = ()) -> list[str]:
    """Return the columns that hold angles: those called like one; where none is, all if their range is a turn's.

    A range is a turn's within -180 to 360 degrees, over at least half a turn; without a header, within it.

    Raises:
        TableError: there is none, or one that may or may not be.
    """
    candidates = coordinate_columns(table, reserved)
    angles = [key for key in candidates if _is_angle(table.names[table.index(key)])]
    if angles:
        return angles
    if candidates and all(_fills_turn(table, key, radians) for key in candidates):
        return candidates
    raise TableError(
        f"{table.file}: which columns hold angles is not clear: none is called like one (direction, phi, ...), and "
        f"not each of numbers has the range of a turn; {table.describe_columns()}; name them, with --columns"
    )


def _is_angle(name: str) -> bool:
    words = words_of(name)
    called = any(word in _ANGLES or word.endswith(_ENDS) for word in words)
    return not _NO_ANGLES & set(words) and (called or unit_in_name(name) is not None)


def _fills_turn(table: Table, key: str, radians: bool | None) -> bool:
    values = table.numbers([key])
    half = math.pi if radians else 180.0
    spread = 0.0 if not table.has_header else half
    return bool(values.min() >= -half and values.max() <= 2 * half and values.max() - values.min() >= spread)


def _numbers_rows(table: Table, key: str) -> bool:
    """Return whether a column is an index or a time, by its name; without a header, the first, by its numbers."""
    index = table.index(key)
    if table.has_header:
        name = table.names[index]
        words = words_of(name)
        return unit_in_name(name) is None and (not words or words[0] == "unnamed" or words[-1] in _INDEX | _TIMES)
    if index > 0 or len(table.names) == 1 or len(table) < _FEWEST_NUMBERED:
        return False
    cells = table.columns[0].texts
    return all(cell.isdecimal() for cell in cells) and all(int(b) == int(a) + 1 for a, b in pairwise(cells))


def _last_word(name: str) -> str:
    words = words_of(name)
    return words[-1] if words else ""


def words_of(name: str) -> list[str]:
    """Return the words of a name, in lower case, without numbers and a unit of angles at the end."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", bare_name(name))
    return re.findall(r"[^\W\d_]+", spaced.casefold())
