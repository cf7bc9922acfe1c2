"""Tables of shares: columns that sum to 1 or to 100, and a fit of them from the command line."""

from pathlib import Path

import numpy as np
import pytest
import torch

from manifolds import Simplex
from rfm.command_line.main import main
from rfm.datasets import Shares, TableError, choose_coordinates, coordinates_from_dict, read_table


def written(path: Path, rows: np.ndarray, digits: int = 9, header: str = "sand,silt,clay") -> Path:
    path.write_text(header + "\n" + "".join(",".join(f"{a:.{digits}f}" for a in row) + "\n" for row in rows))
    return path


def soils(count: int = 60) -> np.ndarray:
    return np.random.default_rng(0).dirichlet((6, 3, 2), size=count)


@pytest.mark.parametrize("whole", [1.0, 100.0])
def test_shares_come_back_in_the_units_of_the_table(tmp_path: Path, whole: float) -> None:
    rows = soils()
    table = read_table(written(tmp_path / "soils.csv", whole * rows))
    coordinates = choose_coordinates(Simplex(2), table)
    assert coordinates == Shares(("sand", "silt", "clay"), percent=whole == 100)
    points = coordinates.points(table)
    np.testing.assert_allclose(points, rows, atol=1e-8)
    np.testing.assert_allclose(coordinates.columns_of(points), whole * rows, atol=1e-6)
    assert coordinates_from_dict(coordinates.to_dict()) == coordinates


def test_rows_that_rounding_moved_are_brought_back(tmp_path: Path) -> None:
    table = read_table(written(tmp_path / "soils.csv", 100 * soils(), digits=0))
    points = choose_coordinates(Simplex(2), table).points(table)
    Simplex(2).check_point(points)


@pytest.mark.parametrize(
    ("row", "message"),
    [([0.5, 0.3, 0.1], "do not sum to 1 but to 0.9"), ([-0.1, 0.6, 0.5], "negative")],
)
def test_rows_that_hold_no_shares_are_named(tmp_path: Path, row: list[float], message: str) -> None:
    rows = soils(5)
    rows[3] = row
    table = read_table(written(tmp_path / "soils.csv", rows))
    with pytest.raises(TableError, match=message):
        Shares(("sand", "silt", "clay")).points(table)


def test_fit_sample_score_evaluate_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, run = str(written(tmp_path / "soils.csv", 100 * soils(), digits=6)), str(tmp_path / "run")
    assert main(["fit", table, "--manifold", "simplex", "--out", run, "--quiet", "--steps", "20"]) == 0
    capsys.readouterr()
    assert main(["sample", run, "-n", "8", "--log-prob"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "sand,silt,clay,log_prob_nats_fisher_rao"
    drawn = torch.tensor([[float(a) for a in line.split(",")] for line in lines[1:]], dtype=torch.float64)
    torch.testing.assert_close(drawn[:, :3].sum(-1), torch.full((8,), 100.0, dtype=torch.float64), atol=1e-3, rtol=0)
    assert (drawn[:, :3] >= 0).all()
    assert main(["evaluate", run]) == 0
    assert "kernel" in capsys.readouterr().out
    assert main(["plot", run, "--out", str(tmp_path / "soils.png")]) == 0
    assert (tmp_path / "soils.png").stat().st_size > 10_000
