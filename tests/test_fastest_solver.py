"""The cheapest solver that keeps an error."""

import pytest
import torch
from torch import Tensor

import rfm
from manifolds import SPD, FlatTorus, Sphere
from rfm.flow import fastest_solver
from rfm.integrators import Adaptive, FixedStep, Method
from rfm.sources import WrappedNormal

_AXIS = torch.tensor([0.0, 0.0, 1.0])


def _pull(x: Tensor, t: Tensor) -> Tensor:
    """Towards the pole, faster with time."""
    return Sphere(2).proju(x, (4 * t.reshape(*t.shape, 1) * _AXIS).expand_as(x))


def _flow() -> rfm.Flow:
    return rfm.Flow(Sphere(2), _pull)


def _draws(flow: rfm.Flow, seed: int = 0, count: int = 100):
    return lambda solver: flow.sample(count, generator=torch.Generator().manual_seed(seed), solver=solver)


@pytest.mark.parametrize("error", [1e-2, 1e-4])
def test_other_points_keep_the_error_too(error: float) -> None:
    flow = _flow()
    choice = fastest_solver(_draws(flow), error, flow.manifold.dist)
    assert choice.error is not None
    assert choice.error <= error
    assert choice.points == 100
    tight = Adaptive(atol=1e-7, rtol=1e-7)
    new = _draws(flow, seed=1, count=200)
    assert float(flow.manifold.dist(new(choice.solver), new(tight)).max()) < 2 * error
    x = new(tight)
    scored = fastest_solver(lambda solver: flow.log_prob(x[:50], solver=solver), error)
    assert float((flow.log_prob(x, solver=scored.solver) - flow.log_prob(x, solver=tight)).abs().max()) < 2 * error


def test_a_smaller_error_takes_no_fewer_steps() -> None:
    flow = _flow()
    steps = []
    for error in (1e-1, 1e-2, 1e-3, 1e-4):
        solver = fastest_solver(_draws(flow), error, flow.manifold.dist).solver
        assert isinstance(solver, FixedStep)
        steps.append(solver.steps)
    assert steps == sorted(steps)
    assert steps[0] < steps[-1]


def test_it_is_the_first_that_keeps_the_error() -> None:
    """All results are the number of steps off, counted down from 20."""

    def solve(solver: Method) -> Tensor:
        off = 0.0 if not isinstance(solver, FixedStep) else 20.0 - min(solver.steps, 20)
        return torch.tensor([1.0, 1.0 + off])

    found = fastest_solver(solve, 7.0)
    assert isinstance(found.solver, FixedStep)
    assert found.solver.steps == 14
    assert found.error == 6.0
    assert found.describe("nats") == "14 steps of Adams's method of order 3, with errors of at most 6 nats at 2 points"


def test_results_that_are_no_numbers_are_no_error_kept() -> None:
    def solve(solver: Method) -> Tensor:
        return torch.tensor([1.0, 2.0 if solver == Adaptive() else float("nan")])

    found = fastest_solver(solve, 0.1)
    assert found.solver == Adaptive()
    assert found.error is None
    assert "no faster solver" in found.describe("nats")


def test_steps_that_leave_the_manifold_are_left_out() -> None:
    """Steps out of the cone fail, and are no candidates."""
    m = SPD(2)
    flow = rfm.Flow(m, lambda x, t: -30 * (1 - t.reshape(*t.shape, 1, 1)) * x, WrappedNormal(m, torch.eye(2)))
    found = fastest_solver(_draws(flow, count=20), 1e-3, m.dist)
    assert bool(m.dist(_draws(flow, count=20)(found.solver), _draws(flow, count=20)(Adaptive())).max() < 1e-3)


def test_an_error_that_nothing_keeps_is_refused() -> None:
    flow = rfm.Flow(FlatTorus(1), lambda x, t: x * 0)
    with pytest.raises(ValueError, match="error must be at least 1e-05"):
        fastest_solver(_draws(flow), 1e-7)
    with pytest.raises(ValueError, match="error"):
        fastest_solver(_draws(flow), -1.0)
