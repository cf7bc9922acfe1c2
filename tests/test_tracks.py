"""Tracks of poses: TUM, KITTI and EuRoC in and out, and what is refused."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from manifolds import SE3, SO3
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


X, W = "tx ty tz qx qy qz qw", "tx ty tz qw qx qy qz"


def named(header: str, order: str, separator: str = " ", first: Sequence[float | int] = ()) -> str:
    """Return a track by the roles of its columns, under any header."""
    x = poses()
    values = torch.cat([x[:, :3, 3], xyzw_from_matrix(x[:, :3, :3])], 1)
    rows = values[:, [X.split().index(role) for role in order.split()]].tolist()
    cells = [[repr(v) for v in (([first[i]] if first else []) + row)] for i, row in enumerate(rows)]
    return (header + "\n" if header else "") + "".join(separator.join(row) + "\n" for row in cells)


SECONDS = [1311868163.25 + i / 20 for i in range(20)]
NANOSECONDS = [START + 50_000_000 * i for i in range(20)]
ROS_HEADER = "%time," + ",".join(
    [f"field.pose.position.{axis}" for axis in "xyz"] + [f"field.pose.orientation.{axis}" for axis in "xyzw"]
)


@pytest.mark.parametrize(
    ("header", "order"),
    [
        ("# timestamp x y z orientation_w orientation_x orientation_y orientation_z", W),
        ("# t p_x p_y p_z q_WB_w q_WB_x q_WB_y q_WB_z", W),
        ("# t p_x p_y p_z qWB_w qWB_x qWB_y qWB_z", W),
        ("#timestamp [s],p_RS_R_x [m],p_RS_R_y [m],p_RS_R_z [m],q_RS_w [],q_RS_x [],q_RS_y [],q_RS_z []", W),
        ("time,pose.position.x,pose.position.y,pose.position.z,rot_w,rot_x,rot_y,rot_z", W),
        ("timestamp tx ty tz qr qi qj qk", W),
        ("# t q_x q_y q_z q_w p_x p_y p_z", "qx qy qz qw tx ty tz"),
        ("# time z y x qx qy qz qw", "tz ty tx qx qy qz qw"),
        ("# time position_xyz q_wxyz", W),
        ("# position tx ty tz, then qw qx qy qz", W),
        ("# time x y z qw a b c", W),
        ("# qw is first", W),
        ("# timestamp(s) q p v bg ba", "qx qy qz qw tx ty tz"),
    ],
)
def test_a_header_that_contradicts_the_format_is_refused_whatever_its_names(
    tmp_path: Path, header: str, order: str
) -> None:
    file = tmp_path / "track.txt"
    file.write_text(named(header, order, "," if "," in header.split()[0] else " ", SECONDS))
    with pytest.raises(TableError, match=r"contradicts --format tum|names a part of the quaternion") as caught:
        read(file, "tum")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("header", "order"),
    [
        ("# t p_x p_y p_z q_WB_w q_WB_x q_WB_y q_WB_z", W),
        ("t,x,y,z,q_WB_w,q_WB_x,q_WB_y,q_WB_z", W),
        ("#timestamp [s],p_RS_R_x [m],p_RS_R_y [m],p_RS_R_z [m],q_RS_w [],q_RS_x [],q_RS_y [],q_RS_z []", W),
        (ROS_HEADER, X),
        ("# timestamp(s) tx ty tz qx qy qz qw", X),
        ("# t q_x q_y q_z q_w p_x p_y p_z", "qx qy qz qw tx ty tz"),
        ("stamp pos_z quat_z pos_x quat_w pos_y quat_x quat_y", "tz qz tx qw ty qx qy"),
        ("# time position_xyz q_wxyz", W),
    ],
)
def test_a_header_says_where_the_parts_of_a_pose_are(tmp_path: Path, header: str, order: str) -> None:
    file = tmp_path / "track.txt"
    file.write_text(named(header, order, "," if "," in header else " ", SECONDS))
    coordinates, found = read(file)
    torch.testing.assert_close(found, poses(), rtol=0, atol=1e-12)
    torch.testing.assert_close(coordinates.points(coordinates.read(file)), poses(), rtol=0, atol=1e-12)


def test_a_track_of_ros_is_read_again_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "track.csv"
    file.write_text(named(ROS_HEADER, X, ",", NANOSECONDS))
    coordinates, found = read(file, "tum")
    assert coordinates.layout == "tum_ns"
    torch.testing.assert_close(found, poses(), rtol=0, atol=1e-12)
    torch.testing.assert_close(coordinates.points(coordinates.read(file)), poses(), rtol=0, atol=1e-12)


def test_quaternions_that_are_named_by_jpl_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "track.txt"
    header = "# t q_GtoI_x q_GtoI_y q_GtoI_z q_GtoI_w p_x p_y p_z"
    file.write_text(named(header, "qx qy qz qw tx ty tz", first=SECONDS))
    for layout in (None, "tum"):
        with pytest.raises(TableError, match="q_GtoI_x, by JPL's convention"):
            read(file, layout)


def test_columns_that_contradict_the_order_asked_for_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "poses.csv"
    file.write_text(named("a,b,c,q_w,q_x,q_y,q_z", W, ","))
    keys = ["a", "b", "c", "q_w", "q_x", "q_y", "q_z"]
    torch.testing.assert_close(read(file, None, keys)[1], poses(), rtol=0, atol=1e-12)
    with pytest.raises(TableError, match="contradict --format xyzw"):
        read(file, "xyzw", keys)


@pytest.mark.parametrize(("frame", "last"), [(True, False), (True, True), (False, True)])
@pytest.mark.parametrize("layout", [None, "kitti"])
def test_the_matrices_of_kitti_360(tmp_path: Path, frame: bool, last: bool, layout: str | None) -> None:
    file = tmp_path / "poses.txt"
    lines = written(poses(), "kitti").splitlines()
    file.write_text("".join(f"{f'{3 * i + 1} ' * frame}{line}{' 0 0 0 1' * last}\n" for i, line in enumerate(lines)))
    coordinates, found = read(file, layout)
    torch.testing.assert_close(found, poses(), rtol=0, atol=1e-12)
    torch.testing.assert_close(coordinates.points(coordinates.read(file)), poses(), rtol=0, atol=1e-12)
    if layout and frame:
        assert read_points(file, layout)[0].numbers(["frame"])[:, 0].tolist() == [3 * i + 1 for i in range(20)]


def test_what_is_no_matrix_of_kitti_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "poses.txt"
    lines = written(poses(), "kitti").splitlines()
    file.write_text("".join(f"{line} 0 0 0 2\n" for line in lines))
    with pytest.raises(TableError, match="line 1: the last row of this matrix is not 0 0 0 1"):
        read(file, "kitti")
    file.write_text("".join(f"{0.5 * i} {line}\n" for i, line in enumerate(lines)))
    with pytest.raises(TableError, match=r"line 1: '0\.0' is no number of a frame"):
        read(file, "kitti")


TICKS = {"tum": 1, "tum_ms": 10**3, "tum_us": 10**6, "tum_ns": 10**9}


@pytest.mark.parametrize("layout", TICKS)
@pytest.mark.parametrize("header", ["", "# timestamp tx ty tz qx qy qz qw"])
def test_times_since_1970_say_their_unit(tmp_path: Path, layout: str, header: str) -> None:
    times = [(1403636580 * 20 + i) * TICKS[layout] / 20 for i in range(20)]
    file = tmp_path / "track.txt"
    file.write_text(named(header, X, first=times if layout == "tum" else list(map(int, times))))
    table, found = read_points(file, "tum")
    assert found == layout
    np.testing.assert_allclose(table.numbers(["seconds"])[:, 0], np.arange(20) / 20, atol=1e-6)
    # Samples are written in the unit of the file.
    coordinates, _ = read(file, layout)
    [stamps] = coordinates.leading(1, {"seconds": [0.5]}).values()
    assert float(stamps[0]) == pytest.approx(times[10], rel=1e-15, abs=1e-6)


@pytest.mark.parametrize("ticks", [10**3, 10**6, 10**9])
def test_times_whose_unit_is_in_doubt_are_asked_for(tmp_path: Path, ticks: int) -> None:
    times = [ticks * i // 20 for i in range(20)]
    file = tmp_path / "track.txt"
    file.write_text(named("", X, first=times))
    with pytest.raises(TableError, match=r"which --format tum takes for .* seconds; .*tum_ns, tum_us or tum_ms, or a"):
        read(file, "tum")
    unit = {10**3: "ms", 10**6: "us", 10**9: "ns"}[ticks]
    for layout, header in ((f"tum_{unit}", ""), ("tum", f"# timestamp [{unit}] {X}"), (None, f"# time_{unit} {X}")):
        file.write_text(named(header, X, first=times))
        table, found = read_points(file, layout)
        assert found == f"tum_{unit}"
        np.testing.assert_allclose(table.numbers(["seconds"])[:, 0], np.arange(20) / 20, atol=1e-12)
    # A word of prose is no unit.
    file.write_text(named("# sec is how times are written elsewhere", X, first=times))
    with pytest.raises(TableError, match="which --format tum takes for"):
        read(file, "tum")
    # Or they are seconds indeed.
    file.write_text(named(f"# timestamp [s] {X}", X, first=times))
    assert read_points(file, "tum")[0].numbers(["seconds"])[-1, 0] == times[-1]


def test_what_orb_slam3_writes_for_euroc_is_not_read_as_eurocs(tmp_path: Path) -> None:
    file = tmp_path / "track.txt"
    file.write_text(named("", X, first=[float(t) for t in NANOSECONDS]))
    with pytest.raises(TableError, match="as ORB-SLAM3 writes them, the real part last"):
        read(file, "euroc")
    torch.testing.assert_close(read(file, "tum")[1], poses(), rtol=0, atol=1e-12)
    file.write_text(named("", W, ",", first=SECONDS))
    with pytest.raises(TableError, match=r"which --format euroc takes for 5e-11 seconds"):
        read(file, "euroc")
    file.write_text(named("#timestamp [s],x,y,z,q_w,q_x,q_y,q_z", W, ",", first=SECONDS))
    with pytest.raises(TableError, match="contradicts --format euroc"):
        read(file, "euroc")


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
    assert len(str(caught.value).splitlines()) == 1


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


def test_matrices_on_four_lines_are_those_on_one(tmp_path: Path) -> None:
    x = _poses(3)
    lines = [" ".join(f"{value:.17g}" for value in row) for pose in x.tolist() for row in pose]
    (stacked := tmp_path / "stacked.txt").write_text("\n".join(lines) + "\n")
    (flat := tmp_path / "flat.txt").write_text("\n".join(" ".join(lines[i : i + 4]) for i in (0, 4, 8)) + "\n")
    for layout in (None, "kitti"):
        found = []
        for file in (stacked, flat):
            table, recognised = read_points(file, layout)
            coordinates = choose_coordinates(SE3(), table, layout=recognised)
            found.append(coordinates.points(table))
            torch.testing.assert_close(coordinates.points(coordinates.read(file)), x, atol=1e-12, rtol=0)
        assert torch.equal(*found)
    stacked.write_text("\n".join(lines[:-1]) + "\n0 0 0 2\n")
    table, layout = read_points(stacked)
    with pytest.raises(TableError, match="it is not clear which columns hold the pose"):
        choose_coordinates(SE3(), table, layout=layout)


def _poses(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    x[:, :3, :3] = SO3().random_uniform(count, generator=generator, dtype=torch.float64)
    x[:, :3, 3] = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    return x
