"""What ``--box``, ``--ball`` and ``--polygon`` mean for the manifold and the columns of a run."""

import argparse
import math
from collections.abc import Sequence
from functools import singledispatch
from typing import TYPE_CHECKING

from manifolds import SO3, Ellipsoid, Euclidean, FlatTorus, Manifold, Quotient, Sphere
from rfm import datasets
from rfm.command_line.messages import warn
from rfm.datasets.coordinates import Coordinates
from rfm.datasets.text_files import FileContent
from rfm.grids import geography_of, on_earth
from rfm.regions import AngleBox, Ball, CoordinateBox, LatitudeLongitudeBox, Polygon, Region

if TYPE_CHECKING:
    from rfm.command_line.run_folder import RunData
    from rfm.flow import Flow

_SIDES = ("south", "north", "west", "east")
_ROUND = {"south": -90.0, "north": 90.0, "west": -180.0, "east": 180.0}


def region_of(arguments: argparse.Namespace, flow: "Flow", data: "RunData") -> Region:
    """Return the region that the arguments name; of a bounded manifold, one of all of what it is a part of.

    Raises:
        ValueError: it is none on the flow's manifold.
    """
    manifold = flow.manifold.unbounded
    if arguments.box is not None:
        return _box(manifold, data.coordinates, arguments.box)
    if arguments.ball is not None:
        return _ball(manifold, data.coordinates, arguments.ball)
    if not on_earth(data.coordinates):
        raise ValueError(f"--polygon is a region of the earth, and the run is on {manifold}; use --box or --ball")
    region = Polygon.from_geojson(arguments.polygon, manifold)
    warn(arguments, region.notes)
    return region


@singledispatch
def _box(manifold: Manifold, coordinates: Coordinates, words: Sequence[str]) -> Region:
    raise ValueError(f"--box is for the sphere, tori and Euclidean space, not {manifold}; use --ball")


@_box.register
def _(manifold: Sphere, coordinates: Coordinates, words: Sequence[str]) -> Region:
    if manifold.n != 2:
        return _box.dispatch(Manifold)(manifold, coordinates, words)
    return _between(manifold, words)


@_box.register
def _(manifold: Ellipsoid, coordinates: Coordinates, words: Sequence[str]) -> Region:
    return _between(manifold, words)


def _between(manifold: Manifold, words: Sequence[str]) -> Region:
    values = dict(_ROUND)
    for name, text in named_words(words, _SIDES, "south=30 north=40 west=-10 east=20").items():
        values[name] = _number(text, f"--box {name}={text}")
    return LatitudeLongitudeBox(**values, surface=manifold)


@_box.register
def _(manifold: FlatTorus, coordinates: Coordinates, words: Sequence[str]) -> Region:
    names = coordinates.names
    found = named_words(words, names, f"{names[0]}=-90..-30")
    turn = turn_of(coordinates)
    ranges: list[tuple[float, float] | None] = []
    for name in names:
        if name not in found:
            ranges.append(None)
            continue
        low, high = ends_of(name, found[name])
        if not all(map(math.isfinite, (low, high))):
            raise ValueError(f"--box {name}={found[name]}: an angle has two ends; write for example {name}=-90..-30")
        ranges.append((low / turn * 2 * math.pi, high / turn * 2 * math.pi))
    return AngleBox(manifold, ranges)


@_box.register
def _(manifold: Euclidean, coordinates: Coordinates, words: Sequence[str]) -> Region:
    found = named_words(words, coordinates.names, f"{coordinates.names[0]}=-1..2")
    ends = [ends_of(name, found[name]) if name in found else None for name in coordinates.names]
    return CoordinateBox(manifold, ends)


def _ball(manifold: Manifold, coordinates: Coordinates, numbers: Sequence[float]) -> Region:
    """Return the ball about a point in the columns of the run; the radius comes last."""
    earth = on_earth(coordinates)
    own = datasets.LatitudeLongitude(("latitude", "longitude")) if earth else coordinates
    numbered = any(column.isdecimal() for column in own.columns)
    names = own.names if numbered else own.columns
    if len(numbers) != len(names) + 1:
        raise ValueError(
            f"--ball takes {', '.join(names)} and a radius, {len(names) + 1} numbers, got {len(numbers)}; give a "
            "centre in the columns of the run"
        )
    rows = "\n".join(",".join(cells) for cells in (names, [repr(value) for value in numbers[:-1]]))
    table = datasets.read_table(FileContent("--ball", rows.encode(), streamed=True))
    if not earth:
        scale = math.radians(1) if in_degrees(manifold) else 1.0
        return Ball(manifold, own.points(table)[0], numbers[-1] * scale)
    geography = geography_of(manifold)
    if geography.kilometres is None:
        raise ValueError(f"--ball has a radius in kilometres, and {manifold} has not the earth's shape; use --box")
    latitude, longitude = (degrees.numpy() for degrees in geography_of(Sphere(2)).degrees(own.points(table)))
    return Ball(manifold, geography.points(latitude, longitude)[0], numbers[-1] / geography.kilometres)


def ball_in_words(manifold: Manifold, coordinates: Coordinates, numbers: Sequence[float]) -> str:
    """Return the ball that numbers stand for, in the columns and units in which they are given."""
    earth = on_earth(coordinates)
    names = ("latitude", "longitude") if earth else coordinates.names
    centre = ", ".join(f"{name} {value:g}" for name, value in zip(names, numbers, strict=False))
    unit = " km" if earth else " degrees" if in_degrees(manifold) else ""
    return f"ball of radius {numbers[-1]:g}{unit} about {centre}"


def window_of(coordinates: Coordinates, words: Sequence[str]) -> list[tuple[float, float]]:
    """Return the range of each coordinate that ``--window`` names.

    Raises:
        ValueError: one is missing, or open.
    """
    found = named_words(words, coordinates.names, f"{coordinates.names[0]}=-1..2", "--window")
    pairs = [ends_of(name, found.get(name, ".."), "--window") for name in coordinates.names]
    for name, pair in zip(coordinates.names, pairs, strict=True):
        if not all(map(math.isfinite, pair)):
            raise ValueError(f"--window needs a range with two ends for {name}; write for example {name}=-1..2")
    return pairs


def turn_of(coordinates: Coordinates) -> float:
    """Return a full turn in the unit of a run's angles."""
    return next((period for period in coordinates.periods if period), 360.0)


def in_degrees(manifold: Manifold) -> bool:
    """Return whether distances on a manifold are angles, which the command line takes in degrees."""
    inner = manifold.m if isinstance(manifold, Quotient) else manifold
    return isinstance(inner, Sphere | FlatTorus | SO3)


def named_words(words: Sequence[str], names: Sequence[str], example: str, option: str = "--box") -> dict[str, str]:
    """Return NAME=VALUE words as a dictionary; raise ValueError for others."""
    found = {}
    for word in words:
        name, equals, value = word.rpartition("=")
        if not equals or name not in names or name in found:
            raise ValueError(
                f"{option} {word!r} is none of {', '.join(f'{own}=' for own in names)}, each at most once; write for "
                f"example {example}"
            )
        found[name] = value
    return found


def ends_of(name: str, text: str, option: str = "--box") -> tuple[float, float]:
    """Return the ends of LOW..HIGH, of which one may be left out."""
    low, dots, high = text.partition("..")
    if not dots:
        raise ValueError(f"{option} {name}={text} is no range; write for example {name}=-1..2")
    word = f"{option} {name}={text}"
    return _number(low, word) if low else -math.inf, _number(high, word) if high else math.inf


def _number(text: str, word: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{word} holds {text!r}, which is no number; write digits")
    return value
