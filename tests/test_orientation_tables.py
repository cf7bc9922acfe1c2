"""Orientations in tables: Bunge's convention, .ang maps, quaternions, and what is refused."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from manifolds import (
    SO3,
    Cyclic,
    Dihedral,
    LeftMultiplication,
    Octahedral,
    Quotient,
    RightMultiplication,
    RotationGroup,
    Sphere,
    Tetrahedral,
)
from rfm.command_line.named_objects import check_symmetry
from rfm.datasets import (
    Orientations,
    TableError,
    block_labels,
    choose_coordinates,
    group_split,
    read_orientation_map,
    read_points,
    steel,
    write_table,
)
from rfm.datasets.coordinate_choice import coordinates_from_dict
from rfm.datasets.crystal_symmetry import laue_group

CUBIC = Quotient(SO3(), RightMultiplication(Octahedral()))
ANG = """\
# Phase 1
# MaterialName  iron/austenite
# Symmetry      43
# Phase 2
# MaterialName  iron/ferrite
# Symmetry      43
0.10000 0.20000 0.30000 0.0 0.0 24.4 0.799 2
1.10000 0.20000 6.20000 1.5 0.0 24.0 0.797 1
12.56637 12.56637 12.56637 3.0 0.0 1.0 0.2 1
0.50000 0.60000 0.70000 4.5 0.0 1.0 -1.0 1
"""


def table_of(folder: Path, text: str, name: str = "points.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def bunge_g(phi1: float, big: float, phi2: float) -> torch.Tensor:
    """Bunge's matrix, which takes sample coordinates to crystal coordinates, entry by entry (1982, equation 2.50)."""
    c1, s1, c, s, c2, s2 = (f(a) for a in (phi1, big, phi2) for f in (math.cos, math.sin))
    rows = [
        [c1 * c2 - s1 * s2 * c, s1 * c2 + c1 * s2 * c, s2 * s],
        [-c1 * s2 - s1 * c2 * c, -s1 * s2 + c1 * c2 * c, c2 * s],
        [s1 * s, -c1 * s, c],
    ]
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize(
    ("degrees", "plane", "direction"),
    [
        ((0, 45, 0), (0, 1, 1), (1, 0, 0)),  # Goss
        ((35.264, 45, 0), (0, 1, 1), (2, 1, -1)),  # brass
        ((90, 35.264, 45), (1, 1, 2), (-1, -1, 1)),  # copper
        ((0, 0, 0), (0, 0, 1), (1, 0, 0)),  # cube
    ],
)
def test_named_textures_have_their_plane_and_direction(
    tmp_path: Path, degrees: tuple[float, ...], plane: tuple[int, ...], direction: tuple[int, ...]
) -> None:
    """The sample's normal is the crystal's plane normal {hkl}, its rolling direction <uvw>: R' takes them there."""
    text = "phi1,Phi,phi2\n" + ",".join(map(str, degrees)) + "\n"
    table, layout = read_points(table_of(tmp_path, text))
    r = choose_coordinates(CUBIC, table, layout=layout).points(table)[0]
    torch.testing.assert_close(r.mT, bunge_g(*map(math.radians, degrees)), rtol=0, atol=1e-12)
    for axis, crystal in (((0, 0, 1), plane), ((1, 0, 0), direction)):
        found = r.mT @ torch.tensor(axis, dtype=torch.float64)
        wanted = torch.nn.functional.normalize(torch.tensor(crystal, dtype=torch.float64), dim=0)
        family = torch.cat(
            [CUBIC.group.orbit(torch.eye(3).double()) @ wanted, CUBIC.group.orbit(-torch.eye(3).double()) @ wanted]
        )
        assert float((family - found).norm(dim=-1).min()) < 1e-4


