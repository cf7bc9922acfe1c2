"""Which coordinates a table holds, found from a manifold and a header; and coordinates out of JSON."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import singledispatch
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manifolds import SE3, SO3, Ellipsoid, FlatTorus, Manifold, Mesh, Quotient, Simplex, Sphere
from rfm.datasets.angle_units import bare_name, in_radians, unit_in_name
from rfm.datasets.angles import Angles
from rfm.datasets.cartesian import Cartesian
from rfm.datasets.column_names import (
    LATITUDE_NAMES,
    LONGITUDE_NAMES,
    angle_columns,
    coordinate_columns,
    is_latitude,
    is_longitude,
    number_columns,
)
from rfm.datasets.coordinates import Coordinates
from rfm.datasets.geographic import EARTH_AXES, LatitudeLongitude
from rfm.datasets.orientation_maps import is_orientation_map, read_orientation_map
from rfm.datasets.orientations import Orientations, choose_orientations
from rfm.datasets.poses import Poses, choose_poses
from rfm.datasets.share_columns import Shares, in_percent
from rfm.datasets.skipped_rows import SkippedRows
from rfm.datasets.tables import Table, TableError
from rfm.datasets.text_files import read_once
from rfm.datasets.tracks import TRACK_FORMATS, read_commented_table, read_track, recognised_format

_MANY_HOURS = 50
"""Right ascensions, of which it is no chance that all are below 24 degrees and spread over most of that."""

_KINDS: dict[str, type[LatitudeLongitude | Cartesian | Angles | Orientations | Poses | Shares]] = {
    cls.kind: cls for cls in (LatitudeLongitude, Cartesian, Angles, Orientations, Poses, Shares)
}


def coordinates_from_dict(record: Mapping[str, Any]) -> Coordinates:
    """Make coordinates from the values that ``to_dict`` returned; whatever the values are, no code of theirs runs.

    Raises:
        ValueError: the record does not describe coordinates.
    """
    try:
        values = dict(record)
        cls = _KINDS[values.pop("kind")]
        columns = values.pop("columns")
        defaults = {field.name: field.default for field in fields(cls)}
        if not isinstance(columns, list | tuple) or not all(_alike(values[key], defaults[key]) for key in values):
            raise TypeError("columns is a list, everything else of the type of its default")
        return cls(columns=tuple(columns), **values)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"these are not coordinates: {repr(record)[:120]} ({error}); the kinds are {', '.join(_KINDS)}"
        ) from None


def _alike(value: Any, default: Any) -> bool:
    """Return whether a value has the type of a default; numbers are alike, and true and false are none."""
    numbers = isinstance(default, int | float) and not isinstance(default, bool)
    return isinstance(value, int | float) and not isinstance(value, bool) if numbers else type(value) is type(default)


# The choice.


def read_points(
    path: str | os.PathLike[str],
    layout: str | None = None,
    minimum_rows: int = 1,
    skipped: SkippedRows | None = None,
) -> tuple[Table, str | None]:
    """Read a table of points in whatever format it is written: a map of orientations, a track, or see `read_table`.

    Args:
        path: the file, which is read once, so that it may be a pipe; ``*.ang`` is an orientation map, and a track is
            recognised by its comment header.
        layout: what `choose_coordinates` takes; the formats of `rfm.datasets.tracks` decide how the file is read.
        minimum_rows: fewer are an error.
        skipped: notes rows of a text with another number of cells, which are left out; they are an error when None.

    Returns:
        The table, and its layout as requested or recognised.

    Raises:
        TableError: the file cannot be used; the message gives the reason.
    """
    path = read_once(path)
    if layout == "ang" or (layout in (None, "bunge") and is_orientation_map(path)):
        return read_orientation_map(path, minimum_rows).table, "ang"
    if layout in TRACK_FORMATS or (layout is None and recognised_format(path)):
        return read_track(path, layout, minimum_rows=minimum_rows)
    return read_commented_table(path, minimum_rows, skipped), layout


def choose_coordinates(
    manifold: Manifold,
    table: Table,
    columns: Sequence[str] | None = None,
    radians: bool | None = None,
    layout: str | None = None,
    reserved: Sequence[str] = (),
) -> Coordinates:
    """Find the coordinates in which a table holds points of a manifold.

    On ``Sphere(2)``, two columns are latitude and longitude (in either order if they are called so) and three are x,
    y, z. On a torus there is a column for each angle, on a simplex one for each share (in fractions or, where rows sum
    to 100, in percent), elsewhere one for each ambient coordinate. Without ``columns`` they are found by name on the
    sphere; on a torus by name (direction, phi, heading, ...) or, where no column has such a name, by their range; and
    elsewhere used in order if just enough columns hold numbers, not counting those that are row numbers or times.

    Rotations are Bunge's Euler angles, quaternions or matrices, poses a position and a rotation, by the columns' names
    or by ``layout``: the order of a quaternion is never guessed.

    Args:
        manifold: where the points live.
        table: the table; its longitudes or angles decide the convention of the output.
        columns: names of columns, or numbers counted from 1.
        radians: whether angles, latitudes and longitudes are in radians or in degrees; None for what the columns' names
            say, ``phi_rad`` or ``phi [deg]``, and for degrees where they say nothing.
        layout: "bunge", "xyzw", "wxyz" or "matrix", how rotations are written; or the format of the file, "ang", "tum",
            "kitti" or "euroc".
        reserved: columns that hold something else, such as weights, and are not chosen by default.

    Raises:
        TableError: a column is missing, or the choice is not clear; the message lists the columns. Nothing states what
            unit angles are in, and all are small enough to be radians.
    """
    keys = None if columns is None else tuple(table.key(table.index(column)) for column in columns)
    if keys is not None and len(set(keys)) < len(keys):
        raise TableError(f"{table.file}: a column is named twice by --columns {' '.join(keys)}; name each column once")
    if table.has_header and any(key.isdecimal() for key in keys or ()):
        raise TableError(
            f"{table.file}: a column that --columns names by number has no name of its own; "
            f"{table.describe_columns()}; give it one in the header, or remove the header"
        )
    return _choose(manifold, table, _Request(keys, radians, layout, tuple(reserved)))


@dataclass(frozen=True)
class _Request:
    keys: tuple[str, ...] | None
    radians: bool | None
    layout: str | None
    reserved: tuple[str, ...] = ()


@singledispatch
def _choose(manifold: Manifold, table: Table, request: _Request) -> Coordinates:
    return Cartesian(_just_enough(manifold, table, request))


@_choose.register
def _(manifold: SO3, table: Table, request: _Request) -> Coordinates:
    return choose_orientations(table, request.keys, request.radians, request.layout)


@_choose.register
def _(manifold: Quotient, table: Table, request: _Request) -> Coordinates:
    """A class is written as any of its representatives."""
    return _choose(manifold.m, table, request)


@_choose.register
def _(manifold: SE3, table: Table, request: _Request) -> Coordinates:
    return choose_poses(table, request.keys, request.layout, manifold.length, table.start)


@_choose.register
def _(manifold: Mesh, table: Table, request: _Request) -> Coordinates:
    return Cartesian(_just_enough(manifold, table, request), on_surface=True)


@_choose.register
def _(manifold: FlatTorus, table: Table, request: _Request) -> Coordinates:
    keys = _just_enough(manifold, table, request, angles=True)
    radians = in_radians(table, keys, request.radians, [2 * math.pi] * len(keys))
    return Angles(keys, radians, _counts_up(table.numbers(keys), math.pi if radians else 180.0))


@_choose.register
def _(manifold: Simplex, table: Table, request: _Request) -> Coordinates:
    keys = _just_enough(manifold, table, request)
    return Shares(keys, in_percent(table.numbers(keys)))


@_choose.register
def _(manifold: Sphere, table: Table, request: _Request) -> Coordinates:
    if manifold.dim != 2:
        return Cartesian(_just_enough(manifold, table, request), unit_norm=True)
    keys = request.keys or _columns_on_s2(table)
    if len(keys) == 3:
        return Cartesian(keys, unit_norm=True)
    if len(keys) != 2:
        raise TableError(
            f"{table.file}: --columns names {len(keys)}, and a point of {manifold} has 2 (latitude and "
            f"longitude) or 3 (x, y, z); {table.describe_columns()}"
        )
    latitude, longitude = _by_role(table, keys)
    _refuse_hours(table, longitude, request)
    radians = in_radians(table, (latitude, longitude), request.radians, (math.pi / 2, 2 * math.pi))
    return LatitudeLongitude(
        (latitude, longitude),
        _counts_up(table.numbers([longitude]), math.pi if radians else 180.0),
        table.index(longitude) < table.index(latitude),
        radians,
    )


@_choose.register
def _(manifold: Ellipsoid, table: Table, request: _Request) -> Coordinates:
    """The earth's is written as geodetic latitude and longitude, any other in ambient coordinates."""
    if manifold.axes != EARTH_AXES or (request.keys is not None and len(request.keys) == 3):
        return Cartesian(_just_enough(manifold, table, request))
    found = _choose(Sphere(2), table, request)
    return replace(found, ellipsoid=True) if isinstance(found, LatitudeLongitude) else Cartesian(found.columns)


