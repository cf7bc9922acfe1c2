"""The study of imitation: its spaces and measures, and that it runs and writes its page."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.imitation.__main__ import demonstrations, main
from experiments.imitation.fork import assessed_ways, ways
from experiments.imitation.measures import roughness, warped_distance
from experiments.imitation.policies import QUICK, TRAIN, windows
from experiments.imitation.report import figures, write_page
from experiments.imitation.spaces import MILLIMETRES, SPACES, Space
from manifolds import Euclidean, Sphere
from rfm.control import ActionChunks
from rfm.datasets import DatasetNotFoundError, handwriting

try:
    DATA = handwriting()
except DatasetNotFoundError:
    pytest.skip("the handwriting is not here", allow_module_level=True)


def test_handwriting() -> None:
    assert len(DATA) == 30
    assert DATA.points.shape == (30, 7, 1000, 2)
    assert float(DATA.points[:, :, -1].abs().max()) < 1e-3
    assert bool((DATA.seconds.diff(dim=-1) > 0).all())
    assert "Sshape" in DATA.shapes


@pytest.mark.parametrize("space", SPACES.values(), ids=list(SPACES))
def test_drawings_are_points_of_their_space(space: Space) -> None:
    points = demonstrations(space, QUICK).double()
    space.manifold.check_point(points, tol=1e-5)
    numbers = space.ambient(points)
    back, off = space.nearest(numbers)
    torch.testing.assert_close(back, points, atol=1e-5, rtol=0)
    assert float(off.max()) < 1e-5
    assert float(space.nearest(1.1 * numbers + 0.01)[1].max()) > 1e-3 or space.name == "plane"


def test_poses_follow_the_curve_on_the_sphere() -> None:
    positions = DATA.points[:2, :2, ::10]
    place, poses = SPACES["sphere"].carried(positions), SPACES["poses"].carried(positions)
    torch.testing.assert_close(poses[..., :3, 3], place)
    torch.testing.assert_close(poses[..., :3, 2], place)
    along = torch.nn.functional.normalize(place[:, :, 2:] - place[:, :, :-2], dim=-1)[:, :, 20:60]
    assert float((along * poses[:, :, 21:61, :3, 0]).sum(-1).median()) > 0.9
    pole = torch.tensor([0.0, 0.0, 1.0]).double()
    length = torch.linalg.vector_norm(positions, dim=-1) / MILLIMETRES
    torch.testing.assert_close(Sphere(2).dist(place, pole), length, atol=1e-9, rtol=0)


def test_windows_are_what_is_due_and_what_was_seen() -> None:
    points = demonstrations(SPACES["plane"], QUICK)[:, :TRAIN]
    chunks, seen, groups = windows(ActionChunks(Euclidean(2), 16), points, points)
    assert len(chunks) == len(groups) == 2 * TRAIN * 100
    one = points[1, 2]
    first = (TRAIN + 2) * 100
    assert torch.equal(chunks[first + 10], one[11:27])
    assert torch.equal(seen["now"][first + 10], one[10])
    assert torch.equal(seen["before"][first + 10], one[6])
    assert int(seen["shape"][first + 10]) == 1
    assert int(groups[first + 10]) == TRAIN + 2


def test_warped_distance_is_the_least_over_all_ways() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(2, 4, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    found = warped_distance(Euclidean(2), a, b)
    for k in range(2):
        d = torch.cdist(a[k], b[k]).numpy()
        sums = []
        # Every monotone way through the matrix, by brute force.
        for length in range(4, 8):
            for steps in itertools.product([(1, 1), (1, 0), (0, 1)], repeat=length - 1):
                way = np.cumsum([(0, 0), *steps], axis=0)
                if tuple(way[-1]) == (3, 3) and way.max() <= 3:
                    sums.append((d[way[:, 0], way[:, 1]].sum(), length))
        total, length = min(sums)
        assert float(found[k]) == pytest.approx(total / length)
    slow = a.repeat_interleave(3, dim=1)
    torch.testing.assert_close(warped_distance(Euclidean(2), slow, a), torch.zeros(2).double())


def test_roughness_of_smooth_tracks() -> None:
    t = torch.linspace(0, 1, 50, dtype=torch.float64)
    smooth = torch.stack([t, t**2], -1)[None]
    assert float(roughness(Euclidean(2), smooth)) < 1e-9
    noise = torch.randn(1, 50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float(roughness(Euclidean(2), smooth + noise)) > 1


def test_the_demonstrated_ways_pass_the_obstacle_and_their_mean_does_not() -> None:
    found = assessed_ways(ways(400))
    assert not any(found["hit"])
    assert 0.4 < sum(found["north"]) / 400 < 0.6
    assert max(found["end"]) < 0.05
    mean = Sphere(2).projx(ways(400).mean(0, keepdim=True))
    assert assessed_ways(mean)["hit"] == [True]


@pytest.mark.slow
def test_the_study_runs_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs, page = tmp_path / "runs", tmp_path / "page.md"
    arguments = ["--quick", "--runs", str(runs), "--spaces", "plane", "poses"]
    main([*arguments, "--kinds", "flow", "ambient flow", "regression"])
    marks = "".join(f"<!-- {name} -->\n<!-- end -->\n\n" for name in ("measures", "differences", "fork"))
    page.write_text(f"# A\n\n{marks}Below.\n")
    main([*arguments, "--out", str(page), "--figure", str(tmp_path / "a.png"), "--kinds", "flow", "diffusion"])
    assert capsys.readouterr().out.count("done") == 9
    known = figures(runs)
    assert known.keys() == {
        *itertools.product(["plane", "poses"], ["flow", "regression", "diffusion"]),
        ("poses", "ambient flow"),
    }
    for own in known.values():
        assert len(own["end"]) == len(own["warped"]) == QUICK.shapes * 2
        assert min(own["end"]) >= 0
    text = page.read_text()
    assert text.count("\n| plane |") == 5
    assert text.count("<!-- end -->") == 3
    assert text.endswith("Below.\n")
    assert "| Gaussian regression |" in text
    assert (tmp_path / "a.png").stat().st_size > 1000
    json.loads((runs / "plane-flow.json").read_text())
    with pytest.raises(ValueError, match="0 places"):
        write_page(Path(__file__), runs)
