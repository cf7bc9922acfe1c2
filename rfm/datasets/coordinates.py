"""Between the columns of a table and the points of a manifold, with units.

Coordinates know which columns hold a point, in which units, and how to write points and scores the way the input was
written. `rfm.datasets.choose_coordinates` finds them from a manifold and a header; ``to_dict`` and
`rfm.datasets.coordinates_from_dict` keep them in JSON.
"""

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Self, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manifolds import Ellipsoid, Manifold
from manifolds.level_sets.ellipsoid import WGS84_AXES
from rfm.arrays import array_of
from rfm.datasets.column_names import is_latitude, is_longitude
from rfm.datasets.rounding import Rounding, find_rounding
from rfm.datasets.table_files import CSV, Layout
from rfm.datasets.table_reading import read_table
from rfm.datasets.tables import Table, TableError
from rfm.posterior import Slice

EARTH_RADIUS_KM = 6371.0088
"""Mean radius (2 a + b) / 3 of the earth's ellipsoid. Source: Moritz, Geodetic Reference System 1980, J. Geod. 2000."""

EARTH_AXES = tuple(axis / WGS84_AXES[0] for axis in WGS84_AXES)
"""Semi-axes of the earth's ellipsoid, WGS 84, in units of the first, 6378.137 km."""

_ROUNDED_DEGREES = 0.02
"""How far radians of three or four digits are from a degree."""

SPHERE_TOLERANCE = 1e-3
"""Rows whose norm is as near to 1 are projected to the sphere: files hold few digits."""


