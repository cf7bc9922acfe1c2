"""What holds on the CPU holds on a GPU: the laws of manifolds, sources and solves, and training by captured steps."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from kills import KilledError, killed_after
from manifold_zoo import ZOO
from random_fields import points, wavy_field
from torch import Tensor, nn
from zoo_sources import source_of

import rfm
from experiments.symsol.training import Settings, batches, new_flow
from manifolds import SO3, Manifold, Sphere
from manifolds.matrices.grassmann import Grassmann
from manifolds.matrices.spd import SPD, LogEuclideanSPD
from manifolds.matrices.stiefel import Stiefel
from manifolds.testing import LAWS, check_manifold
from rfm.couplings import OptimalTransport
from rfm.integrators import RK4, Adams, Adaptive, FixedStep
from rfm.networks import VelocityField

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

EVERY = pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in ZOO])
_SOLVER = FixedStep(RK4, 4)


def small(manifold: Manifold) -> VelocityField:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return VelocityField(manifold, width=32, depth=1, features=16, max_frequency=4.0)


@pytest.fixture
def captured() -> list[bool]:
    """Whether each step of the trainings that `noting` reports of was replayed."""
    return []


def noting(captured: list[bool]) -> Callable[[float, dict[str, Any]], None]:
    return lambda spent, record: captured.append(record["replayed"])


def fitted(manifold: Manifold, captured: list[bool] | None = None, **options: Any) -> rfm.Flow:
    progress = False if captured is None else noting(captured)
    settings: dict[str, Any] = {"steps": 24, "batch_size": 64, "progress": progress, "device": "cuda"} | options
    settings["training"] = replace(settings.get("training") or rfm.Training(), validations=3)
    if "field" not in settings:
        settings["field"] = small(manifold)
    return rfm.fit(points(manifold, 100, seed=1), manifold, source=source_of(manifold), **settings)


def vector(flow: rfm.Flow) -> Tensor:
    return nn.utils.parameters_to_vector(flow.parameters()).detach().double()


@EVERY
def test_laws(make: Callable[[], Manifold]) -> None:
    # The last laws move manifolds to other devices themselves, or are about code and not about numbers.
    laws = [law for law in LAWS if law.name not in ("device is kept", "methods compile")]
    check_manifold(make(), device="cuda", laws=laws).raise_if_failed()


@EVERY
def test_samples_and_densities_are_those_of_the_cpu(make: Callable[[], Manifold]) -> None:
    m = make()
    flow = rfm.Flow(m, wavy_field(m), source_of(m))
    x_0 = flow.source.sample((16,), torch.Generator().manual_seed(0), torch.float64)
    here = flow.trajectory(x_0, (0.0, 1.0), solver=_SOLVER)[-1]
    log_p = flow.log_prob(here, solver=_SOLVER)
    flow = flow.to("cuda")
    there = flow.trajectory(x_0.cuda(), (0.0, 1.0), solver=_SOLVER)[-1]
    assert there.is_cuda
    torch.testing.assert_close(m.embed(there.cpu()), m.embed(here), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(flow.log_prob(here.cuda(), solver=_SOLVER).cpu(), log_p, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("m", [Sphere(2), SO3(), SPD(2)], ids=str)
@pytest.mark.parametrize(
    ("solver", "tolerance"),
    [(FixedStep(Adams(), 6), 1e-8), (Adaptive(Adams(), 1e-4, 1e-4), 1e-3)],
    ids=["fixed", "own"],
)
def test_adams_steps_are_those_of_the_cpu(m: Manifold, solver: Adaptive | FixedStep, tolerance: float) -> None:
    flow = rfm.Flow(m, wavy_field(m), source_of(m))
    x_0 = flow.source.sample((16,), torch.Generator().manual_seed(0), torch.float64)
    times = (0.0, 0.3, 1.0)
    here = flow.trajectory(x_0, times, solver=solver)
    log_p = flow.log_prob(here[-1], solver=solver)
    flow = flow.to("cuda")
    there = flow.trajectory(x_0.cuda(), times, solver=solver)
    assert there.is_cuda
    torch.testing.assert_close(m.embed(there.cpu()), m.embed(here), rtol=tolerance, atol=tolerance)
    found = flow.log_prob(here[-1].cuda(), solver=solver).cpu()
    torch.testing.assert_close(found, log_p, rtol=10 * tolerance, atol=10 * tolerance)


@EVERY
def test_sources_draw_there(make: Callable[[], Manifold]) -> None:
    source = source_of(make()).to("cuda")
    x = source.sample((5, 3), torch.Generator("cuda").manual_seed(0), torch.float64, "cuda")
    source.manifold.check_point(x)
    density = source.log_prob(x)
    assert x.is_cuda
    assert density.is_cuda
    torch.testing.assert_close(density.cpu(), source.cpu().log_prob(x.cpu()), rtol=1e-9, atol=1e-9)


@EVERY
def test_captured_training_is_that_of_plain_steps(make: Callable[[], Manifold], captured: list[bool]) -> None:
    flow, plain = fitted(make(), captured), fitted(make(), training=rfm.Training(capture=False))
    # Their maps are found by solvers, which may look at what they have found.
    if not any(isinstance(part, SPD | LogEuclideanSPD | Stiefel | Grassmann) for part in make().modules()):
        assert captured == [False] * 3 + [True] * 21
    torch.testing.assert_close(vector(flow), vector(plain), rtol=1e-3, atol=1e-4)
    assert flow.history[-1]["loss"] == pytest.approx(plain.history[-1]["loss"], rel=1e-3)


def test_a_killed_run_goes_on_to_the_same_result(tmp_path: Path, captured: list[bool]) -> None:
    whole = fitted(Sphere(2), captured, steps=32)
    assert sum(captured) > 28
    with pytest.raises(KilledError):
        fitted(Sphere(2), steps=32, out=tmp_path, progress=killed_after(20))
    resumed = fitted(Sphere(2), steps=32, out=tmp_path, resume=True)
    torch.testing.assert_close(vector(resumed), vector(whole), rtol=1e-3, atol=1e-4)


def test_a_step_that_waits_for_the_cpu_is_run_plainly(captured: list[bool]) -> None:
    fitted(Sphere(2), captured, coupling=OptimalTransport(Sphere(2)))
    assert not any(captured)


class _Fickle(VelocityField):
    """A field whose Python code counts its calls."""

    calls = 0

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        self.calls += 1
        return super().forward(*args, **kwargs) + self.calls


def test_a_step_that_changes_is_noticed(captured: list[bool]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        field = _Fickle(Sphere(2), width=32, depth=1, features=16, max_frequency=4.0)
    with pytest.warns(UserWarning, match="capture=False"):
        fitted(Sphere(2), captured, field=field)
    assert captured[:5] == [False, False, False, True, False]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted(Sphere(2), field=field, training=rfm.Training(capture=False))


class _Switching(VelocityField):
    """A field whose Python code does something else from its eighth call on."""

    calls = 0

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        self.calls += 1
        return super().forward(*args, **kwargs) * (1 if self.calls < 8 else 2)


def test_a_step_that_changes_later_is_noticed(captured: list[bool]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        field = _Switching(Sphere(2), width=32, depth=1, features=16, max_frequency=4.0)
    with pytest.warns(UserWarning, match="capture=False"):
        fitted(Sphere(2), captured, field=field, steps=40)
    assert captured[3]
    assert not captured[-1]


class _Dropping(VelocityField):
    """A field with dropout, which draws from the global generator."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.manifold.proju(args[0], nn.functional.dropout(super().forward(*args, **kwargs), 0.1, self.training))


