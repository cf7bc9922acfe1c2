"""Boxes of latitudes and longitudes, of angles, and of coordinates of Euclidean space."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manifolds import Euclidean, FlatTorus, Manifold, Sphere
from manifolds.arguments import check_instance, number
from rfm.grids.geography import geography_of
from rfm.regions.region import Array, Charts, Region

Interval = tuple[float, float] | None
"""A range of a coordinate; None for all of it."""


class LatitudeLongitudeBox(Region):
    """The part of a sphere or an ellipsoid between two parallels and two meridians.

    It reaches from ``west`` eastwards to ``east``, over the meridian of 180 degrees where east is less than west:
    ``west=170, east=-170`` is 20 degrees wide. ``west=-180, east=180`` is all the way round.

    Args:
        south: latitude in degrees, -90 to 90.
        north: latitude, above ``south``.
        west: longitude in degrees, -360 to 360.
        east: longitude.
        surface: ``Sphere(2)`` by default, or an ellipsoid.

    Raises:
        ValueError: it is empty, or out of range.
    """

    def __init__(self, south: float, north: float, west: float, east: float, surface: Manifold | None = None) -> None:
        super().__init__(Sphere(2) if surface is None else surface)
        self._geography = geography_of(self.manifold)
        south, north = (number("LatitudeLongitudeBox", *named) for named in (("south", south), ("north", north)))
        west, east = (number("LatitudeLongitudeBox", *named) for named in (("west", west), ("east", east)))
        if not -90 <= south < north <= 90:
            raise ValueError(
                f"LatitudeLongitudeBox: latitudes must be -90 <= south < north <= 90 degrees, got south {south:g} and "
                f"north {north:g}; exchange or correct them"
            )
        if not all(-360 <= value <= 360 for value in (west, east)) or west == east:
            raise ValueError(
                f"LatitudeLongitudeBox: longitudes must be two different ones from -360 to 360 degrees, got west "
                f"{west:g} and east {east:g}; all the way round is west -180, east 180"
            )
        self.south, self.north, self.west, self.east = south, north, west, east
        self.width = math.fmod(math.fmod(east - west, 360) + 360, 360) or 360.0
        """In degrees of longitude."""

    def contains(self, x: Tensor) -> Tensor:
        latitude, longitude = self._geography.degrees(x)
        between = (latitude >= self.south) & (latitude <= self.north)
        return between & (torch.remainder(longitude - self.west, 360.0) <= self.width)

    def describe(self) -> str:
        return f"box of latitudes {self.south:g} to {self.north:g}, longitudes {self.west:g} to {self.east:g}"

    @property
    def volume(self) -> float:
        return math.radians(self.width) * float(self._geography.bands(np.array([self.south, self.north]))[0])

    @property
    def charts(self) -> Charts:
        low, high = (math.sin(math.radians(value)) for value in (self.south, self.north))

        def place(piece: NDArray[np.int64], u: Array) -> tuple[Tensor, Array]:
            # On the sphere of equal areas: the sine of the latitude varies evenly.
            sine = np.clip(low + u[:, 0] * (high - low), -1, 1)
            x = self._geography.points(np.degrees(np.arcsin(sine)), self.west + u[:, 1] * self.width)
            return x, self._geography.density(sine) * (high - low) * math.radians(self.width)

        return Charts(1, 2, place)


class AngleBox(Region):
    """Ranges of the angles of a flat torus, each counted upwards from its first end, over the seam where need be.

    Args:
        manifold: the torus.
        ranges: of each angle in radians, from -2 pi to 2 pi; None for the full circle.

    Raises:
        ValueError: a range is empty or longer than a turn, or there is not one for each angle.
    """

    def __init__(self, manifold: FlatTorus, ranges: Sequence[Interval]) -> None:
        check_instance("AngleBox", "manifold", manifold, FlatTorus, "FlatTorus(2)")
        super().__init__(manifold)
        if len(ranges) != manifold.n:
            raise ValueError(f"AngleBox: needs a range, or None, for each of {manifold.n} angles, got {len(ranges)}")
        starts, widths = zip(*(self._checked(own) for own in ranges), strict=True)
        self.starts = torch.tensor(starts, dtype=torch.float64)
        self.widths = torch.tensor(widths, dtype=torch.float64)

    @staticmethod
    def _checked(own: Interval) -> tuple[float, float]:
        if own is None:
            return -math.pi, 2 * math.pi
        start, end = (number("AngleBox", "ranges", value) for value in own)
        turn = 2 * math.pi
        if start == end or not all(-turn <= value <= turn for value in (start, end)):
            raise ValueError(
                f"AngleBox: a range must have two different ends from -2 pi to 2 pi radians, got {start:g} and "
                f"{end:g}; None is the full circle"
            )
        return start, math.fmod(math.fmod(end - start, turn) + turn, turn) or turn

    def contains(self, x: Tensor) -> Tensor:
        offset = torch.remainder(x.detach().double() - self.starts.to(x.device), 2 * math.pi)
        return (offset <= self.widths.to(x.device)).all(-1)

    def describe(self) -> str:
        ends = zip(torch.rad2deg(self.starts).tolist(), torch.rad2deg(self.starts + self.widths).tolist(), strict=True)
        return "box of angles " + ", ".join(f"{start:.6g} to {end:.6g}" for start, end in ends) + " degrees"

    @property
    def volume(self) -> float:
        return float(self.widths.prod())

    @property
    def charts(self) -> Charts | None:
        return _box_charts(self.manifold, self.starts, self.widths)


class CoordinateBox(Region):
    """Ranges of the coordinates of Euclidean space.

    Args:
        manifold: the space.
        ranges: of each coordinate, ascending; None for all of the line.

    Raises:
        ValueError: a range does not ascend, or there is not one for each coordinate.
    """

    def __init__(self, manifold: Euclidean, ranges: Sequence[Interval]) -> None:
        check_instance("CoordinateBox", "manifold", manifold, Euclidean, "Euclidean(2)")
        super().__init__(manifold)
        pairs = [(-math.inf, math.inf) if own is None else own for own in ranges]
        if len(pairs) != manifold.n or not all(low < high for low, high in pairs):
            raise ValueError(
                f"CoordinateBox: needs an ascending range, or None, for each of {manifold.n} coordinates, got "
                f"{list(ranges)}"
            )
        self.low, self.high = torch.tensor(pairs, dtype=torch.float64).unbind(-1)

    def contains(self, x: Tensor) -> Tensor:
        own = x.detach().double()
        return ((own >= self.low.to(x.device)) & (own <= self.high.to(x.device))).all(-1)

    def describe(self) -> str:
        ends = zip(self.low.tolist(), self.high.tolist(), strict=True)
        return "box of coordinates " + ", ".join(f"{low:g} to {high:g}" for low, high in ends)

    @property
    def volume(self) -> float:
        return float((self.high - self.low).prod())

    @property
    def charts(self) -> Charts | None:
        return _box_charts(self.manifold, self.low, self.high - self.low) if math.isfinite(self.volume) else None


_MOST_DIMENSIONS = 3
"""Cubature of more takes more points than draws do."""


def _box_charts(manifold: Manifold, low: Tensor, widths: Tensor) -> Charts | None:
    if len(low) > _MOST_DIMENSIONS:
        return None

    def place(piece: NDArray[np.int64], u: Array) -> tuple[Tensor, Array]:
        # Beyond the seam, angles start anew.
        return manifold.projx(low + torch.from_numpy(u) * widths), np.full(len(u), float(widths.prod()))

    return Charts(1, len(low), place)
