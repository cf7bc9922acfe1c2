"""A flow as one distribution: shapes, repeatability, conditions, guidance, trajectories."""

import math
from typing import Any

import pytest
import torch
from random_fields import normal, points, wavy_field
from torch import Tensor, nn

from manifolds import SO3, Euclidean, FlatTorus, Hyperboloid, Manifold, Power, Product, Sphere
from rfm import Flow
from rfm.integrators import RK4, Adaptive, FixedStep, IntegrationError, integrate
from rfm.networks import VelocityField
from rfm.sources import Uniform, WrappedNormal, default_source
from rfm.steering import Clocks, ExponentialClock, PowerClock

STEPS = FixedStep(RK4, 3)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(m: Manifold, condition_dim: int = 0) -> VelocityField:
    field = VelocityField(m, width=12, depth=1, features=6, max_frequency=4.0, condition_dim=condition_dim)
    for parameter in field.parameters():
        nn.init.normal_(parameter, std=0.3, generator=seeded())
    return field


def conditional() -> Flow:
    return Flow(Sphere(2), network(Sphere(2), 3))


def swirl(x: Tensor, t: Tensor) -> Tensor:
    """Turn about the third axis by one radian."""
    return torch.stack([-x[..., 1], x[..., 0], 0 * x[..., 2]], dim=-1)


# Samples.


@pytest.mark.parametrize(
    ("shape", "batch"),
    [(5, (5,)), ((5,), (5,)), ((2, 3), (2, 3)), ([2, 3], (2, 3)), (torch.Size([4]), (4,)), ((), ()), (0, (0,))],
    ids=str,
)
@pytest.mark.parametrize("m", [Sphere(2), SO3(), Power(FlatTorus(2), 3)], ids=str)
def test_sample_shapes(m: Manifold, shape: Any, batch: tuple[int, ...]) -> None:
    flow = Flow(m, network(m, 2))
    for own in ({}, {"condition": torch.tensor([0.5, -1.0])}):
        x = flow.sample(shape, generator=seeded(), solver=STEPS, **own)
        assert x.shape == (*batch, *m.event_shape)
        m.check_point(x)
        y, log_p = flow.sample(shape, generator=seeded(), solver=STEPS, return_log_prob=True, **own)
        assert log_p.shape == batch
        torch.testing.assert_close(x, y, atol=1e-5, rtol=0)
        assert flow.log_prob(x, solver=STEPS, **own).shape == batch


