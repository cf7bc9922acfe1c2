"""Evaluation of a run: the baselines and the means use the weights that the fit used."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from manifolds import Sphere
from rfm import Flow
from rfm.command_line.evaluation import Evaluation, evaluate
from rfm.command_line.run_folder import RunData
from rfm.datasets.geographic import LatitudeLongitude
from rfm.datasets.splits import Split
from rfm.metrics import negative_log_likelihood
from rfm.sources import KernelMixture


def swirl(x: Tensor, t: Tensor) -> Tensor:
    axis = x.new_tensor([0.0, 0.0, 1.0]).expand_as(x)
    return Sphere(2).proju(x, axis) * x[..., :1]


@pytest.fixture
def data() -> RunData:
    """A run of 90 points, the weights of a third of them zero."""
    generator = torch.Generator().manual_seed(0)
    points = Sphere(2).random_uniform(90, generator=generator, dtype=torch.float64)
    weights = torch.rand(90, generator=generator, dtype=torch.float64) + 0.1
    weights[::3] = 0
    train, validation, test = torch.arange(90).split([40, 20, 30])
    return RunData(points, Split(train, validation, test), LatitudeLongitude(), "t.csv", weights=weights)


def means(result: Evaluation) -> list[float]:
    return [estimate.mean for _, estimate in result.rows]


def test_points_of_weight_zero_are_as_if_left_out(data: RunData) -> None:
    assert data.weights is not None
    flow = Flow(Sphere(2), swirl)
    result = evaluate(flow, data)
    weights = data.weights
    left = Split(*(part[weights[part] > 0] for part in data.split))
    again = evaluate(flow, replace(data, split=left))
    assert means(again) == pytest.approx(means(result), abs=1e-9)
    assert result.against_kernel is not None
    assert again.against_kernel is not None
    assert again.against_kernel.interval_95 == pytest.approx(result.against_kernel.interval_95, abs=1e-9)
    assert (
        max(abs(a - b) for a, b in zip(means(evaluate(flow, replace(data, weights=None))), means(result), strict=True))
        > 0.01
    )


def test_the_rows_are_the_weighted_means_of_weighted_kernels(data: RunData) -> None:
    assert data.weights is not None
    flow = Flow(Sphere(2), swirl)
    result = dict(evaluate(flow, data).rows)
    (train, validation, test), w = (data.points[part] for part in data.split), data.weights
    kernel = KernelMixture.mixture(
        flow.manifold,
        train,
        validation,
        sample_weights=w[data.split.train],
        validation_weights=w[data.split.validation],
    )
    for name, model in (("flow", flow), ("kernel density, 30 bandwidths", kernel)):
        assert result[name] == negative_log_likelihood(model.log_prob(test), w[data.split.test])


def test_weights_are_kept_in_the_run_folder(data: RunData, tmp_path: Path) -> None:
    data.save(tmp_path)
    again = RunData.load(tmp_path).weights
    assert again is not None
    assert torch.equal(again, torch.as_tensor(data.weights))
    replace(data, weights=None).save(tmp_path)
    assert RunData.load(tmp_path).weights is None


def test_the_table_tells_that_means_are_weighted(data: RunData) -> None:
    flow = Flow(Sphere(2), swirl)
    assert "with their weights" in evaluate(flow, data).table()
    assert "weights" not in evaluate(flow, replace(data, weights=None)).table()


def test_test_points_without_weight(data: RunData) -> None:
    assert data.weights is not None
    weights = data.weights.clone()
    weights[data.split.test] = 0
    with pytest.raises(ValueError, match="weights of all test points are zero; fit again"):
        evaluate(Flow(Sphere(2), swirl), replace(data, weights=weights))


def test_a_single_test_point_has_no_interval(data: RunData) -> None:
    result = evaluate(Flow(Sphere(2), swirl), replace(data, split=data.split._replace(test=torch.tensor([61]))))
    assert "of a single place: no interval" in result.table()
    text = json.dumps(result.record(), allow_nan=False)
    assert json.loads(text)["flow_minus_best_kernel_nats"]["interval_95"] is None


def repeated(places: int, repeats: int, seed: int) -> RunData:
    """A run whose test points are places of a cluster, each met several times; training and validation of the same."""
    generator = torch.Generator().manual_seed(seed)
    x = Sphere(2).random_uniform(60 + places, generator=generator, dtype=torch.float64)
    points = torch.cat([x[:60], x[60:].repeat_interleave(repeats, 0)])
    rows = torch.arange(len(points)).split([40, 20, places * repeats])
    return RunData(points, Split(*rows), LatitudeLongitude(), "t.csv")


def test_every_standard_error_counts_repeats_at_a_place_once() -> None:
    flow = Flow(Sphere(2), swirl)
    found = evaluate(flow, repeated(60, 10, 0))
    once = evaluate(flow, repeated(60, 1, 0))
    assert found.clusters == once.clusters == 60
    for (name, a), (_, b) in zip(found.rows, once.rows, strict=True):
        assert a.standard_error == pytest.approx(b.standard_error, rel=1e-6), name
    assert found.against_kernel is not None
    assert once.against_kernel is not None
    assert found.against_kernel.interval_95 == pytest.approx(once.against_kernel.interval_95, rel=1e-6)
    assert "clustered by place, of which 60 test" in found.table()


def test_the_standard_error_is_the_spread_over_many_test_sets() -> None:
    flow = Flow(Sphere(2), swirl)
    results = [evaluate(flow, repeated(30, 6, seed)) for seed in range(16)]
    flows = [dict(result.rows)["flow"] for result in results]
    spread = float(torch.tensor([e.mean for e in flows]).double().std())
    typical = float(torch.tensor([e.standard_error for e in flows]).double().mean())
    # The spread of 16 draws is known to about 18 %; without clusters it would be sqrt(6) times the printed error.
    assert typical == pytest.approx(spread, rel=0.45)


def test_with_weights_the_errors_are_clustered_too(data: RunData) -> None:
    assert data.weights is not None
    flow, test = Flow(Sphere(2), swirl), data.split.test
    once = evaluate(flow, data)
    thrice = evaluate(flow, replace(data, split=data.split._replace(test=test.repeat_interleave(3))))
    for (_, a), (_, b) in zip(once.rows, thrice.rows, strict=True):
        assert (a.mean, a.standard_error, a.count) == pytest.approx((b.mean, b.standard_error, b.count), rel=1e-6)


def test_the_best_kernel_is_that_of_the_validation_points() -> None:
    """Test points far from all others: the broad kernel suits them, the validation points the mixture."""
    generator = torch.Generator().manual_seed(0)
    near = Sphere(2).projx(torch.tensor([0.0, 0, 1]) + 0.02 * torch.randn(90, 3, generator=generator)).double()
    points = torch.cat([near, Sphere(2).random_uniform(20, generator=generator, dtype=torch.float64)])
    split = Split(*torch.arange(110).split([60, 30, 20]))
    data = RunData(Sphere(2).projx(points), split, LatitudeLongitude(), "t.csv")
    result = evaluate(Flow(Sphere(2), swirl), data)
    names = ("kernel density, one bandwidth", "kernel density, 30 bandwidths", "adaptive kernels")
    fits = (KernelMixture.one_bandwidth, KernelMixture.mixture, KernelMixture.adaptive)
    train, validation = (data.points[part] for part in split[:2])
    held = {
        name: float(fit(Sphere(2), train, validation).log_prob(validation).mean())
        for name, fit in zip(names, fits, strict=True)
    }
    assert result.best_kernel == max(held, key=lambda name: held[name])
    rows = dict(result.rows)
    assert result.best_kernel != min(names, key=lambda name: rows[name].mean)
    assert result.against_kernel is not None
    assert result.against_kernel.mean == pytest.approx(rows["flow"].mean - rows[result.best_kernel].mean)
    assert result.record()["best_kernel"] == result.best_kernel
    assert result.best_kernel in result.table()


def test_of_very_many_points_kernels_get_a_subset_and_the_table_says_so(
    data: RunData, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = Flow(Sphere(2), swirl)
    assert "drawn at random" not in evaluate(flow, data).table()
    monkeypatch.setattr("rfm.command_line.evaluation._CENTRES", 25)
    monkeypatch.setattr("rfm.command_line.evaluation._WEIGHING", 15)
    noted: list[str] = []
    result = evaluate(flow, data, noted.append)
    words = "kernels stand on 25 of 40 training points, and were chosen by 15 of 20 validation points, drawn at random"
    assert words in result.table()
    assert result.record()["kernels"] == words
    assert result.count == 30
    assert noted == [
        "kernel density, one bandwidth",
        "kernel density, 30 bandwidths",
        "adaptive kernels",
        "flow",
        "samples",
    ]
    assert means(evaluate(flow, data)) == means(result)


def test_a_single_test_block_tells_nothing(data: RunData) -> None:
    blocks = torch.zeros(90, dtype=torch.long)
    result = evaluate(Flow(Sphere(2), swirl), replace(data, weights=None, blocks=blocks))
    text = result.table()
    assert "nan" not in text
    assert "all test points lie in one block, which tells nothing" in text
    assert "of a single block: no interval" in text
    assert {e["standard_error"] for e in result.record()["test_nll_nats"].values()} == {None}
    assert (
        "clustered by block, of which 2 test"
        in evaluate(Flow(Sphere(2), swirl), replace(data, weights=None, blocks=torch.arange(90) % 2)).table()
    )
