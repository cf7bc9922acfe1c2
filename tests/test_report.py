"""Reports: one page on a run, as HTML, text and JSON, with its caveats."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from manifolds import Sphere
from rfm import Flow
from rfm.command_line import main as cli
from rfm.command_line import report
from rfm.command_line.caveats import caveats
from rfm.command_line.evaluation import evaluate
from rfm.command_line.report_content import Report, report_on
from rfm.command_line.run_folder import RunData, StartData
from rfm.datasets.geographic import LatitudeLongitude
from rfm.datasets.splits import Split
from rfm.networks import VelocityField
from rfm.plotting import plot_reliability
from rfm.regions import coverage
from rfm.sources import Empirical


@pytest.fixture(scope="module")
def data() -> RunData:
    """Points along a spiral, in order, of which every tenth is there twice."""
    t = torch.linspace(0, 1, 240, dtype=torch.float64)
    latitude, longitude = 1.2 * (2 * t - 1), 9 * t
    x = torch.stack([latitude.cos() * longitude.cos(), latitude.cos() * longitude.sin(), latitude.sin()], dim=1)
    x[::10] = x[1::10]
    index = torch.randperm(240, generator=torch.Generator().manual_seed(0))
    return RunData(x, Split(*index.split([150, 40, 50])), LatitudeLongitude(), "spiral & co.csv", sha256="ab12")


@pytest.fixture(scope="module")
def run(data: RunData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "run"
    torch.manual_seed(0)
    flow = Flow(Sphere(2), VelocityField(Sphere(2), width=8, depth=1, features=8))
    flow.history = [{"step": 3, "loss": 2.0, "seconds": 1.0, "validation_nll": 2.5}]
    flow.stopped = "the cap of 1 seconds was reached at step 3 of 10"
    flow.save(folder)
    data.save(folder)
    return folder


@pytest.fixture(scope="module")
def content(run: Path, data: RunData) -> Report:
    return report_on(Flow.load(run), data, run)


def test_a_report_says_what_evaluate_and_calibration_say(content: Report, run: Path, data: RunData) -> None:
    record = json.loads(json.dumps(content.record(), allow_nan=False))
    flow = Flow.load(run)
    result = evaluate(flow, data)
    assert record["test"] == json.loads(json.dumps(result.record()))
    assert record["data"]["different_points"] == 216
    assert record["split"] == {"training": 150, "validation": 40, "test": 50, "by_block": False}
    assert record["fit"]["validation_nll_nats"] == 2.5
    found = coverage(flow, data.points[data.split.test])
    assert record["calibration"]["share"] == [e.mean for e in found.shares]
    text = content.text()
    for name, estimate in result.rows:
        assert re.search(rf"^{re.escape(name)} +{estimate.mean:.3f} ", text, re.MULTILINE)
    for title in ("Data", "Split", "Fit", "Test likelihood", "Density", "Calibration", "Caveats"):
        assert f"\n{title}\n{'-' * len(title)}\n" in text


def test_caveats_name_what_is_wrong_and_nothing_else(content: Report, run: Path, data: RunData) -> None:
    flow = Flow.load(run)
    said = " ".join(content.sections[-1].sentences)
    for words in ("24 of 240 points repeat", "Few rows: 150", "Rows are ordered", "the cap of 1 seconds", "one seed"):
        assert words in said
    # Without order, repeats, small numbers and a cap there is only what holds for every fit.
    x = Sphere(2).random_uniform(3000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    calm = replace(data, points=x, split=Split(*torch.arange(3000).split([2000, 500, 500])))
    flow.stopped = ""
    (only,) = caveats(flow, calm, None, None, None)[1:]
    assert only.startswith("This is one fit")
    # Blocks answer the order of rows.
    blocks = torch.arange(240) // 20
    assert not any("Rows are ordered" in s for s in caveats(flow, replace(data, blocks=blocks), None, None, None))
    noisy = caveats(flow, calm, None, None, {"mean": 0.5, "largest": 2.0, "points": 100.0})
    assert any("0.5 nats on average and 2 at most" in s and "noticeable" in s for s in noisy)


def test_the_command_writes_text_and_json(
    run: Path, content: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rfm.command_line import report_content

    monkeypatch.setattr(report_content, "report_on", lambda *arguments: content)
    assert cli.main(["report", str(run), "--format", "text", "--quiet"]) == 0
    assert capsys.readouterr().out == content.text() + "\n"
    out = tmp_path / "report.json"
    assert cli.main(["report", str(run), "--out", str(out), "--quiet"]) == 0
    assert json.loads(out.read_text()) == json.loads(json.dumps(content.record()))
    assert cli.main(["report", str(run), "--out", str(out)]) == 2
    assert "--force" in capsys.readouterr().err


def test_the_page_holds_everything(
    run: Path, content: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("plotly")
    from rfm.command_line import report_content

    monkeypatch.setattr(report_content, "report_on", lambda *arguments: content)
    monkeypatch.setattr(report, "_EVALUATIONS", 200)
    assert cli.main(["report", str(run), "--quiet"]) == 0
    text = (run / "report.html").read_text(encoding="utf-8")
    assert len(text) < 6_000_000
    outside = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert "spiral &amp; co.csv" in outside
    for section in content.sections:
        assert f'<section id="{section.name}">' in outside
    assert outside.count("data:image/webp;base64,") == 3
    assert not re.search(r"(src|href)=\"(?!data:)", outside)
    assert 'id="turning"' in outside
    # Without plotly there is all but the page that turns, and a sentence that names the extra.
    monkeypatch.setitem(__import__("sys").modules, "plotly.io", None)
    assert cli.main(["report", str(run), "--quiet", "--force"]) == 0
    text = (run / "report.html").read_text(encoding="utf-8")
    assert text.count("data:image/webp;base64,") == 3
    assert "turning" not in text
    assert "riemannian-flow-matching[report]" in capsys.readouterr().err


def test_a_run_without_test_points_says_so(run: Path, data: RunData) -> None:
    none: Any = torch.zeros(0, dtype=torch.long)
    written = report_on(Flow.load(run), replace(data, split=data.split._replace(test=none)), run)
    assert "No test points were held out" in written.text()
    assert "calibration" not in written.record()


def test_the_reliability_curve_shows_the_shares(content: Report) -> None:
    found = content.coverage
    assert found is not None
    figure = plot_reliability(found)
    curve, histogram = figure.axes
    (line,) = (line for line in curve.lines if line.get_label() == "test points")
    x, y = line.get_data()
    assert list(x) == [0, *found.probabilities, 1]
    assert list(y) == [0, *(e.mean for e in found.shares), 1]
    assert sum(bar.get_height() * bar.get_width() for bar in histogram.patches) == pytest.approx(1)
    assert not math.isnan(histogram.get_ylim()[1])


def test_a_flow_from_given_points_is_reported_by_distances(run: Path, data: RunData) -> None:
    start = Sphere(2).random_uniform(60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    flow = Flow(Sphere(2), Flow.load(run).field, Empirical(Sphere(2), start))
    written = report_on(flow, replace(data, start=StartData(start, test=torch.arange(30))), run)
    assert "squared MMD" in written.text()
    assert "has no density" in written.text()
    assert written.coverage is None
    assert "beside_test_points" in written.record()["test"]
