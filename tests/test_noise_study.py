"""The study of noise runs, and its control is found out."""

import pytest

from experiments.noise import main


@pytest.mark.slow
def test_quick_study(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--quick"])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[1] for row in rows] == 2 * ["without noise, other seed", "with noise", "noise without the score"]
    for without, noisy, control in (rows[:3], rows[3:]):
        assert float(without[4]) > 1e-4
        assert float(noisy[4]) > 1e-4
        assert float(control[3]) > float(noisy[3])
