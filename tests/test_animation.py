"""Moving pictures: what their frames hold, and the files that they are written to."""

import itertools
import math
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from headless_browser import PROGRAM, REASON, browser
from manifold_zoo import ZOO
from PIL import Image
from torch import Tensor

import rfm
from manifolds import SO3, Euclidean, FlatTorus, Manifold, Sphere
from rfm.command_line import main as cli
from rfm.networks import VelocityField
from rfm.plotting import animated, motion_of, save_animation, save_page
from rfm.sources import Uniform, WrappedNormal


def north(x: Tensor, t: Tensor) -> Tensor:
    """Return a velocity towards the north pole of the sphere."""
    return Sphere(2).proju(x, torch.tensor([0.0, 0.0, 1.0]).to(x).expand_as(x))


def still(x: Tensor, t: Tensor) -> Tensor:
    return torch.zeros_like(x)


SPHERE = rfm.Flow(Sphere(2), north)
PLANE = rfm.Flow(Euclidean(2), lambda x, t: -x, WrappedNormal(Euclidean(2), torch.zeros(2)))
SMALL: dict[str, Any] = {"count": 40, "frames": 3, "evaluations": 60}


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in ZOO])
def test_particles_of_every_manifold_have_a_place_on_the_page(make: Any) -> None:
    manifold: Manifold = make()
    try:
        source = Uniform(manifold)
    except ValueError:
        pytest.skip("no uniform distribution")
    motion = motion_of(rfm.Flow(manifold, still, source), count=6, frames=2, evaluations=0)
    k = 3 if motion.scene.kind == "space" else 2
    for points in motion.points:
        places = motion.scene.place(points)
        assert places.shape == (6, k)
        assert np.isfinite(places).all()
    if motion.scene.kind != "map":
        assert len(motion.scene.names) == len(motion.scene.limits) == k


def test_particles_follow_the_flow_and_arrows_its_field() -> None:
    motion = motion_of(SPHERE, count=100, frames=5, evaluations=0)
    again = SPHERE.trajectory(motion.points[0], motion.times)
    assert float(SPHERE.manifold.dist(motion.points, again).max()) < 1e-2
    height = motion.points[..., 2]
    assert (height[1:] >= height[:-1] - 1e-5).all()
    assert (motion.arrows[..., 2] >= height[:, : motion.arrows.shape[1]] - 1e-5).all()
    assert motion.times == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert motion.densities == ()


def test_densities_are_those_of_the_time() -> None:
    motion = motion_of(PLANE, count=50, frames=3, evaluations=400)
    for t, (x, y, values) in zip(motion.times, motion.densities, strict=True):
        points = torch.from_numpy(np.stack(np.meshgrid(x, y), axis=-1))
        # The field -x takes a standard normal to one of standard deviation exp(-t).
        truth = -(points**2).sum(-1) * math.exp(2 * t) / 2 - math.log(2 * math.pi) + 2 * t
        assert float((torch.from_numpy(values) - truth).abs().max()) < 0.1