def test_dropout_is_captured(captured: list[bool]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        field = _Dropping(Sphere(2), width=32, depth=1, features=16, max_frequency=4.0)
    fitted(Sphere(2), captured, field=field)
    assert all(captured[3:])


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_trains(precision: Any) -> None:
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator="gpu", devices=1, precision=precision)
    fabric.launch()
    flow = fitted(SO3(), training=rfm.Training(fabric=fabric), device=None)
    assert all(torch.isfinite(p).all() for p in flow.parameters())


def test_conditions_and_weights_are_captured(captured: list[bool]) -> None:
    x = points(Sphere(2), 100, seed=1)
    options: dict[str, Any] = {"steps": 24, "batch_size": 64, "progress": noting(captured), "device": "cuda"}
    rfm.fit(x, Sphere(2), condition=x[:, :2], weights=x[:, 2].abs() + 0.1, **options)
    assert captured == [False] * 3 + [True] * 21


def test_pictures_are_rendered_in_the_captured_step(captured: list[bool]) -> None:
    settings = Settings(pictures=2, pairs=4, width=4, hidden=16)
    flows = []
    for capture in (True, False):
        progress = noting(captured) if capture else False
        options: dict[str, Any] = {"validate": lambda field: 0.0, "steps": 12, "progress": progress, "device": "cuda"}
        flows.append(
            rfm.fit_stream(batches(settings), new_flow(settings), training=rfm.Training(capture=capture), **options)
        )
    assert captured == [False] * 3 + [True] * 9
    assert isinstance(flows[0].manifold, SO3)
    torch.testing.assert_close(vector(flows[0]), vector(flows[1]), rtol=1e-3, atol=1e-4)
