"""Maps of orientations: channel text files and the vendors' HDF5, beside what orix reads of the same files."""

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import orix.io
import orix.quaternion.symmetry
import pytest
import torch
from orix.quaternion import Rotation

from manifolds import SO3, Cyclic, Turned
from rfm.datasets import TableError, read_orientation_map, read_points, read_table
from rfm.datasets.crystal_symmetry import LAUE_NAMES, group_named, laue_group

RNG = np.random.default_rng(0)
ROWS, COLUMNS = 3, 4
COUNT = ROWS * COLUMNS
EULER = RNG.uniform((0, 0, 0), (360, 180, 360), (COUNT, 3)).round(4)
Y, X = (grid.reshape(-1) * 1.5 for grid in np.mgrid[:ROWS, :COLUMNS])
PHASES = np.array([1, 2, 1, 0] * ROWS)

CTF_HEADER = """Channel Text File
Prj\tmap.cpr
Author\tJos\xe9
JobMode\tGrid
XCells\t4
YCells\t3
XStep\t1.5
YStep\t1.5
AcqE1\t0
AcqE2\t0
AcqE3\t0
Euler angles refer to Sample Coordinate system (CS0)!\tMag\t300\tCoverage\t100
Phases\t2
3.660;3.660;3.660\t90.000;90.000;90.000\tIron fcc\t11\t225\t\t\tx
2.95;2.95;4.68\t90;90;120\tTitanium\t9\t194\t\t\tx
Phase\tX\tY\tBands\tError\tEuler1\tEuler2\tEuler3\tMAD\tBC\tBS
"""


def ctf(file: Path, header: str = CTF_HEADER, end: str = "\r\n", comma: bool = False) -> Path:
    rows = [
        f"{PHASES[i]}\t{X[i]:.4f}\t{Y[i]:.4f}\t8\t0\t" + "\t".join(f"{x:.4f}" for x in EULER[i]) + "\t0.5\t100\t90\n"
        for i in range(COUNT)
    ]
    body = "".join(rows)
    file.write_bytes((header + (body.replace(".", ",") if comma else body)).replace("\n", end).encode("latin-1"))
    return file


def matrices(rotations: Rotation) -> np.ndarray:  # type: ignore[type-arg]
    """From crystal to sample, where orix has them from sample to crystal."""
    return np.swapaxes(rotations.to_matrix(), -1, -2)


@pytest.mark.parametrize(("end", "comma"), [("\n", False), ("\r\n", False), ("\r\n", True)])
def test_channel_text_files(tmp_path: Path, end: str, comma: bool) -> None:
    file = ctf(tmp_path / "map.ctf", end=end, comma=comma)
    found = read_orientation_map(file)
    kept = PHASES > 0
    assert found.dropped == int((~kept).sum())
    assert found.phases == [{1: "Iron fcc", 2: "Titanium"}[p] for p in PHASES[kept]]
    assert found.symmetries == {"Iron fcc": "m-3m", "Titanium": "6/mmm"}
    np.testing.assert_allclose(found.places, np.stack([X, Y], axis=1)[kept], atol=1e-9)
    if not comma:
        plain = ctf(tmp_path / "plain.ctf", header=CTF_HEADER.replace("\xe9", "e"))
        theirs = orix.io.load(str(plain))
        indexed = theirs.is_indexed
        np.testing.assert_allclose(found.points(), matrices(theirs.rotations[indexed]), atol=1e-6)
    table, layout = read_points(file)
    assert layout == "ang"
    assert len(table) == int(kept.sum())


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (CTF_HEADER.rsplit("Phase\tX", 1)[0], "has no line Phase X Y"),
        (CTF_HEADER.replace("Bands\tError", "Error\tBands"), "the columns of this .ctf file are phase, x, y, error"),
        (CTF_HEADER.replace("BC\tBS", "BC\tBS\tmore"), "line 17: 11 cells, but 12 names"),
    ],
)
def test_channel_text_files_that_cannot_be_read(tmp_path: Path, header: str, message: str) -> None:
    with pytest.raises(TableError, match=message):
        read_orientation_map(ctf(tmp_path / "map.ctf", header=header))


def write_h5(file: Path, maker: str, scans: dict[str, dict[str, dict[str, Any]]]) -> Path:
    with h5py.File(file, "w") as out:
        out["Manufacturer" if maker != "EDAX" else " Manufacturer"] = maker.encode()
        out["Version"] = b"1"
        for name, scan in scans.items():
            for path, value in {**scan["Data"]}.items():
                out[f"{name}/EBSD/Data/{path}"] = value
            for path, value in scan["Header"].items():
                out[f"{name}/EBSD/Header/{path}"] = value
            for path, value in scan.get("SEM", {}).items():
                out[f"{name}/EBSD/SEM/{path}"] = value
    return file


