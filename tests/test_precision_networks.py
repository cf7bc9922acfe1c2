"""Networks in low precision: their layers run in it, and nothing that a point, a time or a density needs does."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from kills import KilledError, killed_after
from random_fields import normal, points, tangents
from torch import Tensor, nn
from zoo_sources import source_of

import rfm
from manifolds import SO3, SPD, CentredPoses, FlatTorus, Manifold, Sphere
from rfm.integrators import FixedStep
from rfm.networks import VelocityField
from rfm.networks.encoded import Encoded
from rfm.networks.frames import FrameField
from rfm.networks.picture_encoder import PictureEncoder
from rfm.networks.rotation_velocity import RotationVelocity
from rfm.objectives.maximum_likelihood import MaximumLikelihood, negative_log_likelihood_loss
from rfm.training.weight_average import WeightAverage


class Plain(nn.Module):
    """A user's own network, of layers that take nothing but the dtype of their weights."""

    def __init__(self, m: Manifold) -> None:
        super().__init__()
        self.m = m
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Linear(m.embed_dim + 1, 16), nn.Tanh(), nn.Linear(16, m.field_dim))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        assert t.dtype != torch.bfloat16
        t = t.expand(self.m.batch_shape(x))
        return self.m.tangent_from_vector(x, self.layers(torch.cat([self.m.embed(x), t[..., None]], dim=-1)))


def velocity(m: Manifold, size: float = 0.1, **options: Any) -> VelocityField:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        field = VelocityField(m, width=32, depth=2, features=32, **{"max_frequency": 64.0, **options})
        nn.init.normal_(field.last.weight, std=size)
    return field


FLOWS: list[tuple[str, Callable[[], nn.Module], Manifold]] = [
    ("sphere", lambda: velocity(Sphere(2)), Sphere(2)),
    ("torus", lambda: velocity(FlatTorus(2)), FlatTorus(2)),
    ("SO3", lambda: velocity(SO3()), SO3()),
    ("SPD", lambda: velocity(SPD(2)), SPD(2)),
    ("a user's own network", lambda: Plain(Sphere(2)), Sphere(2)),
]


@pytest.mark.parametrize(("make", "m"), [(f, m) for _, f, m in FLOWS], ids=[name for name, _, _ in FLOWS])
@pytest.mark.parametrize("how", ["autocast", "bfloat16 weights", "float16 weights"])
def test_flows_run_low(make: Callable[[], nn.Module], m: Manifold, how: str) -> None:
    """Samples and densities of a network in low precision are those of float32, within what its layers round."""
    solver = FixedStep(steps=8)
    flow = rfm.Flow(m, make(), source_of(m))
    x = flow.sample(6, generator=torch.Generator().manual_seed(0), solver=solver)
    log_p = flow.log_prob(x, solver=solver)
    cast = copy.deepcopy(flow)
    if "weights" in how:
        cast.to(torch.bfloat16 if "bf" in how else torch.float16)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=how == "autocast"):
        y = cast.sample(6, generator=torch.Generator().manual_seed(0), solver=solver)
        found = cast.log_prob(x, solver=solver)
        with_density = cast.sample(6, generator=torch.Generator().manual_seed(0), solver=solver, return_log_prob=True)
        path = cast.trajectory(x, (1.0, 0.5), solver=solver)
    assert y.dtype == found.dtype == path.dtype == torch.float32
    m.check_point(y)
    assert float(m.dist(x, y).max()) < 0.05
    torch.testing.assert_close(found, log_p, rtol=0, atol=0.1)
    torch.testing.assert_close(with_density[0], y)
    # And the network did run low.
    assert not torch.equal(found, log_p)


