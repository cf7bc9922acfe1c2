"""Maps of crystal orientations: the .ang files of electron backscatter diffraction.

A row holds Bunge's Euler angles in radians, the place on the map, image quality, confidence and phase. Rows that the
file marks as not indexed are dropped: a negative confidence, or Euler angles of 4 pi, are the marks.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rfm.datasets.tables import Table, TableError, read_header, read_table
from rfm.datasets.text_files import read_once

COLUMNS = ("phi1", "Phi", "phi2", "x", "y", "iq", "ci", "phase")
_FIRST_WORDS = ("TEM_PIXperUM", "GRID: SqrGrid", "GRID: HexGrid")
"""Of the header lines that only .ang files have."""

CUBIC = "43"
"""The code that .ang files write for the Laue group m-3m."""


@dataclass(frozen=True, eq=False)
class OrientationMap:
    """A map, as read.

    Args:
        table: the rows that are indexed, with a header; the phase is its name where the file gives one.
        dropped: how many rows were marked as not indexed.
        symmetries: the file's code for the crystal symmetry of each phase by name.
    """

    table: Table
    dropped: int
    symmetries: dict[str, str]

    def __len__(self) -> int:
        return len(self.table)

    @property
    def places(self) -> NDArray[np.float64]:
        """Places on the map, ``(n, 2)``, x to the right and y down, in micrometres."""
        return self.table.numbers(("x", "y"))

    @property
    def phases(self) -> list[str]:
        """The phase of each row."""
        return [row[7] for row in self.table.rows]

    def points(self) -> Tensor:
        """Return the orientations, float64 ``(n, 3, 3)``, from crystal coordinates to those of the sample."""
        from rfm.datasets.orientations import rotations_from

        return rotations_from(self.table.numbers(COLUMNS[:3]), "bunge", self.table, radians=True)


def is_orientation_map(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is called ``*.ang``, or begins like one: what comes through a pipe has no such name."""
    if Path(path).suffix.lower() == ".ang":
        return True
    header = read_header(path)
    return any(line.strip().startswith(_FIRST_WORDS) for line in header)


def read_orientation_map(path: str | os.PathLike[str], minimum_rows: int = 1) -> OrientationMap:
    """Read an .ang file.

    Raises:
        TableError: it cannot be read, has too few columns or rows, or its angles are no radians.
    """
    path = read_once(path)
    raw = read_table(path, minimum_rows)
    if raw.has_header or len(raw.names) < len(COLUMNS):
        raise TableError(
            f"{raw.file}: a row of an .ang file has at least 8 numbers (phi1 Phi phi2 x y quality confidence phase), "
            f"here there {'is a header' if raw.has_header else f'are {len(raw.names)}'}\n"
            "export the map again, or name a table .csv and give --columns"
        )
    numbers = raw.numbers(raw.names[: len(COLUMNS)])
    angles, confidence = numbers[:, :3], numbers[:, 6]
    unindexed = (confidence < 0) | (np.abs(angles) >= 4 * math.pi - 1e-3).all(1)
    kept = np.flatnonzero(~unindexed)
    beyond = kept[(np.abs(angles[kept]) > 2 * math.pi + 1e-3).any(1)]
    if len(beyond):
        row = int(beyond[0])
        worst = angles[row][np.abs(angles[row]).argmax()]
        raise raw.error(row, f"{worst:.6g} is no Euler angle in radians", "export the map with angles in radians")
    if len(kept) < max(minimum_rows, 1):
        raise TableError(f"{raw.file}: {len(kept)} of {len(raw)} rows are indexed\nexport more of the map")
    names, symmetries = _phases(read_header(path))
    rows = [_named_phase(raw.rows[i], names) for i in kept]
    extra = tuple(f"column_{i}" for i in range(len(COLUMNS) + 1, len(raw.names) + 1))
    lines = [raw.lines[i] for i in kept]
    return OrientationMap(Table(raw.file, (*COLUMNS, *extra), True, rows, lines), int(unindexed.sum()), symmetries)


def _phases(header: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the name of each phase by its number, and its symmetry code by its name."""
    number, names, symmetries = "", dict[str, str](), dict[str, str]()
    for line in header:
        word, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        if word == "Phase":
            number = rest
        elif word == "MaterialName" and rest:
            names[number] = rest.rsplit("/", 1)[-1]
        elif word == "Symmetry":
            symmetries[names.get(number, number)] = rest
    # Two phases of one name could not be told apart.
    return (names if len(set(names.values())) == len(names) else {}), symmetries


def _named_phase(row: Sequence[str], names: dict[str, str]) -> list[str]:
    phase = row[7]
    key = str(int(float(phase)))
    return [*row[:7], names.get(key, phase), *row[8:]]
