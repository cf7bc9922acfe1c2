"""Flow maps: the network with a second time, jumps as a solver, flows that jump, and how they are distilled."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from known_flow_maps import near, spiral
from manifold_zoo import ZOO
from random_fields import normal, points, tangents, wavy_field
from torch import Tensor, nn
from zoo_sources import source_of

import rfm
from manifolds import Euclidean, Manifold, Power, Product, Quotient, Sphere
from manifolds.composed.finite_group import Antipodal
from rfm import Flow, FlowMap
from rfm.field import as_field, as_flow_map
from rfm.flow import Refinement
from rfm.integrators import Jumps, integrate
from rfm.networks import AverageVelocity, Encoded, EncodedMap, VelocityField
from rfm.networks.second_time import with_second_time
from rfm.objectives import (
    AlignYourFlow,
    Eulerian,
    FlowMapObjective,
    Lagrangian,
    MeanFlow,
    PlainMeanFlow,
    RiemannianConsistency,
    Semigroup,
    TrajectoryRegression,
)
from rfm.paths.time_pairs import TimePairs
from rfm.sources import KernelMixture, Uniform
from rfm.steering import SelfConditioning

EVERY = pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in ZOO])
QUIET: dict[str, Any] = {"progress": False, "device": "cpu"}


def network(m: Manifold, seed: int = 0, **options: Any) -> AverageVelocity:
    """Return a small network in double precision, no weight of which is zero."""
    own = AverageVelocity(m, width=16, depth=1, features=24, max_frequency=4.0, **options).double()
    generator = torch.Generator().manual_seed(seed)
    for parameter in own.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return own


def times(*shape: int, seed: int = 7) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# The network.


@EVERY
def test_the_network_on_every_manifold(make: Callable[[], Manifold]) -> None:
    m = make()
    own, x, s, t = network(m), points(m, 4), times(4), times(4, seed=8)
    with torch.no_grad():
        u = own.average_velocity(x, s, t)
        m.check_tangent(x, u, tol=1e-6)
        m.check_point(own.jump(0 * u + x, s, s + 0.2 * (t - s)), tol=1e-6)
        # At equal times it is the velocity, whatever its weights, and a jump of no time stays.
        torch.testing.assert_close(own.average_velocity(x, s, s), own(x, s), rtol=0, atol=0)
        assert float(m.dist(own.jump(x, s, s), x).max()) < 1e-7
        assert float((u - own(x, s)).abs().max()) > 1e-3
        # Derivatives by hand, as by forward mode.
        v = tangents(m, x)
        again, du = own.average_pushforward(x, s, t, v.unsqueeze(1))
        torch.testing.assert_close(again, u)
        expected = torch.func.jvp(lambda y: own.average_velocity(y, s, t), (x,), (v,))[1]
        torch.testing.assert_close(du[:, 0], expected, rtol=1e-7, atol=1e-9)


def test_it_begins_as_the_velocity_it_is_made_from() -> None:
    m = Product(Sphere(2), Euclidean(1))
    velocity = VelocityField(m, width=16, depth=1, features=24, condition_dim=2, condition_labels=[0, 3]).double()
    for i, parameter in enumerate(velocity.parameters()):
        parameter.data = 0.3 * normal(*parameter.shape, seed=i)
    made = with_second_time(velocity)
    assert isinstance(made, AverageVelocity)
    x, c = points(m, 5), torch.tensor([[0.3, 1], [math.nan, 2], [1.0, math.nan], [0, 0], [2.0, 1]]).double()
    for given in ({}, {"condition": c}):
        expected = velocity(x, times(5), **given)
        for t in (times(5, seed=8), times(5)):
            torch.testing.assert_close(made.average_velocity(x, times(5), t, **given), expected, rtol=0, atol=0)
    # All of it is learned from the first step on.
    made.average_velocity(x, times(5), times(5, seed=8), condition=c).square().sum().backward()
    assert float(made.jump_fine.weight.grad.abs().max()) > 0
    assert float(made.jump_biases.weight.grad.abs().max()) > 0
    assert with_second_time(made) is made
    with pytest.raises(ValueError, match="a Linear has no form with a second time; pass a field"):
        with_second_time(nn.Linear(2, 2))


@pytest.mark.parametrize("m", [Sphere(2), Power(Sphere(2), 2), Quotient(Sphere(2), Antipodal(2))], ids=str)
def test_times_broadcast_and_batches_are_of_single_points(m: Manifold) -> None:
    own, x, s, t = network(m), points(m, 3, 4), times(3, 4), times(3, 4, seed=8)
    with torch.no_grad():
        full = own.average_velocity(x, s, t)
        for i in range(3):
            torch.testing.assert_close(own.average_velocity(x[i], s[i], t[i]), full[i])
        one = own.average_velocity(x, torch.tensor(0.2).double(), torch.tensor(0.9).double())
        spread = own.average_velocity(x, torch.full((3, 4), 0.2).double(), torch.full((3, 4), 0.9).double())
        torch.testing.assert_close(one, spread)
        torch.testing.assert_close(own.average_velocity(x, s, torch.tensor(0.9).double()), own.average_velocity(
            x, s, torch.full((3, 4), 0.9).double()
        ))  # fmt: skip
        # In blocks, where nothing is recorded.
        many = x.repeat(2000, 1, *(1 for _ in m.event_shape))
        again = own.average_velocity(many, s.repeat(2000, 1), t.repeat(2000, 1))
        torch.testing.assert_close(again[-3:], full)
        assert own.float().average_velocity(x.float(), s.float(), t.float()).dtype == torch.float32
    with pytest.raises(ValueError, match="AverageVelocity: t must hold one time per sample"):
        own.average_velocity(x.float(), s.float(), times(5).float())


def test_weights_in_low_precision_make_jumps_in_single() -> None:
    m = Sphere(2)
    own, x = network(m).float(), points(m, 6).float()
    with torch.no_grad():
        expected = own.jump(x, times(6).float(), times(6, seed=8).float())
        found = own.bfloat16().jump(x, times(6).float(), times(6, seed=8).float())
    assert found.dtype == torch.float32
    assert float(m.dist(found, expected).max()) < 0.1


# Jumps.


def test_jumps_follow_one_another() -> None:
    m = Sphere(2)
    own, x = network(m, condition_dim=1), points(m, 5)
    c = normal(5, 1, seed=4)
    ends = torch.linspace(0.2, 1, 5).double()
    y = x
    for s, t in itertools.pairwise(ends):
        y = own.jump(y, s, t, condition=c)
    solution = integrate(own, m, x, (0.2, 0.6, 1.0), Jumps(4), condition=c)
    torch.testing.assert_close(solution.final, y)
    assert solution.evaluations.tolist() == [4] * 5
    torch.testing.assert_close(
        integrate(own, m, x, (1.0, 0.5), Jumps(), condition=c).final,
        own.jump(x, torch.tensor(1.0).double(), torch.tensor(0.5).double(), condition=c),
    )


def test_jumps_of_the_map_of_a_flow_are_its_trajectories() -> None:
    m = Sphere(2)
    known, x = spiral(m), near(m, 5)
    solved = integrate(known, m, x, (0.0, 0.3, 1.0)).x
    for steps in (1, 2, 4):
        assert float(m.dist(integrate(known, m, x, (0.0, 0.3, 1.0), Jumps(steps, grading=1.5)).x, solved).max()) < 1e-5


def test_what_cannot_jump() -> None:
    m = Sphere(2)
    x = points(m, 3)
    with pytest.raises(ValueError, match=r"an rfm.FlowMap, got function field; distil the flow first"):
        integrate(wavy_field(m), m, x, (0.0, 1.0), Jumps())
    with pytest.raises(ValueError, match=r"Flow.sample: jumps need a field with a second time"):
        Flow(m, VelocityField(m, width=16, features=16)).sample(3, steps=1)
    with pytest.raises(ValueError, match="Jumps: a jump carries points, and integrates nothing"):
        integrate(lambda y, t: (wavy_field(m)(y, t), t), m, x, (0.0, 1.0), Jumps(), with_integral=True)
    with pytest.raises(ValueError, match="Jumps: steps must be at least 1"):
        Jumps(0)
    with pytest.raises(NotImplementedError, match="FlowMap has no second time: define average_velocity"):
        FlowMap().average_velocity(x, times(3), times(3))
    assert as_flow_map("here", as_field(network(m))).manifold is not None


# Flows.


def test_a_flow_jumps_and_solves() -> None:
    m = Sphere(2)
    flow = Flow(m, network(m))
    g = lambda: torch.Generator().manual_seed(0)  # noqa: E731
    x_0 = flow.source.sample((50,), generator=g(), dtype=torch.float64)
    drawn = flow.sample((5, 10), steps=2, generator=g())
    assert drawn.shape == (5, 10, 3)
    torch.testing.assert_close(drawn.reshape(50, 3), flow.transport(x_0, steps=2))
    torch.testing.assert_close(flow.sample(50, steps=2, generator=g(), batch_size=7), flow.transport(x_0, steps=2))
    torch.testing.assert_close(flow.trajectory(x_0, [0.0, 1.0], solver=Jumps(2))[-1], flow.transport(x_0, steps=2))
    with pytest.raises(ValueError, match=r"Flow.sample: got both steps and solver"):
        flow.sample(3, steps=1, solver=Jumps())
    with pytest.raises(ValueError, match=r"Flow.transport: steps must be at least 1"):
        flow.transport(x_0, steps=0)
    with pytest.raises(ValueError, match="self-conditioning changes velocities, and a jump has none"):
        flow.sample(3, steps=1, steering=[SelfConditioning()])


def test_a_refined_flow_jumps_from_its_kernels() -> None:
    m = Sphere(2)
    centres = m.projx(torch.tensor([[0, 0, 1.0], [0, 1, 0], [1, 0, 0]]).double())
    kernels = KernelMixture(m, centres, torch.tensor([1e4]), torch.tensor([1.0, 0.0]), Uniform(m))
    refinement = Refinement([0.9], [kernels], [1.0])
    flow = Flow(m, network(m), refinement=refinement)
    drawn = flow.sample(200, steps=1, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ends = flow.field.jump(centres, torch.tensor(0.9).double(), torch.tensor(1.0).double())
    assert float(m.dist(drawn[:, None], ends).amin(1).max()) < 0.2
    far = m.dist(flow.base.sample(200, steps=1)[:, None], ends).amin(1)
    assert float(far.max()) > 0.2


def test_a_flow_map_is_saved_and_loaded(tmp_path: Path) -> None:
    m = Product(Sphere(2), Euclidean(1), weights=(1.0, 0.5))
    flow = Flow(m, network(m, condition_dim=1), source_of(m))
    flow.save(tmp_path)
    loaded = Flow.load(tmp_path)
    assert isinstance(loaded.field, AverageVelocity)
    x, c = points(m, 5), normal(5, 1)
    torch.testing.assert_close(loaded.transport(x, steps=2, condition=c), flow.transport(x, steps=2, condition=c))


# Training.


def two_spots(n: int, seed: int = 0) -> Tensor:
    ends = torch.tensor([[0, 0, 1.0], [0.8, 0, -0.6]]).double()
    return Sphere(2).projx(ends.repeat(n // 2, 1) + 0.15 * normal(n, 3, seed=seed))


@pytest.fixture(scope="module")
def trained() -> Flow:
    m = Sphere(2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        field = VelocityField(m, width=24, depth=1, features=24, max_frequency=4.0)
    own: dict[str, Any] = {"steps": 150, "batch_size": 128, "refine": False, **QUIET}
    return rfm.fit(two_spots(400), m, field=field, **own, training=rfm.Training(validations=2))


OPTIONS: dict[str, Any] = {"points": 300, "batch_size": 64, **QUIET, "training": rfm.Training(validations=2)}


@pytest.mark.parametrize(
    "objective",
    [
        pytest.param(Semigroup(), id="semigroup"),
        pytest.param(TrajectoryRegression(invertibility=0.5), id="trajectories"),
        pytest.param(Lagrangian(), id="lagrangian", marks=pytest.mark.slow),
        pytest.param(Eulerian(), id="eulerian", marks=pytest.mark.slow),
        pytest.param(MeanFlow(), id="mean flow", marks=pytest.mark.slow),
        pytest.param(PlainMeanFlow(), id="plain mean flow", marks=pytest.mark.slow),
        pytest.param(PlainMeanFlow(resolve_conflicts=True), id="without conflicts", marks=pytest.mark.slow),
        pytest.param(AlignYourFlow(), id="align your flow", marks=pytest.mark.slow),
        pytest.param(RiemannianConsistency(), id="consistency", marks=pytest.mark.slow),
    ],
)
def test_a_distilled_flow_jumps_where_the_flow_leads(trained: Flow, objective: FlowMapObjective) -> None:
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    # Those whose target has derivatives of the map in it are noisy at first.
    steps = 100 if isinstance(objective, (Semigroup, TrajectoryRegression)) else 400
    found = rfm.distil(trained, objective=objective, steps=steps, **OPTIONS)
    for name, value in trained.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    m = trained.manifold
    x_0 = trained.source.sample((300,), generator=torch.Generator().manual_seed(5))
    solved = trained.transport(x_0)

    def error(points: Tensor) -> float:
        return float(m.squared_dist(points, solved).mean().sqrt())

    start = Flow(m, AverageVelocity.from_velocity(trained.field))
    assert error(found.transport(x_0, steps=1)) < 0.8 * error(start.transport(x_0, steps=1))
    assert error(found.transport(x_0)) < 0.15
    assert found.source is trained.source or found.source.same_as(trained.source)
    assert {"validation_loss", "validation_mmd2"} <= found.history[-1].keys()
    assert found.history[-1]["validation_loss"] < found.history[0]["validation_loss"]


def test_distillation_goes_on_and_keeps_the_refinement(trained: Flow, tmp_path: Path) -> None:
    m = trained.manifold
    refinement = Refinement([1.0, 0.0], [Uniform(m), Uniform(m)], [0.5, 0.5])
    flow = Flow(m, trained.field, trained.source, refinement=refinement)
    out = tmp_path / "run"
    found = rfm.distil(flow, steps=4, out=out, **OPTIONS)
    assert found.refinement is refinement
    loaded = Flow.load(out)
    assert loaded.refinement is not None
    again = rfm.distil(flow, steps=4, out=out, resume=True, **OPTIONS)
    x = points(m, 4).float()
    for other in (loaded, again):
        torch.testing.assert_close(other.transport(x, steps=1), found.transport(x, steps=1))
    with pytest.raises(FileExistsError, match="already holds a flow"):
        rfm.distil(flow, steps=4, out=out, **OPTIONS)


@pytest.mark.slow
def test_guidance_is_distilled() -> None:
    m = Sphere(2)
    field = network(m, condition_dim=1, condition_labels=[2]).float()
    flow = Flow(m, field)
    labels = torch.tensor([[0.0], [1.0]])
    training = rfm.Training(validations=1, learning_rate=1e-2)
    found = rfm.distil(flow, condition=labels, guidance=3.0, steps=200, **{**OPTIONS, "training": training})
    x = points(m, 200, seed=3).float()
    t = torch.full((200,), 0.4)
    for label in (0.0, 1.0):
        c = torch.full((200, 1), label)
        free, held = field.without_and_with(x, t, c)
        guided, plain = torch.lerp(free, held, 3.0), held
        own = found.field(x, t, condition=c)
        assert bool((own - guided).norm(dim=1).mean() < 0.6 * (plain - guided).norm(dim=1).mean())
    assert found.sample(3, condition=labels[0], steps=1).shape == (3, 3)
    with pytest.raises(ValueError, match="guidance changes velocities, and a jump has none on its way; distil with it"):
        found.sample(3, condition=labels[0], steps=1, guidance=2.0)


@pytest.mark.slow
def test_a_map_is_trained_from_data() -> None:
    m = Sphere(2)
    field = VelocityField(m, width=24, depth=1, features=24, max_frequency=4.0)
    own: dict[str, Any] = {"steps": 120, "batch_size": 128, "refine": False, **QUIET}
    flow = rfm.fit(two_spots(400), m, field=field, objective=Semigroup(), **own, training=rfm.Training(validations=2))
    assert isinstance(flow.field, AverageVelocity)
    x_0 = flow.source.sample((300,), generator=torch.Generator().manual_seed(5))
    away = m.dist(flow.transport(x_0, steps=1), flow.transport(x_0)).square().mean().sqrt()
    assert float(away) < 0.4
    assert "validation_loss" in flow.history[-1]
    assert math.isfinite(float(flow.log_prob(points(m, 5)).mean()))
    with pytest.raises(ValueError, match="validation=0 goes by the likelihood, which does not tell what Semigroup"):
        rfm.fit(two_spots(40), m, objective=Semigroup(), validation=0, **own)
    with pytest.raises(ValueError, match="Semigroup: a Other has no form with a second time"):
        rfm.fit(two_spots(40), m, objective=Semigroup(), field=Other(m), **own)


class Other(nn.Module):
    """A velocity of one's own."""

    def __init__(self, m: Manifold) -> None:
        super().__init__()
        self.m, self.weight = m, nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.m.proju(x, self.weight * x.roll(1, -1))