@dataclass(frozen=True)
class Coordinates(ABC):
    """What every kind of coordinates does. Subclasses hold JSON values only.

    Args:
        columns: where a point stands in the input: names of columns or, for a file without a header, their numbers,
            counted from 1, as text. `names` are those of the output.
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

    @property
    def unit(self) -> str:
        """The unit of the columns in words; empty where they have none, or several."""
        return ""

    @property
    def periods(self) -> tuple[float | None, ...]:
        """After how much the values of each column of the output repeat, as angles do; None where they do not."""
        return (None,) * len(self.names)

    @property
    def largest(self) -> tuple[float | None, ...]:
        """The largest size of the values of each column of the output; None where there is none, or they repeat."""
        return (None,) * len(self.names)

    def in_columns(self, table: Table, columns: Sequence[str]) -> Self:
        """Return the same coordinates, in other columns of a table; a TableError unless there are as many of them."""
        keys = tuple(table.key(table.index(column)) for column in columns)
        if len(set(keys)) < len(keys) or len(keys) != len(self.columns):
            raise TableError(
                f"{table.file}: --columns names {' '.join(keys)}, where {len(self.columns)} different columns are "
                f"needed in place of {' '.join(self.columns)}; name these in that order"
            )
        return replace(self, columns=keys)

    @property
    def rounds(self) -> bool:
        """Whether each column alone may be rounded, as angles are, and the parts of a unit vector are not."""
        return False

    def within_range(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return values of ``columns`` ``(n, len(columns))`` that were moved a little, back within their range."""
        return values

    @property
    def ambiguous(self) -> tuple[str, ...]:
        """Columns of the output that one point may have several values of, as quaternions have two."""
        return ()

    def slice_of(self, manifold: Manifold, known: NDArray[np.float64]) -> Slice:
        """Return the points some of whose columns are known without error.

        Args:
            manifold: of the points.
            known: a value for each of `names`, NaN where not known, at least one known.

        Raises:
            ValueError: such columns are never known without error, or not these alone.
        """
        raise ValueError(f"{', '.join(self.names)} are not coordinates that can be known without error")

    def describe(self, table: Table | None = None) -> str:
        """Return which columns hold the points, of the input or of another table, and in which unit."""
        keys = self.columns if table is None else self._columns_in(table)
        what = f"column{'s' * (len(keys) > 1)} {', '.join(keys)}"
        return f"{what}, in {self.unit}" if self.unit else what

    def read(self, path: str | os.PathLike[str]) -> Table:
        """Return the table in a file that is written like the input."""
        return read_table(path)

    @abstractmethod
    def points(self, table: Table) -> Tensor:
        """Return the points of a table, float64 ``(n, *event_shape)``.

        Raises:
            TableError: a column is missing, or a row holds no point; the message names it.
        """

    @abstractmethod
    def columns_of(self, points: Tensor) -> NDArray[np.float64]:
        """Return points ``(n, *event_shape)`` in the input's units, ``(n, len(names))`` in the order of `names`."""

    @property
    def file_layout(self) -> Layout:
        """How files of points are written."""
        return CSV

    def leading(self, count: int, conditions: Mapping[str, Sequence[Any]], first: int = 0) -> dict[str, NDArray[Any]]:
        """Return columns that stand before the points in a file of samples, by name; none by default.

        Args:
            count: how many samples there are.
            conditions: the conditions that they were drawn for by name, one for each sample, None where not known.
            first: how many samples stand before them in the file.
        """
        return {}

    @abstractmethod
    def score_columns(self, log_prob: Tensor) -> dict[str, NDArray[Any]]:
        """Return log-densities ``(n,)``, given in nats with respect to the Riemannian volume, by name with unit."""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values from which `coordinates_from_dict` makes the same object."""
        record = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {"kind": self.kind, **record}

    def rounding(self, table: Table) -> Rounding | None:
        """Return to what a table's points are rounded, where many are equal because of it; see `find_rounding`."""
        if not self.rounds:
            return None
        periods = dict(zip(self.names, self.periods, strict=True))
        values, own = self._numbers(table), [periods[name] for name in self._own]
        if self.unit != "radians":
            return find_rounding(values, own)
        # In degrees, before they were converted.
        degrees = np.rint(np.degrees(values))
        if np.abs(np.degrees(values) - degrees).max() > _ROUNDED_DEGREES:
            return find_rounding(values, own)
        found = find_rounding(degrees, [None if period is None else math.degrees(period) for period in own])
        return None if found is None else replace(found, steps=tuple(math.radians(step) for step in found.steps))

    def spread(self, table: Table, rounding: Rounding, seed: int) -> Table:
        """Return a table whose rounded points are spread evenly over their cells, the same for the same seed."""
        values = self.within_range(rounding.spread(self._numbers(table), seed))
        return table.with_numbers(dict(zip(self._columns_in(table), values.T, strict=True)))

    def _numbers(self, table: Table) -> NDArray[np.float64]:
        """Return the numbers of ``columns``, in that order.

        Where the input had no header, a table with our own names for its columns, as we write it, is found by them.
        """
        return table.numbers(self._columns_in(table))

    def _columns_in(self, table: Table) -> tuple[str, ...]:
        numbered = any(column.isdecimal() for column in self.columns)
        ours = numbered and table.has_header and all(table.has(name) for name in self._own)
        return self._own if ours else self.columns

    @property
    def _own(self) -> tuple[str, ...]:
        """Names in the order of ``columns``."""
        return self.names


