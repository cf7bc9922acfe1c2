"""Policies: chunks, observations, the network, and how chunks follow each other."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from random_fields import normal, points
from torch import Tensor, nn

import rfm
from manifolds import SE3, Bounded, Euclidean, FlatTorus, JointLimits, Manifold, Padded, Power, Product, Sphere
from rfm.conditions import Picture
from rfm.control import (
    TEN_STEPS,
    ActionChunks,
    ActionMap,
    ActionMatching,
    ActionNetwork,
    FlowPolicy,
    Observations,
    Point,
    RealTimeChunking,
    SameFactors,
    Vector,
    Words,
    action_network,
    action_source,
    encoder_of,
    fit_policy,
)
from rfm.integrators import EULER, FixedStep
from rfm.networks.second_time import with_second_time
from rfm.paths import GeodesicPath
from rfm.paths.times import EarlyTimes
from rfm.sources import Uniform, WrappedNormal, default_source

HAND = Product(SE3(), Euclidean(1))
ARM = Bounded(FlatTorus(3), JointLimits([-1.0, -2.0, 0.0], [1.0, 2.0, 2.5]))
ROBOTS = Padded(SE3(), Euclidean(1), FlatTorus(2))
CHUNKS = [ActionChunks(m, 4) for m in (Euclidean(2), Sphere(2), HAND, ARM, ROBOTS)]
EACH = pytest.mark.parametrize("m", CHUNKS, ids=str)
SEEN = Observations([Point("pose", SE3()), Vector("forces", 2), Words("task", 5, 3), Picture("camera", 8)])


def observed(n: int, seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "pose": points(SE3(), n, seed=seed),
        "forces": normal(n, 2, seed=seed),
        "task": torch.randint(5, (n, 3), generator=generator),
        "camera": torch.rand(n, 8, 8, generator=generator),
    }


def network(m: Power, kind: type[ActionNetwork] = ActionNetwork, seed: int = 0, seen: Observations = SEEN) -> Any:
    """Return a small network whose layers are none of them zero, in float64."""
    torch.manual_seed(seed)
    made = kind(m, seen, width=16, depth=2, seen_depth=1, heads=2).double().eval()
    for p in made.parameters():
        if not bool(p.any()):
            nn.init.normal_(p, std=0.3)
    return made


def drawn(m: ActionChunks, n: int, seed: int = 0) -> Tensor:
    return points(m, n, seed=seed) if m.m is not ROBOTS else default_source_of_robots(m, n, seed)


def default_source_of_robots(m: ActionChunks, n: int, seed: int) -> Tensor:
    parts = [points(f, n, m.horizon, seed=seed + i) for i, f in enumerate(ROBOTS.factors)]  # type: ignore[arg-type]
    return ROBOTS.join(*parts)


@EACH
def test_chunks_are_a_power(m: ActionChunks) -> None:
    power = Power(m.manifold, 4)
    x, y = drawn(m, 3), drawn(m, 3, 9)
    assert (m.horizon, m.dim, m.event_shape) == (4, power.dim, power.event_shape)
    assert torch.equal(m.dist(x, y), power.dist(x, y))
    m.check_point(x)


@EACH
@pytest.mark.parametrize("stride", [1, 2])
def test_windows_are_the_actions_that_follow(m: ActionChunks, stride: int) -> None:
    actions = drawn(m, 2).flatten(0, 1)
    chunks = m.windows(actions, stride)
    m.check_point(chunks)
    for i, chunk in enumerate(chunks):
        for j, action in enumerate(chunk):
            at = i + stride * j
            if at < len(actions):
                assert torch.equal(action, actions[at])
            elif m.manifold is ROBOTS:
                assert not bool(ROBOTS.there(action).any())
            else:
                assert torch.equal(action, actions[-1])
    assert torch.equal(m.later(chunks[:1], 1)[:, :3], chunks[:1, 1:])
    assert torch.equal(m.later(chunks[:1], 9)[:, 0], chunks[:1, 3])
    with pytest.raises(ValueError, match="one demonstration"):
        m.windows(chunks)


def test_the_path_and_the_sign_of_the_target() -> None:
    """A_t = t A + (1 - t) eps, which given A has variance (1 - t)^2, and the target A - eps: from noise to data."""
    m = ActionChunks(Euclidean(2), 3)
    source = WrappedNormal(m.m, torch.zeros(2), 1.0)
    n, t = 20_000, 0.3
    noise = source.sample((n, 3), torch.Generator().manual_seed(0), torch.float64)
    actions = normal(1, 3, 2).expand(n, 3, 2)
    sample = ActionMatching().on(m).path.sample(noise, actions, torch.full((n,), t, dtype=torch.float64))  # type: ignore[union-attr]
    torch.testing.assert_close(sample.x_t, t * actions + (1 - t) * noise)
    torch.testing.assert_close(sample.dx_t, actions - noise)
    assert float((sample.x_t - t * actions).var() / (1 - t) ** 2) == pytest.approx(1, abs=0.03)
    # The loss is zero for that velocity alone, and following it for the time that is left leads to the actions.
    loss = ActionMatching()
    times = loss.draw_times((n,), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    velocity = lambda x, s: (actions[0] - x) / (1 - s)[:, None, None]  # noqa: E731
    assert float(loss(velocity, default_source(m, actions), noise, actions, times)) == pytest.approx(0, abs=1e-12)
    assert float(loss(lambda x, s: -velocity(x, s), default_source(m, actions), noise, actions, times)) > 1
    end = rfm.integrate(velocity, m, noise[:5], (0.0, 1.0), TEN_STEPS).final
    torch.testing.assert_close(end, actions[:5])
    assert loss.times == EarlyTimes(1.5, 0.999)


def test_observations_travel_as_vectors() -> None:
    values = observed(4)
    vectors = SEEN.encode(values)
    assert vectors.shape == (4, SEEN.width) == (4, 16 + 2 + 3 + 64)
    pose, forces, task, camera = SEEN.split(vectors)
    assert torch.equal(pose.reshape(4, 4, 4), values["pose"])
    assert torch.equal(forces, values["forces"])
    assert torch.equal(task, values["task"].double())
    assert torch.equal(camera, values["camera"].flatten(1).double())
    one = SEEN.encode({name: value[0] for name, value in values.items()})
    assert torch.equal(one, vectors[0])
    assert bool(SEEN.split(SEEN.encode({"forces": [1.0, 2.0]}))[0].isnan().all())
    assert SEEN.split(SEEN.encode({"task": [1, 2]}))[2].isnan().tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ({"hand": 1}, "no 'hand'"),
        ({"forces": [1.0, 2.0, 3.0]}, "forces has shape"),
        ({"forces": [[1.0, 2.0]], "pose": torch.eye(4).expand(2, 4, 4)}, "different lengths"),
        ({"task": [1, 5]}, "from 0 to 4"),
        ({"task": [1, 1, 1, 1]}, "at most 3"),
        ({"camera": torch.ones(9, 9)}, "8 x 8 are required"),
    ],
)
def test_observations_that_cannot_be_read(wrong: dict[str, Any], found: str) -> None:
    with pytest.raises(ValueError, match=found):
        SEEN.encode(wrong)


def test_observations_are_standardised_by_the_data() -> None:
    forces = 100 + 5 * normal(50, 2)
    vector = Vector.of("forces", forces)
    tokens = encoder_of(vector, 8).double()
    standard = tokens.inputs(forces)[:, 2:4]
    torch.testing.assert_close(standard.mean(0), torch.zeros(2).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(standard.std(0, correction=0), torch.ones(2).double(), atol=1e-5, rtol=0)
    assert Point.of("pose", Sphere(2), points(Sphere(2), 5)).offset is None
    assert Point.of("place", Euclidean(2), forces).scale == pytest.approx(5, rel=0.3)
    for parts in ([], [vector, vector]):
        with pytest.raises(ValueError, match="different names"):
            Observations(parts)
    with pytest.raises(ValueError, match="no encoder"):
        encoder_of(object(), 8)  # type: ignore[arg-type]


@EACH
@pytest.mark.parametrize("kind", [ActionNetwork, ActionMap])
def test_velocities_are_tangent_at_every_batch_shape(m: ActionChunks, kind: type[ActionNetwork]) -> None:
    field, x, given = network(m, kind), drawn(m, 6), SEEN.encode(observed(6))
    t = torch.linspace(0, 1, 6, dtype=torch.float64)
    u = field(x, t, given)
    m.check_tangent(x, u)
    assert float(u.detach().abs().max()) > 1e-3
    shape = (2, 3)
    folded = field(x.reshape(*shape, *m.event_shape), t.reshape(shape), given.reshape(*shape, -1))
    torch.testing.assert_close(folded.reshape(u.shape), u)
    torch.testing.assert_close(field(x[0], t[0], given[0]), u[0])
    # One observation for all, and one time.
    torch.testing.assert_close(field(x, t[2], given[2])[2], u[2])


def test_the_velocity_of_joints_at_a_limit_leads_inside() -> None:
    m = CHUNKS[3]
    x = torch.tensor([1.0, 2.0, 2.5], dtype=torch.float64).expand(5, 4, 3)
    u = network(m)(x, torch.rand(5, dtype=torch.float64), SEEN.encode(observed(5)))
    assert float(u.detach().abs().max()) < 1e-9
    flow = rfm.Flow(m, network(m), Uniform(m))
    drawn = FlowPolicy(flow, solver=FixedStep(EULER, 40)).plan(observed(20))
    m.check_point(drawn)
    assert float(drawn.std(0).min()) > 0


def test_what_is_not_known_is_not_seen() -> None:
    m = CHUNKS[0]
    field, x, t = network(m), drawn(m, 5), torch.full((5,), 0.4, dtype=torch.float64)
    full = SEEN.encode(observed(5))
    for part in SEEN.names:
        values = observed(5)
        del values[part]
        missing = SEEN.encode(values)
        assert not torch.allclose(field(x, t, missing), field(x, t, full))
        # As much as if one entry were not: what the others are makes no difference.
        spoilt, other = full.clone(), SEEN.encode(observed(5, seed=7))
        for vectors, rest in ((SEEN.split(spoilt), full), (SEEN.split(other), other)):
            vectors[SEEN.names.index(part)][:, 0] = math.nan
            assert rest.shape == full.shape
        if part != "task":  # its tokens are known one by one
            torch.testing.assert_close(field(x, t, spoilt), field(x, t, missing))
    torch.testing.assert_close(field(x, t), field(x, t, SEEN.encode({}).expand(5, -1)))


@pytest.mark.parametrize("kind", [ActionNetwork, ActionMap])
def test_what_is_seen_is_encoded_once_for_a_solve(kind: type[ActionNetwork]) -> None:
    m = CHUNKS[2]
    field, given = network(m, kind), SEEN.encode(observed(3))
    calls: list[int] = []
    field.seen.register_forward_hook(lambda *_: calls.append(1))
    known, memory = field.encoded(given)
    x, t = drawn(m, 3), torch.rand(3, dtype=torch.float64)
    torch.testing.assert_close(known(x, t, condition=memory), field(x, t, given))
    torch.testing.assert_close(known(x, t), field(x, t))
    flow = rfm.Flow(m, field, default_source(m, drawn(m, 50)))
    calls.clear()
    chunk = FlowPolicy(flow).plan(observed(3))
    assert calls == [1]
    # The same chunk as from a solve that encodes at each step.
    x_0 = flow.source.sample((3,), torch.Generator().manual_seed(0), torch.float64)
    slow = rfm.integrate(field, m, x_0, (0.0, 1.0), TEN_STEPS, condition=given).final
    torch.testing.assert_close(chunk, slow)
    assert sum(calls) == 11


def test_the_map_begins_as_the_velocity_and_is_it_at_equal_times() -> None:
    m = CHUNKS[1]
    field, given = network(m), SEEN.encode(observed(4))
    made = with_second_time(field)
    assert type(made) is ActionMap
    x, s, t = drawn(m, 4), torch.full((4,), 0.2).double(), torch.full((4,), 0.9).double()
    torch.testing.assert_close(made.average_velocity(x, s, t, condition=given), field(x, s, given))
    other = network(m, ActionMap)
    torch.testing.assert_close(other.average_velocity(x, s, s, condition=given), other(x, s, given))
    assert not torch.allclose(other.average_velocity(x, s, t, condition=given), other(x, s, given))
    known, memory = other.encoded(given)
    jumped = known.average_velocity(x, s, t, condition=memory)  # type: ignore[attr-defined]
    torch.testing.assert_close(jumped, other.average_velocity(x, s, t, condition=given))
    flow = rfm.Flow(m, other, default_source(m, x))
    chunk = FlowPolicy(flow, steps=1).plan(observed(4))
    x_0 = flow.source.sample((4,), torch.Generator().manual_seed(0), torch.float64)
    zero = torch.zeros(4, dtype=torch.float64)
    torch.testing.assert_close(chunk, m.projx(other.jump(x_0, zero, zero + 1, condition=given)))


def test_the_exact_density_of_a_chunk() -> None:
    """By the divergence of the field, beside a Jacobian from finite differences of the solve."""
    m = ActionChunks(Euclidean(1), 2)
    field = network(m)
    flow = rfm.Flow(m, field, WrappedNormal(m, torch.zeros(2, 1), 1.0))
    given, x = SEEN.encode(observed(1))[0], normal(3, 2, 1)
    found = flow.log_prob(x, condition=given)
    back = lambda y: flow.trajectory(y, (1.0, 0.0), condition=given)[-1]  # noqa: E731
    h, columns = 1e-4, []
    for i in range(2):
        move = torch.zeros(2, 1, dtype=torch.float64)
        move[i] = h
        columns.append((back(x + move) - back(x - move)).flatten(1) / (2 * h))
    log_det = torch.linalg.slogdet(torch.stack(columns, -1))[1]
    torch.testing.assert_close(found, flow.source.log_prob(back(x)) + log_det, atol=1e-4, rtol=0)


def policy_of(m: ActionChunks, **options: Any) -> FlowPolicy:
    return FlowPolicy(rfm.Flow(m, network(m), default_source(m, drawn(m, 60))), **options)


@EACH
def test_a_chunk_is_carried_out_before_the_next_is_drawn(m: ActionChunks) -> None:
    policy, twin = policy_of(m, execute=3, seed=4), policy_of(m, execute=3, seed=4)
    values = observed(2)
    first, second = twin.plan(values), twin.plan(values)
    for chunk in (first, second):
        for i in range(3):
            assert torch.equal(policy.act(values), chunk[:, i])
    policy.act(values)
    policy.reset()
    assert not torch.equal(policy.act(values), second[:, 1])
    single = {name: value[0] for name, value in values.items()}
    policy.reset()
    assert policy.act(single).shape == m.manifold.event_shape
    m.check_point(first)


@pytest.mark.parametrize("m", [CHUNKS[0], CHUNKS[1], CHUNKS[2]], ids=str)
def test_chunks_agree_with_what_is_left_of_the_last(m: ActionChunks) -> None:
    values, solver = observed(6), FixedStep(EULER, 20)
    left = drawn(m, 6, 3)
    free = policy_of(m, execute=1, solver=solver).plan(values, left)
    held = policy_of(m, execute=1, solver=solver, chunking=RealTimeChunking(1)).plan(values, left)
    warm = policy_of(m, execute=1, solver=solver, start=0.9).plan(values, left)
    m.check_point(held)
    assert torch.equal(held[:, 0], left[:, 0])
    own = m.manifold.dist
    assert float(own(held, left)[:, 1].mean()) < 0.9 * float(own(free, left)[:, 1].mean())
    assert float(own(warm, left).mean()) < 0.6 * float(own(free, left).mean())


def test_guidance_is_that_of_the_source_in_flat_space() -> None:
    """v + min(b, (1 - t) / (t r^2)) (Y - A_1)' W dA_1/dA_t with r^2 = (1 - t)^2 / (t^2 + (1 - t)^2)."""
    m, chunking = ActionChunks(Euclidean(2), 6), RealTimeChunking(delay=1, strength=5.0)
    matrix, last, x = normal(12, 12) / 4, normal(3, 6, 2, seed=1), normal(3, 6, 2, seed=2)
    field = lambda y, t: (y.flatten(1) @ matrix.mT).unflatten(1, (6, 2))  # noqa: E731
    steered = chunking.guidance(m, last, execute=2).applied_to(field)
    c = [(4 - i) / 4 for i in range(6)]
    w = torch.tensor([1.0, *(c[i] * math.expm1(c[i]) / (math.e - 1) for i in (1, 2, 3)), 0.0, 0.0]).double()
    torch.testing.assert_close(chunking.weights(6, 2), w)
    for time in (0.0, 0.05, 0.5, 0.95):
        t = torch.full((3,), time, dtype=torch.float64)
        v, jacobian = field(x, t), torch.eye(12, dtype=torch.float64) + (1 - time) * matrix
        missed = (w[:, None] * (last - (x + (1 - time) * v))).flatten(1)
        r2 = (1 - time) ** 2 / (time**2 + (1 - time) ** 2)
        factor = 5.0 if time == 0 else min(5.0, (1 - time) / (time * r2))
        expected = v + factor * (missed @ jacobian).unflatten(1, (6, 2))
        torch.testing.assert_close(steered(x, t), expected)


