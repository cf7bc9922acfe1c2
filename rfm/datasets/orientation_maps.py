"""Maps of crystal orientations: the files of electron backscatter diffraction.

Those of Oxford Instruments and others (.ctf), and the vendors' HDF5, are read by `rfm.datasets.formats`. In an .ang
file a row holds Bunge's Euler angles in radians, the place on the map, image quality, confidence and phase. Rows that
the file marks as not indexed are dropped: a negative confidence, Euler angles of 4 pi, or a phase that is negative, or
0 among rows of phases that the header lists. In a map of one phase all rows may say 0. Headers are those of EDAX's
programs, of EMsoft, orix and MTEX.
"""

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rfm.datasets.formats.ctf import CTF
from rfm.datasets.formats.ebsd_hdf5 import EBSD_HDF5
from rfm.datasets.formats.ebsd_maps import EbsdMap
from rfm.datasets.rotation_columns import rotations_from
from rfm.datasets.table_reading import format_of
from rfm.datasets.tables import Column, Table, TableError, TextColumn
from rfm.datasets.text_files import FileContent, read_once
from rfm.datasets.text_tables import read_header, read_text_table

COLUMNS = ("phi1", "Phi", "phi2", "x", "y", "iq", "ci", "phase")
_FIRST_WORDS = ("TEM_PIXperUM", "GRID: SqrGrid", "GRID: HexGrid")
"""Of the header lines that only .ang files have."""
_MAPS = (CTF, EBSD_HDF5)


@dataclass(frozen=True, eq=False)
class OrientationMap:
    """A map, as read.

    Args:
        table: the rows that are indexed, with a header; the phase is its name where the file gives one.
        dropped: how many rows were marked as not indexed.
        symmetries: the file's code for the crystal symmetry of each phase by name; phases without one are left out.
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
        return list(self.table.texts("phase"))

    def points(self) -> Tensor:
        """Return the orientations, float64 ``(n, 3, 3)``, from crystal coordinates to those of the sample."""
        return rotations_from(self.table.numbers(COLUMNS[:3]), "bunge", self.table, radians=True)


def is_orientation_map(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is a map: by its content, or called ``*.ang``; what comes through a pipe has no name."""
    source = read_once(path)
    if any(known.recognises(source) for known in _MAPS):
        return True
    if format_of(source) is not None:
        return False
    if Path(path).suffix.lower() == ".ang":
        return True
    header = read_header(source)
    return any(line.strip().startswith(_FIRST_WORDS) for line in header)


def read_orientation_map(path: str | os.PathLike[str], minimum_rows: int = 1) -> OrientationMap:
    """Read a map: an .ang or .ctf file, or HDF5 as the vendors write it.

    Raises:
        TableError: it cannot be read, has too few columns or rows, or its angles are no radians.
    """
    source = read_once(path)
    for known in _MAPS:
        if known.recognises(source):
            return _indexed(known.content_of(source), minimum_rows)
    return _read_ang(source, minimum_rows)


def _indexed(measured: EbsdMap, minimum_rows: int) -> OrientationMap:
    """Return a map without what is not indexed."""
    outside = (np.abs(measured.angles) > 2 * math.pi + 1e-3).any(1) & ~measured.unindexed
    if outside.any():
        raise TableError(
            f"{measured.file}: {int(outside.sum())} of {len(outside)} points have Euler angles of more than a turn; "
            "export the map again"
        )
    left = int((~measured.unindexed).sum())
    if left < max(minimum_rows, 1):
        raise TableError(
            f"{measured.file}: {left} of {len(measured.phases)} points are indexed; export more of the map"
        )
    return OrientationMap(measured.table(), int(measured.unindexed.sum()), measured.symmetries)


