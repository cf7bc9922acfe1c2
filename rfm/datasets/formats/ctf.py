"""Channel text files (.ctf): maps of crystal orientations as Oxford Instruments, Bruker, MTEX and EMsoft export them.

A header of words and tabs, a line for each phase (lattice, angles, name, number of the Laue group, space group), then a
line for each point of the map, Bunge's Euler angles in degrees. Phase 0 is not indexed.
"""

import math
import re

import numpy as np

from rfm.datasets.formats.ebsd_maps import LAUE_GROUPS, EbsdMap
from rfm.datasets.formats.file_format import FileFormat, refuse_part
from rfm.datasets.table_error import TableError, shown_path
from rfm.datasets.tables import NumberColumn, TextColumn
from rfm.datasets.text_files import FileContent

_BEGINNING = 2000
_COLUMNS = ("phase", "x", "y", "bands", "error", "euler1", "euler2", "euler3")


def _is_ctf(source: FileContent) -> bool:
    """Return whether a file begins like a channel text file."""
    return re.search(rb"^channel text file", source.content[:_BEGINNING], re.IGNORECASE | re.MULTILINE) is not None


def _read(source: FileContent) -> EbsdMap:
    """Read a channel text file.

    Raises:
        TableError: it has no header of columns, other columns than these, or a row of another length.
    """
    file = shown_path(source)
    refuse_part(source, "a channel text file")
    # Names of people and places in the header may be in any encoding.
    lines = source.content.decode("utf-8", errors="replace").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    first = next((i for i, line in enumerate(lines) if re.match(r"phase\tx\ty\t", line, re.IGNORECASE)), None)
    if first is None:
        raise TableError(f"{file}: this channel text file (.ctf) has no line Phase X Y ...; export the map again")
    names = [name.strip().casefold() for name in lines[first].strip().split("\t")]
    if tuple(names[:8]) != _COLUMNS:
        raise TableError(
            f"{file}: the columns of this .ctf file are {', '.join(names[:8])}, where {', '.join(_COLUMNS)} are "
            "expected; export the map again"
        )
    body = [(i, line.split()) for i, line in enumerate(lines[first + 1 :], start=first + 2) if line.strip()]
    for i, cells in body:
        if len(cells) < len(names):
            raise TableError(f"{file}, line {i}: {len(cells)} cells, but {len(names)} names; export the map again")
    # Written where commas separate decimals, too.
    columns = [TextColumn([cells[k].replace(",", ".") for _, cells in body]).numbers for k in range(len(names))]
    known, symmetries = _phases(lines[:first])
    numbers = columns[0]
    angles = np.stack(columns[5:8], axis=1) * (math.pi / 180) if body else np.empty((0, 3))
    more = {name: NumberColumn(cells) for name, cells in zip(names, columns, strict=True) if name not in _COLUMNS}
    bad = np.flatnonzero(~np.isfinite(np.stack([numbers, *angles.T, *columns[1:3]], axis=1)).all(axis=1))
    if len(bad):
        raise TableError(f"{file}, line {body[int(bad[0])][0]}: a cell is no number; export the map again")
    return EbsdMap(file, angles, columns[1], columns[2], numbers, known, symmetries, numbers <= 0, more)


def _phases(header: list[str]) -> tuple[dict[int, str], dict[str, str]]:
    """Return the name of each phase by its number, and its Laue group by its name."""
    start = next((i for i, line in enumerate(header) if re.match(r"phases\t\d+", line, re.IGNORECASE)), None)
    names: dict[int, str] = {}
    symmetries: dict[str, str] = {}
    if start is None:
        return names, symmetries
    for number in range(1, int(header[start].split("\t")[1]) + 1):
        cells = header[start + number].split("\t") if start + number < len(header) else []
        if len(cells) > 3:
            name = cells[2].strip() or str(number)
            names[number] = f"{name} {number}" if name in names.values() else name
            if cells[3].strip().isdecimal() and 1 <= int(cells[3]) <= len(LAUE_GROUPS):
                symmetries[names[number]] = LAUE_GROUPS[int(cells[3]) - 1]
    return names, symmetries


CTF = FileFormat("a channel text file (.ctf)", _is_ctf, _read)