@final
@dataclass(frozen=True)
class LatitudeLongitude(Coordinates):
    """Geographic coordinates for points of ``Sphere(2)``: x to (0, 0), y to (0, 90 degrees east), z to the north.

    Latitudes are in [-90, 90] degrees, longitudes in [-180, 360]. Scores are in nats per steradian, and in nats per
    square kilometre on a sphere of the earth's mean radius.

    Args:
        columns: latitude's column, then longitude's.
        positive_longitudes: write longitudes in [0, 360), not in [-180, 180].
        longitude_first: write the longitude before the latitude.
        radians: the table is in radians, not in degrees.
        ellipsoid: points are on the earth's ellipsoid, ``Ellipsoid(EARTH_AXES)``, and latitudes geodetic, as on maps.
    """

    kind: ClassVar[str] = "latitude_longitude"

    columns: tuple[str, ...] = ("latitude", "longitude")
    positive_longitudes: bool = False
    longitude_first: bool = False
    radians: bool = False
    ellipsoid: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.columns) != 2:
            raise ValueError(f"LatitudeLongitude: columns are a latitude and a longitude, got {self.columns}")

    @property
    def unit(self) -> str:
        return "radians" if self.radians else "degrees"

    @property
    def names(self) -> tuple[str, ...]:
        return self._own[::-1] if self.longitude_first else self._own

    @property
    def periods(self) -> tuple[float | None, ...]:
        turn = 2 * math.pi if self.radians else 360.0
        return (turn, None) if self.longitude_first else (None, turn)

    @property
    def largest(self) -> tuple[float | None, ...]:
        quarter = math.pi / 2 if self.radians else 90.0
        return (None, quarter) if self.longitude_first else (quarter, None)

    @property
    def _own(self) -> tuple[str, ...]:
        return output_names(self.columns, ("latitude", "longitude"))

    @property
    def rounds(self) -> bool:
        return True

    def within_range(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        half = math.pi if self.radians else 180.0
        latitude, longitude = values.T
        # Beyond a pole is a place at the same distance before it.
        latitude = np.where(np.abs(latitude) > half / 2, np.sign(latitude) * half - latitude, latitude)
        longitude = np.where(longitude > 2 * half, longitude - 2 * half, longitude)
        return np.stack([latitude, np.where(longitude < -half, longitude + 2 * half, longitude)], axis=1)

    def points(self, table: Table) -> Tensor:
        degrees = self._numbers(table)
        if self.radians:
            # A pole or the date line, rounded to the digits of the file, may lie beyond itself.
            degrees = _off_the_edge(np.degrees(degrees))
        self._check(table, degrees[:, 0], degrees[:, 1])
        if self.ellipsoid:
            wrapped = torch.from_numpy(wrapped_degrees(degrees))
            # At a pole all longitudes are one place.
            longitude = torch.where(wrapped[:, 0].abs() == 90, 0.0, wrapped[:, 1])
            return Ellipsoid(EARTH_AXES).from_geodetic(wrapped[:, 0], longitude)
        # Wrapped in degrees, where it is exact, so that one place written in two ways stays one place.
        latitude, longitude = np.radians(wrapped_degrees(degrees)).T
        # Exactly 0 at the poles: all longitudes are one place there.
        cosine = np.where(np.abs(degrees[:, 0]) == 90, 0.0, np.cos(latitude))
        x = np.stack([cosine * np.cos(longitude), cosine * np.sin(longitude), np.sin(latitude)], axis=1)
        return torch.from_numpy(x / np.linalg.norm(x, axis=1, keepdims=True) + 0.0)

    def columns_of(self, points: Tensor) -> NDArray[np.float64]:
        x, y, z = as_float64(points).T
        latitude = np.degrees(np.arctan2(z, np.hypot(x, y)))
        longitude = np.degrees(np.arctan2(y, x))
        if self.ellipsoid:
            latitude, longitude = map(
                as_float64, Ellipsoid(EARTH_AXES).to_geodetic(torch.from_numpy(as_float64(points)))
            )
        if self.positive_longitudes:
            longitude = positive_angles(longitude)
        degrees = np.stack([longitude, latitude] if self.longitude_first else [latitude, longitude], axis=1)
        return np.radians(degrees) if self.radians else degrees

    def score_columns(self, log_prob: Tensor) -> dict[str, NDArray[Any]]:
        score = as_array(log_prob)
        if self.ellipsoid:
            return {"log_prob_nats_per_km2": score - 2 * math.log(WGS84_AXES[0] / 1000)}
        return {
            "log_prob_nats_per_steradian": score,
            "log_prob_nats_per_km2": score - 2 * math.log(EARTH_RADIUS_KM),
        }

    def _check(self, table: Table, latitude: NDArray[np.float64], longitude: NDArray[np.float64]) -> None:
        outside = np.abs(latitude) > 90
        if outside.any():
            swappable = bool((np.abs(longitude) <= 90).all() and (latitude >= -180).all() and (latitude <= 360).all())
            remedy = f"{self._remedy_if_swapped()}; else {_REPAIR}" if swappable else _REPAIR
            raise _out_of_range(table, outside, "latitude", latitude, "in -90 to 90", remedy)
        outside = (longitude < -180) | (longitude > 360)
        if outside.any():
            raise _out_of_range(table, outside, "longitude", longitude, "in -180 to 360", _REPAIR)

    def _remedy_if_swapped(self) -> str:
        if any(is_latitude(column) or is_longitude(column) for column in self.columns):
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
        on_surface: the points are on a surface in space, densities are per unit of its area.
    """

    kind: ClassVar[str] = "cartesian"

    unit_norm: bool = False
    on_surface: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        n = len(self.columns)
        return output_names(self.columns, "xyz"[:n] if n <= 3 else [f"x{i + 1}" for i in range(n)])

    @property
    def rounds(self) -> bool:
        # A column alone is not, where moving it would leave the sphere or the surface.
        return not (self.unit_norm or self.on_surface)

    def points(self, table: Table) -> Tensor:
        x = self._numbers(table)
        if self.unit_norm:
            with np.errstate(over="ignore"):  # an infinite norm is as far off as a large one
                norm = np.linalg.norm(x, axis=1)
            bad = np.flatnonzero(~(np.abs(norm - 1) <= SPHERE_TOLERANCE))
            if len(bad):
                finding = f"this point is not on the unit sphere, its norm is {norm[bad[0]]:.6g}"
                remedy = "divide each row by its norm, or name other columns"
                raise table.error(int(bad[0]), finding, remedy, bad.tolist())
            x = x / norm[:, None]
        return torch.from_numpy(x + 0.0)

    def columns_of(self, points: Tensor) -> NDArray[np.float64]:
        return as_float64(points)

    def slice_of(self, manifold: Manifold, known: NDArray[np.float64]) -> Slice:
        return Slice.of_entries(manifold, known)

    def score_columns(self, log_prob: Tensor) -> dict[str, NDArray[Any]]:
        on_s2 = self.unit_norm and len(self.columns) == 3
        if self.on_surface:
            return {"log_prob_nats_per_area": as_array(log_prob)}
        return {"log_prob_nats_per_steradian" if on_s2 else "log_prob_nats": as_array(log_prob)}


# Checks and conversions.


_REPAIR = "repair or remove that row"


def _out_of_range(
    table: Table, bad: NDArray[np.bool_], what: str, values: NDArray[np.float64], bounds: str, remedy: str
) -> TableError:
    rows = np.flatnonzero(bad).tolist()
    return table.error(rows[0], f"{what} {values[rows[0]]:.6g} is not {bounds} degrees", remedy, rows)


def output_names(columns: Sequence[str], usual: Sequence[str]) -> tuple[str, ...]:
    """Return the input's names, or the usual ones if a column is known by its number alone."""
    numbered = any(column.isdecimal() for column in columns)
    return tuple(usual) if numbered else tuple(columns)


def _off_the_edge(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return latitudes and longitudes ``(n, 2)`` with those that rounding put beyond their range on its edge."""
    inside = np.clip(degrees, (-90.0, -180.0), (90.0, 360.0))
    return np.where(np.abs(degrees - inside) < 0.03, inside, degrees)


def wrapped_degrees(angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return angles in [-180, 180)."""
    angle = np.fmod(angle, 360.0)
    return np.where(angle >= 180, angle - 360, np.where(angle < -180, angle + 360, angle))


def positive_angles(angle: NDArray[np.float64], turn: float = 360.0) -> NDArray[np.float64]:
    """Return angles in [0, turn)."""
    shifted = np.where(angle < 0, angle + turn, angle)
    # A tiny negative angle plus a turn rounds to the turn, which is 0.
    return np.where(shifted >= turn, 0.0, shifted)


def as_array(values: Tensor) -> NDArray[Any]:
    """Return a tensor as an array of its own type."""
    return array_of("coordinates", "values", values)


def as_float64(points: Tensor) -> NDArray[np.float64]:
    """Return a tensor as an array in float64."""
    return as_array(points).astype(np.float64)
