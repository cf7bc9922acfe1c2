"""The study of discrete flows runs and shows what it claims, in small."""

import pytest

from experiments.discrete import main


@pytest.mark.slow
def test_quick_study(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--quick"])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0] for row in rows] == [
        *["jumps, masked source"] * 2,
        *["jumps, uniform source"] * 2,
        *("simplex", "the chain itself"),
    ]
    for one, many in (rows[:2], rows[2:4]):
        # One step draws labels independently; twenty know of each other.
        assert float(many[2]) < 0.6 * float(one[2])
        assert 0 < float(many[4]) < float(one[4])
    simplex, chain = rows[4:]
    assert float(chain[2]) < float(simplex[2]) < 0.6
