"""What a file of electron backscatter diffraction holds, whoever wrote it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rfm.datasets.tables import Column, NumberColumn, Table, TextColumn

LAUE_GROUPS = ("-1", "2/m", "mmm", "4/m", "4/mmm", "-3", "-3m", "6/m", "6/mmm", "m-3", "m-3m")
"""In the order in which Oxford Instruments numbers them, from 1."""


@dataclass(frozen=True, eq=False)
class EbsdMap:
    """The points of a map.

    Args:
        file: the file's name, for messages.
        angles: Bunge's Euler angles, in radians, ``(n, 3)``.
        x: places to the right, in micrometres, ``(n,)``.
        y: places down, likewise.
        phases: the number of the phase of each point, ``(n,)``.
        names: of the phases by their numbers; a phase without one is called by its number.
        symmetries: the file's code for the crystal symmetry of each phase by name.
        unindexed: which points are marked as not indexed, ``(n,)``.
        more: further columns by name.
    """

    file: str
    angles: NDArray[np.float64]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    phases: NDArray[np.float64]
    names: Mapping[int, str]
    symmetries: dict[str, str]
    unindexed: NDArray[np.bool_]
    more: Mapping[str, Column] = field(default_factory=dict)

    def table(self) -> Table:
        """Return the points that are indexed, with the names of their phases."""
        kept = np.flatnonzero(~self.unindexed)
        phases = [self.names.get(int(number), str(int(number))) for number in self.phases[kept]]
        columns: dict[str, Column] = {
            name: NumberColumn(values[kept])
            for name, values in zip(("phi1", "Phi", "phi2", "x", "y"), (*self.angles.T, self.x, self.y), strict=True)
        }
        columns |= {"phase": TextColumn(phases)} | {name: column.take(kept) for name, column in self.more.items()}
        return Table(self.file, tuple(columns), True, list(columns.values()), (kept + 1).tolist(), row_word="point")