def _columns_on_s2(table: Table) -> tuple[str, ...]:
    names = [bare_name(name).casefold() for name in table.names]
    latitudes = _called(table, LATITUDE_NAMES, is_latitude)
    longitudes = _called(table, LONGITUDE_NAMES, is_longitude)
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
    raise TableError(f"{table.file}: {finding}; {table.describe_columns()}; {remedy}")


def _refuse_hours(table: Table, longitude: str, request: _Request) -> None:
    """Refuse right ascensions that look like hours, where nothing states that they are degrees."""
    name = table.names[table.index(longitude)]
    if request.radians is not None or unit_in_name(name) or not bare_name(name).casefold().startswith(("ra", "right")):
        return
    values = table.numbers([longitude])[:, 0]
    if len(values) >= _MANY_HOURS and values.min() >= 0 and 12 < values.max() < 24 and np.ptp(values) > 12:
        raise TableError(
            f"{table.file}: the values of {longitude} run from {values.min():.6g} to {values.max():.6g}, as hours do; "
            "multiply them by 15, or add --degrees if they are degrees"
        )


def _called(table: Table, names: frozenset[str], alike: Callable[[str], bool]) -> list[str]:
    """Return the columns that have one of these names or, if none has, a name that is like one."""
    exact = [table.key(i) for i, name in enumerate(table.names) if bare_name(name).casefold() in names]
    return exact or [table.key(i) for i, name in enumerate(table.names) if alike(name)]


