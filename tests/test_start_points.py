"""Fits from data to data: pairs, splits, weights, validation, resuming, refusals, the command line."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_fields import normal, points
from torch import Tensor

import rfm
from manifolds import SO3, Euclidean, FlatTorus, Hyperboloid, Manifold, Sphere
from rfm.command_line.main import main
from rfm.couplings import OptimalTransport
from rfm.metrics import AmbientGaussianKernel, maximum_mean_discrepancy
from rfm.networks import VelocityField
from rfm.objectives import MaximumLikelihood
from rfm.sources import Empirical, Uniform, WrappedNormal
from rfm.training.start_points import check_start
from rfm.training.weighted_points import Points

SLOWER = (Euclidean(2), FlatTorus(2), Hyperboloid(2), SO3())


def cloud(manifold: Manifold, n: int, seed: int) -> Tensor:
    centre = points(manifold, seed=seed).expand(n, *manifold.event_shape)
    return manifold.expmap(centre, manifold.proju(centre, 0.2 * normal(n, *manifold.event_shape, seed=seed + 1)))


def fitted(x: Tensor, manifold: Manifold, **options: Any) -> rfm.Flow:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        field = VelocityField(manifold, width=32, depth=1, features=16, max_frequency=4.0)
    settings: dict[str, Any] = {"steps": 60, "batch_size": 64, "device": "cpu", "progress": False, "field": field}
    settings["training"] = rfm.Training(validations=4)
    return rfm.fit(x, manifold, **(settings | options))


@pytest.mark.parametrize("pairing", ["none", "transport", "rows", "index"])
@pytest.mark.parametrize(
    "manifold",
    [
        Sphere(2),
        *(pytest.param(m, marks=pytest.mark.slow) for m in (Euclidean(2), FlatTorus(2), Hyperboloid(2), SO3())),
    ],
    ids=repr,
)
def test_start_points_are_carried_to_the_points(manifold: Manifold, pairing: str) -> None:
    start, x = cloud(manifold, 120, 1), cloud(manifold, 100, 5)
    options: dict[str, Any] = {
        "none": {},
        "transport": {"coupling": OptimalTransport(manifold)},
        "rows": {"pairs": True},
        "index": {"pairs": np.arange(100) + 20},
    }[pairing]
    start = start[:100] if pairing == "rows" else start
    flow = fitted(x, manifold, start=start, steps=120, **options)
    losses = [record["validation_loss"] for record in flow.history]
    assert min(losses) < losses[0]
    assert all(math.isfinite(record["validation_mmd2"]) for record in flow.history)
    kernel = AmbientGaussianKernel(manifold, 0.5)
    before = maximum_mean_discrepancy(start[:100], x, kernel).mean
    after = maximum_mean_discrepancy(flow.transport(start[:100]).double(), x, kernel).mean
    assert after < 0.5 * before
    assert isinstance(flow.source, Empirical)
    with pytest.raises(ValueError, match=r"Flow\.log_prob: there is no log-density"):
        flow.log_prob(x)


@pytest.mark.slow
def test_pairs_are_learned_as_pairs() -> None:
    # A rotation by a right angle of a round cloud: no coupling but the given one knows it.
    plane, x = Euclidean(2), normal(400, 2, seed=3)
    turned = torch.stack([-x[:, 1], x[:, 0]], dim=-1)
    error = {}
    for name, options in {"pairs": {"pairs": True}, "none": {}}.items():
        flow = fitted(turned, plane, start=x, steps=300, **options)
        error[name] = float(plane.dist(flow.transport(x).double(), turned).mean())
    assert error["pairs"] < 0.3 < 1.0 < error["none"]


def test_pairs_are_split_as_one() -> None:
    plane = Euclidean(1)
    start, x = torch.arange(50.0)[:, None].double(), torch.arange(50.0)[:, None].double() + 100
    known = check_start(start, plane, np.arange(50)[::-1].copy(), None, 50)
    assert known is not None
    data = known.beside(Points(x))
    part = data.take(torch.tensor([3, 7]))
    assert part.start is not None
    assert torch.equal(part.x + part.start, torch.tensor([[149.0], [149.0]], dtype=torch.float64))


def test_start_points_are_held_out_too() -> None:
    plane = Euclidean(1)
    start = torch.arange(100.0)[:, None].double()
    known = check_start(start, plane, None, torch.arange(100) + 1, 200)
    assert known is not None
    train, held = known.sources(plane, 0.2, 200, 0)
    assert isinstance(train, Empirical)
    assert isinstance(held, Empirical)
    assert len(train.points) == 80
    assert len(held.points) == 20
    assert train.weights is not None
    assert torch.equal(train.weights, train.points[:, 0] + 1)
    assert torch.equal(torch.cat([train.points, held.points]).sort(0).values, start)


def test_weights_of_both_sides_count() -> None:
    line = Euclidean(1)
    start, x = (torch.tensor([[-1.0], [1.0]]).double().repeat(100, 1) + 0.01 * normal(200, 1, seed=s) for s in (1, 2))
    # Points near 1 alone have weight on the right, start points near -1 alone on the left.
    left, right = (start[:, 0] < 0).double(), (x[:, 0] > 0).double()
    flow = fitted(x, line, start=start, start_weights=left, weights=right, steps=200)
    drawn = flow.source.sample((100,), torch.Generator().manual_seed(0))
    assert bool((drawn < 0).all())
    assert abs(float(flow.transport(drawn).mean()) - 1) < 0.2


def test_pairs_from_a_source_with_density_keep_it() -> None:
    sphere = Sphere(2)
    source = Uniform(sphere)
    start = source.sample((200,), torch.Generator().manual_seed(0), torch.float64)
    flow = fitted(-start, sphere, start=start, pairs=True, source=source)
    assert flow.source is source
    assert bool(flow.log_prob(start).isfinite().all())
    assert "validation_loss" in flow.history[-1]


def test_a_source_of_points_is_validated_by_pairs_too() -> None:
    sphere = Sphere(2)
    flow = fitted(cloud(sphere, 60, 5), sphere, source=Empirical(sphere, cloud(sphere, 50, 1)))
    assert all("validation_loss" in record and "validation_nll" not in record for record in flow.history)


def test_a_fit_from_start_points_is_resumed_to_the_same_flow(tmp_path: Path) -> None:
    sphere = Sphere(2)
    start, x = cloud(sphere, 60, 1), cloud(sphere, 50, 5)
    first = fitted(x, sphere, start=start, out=tmp_path)
    again = fitted(x, sphere, start=start, out=tmp_path, resume=True)
    assert again.history == first.history
    assert torch.equal(again.transport(start), first.transport(start))
    with pytest.raises(ValueError, match="other data or with other settings"):
        fitted(x, sphere, start=start + 0, out=tmp_path, resume=True, start_weights=torch.arange(60.0) + 1)


def test_conditions_go_along() -> None:
    plane = Euclidean(2)
    start, x = normal(100, 2, seed=1), normal(100, 2, seed=2)
    field = VelocityField(plane, width=16, depth=1, features=8, max_frequency=4.0, condition_dim=1)
    flow = fitted(x, plane, start=start, condition=x[:, :1], field=field, steps=10)
    assert flow.transport(start, condition=x[:, :1]).shape == (100, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs": True}, "pairs belongs to start points"),
        ({"start_weights": torch.ones(30)}, "start_weights belongs to start points"),
        ({"start": torch.zeros(30, 3)}, r"fit: start: .* have shape \(n, 2\)"),
        ({"start": torch.zeros(29, 2), "pairs": True}, "got 29 and 30 rows"),
        ({"start": torch.zeros(29, 2), "pairs": "rows"}, "pairs must be True or one row"),
        ({"start": torch.zeros(29, 2), "pairs": torch.full((30,), 29)}, "from 0 to 28"),
        ({"start": torch.zeros(29, 2), "pairs": torch.zeros(3).long()}, "for each of the 30 points"),
        ({"start": torch.zeros(30, 2), "pairs": True, "start_weights": torch.ones(30)}, "leave out start_weights"),
        ({"start": torch.zeros(30, 2), "source": WrappedNormal(Euclidean(2), torch.zeros(2), 1.0)}, "leave out source"),
        ({"start": torch.zeros(30, 2), "pairs": True, "coupling": OptimalTransport(Euclidean(2))}, "or coupling"),
        ({"start": torch.zeros(30, 2), "objective": MaximumLikelihood()}, "looks at points alone"),
        ({"start": torch.full((30, 2), math.nan)}, "fit: start: .*not finite"),
    ],
)
def test_what_contradicts_start_points_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fitted(normal(30, 2), Euclidean(2), **options)


def test_the_command_line_carries_a_table_to_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = np.random.default_rng(0).normal((10, 20), 6, size=(60, 2))
    for name, rows in {"start": places, "end": places + np.array([0, 60])}.items():
        text = "lat,lon\n" + "".join(f"{a:.4f},{b:.4f}\n" for a, b in rows)
        (tmp_path / f"{name}.csv").write_text(text)
    start, end = str(tmp_path / "start.csv"), str(tmp_path / "end.csv")
    common = ["--manifold", "sphere", "--device", "cpu", "--steps", "20", "--batch-size", "32", "--quiet"]
    for pairs in ([], ["--pairs"]):
        run = str(tmp_path / f"run{len(pairs)}")
        assert main(["fit", end, "--start", start, *pairs, *common, "--out", run, "--json"]) == 0
        record = json.loads(capsys.readouterr().out)
        assert record["validation_nll_nats"] is None
        assert math.isfinite(record["validation_loss"])
        assert record["start"] == 60
        assert record["paired"] is bool(pairs)
        assert main(["evaluate", run, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        rows = told["beside_test_points"]
        assert rows["flow of the start points"]["squared_mmd"] < rows["start points"]["squared_mmd"]
        assert ("pair_distance" in told) is bool(pairs)
        assert main(["sample", run, "--start", start, "--quiet"]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 61
        assert main(["plot", run]) == 0
        capsys.readouterr()
        assert main(["log-prob", run, end]) == 2
        assert "no log-density" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--pairs"], "--pairs is about the rows of --start"),
        (["--start", "start.csv", "--source", "uniform"], "leave out --source"),
        (["--start", "short.csv", "--pairs"], "row i of both tables"),
        (["--start", "start.csv", "--pairs", "--coupling", "sinkhorn"], "leave out --coupling"),
    ],
)
def test_options_that_contradict_start_points_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, rows in {"start": 30, "end": 30, "short": 29}.items():
        Path(f"{name}.csv").write_text("x,y\n" + "".join(f"{i},{i * i % 7}\n" for i in range(rows)))
    command = ["fit", "end.csv", "--manifold", "euclidean", "--out", "run", "--steps", "2", *more]
    assert main(command) == 2
    assert message in " ".join(capsys.readouterr().err.split())