def test_the_symmetry_of_the_crystal_acts_from_the_right() -> None:
    """What a symmetry of the crystal does not change: the axes of the cube in the sample."""
    r = SO3().random_uniform(5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    axes = torch.cat([torch.eye(3), -torch.eye(3)]).double()
    turned = CUBIC.group.orbit(r) @ axes.mT
    for images, own in zip(turned, r @ axes.mT, strict=True):
        for image in images:
            assert float(torch.cdist(own.mT, image.mT).amin(1).max()) < 1e-12


def test_a_map_says_what_it_drops(tmp_path: Path) -> None:
    found = read_orientation_map(table_of(tmp_path, ANG, "map.ang"))
    assert (len(found), found.dropped, found.phases) == (2, 2, ["ferrite", "austenite"])
    assert found.symmetries == {"austenite": "43", "ferrite": "43"}
    expected = torch.stack([bunge_g(0.1, 0.2, 0.3).mT, bunge_g(1.1, 0.2, 6.2).mT])
    torch.testing.assert_close(found.points(), expected)
    np.testing.assert_array_equal(found.places, [[0, 0], [1.5, 0]])


ROWS = "0.10000 0.20000 0.30000 0.0 0.0 24.4 0.799 {}\n"


@pytest.mark.parametrize(
    ("header", "symmetries"),
    [
        ("# Phase 1\n# MaterialName  \tNickel\n# Formula   \tNi\n# Symmetry\t43\n", {"Nickel": "43"}),
        ("#\tPhase\t1\n#\tMaterialName\tNickel\n#\tSymmetry\t\t62\n", {"Nickel": "62"}),
        ("# PHASE: 1\n# MATERIALNAME: Nickel\n# SYMMETRY: m-3m\n", {"Nickel": "m-3m"}),
        (
            "# Symmetry 1\n# Phase 1\n# Symmetry   432\n# MaterialName   Nickel\n# Phase index of columns\n",
            {"Nickel": "432"},
        ),
        ("# Phase 1\n# Formula  Nickel\n# MaterialName\n# Symmetry 43\n", {"Nickel": "43"}),
        ("# Phase 1\r\n# MaterialName  metals/Nickel\r\n# Symmetry  43\r\n", {"Nickel": "43"}),
        ("# Phase 1\n# MaterialName  Nickel\n# Symmetry\n", {}),
    ],
)
@pytest.mark.parametrize("phase", [0, 1])
def test_one_phase_has_its_name_and_symmetry_in_every_dialect(
    tmp_path: Path, header: str, symmetries: dict[str, str], phase: int
) -> None:
    text = header + ROWS.format(phase) + "# a comment between\n" + ROWS.format(phase)
    found = read_orientation_map(table_of(tmp_path, text, "map.ang"))
    assert (found.phases, found.dropped, found.symmetries) == (["Nickel"] * 2, 0, symmetries)


def test_phases_that_are_not_indexed_are_dropped(tmp_path: Path) -> None:
    two = "# Phase 1\n# MaterialName  a\n# Symmetry 43\n# Phase 2\n# MaterialName  b\n# Symmetry 62\n"
    rows = "".join(ROWS.format(phase) for phase in (-1, 1, 0, 2, 1, -1))
    found = read_orientation_map(table_of(tmp_path, two + rows, "map.ang"))
    assert (found.phases, found.dropped) == (["a", "b", "a"], 3)
    one = "# Phase 1\n# MaterialName  a\n" + "".join(ROWS.format(phase) for phase in (1, 0, -1))
    assert read_orientation_map(table_of(tmp_path, one, "map.ang")).phases == ["a"]
    none = "".join(ROWS.format(phase) for phase in (0, 0, -1))
    assert read_orientation_map(table_of(tmp_path, none, "map.ang")).phases == ["0", "0"]


def test_two_phases_of_one_name_are_told_apart(tmp_path: Path) -> None:
    header = "# Phase 1\n# MaterialName  a\n# Symmetry 43\n# Phase 2\n# MaterialName  a\n# Symmetry 62\n"
    found = read_orientation_map(table_of(tmp_path, header + ROWS.format(1) + ROWS.format(2), "map.ang"))
    assert found.phases == ["a 1", "a 2"]
    assert found.symmetries == {"a 1": "43", "a 2": "62"}


def test_the_order_that_a_header_lists(tmp_path: Path) -> None:
    line = "# COLUMN_HEADERS: {}, IQ, CI, Phase index, SEM, Fit\n"
    read_orientation_map(table_of(tmp_path, line.format("phi1, PHI, phi2, x, y") + ROWS.format(0), "map.ang"))
    with pytest.raises(TableError, match="the header lists the columns as x, y, phi1, phi, phi2"):
        read_orientation_map(table_of(tmp_path, line.format("x, y, phi1, PHI, phi2") + ROWS.format(0), "map.ang"))


GROUPS = {
    "43": Octahedral(),
    "23": Tetrahedral(),
    "62": Dihedral(6),
    "6": Cyclic(6),
    "42": Dihedral(4),
    "4": Cyclic(4),
    "32": Dihedral(3),
    "3": Cyclic(3),
    "22": Dihedral(2),
    "20": Cyclic(2),
}


@pytest.mark.parametrize("code", GROUPS)
def test_a_manifold_has_the_symmetry_of_the_file_or_is_refused(tmp_path: Path, code: str) -> None:
    text = f"# Phase 1\n# MaterialName  a\n# Symmetry\t{code}\n" + ROWS.format(0)
    measured = read_orientation_map(table_of(tmp_path, text, "map.ang"))
    assert check_symmetry("so3", SO3(), measured) == []
    sample = Quotient(SO3(), LeftMultiplication(Dihedral(2)))
    assert check_symmetry("sample", sample, measured) == []
    for other, group in GROUPS.items():
        for own in (Quotient(SO3(), RightMultiplication(group)), Quotient(sample, RightMultiplication(group))):
            if other == code:
                notes = check_symmetry("my:own", own, measured)
                assert all("was not verified" in note for note in notes)
                assert bool(notes) == (code in ("32", "20"))
            else:
                with pytest.raises(
                    ValueError, match=f"phase a has the symmetry {code}, and my:own has .* other rotations"
                ):
                    check_symmetry("my:own", own, measured)


def test_what_cannot_be_verified_is_said(tmp_path: Path) -> None:
    silent = read_orientation_map(table_of(tmp_path, ROWS.format(0), "map.ang"))
    [note] = check_symmetry("so3/cubic", CUBIC, silent)
    assert "says no symmetry of phase 0" in note
    [note] = check_symmetry("my:own", Sphere(2), read_orientation_map(table_of(tmp_path, ANG, "map.ang")))
    assert "the symmetry of my:own is not known to be that of the file: 43 of phase austenite" in note
    # Turned about the third axis by 20 degrees the cube is not the crystal's.
    turn = SO3().expmap(
        torch.eye(3).double(), math.radians(20) * torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 0]]).double()
    )
    matrices = turn @ Octahedral().matrices @ turn.mT
    turned = Quotient(SO3(), RightMultiplication(RotationGroup(matrices, math.pi / 2, [([(1, 0, 0)], 4)])))
    with pytest.raises(ValueError, match="has the symmetry 43"):
        check_symmetry("my:own", turned, read_orientation_map(table_of(tmp_path, ANG, "map.ang")))