EDAX = {
    "Data": {
        **{name: np.deg2rad(EULER[:, i]).astype(np.float32) for i, name in enumerate(("Phi1", "Phi", "Phi2"))},
        "X Position": X.astype(np.float32),
        "Y Position": Y.astype(np.float32),
        "Phase": np.where(PHASES == 0, -1, PHASES - 1).astype(np.int8) + 1,
        "CI": np.where(np.arange(COUNT) == 5, -1, 0.5).astype(np.float32),
    },
    "Header": {
        "Phase/1/MaterialName": np.array([b"Iron"]),
        "Phase/1/Symmetry": np.array([43], dtype=np.int32),
        "Phase/2/MaterialName": np.array([b"Titanium"]),
        "Phase/2/Symmetry": np.array([62], dtype=np.int32),
    },
}
OXFORD = {
    "Data": {
        "Euler": np.deg2rad(EULER).astype(np.float32),
        "X": X.astype(np.float32),
        "Y": Y.astype(np.float32),
        "Phase": PHASES.astype(np.uint8),
    },
    "Header": {
        "Phases/1/Phase Name": np.array([b"Iron"]),
        "Phases/1/Laue Group": np.array([11], dtype=np.int32),
        "Phases/2/Phase Name": np.array([b"Titanium"]),
        "Phases/2/Laue Group": np.array([9], dtype=np.int32),
    },
}
LATTICE = np.array([3.66, 3.66, 3.66, 90, 90, 90], dtype=np.float32)
BRUKER = {
    "Data": {
        **{name: EULER[:, i] for i, name in enumerate(("phi1", "PHI", "phi2"))},
        "X SAMPLE": X,
        "Y SAMPLE": Y,
        "XSAMPLE": X,
        "YSAMPLE": Y,
        "Phase": PHASES.astype(np.int32),
        "MAD": np.full(COUNT, 0.5),
        **{
            name: np.full(COUNT, 0.5)
            for name in (
                "PCX",
                "PCY",
                "DD",
                "MADPhase",
                "NIndexedBands",
                "RadonBandCount",
                "RadonQuality",
                "Z SAMPLE",
                "X BEAM",
                "Y BEAM",
            )
        },
    },
    "Header": {
        "Phases/1/Name": b"Iron",
        "Phases/1/IT": 225,
        "Phases/1/SpaceGroup": b"F m#ovl3m",
        "Phases/1/LatticeConstants": LATTICE,
        "Phases/1/AtomPositions/1": b"Fe,0,0,0,1,0",
        "Phases/2/Name": b"Titanium",
        "Phases/2/IT": 194,
        "Phases/2/SpaceGroup": b"P 6#sub3/mmc",
        "Phases/2/LatticeConstants": LATTICE,
        "Phases/2/AtomPositions/1": b"Ti,0,0,0,1,0",
        "NCOLS": COLUMNS,
        "NROWS": ROWS,
        "XSTEP": 1.5,
        "YSTEP": 1.5,
        "Grid Type": b"isometric",
    },
    "SEM": {"IX": np.tile(np.arange(COLUMNS), ROWS), "IY": np.repeat(np.arange(ROWS), COLUMNS)},
}
VENDORS = {"EDAX": ("EDAX", EDAX), "Oxford": ("Oxford Instruments", OXFORD), "Bruker": ("Bruker Nano", BRUKER)}


@pytest.mark.parametrize("name", VENDORS)
def test_maps_in_hdf5(tmp_path: Path, name: str) -> None:
    maker, scan = VENDORS[name]
    file = write_h5(tmp_path / "map.h5", maker, {"Scan 1": scan})
    found = read_orientation_map(file)
    kept = PHASES > 0
    if name == "EDAX":
        kept = kept & (np.arange(COUNT) != 5)
    assert found.dropped == COUNT - int(kept.sum())
    assert found.phases == [{1: "Iron", 2: "Titanium"}[p] for p in PHASES[kept]]
    assert {phase: laue_group(code) for phase, code in found.symmetries.items()} == {
        "Iron": "m-3m",
        "Titanium": "6/mmm",
    }
    np.testing.assert_allclose(found.places, np.stack([X, Y], axis=1)[kept], atol=1e-6)
    want = Rotation.from_euler(EULER[kept], degrees=True)
    np.testing.assert_allclose(found.points(), matrices(want), atol=1e-6)
    assert read_points(file)[1] == "ang"


