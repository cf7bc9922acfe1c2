"""Tables of what is known of poses: positions with noise or without, a posterior for each row."""

from pathlib import Path

import numpy as np
import pytest
import torch

import rfm
from manifolds import SE3, SO3, FlatTorus
from rfm.command_line import main as cli
from rfm.command_line.run_folder import RunData
from rfm.datasets import Angles, Poses, Split, read_table
from rfm.networks import VelocityField
from rfm.sources import RigidMotionSource, Uniform

NAMES = ("tx", "ty", "tz", "qx", "qy", "qz", "qw")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a flow of poses that stays at its source: any rotation, positions normal about zero."""
    folder = tmp_path_factory.mktemp("poses") / "run"
    manifold = SE3()
    field = VelocityField(manifold, width=8, depth=1, features=8)
    source = RigidMotionSource(manifold, Uniform(SO3()), 1.0)
    rfm.Flow(manifold, field, source).save(folder)
    none = torch.zeros(0, dtype=torch.long)
    RunData(torch.zeros(0, 4, 4), Split(none, none, none), Poses(NAMES), "a test").save(folder)
    return folder


def draws(run_folder: Path, out: Path, *words: str) -> tuple[tuple[str, ...], np.ndarray]:
    assert cli.main(["posterior", str(run_folder), *words, "-n", "64", "--particles", "128", "--out", str(out)]) == 0
    table = read_table(out)
    return table.names, table.numbers(table.names)


@pytest.mark.slow
def test_each_row_is_a_posterior_with_its_own_noise(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "positions.csv").write_text("id,tx,ty,tz,TX_SD\na,0.5,0.25,,0.01\nb,-1,,1,1\n")
    names, values = draws(run_folder, tmp_path / "out.csv", "--given", str(tmp_path / "positions.csv"))
    assert names == ("row", *NAMES)
    first, second = values[:64], values[64:]
    assert (first[:, 0] == 1).all()
    assert (second[:, 0] == 2).all()
    # A standard normal prior: measured with deviation 1, the mean is half way; without error, it is there.
    assert abs(first[:, 1].mean() - 0.5) < 0.01
    assert second[:, 1].mean() == pytest.approx(-0.5, abs=4 * 0.5**0.5 / 8)
    np.testing.assert_allclose(first[:, 2], 0.25, atol=1e-6)
    np.testing.assert_allclose(second[:, 3], 1, atol=1e-6)
    assert first[:, 3].std() > 0.5
    err = capsys.readouterr().err
    assert "column id is not one of the flow's, and not read" in err
    assert "64 draws for each of 2 rows" in err


def test_words_hold_for_every_row_and_orientations_are_known_as_a_whole(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("tx\n0.5\n0.25\n")
    _, values = draws(run_folder, tmp_path / "a.csv", "--given", str(tmp_path / "p.csv"), "ty=1")
    np.testing.assert_allclose(values[:, 1], np.repeat([0.5, 0.25], 64), atol=1e-6)
    np.testing.assert_allclose(values[:, 2], 1, atol=1e-6)
    _, values = draws(run_folder, tmp_path / "b.csv", "--given", "qx=0", "qy=0", "qz=0.6", "qw=0.8", "tx=1+-0.1")
    np.testing.assert_allclose(values[:, 3:], np.tile([0, 0, 0.6, 0.8], (64, 1)), atol=1e-6)
    assert values[:, 0].mean() == pytest.approx(1, abs=0.1)
    assert values[:, 1].std() > 0.5


@pytest.mark.parametrize(
    ("text", "words", "match"),
    [
        ("a,b\n1,2\n", [], "none of its columns is one of the flow's"),
        ("tx,ty_sd\n1,2\n", [], "column ty_sd, but no ty"),
        ("tx,ty,id\n1,2,a\n,,b\n", [], "nothing is known"),
        ("tx,ty\n1,2\nfar,2\n", [], "'far' in column tx is no number"),
        ("tx,tx_sd\n1,1\n1,\n", [], "± '' in column tx is no number"),
        ("tx,tx_sd\n1,0\n", [], "line 2: the standard deviation must be positive"),
        ("tx,tx_sd\n1,1\n1,1\n", ["--plot", "a.png"], "draws one posterior, and 2 rows"),
        ("tx\n1\n", ["--given", "TX=2"], "given twice"),
        ("qx\n0\n", [], "known without error by all of qx, qy, qz, qw"),
        ("qx,qx_sd\n0,1\n", [], "may have several values"),
        ("qx,qy,qz,qw\n0,0,0,2\n", [], "no unit quaternion"),
        ("tx,ty,tz,qx,qy,qz,qw\n0,0,0,0,0,0,1\n", [], "the position is then not"),
    ],
)
def test_tables_that_make_no_sense_are_refused_in_a_sentence(
    run_folder: Path, tmp_path: Path, text: str, words: list[str], match: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "given.csv").write_text(text)
    out = tmp_path / "out.csv"
    command = ["posterior", str(run_folder), "--given", str(tmp_path / "given.csv"), *words, "--out", str(out)]
    assert cli.main(command) == 2
    err = " ".join(capsys.readouterr().err.split())
    assert match in err
    assert not out.exists()


def test_a_file_that_is_none_is_named(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["posterior", str(run_folder), "--given", "positions.csv"]) == 2
    assert "'positions.csv' is neither COLUMN=VALUE±SD nor a file" in " ".join(capsys.readouterr().err.split())


def test_angles_are_known_in_their_unit() -> None:
    known = Angles(("phi", "psi")).slice_of(FlatTorus(2), np.array([np.nan, 190.0]))
    x = known.join(torch.tensor([[0.3], [0.4]], dtype=torch.float64))
    torch.testing.assert_close(x, torch.tensor([[0.3, -170 * torch.pi / 180], [0.4, -170 * torch.pi / 180]]).double())
