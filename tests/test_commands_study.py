"""The table of how long commands take."""

from pathlib import Path

import pytest

from experiments import commands


@pytest.mark.slow
def test_every_command_is_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands.main(["--run", str(tmp_path), "--quick"])
    printed = capsys.readouterr().out
    for name in ("fit", "sample", "log-prob", "grid", "probability"):
        assert f"| `rfm {name}" in printed
    assert (tmp_path / "density.nc").stat().st_size > 0
    # A run that is there is not fitted again.
    commands.main(["--run", str(tmp_path), "--quick"])
    assert "rfm fit" not in capsys.readouterr().out