def _read_ang(path: FileContent, minimum_rows: int) -> OrientationMap:
    raw = read_text_table(path, minimum_rows)
    if raw.has_header or len(raw.names) < len(COLUMNS):
        raise TableError(
            f"{raw.file}: a row of an .ang file has at least 8 numbers (phi1 Phi phi2 x y quality confidence phase), "
            f"here there {'is a header' if raw.has_header else f'are {len(raw.names)}'}; "
            "export the map again, or name a table .csv and give --columns"
        )
    numbers, header = raw.numbers(raw.names[: len(COLUMNS)]), read_header(path)
    angles, confidence = numbers[:, :3], numbers[:, 6]
    _check_order(raw, header)
    names, symmetries = _phases(header)
    phases = numbers[:, 7].astype(np.int64)
    # A map of one phase may count it as 0.
    counted = bool(np.isin(phases, [number for number in names if number]).any())
    unindexed = (confidence < 0) | (np.abs(angles) >= 4 * math.pi - 1e-3).all(1) | (phases < 0)
    unindexed |= (phases == 0) & (counted and 0 not in names)
    indexed = np.flatnonzero(~unindexed)
    outside = indexed[(np.abs(angles[indexed]) > 2 * math.pi + 1e-3).any(1)]
    if len(outside):
        row = int(outside[0])
        worst = angles[row][np.abs(angles[row]).argmax()]
        raise raw.error(row, f"{worst:.6g} is no Euler angle in radians", "export the map with angles in radians")
    if len(indexed) < max(minimum_rows, 1):
        raise TableError(f"{raw.file}: {len(indexed)} of {len(raw)} rows are indexed; export more of the map")
    if not counted and len(names) == 1:
        names = dict(zip((0,), names.values(), strict=True))
    columns: list[Column] = [column.take(indexed) for column in raw.columns]
    columns[7] = TextColumn([names.get(int(phases[i]), raw.columns[7].text(i)) for i in indexed])
    extra = tuple(f"column_{i}" for i in range(len(COLUMNS) + 1, len(raw.names) + 1))
    lines = [raw.lines[i] for i in indexed]
    return OrientationMap(Table(raw.file, (*COLUMNS, *extra), True, columns, lines), int(unindexed.sum()), symmetries)


def _phases(header: Sequence[str]) -> tuple[dict[int, str], dict[str, str]]:
    """Return the name of each phase by its number, and its symmetry code by its name."""
    phases: dict[int, dict[str, str]] = {}
    for line in header:
        match = re.match(r"\s*(phase|materialname|formula|symmetry)(?:\s*[:=]\s*|\s+)(\S.*?)\s*$", line, re.IGNORECASE)
        if match is None:
            continue
        word, rest = match[1].casefold(), match[2]
        if word == "phase":
            if rest.isdecimal():
                phases[int(rest)] = {}
        elif phases:
            phases[list(phases)[-1]].setdefault(word, rest)
    phase_names = {number: _name(number, phase) for number, phase in phases.items()}
    # Two phases of one name could not be distinguished.
    twice = {name for name in phase_names.values() if list(phase_names.values()).count(name) > 1}
    phase_names = {number: f"{name} {number}" if name in twice else name for number, name in phase_names.items()}
    return phase_names, {
        phase_names[number]: phase["symmetry"] for number, phase in phases.items() if "symmetry" in phase
    }


def _name(number: int, phase: dict[str, str]) -> str:
    return phase.get("materialname", phase.get("formula", str(number))).rsplit("/", 1)[-1].strip() or str(number)


def _check_order(raw: Table, header: Sequence[str]) -> None:
    """Refuse a header that lists the columns in another order."""
    for line in header:
        match = re.match(r"\s*column[_ ](?:headers|names)\s*:\s*(.*)", line, re.IGNORECASE)
        names = [name.strip().casefold() for name in match[1].split(",")] if match else []
        starts = ("phi1", "phi", "phi2", "x", "y", None, None, "phase")
        for name, start in zip(names, starts, strict=False):
            if start is not None and not (name == start or (start == "phase" and name.startswith(start))):
                raise TableError(
                    f"{raw.file}: the header lists the columns as {', '.join(names[:8])}, and an .ang file has "
                    f"{', '.join(COLUMNS)}; export the map again, or name a table .csv and give --columns"
                )
