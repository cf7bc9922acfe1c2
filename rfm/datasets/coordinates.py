"""Between the columns of a table and the points of a manifold, with units.

Coordinates know which columns hold a point, in which units, and how to write points and scores the way the input was
written. `choose_coordinates` finds them from a manifold and a header; ``to_dict`` and `coordinates_from_dict` keep them
in JSON.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import singledispatch
from typing import Any, ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manifolds import FlatTorus, Manifold, Sphere
from rfm.datasets.tables import Table, TableError

EARTH_RADIUS_KM = 6371.0088
"""Mean radius (2 a + b) / 3 of the earth's ellipsoid. Source: Moritz, Geodetic Reference System 1980, J. Geod. 2000."""

SPHERE_TOLERANCE = 1e-3
"""Rows whose norm differs from 1 by no more than this are projected to the sphere: files hold few digits."""

LATITUDE_NAMES = frozenset({"lat", "latitude"})
LONGITUDE_NAMES = frozenset({"lon", "long", "lng", "longitude"})


@dataclass(frozen=True)
class Coordinates(ABC):
    """What every kind of coordinates does. Subclasses hold JSON values only.

    Args:
        columns: where a point stands in the input: names of columns or, for a file without a header, their numbers,
            counted from 1, as text. `names` says what the output calls them.
    """

    kind: ClassVar[str]

    columns: tuple[str, ...]

    def __post_init__(self) -> None:
        columns = self.columns
        texts = isinstance(columns, tuple) and all(isinstance(column, str) for column in columns)
        if not texts or not columns or len(set(columns)) < len(columns):
            raise ValueError(f"{type(self).__name__}: columns is a tuple of different names, got {columns!r}")

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The names of the output's columns, in its order: the input's names, or usual ones if it had none."""

    @abstractmethod
    def points(self, table: Table) -> Tensor:
        """Return the points of a table, float64 ``(n, *event_shape)``.

        Raises:
            TableError: a column is missing, or a row holds no point; the message names it.
        """

    @abstractmethod
    def columns_of(self, points: Tensor) -> NDArray[np.float64]:
        """Return points ``(n, *event_shape)`` in the input's units, ``(n, len(names))`` in the order of `names`."""

    @abstractmethod
    def score_columns(self, log_prob: Tensor) -> dict[str, NDArray[Any]]:
        """Return log-densities ``(n,)``, given in nats with respect to the Riemannian volume, by name with unit."""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values from which `coordinates_from_dict` makes the same object."""
        record = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {"kind": self.kind, **record}

    def _numbers(self, table: Table) -> NDArray[np.float64]:
        """Return the numbers of ``columns``, in that order.

        Where the input had no header, a table with our own names for its columns, as we write it, is found by them.
        """
        numbered = any(column.isdecimal() for column in self.columns)
        ours = numbered and table.has_header and all(table.has(name) for name in self._own)
        return table.numbers(self._own if ours else self.columns)

    @property
    def _own(self) -> tuple[str, ...]:
        """Names in the order of ``columns``."""
        return self.names


@final
@dataclass(frozen=True)
class LatitudeLongitude(Coordinates):
    """Geographic coordinates in degrees for points of ``Sphere(2)``: x to (0, 0), y to (0, 90 east), z to the north.

    Latitudes are in [-90, 90], longitudes in [-180, 360]. Scores are in nats per steradian, and in nats per square
    kilometre on a sphere of the earth's mean radius.

    Args:
        columns: latitude's column, then longitude's.
        positive_longitudes: write longitudes in [0, 360), not in [-180, 180].
        longitude_first: write the longitude before the latitude.
    """

    kind: ClassVar[str] = "latitude_longitude"

    columns: tuple[str, ...] = ("latitude", "longitude")
    positive_longitudes: bool = False
    longitude_first: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.columns) != 2:
            raise ValueError(f"LatitudeLongitude: columns are a latitude and a longitude, got {self.columns}")

    @property
    def names(self) -> tuple[str, ...]:
        return self._own[::-1] if self.longitude_first else self._own

    @property
    def _own(self) -> tuple[str, ...]:
        return _output_names(self.columns, ("latitude", "longitude"))

    def points(self, table: Table) -> Tensor:
        degrees = self._numbers(table)
        self._check(table, degrees[:, 0], degrees[:, 1])
        # Wrapped in degrees, where it is exact, so that one place written in two ways stays one place.
        latitude, longitude = np.radians(_wrapped_degrees(degrees)).T
        # Exactly 0 at the poles: all longitudes are one place there.
        cosine = np.where(np.abs(degrees[:, 0]) == 90, 0.0, np.cos(latitude))
        x = np.stack([cosine * np.cos(longitude), cosine * np.sin(longitude), np.sin(latitude)], axis=1)
        return torch.from_numpy(x / np.linalg.norm(x, axis=1, keepdims=True) + 0.0)

    def columns_of(self, points: Tensor) -> NDArray[np.float64]:
        x, y, z = _as_float64(points).T
        latitude = np.degrees(np.arctan2(z, np.hypot(x, y)))
        longitude = np.degrees(np.arctan2(y, x))
        if self.positive_longitudes:
            longitude = _positive(longitude)
        return np.stack([longitude, latitude] if self.longitude_first else [latitude, longitude], axis=1)

    def score_columns(self, log_prob: Tensor) -> dict[str, NDArray[Any]]:
        score = _as_array(log_prob)
        return {
            "log_prob_nats_per_steradian": score,
            "log_prob_nats_per_km2": score - 2 * math.log(EARTH_RADIUS_KM),
        }

    def _check(self, table: Table, latitude: NDArray[np.float64], longitude: NDArray[np.float64]) -> None:
        beyond = np.abs(latitude) > 90
        if beyond.any():
            swappable = bool((np.abs(longitude) <= 90).all() and (latitude >= -180).all() and (latitude <= 360).all())
            remedy = f"{self._remedy_if_swapped()}; else {_REPAIR}" if swappable else _REPAIR
            raise _out_of_range(table, beyond, "latitude", latitude, "in -90 to 90", remedy)
        beyond = (longitude < -180) | (longitude > 360)
        if beyond.any():
            raise _out_of_range(table, beyond, "longitude", longitude, "in -180 to 360", _REPAIR)

    def _remedy_if_swapped(self) -> str:
        if any(column.casefold() in LATITUDE_NAMES | LONGITUDE_NAMES for column in self.columns):
            return "latitude and longitude look swapped: if so, correct the header"
        return f"latitude and longitude look swapped: if so, use --columns {self.columns[1]} {self.columns[0]}"


@final
@dataclass(frozen=True)
class Cartesian(Coordinates):
    """Ambient coordinates, one column each, for points of shape ``(len(columns),)``.

    Args:
        columns: the columns, in the order of the coordinates.
        unit_norm: the points are on the unit sphere; rows nearer to it than `SPHERE_TOLERANCE` are projected, others
            are errors.
    """

    kind: ClassVar[str] = "cartesian"

    unit_norm: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        n = len(self.columns)
        return _output_names(self.columns, "xyz"[:n] if n <= 3 else [f"x{i + 1}" for i in range(n)])

    def points(self, table: Table) -> Tensor:
        x = self._numbers(table)
        if self.unit_norm:
            with np.errstate(over="ignore"):  # an infinite norm is as far off as a large one
                norm = np.linalg.norm(x, axis=1)
            bad = np.flatnonzero(~(np.abs(norm - 1) <= SPHERE_TOLERANCE))
            if len(bad):
                also = f" ({len(bad)} of {len(table)} rows are like that)" if len(bad) > 1 else ""
                finding = f"this point is not on the unit sphere, its norm is {norm[bad[0]]:.6g}{also}"
                raise table.error(int(bad[0]), finding, "divide each row by its norm, or name other columns")
            x = x / norm[:, None]
        return torch.from_numpy(x + 0.0)

    def columns_of(self, points: Tensor) -> NDArray[np.float64]:
        return _as_float64(points)

    def score_columns(self, log_prob: Tensor) -> dict[str, NDArray[Any]]:
        on_s2 = self.unit_norm and len(self.columns) == 3
        return {"log_prob_nats_per_steradian" if on_s2 else "log_prob_nats": _as_array(log_prob)}


@final
@dataclass(frozen=True)
class Angles(Coordinates):
    """Angles, one column each, for points of ``FlatTorus(len(columns))``; whole turns make no difference.

    Scores are densities with respect to radians, and to degrees where the table is in degrees.

    Args:
        columns: the columns, in the order of the coordinates.
        radians: the table is in radians, not in degrees.
        positive_angles: write angles from 0 to a full turn, not from minus half a turn to half a turn.
    """

    kind: ClassVar[str] = "angles"

    radians: bool = False
    positive_angles: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return _output_names(self.columns, [f"angle_{i + 1}" for i in range(len(self.columns))])

    def points(self, table: Table) -> Tensor:
        angle = self._numbers(table)
        radians = np.fmod(angle, 2 * math.pi) if self.radians else np.radians(_wrapped_degrees(angle))
        return FlatTorus(len(self.columns)).projx(torch.from_numpy(radians)) + 0.0

    def columns_of(self, points: Tensor) -> NDArray[np.float64]:
        angle = _as_float64(points) if self.radians else np.degrees(_as_float64(points))
        return _positive(angle, 2 * math.pi if self.radians else 360.0) if self.positive_angles else angle

    def score_columns(self, log_prob: Tensor) -> dict[str, NDArray[Any]]:
        n = len(self.columns)
        power = "" if n == 1 else str(n)
        score = _as_array(log_prob)
        scores = {f"log_prob_nats_per_radian{power}": score}
        if not self.radians:
            scores[f"log_prob_nats_per_degree{power}"] = score + n * math.log(math.pi / 180)
        return scores


def coordinates_from_dict(record: Mapping[str, Any]) -> Coordinates:
    """Make coordinates from the values that ``to_dict`` returned; whatever the values are, no code of theirs runs.

    Raises:
        ValueError: the record does not describe coordinates.
    """
    kinds: dict[str, type[LatitudeLongitude | Cartesian | Angles]] = {
        cls.kind: cls for cls in (LatitudeLongitude, Cartesian, Angles)
    }
    try:
        values = dict(record)
        cls = kinds[values.pop("kind")]
        columns = values.pop("columns")
        if not isinstance(columns, list | tuple) or not all(isinstance(value, bool) for value in values.values()):
            raise TypeError("columns is a list, everything else true or false")
        return cls(columns=tuple(columns), **values)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"these are not coordinates: {repr(record)[:120]} ({error}); the kinds are {', '.join(kinds)}"
        ) from None


# The choice.


def choose_coordinates(
    manifold: Manifold, table: Table, columns: Sequence[str] | None = None, radians: bool = False
) -> Coordinates:
    """Find the coordinates in which a table holds points of a manifold.

    On ``Sphere(2)``, two columns are latitude and longitude (in either order if they are called so) and three are x,
    y, z. On a torus there is a column for each angle, elsewhere one for each ambient coordinate. Without ``columns``
    they are found by name on the sphere, and elsewhere taken in order if just enough columns hold numbers.

    Args:
        manifold: where the points live.
        table: the table; its longitudes or angles decide the convention of the output.
        columns: names of columns, or numbers counted from 1.
        radians: angles on a torus are in radians, not in degrees.

    Raises:
        TableError: a column is missing, or the choice is not clear; the message lists the columns.
    """
    keys = None if columns is None else tuple(table.key(table.index(column)) for column in columns)
    if keys is not None and len(set(keys)) < len(keys):
        raise TableError(f"{table.file}: a column is named twice by --columns {' '.join(keys)}\nname each column once")
    if table.has_header and any(key.isdecimal() for key in keys or ()):
        raise TableError(
            f"{table.file}: a column that --columns names by number has no name of its own\n"
            f"{table.describe_columns()}\ngive it one in the header, or remove the header"
        )
    return _choose(manifold, table, keys, radians)


@singledispatch
def _choose(manifold: Manifold, table: Table, keys: tuple[str, ...] | None, radians: bool) -> Coordinates:
    return Cartesian(_just_enough(manifold, table, keys))


@_choose.register
def _(manifold: FlatTorus, table: Table, keys: tuple[str, ...] | None, radians: bool) -> Coordinates:
    keys = _just_enough(manifold, table, keys)
    return Angles(keys, radians, _counts_up(table.numbers(keys), math.pi if radians else 180.0))


@_choose.register
def _(manifold: Sphere, table: Table, keys: tuple[str, ...] | None, radians: bool) -> Coordinates:
    if manifold.dim != 2:
        return Cartesian(_just_enough(manifold, table, keys), unit_norm=True)
    keys = keys or _columns_on_s2(table)
    if len(keys) == 3:
        return Cartesian(keys, unit_norm=True)
    if len(keys) != 2:
        raise TableError(
            f"{table.file}: --columns names {len(keys)}, and a point of {manifold} has 2 (latitude and "
            f"longitude) or 3 (x, y, z)\n{table.describe_columns()}"
        )
    latitude, longitude = _by_role(table, keys)
    return LatitudeLongitude(
        (latitude, longitude),
        _counts_up(table.numbers([longitude]), 180.0),
        table.index(longitude) < table.index(latitude),
    )


def _columns_on_s2(table: Table) -> tuple[str, ...]:
    names = [name.casefold() for name in table.names]
    latitudes = [table.key(i) for i, name in enumerate(names) if name in LATITUDE_NAMES]
    longitudes = [table.key(i) for i, name in enumerate(names) if name in LONGITUDE_NAMES]
    axes = [table.key(i) for letter in "xyz" for i, name in enumerate(names) if name == letter]
    # A table that has some of both kinds could mean either.
    if len(latitudes) == len(longitudes) == 1 and not axes:
        return latitudes[0], longitudes[0]
    if all(names.count(letter) == 1 for letter in "xyz") and not latitudes and not longitudes:
        return tuple(axes)
    if latitudes or longitudes or axes:
        finding = "it is not clear which columns hold the points"
    else:
        finding = "no columns are called latitude and longitude, or x, y and z"
    example = "LATITUDE LONGITUDE" if table.has_header else "1 2 for latitude and longitude"
    remedy = f"name them, with --columns {example} or --columns {'X Y Z' if table.has_header else '1 2 3 for x, y, z'}"
    raise TableError(f"{table.file}: {finding}\n{table.describe_columns()}\n{remedy}")


def _by_role(table: Table, keys: Sequence[str]) -> tuple[str, str]:
    """Return latitude and longitude: by what the columns are called, else in the order given."""
    first, second = keys
    if first.casefold() in LONGITUDE_NAMES or second.casefold() in LATITUDE_NAMES:
        first, second = second, first
    if first.casefold() in LONGITUDE_NAMES or second.casefold() in LATITUDE_NAMES:
        raise TableError(
            f"{table.file}: --columns {' '.join(keys)} names the same coordinate twice\n{table.describe_columns()}\n"
            "name a latitude and a longitude"
        )
    return first, second


def _just_enough(manifold: Manifold, table: Table, keys: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return as many columns as a point has coordinates, or raise."""
    if len(manifold.event_shape) != 1:
        raise TableError(
            f"{table.file}: points of {manifold} have shape {tuple(manifold.event_shape)} and do not come from the "
            "columns of a table\npass a tensor to rfm.fit instead"
        )
    needed = manifold.event_shape[0]
    if keys is None:
        found = [table.key(i) for i in range(len(table.names)) if table.holds_numbers(i)]
        what = f"{len(found)} columns hold numbers"
    else:
        found, what = list(keys), f"--columns names {len(keys)}"
    if len(found) != needed:
        raise TableError(
            f"{table.file}: {what}, and a point of {manifold} has {needed}\n{table.describe_columns()}\n"
            f"name {needed} with --columns"
        )
    return tuple(found)