def test_robots_of_several_kinds_in_one_batch(tmp_path: Path) -> None:
    """Padding moves nothing, trains nothing, and a policy acts with the factors that its robot has."""
    m = ActionChunks(ROBOTS, 4)
    seen = Observations([Vector("forces", 2), Words("robot", 2)])
    forces = normal(60, 2, dtype=torch.float32)
    hand = ROBOTS.join(points(SE3(), 60, dtype=torch.float32), forces[:, :1], None)
    arm = ROBOTS.join(None, None, FlatTorus(2).projx(forces))
    chunks = torch.cat([m.windows(hand), m.windows(arm)])
    robot = torch.tensor([0, 1]).repeat_interleave(60)[:, None]
    small = action_network(chunks, m, seen, width=16, depth=1, seen_depth=1, heads=2)
    given = {"forces": forces.repeat(2, 1), "robot": robot}
    own = {"groups": torch.arange(120) // 10, "network": small, "steps": 4, "batch_size": 16, "progress": False}
    few = rfm.Training(validations=1)
    policy = fit_policy(chunks, m, seen, given, there=(False, False, True), training=few, **own)
    assert math.isfinite(policy.flow.history[-1]["validation_loss"])
    acted = policy.act({"forces": forces[:3], "robot": robot[-3:]})
    ROBOTS.check_point(acted)
    assert ROBOTS.there(acted).tolist() == [[False, False, True]] * 3
    policy.flow.save(tmp_path)
    again = FlowPolicy(rfm.Flow.load(tmp_path), there=(False, False, True))
    assert torch.equal(again.act({"forces": forces[:3], "robot": robot[-3:]}), acted)
    # The loss knows nothing of what stands in padding, and what is predicted there.
    x_1, field = chunks[60:64], policy.flow.field
    x_0 = SameFactors(m)(policy.flow.source.sample((4,)), x_1).x_0
    sample = GeodesicPath(m).sample(x_0, x_1, torch.full((4,), 0.5))
    condition = seen.encode({"forces": forces[:4], "robot": robot[-4:]}).float()
    u = field(sample.x_t, sample.t, condition)
    assert not bool(ROBOTS.split(u)[0].any())
    assert not bool(ROBOTS.split(sample.dx_t)[0].any())
    assert torch.equal(ROBOTS.there(sample.x_t), ROBOTS.there(x_1))


@pytest.mark.slow
def test_two_ways_are_both_learnt_and_distilled() -> None:
    """Left or right by the flip of a coin, in a direction that is seen: no action lies in the middle."""
    m = ActionChunks(Sphere(2), 4)
    generator = torch.Generator().manual_seed(0)
    n = 2000
    north = 2 * torch.randint(2, (n, 1), generator=generator) - 1
    length = 0.5 + torch.rand(n, 1, generator=generator)
    angles = north * length * torch.arange(1, 5) / 4
    chunks = torch.stack([torch.cos(angles), torch.sin(angles), torch.zeros_like(angles)], -1)
    seen = Observations([Vector("length", 1)])
    options: dict[str, Any] = {"batch_size": 128, "progress": False}
    options["training"] = rfm.Training(learning_rate=3e-3, validations=2)
    small = action_network(chunks, m, seen, width=32, depth=2, seen_depth=1, heads=2)
    given, groups = {"length": length}, torch.arange(n)
    policy = fit_policy(chunks, m, seen, given, groups=groups, network=small, steps=300, **options)
    flow = rfm.distil(
        policy.flow,
        field=ActionMap.from_velocity(policy.flow.field),
        condition=seen.encode(given),
        points=1000,
        solver=TEN_STEPS,
        steps=200,
        **options,
    )
    goal = torch.tensor([math.cos(1), math.sin(1), 0.0])
    for drawer in (policy, FlowPolicy(flow, steps=2)):
        end = drawer.plan({"length": torch.full((200, 1), 1.0)})[:, -1]
        left, right = Sphere(2).dist(end, goal), Sphere(2).dist(end, goal * torch.tensor([1.0, -1.0, 1.0]))
        assert float(torch.minimum(left, right).median()) < 0.25
        assert 0.3 < float((left < right).float().mean()) < 0.7


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"execute": 5}, "a chunk has 4"),
        ({"execute": 4, "chunking": RealTimeChunking(1)}, "after a delay of 1"),
        ({"start": 1.0}, "from 0 to below 1"),
        ({"steps": 2}, "second time"),
        ({"there": (True,)}, "Padded"),
    ],
)
def test_policies_that_cannot_act(options: dict[str, Any], found: str) -> None:
    with pytest.raises(ValueError, match=found):
        policy_of(CHUNKS[0], **options)