@pytest.mark.parametrize("m", [Sphere(2), FlatTorus(2), Hyperboloid(2)], ids=str)
def test_samples_repeat_with_the_generator_and_leave_global_randomness_alone(m: Manifold) -> None:
    source = None if m.volume is not None else WrappedNormal(m, points(m), 0.5)
    flow = Flow(m, network(m), source)
    before = torch.get_rng_state()
    one, again, other = (flow.sample(6, generator=seeded(s), solver=STEPS) for s in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not torch.equal(flow.sample(6, solver=STEPS), flow.sample(6, solver=STEPS))


def test_batches_change_nothing() -> None:
    flow = conditional()
    condition = normal(7, 3, dtype=torch.float32)
    whole, parts = (
        flow.sample(7, condition=condition, generator=seeded(), solver=STEPS, return_log_prob=True, batch_size=b)
        for b in (100, 3)
    )
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
    scores = [flow.log_prob(whole[0], condition=condition, solver=STEPS, batch_size=b) for b in (100, 3)]
    torch.testing.assert_close(*scores, atol=1e-5, rtol=0)
    for call in (lambda: flow.sample(3, batch_size=0), lambda: flow.log_prob(whole[0], batch_size=-1)):
        with pytest.raises(ValueError, match="batch_size must be at least 1"):
            call()


def test_samples_follow_the_density() -> None:
    """The mean over samples of another density over the flow's is one."""
    m = Sphere(2)
    flow = Flow(m, wavy_field(m, size=0.3))
    _, log_p = flow.sample(3000, generator=seeded(), solver=FixedStep(RK4, 8), return_log_prob=True)
    ratio = (-math.log(4 * math.pi) - log_p).exp()
    assert abs(float(ratio.mean()) - 1) < 4 * float(ratio.std()) / math.sqrt(3000)
    assert float(ratio.std()) > 0.05


# Fields that are plain functions.


def test_a_plain_function_is_a_field() -> None:
    flow = Flow(Sphere(2), swirl)
    assert isinstance(flow.source, Uniform)
    assert list(flow.parameters()) == []
    x_0 = Sphere(2).random_uniform(5, generator=seeded())
    x = flow.sample(5, generator=seeded())
    c, s = math.cos(1), math.sin(1)
    turned = torch.stack([c * x_0[:, 0] - s * x_0[:, 1], s * x_0[:, 0] + c * x_0[:, 1], x_0[:, 2]], dim=-1)
    torch.testing.assert_close(x, turned, atol=1e-5, rtol=0)
    # Rotations keep the uniform density.
    torch.testing.assert_close(flow.log_prob(x), torch.full((5,), -math.log(4 * math.pi)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_precision_is_that_of_the_points_or_of_the_parameters(dtype: torch.dtype) -> None:
    m = Sphere(2)
    x = points(m, 3, dtype=dtype)
    assert Flow(m, swirl).log_prob(x, solver=STEPS).dtype == dtype
    assert Flow(m, swirl).trajectory(x, (0.0, 1.0), solver=STEPS).dtype == dtype
    flow = Flow(m, network(m)).to(dtype)
    assert flow.sample(2, solver=STEPS).dtype == dtype
    for given in (torch.float32, torch.float64):
        assert flow.log_prob(x.to(given), solver=STEPS).dtype == dtype


def test_nothing_is_recorded_for_gradients() -> None:
    flow = Flow(Sphere(2), network(Sphere(2)))
    x, log_p = flow.sample(3, solver=STEPS, return_log_prob=True)
    for tensor in (x, log_p, flow.log_prob(x, solver=STEPS), flow.trajectory(x, (0.0, 1.0), solver=STEPS)):
        assert not tensor.requires_grad


def test_a_manifold_without_volume_needs_a_source() -> None:
    with pytest.raises(ValueError, match="no finite volume; use another source"):
        Flow(Euclidean(2), swirl)


# Conditions.


@pytest.mark.parametrize("shape", [(3,), (2, 3), (1, 4, 3), (2, 1, 3), (2, 4, 3)], ids=str)
def test_conditions_broadcast_to_the_shape_of_the_points(shape: tuple[int, ...]) -> None:
    flow = conditional()
    condition = normal(*shape, dtype=torch.float32)
    if shape == (2, 3):
        with pytest.raises(
            ValueError, match=r"condition of shape \(2, 3\) does not fit points of batch shape \(2, 4\)"
        ):
            flow.sample((2, 4), condition=condition, solver=STEPS)
        with pytest.raises(ValueError, match=r"condition of shape \(4, 3\) does not fit points of batch shape"):
            flow.sample((2, 4), condition=normal(4, 3), solver=STEPS)
        return
    full = condition.expand(2, 4, 3).contiguous()
    one, other = (flow.sample((2, 4), condition=c, generator=seeded(), solver=STEPS) for c in (condition, full))
    assert torch.equal(one, other)
    assert torch.equal(
        flow.log_prob(one, condition=condition, solver=STEPS), flow.log_prob(one, condition=full, solver=STEPS)
    )
    torch.testing.assert_close(
        flow.trajectory(one, (0.0, 0.5, 1.0), condition=condition, solver=STEPS),
        flow.trajectory(one, (0.0, 0.5, 1.0), condition=full, solver=STEPS),
    )


def test_conditions_that_do_not_fit_are_refused() -> None:
    flow, x = conditional(), points(Sphere(2), 4, dtype=torch.float32)
    for condition in (torch.tensor(1.0), torch.ones(5, 3), torch.ones(4, 1, 3)):
        calls = [
            lambda c=condition: flow.sample(4, condition=c),
            lambda c=condition: flow.log_prob(x, condition=c),
            lambda c=condition: flow.trajectory(x, (0.0, 1.0), condition=c),
        ]
        for call in calls:
            with pytest.raises(ValueError, match=r"does not fit points of batch shape \(4,\); give one vector"):
                call()


def test_one_condition_for_as_many_points_as_it_has_entries() -> None:
    """A vector (3,) for three points is one condition, not three numbers that leave with their samples."""
    flow = conditional().double()
    x = points(Sphere(2), 3)
    condition = torch.tensor([3.0, -2.0, 1.0], dtype=torch.float64)
    loose = Adaptive(atol=1e-4, rtol=1e-4)
    together = flow.trajectory(x, (0.0, 1.0), condition=condition, solver=loose)
    alone = torch.stack([flow.trajectory(y, (0.0, 1.0), condition=condition, solver=loose) for y in x], dim=1)
    torch.testing.assert_close(together, alone, atol=1e-8, rtol=0)


def test_conditions_matter_and_nan_means_none() -> None:
    flow = conditional()
    free, blank, given = (
        flow.sample(4, condition=c, generator=seeded(), solver=STEPS)
        for c in (None, torch.full((3,), math.nan), torch.ones(3))
    )
    torch.testing.assert_close(free, blank)
    assert float((free - given).abs().max()) > 1e-3


# Guidance.


def test_guidance_mixes_the_two_fields() -> None:
    flow = conditional()
    condition = torch.ones(3)

    def draw(**settings: Any) -> Tensor:
        return flow.sample(4, generator=seeded(), solver=STEPS, **settings)

    torch.testing.assert_close(draw(condition=condition, guidance=0.0), draw())
    torch.testing.assert_close(draw(condition=condition, guidance=1.0), draw(condition=condition))
    x_0 = Sphere(2).random_uniform(4, generator=seeded())

    def mixed(x: Tensor, t: Tensor) -> Tensor:
        free, given = flow.field(x, t), flow.field(x, t, condition=condition.expand(len(x), 3))
        return free + 2.5 * (given - free)

    with torch.no_grad():
        truth = integrate(mixed, Sphere(2), x_0, (0.0, 1.0), STEPS).final
    torch.testing.assert_close(draw(condition=condition, guidance=2.5), truth, atol=1e-5, rtol=0)


def test_guidance_is_refused_where_it_means_nothing() -> None:
    flow = conditional()
    with pytest.raises(ValueError, match="guidance needs a condition"):
        flow.sample(2, guidance=2.0)
    with pytest.raises(ValueError, match=r"steered by guidance .* no exact log-density"):
        flow.sample(2, guidance=2.0, condition=torch.ones(3), return_log_prob=True)


# Clocks.


def test_samples_by_clocks_follow_the_clocked_field_and_get_no_density() -> None:
    m = Product(Sphere(2), Euclidean(1))
    flow = Flow(m, wavy_field(m), default_source(m, points(m, 20)))
    clocks = Clocks.of_factors(m, [ExponentialClock(4.0), None])
    plain, clocked, unchanged = (
        flow.sample(4, generator=seeded(), solver=STEPS, steering=c)
        for c in ((), [clocks], [Clocks.of_factors(m, [PowerClock(1.0), PowerClock(1.0)])])
    )
    torch.testing.assert_close(plain, unchanged)
    assert float((plain - clocked).abs().max()) > 0.1
    x_0 = flow.source.sample((4,), generator=seeded())
    again = integrate(clocks.applied_to(flow.field), m, x_0, (0.0, 1.0), STEPS).final
    torch.testing.assert_close(clocked, again)
    with pytest.raises(ValueError, match="steered by clocks have another distribution"):
        flow.sample(4, steering=[clocks], return_log_prob=True)


# Progress.


def test_progress_counts_points_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    flow = Flow(Sphere(2), swirl)
    x = flow.sample(10, solver=STEPS, batch_size=4, progress=True)
    drawn = capsys.readouterr()
    flow.log_prob(x, solver=STEPS, batch_size=4, progress=True)
    scored = capsys.readouterr()
    for name, shown in (("sample", drawn), ("log-prob", scored)):
        assert shown.out == ""
        assert f"{name}: 100%" in shown.err
        assert "10/10" in shown.err
    flow.log_prob(flow.sample(10, solver=STEPS), solver=STEPS)
    assert capsys.readouterr().err == ""


def test_the_field_sees_at_most_batch_size_points() -> None:
    seen = []

    def field(x: Tensor, t: Tensor) -> Tensor:
        seen.append(len(x))
        return swirl(x, t)

    flow = Flow(Sphere(2), field)
    flow.log_prob(flow.sample((5, 5), solver=STEPS, batch_size=8), solver=STEPS, batch_size=8)
    assert max(seen) == 8


# Trajectories and scores.


def test_trajectories_run_both_ways() -> None:
    flow = Flow(Sphere(2), swirl)
    x = points(Sphere(2), 2, 3)
    there = flow.trajectory(x, (0.0, 0.25, 1.0))
    assert there.shape == (3, 2, 3, 3)
    back = flow.trajectory(there[-1], torch.tensor([1.0, 0.25, 0.0]))
    torch.testing.assert_close(back.flip(0), there, atol=1e-5, rtol=0)
    torch.testing.assert_close(flow.trajectory(x[0, 0], [0.0, 1.0])[-1], there[-1, 0, 0])
    assert flow.trajectory(x[:0], (0.0, 1.0)).shape == (2, 0, 3, 3)


def test_points_of_a_wrong_shape_are_refused() -> None:
    flow = Flow(Sphere(2), swirl)
    for wrong in (torch.ones(3, 4), torch.ones(2), torch.ones(())):
        with pytest.raises(ValueError, match=r"have shape \(\*batch, 3\)"):
            flow.log_prob(wrong)
        with pytest.raises(ValueError, match=r"have shape \(\*batch, 3\)"):
            flow.trajectory(wrong, (0.0, 1.0))


def test_a_failed_solve_is_never_a_score() -> None:
    def broken(x: Tensor, t: Tensor) -> Tensor:
        return torch.where(t[..., None] < 0.5, math.nan, swirl(x, t))

    flow = Flow(Sphere(2), broken)
    for call in (lambda: flow.sample(2), lambda: flow.log_prob(points(Sphere(2), 2))):
        with pytest.raises(IntegrationError, match="2 of 2 samples"):
            call()
    x = points(Sphere(2), 2)
    x[1] = math.nan
    with pytest.raises(ValueError, match="the one at index 1 is not finite"):
        Flow(Sphere(2), swirl).log_prob(x)


@pytest.mark.parametrize("call", ["log_prob", "trajectory"])
def test_points_off_the_manifold_are_refused_and_arrays_taken(call: str) -> None:
    flow = Flow(Sphere(2), swirl)
    more = ((0.0, 1.0),) if call == "trajectory" else ()
    with pytest.raises(ValueError, match=rf"Flow.{call}: points of Sphere\(2\).*off it by .*projx"):
        getattr(flow, call)(torch.tensor([[35.0, 139.0, 0.0]]), *more)
    x = points(Sphere(2), 3)
    torch.testing.assert_close(getattr(flow, call)(x.numpy(), *more), getattr(flow, call)(x, *more))
    with pytest.raises(ValueError, match="tensor or an array"):
        getattr(flow, call)("points", *more)


@pytest.mark.parametrize(("shape", "words"), [(-1, "negative"), (2.5, "whole number"), ("a", "whole number")])
def test_numbers_of_samples_that_are_none_are_refused(shape: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Flow(Sphere(2), swirl).sample(shape)  # type: ignore[arg-type]