def _counts_up(values: NDArray[np.float64], half_turn: float) -> bool:
    """Return whether angles are counted from 0 to a full turn, not from minus half a turn to half a turn."""
    return bool((values > half_turn).any() and (values >= 0).all())


# Checks and conversions.


_REPAIR = "repair or remove that row"


def _out_of_range(
    table: Table, bad: NDArray[np.bool_], what: str, values: NDArray[np.float64], bounds: str, remedy: str
) -> TableError:
    row = int(np.flatnonzero(bad)[0])
    also = f" ({int(bad.sum())} of {len(table)} rows are like that)" if bad.sum() > 1 else ""
    return table.error(row, f"{what} {values[row]:.6g} is not {bounds} degrees{also}", remedy)


def _output_names(columns: Sequence[str], usual: Sequence[str]) -> tuple[str, ...]:
    """Return the input's names, or the usual ones if a column is known by its number alone."""
    numbered = any(column.isdecimal() for column in columns)
    return tuple(usual) if numbered else tuple(columns)


def _wrapped_degrees(angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return angles in [-180, 180)."""
    angle = np.fmod(angle, 360.0)
    return np.where(angle >= 180, angle - 360, np.where(angle < -180, angle + 360, angle))


def _positive(angle: NDArray[np.float64], turn: float = 360.0) -> NDArray[np.float64]:
    shifted = np.where(angle < 0, angle + turn, angle)
    # A tiny negative angle plus a turn rounds to the turn, which is 0.
    return np.where(shifted >= turn, 0.0, shifted)


def _as_array(values: Tensor) -> NDArray[Any]:
    return np.asarray(values.detach().cpu()) if isinstance(values, Tensor) else np.asarray(values)


def _as_float64(points: Tensor) -> NDArray[np.float64]:
    return _as_array(points).astype(np.float64)
