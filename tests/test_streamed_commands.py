"""Commands that read and write part by part: constant memory, another start after a kill, several processes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from manifolds import Sphere
from rfm.command_line import input_parts, main
from rfm.command_line.output_parts import OutputParts
from rfm.command_line.run_folder import RunData
from rfm.datasets import LatitudeLongitude, Split
from rfm.networks import VelocityField
from rfm.training import fit

pq = pytest.importorskip("pyarrow.parquet")
pa = pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps on the sphere, conditional on a number, and tables to score."""
    own = tmp_path_factory.mktemp("streamed")
    x = Sphere(2).random_uniform(60, generator=torch.Generator().manual_seed(0)).double()
    torch.manual_seed(0)
    field = VelocityField(Sphere(2), width=16, depth=1, features=16)
    torch.nn.init.normal_(field.last.weight, std=0.1)
    fit(x, Sphere(2), field=field, steps=2, batch_size=16, out=own / "run", progress=False, device="cpu")
    order = torch.arange(60)
    RunData(x, Split(order[:40], order[40:50], order[50:]), LatitudeLongitude(), "points").save(own / "run")
    degrees = np.random.default_rng(0).uniform([-80, -170], [80, 170], (230, 2)).round(4)
    np.savetxt(own / "points.csv", degrees, fmt="%.4f", delimiter=",", header="latitude,longitude", comments="")
    table = pa.table({"latitude": degrees[:, 0], "longitude": degrees[:, 1]})
    pq.write_table(table, own / "points.parquet", row_group_size=70)
    return own


def _run(folder: Path, command: str, *options: object, rows: int = 50, status: int = 0) -> None:
    words = [
        str(folder / word) if word in ("run", "points.csv", "points.parquet") else word for word in command.split()
    ]
    assert main.main([*words, *map(str, options), "--quiet"], part_rows=rows) == status


_COMMANDS = {
    "sample": "sample run -n 230 --log-prob --seed 3",
    "log-prob": "log-prob run points.csv",
    "posterior": "posterior run --particles 8 -n 4",
}


def _command(name: str, tmp_path: Path) -> str:
    if name != "posterior":
        return _COMMANDS[name]
    (tmp_path / "given.csv").write_text("latitude,latitude_sd\n10,20\n20,30\n-5,20\n0,40\n")
    return f"{_COMMANDS[name]} --given {tmp_path / 'given.csv'}"


