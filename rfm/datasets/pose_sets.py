"""Orientations and poses that were measured: the grains of a duplex steel, and a camera carried round a desk.

Both files are verified by SHA-256, and looked for where `rfm.datasets.download` looks; neither has an address that is
known to last, so that none is downloaded.

References:
    Wiik Anes et al., orix-data (the steel): https://github.com/pyxem/orix-data.
    Sturm et al., A Benchmark for the Evaluation of RGB-D SLAM Systems, 2012, doi:10.1109/IROS.2012.6385773 (the desk).
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from rfm.datasets.download import find
from rfm.datasets.orientation_maps import OrientationMap, read_orientation_map
from rfm.datasets.poses import Poses, choose_poses
from rfm.datasets.tracks import SECONDS, read_track


@dataclass(frozen=True, eq=False)
class MapDataset:
    """A map of crystal orientations and where it comes from.

    Args:
        name: what it is called.
        map: the rows; see `OrientationMap`.
        points: float64 ``(n, 3, 3)``, from crystal coordinates to those of the sample.
        source: where the file was published.
        licence: the terms of use.
        citation: what to cite.
        sha256: digest of the file.
        path: that file.
    """

    name: str
    map: OrientationMap = field(repr=False)
    points: Tensor = field(repr=False)
    source: str
    licence: str
    citation: str
    sha256: str
    path: Path

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True, eq=False)
class TrackDataset:
    """A track of poses and where it comes from.

    Args:
        name: what it is called.
        points: float64 ``(n, 4, 4)``, from camera coordinates to those of the world, in metres.
        seconds: since the first pose, float64 ``(n,)``.
        coordinates: how the file writes poses.
        source: where the file was published.
        licence: the terms of use.
        citation: what to cite.
        sha256: digest of the file.
        path: that file.
    """

    name: str
    points: Tensor = field(repr=False)
    seconds: Tensor = field(repr=False)
    coordinates: Poses
    source: str
    licence: str
    citation: str
    sha256: str
    path: Path

    def __len__(self) -> int:
        return len(self.points)


def steel() -> MapDataset:
    """Return 11,700 orientations of a super duplex stainless steel, 5657 of austenite and 6043 of ferrite.

    A map of 117 by 100 places, 1.5 micrometres apart, of both cubic phases; no row is marked as not indexed.

    Raises:
        DatasetError: the file is not here, or is not the published one.
    """
    sha256 = "ac2fc2fc2b8c9c598703c96f9888677bccc9cd88cddd5e78735653fd5504e371"
    source = "https://github.com/pyxem/orix-data"
    path = find("pose/sdss_ferrite_austenite.ang", sha256)
    measured = read_orientation_map(path)
    return MapDataset(
        "steel",
        measured,
        measured.points(),
        source,
        "CC BY 4.0",
        "Hakon Wiik Anes and the developers of orix, orix-data: super duplex stainless steel, EBSD",
        sha256,
        path,
    )


def desk() -> TrackDataset:
    """Return 20,957 poses of a camera that was carried round a desk for 99 seconds (fr2/desk of TUM RGB-D).

    Motion capture, at 200 to 300 poses a second; one time, rounded to a tenth of a millisecond, stands twice.

    Raises:
        DatasetError: the file is not here, or is not the published one.
    """
    sha256 = "0d8e0119a4e9592b886c5ca954472c3270c01814dd2059fbe196d5c24c8f3d17"
    source = "https://cvg.cit.tum.de/data/datasets/rgbd-dataset"
    path = find("pose/fr2_desk_groundtruth.txt", sha256)
    table, layout = read_track(path)
    coordinates = choose_poses(table, None, layout, start=table.start)
    return TrackDataset(
        "desk",
        coordinates.points(table),
        torch.from_numpy(table.numbers([SECONDS])[:, 0]),
        coordinates,
        source,
        "CC BY 4.0",
        "Sturm, Engelhard, Endres, Burgard and Cremers, A Benchmark for the Evaluation of RGB-D SLAM Systems, IROS "
        "2012",
        sha256,
        path,
    )
