"""Few steps on the command line: a run is distilled into another, which draws in jumps."""

import json
from pathlib import Path

import numpy as np
import pytest

from rfm import Flow
from rfm.command_line import main as cli
from rfm.datasets import read_table
from rfm.networks import AverageVelocity, VelocityField

FAST = ["--points", "60", "--steps", "4", "--batch-size", "32", "--device", "cpu", "--quiet"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two runs of a few steps, ``plain`` and ``by-depth``, and the first one distilled."""
    folder = tmp_path_factory.mktemp("distil")
    generator = np.random.default_rng(0)
    rows = [f"{8 * a:.3f},{180 + 15 * b:.3f},{c:.3f}" for a, b, c in generator.standard_normal((60, 3))]
    (folder / "quakes.csv").write_text("\n".join(["lat,lon,depth", *rows]) + "\n")
    defaults = VelocityField.__init__.__defaults__
    assert defaults is not None
    VelocityField.__init__.__defaults__ = (16, 1, 16, *defaults[3:])
    try:
        words = ["fit", str(folder / "quakes.csv"), "--manifold", "sphere", "--columns", "lat", "lon", "--steps", "10"]
        words += ["--batch-size", "32", "--device", "cpu", "--quiet"]
        assert cli.main([*words, "--out", str(folder / "plain")]) == 0
        assert cli.main([*words, "--out", str(folder / "by-depth"), "--condition", "depth"]) == 0
    finally:
        VelocityField.__init__.__defaults__ = defaults
    assert cli.main(["distil", str(folder / "plain"), "--out", str(folder / "fast"), *FAST]) == 0
    return folder


def test_a_distilled_run_is_a_run(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flow, before = Flow.load(runs / "fast"), Flow.load(runs / "plain")
    assert isinstance(flow.field, AverageVelocity)
    assert (flow.refinement is None) == (before.refinement is None)
    out = tmp_path / "samples.csv"
    assert cli.main(["sample", str(runs / "fast"), "-n", "20", "--steps", "2", "--out", str(out)]) == 0
    table = read_table(out)
    assert table.names == ("lat", "lon")
    assert len(table.numbers(("lat",))) == 20
    start = tmp_path / "start.csv"
    start.write_text("lat,lon\n10,20\n-30,40\n")
    assert cli.main(["sample", str(runs / "fast"), "--start", str(start), "--steps", "1"]) == 0
    assert len(capsys.readouterr().out.strip().splitlines()) == 3
    assert cli.main(["evaluate", str(runs / "fast"), "--quiet"]) == 0


def test_scores_are_of_what_is_drawn(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fast, drawn = str(runs / "fast"), tmp_path / "samples.csv"
    assert cli.main(["sample", fast, "-n", "20", "--steps", "1", "--log-prob", "--out", str(drawn)]) == 0
    capsys.readouterr()
    assert cli.main(["log-prob", fast, str(drawn), "--steps", "1"]) == 0
    found = [float(line.split(",")[0]) for line in capsys.readouterr().out.strip().splitlines()[1:]]
    table = read_table(drawn)
    np.testing.assert_allclose(found, table.numbers(("log_prob_nats_per_steradian",))[:, 0], atol=2e-3)


def test_a_conditional_run_under_guidance(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["distil", str(runs / "by-depth"), "--out", str(tmp_path / "fast"), *FAST, "--guidance", "2", "--json"]
    assert cli.main([*words, "--objective", "lagrangian", "--invertibility", "1"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["objective"] == "lagrangian"
    assert record["guidance"] == 2
    assert set(record["jump_errors"]) == {"1", "2", "4"}
    assert Flow.load(tmp_path / "fast").conditions is not None
    assert cli.main(["sample", str(tmp_path / "fast"), "--condition", "depth=0.5", "-n", "3", "--steps", "1"]) == 0
    assert len(capsys.readouterr().out.strip().splitlines()) == 4


def test_a_distillation_goes_on(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["distil", str(runs / "plain"), "--out", str(tmp_path / "fast"), *FAST]
    assert cli.main(words) == 0
    first = capsys.readouterr().out
    assert "root mean square distance of samples" in first
    assert cli.main(words) == 2
    assert "already holds a flow;\nuse --resume, --force" in capsys.readouterr().err
    assert cli.main([*words, "--resume"]) == 0
    assert capsys.readouterr().out == first


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["sample", "{plain}", "--steps", "1"], "jumps need a field with a second time"),
        (["sample", "{fast}", "--steps", "1", "--error", "1e-3"], "--error is for a solve"),
        (["log-prob", "{fast}", "{table}", "--steps", "1", "--error", "1e-3"], "--error is for a solve"),
        (["log-prob", "{plain}", "{table}", "--steps", "1"], "jumps need a field with a second time"),
        (["distil", "{plain}", "--out", "{plain}"], "--out is the run that is distilled"),
        (["distil", "{plain}", "--out", "{new}", "--guidance", "2"], "guidance needs a condition"),
        (["distil", "{plain}", "--out", "{new}", "--objective", "magic"], "invalid choice"),
        (["distil", "{plain}", "--out", "{new}", "--invertibility", "-1"], "invertibility is a weight"),
        (["distil", "{new}", "--out", "{newer}"], "is not a folder"),
    ],
)
def test_bad_input_is_refused(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], match: str
) -> None:
    names = {"plain": runs / "plain", "fast": runs / "fast", "new": tmp_path / "new", "newer": tmp_path / "newer"}
    names["table"] = runs / "quakes.csv"
    assert cli.main([word.format(**names) for word in words]) == 2
    assert match in capsys.readouterr().err
