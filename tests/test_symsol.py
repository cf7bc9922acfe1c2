"""The study of symmetric solids: what its pictures show, what its network keeps, and its commands on small runs."""

import csv
import math
from pathlib import Path

import pytest
import torch
from kills import KilledError, killed_after
from torch import Tensor

import rfm
from experiments.symsol.bodies import BODIES, NAMES, Body
from experiments.symsol.commands import main
from experiments.symsol.evaluation import UNIFORM, modes
from experiments.symsol.renderer import SIZE, render
from experiments.symsol.training import Settings, batches, log_likelihoods, new_flow, poses_and_pictures, trained
from manifolds import SO3
from manifolds.rotations import matrix_from_wxyz
from rfm import models
from rfm.command_line import main as cli
from rfm.models import packaged

EVERY = pytest.mark.parametrize("body", BODIES, ids=NAMES)
SMALL = Settings(steps=6, pictures=1, pairs=4, width=4, hidden=8, held_out=1)


def poses(count: int, seed: int = 0) -> Tensor:
    return SO3().random_uniform(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def turned(x: Tensor, angle: float) -> Tensor:
    """Return poses turned by an angle about random axes of the body."""
    axis = torch.randn(len(x), 3, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    omega = angle * torch.nn.functional.normalize(axis, dim=-1)
    return SO3().expmap(x, torch.linalg.cross(x, omega[:, None].expand_as(x)))


@EVERY
def test_symmetric_poses_have_one_picture(body: Body) -> None:
    x = poses(4)
    same = body.symmetric_poses(x, turns=12)
    pictures = render(body, same.flatten(0, 1)).reshape(4, -1, SIZE, SIZE)
    # Edges of a picture may hit a ray exactly; nowhere else does rounding decide.
    assert float((pictures - render(body, x)[:, None]).abs().max()) < 1e-6
    count = {"tetrahedron": 12, "cube": 24, "icosahedron": 60, "cone": 12, "cylinder": 24}
    assert same.shape[1] == count[body.name]


@EVERY
def test_other_poses_have_other_pictures(body: Body) -> None:
    x = poses(16)
    before = render(body, x)
    for degrees in (3, 10, 25):
        y = turned(x, math.radians(degrees))
        moved = (render(body, y) - before).abs().amax((1, 2))
        # A body of revolution may have been turned about its own axis, or nearly.
        away = SO3().dist(body.symmetric_poses(x, turns=360), y[:, None]).amin(1) > math.radians(degrees / 2)
        assert int(away.sum()) >= 8
        assert float(moved[away].min()) > 0.02


@EVERY
def test_no_pose_beyond_the_symmetric_ones_looks_like_them(body: Body) -> None:
    x, others = poses(1, seed=2), poses(600, seed=3)
    unlike = (render(body, others) - render(body, x)).square().mean((1, 2)).sqrt()
    distance = SO3().dist(body.symmetric_poses(x, turns=360), others[:, None]).amin(1)
    far = distance > math.radians(25)
    assert int(far.sum()) > 20 or body.name == "icosahedron"
    assert not bool(far.any()) or float(unlike[far].min()) > 0.02


@EVERY
def test_pictures_show_the_body_whole_and_in_the_middle(body: Body) -> None:
    pictures = render(body, poses(64))
    assert float(pictures.min()) == 0
    assert float(pictures.max()) <= 1
    edge = torch.cat([pictures[:, 0], pictures[:, -1], pictures[:, :, 0], pictures[:, :, -1]], dim=-1)
    assert float(edge.max()) == 0
    assert float((pictures > 0).double().mean((1, 2)).min()) > 0.1


def test_a_picture_agrees_with_points_inside_the_body() -> None:
    """What the camera sees of random points inside is inside the outline, and reaches it."""
    for body in BODIES:
        y = 2 * torch.rand(200_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1
        inside = (y @ body.normals.mT <= body.offsets).all(-1)
        if body.quadric is not None:
            curvature, slope, apex = body.quadric
            inside &= y[:, :2].square().sum(-1) <= curvature + slope**2 * (apex - y[:, 2]) ** 2
            inside &= (y[:, 2] <= apex) | (slope == 0)
        [x] = poses(1, seed=4)
        seen = y[inside] @ x.mT
        across = seen[:, :2] / (seen[:, 2:] + 4.0) * 4.0 / 1.1
        column = ((across[:, 0] + 1) / 2 * SIZE).long()
        row = ((1 - across[:, 1]) / 2 * SIZE).long()
        hit = torch.zeros(SIZE, SIZE, dtype=torch.bool)
        hit[row, column] = True
        outline = render(body, x[None])[0]
        full = torch.nn.functional.max_pool2d(outline[None], 3, 1, 1)[0] > 0
        assert not bool((hit & ~full).any())
        assert float((hit & (outline > 0)).sum() / (outline > 0).sum()) > 0.95


def test_batches_depend_on_the_generator_alone() -> None:
    draw = batches(SMALL)
    first, again = (draw(torch.Generator().manual_seed(3)) for _ in range(2))
    for a, b in zip(first[:3], again[:3], strict=True):
        assert torch.equal(a, b)
    x_0, x_1, t, given = first
    assert (x_0.shape[:2], x_1.shape[:2], t.shape) == ((5, 4), (5, 1), (5, 4))
    assert given["condition"].shape == (5, 1, SIZE, SIZE)


def test_an_untrained_flow_is_uniform_in_the_published_measure() -> None:
    flow = new_flow(SMALL)
    scores = log_likelihoods(flow.field, *poses_and_pictures(2, torch.Generator().manual_seed(0)))  # type: ignore[arg-type]
    torch.testing.assert_close(scores, torch.full_like(scores, UNIFORM))
    assert pytest.approx(-2.29, abs=0.005) == UNIFORM


@EVERY
def test_modes_are_found_by_samples_that_are_there(body: Body, monkeypatch: pytest.MonkeyPatch) -> None:
    x = poses(2).float()
    truth = body.symmetric_poses(x, turns=24)
    drawn = turned(truth.flatten(0, 1), math.radians(2)).reshape(truth.shape)
    flow = new_flow(SMALL)
    monkeypatch.setattr(rfm.Flow, "sample", lambda *arguments, **settings: drawn)
    measured = modes(flow, body, x, render(body, x), drawn.shape[1])
    assert (measured.recovered, measured.near) == (1, 1)
    assert 0 < measured.spread_degrees <= 2.01
    half = drawn[:, : drawn.shape[1] // 2].clone()
    monkeypatch.setattr(rfm.Flow, "sample", lambda *arguments, **settings: half)
    assert modes(flow, body, x, render(body, x), half.shape[1]).recovered < 1


def test_a_run_that_was_killed_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = trained(SMALL, None, device="cpu", progress=False)
    with pytest.raises(KilledError):
        trained(SMALL, tmp_path, device="cpu", progress=killed_after(3))
    assert not (tmp_path / "flow.json").exists()
    resumed = trained(SMALL, tmp_path, device="cpu")
    loaded = rfm.Flow.load(tmp_path)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
        assert torch.equal(value, loaded.state_dict()[name]), name


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, figure = tmp_path / "run", tmp_path / "figure.png"
    assert main(["--quick", "--run", str(run), "--figure", str(figure)]) == 0
    table = capsys.readouterr().out
    assert all(f"| {name} | -2.29 |" in table for name in (*NAMES, "mean"))
    assert figure.stat().st_size > 10_000
    picture, out = tmp_path / "cube.png", tmp_path / "poses.csv"
    assert main(["picture", "cube", str(picture), "--seed", "3"]) == 0
    capsys.readouterr()
    command = ["sample", str(run), "--condition", f"picture={picture}"]
    assert cli.main([*command, "-n", "5", "--log-prob", "--out", str(out)]) == 0
    rows = list(csv.reader(out.read_text(encoding="utf-8").splitlines()))
    assert rows[0] == ["qw", "qx", "qy", "qz", "log_prob_nats", "multiples_of_uniform"]
    values = torch.tensor([[float(value) for value in row] for row in rows[1:]])
    # The same from Python, of the picture as it was before it was written in 256 shades.
    pose = SO3().random_uniform(1, generator=torch.Generator().manual_seed(3))
    scores = rfm.Flow.load(run).log_prob(
        SO3().projx(matrix_from_wxyz(values[:, :4])), condition={"picture": render(BODIES[1], pose)[0]}
    )
    torch.testing.assert_close(values[:, 4], scores, atol=0.02, rtol=0)
    scored = tmp_path / "scores.csv"
    assert cli.main(["log-prob", str(run), str(out), "--condition", f"picture={picture}", "--out", str(scored)]) == 0
    again = [float(row[0]) for row in list(csv.reader(scored.read_text(encoding="utf-8").splitlines()))[1:]]
    torch.testing.assert_close(values[:, 4], torch.tensor(again), atol=1e-3, rtol=0)
    capsys.readouterr()
    assert main(["picture", "cube", str(picture)]) == 2  # exists


@pytest.mark.slow
def test_a_packaged_flow_draws_and_scores_from_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, picture = tmp_path / "run", tmp_path / "cone.png"
    trained(SMALL, run, device="cpu")
    monkeypatch.setattr(packaged, "_HERE", tmp_path / "shelf")
    assert main(["--quick", "--run", str(run), "package", str(tmp_path / "shelf" / "symsol")]) == 0
    assert main(["picture", "cone", str(picture)]) == 0
    card = models.card("symsol")
    assert list(card.figures) == [*NAMES, "mean", "assessed on"]
    own = ["--model", "symsol", "--condition", f"picture={picture}"]
    drawn = ["-n", "5", "--log-prob", "--out", str(tmp_path / "poses.csv")]
    assert cli.main(["sample", *own, *drawn]) == 0
    assert cli.main(["log-prob", str(tmp_path / "poses.csv"), *own, "--out", str(tmp_path / "scores.csv")]) == 0
    capsys.readouterr()
    assert cli.main(["regions", *own, "--draws", "64", "--probabilities", "90"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("90   %")
    poses = list(csv.reader((tmp_path / "poses.csv").read_text(encoding="utf-8").splitlines()))
    again = list(csv.reader((tmp_path / "scores.csv").read_text(encoding="utf-8").splitlines()))
    for first, second in zip(poses[1:], again[1:], strict=True):
        assert float(first[4]) == pytest.approx(float(second[0]), abs=1e-3)
    # In parts, which the flow's file identifies.
    scored = ["log-prob", str(tmp_path / "poses.csv"), *own, "--out", str(tmp_path / "parts.csv")]
    assert cli.main(scored, part_rows=2) == 0
    assert len((tmp_path / "parts.csv").read_text(encoding="utf-8").splitlines()) == 6
    # A picture goes where the user is, not into the package.
    monkeypatch.chdir(tmp_path)
    assert cli.main(["plot", *own]) == 0
    assert (tmp_path / "density.png").exists()


def test_a_run_that_was_saved_without_the_meaning_of_its_condition_gets_it(tmp_path: Path) -> None:
    flow = trained(SMALL, tmp_path, device="cpu")
    flow.conditions = None
    flow.save(tmp_path)
    (tmp_path / "run.json").unlink()
    assert rfm.Flow.load(tmp_path).conditions is None
    again = trained(SMALL, tmp_path, device="cpu")
    loaded = rfm.Flow.load(tmp_path)
    assert loaded.conditions == again.conditions is not None
    assert (tmp_path / "run.json").exists()
    for name, value in flow.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
