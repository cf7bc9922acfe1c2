"""Transport is optimal in every unit, with pairs far away, in both precisions: beside scipy's assignment."""

import warnings

import numpy as np
import pytest
import torch
from random_fields import points
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from manifolds import SE3, SO3, Euclidean, FlatTorus, Manifold, Sphere
from rfm.couplings import OptimalTransport, Sinkhorn, assignment
from rfm.metrics import wasserstein_distance

UNITS = (1e-12, 1e-9, 1e-7, 1e-4, 1.0, 1e5, 1e12)
DTYPES = (torch.float32, torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(n: int, seed: int = 0, dim: int = 2) -> tuple[Tensor, Tensor]:
    x_0, x_1 = torch.randn(2, n, dim, generator=seeded(seed), dtype=torch.float64)
    return x_0, x_1


def cheapest(cost: np.ndarray) -> float:
    rows, columns = linear_sum_assignment(cost)
    return float(cost[rows, columns].sum())


def squared(m: Manifold, x_0: Tensor, x_1: Tensor) -> np.ndarray:
    return m.dist(x_1[:, None], x_0[None]).double().square().numpy()


def check_cheapest(m: Manifold, x_0: Tensor, x_1: Tensor) -> None:
    cost, index = squared(m, x_0, x_1), OptimalTransport(m).indices(x_0, x_1)
    assert sorted(index.tolist()) == list(range(len(x_1)))
    assert cost[np.arange(len(x_1)), index].sum() == pytest.approx(cheapest(cost), rel=1e-12)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("unit", UNITS)
def test_the_unit_does_not_matter(unit: float, dtype: torch.dtype) -> None:
    x_0, x_1 = ((unit * x).to(dtype) for x in normal(300))
    check_cheapest(Euclidean(2), x_0, x_1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("m", [Sphere(2), SO3(), FlatTorus(3), SE3(1e-7), SE3(1e7)], ids=str)
@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e-6])
def test_points_close_together(m: Manifold, dtype: torch.dtype, spread: float) -> None:
    # Geodesics shortened by one factor: clusters about one point, of any size.
    centre, x_0, x_1 = points(m, 1), points(m, 100), points(m, 100, seed=50)
    near = [m.expmap(centre, spread * m.logmap(centre, x)).to(dtype) for x in (x_0, x_1)]
    check_cheapest(m, *near)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("unit", [1e-7, 1.0, 1e6])
@pytest.mark.parametrize("far", [1e2, 1e4, 1e6, 1e8])
def test_a_pair_far_away_spoils_no_other(far: float, unit: float, dtype: torch.dtype) -> None:
    x_0, x_1 = normal(512)
    x_0[0], x_1[7] = far, far + 1
    x_0, x_1 = ((unit * x).to(dtype) for x in (x_0, x_1))
    cost, index = squared(Euclidean(2), x_0, x_1), OptimalTransport(Euclidean(2)).indices(x_0, x_1)
    assert int(index[7]) == 0
    rest = np.delete(np.arange(512), 7)
    others = cost[np.ix_(rest, np.arange(1, 512))]
    assert cost[rest, index[rest]].sum() == pytest.approx(cheapest(others), rel=1e-9)


def test_clusters_of_very_different_size() -> None:
    x_0, x_1 = normal(300)
    size = torch.tensor([1e-5, 1.0, 1e4], dtype=torch.float64).repeat_interleave(100)[:, None]
    place = torch.tensor([0.0, 1e2, 1e6], dtype=torch.float64).repeat_interleave(100)[:, None]
    x_0, x_1 = size * x_0 + place, size * x_1 + place
    cost, index = squared(Euclidean(2), x_0, x_1), OptimalTransport(Euclidean(2)).indices(x_0, x_1)
    for group in np.arange(300).reshape(3, 100):
        assert cost[group, index[group]].sum() == pytest.approx(cheapest(cost[np.ix_(group, group)]), rel=1e-9)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("blocks", [1, 4])
