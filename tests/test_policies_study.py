"""The study of policies by reward: its tasks are what they say, and it runs and writes its page."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from experiments.policies.__main__ import main
from experiments.policies.attitude import INERTIA, MOMENTS, SECONDS, Attitude, steered
from experiments.policies.gaussian import Vectors
from experiments.policies.passages import FLEET, HALF_WAY, RADIUS, Passages
from experiments.policies.report import figures, write_page
from experiments.policies.tasks import METHODS, TASKS
from manifolds import SO3, Sphere
from manifolds.rotations import hat


def spinning(count: int = 5) -> Attitude:
    bodies = Attitude(count, seed=3)
    bodies.reset()
    bodies.rate = torch.randn(count, 3, generator=torch.Generator().manual_seed(0))
    return bodies


def momentum(bodies: Attitude) -> Tensor:
    """Return angular momenta in the frame of the world."""
    return (bodies.attitude @ (torch.tensor(INERTIA) * bodies.rate)[..., None])[..., 0]


def test_bodies_without_torque_keep_their_momentum_to_the_order_of_the_step() -> None:
    bodies = spinning()
    before = momentum(bodies)
    bodies.step(torch.zeros(5, 3))
    # Euler's method errs by the square of the step, with rates of about 1.
    assert float((momentum(bodies) - before).norm(dim=-1).max()) < 4 * SECONDS**2 * 3
    SO3().check_point(bodies.attitude, tol=1e-5)


def test_torques_turn_about_their_axes_and_are_cut_off() -> None:
    bodies = Attitude(3)
    bodies.reset()
    start = bodies.attitude
    step = bodies.step(5 * torch.eye(3))
    turned = torch.diag_embed(torch.ones(3)) * SECONDS / torch.tensor(INERTIA)
    torch.testing.assert_close(bodies.rate, turned)
    expected = start @ torch.matrix_exp(hat(SECONDS * turned))
    torch.testing.assert_close(bodies.attitude, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(step.reward, -SO3().dist(expected, torch.eye(3).expand(3, 3, 3)) - 0.05)


def test_a_controller_reaches_the_goal_within_an_episode_which_is_then_cut_off() -> None:
    bodies = Attitude(64, seed=1)
    seen = bodies.reset()
    assert float(bodies.angle().mean()) > 1.5
    for moment in range(MOMENTS):
        step = bodies.step(steered(seen))
        assert bool(step.truncated.all()) == bool(step.truncated.any()) == (moment == MOMENTS - 1)
        assert not bool(step.terminated.any())
        seen = step.observation
    final = step.final_observation[:, :9].unflatten(1, (3, 3))
    assert float(SO3().dist(final, torch.eye(3).expand_as(final)).max()) < 0.1
    # The next episode has begun, at rest.
    assert float(bodies.angle().mean()) > 1.5
    assert not bool(seen[:, 9:].any())


def decided(latitudes: Tensor) -> tuple[Tensor, Passages]:
    """Return the rewards of a fleet that passes the first meridian at these latitudes, round an obstacle on it."""
    fleet = Passages(FLEET)
    fleet.obstacle = torch.tensor([1.0, 0.0, 0.0]).expand(FLEET, 3)
    points = torch.stack([torch.cos(latitudes), torch.zeros(FLEET), torch.sin(latitudes)], -1)
    return fleet.step(points).reward, fleet


def test_what_robots_of_a_fleet_gain() -> None:
    side = torch.where(torch.arange(FLEET) % 4 == 0, 1.0, -1.0)
    reward, _ = decided(0.5 * side)
    # By spherical trigonometry: the hypotenuse of a right triangle.
    detour = 2 * math.acos(math.cos(HALF_WAY) * math.cos(0.5)) - 2 * HALF_WAY
    north, south = 1 - detour - (2 * 0.25 - 1), 1 - detour - (2 * 0.75 - 1)
    torch.testing.assert_close(reward, torch.where(side > 0, north, south), atol=1e-3, rtol=0)
    hit, _ = decided(0.1 * side)
    assert float((reward - hit - 1).abs().max()) < 0.3
    near, _ = decided((RADIUS + 0.1) * torch.where(torch.arange(FLEET) % 2 == 0, 1.0, -1.0))
    alone, _ = decided(torch.full((FLEET,), RADIUS + 0.1))
    assert float(near.mean() - alone.mean()) == pytest.approx(1, abs=1e-4)
    with pytest.raises(ValueError, match="multiple of 32"):
        Passages(FLEET + 1)


def test_obstacles_are_shared_by_a_fleet_and_lie_on_the_way() -> None:
    fleets = Passages(4 * FLEET, seed=2)
    seen = fleets.reset().unflatten(0, (4, FLEET))
    assert bool((seen == seen[:, :1]).all())
    assert len(seen[:, 0].unique(dim=0)) == 4
    straight = torch.tensor([1.0, 0.0, 0.0]).expand(4 * FLEET, 3)
    assert bool(fleets.passed(straight, fleets.obstacle)[1].all())


def test_stable_baselines_sees_the_same_environments() -> None:
    adapted, own = Vectors(Attitude(2, seed=4)), Attitude(2, seed=4)
    assert adapted.action_space.shape == (3,)
    assert torch.equal(torch.as_tensor(adapted.reset()), own.reset())
    for _ in range(MOMENTS):
        action = torch.tensor([[0.5, -0.2, 0.1], [1.0, 0.0, -1.0]])
        seen, reward, done, infos = adapted.step(action.numpy())
        step = own.step(action)
        assert torch.equal(torch.as_tensor(seen), step.observation)
        assert torch.equal(torch.as_tensor(reward), step.reward)
    assert done.all()
    assert infos[1]["TimeLimit.truncated"]
    assert torch.equal(torch.as_tensor(infos[1]["terminal_observation"]), step.final_observation[1])
    ways = Vectors(Passages(FLEET))
    ways.reset()
    ways.step_async(torch.tensor([[3.0, 0.0, 4.0]]).expand(FLEET, 3).numpy())
    Sphere(2).check_point(ways.actions, tol=1e-6)


@pytest.mark.slow
def test_the_study_runs_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs, page, film = tmp_path / "runs", tmp_path / "page.md", tmp_path / "film.gif"
    marks = "".join(f"<!-- {name} -->\n<!-- end -->\n\n" for name in ("returns", "passages"))
    page.write_text(f"# A\n\n{marks}Below.\n")
    arguments = ["--quick", "--runs", str(runs), "--seeds", "0", "--tasks"]
    main([*arguments, "Passages", "Attitude"])
    kept = {file.name: file.read_text() for file in runs.glob("*.json")}
    assert len(kept) == 2 * len(METHODS)
    main([*arguments, "Passages", "Reacher-v5", "--out", str(page), "--figures", str(tmp_path), "--film", str(film)])
    assert all((runs / name).read_text() == text for name, text in kept.items())
    known = figures(runs)
    assert {task for task, _ in known} == {"Passages", "Attitude", "Reacher-v5"}
    for (task, _), (own,) in known.items():
        assert len(own["drawn"]) == TASKS[task].assessed
        assert len(own["final"]) == (TASKS[task].assessed if TASKS[task].certain else 0)
    text = page.read_text()
    assert text.count("\n| Reacher-v5 |") == 3
    assert text.endswith("Below.\n")
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("policies.png", "passages.png", "film.gif"))
    assert "100 % of 600 steps" in capsys.readouterr().err
    json.loads((runs / "passages-PPO-0.json").read_text())
    with pytest.raises(ValueError, match="0 places"):
        write_page(Path(__file__), runs)
