"""``rfm`` on maps of orientations and tracks of poses, and on what is neither."""

from pathlib import Path

import numpy as np
import pytest
import torch

import rfm
from manifolds import SO3, Sphere
from manifolds.rotations import euler_from_matrix, xyzw_from_matrix
from rfm.command_line.main import main
from rfm.command_line.run_folder import RunData

FIT = ["--steps", "2", "--batch-size", "16", "--quiet", "--device", "cpu"]


def ang(folder: Path, symmetry: str = "43") -> Path:
    r = SO3().random_uniform(60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    angles = euler_from_matrix(r, "zxz", "intrinsic").tolist()
    header = f"# Phase 1\n# MaterialName  iron\n# Symmetry  {symmetry}\n"
    rows = [f"{a:.5f} {b:.5f} {c:.5f} {i % 10} {i // 10} 20.0 0.8 1\n" for i, (a, b, c) in enumerate(angles)]
    path = folder / "map.ang"
    path.write_text(header + "".join(rows))
    return path


def track(folder: Path) -> Path:
    g = torch.Generator().manual_seed(1)
    q = xyzw_from_matrix(SO3().random_uniform(60, generator=g, dtype=torch.float64))
    p = 3 + 2 * torch.randn(60, 3, generator=g, dtype=torch.float64)
    rows = [f"{1e9 + i / 2} " + " ".join(f"{v:.6f}" for v in row) + "\n" for i, row in enumerate(torch.cat([p, q], 1))]
    path = folder / "track.txt"
    path.write_text("# timestamp tx ty tz qx qy qz qw\n" + "".join(rows))
    return path


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    assert 1 <= len(message.splitlines()) <= 3
    return message


def test_a_map_becomes_a_density_of_orientations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert (
        main(["fit", str(ang(tmp_path)), "--manifold", "so3/cubic", "--blocks", "x=2", "y=2", "--out", str(out), *FIT])
        == 0
    )
    data = RunData.load(out)
    assert data.blocks is not None
    assert len(data.blocks.unique()) == 15
    sides = [set(data.blocks[part].tolist()) for part in data.split]
    assert sum(map(len, sides)) == len(set().union(*sides))
    capsys.readouterr()
    assert main(["sample", str(out), "-n", "5", "--log-prob", "--out", str(tmp_path / "s.csv")]) == 0
    header, *rows = (tmp_path / "s.csv").read_text().splitlines()
    assert header == "phi1,Phi,phi2,log_prob_nats,multiples_of_uniform"
    assert main(["log-prob", str(out), str(tmp_path / "s.csv")]) == 0
    scored = capsys.readouterr().out.splitlines()[1:]
    own = [[float(cell) for cell in row.split(",")[-2:]] for row in rows]
    np.testing.assert_allclose([[float(cell) for cell in row.split(",")] for row in scored], own, rtol=1e-2)
    assert main(["evaluate", str(out)]) == 0
    report = capsys.readouterr().out
    assert "clustered by block" in report
    assert "kernel density, 30 bandwidths" in report
    assert "adaptive kernels" in report
    assert "with respect to the Riemannian volume of Quotient(SO3()" in report


def test_a_track_becomes_a_density_of_poses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, file = tmp_path / "run", track(tmp_path)
    fit = ["fit", str(file), "--manifold", "se3", "--condition", "seconds", "--blocks", "seconds=2", "--out", str(out)]
    assert main([*fit, *FIT]) == 0
    flow = rfm.Flow.load(out)
    assert flow.manifold.length == pytest.approx(2, rel=0.15)
    capsys.readouterr()
    assert main(["sample", str(out), "-n", "4", "--condition", "seconds=3"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("1000000003.0 ")
    assert main(["sample", str(out), "-n", "4", "--out", str(tmp_path / "s.txt")]) == 0
    assert [line.split()[0] for line in (tmp_path / "s.txt").read_text().splitlines()[1:]] == ["0", "1", "2", "3"]
    assert main(["log-prob", str(out), str(file)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "log_prob_nats_per_radian3_unit3"
    assert main(["evaluate", str(out), "--json"]) == 0
    assert "SE3(length=" in capsys.readouterr().out


def test_what_cannot_be_fitted_is_told_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "none"), *FIT]
    message = fails(capsys, "fit", str(ang(tmp_path, "62")), "--manifold", "so3/cubic", *out)
    assert "phase iron has the symmetry 62, and so3/cubic is 43" in message
    cubic = ["fit", str(ang(tmp_path)), "--manifold", "so3/cubic", *out]
    assert "is not COLUMN=SIZE" in fails(capsys, *cubic, "--blocks", "x")
    assert "--blocks makes 1 blocks" in fails(capsys, *cubic, "--blocks", "x=1000")
    assert "puts each of 60 places into a block of its own" in fails(capsys, *cubic, "--blocks", "x=0.5", "y=0.5")
    assert "--length is the unit of length" in fails(capsys, *cubic, "--length", "2")
    poses = ["fit", str(track(tmp_path)), "--manifold", "se3", *out]
    assert "condition timestamp is near 1e+09" in fails(capsys, *poses, "--condition", "timestamp")
    assert "contradicts --format euroc" in fails(capsys, *poses, "--format", "euroc")
    (tmp_path / "still.txt").write_text("".join(f"{i} 1 1 1 0 0 0 1\n" for i in range(9)))
    still = ["fit", str(tmp_path / "still.txt"), "--manifold", "se3", *out]
    assert "it is not clear which columns hold the pose" in fails(capsys, *still)
    assert "all positions are the same" in fails(capsys, *still, "--format", "tum")
    assert not (tmp_path / "none").exists()


def test_a_manifold_of_ones_own_must_have_the_symmetry_of_the_map(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "crystals.py").write_text(
        "from manifolds import SO3, Cyclic, Dihedral, Quotient, RightMultiplication\n"
        "hexagonal = Quotient(SO3(), RightMultiplication(Dihedral(6)))\n"
        "trigonal = Quotient(SO3(), RightMultiplication(Dihedral(3)))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    fit = ["fit", str(ang(tmp_path, "43")), *FIT, "--out", str(tmp_path / "run"), "--manifold"]
    for own in ("hexagonal", "trigonal"):
        assert "phase iron has the symmetry 43, and crystals:" in fails(capsys, *fit, f"crystals:{own}")
    ang(tmp_path, "-3m")
    text = (tmp_path / "map.ang").read_text()
    (tmp_path / "map.ang").write_text(text + "1.0 1.0 1.0 0 9 20.0 0.8 -1\n")
    assert "has the symmetry -3m, and crystals:hexagonal has 12 other rotations" in fails(
        capsys, *fit, "crystals:hexagonal"
    )
    assert main([*fit, "crystals:trigonal"]) == 0
    said = capsys.readouterr().err
    assert "in phase iron (-3m) was not verified" in said
    assert "1 of 61 rows are not indexed, and left out" in said


def test_large_numbers_that_vary_little_are_no_condition() -> None:
    x = Sphere(2).random_uniform(50, generator=torch.Generator().manual_seed(0))
    since_1970 = 1.7e9 + torch.arange(50, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"condition column 0 is near 1\.7e\+09 .* subtract its first value"):
        rfm.fit(x, Sphere(2), condition=since_1970, progress=False)
