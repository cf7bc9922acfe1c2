"""Policies that are trained by acting: environments, rollouts, and what FPO learns."""

import math
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from random_fields import normal, points
from torch import Tensor, nn

import rfm
from manifolds import SO3, Euclidean, FlatTorus, Manifold, Sphere
from rfm.control import (
    FPO,
    ClippedSurrogate,
    Environments,
    FlowActor,
    GymnasiumEnvironments,
    LossRatio,
    PolicyNetwork,
    Runner,
    RunningScale,
    Step,
)
from rfm.integrators import GEODESIC_EULER, FixedStep
from rfm.sources import Source, Uniform, WrappedNormal

SPACES = [Euclidean(2), FlatTorus(1), Sphere(2), SO3()]
EACH = pytest.mark.parametrize("m", SPACES, ids=str)


def noise(m: Manifold) -> Source:
    return WrappedNormal(m, torch.zeros(m.event_shape), 1.0) if m.volume is None else Uniform(m)


def network(m: Manifold, seen: int = 3) -> PolicyNetwork:
    """Return a network that is not zero, in float64."""
    torch.manual_seed(0)
    made = PolicyNetwork(m, seen, width=16).double()
    nn.init.normal_(made.last.weight, std=0.3)
    return made


def actor_of(m: Manifold, seen: int, field: nn.Module | None = None) -> FlowActor:
    torch.manual_seed(1)
    value = nn.Sequential(nn.Linear(seen, 16), nn.Tanh(), nn.Linear(16, 1))
    return FlowActor(PolicyNetwork(m, seen, width=32) if field is None else field, value, noise(m), seen)


class Counting(Environments):
    """Episodes of three steps that terminate in the first environment, and are cut off in the second."""

    observation_size = 1

    def __init__(self) -> None:
        self.count, self.actions, self.moment = 2, Euclidean(1), 0

    def reset(self) -> Tensor:
        self.moment = 0
        return torch.zeros(2, 1)

    def step(self, actions: Tensor) -> Step:
        self.moment += 1
        seen = torch.full((2, 1), float(self.moment))
        over = self.moment == 3
        ends = torch.tensor([over, False]), torch.tensor([False, over])
        return Step(self.reset() if over else seen, torch.tensor([1.0, 2.0]), *ends, seen)


class North(Environments):
    """One decision on a sphere: the better, the farther in the direction that is seen."""

    observation_size = 3

    def __init__(self, count: int) -> None:
        self.count, self.actions, self.generator = count, Sphere(2), torch.Generator().manual_seed(9)

    def reset(self) -> Tensor:
        self.goal = self.actions.random_uniform(self.count, generator=self.generator, dtype=torch.float32)
        return self.goal

    def step(self, actions: Tensor) -> Step:
        reward, final, over = (actions * self.goal).sum(-1), self.goal, torch.ones(self.count, dtype=torch.bool)
        return Step(self.reset(), reward, over, ~over, final)


def test_the_running_scale_is_that_of_all_that_was_seen() -> None:
    scale, rows = RunningScale(3), 2.0 + normal(50, 3) * torch.tensor([1.0, 10.0, 0.0])
    assert torch.equal(scale(rows), rows.clamp(max=10, min=-10))
    for block in rows.split([1, 20, 29]):
        scale.update(block.reshape(-1, 1, 3))
    torch.testing.assert_close(scale.mean, rows.mean(0))
    torch.testing.assert_close(scale.std[:2], rows.std(0, correction=0)[:2])
    # A constant is left in its units.
    assert float(scale.std[2]) == 1
    assert float(scale(rows + 1e6).max()) == 10
    torch.testing.assert_close(scale(rows)[:, :2].mean(0), torch.zeros(2).double(), atol=1e-9, rtol=0)
    assert scale(rows.float()).dtype == torch.float32


@EACH
def test_the_policy_network_is_tangent_and_reads_what_is_seen_once(m: Manifold) -> None:
    x, t, seen = points(m, 4, 5), torch.rand(4, 5).double(), normal(5, 3)
    assert not bool(PolicyNetwork(m, 3).double()(x, t, seen).any())
    field = network(m).requires_grad_(False)
    u = field(x, t, seen)
    m.check_tangent(x, u)
    assert float(u.abs().max()) > 1e-3
    given, code = field.encoded(seen)
    torch.testing.assert_close(given(x, t, condition=code), u)
    torch.testing.assert_close(field(x[0], t[0, 0], seen)[2], field(x[0, 2], t[0, 0], seen[2]))
    assert float((field(x, t, seen + 1) - u).abs().max()) > 1e-3