@pytest.mark.parametrize(
    ("names", "laue"),
    [
        (("43", "432", "m-3m", "m3m", "-43m", "Oh", "M-3M"), "m-3m"),
        (("62", "622", "6/mmm", "D6h"), "6/mmm"),
        (("42", "422", "4/mmm"), "4/mmm"),
        (("32", "-3m", "321", "D3d"), "-3m"),
        (("22", "222", "mmm"), "mmm"),
        (("2", "20", "2/m"), "2/m"),
        (("nothing", "99", ""), None),
    ],
)
def test_names_of_laue_groups(names: tuple[str, ...], laue: str | None) -> None:
    assert {laue_group(name) for name in names} == {laue}


@pytest.mark.parametrize("convention", ["bunge", "xyzw", "wxyz", "matrix"])
def test_rotations_are_written_as_they_were_read(tmp_path: Path, convention: str) -> None:
    r = SO3().random_uniform(50, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    columns = {"bunge": ("phi1", "Phi", "phi2"), "xyzw": ("qx", "qy", "qz", "qw"), "wxyz": ("qw", "qx", "qy", "qz")}
    matrix = tuple(f"r{i}{j}" for i in (1, 2, 3) for j in (1, 2, 3))
    coordinates = Orientations(columns.get(convention, matrix), convention)
    assert coordinates_from_dict(coordinates.to_dict()) == coordinates
    file = tmp_path / "r.csv"
    write_table(file, coordinates.names, coordinates.columns_of(r))
    table, layout = read_points(file)
    chosen = choose_coordinates(SO3(), table, layout=layout)
    torch.testing.assert_close(chosen.points(table), r, rtol=0, atol=1e-12)
    # The order of a quaternion is in its names, wherever its columns stand.
    assert set(chosen.columns) == set(coordinates.columns)
    scores = coordinates.score_columns(torch.tensor([-math.log(8 * math.pi**2)]))
    assert float(scores["multiples_of_uniform"][0]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "text", "columns", "message"),
    [
        ("a.csv", "qw,qx,qy,qz\n2,0,0,0\n", None, r"line 2: this is no unit quaternion, its norm is 2"),
        ("a.csv", "qw,qx,qy,qz\n0,0,0,0\n", None, r"line 2: this is no unit quaternion, its norm is 0"),
        ("a.csv", "qw,qx,qy,qz\n1,0,nan,0\n", None, r"line 2: 'nan' is not a finite number in column 'qy'"),
        ("a.csv", "a,b,c,d\n1,0,0,0\n", None, r"no columns are called phi1"),
        ("a.csv", "a,b,c,d\n1,0,0,0\n", ["a", "b", "c", "d"], r"names 4, and what they mean is not clear"),
        (
            "a.csv",
            "1 0 0 0 1 0 0 0 -1\n",
            [str(i) for i in range(1, 10)],
            r"line 1: these nine numbers are no rotation",
        ),
        ("a.ang", "1 2 3\n", None, r"at least 8 numbers .* here there are 3"),
        ("a.ang", "phi1 Phi phi2 x y a b c\n1 1 1 0 0 1 1 1\n", None, r"here there is a header"),
        ("a.ang", "90.0 45.0 10.0 0 0 1 0.5 1\n", None, r"line 1: 90 is no Euler angle in radians"),
        ("a.ang", "1 1 1 0 0 1 -1 0\n", None, r"0 of 1 rows are indexed"),
        ("a.ang", "1 nan 1 0 0 1 1 0\n", None, r"line 1: 'nan' is not a finite number"),
        ("a.ang", "# nothing\n", None, r"the file is empty"),
        ("a.ang", "1 1 1 0 0 1 1 1\n1 1 1 0 0 1 1\n1 1 1 0 0 1 1 1\n", None, r"line 2: 7 cells"),
    ],
)
def test_what_holds_no_rotations_is_refused(
    tmp_path: Path, name: str, text: str, columns: list[str] | None, message: str
) -> None:
    def read() -> torch.Tensor:
        table, layout = read_points(table_of(tmp_path, text, name))
        return choose_coordinates(SO3(), table, columns, layout=layout).points(table)

    with pytest.raises(TableError, match=message) as caught:
        read()
    assert len(str(caught.value).splitlines()) == 1