FIELDS: list[tuple[str, Callable[[], nn.Module], Manifold, dict[str, Tensor]]] = [
    (
        "conditions in thousands",
        lambda: velocity(
            Sphere(2),
            condition_dim=2,
            condition_offset=[2000.0, 0.0],
            condition_scale=[2.0, 1.0],
            condition_labels=[0, 3],
        ),
        Sphere(2),
        {"condition": torch.tensor([[2000.25, 1.0], [1999.0, 0.0], [2001.5, math.nan]])},
    ),
    ("of a Lie group", lambda: velocity(SO3()), SO3(), {}),
    ("rotations", lambda: RotationVelocity(width=16), SO3(), {"condition": normal(3, 224, dtype=torch.float32)}),
    ("frames", lambda: FrameField(width=16, pair_width=8, depth=2, heads=2), CentredPoses(5, 10.0), {}),
    (
        "pictures",
        lambda: Encoded(PictureEncoder(16, 4, 4, 8), velocity(Sphere(2), condition_dim=4)),
        Sphere(2),
        {"condition": normal(3, 16, 16, dtype=torch.float32)},
    ),
]


def perturbed(field: nn.Module) -> nn.Module:
    """Return the field with no layer left at zero."""
    generator = torch.Generator().manual_seed(1)
    for parameter in field.parameters():
        if parameter.ndim > 1 and not bool(parameter.any()):
            nn.init.normal_(parameter, std=0.1, generator=generator)
    return field


