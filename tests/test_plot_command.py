"""``rfm plot``: what its options mean, and what it refuses before it draws."""

from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure

from manifolds import SO3, FlatTorus, Manifold, Sphere
from rfm import Flow, plotting
from rfm.command_line import main as cli
from rfm.command_line import plot
from rfm.command_line.run_folder import RunData
from rfm.datasets import Angles, Coordinates, LatitudeLongitude, Orientations
from rfm.datasets.splits import Split
from rfm.networks import VelocityField
from rfm.plotting import View


def saved_run(folder: Path, manifold: Manifold, coordinates: Coordinates) -> Path:
    generator = torch.Generator().manual_seed(0)
    points = manifold.random_uniform(30, generator=generator, dtype=torch.float64)
    torch.manual_seed(0)
    Flow(manifold, VelocityField(manifold, width=8, depth=1, features=8)).save(folder)
    RunData(points, Split(*torch.arange(30).split([20, 5, 5])), coordinates, "table.csv").save(folder)
    return folder


@pytest.fixture(scope="module")
def globe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_run(tmp_path_factory.mktemp("plot") / "globe", Sphere(2), LatitudeLongitude())


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The options of every picture, none of which is drawn."""
    found: list[dict[str, Any]] = []

    def none(flow: Flow, points: Any, **options: Any) -> Figure:
        found.append(options)
        return plotting.new_figure(1, 1, options["title"])

    monkeypatch.setattr(plotting, "plot_flow", none)
    return found


@pytest.mark.parametrize(
    ("words", "view"),
    [
        ([], None),
        (["--centre", "150"], View(-30, 330)),
        (["--extent", "south=-50", "north=10", "west=150", "east=-60"], View(150, 300, -50, 10)),
        (["--extent", "north=0"], View(north=0)),
        (["--centre", "-60", "--extent", "south=0"], View(-240, 120, 0, 90)),
    ],
)
def test_what_a_map_shows(
    globe: Path, tmp_path: Path, drawn: list[dict[str, Any]], words: list[str], view: View | None
) -> None:
    out = tmp_path / "map.svg"
    assert cli.main(["plot", str(globe), "--out", str(out), *words, "--title", "Mine", "--regions", "50", "90%"]) == 0
    assert drawn[0]["view"] == view
    assert drawn[0]["title"] == "Mine"
    assert drawn[0]["regions"] == [0.5, 0.9]
    assert drawn[0]["progress"] is True
    assert b"<svg" in out.read_bytes()


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--extent", "40"], "is not EDGE=DEGREES"),
        (["--extent", "south=x"], "is not EDGE=DEGREES"),
        (["--extent", "south=1", "south=2"], "is given twice"),
        (["--extent", "west=1"], "give both"),
        (["--extent", "west=1", "east=2", "--centre", "3"], "give one of them"),
        (["--extent", "south=50", "north=40"], "-90 <= south < north <= 90"),
        (["--regions", "100"], "below 100 percent"),
        (["--out", "map.bmp"], "end it in .png, .pdf, .svg, .html"),
    ],
)
def test_faults_are_found_before_anything_is_drawn(
    globe: Path,
    tmp_path: Path,
    drawn: list[dict[str, Any]],
    words: list[str],
    fault: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["plot", str(globe), "--out", str(tmp_path / "map.png"), *words]) == 2
    err = capsys.readouterr().err
    assert fault in err
    assert len(err.splitlines()) <= 3
    assert not drawn
    assert not list(tmp_path.iterdir())


def test_a_page_is_written_where_there_is_one(
    globe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("plotly")
    monkeypatch.setattr(plot, "_PAGE_EVALUATIONS", 60)
    assert cli.main(["plot", str(globe), "--out", str(tmp_path / "globe.html"), "--quiet"]) == 0
    assert 'id="turning"' in (tmp_path / "globe.html").read_text(encoding="utf-8")
    circle = saved_run(tmp_path / "circle", FlatTorus(1), Angles(("phi",)))
    assert cli.main(["plot", str(circle), "--out", str(tmp_path / "circle.html"), "--quiet"]) == 2
    assert "no page that turns for FlatTorus(1)" in capsys.readouterr().err


def test_kinds_of_pictures_are_of_orientations(globe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bodies = saved_run(tmp_path / "bodies", SO3(), Orientations(("phi1", "Phi", "phi2")))
    out = tmp_path / "zone.png"
    assert cli.main(["plot", str(bodies), "--kind", "fundamental-zone", "--out", str(out), "--quiet"]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    words = ["--kind", "inverse-pole-figures", "--out", str(tmp_path / "globe.png"), "--quiet"]
    assert cli.main(["plot", str(globe), *words]) == 2
    assert "is of orientations" in capsys.readouterr().err