@pytest.mark.slow
def test_a_refined_flow_shows_the_flow_alone() -> None:
    points = FlatTorus(2).projx(torch.randn(400, 2, generator=torch.Generator().manual_seed(0)) * 0.2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        field = VelocityField(FlatTorus(2), 16, 1)
    flow = rfm.fit(points, FlatTorus(2), field=field, steps=20, progress=False)
    assert flow.refinement is not None
    motion = motion_of(flow, **SMALL)
    assert motion.flow.refinement is None
    assert len(motion.densities) == 3


@pytest.mark.parametrize(
    "flow",
    [SPHERE, PLANE, rfm.Flow(FlatTorus(1), still), rfm.Flow(SO3(), still)],
    ids=["sphere", "plane", "circle", "rotations"],
)
def test_a_gif_has_a_picture_for_each_time_and_moves(flow: rfm.Flow, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "flow.gif"
    save_animation(motion_of(flow, title="of $1", **SMALL), path, 40)
    with Image.open(path) as gif:
        assert getattr(gif, "n_frames", 1) == 3
        assert gif.info["loop"] == 0
        shown = []
        for i in range(3):
            gif.seek(i)
            shown.append(np.asarray(gif.convert("RGB"), dtype=float))
    assert all(np.abs(a - b).max() > 50 for a, b in itertools.pairwise(shown)), "at least the time changes"


def test_mp4_is_written_by_ffmpeg_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    motion = motion_of(PLANE, **SMALL)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"ffmpeg, which is not on the path; end the name in .gif"):
        save_animation(motion, tmp_path / "flow.mp4")
    program = tmp_path / "ffmpeg"
    program.write_text('#!/bin/sh\nfor last; do :; done\n/bin/cat > "$last"\n', encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    save_animation(motion, tmp_path / "flow.mp4", 20)
    # The program above keeps what it is given: the pixels of each frame, red, green, blue and opaque.
    assert (tmp_path / "flow.mp4").stat().st_size == 3 * 160 * 128 * 4


@pytest.mark.parametrize(("name", "named"), [("flow.png", ".gif or .mp4"), ("flow", ".gif or .mp4")])
def test_other_endings_get_a_sentence(name: str, named: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=named):
        save_animation(motion_of(PLANE, **SMALL), tmp_path / name)


@pytest.mark.slow
@pytest.mark.skipif(PROGRAM is None, reason=REASON)
@pytest.mark.parametrize("flow", [SPHERE, PLANE, rfm.Flow(SO3(), still)], ids=["sphere", "plane", "rotations"])
def test_the_slider_of_a_page_moves_the_particles(flow: rfm.Flow, tmp_path: Path) -> None:
    page = tmp_path / "flow.html"
    motion = motion_of(flow, title="a flow", **SMALL)
    save_page(animated(motion), page)
    drawn = "document.querySelector('.js-plotly-plot')"
    with browser() as window:
        window.open(page)
        window.wait_for(f"{drawn} && {drawn}._fullData && {drawn}.querySelector('canvas, svg') !== null")
        before = window.picture()
        window.evaluate(f"Plotly.animate({drawn}, ['1.000'], {{mode: 'immediate', frame: {{redraw: true}}}})")
        dots = f"{drawn}.data.filter(trace => trace.mode == 'markers')[0]"
        found = np.array(window.evaluate(f"Array.from({dots}.x)"), dtype=float)
        after = window.picture()
        assert window.failures == []
    x = motion.points[-1] if motion.scene.kind == "map" else torch.from_numpy(motion.scene.place(motion.points[-1]))
    radius = 1.012 if motion.scene.kind == "map" else 1.0
    assert np.abs(found - radius * x[:, 0].numpy()).max() < 1e-3
    assert before.std() > 0.01
    if flow.field is not still:
        assert np.abs(before - after).max() > 0.3


@pytest.mark.slow
def test_the_command_line_writes_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "angles.csv"
    angles = torch.randn(120, 2, generator=torch.Generator().manual_seed(0)) * 0.4
    table.write_text("phi,psi\n" + "\n".join(f"{a:.5f},{b:.5f}" for a, b in angles.tolist()), encoding="utf-8")
    out = tmp_path / "run"
    assert cli.main(["fit", str(table), "--manifold", "torus", "--radians", "--steps", "5", "--out", str(out)]) == 0
    assert cli.main(["animate", str(out), "--frames", "3", "-n", "30", "--quiet"]) == 0
    assert capsys.readouterr().out.strip().endswith("flow.gif")
    assert cli.main(["animate", str(out), "--frames", "3", "--no-density", "--out", str(tmp_path / "a.html")]) == 0
    assert "animate" in (tmp_path / "a.html").read_text(encoding="utf-8")
    assert cli.main(["animate", str(out)]) == 2
    assert cli.main(["animate", str(out), "--out", str(tmp_path / "a.png")]) == 2
    assert "has no known ending" in " ".join(capsys.readouterr().err.split())
