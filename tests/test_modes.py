"""Dropout and batch normalisation: training mode for the loss, evaluation mode for everything else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from kills import KilledError, killed_after
from random_fields import points
from torch import Tensor, nn

import rfm
from manifolds import Sphere
from rfm.integrators import RK4, Adaptive, FixedStep
from rfm.networks.modes import in_evaluation_mode, in_training_mode
from rfm.objectives.maximum_likelihood import MaximumLikelihood, negative_log_likelihood_loss
from rfm.sources import Uniform

SPHERE = Sphere(2)
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "dropout": lambda: nn.Dropout(0.5),
    "batch normalisation": lambda: nn.BatchNorm1d(16),
    "attention": lambda: nn.TransformerEncoderLayer(16, 2, 16, batch_first=True),
}
NOISY = pytest.mark.parametrize("layer", [pytest.param(make, id=name) for name, make in LAYERS.items()])


class Noisy(nn.Module):
    """A tangent field with a layer that has two modes; it notes in which it was called."""

    def __init__(self, layer: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.first, self.layer, self.last = nn.Linear(4, 16), layer(), nn.Linear(16, 3)
        self.modes: list[bool] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.modes.append(self.layer.training)
        h = torch.tanh(self.first(torch.cat([x, t[..., None]], -1)))
        h = self.layer(h[:, None])[:, 0] if isinstance(self.layer, nn.TransformerEncoderLayer) else self.layer(h)
        return SPHERE.proju(x, self.last(torch.tanh(h)))


def noisy(layer: Callable[[], nn.Module]) -> Noisy:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Noisy(layer)


def fitted(field: nn.Module, **options: Any) -> rfm.Flow:
    x = points(SPHERE, 60)
    settings: dict[str, Any] = {"steps": 20, "batch_size": 16, "progress": False, "device": "cpu"} | options
    return rfm.fit(x, SPHERE, field=field, **settings)


@NOISY
def test_the_loss_is_in_training_mode_and_validation_is_not(layer: Callable[[], nn.Module]) -> None:
    field, seen = noisy(layer), []

    def loss(model: Callable[..., Tensor], source: Any, x_0: Tensor, x_1: Tensor, t: Tensor, **_: Any) -> Tensor:
        value = model(x_1, t).square().mean()
        seen.append(field.modes[-1])
        return value

    # The second run starts with what the first left in evaluation mode.
    for _ in range(2):
        seen.clear()
        fitted(field, objective=loss)
        assert seen
        assert all(seen)
        assert not field.training


@NOISY
def test_histories_are_of_the_flow_in_evaluation_mode(layer: Callable[[], nn.Module]) -> None:
    held = list(range(10))
    flow = fitted(noisy(layer), validation=held)
    assert not any(part.training for part in flow.modules())
    x = SPHERE.projx(points(SPHERE, 60)).float()[held]
    solver = Adaptive(atol=1e-3, rtol=1e-3)
    best = min(record["validation_nll"] for record in flow.history)
    assert best == pytest.approx(-float(flow.log_prob(x, solver=solver).mean()), abs=1e-5)


@NOISY
def test_samples_and_scores_do_not_depend_on_the_mode_and_leave_it_alone(layer: Callable[[], nn.Module]) -> None:
    field = noisy(layer)
    field(points(SPHERE, 8).float(), torch.rand(8))
    flow = rfm.Flow(SPHERE, field)
    field.last.eval()
    x = points(SPHERE, 5).float()
    calls: list[Callable[[], Any]] = [
        lambda: flow.sample(4, generator=torch.Generator().manual_seed(0), return_log_prob=True),
        lambda: flow.log_prob(x),
        lambda: flow.log_prob(x, estimator=rfm.Hutchinson(2, torch.Generator().manual_seed(0))),
        lambda: flow.trajectory(x, (0.0, 0.5, 1.0)),
    ]
    modes = [part.training for part in flow.modules()]
    buffers = {name: value.clone() for name, value in flow.named_buffers()}
    found = [call() for call in calls]
    assert [part.training for part in flow.modules()] == modes
    assert True in modes
    assert False in modes
    for name, value in flow.named_buffers():
        assert torch.equal(value, buffers[name]), name
    flow.eval()
    for call, one in zip(calls, found, strict=True):
        torch.testing.assert_close(tuple(call()), tuple(one), rtol=0, atol=0)


def test_modes_survive_errors() -> None:
    class Broken(Noisy):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            raise KeyError("broken")

    flow = rfm.Flow(SPHERE, Broken(LAYERS["dropout"]))
    flow.field.last.eval()  # type: ignore[union-attr]
    modes = [part.training for part in flow.modules()]
    for call in (lambda: flow.sample(2), lambda: flow.log_prob(points(SPHERE, 2))):
        with pytest.raises(KeyError):
            call()
        assert [part.training for part in flow.modules()] == modes
    flow.eval()
    with pytest.raises(KeyError):
        fitted(flow.field)  # type: ignore[arg-type]
    assert not any(part.training for part in flow.modules())


def test_each_part_gets_its_own_mode_back() -> None:
    net = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2)))
    net[1][0].eval()
    modes = [part.training for part in net.modules()]
    with in_evaluation_mode(net):
        assert not any(part.training for part in net.modules())
    assert [part.training for part in net.modules()] == modes
    with in_training_mode(net):
        # Frozen parts of what is in training stay frozen.
        assert [part.training for part in net.modules()] == modes
    net.eval()
    with in_training_mode(net):
        assert all(part.training for part in net.modules())
    assert not any(part.training for part in net.modules())


def test_running_statistics_are_copied_and_saved(tmp_path: Path) -> None:
    flow = fitted(noisy(LAYERS["batch normalisation"]), out=tmp_path / "run")
    layer = flow.field.layer  # type: ignore[union-attr]
    assert layer.num_batches_tracked.dtype == torch.long
    assert int(layer.num_batches_tracked) in range(1, 21)
    assert not torch.equal(layer.running_mean, torch.zeros(16))
    again = rfm.Flow.load(tmp_path / "run", field=noisy(LAYERS["batch normalisation"]))
    x = points(SPHERE, 4)
    assert torch.equal(again.log_prob(x), flow.log_prob(x))


@NOISY
def test_a_resumed_run_drops_what_the_uninterrupted_one_dropped(layer: Callable[[], nn.Module], tmp_path: Path) -> None:
    whole = fitted(noisy(layer))
    with pytest.raises(KilledError):
        fitted(noisy(layer), out=tmp_path / "run", progress=killed_after(6))
    torch.rand(7)
    resumed = fitted(noisy(layer), out=tmp_path / "run", resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.parametrize("layer", [lambda: nn.Dropout(0.5), lambda: nn.BatchNorm1d(16)], ids=["dropout", "batch"])
def test_maximum_likelihood_wants_a_field_that_is_a_function(layer: Callable[[], nn.Module]) -> None:
    field = noisy(layer)
    with pytest.raises(ValueError, match=r"layer is .* in training mode: the velocity .* no density; call field"):
        fitted(field, objective=MaximumLikelihood(FixedStep(RK4, 2)))
    field.eval()
    negative_log_likelihood_loss(field, Uniform(SPHERE), points(SPHERE, 3).float(), FixedStep(RK4, 2))
    field.layer = nn.BatchNorm1d(16, track_running_stats=False)
    with pytest.raises(ValueError, match="depends on the rest of the batch"):
        negative_log_likelihood_loss(field.eval(), Uniform(SPHERE), points(SPHERE, 3).float(), FixedStep(RK4, 2))
