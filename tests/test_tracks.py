"""Tracks of poses: TUM, KITTI and EuRoC in and out, and what is refused."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from manifolds import SE3
from manifolds.rotations import wxyz_from_matrix, xyzw_from_matrix
from rfm.datasets import Poses, TableError, choose_coordinates, desk, read_points, write_table
from rfm.datasets.coordinate_choice import coordinates_from_dict
from rfm.sources import default_source

EUROC_HEADER = (
    "#timestamp [ns],p_RS_R_x [m],p_RS_R_y [m],p_RS_R_z [m],q_RS_w [],q_RS_x [],q_RS_y [],q_RS_z [],"
    "v_RS_R_x [m s^-1],v_RS_R_y [m s^-1]\n"
)
START = 1403636580838555648


def poses(n: int = 20, seed: int = 0) -> Tensor:
    m = SE3()
    spread = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    spread[1, :3, 3] = 2.0
    return default_source(m, spread).sample((n,), torch.Generator().manual_seed(seed), torch.float64)


def written(x: Tensor, layout: str) -> str:
    """Return a file in a format, by its published definition and not by our writer."""
    rotation, position = x[:, :3, :3], x[:, :3, 3]
    if layout == "kitti":
        return "".join(" ".join(repr(float(v)) for v in row) + "\n" for row in x[:, :3].flatten(1))
    if layout == "tum":
        rows = torch.cat([position, xyzw_from_matrix(rotation)], 1)
        lines = [f"{1311868163.25 + i / 4} " + " ".join(map(repr, row.tolist())) for i, row in enumerate(rows)]
        return "# ground truth\n# timestamp tx ty tz qx qy qz qw\n" + "\n".join(lines) + "\n"
    rows = torch.cat([position, wxyz_from_matrix(rotation)], 1)
    lines = [
        f"{START + 5 * 10**6 * i}," + ",".join(map(repr, row.tolist())) + ",0.5,0.25" for i, row in enumerate(rows)
    ]
    return EUROC_HEADER + "\n".join(lines) + "\n"


def read(path: Path, layout: str | None = None, columns: list[str] | None = None) -> tuple[Poses, Tensor]:
    table, found = read_points(path, layout)
    coordinates = choose_coordinates(SE3(2.0), table, columns, layout=found)
    assert isinstance(coordinates, Poses)
    return coordinates, coordinates.points(table)


@pytest.mark.parametrize(
    ("layout", "named"), [("tum", None), ("kitti", "kitti"), ("euroc", None), ("tum", "tum"), ("euroc", "euroc")]
)
def test_the_three_formats_are_read_and_written(tmp_path: Path, layout: str, named: str | None) -> None:
    x, file = poses(), tmp_path / "track"
    file.write_text(written(x, layout))
    coordinates, found = read(file, named)
    torch.testing.assert_close(found, x, rtol=0, atol=1e-12)
    assert coordinates.layout == layout
    assert coordinates_from_dict(coordinates.to_dict()) == coordinates
    # Out again, and read by what the format says, header or not.
    columns = dict(coordinates.leading(len(x), {"seconds": np.arange(len(x)) / 4}))
    columns |= dict(zip(coordinates.names, coordinates.columns_of(x).T, strict=True))
    again = tmp_path / "again"
    write_table(again, list(columns), tuple(columns.values()), layout=coordinates.file_layout)
    torch.testing.assert_close(coordinates.points(coordinates.read(again)), x, rtol=0, atol=1e-12)
    torch.testing.assert_close(read(again, layout)[1], x, rtol=0, atol=1e-12)
    own, theirs = again.read_text().splitlines(), written(x, layout).splitlines()
    first = next(line for line in own if not line.startswith("#")).replace(",", " ").split()
    expected = next(line for line in theirs if not line.startswith("#")).replace(",", " ").split()[: len(first)]
    np.testing.assert_allclose([float(cell) for cell in first], [float(cell) for cell in expected], atol=1e-12)
    if layout != "kitti":
        assert first[0] == expected[0]
        seconds = read_points(file, named)[0].numbers(["seconds"])[:, 0]
        np.testing.assert_allclose(seconds, np.arange(len(x)) * (0.25 if layout == "tum" else 0.005), rtol=1e-12)


def test_twelve_columns_without_a_header_are_the_rows_of_a_matrix(tmp_path: Path) -> None:
    (tmp_path / "00.txt").write_text(written(poses(), "kitti"))
    for layout in (None, "kitti"):
        coordinates, found = read(tmp_path / "00.txt", layout)
        torch.testing.assert_close(found, poses())
        assert coordinates.layout == "kitti"
        table = coordinates.read(tmp_path / "00.txt")
        torch.testing.assert_close(coordinates.points(table), poses())
        np.testing.assert_allclose(coordinates.columns_of(poses()), poses()[:, :3].flatten(1))


def test_scores_do_not_depend_on_the_unit_of_length() -> None:
    x = poses()
    scores = []
    for length in (1.0, 0.25):
        m = SE3(length)
        coordinates = Poses(("tx", "ty", "tz", "qx", "qy", "qz", "qw"), "xyzw", "tum", length)
        [score] = coordinates.score_columns(default_source(m, x).log_prob(x)).values()
        scores.append(score)
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-12)


def test_samples_without_a_time_are_counted() -> None:
    coordinates = Poses(("tx", "ty", "tz", "qx", "qy", "qz", "qw"), "xyzw", "tum", 1.0, 100.5)
    assert coordinates.leading(3, {})["timestamp"].tolist() == [0, 1, 2]
    assert coordinates.leading(1, {"seconds": np.array([2.0])})["timestamp"].tolist() == [102.5]


ROW = "0 0 0 0 0 0 1"


@pytest.mark.parametrize(
    ("text", "layout", "message"),
    [
        (f"1 {ROW}\n2 {ROW}\n3 {ROW}\n", None, "it is not clear .* in which order the quaternion is"),
        (f"1 {ROW}\n3 {ROW}\n2 {ROW}\n", "tum", "line 3: the time 2 is before that of the row above"),
        (f"1 {ROW}\n1 {ROW}\n1 {ROW}\n", "tum", "line 2: the time 1 is that of the row above, as in 2 of 3 rows"),
        (f"1 {ROW}\n2 {ROW}\n", "kitti", "kitti has 12 numbers .*, here there are 8"),
        ("1 0 0 0 0 0 0 2\n2 0 0 0 0 0 0 1\n", "tum", "line 1: this is no unit quaternion, its norm is 2"),
        ("1 0 0 nan 0 0 0 1\n2 0 0 0 0 0 0 1\n", "tum", "line 1: 'nan' is not a finite number in column 'tz'"),
        ("nan 0 0 0 0 0 0 1\n2 0 0 0 0 0 0 1\n", "tum", "line 1: 'nan' is no time"),
        (f"# timestamp tx ty tz qw qx qy qz\n1 {ROW}\n2 {ROW}\n", "tum", "contradicts --format tum"),
        (f"# timestamp tx ty tz qx qy qz qw\n1 {ROW}\n2 {ROW}\n", "euroc", "contradicts --format euroc"),
        ("1 0 0 0 0 2 0 0 0 0 1 0\n" * 2, "kitti", "line 1: these nine numbers are no rotation matrix"),
        ("-1 0 0 0 0 1 0 0 0 0 1 0\n" * 2, "kitti", "line 1: .* det R is negative"),
        ("a,b\n1,2\n", None, "it is not clear which columns hold the pose"),
    ],
)
def test_what_is_no_track_is_refused(tmp_path: Path, text: str, layout: str | None, message: str) -> None:
    file = tmp_path / "track.txt"
    file.write_text(text)
    with pytest.raises(TableError, match=message) as caught:
        read(file, layout)
    assert len(str(caught.value).splitlines()) <= 3


def test_columns_of_a_table_are_found_by_name(tmp_path: Path) -> None:
    file = tmp_path / "poses.csv"
    file.write_text("qw,tx,ty,tz,qx,qy,qz\n0,1,2,3,1,0,0\n")
    _, x = read(file)
    torch.testing.assert_close(x[0].diagonal(), torch.tensor([1.0, -1.0, -1.0, 1.0]).double())
    assert x[0, :3, 3].tolist() == [1, 2, 3]
    with pytest.raises(TableError, match="in which order the rotation is written is not clear"):
        read(file, None, ["tx", "ty", "tz", "qw", "qx", "qz", "qy"])


@pytest.mark.usefixtures("rfm_data")
def test_the_desk_is_as_published() -> None:
    dataset = desk()
    assert len(dataset) == 20_957
    assert float(dataset.seconds[-1]) == pytest.approx(99.3645, abs=1e-6)
    SE3().check_point(dataset.points)
    assert math.isclose(float(dataset.points[0, 2, 3]), 1.4764)