def test_four_unnamed_columns_mean_what_the_format_says(tmp_path: Path) -> None:
    table, _ = read_points(table_of(tmp_path, "0 0 0 1\n0 1 0 0\n"))
    for layout, expected in (("xyzw", [1.0, 1.0, 1.0]), ("wxyz", [-1.0, -1.0, 1.0])):
        r = choose_coordinates(SO3(), table, ["1", "2", "3", "4"], layout=layout).points(table)
        torch.testing.assert_close(r[0].diagonal(), torch.tensor(expected).double())


@pytest.mark.parametrize("header", ["orientation_w,orientation_x,orientation_y,orientation_z", "# qw,qx,qy,qz"])
def test_quaternions_are_read_in_the_order_of_their_names(tmp_path: Path, header: str) -> None:
    file = table_of(tmp_path, header + "\n0,1,0,0\n")
    for asked in (None, "xyzw", "wxyz"):
        table, layout = read_points(file, asked)
        r = choose_coordinates(SO3(), table, layout=layout).points(table)
        torch.testing.assert_close(r[0].diagonal(), torch.tensor([1.0, -1.0, -1.0]).double())
    with pytest.raises(TableError, match="contradict --format xyzw"):
        choose_coordinates(SO3(), table, ["1", "2", "3", "4"], layout="xyzw")


def test_blocks_hold_neighbours_together() -> None:
    places = np.stack(np.meshgrid(np.arange(0, 9, 1.5), np.arange(0, 6, 1.5)), axis=-1).reshape(-1, 2)
    blocks = block_labels(places, (4.5, 3.0))
    assert blocks.reshape(4, 6).tolist() == [[0, 0, 0, 2, 2, 2]] * 2 + [[1, 1, 1, 3, 3, 3]] * 2
    split = group_split(blocks, 0, validation=0.25, test=0.25)
    assert not any(set(blocks[a].tolist()) & set(blocks[b].tolist()) for a, b in ((split.train, split.test), split[1:]))
    with pytest.raises(ValueError, match="2 numbers above 0"):
        block_labels(places, (1.0, 0.0))


@pytest.mark.usefixtures("rfm_data")
def test_the_steel_is_as_published() -> None:
    dataset = steel()
    assert len(dataset) == 11_700
    assert dataset.map.dropped == 0
    assert dataset.map.phases.count("austenite") == 5657
    CUBIC.check_point(dataset.points)


def test_a_file_that_is_not_here_is_said_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RFM_DATA", raising=False)
    monkeypatch.setenv("RFM_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"not there.*; .*RFM_DATA to a folder that holds pose/sdss"):
        steel()
