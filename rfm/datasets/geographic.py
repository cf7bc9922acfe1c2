"""Places on the earth, by latitude and longitude."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manifolds import Ellipsoid
from manifolds.level_sets.ellipsoid import WGS84_AXES
from rfm.datasets.column_names import is_latitude, is_longitude
from rfm.datasets.coordinates import Coordinates, as_array, as_float64, output_names, positive_angles, wrapped_degrees
from rfm.datasets.tables import Table, TableError

EARTH_RADIUS_KM = 6371.0088
"""Mean radius (2 a + b) / 3 of the earth's ellipsoid. Source: Moritz, Geodetic Reference System 1980, J. Geod. 2000."""

EARTH_AXES = tuple(axis / WGS84_AXES[0] for axis in WGS84_AXES)
"""Semi-axes of the earth's ellipsoid, WGS 84, in units of the first, 6378.137 km."""

_REPAIR = "repair or remove that row"


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


def _out_of_range(
    table: Table, bad: NDArray[np.bool_], what: str, values: NDArray[np.float64], bounds: str, remedy: str
) -> TableError:
    rows = np.flatnonzero(bad).tolist()
    return table.error(rows[0], f"{what} {values[rows[0]]:.6g} is not {bounds} degrees", remedy, rows)


def _off_the_edge(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return latitudes and longitudes ``(n, 2)`` with those that rounding put beyond their range on its edge."""
    inside = np.clip(degrees, (-90.0, -180.0), (90.0, 360.0))
    return np.where(np.abs(degrees - inside) < 0.03, inside, degrees)
