"""Evaluation of a run: the baselines and the means use the weights that the fit used."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from manifolds import Sphere
from rfm import Flow
from rfm.datasets.coordinates import LatitudeLongitude
from rfm.datasets.splits import Split
from rfm.evaluation import Evaluation, evaluate
from rfm.metrics import negative_log_likelihood
from rfm.run_folder import RunData
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