def _by_role(table: Table, keys: Sequence[str]) -> tuple[str, str]:
    """Return latitude and longitude: by what the columns are called, else in the order given."""
    first, second = keys
    if is_longitude(first) or is_latitude(second):
        first, second = second, first
    if is_longitude(first) or is_latitude(second):
        raise TableError(
            f"{table.file}: --columns {' '.join(keys)} names the same coordinate twice; {table.describe_columns()}; "
            "name a latitude and a longitude"
        )
    return first, second


def _just_enough(manifold: Manifold, table: Table, request: _Request, angles: bool = False) -> tuple[str, ...]:
    """Return as many columns as a point has coordinates, or raise."""
    if len(manifold.event_shape) != 1:
        raise TableError(
            f"{table.file}: points of {manifold} have shape {tuple(manifold.event_shape)} and do not come from the "
            "columns of a table; pass a tensor to rfm.fit instead"
        )
    needed = manifold.event_shape[0]
    if request.keys is not None:
        columns, what = list(request.keys), f"--columns names {len(request.keys)}"
    elif angles:
        columns = angle_columns(table, request.radians, request.reserved)
        what = f"{len(columns)} column{'s' * (len(columns) != 1)} hold angles by name or range"
    else:
        columns = coordinate_columns(table, request.reserved)
        others = [key for key in number_columns(table, request.reserved) if key not in columns]
        what = f"{len(columns)} columns hold numbers"
        what += f" that are no index or time, as {', '.join(map(repr, others[:5]))} is" if others else ""
    if len(columns) != needed:
        raise TableError(
            f"{table.file}: {what}, and a point of {manifold} has {needed}; {table.describe_columns()}; "
            f"name {needed} with --columns"
        )
    return tuple(columns)


def _counts_up(values: NDArray[np.float64], half_turn: float) -> bool:
    """Return whether angles are counted from 0 to a full turn, not from minus half a turn to half a turn."""
    return bool((values > half_turn).any() and (values >= 0).all())
