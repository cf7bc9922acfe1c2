"""Points on the surface of the earth: the four published benchmark sets, and the world's airports.

The benchmark files are those of the repository oxcsml/riemannian-score-sde at a fixed commit, verified by SHA-256; see
`rfm.datasets.download` for where they are looked for. Rows are kept as published: exact duplicates too, of which the
volcano set is mostly made (267 places in 827 rows; earthquake 5447 in 6120; flood 4861 in 4875; fire 12802 in 12809).

References:
    Mathieu and Nickel, Riemannian Continuous Normalizing Flows, 2020, arXiv 2006.10605, section 5: the first use.
    De Bortoli et al., Riemannian Score-Based Generative Modelling, 2022, arXiv 2202.02763: the files.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rfm.datasets.download import DatasetError, file_sha256, find_or_download
from rfm.datasets.geographic import LatitudeLongitude
from rfm.datasets.table_reading import read_table

_REPOSITORY = (
    "https://raw.githubusercontent.com/oxcsml/riemannian-score-sde/b35b739464ca8264e418e400301f5f45cb7a16b3/data/"
)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Points of ``Sphere(2)`` and where they come from.

    Args:
        name: the name that `load` knows.
        points: float64 ``(n, 3)``, unit vectors, in the order of the file.
        degrees: the file's own numbers, ``(n, 2)``: latitude, longitude.
        coordinates: how the file writes points.
        source: where the file was published.
        licence: what is known of the terms of use.
        citation: what to cite.
        sha256: digest of the file that was read.
        path: that file.
    """

    name: str
    points: Tensor = field(repr=False)
    degrees: NDArray[np.float64] = field(repr=False)
    coordinates: LatitudeLongitude
    source: str
    licence: str
    citation: str
    sha256: str
    path: Path

    def __len__(self) -> int:
        return len(self.points)


def volcano() -> Dataset:
    """Return 827 volcanic eruptions, at 267 places.

    Raises:
        DatasetError: the file cannot be had, or is not the published one.
    """
    return _benchmark(
        "volcano",
        "volerup.csv",
        LatitudeLongitude(("Latitude", "Longitude")),
        licence="No licence is stated with the file; the upstream data is a work of the US government (NOAA NCEI).",
        citation="NCEI/WDS Global Significant Volcanic Eruptions Database, NOAA National Centers for Environmental "
        "Information, doi:10.7289/V5JW8BSH",
        sha256="f7bbaf32a412f5fe82350f48e0c55100be260803969c16557343f687fd0593fc",
    )


def earthquake() -> Dataset:
    """Return 6120 earthquakes, at 5447 places.

    Raises:
        DatasetError: the file cannot be had, or is not the published one.
    """
    return _benchmark(
        "earthquake",
        "quakes_all.csv",
        LatitudeLongitude(("LATITUDE", "LONGITUDE")),
        licence="No licence is stated with the file; the upstream data is a work of the US government (NOAA NCEI).",
        citation="NCEI/WDS Global Significant Earthquake Database, NOAA National Centers for Environmental "
        "Information, doi:10.7289/V5TD9V7K",
        sha256="3e5e1a10fb2faf1899106264289334037d039f00f5265d13dad388a93d8ff2f7",
    )


def flood() -> Dataset:
    """Return 4875 floods, at 4861 places.

    Raises:
        DatasetError: the file cannot be had, or is not the published one.
    """
    return _benchmark(
        "flood",
        "flood.csv",
        LatitudeLongitude(("lat", "long")),
        licence="No licence is stated with the file; the upstream data is of the Dartmouth Flood Observatory, which "
        "asks to be cited.",
        citation="G. R. Brakenridge, Global Active Archive of Large Flood Events, Dartmouth Flood Observatory, "
        "University of Colorado",
        sha256="ffb1e3182c3053afcdeceec4727c262a29da10255d20747c08144da5b0963486",
    )


def fire() -> Dataset:
    """Return 12809 active fires, at 12802 places.

    Raises:
        DatasetError: the file cannot be had, or is not the published one.
    """
    return _benchmark(
        "fire",
        "fire.csv",
        LatitudeLongitude(("1", "2")),
        licence="No licence is stated with the file; the upstream data is NASA's, open, with a request to be cited.",
        citation="NASA Fire Information for Resource Management System (FIRMS), Active Fire Data, part of NASA's "
        "Earth Science Data and Information System (ESDIS)",
        sha256="c5c6c9490b1d8c58ba9eb78d9e2f82d1c1e62694ca5cff917c54600d3d83f459",
    )


def airports() -> Dataset:
    """Return the airports and landing strips of the installed package ``airportsdata``, about 28,000.

    Releases of the package differ: ``sha256`` says which data was read.

    Raises:
        DatasetError: the package is not installed.
    """
    from importlib.util import find_spec

    spec = find_spec("airportsdata")
    if spec is None or spec.origin is None:
        raise DatasetError("the package airportsdata is not installed; install it, for instance with pip")
    return _read(
        "airports",
        Path(spec.origin).with_name("airports.csv"),
        LatitudeLongitude(("lat", "lon")),
        source="https://github.com/mborsetti/airportsdata",
        licence="MIT",
        citation="Mike Borsetti, airportsdata: a database of nearly every airport and landing strip in the world",
    )


def load(name: str) -> Dataset:
    """Return the data set with this name: volcano, earthquake, flood, fire or airports.

    Raises:
        DatasetError: there is no such data set, or it cannot be had.
    """
    for loader in (volcano, earthquake, flood, fire, airports):
        if loader.__name__ == name:
            return loader()
    raise DatasetError(
        f"there is no data set {name[:40]!r}; the data sets are volcano, earthquake, flood, fire and airports"
    )


def _benchmark(
    name: str, file: str, coordinates: LatitudeLongitude, licence: str, citation: str, sha256: str
) -> Dataset:
    path = find_or_download(f"earth/{file}", sha256, _REPOSITORY + file)
    return _read(name, path, coordinates, _REPOSITORY + file, licence, citation)


def _read(name: str, path: Path, coordinates: LatitudeLongitude, source: str, licence: str, citation: str) -> Dataset:
    table = read_table(path)
    return Dataset(
        name,
        coordinates.points(table),
        table.numbers(coordinates.columns),
        coordinates,
        source,
        licence,
        citation,
        file_sha256(path),
        path,
    )
