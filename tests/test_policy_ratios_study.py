"""The study of policy ratios runs, goes on, and writes its table."""

from pathlib import Path

import pytest
import torch

from experiments.policy_ratios import COUNTS, QUICK, SPACES, acted, compared, main, moved, trained
from rfm.likelihood import euler_log_prob

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


@pytest.mark.slow
def test_an_unmoved_flow_has_ratios_of_one() -> None:
    flow = trained(SPACES["S^2"], QUICK, 0)
    found = compared(flow, flow, QUICK, torch.Generator().manual_seed(0))
    assert found["truth"] < 1e-2
    assert all(abs(row["bias"]) < 1e-2 and row["spread"] == 0 for row in found["counts"].values())


@pytest.mark.slow
def test_the_truth_is_that_of_the_sampler() -> None:
    """Of the old policy at its own actions: without an inverse, and with one."""
    flow = trained(SPACES["SO(3)"], QUICK, 0).eval().requires_grad_(False)
    actions, log_prob = acted(flow, 12, torch.Generator().manual_seed(1))
    again = euler_log_prob(flow.field, flow.source, actions, 10).log_prob
    torch.testing.assert_close(again, log_prob, atol=2e-3, rtol=0)
    new = moved(flow.requires_grad_(True), torch.Generator().manual_seed(2))
    drawn = [next(each.field.parameters()).detach() for each in (flow, new)]  # type: ignore[union-attr]
    assert not torch.equal(*drawn)


@pytest.mark.slow
def test_the_study_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A\n\n<!-- ratios -->\nold\n<!-- end -->\n")
    main(["--quick", "--runs", str(tmp_path / "runs"), "--out", str(page)])
    assert capsys.readouterr().out.count("done") == len(SPACES)
    text = page.read_text()
    assert "old" not in text
    assert text.count("| R^6 |") == len(COUNTS) + 1
    main(["--quick", "--runs", str(tmp_path / "runs")])
    assert capsys.readouterr().out.count("done") == 0
