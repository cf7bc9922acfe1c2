"""What a field returns and the times it is given, checked where they enter: shapes that happen to fit are refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from manifold_zoo import ZOO
from random_fields import points, wavy_field
from torch import Tensor, nn

import rfm
from manifolds import SO3, SPD, Euclidean, Hyperboloid, Manifold, Sphere, Stiefel
from rfm.integrators import RK4, FixedStep
from rfm.likelihood import log_prob
from rfm.networks import VelocityField
from rfm.sources import Uniform

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