def test_what_cannot_be_made() -> None:
    m: Any = CHUNKS[0]
    for steps in ({"solver": TEN_STEPS}, {"chunking": RealTimeChunking()}):
        with pytest.raises(ValueError, match="no guidance reaches"):
            FlowPolicy(rfm.Flow(m, network(m, ActionMap), default_source(m, drawn(m, 9))), steps=1, **steps)  # type: ignore[arg-type]
    euclidean: Manifold = Euclidean(2)
    for wrong in (
        lambda: ActionNetwork(euclidean, SEEN),  # type: ignore[arg-type]
        lambda: ActionNetwork(m, SEEN, width=10, heads=4),
        lambda: ActionNetwork(m, SEEN, offset=[1.0]),
        lambda: SameFactors(m),
        lambda: FlowPolicy(rfm.Flow(Sphere(2), lambda x, t: 0 * x)),
        lambda: FlowPolicy(rfm.Flow(m, lambda x, t: 0 * x, default_source(m, drawn(m, 9)))),
        lambda: ActionMap.from_velocity(nn.Linear(1, 1)),  # type: ignore[arg-type]
        lambda: RealTimeChunking(-1),
        lambda: Vector("v", 2, offset=[0.0]),
    ):
        with pytest.raises(ValueError, match=r"ActionNetwork|SameFactors|FlowPolicy|ActionMap|RealTime|Vector"):
            wrong()


@pytest.mark.parametrize("m", [CHUNKS[0], CHUNKS[1], ActionChunks(SE3(), 4)], ids=str)
def test_noise_is_about_the_actions(m: ActionChunks) -> None:
    """As far from their mean as they are, and with a density."""
    centre = points(m.manifold, 1, seed=5)
    noise = 0.2 * normal(4000, *m.manifold.event_shape)
    actions = m.manifold.expmap(centre.expand_as(noise), m.manifold.proju(centre.expand_as(noise), noise))
    source = action_source(actions.reshape(1000, *m.event_shape), m)
    x = source.sample((2000,), torch.Generator().manual_seed(0), torch.float64)
    m.check_point(x)
    spreads = [m.manifold.squared_dist(centre, each).mean() for each in (x.flatten(0, 1), actions)]
    assert float(spreads[0] / spreads[1]) == pytest.approx(1, abs=0.1)
    assert bool(source.log_prob(x[:5]).isfinite().all())
