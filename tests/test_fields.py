"""What a field returns and the times it is given, checked where they enter: shapes that happen to fit are refused."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from manifold_zoo import ZOO
from random_fields import points, wavy_field
from torch import Tensor, nn

import rfm
from manifolds import SO3, SPD, Euclidean, Hyperboloid, Manifold, Sphere, Stiefel
from rfm.conditions import Conditions, Number
from rfm.field import Field, as_field
from rfm.integrators import EULER, RK4, FixedStep
from rfm.likelihood import log_prob
from rfm.networks import VelocityField
from rfm.sources import Uniform, WrappedNormal
from rfm.steering import Clocks, PowerClock, SelfConditioning

CURVED = [Sphere(2), SO3(), Hyperboloid(2), SPD(2), Stiefel(3, 2)]


class Net(nn.Module):
    """A network that ends as it is told."""

    def __init__(self, m: Manifold, end: Callable[[Tensor, Tensor], Tensor], zero: bool = False) -> None:
        super().__init__()
        self.m, self.end = m, end
        self.last = nn.Linear(m.embed_dim, torch.Size(m.event_shape).numel())
        if zero:
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.end(x, self.last(self.m.embed(x)).reshape(x.shape))


def fitted(m: Manifold, field: nn.Module) -> rfm.Flow:
    # Without a default source on some: the points' own would do, were the field not refused first.
    return rfm.fit(points(m, 40), m, field=field, steps=4, batch_size=8, progress=False, device="cpu")


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("m", [Sphere(2), SO3()], ids=str)
def test_fit_refuses_a_network_that_is_not_tangent(m: Manifold, zero: bool) -> None:
    with pytest.raises(ValueError, match=r"^fit: the field is not tangent to .* end it with manifold\.proju\(x, u\)$"):
        fitted(m, Net(m, lambda x, u: u, zero))
    assert fitted(m, Net(m, m.proju, zero)).history


@pytest.mark.parametrize(
    ("end", "finding"),
    [
        (lambda x, u: u[..., :1], r"shape \(8, 1\)"),
        (lambda x, u: u[:1], r"shape \(1, 3\)"),
        (lambda x, u: u.sum(), r"shape \(\)"),
        (lambda x, u: u[:, None], r"shape \(8, 1, 3\)"),
        (lambda x, u: u.double(), "float64"),
        (lambda x, u: u.half(), "float16"),
        (lambda x, u: u / 0, "is not finite"),
        (lambda x, u: (u, u), "must return a tensor, got tuple"),
    ],
)
def test_fit_refuses_other_outputs(end: Callable[[Tensor, Tensor], Any], finding: str) -> None:
    with pytest.raises(ValueError, match=rf"^fit: the field .*{finding}"):
        fitted(Sphere(2), Net(Sphere(2), end))


@pytest.mark.parametrize("m", CURVED, ids=str)
def test_solves_refuse_fields_that_are_not_tangent(m: Manifold) -> None:
    x = points(m, 5)
    normal_part = points(m, 5, seed=9) + torch.arange(x[0].numel()).reshape(x.shape[1:])
    with pytest.raises(ValueError, match=r"^integrate: the field is not tangent to"):
        rfm.integrate(lambda y, t: normal_part, m, x, (0.0, 1.0), FixedStep(RK4, 2))


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in ZOO])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tangent_fields_pass_on_every_manifold(make: Callable[[], Manifold], dtype: torch.dtype) -> None:
    m = make()
    field = wavy_field(m)
    x = points(m, 6, dtype=dtype)
    assert rfm.integrate(field, m, x, (0.0, 0.1), FixedStep(RK4, 1)).final.dtype == dtype


def test_flows_refuse_them_at_first_use() -> None:
    flow = rfm.Flow(Sphere(2), lambda x, t: x + 1)
    x = points(Sphere(2), 3)
    for call in (lambda: flow.sample(3), lambda: flow.log_prob(x), lambda: flow.trajectory(x, (0.0, 1.0))):
        with pytest.raises(ValueError, match="not tangent to Sphere"):
            call()
    with pytest.raises(ValueError, match=r"returned shape \(3, 1\)"):
        log_prob(lambda y, t: y[:, :1], Uniform(Sphere(2)), x)


def test_losses_broadcast_nothing() -> None:
    m = Euclidean(2)
    path, x = rfm.GeodesicPath(m), points(m, 4)
    for field in (lambda y, t: y[:, :1], lambda y, t: y[:1], lambda y, t: y.sum()):
        with pytest.raises(ValueError, match=r"the field must return shape \(4, 2\)"):
            rfm.flow_matching_loss(field, path, x, x + 1)
        with pytest.raises(ValueError, match=r"the predictor must return shape \(4, 2\)"):
            rfm.endpoint_loss(field, path, x, x + 1)
    with pytest.raises(ValueError, match=r"weight must return shape \(4,\), got \(4, 1\)"):
        rfm.flow_matching_loss(lambda y, t: y, path, x, x + 1, weight=lambda t: t[:, None])


def test_times_are_one_for_each_sample_or_one_for_all() -> None:
    m = Euclidean(2)
    x, flat = points(m, 4), torch.rand(4, dtype=torch.float64)
    gaussian = rfm.GaussianPath(m)
    network = VelocityField(m, width=8, depth=1, features=4).double()
    moving = rfm.ConditionalFlowPath(m, lambda a, b, t: a + t[..., None] * (b - a))
    calls: list[Callable[[Any], Any]] = [
        lambda t: rfm.GeodesicPath(m).sample(x, x + 1, t).x_t,
        lambda t: rfm.AffinePath(m).sample(x, x + 1, t).x_t,
        lambda t: moving.sample(x, x + 1, t).x_t,
        lambda t: gaussian.score(x, x + 1, t),
        lambda t: gaussian.velocity(x, x + 1, t),
        lambda t: gaussian.log_prob(x, x + 1, t),
        lambda t: network(x, t),
        lambda t: rfm.divergence(network, m, x, t)[1],
        lambda t: rfm.flow_matching_loss(network, rfm.GeodesicPath(m), x, x + 1, t),
    ]
    for call in calls:
        assert call(flat).isfinite().all()
        for wrong in (flat[:, None], flat[:3], torch.rand(1, 4), 0.5):
            with pytest.raises(ValueError, match="t must"):
                call(wrong)
    for times in (0.5, torch.tensor(0.5), [[0.0], [1.0]], torch.rand(2, 1)):
        with pytest.raises(ValueError, match="times must be at least two finite numbers"):
            rfm.Flow(m, network, rfm.sources.WrappedNormal(m, torch.zeros(2))).trajectory(x, times)  # type: ignore[arg-type]


# What a field may offer beside a velocity.


class Offering:
    """An object of a user's own that inherits nothing."""

    condition_dim = 2
    condition_labels = (0, 3)

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        self.asked.append("velocity")
        return torch.zeros_like(x) if condition is None else x * condition[..., :1]

    def pushforward(
        self, x: Tensor, t: Tensor, tangents: Tensor, condition: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        self.asked.append("pushforward")
        assert condition is not None
        return x * condition[..., :1], 2 * tangents

    def without_and_with(self, x: Tensor, t: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        self.asked.append("both")
        return torch.zeros_like(x), x * condition[..., :1]

    def self_conditioned(self) -> Callable[[Tensor, Tensor], Tensor]:
        self.asked.append("memory")
        return lambda x, t: x

    def check_manifold(self, manifold: Manifold) -> None:
        if manifold.dim > 3:
            raise ValueError("Offering: serves three dimensions at most")


PLANE, EULER_STEP = Euclidean(2), FixedStep(EULER, 1)


def offered() -> tuple[Offering, rfm.Flow]:
    field = Offering()
    return field, rfm.Flow(PLANE, field, WrappedNormal(PLANE, torch.zeros(2), 1.0))


def test_abilities_of_an_object_that_inherits_nothing_are_used() -> None:
    field, flow = offered()
    given = torch.tensor([1.0, 0.0])
    x, log_p = flow.sample(3, condition=given, solver=EULER_STEP, return_log_prob=True)
    # Twice the number of dimensions, whatever the velocity: it is the derivative that is told.
    torch.testing.assert_close(log_p, flow.source.log_prob(x / 2) - 4)
    assert set(field.asked) == {"pushforward"}
    field.asked.clear()
    flow.sample(3, condition=given, guidance=2.0, solver=EULER_STEP)
    assert set(field.asked) == {"both"}
    field.asked.clear()
    flow.sample(4, steering=[SelfConditioning()], batch_size=2, solver=EULER_STEP)
    assert field.asked == ["memory"] * 2
    with pytest.raises(ValueError, match=r"made for Euclidean.* serves three dimensions at most"):
        flow.on(Euclidean(4))
    with pytest.raises(ValueError, match=r"made for \[0, 3\]"):
        rfm.Flow(PLANE, field, flow.source, conditions=Conditions((Number("a", 0.0, 1.0), Number("b", 0.0, 1.0))))


def test_clocks_and_memory_go_together_in_either_order() -> None:
    _, flow = offered()
    double = Clocks([(torch.ones(2), PowerClock(2.0))])
    draws = [
        flow.sample(3, steering=steering, solver=EULER_STEP, generator=torch.Generator().manual_seed(0))
        for steering in ([double, SelfConditioning()], [SelfConditioning(), double], [double])
    ]
    assert torch.equal(draws[0], draws[1])
    torch.testing.assert_close(draws[0], 3 * draws[2])
    with pytest.raises(ValueError, match="steered by clocks and self-conditioning have another distribution"):
        flow.sample(3, steering=[double, SelfConditioning()], return_log_prob=True)
    with pytest.raises(ValueError, match="self-conditioning is for fields"):
        flow.sample(3, condition=torch.ones(2), guidance=2.0, steering=[SelfConditioning()])
    for wrong in (double, [PowerClock(2.0)]):
        with pytest.raises(ValueError, match="steering must be"):
            flow.sample(3, steering=wrong)  # type: ignore[arg-type]


class Encoding(nn.Module):
    """A module with an encoder, which inherits nothing of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.calls = nn.Linear(3, 1, dtype=torch.float64), 0

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return x * self.encoder(condition)

    def encoded(self, condition: Tensor) -> tuple[Callable[..., Tensor], Tensor]:
        self.calls += 1
        return lambda x, t, condition: x * condition, self.encoder(condition)


def test_a_condition_is_encoded_once_by_a_module_that_inherits_nothing() -> None:
    field = Encoding()
    flow = rfm.Flow(PLANE, field, WrappedNormal(PLANE, torch.zeros(2), 1.0))
    assert [*flow.state_dict()] == [*rfm.Flow(PLANE, nn.ModuleDict(), flow.source).state_dict(), *KEYS]
    assert flow.field is field
    given, x = torch.rand(3, dtype=torch.float64), torch.rand(4, 2, dtype=torch.float64)
    found = flow.log_prob(x, condition=given)
    assert field.calls == 1
    torch.testing.assert_close(found, log_prob(field, flow.source, x, condition=given.expand(4, 3)))
    with pytest.raises(ValueError, match="told what it is conditional on"):
        flow.sample(2)
    for weight in (0.0, 2.0):
        with pytest.raises(ValueError, match="a field behind an encoder"):
            flow.sample(2, condition=given, guidance=weight)


KEYS = ["field.encoder.weight", "field.encoder.bias"]


def test_a_function_has_defaults_for_all() -> None:
    m = Sphere(2)
    field, x, t = as_field(wavy_field(m)), points(m, 4), torch.zeros(4).double()
    assert as_field(field) is field
    assert field.pushforward(x, t, x[:, None]) is None
    assert field.encoded(x) == (field, x)
    assert (field.condition_dim, field.condition_labels) == (None, None)
    assert (field.needs_condition, field.reads_unknown) == (False, False)
    assert [*field.named_modules(), *field.parameters()] == []
    with pytest.raises(ValueError, match="self-conditioning is for fields"):
        field.self_conditioned()
    with pytest.raises(ValueError, match=r"does not serve Sphere\(2\)"):
        field.check_manifold(m)
    with pytest.raises(NotImplementedError, match="Field has no velocity"):
        Field()(x, t)


def test_a_subclass_of_field_needs_a_velocity_alone() -> None:
    class Swirl(Field):
        def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
            return torch.stack([-x[..., 1], x[..., 0], 0 * x[..., 2]], dim=-1)

    m = Sphere(2)
    u, div = rfm.divergence(Swirl(), m, points(m, 5), torch.zeros(5).double())
    torch.testing.assert_close(div, torch.zeros(5).double())
    assert float(u.abs().max()) > 0.1


def test_no_room_asks_a_field_what_it_has() -> None:
    probe = re.compile(r"(getattr|hasattr)\((self\.)?(field|model|net)\w*,|isinstance\((self\.)?field, Velocity")
    for file in (Path(rfm.__file__).parent).rglob("*.py"):
        assert not probe.search(file.read_text(encoding="utf-8")), file