def test_brukers_map_as_orix_reads_it(tmp_path: Path) -> None:
    scan = {**BRUKER, "Data": {**BRUKER["Data"], "Phase": np.ones(COUNT, dtype=np.int32)}}
    file = write_h5(tmp_path / "map.h5", "Bruker Nano", {"Scan 1": scan})
    theirs = orix.io.load(str(file))
    ours = read_orientation_map(file)
    np.testing.assert_allclose(ours.points(), matrices(theirs.rotations), atol=1e-7)


def test_several_scans_are_named(tmp_path: Path) -> None:
    file = write_h5(tmp_path / "map.h5oina", "Oxford Instruments", {"1": OXFORD, "2": OXFORD})
    assert len(read_orientation_map(f"{file}#2")) == int((PHASES > 0).sum())
    with pytest.raises(TableError, match=r"there are 2 scans in it, 1, 2; name one, for instance .*map.h5oina#1"):
        read_orientation_map(file)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"X": X, "Y": Y}, "the scan has no Euler angles"),
        ({"Euler": np.zeros((COUNT, 3))}, "the scan has no places"),
        ({"Euler": np.full((COUNT, 3), 7.0), "X": X, "Y": Y}, "12 of 12 points have Euler angles of more than a turn"),
        ({"Euler": np.full((COUNT, 3), 4 * math.pi), "X": X, "Y": Y}, "0 of 12 points are indexed"),
    ],
)
def test_maps_that_cannot_be_read(tmp_path: Path, data: dict[str, Any], message: str) -> None:
    file = write_h5(tmp_path / "map.h5", "Oxford Instruments", {"1": {"Data": data, "Header": {}}})
    with pytest.raises(TableError, match=message):
        read_orientation_map(file)


def test_other_hdf5_is_a_table(tmp_path: Path) -> None:
    with h5py.File(file := tmp_path / "t.h5", "w") as out:
        out["quakes/lat"], out["quakes/lon"], out["scale"] = X, Y, 3.0
    np.testing.assert_array_equal(read_table(file).numbers(["lat", "lon"]), np.stack([X, Y], axis=1))
    with h5py.File(file, "a") as out:
        out["records"] = np.array([(1.0, 2)], dtype=[("lat", "f8"), ("n", "i4")])
    with pytest.raises(TableError, match="there are 2 groups in it"):
        read_table(file)
    assert read_table(f"{file}#records").rows == [("1", "2")]
    with h5py.File(file := tmp_path / "none.h5", "w") as out:
        out["scale"] = 3.0
    with pytest.raises(TableError, match="there is no group with a table in it"):
        read_table(file)


_POINT_GROUPS = {
    "-1": "Ci",
    "2/m": "C2h",
    "mmm": "D2h",
    "4/m": "C4h",
    "4/mmm": "D4h",
    "-3": "S6",
    "-3m": "D3d",
    "6/m": "C6h",
    "6/mmm": "D6h",
    "m-3": "Th",
    "m-3m": "Oh",
}


def as_set(elements: np.ndarray) -> set[tuple[float, ...]]:  # type: ignore[type-arg]
    return {tuple(np.round(element, 6).reshape(-1) + 0.0) for element in elements}


@pytest.mark.parametrize("name", _POINT_GROUPS)
def test_laue_groups_are_those_of_orix(name: str) -> None:
    theirs = getattr(orix.quaternion.symmetry, _POINT_GROUPS[name]).laue_proper_subgroup
    own = group_named(name)
    assert as_set(own.matrices.numpy()) == as_set(theirs.to_matrix())
    assert as_set(group_named(name.replace("/", "")).matrices.numpy()) == as_set(own.matrices.numpy())


@pytest.mark.parametrize("name", LAUE_NAMES)
def test_invariants_tell_classes_apart(name: str) -> None:
    group = group_named(name)
    x = SO3().random_uniform(20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    invariants = group.invariants(x)
    for element in group.matrices.double():
        torch.testing.assert_close(group.invariants(x @ element), invariants, atol=1e-12, rtol=0)
    assert float(torch.cdist(invariants, invariants).fill_diagonal_(1).min()) > 1e-3


def test_settings_are_the_same_groups_about_other_axes() -> None:
    for name, other in (("2/m", "2/m-b"), ("-3m", "-31m")):
        plain, turned = group_named(name), group_named(other)
        assert as_set(plain.matrices.numpy()) != as_set(turned.matrices.numpy())
        assert plain.order == turned.order
        half = torch.diag(torch.tensor([-1.0, 1.0, -1.0], dtype=torch.float64))
        assert as_set(half.numpy()[None]) <= as_set(turned.matrices.numpy())
    with pytest.raises(ValueError, match="rotation must be three rows of a rotation"):
        Turned(Cyclic(2), ((1, 0, 0), (0, 1, 0), (0, 0, 2)))