def relative(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


@pytest.mark.parametrize(("make", "m", "condition"), [case[1:] for case in FIELDS], ids=[case[0] for case in FIELDS])
@pytest.mark.parametrize("gradients", [True, False])
def test_fields_run_low(
    make: Callable[[], nn.Module], m: Manifold, condition: dict[str, Tensor], gradients: bool
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        field = perturbed(make())
    x = points(m, 3, dtype=torch.float32)
    v, t = tangents(m, points(m, 3)).float(), torch.tensor([0.2, 0.9, 0.9995])

    def results(field: nn.Module, **more: Tensor) -> list[Tensor]:
        value, slope = torch.func.jvp(lambda y: field(y, t, **condition), (x,), (v,))
        mapped = torch.func.vmap(lambda e: torch.func.jvp(lambda y: field(y, t, **condition), (x,), (e,))[1])(v[None])
        u, divergence = rfm.divergence(field, m, x, t, **condition)
        return [a.detach() for a in (field(x, t, **condition), value, slope, mapped[0], u, divergence)]

    with torch.set_grad_enabled(gradients):
        plain = results(field)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = results(field)
        for dtype, bound in ((None, 0.05), (torch.bfloat16, 0.05), (torch.float16, 0.01)):
            if dtype is not None:
                found = results(copy.deepcopy(field).to(dtype))
            for a, b in zip(found, plain, strict=True):
                assert a.dtype == torch.float32
                assert 0 < relative(a, b) < bound
            m.check_tangent(x, found[0], tol=1e-4)


def test_gradients_of_a_field_that_runs_low_are_those_of_float32() -> None:
    m = SO3()
    x, t = points(m, 8, dtype=torch.float32), torch.rand(8, generator=torch.Generator().manual_seed(0))
    slopes = []
    for low in (False, True):
        field = velocity(m)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=low):
            # What is cast where no gradient is wanted must not be taken up where one is.
            with torch.no_grad():
                field(x, t)
            u, divergence = rfm.divergence(field, m, x, t)
            loss = u.square().sum() + divergence.sum()
        loss.backward()
        assert all(p.grad is not None for p in field.parameters())
        slopes.append(torch.cat([p.grad.flatten() for p in field.parameters() if p.grad is not None]))
    assert 0 < relative(slopes[1], slopes[0]) < 0.05


def test_the_adjoint_runs_the_field_as_the_way_back_did() -> None:
    m = Sphere(2)
    x = points(m, 4, dtype=torch.float32)
    solver = FixedStep(steps=4)
    slopes = []
    for adjoint in (False, True):
        field = velocity(m)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = negative_log_likelihood_loss(field, source_of(m), x, solver, adjoint=adjoint)
        loss.backward()
        slopes.append(torch.cat([p.grad.flatten() for p in field.parameters() if p.grad is not None]))
    assert relative(slopes[1], slopes[0]) < 0.1


def test_buffers_that_coordinates_pass_keep_their_digits() -> None:
    field = velocity(Sphere(2), condition_dim=1, condition_offset=[2023.0]).to(torch.bfloat16)
    assert isinstance(field, VelocityField)
    assert float(field.condition_inputs.offset) == 2023.0
    assert field.projection.dtype == torch.float32
    assert field.last.weight.dtype == torch.bfloat16
    assert velocity(Sphere(2)).double().projection.dtype == torch.float64


# Training.


def fabric(precision: Any) -> Any:
    from lightning_fabric import Fabric

    made = Fabric(accelerator="cpu", devices=1, precision=precision)
    made.launch()
    return made


def untrained(m: Manifold, **options: Any) -> VelocityField:
    return velocity(m, size=0.0, max_frequency=4.0, **options)


def data(m: Manifold) -> Tensor:
    x = points(m, 1, seed=5).expand(120, *m.event_shape)
    return m.expmap(x, 0.3 * tangents(m, x, seed=6))


def fitted(m: Manifold, precision: Any, **options: Any) -> rfm.Flow:
    settings = {
        "steps": 24,
        "batch_size": 32,
        "training": rfm.Training(learning_rate=1e-2, fabric=fabric(precision), validations=4),
        "progress": False,
        "field": untrained(m),
    } | options
    return rfm.fit(data(m), m, **settings)


WEIGHTS = {"bf16-mixed": torch.float32, "bf16-true": torch.bfloat16, "64-true": torch.float64}


@pytest.mark.parametrize("precision", WEIGHTS)
@pytest.mark.parametrize("m", [Sphere(2), FlatTorus(2), SO3(), SPD(2)], ids=str)
def test_every_precision_trains_as_float32_does(m: Manifold, precision: str, tmp_path: Path) -> None:
    plain = fitted(m, "32-true")
    flow = fitted(m, precision, out=tmp_path)
    assert {p.dtype for p in flow.field.parameters()} == {WEIGHTS[precision]}  # type: ignore[union-attr]
    nll, expected = (f.history[-1]["validation_nll"] for f in (flow, plain))
    # Of a scale of nats; float64 draws other numbers.
    assert abs(nll - expected) < (0.5 if precision != "bf16-mixed" else 0.1)
    assert nll < flow.history[0]["validation_nll"]
    loaded = rfm.Flow.load(tmp_path)
    x = loaded.sample(5, generator=torch.Generator().manual_seed(0), solver=FixedStep(steps=8))
    m.check_point(x)
    assert torch.equal(loaded.log_prob(x, solver=FixedStep(steps=8)), flow.log_prob(x, solver=FixedStep(steps=8)))


@pytest.mark.parametrize("precision", WEIGHTS)
def test_a_resumed_run_ends_as_an_uninterrupted_one(precision: str, tmp_path: Path) -> None:
    m = Sphere(2)
    whole = fitted(m, precision)
    with pytest.raises(KilledError):
        fitted(m, precision, out=tmp_path, progress=killed_after(18))
    with pytest.raises(rfm.records.descriptions.SavedFlowError, match="other data or settings"):
        fitted(m, "32-true", out=tmp_path, resume=True)
    resumed = fitted(m, precision, out=tmp_path, resume=True)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    assert [r["validation_nll"] for r in whole.history] == [r["validation_nll"] for r in resumed.history]


@pytest.mark.parametrize("precision", WEIGHTS)
@pytest.mark.parametrize("adjoint", [False, True])
def test_maximum_likelihood_trains_in_every_precision(precision: str, adjoint: bool) -> None:
    objective = MaximumLikelihood(FixedStep(steps=2), adjoint=adjoint)
    flow = fitted(Sphere(2), precision, objective=objective, steps=4, batch_size=8)
    assert math.isfinite(flow.history[-1]["validation_nll"])


@pytest.mark.parametrize("precision", WEIGHTS)
def test_users_networks_and_couplings_train_in_every_precision(precision: str) -> None:
    m = Sphere(2)
    flow = fitted(m, precision, field=Plain(m), coupling=rfm.couplings.OptimalTransport(m), steps=8)
    assert math.isfinite(flow.history[-1]["validation_nll"])
    assert bool(flow.log_prob(points(m, 3)).isfinite().all())
    condition = data(m)[:, :1]
    field = untrained(m, condition_dim=1)
    flow = fitted(m, precision, field=field, condition=condition, weights=condition[:, 0].abs() + 0.1, steps=8)
    assert math.isfinite(flow.history[-1]["validation_nll"])


@pytest.mark.parametrize("precision", WEIGHTS)
def test_streams_train_in_every_precision(precision: str) -> None:
    m = Sphere(2)
    seen: list[torch.dtype] = []

    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
        x_0, x_1 = (m.random_uniform(8, generator=generator) for _ in range(2))
        seen.append(torch.zeros(()).dtype)
        return x_0, x_1, torch.rand(8, generator=generator), {}

    flow = rfm.Flow(m, untrained(m))
    # Of the averaged weights, as they will be returned.
    dtypes: list[torch.dtype] = []

    def validate(field: nn.Module) -> float:
        dtypes.append(next(field.parameters()).dtype)
        return 0.0

    rfm.fit_stream(
        draw, flow, validate=validate, steps=4, progress=False, training=rfm.Training(fabric=fabric(precision))
    )
    assert set(seen) == {torch.float32}
    assert set(dtypes) == {WEIGHTS[precision]}


def test_precisions_that_cannot_be_trained_in_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"'16-true' cannot be trained in .* use 'bf16-mixed'"):
        fitted(Sphere(2), "16-true")
    other = fabric("32-true")
    monkeypatch.setattr(other.strategy.precision, "precision", "transformer-engine")
    with pytest.raises(ValueError, match=r"'transformer-engine' cannot be trained in .* use 'bf16-mixed'"):
        rfm.fit(data(Sphere(2)), Sphere(2), training=rfm.Training(fabric=other), steps=2, progress=False)