def test_any_flow_can_be_distilled() -> None:
    m = Sphere(2)
    for field in (Other(m), wavy_field(m)):
        flow = Flow(m, field)
        found = rfm.distil(flow, steps=2, **OPTIONS)
        assert found.sample(3, steps=1).shape == (3, 3)
    student = network(m, seed=3).float()
    found = rfm.distil(Flow(m, wavy_field(m)), field=student, objective=RiemannianConsistency(), steps=2, **OPTIONS)
    assert found.field is student


def test_a_map_from_data_is_refined() -> None:
    m = Sphere(2)
    field = VelocityField(m, width=16, depth=1, features=16, max_frequency=2.0)
    own: dict[str, Any] = {"steps": 4, "batch_size": 64, **QUIET, "training": rfm.Training(validations=1)}
    flow = rfm.fit(two_spots(400), m, field=field, objective=Semigroup(), **own)
    assert flow.refinement is not None
    drawn = flow.sample(300, steps=1, generator=torch.Generator().manual_seed(0))
    ends = torch.tensor([[0, 0, 1.0], [0.8, 0, -0.6]])
    assert float((m.dist(drawn[:, None], ends).amin(1) < 0.6).float().mean()) > 0.8


def test_a_map_behind_an_encoder() -> None:
    m = Sphere(2)
    encoded = Encoded(nn.Linear(4, 2).double(), VelocityField(m, 16, 1, 16, condition_dim=2).double())
    made = with_second_time(encoded)
    assert isinstance(made, EncodedMap)
    x, c = points(m, 5), normal(5, 4)
    for parameter in made.parameters():
        parameter.data = 0.3 * normal(*parameter.shape, seed=parameter.numel())
    with torch.no_grad():
        jumped = made.jump(x, times(5), times(5, seed=8), condition=c)
        inner = as_flow_map("here", made.velocity)
        expected = inner.jump(x, times(5), times(5, seed=8), condition=made.encoder(c))
    torch.testing.assert_close(jumped, expected)
    flow = Flow(m, made)
    x_0 = flow.source.sample((5,), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = flow.sample(5, steps=2, condition=c, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn, flow.transport(x_0, steps=2, condition=c))
    with pytest.raises(ValueError, match="EncodedMap: jumps need a field with a second time"):
        EncodedMap(encoded.encoder, encoded.velocity)
    with pytest.raises(ValueError, match="distil: the flow's field is behind an encoder"):
        rfm.distil(flow, condition=c)


def test_bad_input_is_refused(trained: Flow) -> None:
    m = Sphere(2)
    conditional = Flow(m, network(m, condition_dim=1))
    for call, words in (
        (lambda: rfm.distil(trained.field), "distil: flow must be"),  # type: ignore[arg-type]
        (lambda: rfm.distil(trained, objective=rfm.FlowMatching()), "distil: objective must be"),  # type: ignore[arg-type]
        (lambda: rfm.distil(trained, points=3), "distil: points must be at least 20"),
        (lambda: rfm.distil(trained, guidance=2.0), "distil: guidance needs a condition"),
        (lambda: rfm.distil(conditional), "distil: this flow is conditional; pass condition="),
        (lambda: rfm.distil(Flow(m, network(m), start=0.5)), "distil: the flow starts at time 0.5"),
        (lambda: rfm.distil(trained, field=VelocityField(m), **OPTIONS, steps=0), "steps must be a whole number"),
        (lambda: TimePairs(ends=3.0), "TimePairs: ends is a share"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
