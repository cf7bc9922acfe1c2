"""What a map shows: the sphere about a meridian, or a region; chosen from the points where nothing is said."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfm.plotting.panels import Array

_NARROW = 120.0, 90.0
"""Degrees of longitude and of latitude: points within so few are shown as a region."""
_MARGIN = 0.08
_NEAR_SEAM, _CROWDED = 20.0, 0.03
"""Degrees from the map's edge, and the share of points within them from which another edge is sought."""
_TICK_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 20, 30)


@dataclass(frozen=True)
class View:
    """A rectangle of longitudes and latitudes in degrees; of all of them, a map of the sphere about its middle.

    Args:
        west: the left edge.
        east: the right edge; not above ``west``, it lies beyond the meridian of 180 degrees.
        south: the lower edge.
        north: the upper edge.

    Raises:
        ValueError: a latitude is not in -90 to 90, a longitude not in -360 to 360, or nothing lies between the edges.
    """

    west: float = -180.0
    east: float = 180.0
    south: float = -90.0
    north: float = 90.0

    def __post_init__(self) -> None:
        edges = (self.west, self.east, self.south, self.north)
        if not all(map(math.isfinite, edges)) or max(map(abs, edges)) > 540 or not -90 <= self.south < self.north <= 90:
            raise ValueError(
                f"View: edges are in degrees, with -90 <= south < north <= 90, got south={self.south:g}, "
                f"north={self.north:g}, west={self.west:g}, east={self.east:g}; correct them"
            )
        if self.east <= self.west:
            object.__setattr__(self, "east", self.east + 360.0 * math.floor((self.west - self.east) / 360 + 1))
        if self.width > 360:
            raise ValueError(
                f"View: from west to east are at most 360 degrees, got {self.width:g}; leave out both for the sphere"
            )

    @classmethod
    def about(cls, longitude: float) -> "View":
        """Return the view of the whole sphere with a meridian, in degrees, in the middle."""
        return cls(longitude - 180.0, longitude + 180.0)

    @property
    def width(self) -> float:
        """From west to east, in degrees."""
        return self.east - self.west

    @property
    def centre(self) -> float:
        """The longitude in the middle, in degrees."""
        return (self.west + self.east) / 2

    @property
    def is_full(self) -> bool:
        """Whether the view is of the whole sphere."""
        return self.width == 360 and self.south == -90 and self.north == 90

    @property
    def aspect(self) -> float:
        """The height of a region over its width, true to angles along its middle parallel where areas are equal."""
        standard = max(math.cos(math.radians((self.south + self.north) / 2)), 0.2)
        height = math.sin(math.radians(self.north)) - math.sin(math.radians(self.south))
        return height / (math.radians(self.width) * standard**2)

    def holds(self, points: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which of the points ``(n, 3)`` of the sphere are in view."""
        longitude, latitude = (np.degrees(angle) for angle in places(points))
        from_west = (longitude - self.west) % 360
        return (from_west <= self.width) & (latitude >= self.south) & (latitude <= self.north)

    def page(self, longitude: NDArray[Any], latitude: NDArray[Any]) -> tuple[Array, Array]:
        """Return where places in radians lie on the axes of the map: in radians from the middle, or in degrees."""
        turned = np.asarray(longitude) - math.radians(self.centre)
        relative = np.where(np.abs(turned) <= math.pi, turned, (turned + math.pi) % (2 * math.pi) - math.pi)
        if self.is_full:
            return relative, np.asarray(latitude, float)
        return np.degrees(relative) + self.centre, np.degrees(latitude)

    def split(self, line: Array) -> list[Array]:
        """Return a line ``(n, 2)`` of longitudes and latitudes in degrees on the axes, cut where it leaves the map."""
        x, y = self.page(np.radians(line[:, 0]), np.radians(line[:, 1]))
        turn = 2 * math.pi if self.is_full else 360.0
        jumps = np.flatnonzero(np.abs(np.diff(x)) > turn / 2) + 1
        return [part for part in np.split(np.stack([x, y], axis=1), jumps) if len(part) > 1]

    @property
    def longitude_ticks(self) -> Array:
        """Round longitudes in the view, in degrees from ``west`` on."""
        return self._ticks(self.west, self.east, 6.5 if self.is_full else 4.5)

    @property
    def latitude_ticks(self) -> Array:
        """Round latitudes in the view, in degrees."""
        return self._ticks(self.south, self.north, 6.5)

    def _ticks(self, low: float, high: float, most: float) -> Array:
        step = next((s for s in _TICK_STEPS if (high - low) / s <= most), 60)
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        return np.arange(first, last + 1, dtype=np.float64) * step


WORLD = View()


def places(points: NDArray[Any]) -> tuple[Array, Array]:
    """Return longitudes and latitudes in radians of points ``(n, 3)``."""
    x, y, z = np.asarray(points, float).T
    return np.arctan2(y, x), np.arctan2(z, np.hypot(x, y))


def longitude_label(degrees: float) -> str:
    """Return a longitude in degrees as a label."""
    wrapped = (round(degrees, 6) + 180) % 360 - 180
    return f"{abs(wrapped):g}°" + ("" if abs(wrapped) in (0, 180) else " E" if wrapped > 0 else " W")


def latitude_label(degrees: float) -> str:
    """Return a latitude in degrees as a label."""
    return f"{abs(round(degrees, 6)):g}°" + (" N" if degrees > 0 else " S" if degrees < 0 else "")


def chosen_view(points: NDArray[Any]) -> View:
    """Return the view that suits points ``(n, 3)`` of the sphere: their region, or the sphere, cut where few lie.

    Points within 120 degrees of longitude and 90 of latitude are a region. Else the map's edge stays at 180 degrees,
    unless three times as many points lie near it as near the best meridian: it is then put there.
    """
    if not len(points):
        return WORLD
    longitude, latitude = (np.degrees(angle) for angle in places(points))
    ordered = np.sort(longitude)
    gaps = np.diff(ordered, append=ordered[0] + 360)
    widest = int(np.argmax(gaps))
    width, height = 360 - float(gaps[widest]), float(np.ptp(latitude))
    if width <= _NARROW[0] and height <= _NARROW[1] and np.abs(latitude).max() < 85:
        west = float(ordered[(widest + 1) % len(ordered)])
        # At least a degree, for a single place.
        margin = max(_MARGIN * max(width, height), 0.5)
        south, north = max(float(latitude.min()) - margin, -90.0), min(float(latitude.max()) + margin, 90.0)
        return View(west - margin, west + width + margin, south, north)
    meridians = np.arange(-180.0, 180.0, 10.0)
    apart = np.abs((longitude[:, None] - meridians + 180) % 360 - 180)
    crowd = (apart < _NEAR_SEAM).mean(0)
    best = meridians[int(np.argmin(crowd))]
    if crowd[0] < _CROWDED or crowd[0] < 3 * crowd.min():
        return WORLD
    return View.about(float((best + 360) % 360 - 180))
