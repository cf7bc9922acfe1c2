"""What ``--inside`` means: the set that points of a table, and all samples, lie in."""

import argparse
import math
from collections.abc import Sequence
from functools import singledispatch
from pathlib import Path

import torch

from manifolds import Bounded, Box, Constraint, Euclidean, FlatTorus, JointLimits, Manifold, Sphere
from rfm.command_line.messages import warn
from rfm.command_line.region_arguments import ends_of, named_words, turn_of
from rfm.datasets.coordinates import Coordinates
from rfm.datasets.skipped_rows import SkippedRows
from rfm.datasets.tables import Table
from rfm.grids import on_earth
from rfm.regions import Polygon, planar_polygon


def bounded(arguments: argparse.Namespace, manifold: Manifold, coordinates: Coordinates) -> Manifold:
    """Return the manifold with the border that ``--inside`` names; as it is without one.

    Raises:
        ValueError: it names no set of this manifold.
    """
    if not arguments.inside:
        return manifold
    constraint, notes = _constraint(manifold, coordinates, arguments.inside)
    warn(arguments, notes)
    return Bounded(manifold, constraint)


def rows_inside(
    arguments: argparse.Namespace,
    table: Table,
    manifold: Manifold,
    coordinates: Coordinates,
    skipped: SkippedRows | None,
) -> Table:
    """Return the rows whose points lie inside.

    Raises:
        TableError: there are others, and they are not to be skipped.
    """
    if not isinstance(manifold, Bounded):
        return table
    where = " ".join(arguments.inside)

    def check(rows: Table) -> None:
        x = coordinates.points(rows)
        outside = manifold.excludes(x)
        index = outside.nonzero()[:, 0].tolist()
        if index:
            place = ", ".join(f"{name} {rows.texts(name)[index[0]]}" for name in coordinates.columns if rows.has(name))
            finding = f"{place or 'the point'} lies outside --inside {where}"
            raise rows.error(index[0], finding, "correct the rows, or leave them out with --skip-bad-rows", index)

    if skipped is None:
        check(table)
        return table
    return skipped.apply(table, check)[0]


Set = tuple[Constraint, Sequence[str]]


@singledispatch
def _constraint(manifold: Manifold, coordinates: Coordinates, words: Sequence[str]) -> Set:
    raise ValueError(f"--inside is for the sphere, tori and Euclidean space, not {manifold}; leave it out")


@_constraint.register
def _(manifold: Sphere, coordinates: Coordinates, words: Sequence[str]) -> Set:
    if manifold.n != 2 or not on_earth(coordinates):
        raise ValueError(
            f"--inside of {manifold} is a file of longitudes and latitudes, and the columns are "
            f"{', '.join(coordinates.columns)}; give latitude and longitude, or leave it out"
        )
    polygon = Polygon.from_geojson(_file(words))
    return polygon.constraint(), polygon.notes


@_constraint.register
def _(manifold: FlatTorus, coordinates: Coordinates, words: Sequence[str]) -> Set:
    found = named_words(words, coordinates.names, f"{coordinates.names[0]}=-180..0", "--inside")
    turn = turn_of(coordinates)
    low: list[float | None] = []
    high: list[float | None] = []
    for name in coordinates.names:
        ends = ends_of(name, found[name], "--inside") if name in found else None
        if ends is not None and not all(map(math.isfinite, ends)):
            raise ValueError(f"--inside {name}={found[name]}: an angle has two ends; write for example {name}=-180..0")
        start, end = (None, None) if ends is None else (end / turn * 2 * math.pi for end in ends)
        if start is not None and end is not None and end <= start:
            # Over the seam, upwards, as in --box.
            end += 2 * math.pi
        low.append(start)
        high.append(end)
    return JointLimits(low, high), ()


@_constraint.register
def _(manifold: Euclidean, coordinates: Coordinates, words: Sequence[str]) -> Set:
    if len(words) == 1 and "=" not in words[0] and manifold.n == 2:
        return planar_polygon(_file(words)), ()
    found = named_words(words, coordinates.names, f"{coordinates.names[0]}=-1..2", "--inside")
    ends = [
        ends_of(name, found[name], "--inside") if name in found else (-math.inf, math.inf) for name in coordinates.names
    ]
    low, high = zip(*ends, strict=True)
    return Box(torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64)), ()


def _file(words: Sequence[str]) -> Path:
    """Return the name of the file that the words are."""
    if len(words) != 1:
        raise ValueError(f"--inside takes one GeoJSON file here, got {' '.join(words)}; name one")
    path = Path(words[0])
    if not path.is_file():
        raise ValueError(f"--inside {path}: there is no such file; name a GeoJSON file of polygons")
    return path
