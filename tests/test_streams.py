"""`fit_stream`: training on batches that are made as they are needed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rfm
from manifolds import Sphere
from rfm.networks import PredictedVelocity, VelocityField
from rfm.records.descriptions import SavedFlowError
from rfm.sources import VonMisesFisher

TARGET = VonMisesFisher(Sphere(2), torch.tensor([0.0, 0.0, 1.0]), 20.0)


def draw(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
    x_0 = Sphere(2).random_uniform(16, 4, generator=generator)
    t = torch.rand(16, 4, generator=generator)
    return x_0, TARGET.sample((16, 1), generator=generator), t, {}


def other_draw(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
    x_0, x_1, t, given = draw(generator)
    return x_0, -x_1, t, given


def validate(field: nn.Module) -> float:
    held_out = TARGET.sample((32,), generator=torch.Generator().manual_seed(9))
    return -float(rfm.Flow(Sphere(2), field).log_prob(held_out).mean())


def new_flow() -> rfm.Flow:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return rfm.Flow(Sphere(2), VelocityField(Sphere(2), width=16, depth=1, features=8, max_frequency=4.0))


def test_a_stream_of_batches_is_learned(tmp_path: Path) -> None:
    flow = rfm.fit_stream(draw, new_flow(), validate=validate, steps=80, device="cpu", progress=False, out=tmp_path)
    nlls = [record["validation_nll"] for record in flow.history]
    assert nlls[0] > 2.0  # uniform: log 4 pi
    assert min(nlls) < 1.8  # the target itself: -0.15
    assert all(record["cpu_seconds"] > 0 for record in flow.history)
    assert flow.stopped == "all 80 steps done"
    again = rfm.fit_stream(
        draw, new_flow(), validate=validate, steps=80, device="cpu", progress=False, out=tmp_path, resume=True
    )
    assert again.history == flow.history
    for name, value in flow.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


def test_a_folder_is_not_written_over_and_goes_on_with_the_same_run_only(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"validate": validate, "steps": 2, "device": "cpu", "progress": False, "out": tmp_path}
    rfm.fit_stream(draw, new_flow(), **settings)
    with pytest.raises(FileExistsError, match="already holds a flow"):
        rfm.fit_stream(draw, new_flow(), **settings)
    with pytest.raises(SavedFlowError, match="with other settings"):
        rfm.fit_stream(other_draw, new_flow(), **settings, resume=True)
    rfm.fit_stream(other_draw, new_flow(), **settings, training=rfm.Training(force=True))


def test_a_plain_function_cannot_be_trained() -> None:
    flow = rfm.Flow(Sphere(2), lambda x, t: torch.zeros_like(x))
    with pytest.raises(ValueError, match=r"field must be a torch\.nn\.Module"):
        rfm.fit_stream(draw, flow, validate=validate, steps=1)


def test_a_capped_stream_goes_on_with_another_cap(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "validate": validate,
        "steps": 10**6,
        "device": "cpu",
        "progress": False,
        "out": tmp_path,
    }
    first = rfm.fit_stream(draw, new_flow(), training=rfm.Training(max_seconds=0.2), **options)
    assert first.stopped.startswith("the cap of 0.2 seconds")
    second = rfm.fit_stream(draw, new_flow(), training=rfm.Training(max_seconds=0.5), resume=True, **options)
    assert second.history[: len(first.history)] == first.history
    assert second.history[-1]["step"] > first.history[-1]["step"]


def test_a_stream_takes_any_path() -> None:
    seen = []

    def flow_of(x_0: Tensor, x_1: Tensor, t: Tensor) -> Tensor:
        seen.append(t.shape)
        return Sphere(2).geodesic(x_0, x_1.expand(x_0.shape), t**2)[0]

    path = rfm.ConditionalFlowPath(Sphere(2), flow_of)
    settings: dict[str, Any] = {"validate": validate, "steps": 2, "device": "cpu", "progress": False}
    rfm.fit_stream(draw, new_flow(), objective=rfm.FlowMatching(path), **settings)
    assert seen
    flow = rfm.fit_stream(draw, new_flow(), objective=rfm.FlowMatching(predicts="end point"), **settings)
    assert isinstance(flow.field, PredictedVelocity)
    with pytest.raises(ValueError, match="path lives on"):
        rfm.fit_stream(draw, new_flow(), objective=rfm.FlowMatching(rfm.GeodesicPath(Sphere(3))), **settings)