def test_a_table_is_scored_alike_in_any_format_and_any_parts(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run(folder, "log-prob run points.csv --error 1e-5", "--out", tmp_path / "one.csv", rows=1000)
    header, *lines = (tmp_path / "one.csv").read_text().splitlines()
    expected = np.array([line.split(",") for line in lines], dtype=float)
    assert expected.shape == (230, 2)
    _run(folder, "log-prob run points.csv --error 1e-5", "--out", tmp_path / "parts.csv", rows=37)
    _run(folder, "log-prob run points.parquet --error 1e-5", "--out", tmp_path / "blocks.csv", rows=37)
    _run(folder, "log-prob run points.parquet --error 1e-5", "--out", tmp_path / "blocks.parquet", rows=37)
    monkeypatch.setattr(input_parts, "_LONG_TEXT", 100)
    _run(folder, "log-prob run points.csv --error 1e-5", "--out", tmp_path / "text.csv", rows=37)
    for name in ("parts", "blocks", "text"):
        first, *lines = (tmp_path / f"{name}.csv").read_text().splitlines()
        assert first == header
        found = np.array([line.split(",") for line in lines], dtype=float)
        np.testing.assert_allclose(found, expected, atol=2e-5)
    table = pq.read_table(tmp_path / "blocks.parquet")
    assert ",".join(table.column_names) == header
    np.testing.assert_allclose(np.stack([column.to_numpy() for column in table.columns], 1), expected, atol=2e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["one.csv", "parts.csv", "blocks.csv", "blocks.parquet", "text.csv"]
    )


def test_a_long_text_without_header_or_with_comments_is_read_in_parts(tmp_path: Path) -> None:
    numbers = np.arange(120.0).reshape(60, 2)
    (tmp_path / "bare.csv").write_text("".join(f"{a},{b}\n" for a, b in numbers))
    lines = ["# a comment\n", "u, v\n", *(f"{a}, {b}\n" for a, b in numbers)]
    (tmp_path / "headed.csv").write_text("".join([*lines[:20], "\n", "# between\n", *lines[20:]]))
    for name, names in (("bare.csv", ("1", "2")), ("headed.csv", ("u", "v"))):
        parts = dict(input_parts.TextParts(str(tmp_path / name), 7).parts(lambda number: True))
        assert {table.names for table in parts.values()} == {names}
        found = np.concatenate([table.numbers(names) for table in parts.values()])
        np.testing.assert_array_equal(found, numbers)
        text = (tmp_path / name).read_text().splitlines()
        for table in parts.values():
            for row, line in enumerate(table.lines):
                assert float(text[line - 1].split(",")[0]) == table.numbers(names)[row, 0]
        few = dict(input_parts.TextParts(str(tmp_path / name), 7).parts(lambda number: number == 2))
        np.testing.assert_array_equal(few[2].numbers(names), parts[2].numbers(names))


@pytest.mark.parametrize(
    ("name", "suffix"), [("sample", ".csv"), ("sample", ".parquet"), ("log-prob", ".csv"), ("posterior", ".csv")]
)
def test_a_killed_command_goes_on_to_the_same_result(
    folder: Path, tmp_path: Path, name: str, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, rows = _command(name, tmp_path), 50 if name != "posterior" else 4
    out = tmp_path / f"two{suffix}"
    _run(folder, command, "--out", tmp_path / f"one{suffix}", rows=rows)
    written = []
    write = OutputParts.write

    def interrupted(self: OutputParts, number: int, *parts: Any) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(number)
        write(self, number, *parts)

    monkeypatch.setattr(OutputParts, "write", interrupted)
    _run(folder, command, "--out", out, rows=rows, status=130)
    assert not out.exists()
    monkeypatch.setattr(OutputParts, "write", write)
    _run(folder, command, "--out", out, rows=rows, status=2)
    other = f"{command} --seed 9" if name != "log-prob" else "log-prob run points.parquet"
    _run(folder, other, "--out", out, "--resume", rows=rows, status=2)

    def counted(self: OutputParts, number: int, *parts: Any) -> None:
        written.append(number)
        write(self, number, *parts)

    monkeypatch.setattr(OutputParts, "write", counted)
    _run(folder, command, "--out", out, "--resume", rows=rows)
    # What had been written was not computed again.
    assert sorted(written) == list(range(4 if name == "posterior" else 5))
    assert out.read_bytes() == (tmp_path / f"one{suffix}").read_bytes()
    assert not list(tmp_path.glob(".*"))
    _run(folder, command, "--out", out, "--force", rows=rows)


def test_what_goes_on_is_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run(folder, "sample run -n 5 --resume", status=2)
    assert "--resume goes on with a file; give --out" in capsys.readouterr().err


def test_parts_of_samples_are_independent(folder: Path, tmp_path: Path) -> None:
    _run(folder, "sample run -n 100", "--out", tmp_path / "parts.csv", rows=50)
    rows = np.loadtxt(tmp_path / "parts.csv", delimiter=",", skiprows=1)
    assert len(np.unique(rows, axis=0)) == 100
    _run(folder, "sample run -n 50", "--out", tmp_path / "first.csv", rows=50)
    np.testing.assert_array_equal(np.loadtxt(tmp_path / "first.csv", delimiter=",", skiprows=1), rows[:50])


_SCRIPT = """
import sys, torch
from rfm.command_line.main import main
torch.set_num_threads(1)
sys.exit(main(sys.argv[2:], part_rows=int(sys.argv[1])))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "suffix"), [("sample", ".csv"), ("log-prob", ".parquet"), ("posterior", ".csv")])
def test_two_processes_write_what_one_does(folder: Path, tmp_path: Path, name: str, suffix: str) -> None:
    command, rows = _command(name, tmp_path), 50 if name != "posterior" else 4
    _run(folder, command, "--out", tmp_path / f"one{suffix}", rows=rows)
    (tmp_path / "script.py").write_text(_SCRIPT)
    words = [str(folder / word) if word in ("run", "points.csv") else word for word in command.split()]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    script = ["--rdzv-endpoint", "localhost:0", str(tmp_path / "script.py"), str(rows)]
    line = [*torchrun, *script, *words, "--quiet", "--out", str(tmp_path / f"two{suffix}")]
    done = subprocess.run(line, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / f"two{suffix}").read_bytes() == (tmp_path / f"one{suffix}").read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_files_in_a_folder_are_fitted_evaluated_and_resumed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = VelocityField.__init__.__defaults__
    assert defaults is not None
    monkeypatch.setattr(VelocityField.__init__, "__defaults__", (16, 1, 16, *defaults[3:]))
    degrees = np.random.default_rng(1).uniform([-80, -170], [80, 170], (400, 2))
    for i, part in enumerate(np.split(degrees, 2)):
        storm = [f"s{(200 * i + n) // 4}" for n in range(200)]
        table = pa.table({"latitude": part[:, 0], "longitude": part[:, 1], "storm": storm})
        pq.write_table(table, tmp_path / f"part{i}.parquet", row_group_size=70)
    fit_words = ["fit", str(tmp_path / "*.parquet"), "--manifold", "sphere", "--groups", "storm", "--no-refine"]
    fit_words += ["--steps", "4", "--batch-size", "32", "--device", "cpu", "--out", str(tmp_path / "run")]
    assert main.main([*fit_words, "--json", "--quiet"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert sum(record["rows"].values()) == 400
    assert record["data"].endswith("400 of 400 rows")
    assert main.main([*fit_words, "--resume", "--quiet"]) == 0
    assert "nothing left to train" in capsys.readouterr().out
    assert main.main(["evaluate", str(tmp_path / "run"), "--json", "--quiet"]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert evaluated["test_blocks"] > 5
    assert main.main([*fit_words, "--validation", "0", "--force", "--quiet"]) == 2
    assert main.main([*fit_words, "--start", str(folder / "points.csv"), "--force", "--quiet"]) == 2
    assert "--start is for a table that fits into memory" in capsys.readouterr().err
