"""Pages that turn: what they hold, that they need no network, and what a browser shows."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from headless_browser import PROGRAM, REASON, Browser, browser
from torch import Tensor

from manifolds import SE3, SO3, Euclidean, FlatTorus, Manifold, Octahedral, Quotient, RightMultiplication, Sphere
from rfm.command_line.report import _EVALUATIONS
from rfm.datasets import Cartesian
from rfm.flow import Flow
from rfm.plotting import interactive, save_page, subject_of
from rfm.plotting.interactive import PageFigure
from rfm.plotting.layouts import Subject
from rfm.sources import default_source

CRYSTAL = Quotient(SO3(), RightMultiplication(Octahedral()))
TURNING = [Sphere(2), FlatTorus(2), SO3(), SE3(), Euclidean(3), CRYSTAL]


def points_of(manifold: Manifold, n: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return manifold.projx(torch.randn(n, *manifold.event_shape, generator=generator))


def subject(manifold: Manifold, counts: tuple[int, int] = (40, 30), **options: Any) -> Subject:
    target = torch.eye(manifold.event_shape[0])[0]

    def field(x: Tensor, t: Tensor) -> Tensor:
        return manifold.proju(x, torch.sin(target - x))

    flow = Flow(manifold, field, default_source(manifold, points_of(manifold, 9)))
    data, samples = (points_of(manifold, n) for n in counts)
    return subject_of(flow, data, samples, evaluations=400, **options)


def page(manifold: Manifold, **options: Any) -> PageFigure:
    figure = interactive(subject(manifold, **options))
    assert figure is not None
    return figure


def trace(figure: PageFigure, name: str) -> dict[str, Any]:
    (found,) = (t for t in figure["data"] if t["name"].startswith(name))
    return found


def xyz(found: dict[str, Any]) -> Any:
    return np.stack([np.asarray(found[axis], float) for axis in "xyz"], axis=-1)


@pytest.mark.parametrize("manifold", TURNING, ids=str)
def test_pages_hold_data_and_samples_and_valid_json(manifold: Manifold) -> None:
    figure = page(manifold, title="a <b> title")
    text = json.dumps(figure, allow_nan=False)
    assert len(text) < 1_000_000
    assert figure["layout"]["title"]["text"] == "a &lt;b&gt; title"
    assert trace(figure, "data: 30 of 40")["visible"] is True
    assert trace(figure, "samples: 30")["visible"] == "legendonly"
    assert len(xyz(trace(figure, "data"))) == 30


@pytest.mark.parametrize("manifold", [Sphere(1), FlatTorus(1), FlatTorus(3), Euclidean(2)], ids=str)
def test_other_manifolds_have_no_page(manifold: Manifold) -> None:
    assert interactive(subject(manifold)) is None


def test_the_globe_is_where_the_points_are() -> None:
    figure = page(Sphere(2))
    surface = trace(figure, "density")
    np.testing.assert_allclose(np.linalg.norm(xyz(surface), axis=-1), 1, atol=2e-4)
    # The seam is closed.
    np.testing.assert_allclose(xyz(surface)[:, 0], xyz(surface)[:, -1], atol=2e-4)
    coasts = xyz(trace(figure, "coastlines"))
    assert np.nanmin(np.linalg.norm(coasts, axis=-1)) > 1.001
    assert np.isnan(coasts).any(axis=-1).sum() > 100
    dots = trace(figure, "samples")
    x = xyz(dots) / np.linalg.norm(xyz(dots), axis=-1, keepdims=True)
    longitude, latitude = np.radians(np.asarray(dots["customdata"])).T
    there = np.stack([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], 1)
    np.testing.assert_allclose(x, there, atol=1e-3)
    names = [t["name"] for t in page(Sphere(2), coordinates=Cartesian(("x", "y", "z"), True))["data"]]
    assert "coastlines" not in names


def test_colours_of_the_globe_are_the_density() -> None:
    own = subject(Sphere(2))
    figure = interactive(own)
    assert figure is not None
    surface = trace(figure, "density")
    rows = slice(3, -3)
    x = xyz(surface)[rows]
    exact = own.log_density(x.reshape(-1, 3)).reshape(x.shape[:2])
    assert np.abs(exact - np.asarray(surface["surfacecolor"])[rows]).max() < 0.05


def test_the_torus_closes() -> None:
    surface = trace(page(FlatTorus(2)), "density")
    x, colours = xyz(surface), np.asarray(surface["surfacecolor"])
    for first, last in ((0, -1),):
        np.testing.assert_allclose(x[first], x[last], atol=2e-4)
        np.testing.assert_allclose(x[:, first], x[:, last], atol=2e-4)
        assert (colours[first] == colours[last]).all()
        assert (colours[:, first] == colours[:, last]).all()
    tube = np.hypot(np.hypot(x[..., 0], x[..., 1]) - 1, x[..., 2])
    np.testing.assert_allclose(tube, tube.mean(), atol=1e-3)


def test_crystals_are_shown_by_their_smallest_rotations() -> None:
    # No cubic crystal is turned by more than 62.8 degrees. Source: Handscomb, 1958.
    lengths = np.linalg.norm(xyz(trace(page(CRYSTAL), "data")), axis=-1)
    assert lengths.max() < 62.81
    assert np.linalg.norm(xyz(trace(page(SO3()), "data")), axis=-1).max() > 90


@pytest.mark.parametrize("manifold", [Sphere(2), FlatTorus(2)], ids=str)
def test_a_full_page_leaves_room_in_a_report(manifold: Manifold, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report holds the script, 4.8 MB, and three images, in 6 MB."""
    monkeypatch.setattr(Subject, "log_density", lambda self, x: -np.abs(1e3 * x[:, 0]))
    drawn = replace(subject(manifold, counts=(6000, 6000)), evaluations=_EVALUATIONS)
    figure = interactive(drawn)
    assert figure is not None
    assert len(trace(figure, "data")["x"]) == 2000
    assert len(json.dumps(figure)) < 850_000


