"""Windows of a track and forecasts from them: frames, gaps, blocks, exact predictions, densities of poses."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from manifolds import SE3, SO3
from rfm.control import LinearMotion, MotionForecast, fit_forecast, motion_coordinates, motion_from_coordinates
from rfm.datasets import motion_windows, past_motions

TWIST = torch.tensor([0.3, -0.8, 0.5, 0.2, 0.1, -0.4], dtype=torch.float64)


def screw(seconds: Tensor, start: Tensor | None = None) -> Tensor:
    """Return a body that turns evenly while its own frame moves evenly, about an axis through it: ``exp(t w)``."""
    hat = torch.zeros(4, 4, dtype=torch.float64)
    x, y, z = TWIST[:3]
    hat[:3, :3] = torch.stack([0 * x, -z, y, z, 0 * x, -x, -y, x, 0 * x]).reshape(3, 3)
    hat[:3, 3] = TWIST[3:]
    moved = torch.linalg.matrix_exp(seconds[:, None, None] * hat)
    return moved if start is None else start @ moved


def wandering(seconds: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return a track whose velocity is a slow random walk, with the times of its poses."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.arange(0, seconds, 1 / 60, dtype=torch.float64)
    pushes = torch.randn(len(t), 6, generator=generator, dtype=torch.float64)
    velocity = torch.zeros(6, dtype=torch.float64)
    poses = [torch.eye(4, dtype=torch.float64)]
    for push in pushes[1:]:
        velocity = 0.97 * velocity + 0.1 * push
        poses.append(poses[-1] @ motion_from_coordinates(velocity / 60))
    return torch.stack(poses), t


def placed() -> Tensor:
    """Return a motion of the world."""
    return motion_from_coordinates(torch.tensor([0.4, 2.0, -1.0, 5.0, -3.0, 0.7], dtype=torch.float64))


def test_motions_of_a_screw_are_its_own_and_do_not_depend_on_the_world() -> None:
    t = torch.linspace(0, 20, 8001, dtype=torch.float64)
    windows = motion_windows(screw(t), t, 0.4)
    assert torch.allclose(windows.future, screw(torch.full((len(windows),), 0.4, dtype=torch.float64)), atol=1e-6)
    for i, lag in enumerate(windows.lags):
        due = screw(torch.tensor([lag], dtype=torch.float64))
        assert torch.allclose(windows.past[:, i], due.expand_as(windows.future), atol=1e-6)
    moved = motion_windows(screw(t, placed()), t, 0.4)
    assert torch.allclose(moved.past, windows.past, atol=1e-9)
    assert torch.allclose(moved.now, placed() @ windows.now, atol=1e-6)


def test_windows_cross_neither_gaps_nor_borders_of_blocks() -> None:
    t = torch.linspace(0, 20, 2001, dtype=torch.float64)
    kept = (t < 7) | (t > 7.5)
    windows = motion_windows(screw(t)[kept], t[kept], 0.5, block_seconds=5.0)
    first, last = windows.seconds - windows.lags[-1], windows.seconds + windows.horizon
    assert not bool(((first < 7.49) & (last > 7.01)).any())
    assert torch.equal((first / 5 + 1e-9).floor(), windows.blocks.double())
    assert torch.equal((last / 5 - 1e-9).floor(), windows.blocks.double())
    assert windows.blocks.unique().tolist() == [0, 1, 2, 3]


def test_coordinates_of_motions_go_there_and_back() -> None:
    values = 0.6 * torch.randn(50, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(motion_coordinates(motion_from_coordinates(values)), values, atol=1e-12)


def test_a_linear_prediction_of_a_screw_is_exact() -> None:
    t = torch.linspace(0, 30, 6001, dtype=torch.float64)
    pushed = screw(t) @ motion_from_coordinates(1e-3 * torch.sin(t * 7)[:, None] * torch.ones(6, dtype=torch.float64))
    windows = motion_windows(pushed, t, 0.2)
    half = len(windows) // 2
    parts = [(windows.past[own], windows.future[own]) for own in (slice(half), slice(half, None))]
    linear = LinearMotion.fit(*parts[0], *parts[1])
    errors = SE3().dist(linear(windows.past), windows.future)
    # Of a quarter of a radian, with a ripple that moves it by some thousandths.
    assert float(errors.max()) < 2e-3


@pytest.fixture(scope="module")
def forecast() -> MotionForecast:
    return fit_forecast(motion_windows(*wandering(40, 0), 0.3), steps=30, progress=False)


def test_densities_move_with_the_world_and_are_those_of_the_windows(forecast: MotionForecast) -> None:
    poses, t = wandering(4, 5)
    until = 120
    past, times, ahead = poses[: until + 1], t[: until + 1], poses[until + 18][None]
    log_prob = forecast.log_prob(past, times, ahead)
    moved = forecast.log_prob(placed() @ past, times, placed() @ ahead)
    assert torch.allclose(log_prob, moved, atol=1e-3)
    windows = motion_windows(poses, t, 0.3, every=1 / 60, block_seconds=3.9)
    i = int((windows.seconds - times[-1]).abs().argmin())
    assert float(windows.seconds[i]) == pytest.approx(float(times[-1]), abs=1e-9)
    assert float(forecast.window_log_prob(windows)[i]) == pytest.approx(float(log_prob), abs=1e-3)


def test_the_density_of_poses_integrates_to_one(forecast: MotionForecast) -> None:
    poses, t = wandering(1, 6)
    generator = torch.Generator().manual_seed(0)
    drawn = forecast.sample(poses, t, 1000, generator)
    # From normal coordinates about the mean draw, which have a density with respect to dR dp of their own.
    centre = SE3().projx(drawn.mean(0))
    own = motion_coordinates(torch.linalg.solve(centre, drawn))
    normal = torch.distributions.MultivariateNormal(own.mean(0), 2.5 * own.T.cov())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        values = normal.sample((1000,))
    half = values[:, :3].norm(dim=-1) / 2
    log_q = normal.log_prob(values) - 2 * torch.sinc(half / math.pi).log()
    ratio = (forecast.log_prob(poses, t, centre @ motion_from_coordinates(values)) - log_q).exp()
    assert abs(float(ratio.mean()) - 1) < 5 * float(ratio.std()) / 1000**0.5 < 0.4


@pytest.mark.slow
def test_draws_spread_as_far_as_the_poses_do(forecast: MotionForecast) -> None:
    windows = motion_windows(*wandering(60, 7), 0.3, every=0.5)
    poses, t = wandering(60, 7)
    inside = []
    for now in windows.seconds[:40]:
        until = int((t <= now + 1e-9).sum())
        drawn = forecast.sample(poses[:until], t[:until], 100, torch.Generator().manual_seed(0))
        here = poses[until + 17]
        middle = drawn[:, :3, 3].mean(0)
        inside.append((drawn[:, :3, 3] - middle).norm(dim=-1) > (here[:3, 3] - middle).norm())
    shares = torch.stack(inside).double().mean(1)
    # Ranks of what came among what was drawn: neither all of them last nor all first.
    assert 0.3 < float(shares.mean()) < 0.7


def test_a_forecast_is_the_same_after_saving(forecast: MotionForecast, tmp_path: Path) -> None:
    poses, t = wandering(1, 6)
    forecast.save(tmp_path / "ahead")
    again = MotionForecast.load(tmp_path / "ahead")
    assert (again.horizon, again.lags) == (forecast.horizon, forecast.lags)
    assert torch.equal(again.linear.coefficients, forecast.linear.coefficients)
    one, two = (own.sample(poses, t, 5, torch.Generator().manual_seed(1)) for own in (forecast, again))
    assert torch.allclose(one, two, atol=1e-6)
    SO3().check_point(one[:, :3, :3], tol=1e-5)


def test_bad_windows_are_one_sentence() -> None:
    t = torch.linspace(0, 2, 200, dtype=torch.float64)
    poses = screw(t)
    with pytest.raises(ValueError, match="must not run back"):
        motion_windows(poses, t.flip(0), 0.5)
    with pytest.raises(ValueError, match="lags must be at least two numbers above 0, ascending"):
        motion_windows(poses, t, 0.5, lags=(0.2, 0.1))
    with pytest.raises(ValueError, match="longer than the longest lag and the horizon together"):
        motion_windows(poses, t, 5.0)
    with pytest.raises(ValueError, match=r"no window of 3\.2 seconds is measured throughout"):
        motion_windows(poses, t, 3.0)
    with pytest.raises(ValueError, match=r"must reach 0\.2 seconds back from the last one"):
        past_motions(poses[-5:], t[-5:])
    with pytest.raises(ValueError, match=r"past_motions: takes two poses"):
        past_motions(poses, t.flip(0))
    with pytest.raises(ValueError, match="the windows lie in 1 blocks"):
        fit_forecast(motion_windows(poses, t, 0.5))
    windows = motion_windows(poses, t, 0.5)
    for rows, reason in (
        (torch.arange(len(windows)) < 5, "for a mask pass"),
        (torch.tensor([], dtype=torch.int64), "at least one"),
        (torch.tensor([len(windows)]), "indices from 0"),
        (torch.arange(len(windows)), "none is left to train on"),
    ):
        with pytest.raises(ValueError, match=reason):
            fit_forecast(windows, validation=rows)