def test_gradients_are_clipped_at_the_scale_of_their_loss(tmp_path: Path) -> None:
    """With a scaler that never changes its scale, a power of two, training is what it is without one."""
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.precision import MixedPrecision

    def run(scale: float | None, progress: Any = False, norm: float = 10.0, **options: Any) -> rfm.Flow:
        plugin = MixedPrecision("bf16-mixed", "cpu")
        if scale is not None:
            plugin.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=10_000)
        made = Fabric(accelerator="cpu", devices=1, plugins=[plugin])
        made.launch()
        return rfm.fit(
            data(Sphere(2)),
            Sphere(2),
            training=rfm.Training(fabric=made, validations=4, max_gradient_norm=norm),
            steps=8,
            batch_size=16,
            progress=progress,
            **options,
        )

    plain, scaled = run(None, norm=0.01), run(2.0**14, norm=0.01)
    for a, b in zip(plain.parameters(), scaled.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    # The scale is part of what a run goes on from.
    with pytest.raises(KilledError):
        run(2.0**14, killed_after(6), out=tmp_path)
    assert '"scale": 16384.0' in (tmp_path / "checkpoint.json").read_text()


def test_averages_of_low_weights_are_not_rounded_on_the_way() -> None:
    field = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    average = WeightAverage(field, decay=0.999)
    expected = 0.0
    for step in range(200):
        value = 1.0 if step == 0 else 2.0
        nn.init.constant_(field.weight, value)
        average.update(field)
        expected = value if step == 0 else 0.999 * expected + 0.001 * value
    # In bfloat16 it would stay at 1.
    assert float(average.module.weight.detach()) == pytest.approx(expected, abs=1e-5)  # type: ignore[arg-type]
    rounded = average.in_precision_of_field().weight.detach()
    assert rounded.dtype == torch.bfloat16
    assert float(rounded) == pytest.approx(expected, rel=2.0**-8)  # type: ignore[arg-type]
