"""Maps of crystal orientations in HDF5: EDAX (.h5, .oh5), Bruker (.h5), Oxford Instruments (.h5oina).

A scan is a group with ``EBSD/Data`` and ``EBSD/Header``; several scans are named as ``FILE#SCAN``. Angles are in
radians (EDAX, Oxford Instruments) or degrees (Bruker).

References:
    Jackson et al., h5ebsd: an archival data format for electron back-scatter diffraction data sets, 2014,
    doi:10.1186/2193-9772-3-4. Oxford Instruments, H5OINA file specification: https://github.com/oinanoanalysis/h5oina.
"""

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfm.datasets.formats.ebsd_maps import LAUE_GROUPS, EbsdMap
from rfm.datasets.formats.file_format import FileFormat, chosen_part, package
from rfm.datasets.table_error import TableError, shown_path
from rfm.datasets.tables import Column, NumberColumn
from rfm.datasets.text_files import FileContent

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_PLACES = (("x position", "y position"), ("x sample", "y sample"), ("xsample", "ysample"), ("x", "y"))
_NAMES = ("materialname", "phase name", "name", "formula")
_SYMMETRIES = ("laue group", "point group", "symmetry")
_WITHOUT_CONFIDENCE = -1


def _is_ebsd(source: FileContent) -> bool:
    """Return whether an HDF5 file names a group EBSD."""
    return source.content.startswith(_SIGNATURE) and b"EBSD" in source.content


def _read(source: FileContent) -> EbsdMap:
    """Read a map.

    Raises:
        TableError: there is no scan, or several and none is named, or one without orientations.
    """
    shown = shown_path(source)
    h5py = package("h5py")
    with h5py.File(io.BytesIO(source.content), "r") as file:
        maker = next((_text(file[name]) for name in file if name.strip().casefold() == "manufacturer"), "")
        scans = {name: item["EBSD"] for name, item in file.items() if isinstance(item, h5py.Group) and "EBSD" in item}
        scan = chosen_part(source, scans, "scan")
        data, header = _by_name(scan["Data"]), _by_name(scan.get("Header", {}))
        angles = _angles(shown, data, degrees="bruker" in maker.casefold())
        known, symmetries = _phases(header)
        phases = (
            np.asarray(data["phase"][()], dtype=np.float64).reshape(-1) if "phase" in data else np.zeros(len(angles))
        )
        x, y = _places(shown, data)
        confidence = _column(data, "ci")
    unindexed = (np.abs(angles) >= 4 * math.pi - 1e-3).all(1) | (phases < 0)
    # A map of one phase may count it as 0.
    unindexed |= (phases == 0) & (0 not in known) & bool((phases > 0).any())
    more: dict[str, Column] = {}
    if confidence is not None:
        unindexed |= confidence <= _WITHOUT_CONFIDENCE
        more["ci"] = NumberColumn(confidence)
    if not (phases > 0).any() and len(known) == 1:
        known = {0: next(iter(known.values()))}
    return EbsdMap(shown, angles, x, y, phases, known, symmetries, unindexed, more)


def _angles(file: str, data: dict[str, Any], degrees: bool) -> NDArray[np.float64]:
    """Return Euler angles in radians, ``(n, 3)``."""
    if "euler" in data:
        angles = np.asarray(data["euler"][()], dtype=np.float64)
        degrees = degrees or _text_of(data["euler"].attrs.get("Unit", "rad")).casefold().startswith("deg")
    elif {"phi1", "phi", "phi2"} <= set(data):
        angles = np.stack([np.asarray(data[name][()], dtype=np.float64) for name in ("phi1", "phi", "phi2")], axis=-1)
    else:
        raise TableError(f"{file}: the scan has no Euler angles (Phi1, Phi, Phi2); export the indexed map")
    angles = angles.reshape(-1, 3)
    return np.deg2rad(angles) if degrees else angles


def _places(file: str, data: dict[str, Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    for names in _PLACES:
        x, y = (_column(data, name) for name in names)
        if x is not None and y is not None:
            return x, y
    raise TableError(f"{file}: the scan has no places (X Position, Y Position); export the whole map")


def _column(data: dict[str, Any], name: str) -> NDArray[np.float64] | None:
    return np.asarray(data[name][()], dtype=np.float64).reshape(-1) if name in data else None


def _phases(header: dict[str, Any]) -> tuple[dict[int, str], dict[str, str]]:
    """Return the name of each phase by its number, and its symmetry by its name."""
    group = header.get("phases", header.get("phase", {}))
    names: dict[int, str] = {}
    symmetries: dict[str, str] = {}
    for key in group:
        if not str(key).isdecimal():
            continue
        phase, number = _by_name(group[key]), int(key)
        name = next((text for known in _NAMES if known in phase and (text := _text(phase[known]))), str(number))
        names[number] = f"{name} {number}" if name in names.values() else name
        for known in _SYMMETRIES:
            if known in phase:
                symmetries[names[number]] = _symmetry(known, phase[known])
                break
        else:
            if (space := _space_group(phase)) is not None:
                symmetries[names[number]] = space
    return names, symmetries


def _symmetry(kind: str, item: Any) -> str:
    """Return a code that `rfm.datasets.crystal_symmetry.laue_group` knows: Oxford's numbers are of Laue groups."""
    code = _text(item)
    if kind == "laue group" and code.isdecimal() and 1 <= int(code) <= len(LAUE_GROUPS):
        return LAUE_GROUPS[int(code) - 1]
    # EDAX: "Cubic (Oh) [m3m]".
    return code.rsplit("[", 1)[-1].rstrip("]") if "[" in code else code


_FIRST_SPACE_GROUPS = (1, 3, 16, 75, 89, 143, 149, 168, 177, 195, 207)
"""The first space group of each Laue group, in the order of `LAUE_GROUPS`."""


def _space_group(phase: dict[str, Any]) -> str | None:
    """Return the Laue group of a space group, as Bruker numbers them (IT), or None."""
    for name in ("it", "space group", "spacegroup"):
        if name in phase and (text := _text(phase[name])).isdecimal() and 1 <= int(text) <= 230:
            return LAUE_GROUPS[int(np.searchsorted(_FIRST_SPACE_GROUPS, int(text), side="right")) - 1]
    return None


def _by_name(group: Any) -> dict[str, Any]:
    return {str(name).strip().casefold(): group[name] for name in group}


def _text(item: Any) -> str:
    return _text_of(np.asarray(item[()]).reshape(-1)[0])


def _text_of(value: Any) -> str:
    return (value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)).strip()


EBSD_HDF5 = FileFormat("a map of orientations in HDF5", _is_ebsd, _read, "tables")