def test_a_page_needs_no_network(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    path = tmp_path / "new" / "globe.html"
    save_page(page(Sphere(2), title="Earth & sea"), path)
    text = path.read_text(encoding="utf-8")
    assert 4_000_000 < len(text) < 6_000_000
    # What lies outside of plotly's own script loads nothing.
    outside = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"(src|href)\s*=|url\(", outside)
    assert not re.search(r"<script[^>]*\bsrc", text)
    assert "<title>Earth &amp; sea</title>" in text
    with pytest.raises(ValueError, match=r"end it in \.html"):
        save_page(page(SO3()), tmp_path / "globe.png")


def _centre_of(window: Browser, name: str) -> tuple[float, float]:
    """Return where the legend's entry is, in pixels."""
    place = window.evaluate(
        "(() => { const e = [...document.querySelectorAll('.traces')]"
        f".find(e => e.textContent.startsWith({name!r})).querySelector('.legendtoggle');"
        " const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
    )
    return place[0], place[1]


def _settled(window: Browser) -> Any:
    """Return the picture once two in a row are alike."""
    before = window.picture()
    for _ in range(40):
        after = window.picture()
        if np.abs(after - before).max() < 1e-9:
            return after
        before = after
    raise AssertionError("the page does not come to rest")


def _click(window: Browser, name: str) -> Any:
    window.click(*_centre_of(window, name))
    # Beside the legend, where the pointer shows no label; a click waits whether it is a double one.
    window.evaluate("new Promise(done => setTimeout(done, 800))")
    return _settled(window)


@pytest.mark.slow
@pytest.mark.skipif(PROGRAM is None, reason=REASON)
def test_a_browser_shows_the_globe_turns_it_and_hides_what_is_clicked(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    path = tmp_path / "globe.html"
    save_page(page(Sphere(2), counts=(300, 600), title="Globe"), path)
    with browser() as window:
        window.open(path)
        window.wait_for("document.querySelector('#turning canvas') !== null")
        window.wait_for("document.querySelectorAll('.legendtoggle').length === 4")
        first = _settled(window)
        globe = first[100:560, 150:700]
        # A sphere of many colours on white paper.
        assert (globe < 0.97).any(-1).mean() > 0.4
        assert len(np.unique((globe * 15).round().reshape(-1, 3), axis=0)) > 30

        bare = _click(window, "coastlines")
        gone = np.abs(bare - first).max(-1)[100:560, 150:700] > 0.2
        # Where coasts were, white is not any more, and lines are thin.
        assert 200 < gone.sum() < 0.2 * gone.size
        assert first[100:560, 150:700][gone].mean() > bare[100:560, 150:700][gone].mean() + 0.2

        samples = _click(window, "samples")
        assert (np.abs(samples - bare).max(-1)[100:560, 150:700] > 0.2).sum() > 50

        eye = "JSON.stringify(document.getElementById('turning')._fullLayout.scene._scene.getCamera().eye)"
        before = json.loads(window.evaluate(eye))
        window.drag((400, 340), (560, 340))
        turned = _settled(window)
        after = json.loads(window.evaluate(eye))
        assert (np.abs(turned - samples).max(-1)[100:560, 150:700] > 0.2).mean() > 0.05
        # About the axis: as far away, and as high.
        assert math.hypot(after["x"], after["y"]) == pytest.approx(math.hypot(before["x"], before["y"]), rel=1e-3)
        assert after["z"] == pytest.approx(before["z"], abs=1e-3)
        assert abs(after["x"] - before["x"]) + abs(after["y"] - before["y"]) > 0.2
        assert window.failures == []