@EACH
def test_actors_act_by_geodesic_steps(m: Manifold) -> None:
    field = network(m)
    actor = actor_of(m, 3, field).double()
    actor.scale.update(normal(20, 3, seed=3))
    seen, x_0 = normal(6, 3), points(m, 6)
    found = actor.act(seen, noise=x_0)
    m.check_point(found, tol=1e-9)
    method = FixedStep(GEODESIC_EULER, 10)
    torch.testing.assert_close(
        found, rfm.integrate(field, m, x_0, (0.0, 1.0), method, condition=actor.scale(seen)).final
    )
    drawn = [actor.act(seen, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert actor.values(seen).shape == (6,)


def test_rollouts_go_on_and_know_how_episodes_end() -> None:
    """What a terminated episode could have gained is nothing, what one that is cut off could have is its value."""
    actor = actor_of(Euclidean(1), 1)
    actor.value = _Affine()
    runner = Runner(Counting(), 0.9, 1.0, torch.Generator().manual_seed(0))
    rollout = runner.run(actor, 5)
    assert rollout.observations[:, 0, 0].tolist() == [0, 1, 2, 0, 1]
    assert runner.episodes == [3.0, 6.0]
    # With decay 1 advantages and values add up to discounted sums of rewards.
    reward = torch.tensor([1.0, 2.0]) / float(runner.scale.std)
    value = actor.values(torch.tensor([[2.0], [3.0]]))
    for moment, left in ((0, 3), (1, 2), (2, 1)):
        gained = reward * sum(0.9**k for k in range(left))
        torch.testing.assert_close(rollout.values[moment, 0], gained[0])
        torch.testing.assert_close(rollout.values[moment, 1], gained[1] + 0.9**left * value[1])
    torch.testing.assert_close(rollout.values[4], reward + 0.9 * value[0])
    again = runner.run(actor, 2)
    assert again.observations[:, 0, 0].tolist() == [2, 0]
    batches = list(rollout.flat().batches(3, torch.Generator().manual_seed(0)))
    assert [len(batch) for batch in batches] == [4, 3, 3]
    assert torch.cat(batches).sort().values.tolist() == list(range(10))


class _Affine(nn.Module):
    """Minus what is seen plus one, as it stands after standardisation."""

    def forward(self, seen: Tensor) -> Tensor:
        return 1 - seen


@pytest.mark.parametrize("kind", ["FPO", "FPO++"])
def test_fpo_learns_where_to_go_on_a_sphere(kind: str) -> None:
    own: dict[str, Any] = {"moments": 1, "epochs": 5, "batch_size": 128, "draws": 4, "learning_rate": 5e-3}
    if kind == "FPO++":
        own |= {"ratio": LossRatio(per_draw=True), "surrogate": ClippedSurrogate(0.2, asymmetric=True)}
    actor = actor_of(Sphere(2), 3)
    progress = list(FPO(**own).train(actor, North(256), 2000, torch.Generator().manual_seed(0)))
    assert [each.steps for each in progress] == [256 * (k + 1) for k in range(8)]
    first, last = (float(np.mean(each.episodes)) for each in (progress[0], progress[-1]))
    assert abs(first) < 0.15
    assert last > first + 0.15
    assert all(0 < each.change < 1 for each in progress)


def test_training_is_decided_by_its_seed() -> None:
    def weights(seed: int) -> Tensor:
        actor = actor_of(Sphere(2), 3)
        before = torch.get_rng_state()
        list(FPO(moments=1, epochs=1).train(actor, North(16), 32, torch.Generator().manual_seed(seed)))
        assert torch.equal(before, torch.get_rng_state())
        return torch.cat([each.detach().flatten() for each in actor.parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_settings_that_cannot_be() -> None:
    for wrong in ({"moments": 0}, {"draws": 1.5}, {"learning_rate": -1.0}, {"max_norm": math.nan}, {"decay": 1.5}):
        with pytest.raises(ValueError, match="FPO: "):
            FPO(**wrong)
    with pytest.raises(ValueError, match=r"FPO\.train: environments"):
        next(FPO().train(actor_of(Euclidean(1), 3), None, 10, torch.Generator()))  # type: ignore[arg-type]
    for actor, environments, reason in (
        (actor_of(Euclidean(3), 3), North(4), "the actor's source lives on"),
        (actor_of(Sphere(2), 4), North(4), "observations of 4 numbers"),
        (actor_of(Sphere(2), 3), North(1), "two actions or more"),
    ):
        with pytest.raises(ValueError, match=reason):
            next(FPO(moments=1).train(actor, environments, 10, torch.Generator()))
    with pytest.raises(ValueError, match="RunningScale: takes vectors"):
        RunningScale(3).update(torch.zeros(3, 4))


def vector(name: str, count: int, mode: str = "SAME_STEP") -> Any:
    own = {"autoreset_mode": gymnasium.vector.AutoresetMode[mode]}
    return gymnasium.make_vec(name, count, vectorization_mode="sync", vector_kwargs=own)


def test_environments_of_gymnasium_are_what_they_are_there() -> None:
    """A pendulum beside single ones, over the end of an episode after 200 steps."""
    environments = GymnasiumEnvironments.of("Pendulum-v1", 2, seed=5)
    single = [gymnasium.make("Pendulum-v1") for _ in range(2)]
    seen = environments.reset()
    known = [each.reset(seed=5 + i)[0] for i, each in enumerate(single)]
    torch.testing.assert_close(seen, torch.tensor(np.stack(known)))
    actions = 1.5 * normal(200, 2, 1).float()
    for moment, action in enumerate(actions):
        step = environments.step(action)
        for i, each in enumerate(single):
            # Torques are up to 2, and what is beyond is cut off.
            observation, reward, terminated, truncated, _ = each.step(2 * action[i].clamp(-1, 1).numpy())
            torch.testing.assert_close(step.final_observation[i], torch.tensor(observation))
            assert float(step.reward[i]) == pytest.approx(float(reward), rel=1e-5)
            assert (
                (bool(step.terminated[i]), bool(step.truncated[i])) == (terminated, truncated) == (False, moment == 199)
            )
    assert float((step.observation - step.final_observation).abs().max()) > 0
    torch.testing.assert_close(environments.from_box(environments.into_box(actions[0] / 5)), actions[0] / 5)
    assert float((environments.reset() - seen).abs().max()) > 0


def test_environments_that_do_not_fit() -> None:
    for name, mode in (("CartPole-v1", "SAME_STEP"), ("FrozenLake-v1", "SAME_STEP"), ("Pendulum-v1", "NEXT_STEP")):
        with pytest.raises(ValueError, match="GymnasiumEnvironments: "):
            GymnasiumEnvironments(vector(name, 1, mode))