def test_wasserstein_distances_scale_with_the_unit(order: int, blocks: int) -> None:
    x, y = normal(200)
    y = y + 0.3
    m = Euclidean(2)
    one = wasserstein_distance(m, x, y, order, blocks=blocks)
    for unit in UNITS:
        other = wasserstein_distance(m, unit * x, unit * y, order, blocks=blocks)
        assert other.mean == pytest.approx(unit * one.mean, rel=1e-9)
        if blocks > 1:
            assert other.standard_error == pytest.approx(unit * one.standard_error, rel=1e-9)
    costs = [
        m.dist(a[:, None], b[None]).numpy() ** order for a, b in zip(x.chunk(blocks), y.chunk(blocks), strict=True)
    ]
    exact = [(cheapest(cost) / len(cost)) ** (1 / order) for cost in costs]
    assert one.mean == pytest.approx(np.mean(exact), rel=1e-12)


@pytest.mark.parametrize("weight", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("unit", [1e-7, 1.0, 1e7])
def test_the_cost_of_conditions_too(unit: float, weight: float) -> None:
    m, (x_0, x_1) = Euclidean(2), normal(128)
    condition = torch.randn(128, 1, generator=seeded(3), dtype=torch.float64)
    cost = squared(m, unit * x_0, unit * x_1) + weight * unit**2 * (condition - condition.mT).square().numpy()
    index = OptimalTransport(m, weight * unit**2).indices(unit * x_0, unit * x_1, condition=condition)
    assert cost[np.arange(128), index].sum() == pytest.approx(cheapest(cost), rel=1e-12)


def test_equal_costs_and_zero_costs() -> None:
    for cost in (torch.zeros(5, 5), torch.ones(5, 5), torch.eye(5), 1 - torch.eye(5), torch.full((1, 1), 3.0)):
        column = assignment(cost)
        assert sorted(column.tolist()) == list(range(len(cost)))
        assert float(cost[torch.arange(len(cost)), column].sum()) == cheapest(cost.numpy())


@pytest.mark.parametrize("make", [OptimalTransport, Sinkhorn])
def test_what_is_not_finite_is_refused(make: type) -> None:
    m, (x_0, x_1) = Euclidean(2), normal(8)
    condition = torch.zeros(8, 1)
    condition[3] = torch.inf
    with pytest.raises(ValueError, match="some distances are not finite"):
        make(m)(x_0, torch.where(x_1 == x_1[2], torch.nan, x_1))
    for weight in (1.0, torch.inf):
        with pytest.raises(ValueError, match="infinite entries; use NaN"):
            make(m, condition_weight=weight)(x_0, x_1, condition=condition)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_entropic_plans_do_not_depend_on_the_unit(dtype: torch.dtype) -> None:
    m, (x_0, x_1) = Euclidean(2), normal(60)
    condition = torch.randn(60, 1, generator=seeded(3), dtype=torch.float64)
    x_0, x_1, condition = x_0.to(dtype), x_1.to(dtype), condition.to(dtype)
    for given in (None, condition):
        plans = []
        for unit in (1e-12, 1e-7, 1.0, 1e7):
            own = None if given is None else unit * given
            plans.append(Sinkhorn(m, 0.1, condition_weight=1.0).plan(unit * x_0, unit * x_1, own))
        for plan in plans:
            torch.testing.assert_close(plan, plans[2], rtol=0, atol=1e-3 if dtype == torch.float32 else 1e-9)


def test_margins_that_are_not_met_are_told() -> None:
    m, (x_0, x_1) = Euclidean(2), normal(60)
    with pytest.warns(UserWarning, match=r"after 10 steps .* tolerance of 0.01; raise max_steps or regularisation"):
        plan = Sinkhorn(m, 1e-3, max_steps=10).plan(x_0, x_1)
    assert float((plan.sum(0) - 1).abs().max()) > 1e-2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan = Sinkhorn(m, 0.1).plan(x_0, x_1)
    assert float((plan.sum(0) - 1).abs().max()) <= 1e-2
