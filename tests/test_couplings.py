"""Couplings: the pairing is the cheapest, targets stay where they are, and sources do not learn the condition."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from random_fields import points
from torch import Tensor

import rfm
from manifolds import SO3, Euclidean, FlatTorus, Manifold, Quotient, Sphere
from manifolds.composed.finite_group import Antipodal
from rfm.couplings import Coupling, Independent, OptimalTransport, Pairs, Sinkhorn
from rfm.sources import Uniform
from rfm.training.points import BatchSampler
from rfm.training.weighted_points import Points

MANIFOLDS = [Sphere(2), FlatTorus(2), SO3(), Euclidean(3), Quotient(Sphere(2), Antipodal(2))]
COUPLINGS: list[Callable[[Manifold], Coupling]] = [lambda m: Independent(), OptimalTransport, Sinkhorn]
NAMES = ["independent", "exact", "sinkhorn"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mean_cost(m: Manifold, x_0: Tensor, x_1: Tensor) -> float:
    return float((m.dist(x_0, x_1) ** 2).mean())


# Exact transport.


@pytest.mark.parametrize("m", MANIFOLDS, ids=str)
def test_pairing_is_the_cheapest_of_all(m: Manifold) -> None:
    x_0, x_1 = points(m, 6), points(m, 6, seed=50)
    index = OptimalTransport(m).indices(x_0, x_1)
    assert sorted(index.tolist()) == list(range(6))
    cost = float((m.dist(x_0[index], x_1) ** 2).sum())
    orders = torch.tensor(list(itertools.permutations(range(6))))
    costs = (m.dist(x_0[orders], x_1) ** 2).sum(-1)
    assert cost == pytest.approx(float(costs.min()))
    assert cost < float(costs.median())


def test_targets_keep_their_order() -> None:
    m = Sphere(2)
    x_1 = points(m, 20)
    shuffled = torch.randperm(20, generator=seeded())
    index = OptimalTransport(m).indices(x_1[shuffled], x_1)
    assert torch.equal(shuffled[index], torch.arange(20))


def test_cost_is_the_distance_of_the_manifold() -> None:
    """Across the seam of a circle the near pair is the cheap one; along the line it is not."""
    x_0, x_1 = torch.tensor([[-3.1], [0.5]]), torch.tensor([[3.1], [-1.0]])
    assert OptimalTransport(FlatTorus(1)).indices(x_0, x_1).tolist() == [0, 1]
    assert OptimalTransport(Euclidean(1)).indices(x_0, x_1).tolist() == [1, 0]


def test_points_that_need_gradients_and_matrices_are_fine() -> None:
    m = SO3()
    x = points(m, 4).requires_grad_()
    assert OptimalTransport(m).indices(x, x).tolist() == [0, 1, 2, 3]
    assert not Sinkhorn(m).plan(x, x).requires_grad


def test_equal_points_and_batches_of_one() -> None:
    m = Sphere(2)
    x = points(m, 1).expand(7, 3)
    assert sorted(OptimalTransport(m).indices(x, x).tolist()) == list(range(7))
    torch.testing.assert_close(Sinkhorn(m).plan(x, x), torch.full((7, 7), 1 / 7, dtype=x.dtype))
    for make in COUPLINGS:
        pairs = make(m)(x[:1], x[:1], generator=seeded())
        assert torch.equal(pairs.x_0, x[:1])
        assert torch.equal(pairs.x_1, x[:1])


def test_distances_are_computed_in_parts() -> None:
    sizes = []

    class Watched(Sphere):
        def dist(self, x: Tensor, y: Tensor) -> Tensor:
            d = super().dist(x, y)
            sizes.append(d.numel())
            return d

    m = Watched(2)
    x_0, x_1 = m.random_uniform(2, 1500, generator=seeded())
    index = OptimalTransport(m).indices(x_0, x_1)
    assert sorted(index.tolist()) == list(range(1500))
    assert sum(sizes) == 1500**2
    assert max(sizes) * 3 <= 2**22


# Every coupling.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("make", COUPLINGS, ids=NAMES)
@pytest.mark.parametrize("m", MANIFOLDS, ids=str)
def test_pairs_are_the_points_that_are_given(
    m: Manifold, make: Callable[[Manifold], Coupling], dtype: torch.dtype
) -> None:
    """Data points keep their order and their conditions; source points are some of those given, bit for bit."""
    x_0, x_1 = points(m, 12).to(dtype), points(m, 12, seed=50).to(dtype)
    condition = torch.randint(3, (12, 1), generator=seeded(9)).to(dtype)
    state = torch.get_rng_state()
    for given in (None, condition):
        pairs = make(m)(x_0, x_1, condition=given, generator=seeded())
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(pairs.x_1, x_1)
        assert pairs.condition is given
        assert pairs.x_0.dtype == dtype
        assert set(map(tuple, pairs.x_0.flatten(1).tolist())) <= set(map(tuple, x_0.flatten(1).tolist()))
        assert torch.equal(pairs.x_0, make(m)(x_0, x_1, condition=given, generator=seeded()).x_0)
    assert make(m)(x_0[:0], x_1[:0], generator=seeded()).x_0.shape == x_0[:0].shape


@pytest.mark.parametrize("make", [OptimalTransport, Sinkhorn])
@pytest.mark.parametrize("m", MANIFOLDS, ids=str)
def test_indices_are_those_of_the_pairs(m: Manifold, make: type) -> None:
    x_0, x_1 = points(m, 12).requires_grad_(), points(m, 12, seed=50)
    index = make(m).indices(x_0, x_1, generator=seeded())
    assert index.shape == (12,)
    assert index.dtype == torch.int64
    pairs = make(m)(x_0, x_1, generator=seeded())
    assert torch.equal(pairs.x_0, x_0[index])
    # A source that is trained is differentiated through its pairs.
    (gradient,) = torch.autograd.grad(pairs.x_0.sum(), x_0)
    assert torch.equal(gradient.flatten(1)[:, 0], torch.bincount(index, minlength=12).to(gradient))


@pytest.mark.parametrize("make", COUPLINGS, ids=NAMES)
def test_batches_of_different_sizes_are_refused(make: Callable[[Manifold], Coupling]) -> None:
    m = Sphere(2)
    for a, b in ((3, 5), (5, 3)):
        with pytest.raises(ValueError, match=f"got {a} and {b}"):
            make(m)(points(m, a), points(m, b))


def test_independent_pairs_as_drawn() -> None:
    x, y = points(Sphere(2), 5), points(Sphere(2), 5, seed=50)
    assert Independent()(x, y) == (x, y, None)


# What training does with them.


class _Backwards:
    """Reverses both batches, with the conditions: the pairs stay what they are."""

    def __call__(self, x_0: Tensor, x_1: Tensor, *, condition: Tensor | None = None, **_: Any) -> Pairs:
        return Pairs(x_0.flip(0), x_1.flip(0), None if condition is None else condition.flip(0))


class _Broken:
    def __init__(self, pair: Callable[[Tensor, Tensor, Tensor | None], Any]) -> None:
        self.pair = pair

    def __call__(self, x_0: Tensor, x_1: Tensor, *, condition: Tensor | None = None, **_: Any) -> Any:
        return self.pair(x_0, x_1, condition)


def sampler(coupling: Any, condition: bool = True) -> BatchSampler:
    m = Sphere(2)
    x = points(m, 40)
    data = Points(x, x[:, :1] if condition else None)
    return BatchSampler(Uniform(m), data, 16, rfm.FlowMatching(), coupling, drop_condition=False)


@pytest.mark.parametrize("make", [*COUPLINGS, lambda m: _Backwards()], ids=[*NAMES, "backwards"])
def test_conditions_follow_their_data_points(make: Callable[[Manifold], Coupling]) -> None:
    coupled = sampler(make(Sphere(2)))
    for rank in (0, 1):
        coupled.generator.manual_seed(0)
        x_0, x_1, t, condition = coupled.batch(rank, 2)
        assert x_0.shape == x_1.shape == (8, 3)
        assert t.shape == (8,)
        assert torch.equal(condition["condition"], x_1[:, :1])


@pytest.mark.parametrize(
    ("pair", "found"),
    [
        (lambda x_0, x_1, c: torch.arange(len(x_1)), r"must be an object of Pairs, got Tensor"),
        (lambda x_0, x_1, c: (x_0, x_1, c), "must be an object of Pairs, got tuple"),
        (lambda x_0, x_1, c: Pairs(x_0, x_1), r"\(16, 3\), \(16, 3\), \(16, 1\), got \(16, 3\), \(16, 3\), None"),
        (lambda x_0, x_1, c: Pairs(x_0[:1], x_1, c), r"got \(1, 3\), \(16, 3\)"),
        (lambda x_0, x_1, c: Pairs(x_0[:8], x_1[:8], c[:8]), "return as many pairs as points are given"),
    ],
)
def test_what_is_no_pairs_is_refused(pair: Callable[..., Any], found: str) -> None:
    with pytest.raises(ValueError, match=f"_Broken: .*{found}"):
        sampler(_Broken(pair)).batch()


# Sinkhorn.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("m", MANIFOLDS, ids=str)
def test_plan_has_the_right_margins_and_form(m: Manifold, dtype: torch.dtype) -> None:
    x_0, x_1 = points(m, 30).to(dtype), points(m, 30, seed=50).to(dtype)
    sinkhorn = Sinkhorn(m, regularisation=0.1, tolerance=1e-4)
    plan = sinkhorn.plan(x_0, x_1)
    assert plan.dtype == dtype
    ones = torch.ones(30, dtype=dtype)
    torch.testing.assert_close(plan.sum(1), ones, rtol=0, atol=1e-5)
    torch.testing.assert_close(plan.sum(0), ones, rtol=0, atol=2e-4)
    # The optimum is the kernel with its rows and columns scaled: a matrix of rank one in logarithms, beside the cost.
    cost = m.dist(x_1[:, None], x_0[None]).square()
    potential = plan.log() + cost / (0.1 * cost.mean())
    centred = potential - potential.mean(0) - potential.mean(1, keepdim=True) + potential.mean()
    assert float(centred.abs().max()) < (1e-9 if dtype == torch.float64 else 1e-2)


def test_plan_comes_near_the_exact_one() -> None:
    m = Sphere(2)
    x_0, x_1 = m.random_uniform(2, 100, generator=seeded(), dtype=torch.float64)
    cost = m.dist(x_1[:, None], x_0[None]).square()
    exact = mean_cost(m, x_0[OptimalTransport(m).indices(x_0, x_1)], x_1)
    costs = [float((Sinkhorn(m, r).plan(x_0, x_1) * cost).sum() / 100) for r in (0.5, 0.1, 0.02, 0.005)]
    assert costs == sorted(costs, reverse=True)
    assert exact < costs[-1] < 1.2 * exact
    drawn = mean_cost(m, x_0[Sinkhorn(m, 0.02).indices(x_0, x_1, generator=seeded(1))], x_1)
    assert exact < drawn < 0.3 * float(cost.mean())


def test_far_points_do_not_underflow() -> None:
    """Kernels of single precision vanish at a cost of 104 units; here outliers cost 1e4 of them and more."""
    m = Euclidean(2)
    x_0, x_1 = torch.randn(2, 50, 2, generator=seeded())
    x_1[:3] *= 1e3
    x_0[-2:] *= 300.0
    plan = Sinkhorn(m, regularisation=1e-3).plan(x_0, x_1)
    assert bool(plan.isfinite().all())
    torch.testing.assert_close(plan.sum(1), torch.ones(50), rtol=0, atol=1e-3)


# Conditions.


def labelled_batch(n: int = 600) -> tuple[Manifold, Tensor, Tensor, Tensor]:
    """Return sources uniform on the sphere, and targets north for label 1, south for label 0."""
    m = Sphere(2)
    x_0 = m.random_uniform(n, generator=seeded(), dtype=torch.float64)
    label = (torch.rand(n, 1, generator=seeded(1)) < 0.3).double()
    pole = torch.cat([torch.zeros(n, 2).double(), 2 * label - 1], dim=-1)
    x_1 = m.projx(pole + 0.3 * torch.randn(n, 3, generator=seeded(2), dtype=torch.float64))
    return m, x_0, x_1, label


@pytest.mark.parametrize("make", [OptimalTransport, Sinkhorn])
def test_sources_given_the_label_stay_uniform(make: Callable[[Manifold], Coupling]) -> None:
    """Their heights are uniform on [-1, 1]; plain transport gives the north its northern sources."""
    m, x_0, x_1, label = labelled_batch()
    north = label[:, 0] == 1
    plain = x_0[make(m).indices(x_0, x_1, generator=seeded(3))][north, 2]
    fair = x_0[make(m).indices(x_0, x_1, condition=label, generator=seeded(3))][north, 2]
    noise = math.sqrt(1 / 3 / int(north.sum()))
    assert abs(float(fair.mean())) < 4 * noise
    assert float(plain.mean()) > 10 * noise


def test_within_a_label_the_pairing_is_the_cheapest() -> None:
    m, x_0, x_1, label = labelled_batch(60)
    index = OptimalTransport(m).indices(x_0, x_1, condition=label)
    assert sorted(index.tolist()) == list(range(60))
    for value in (0.0, 1.0):
        rows = (label[:, 0] == value).nonzero()[:, 0]
        assert torch.equal(index[rows], rows[OptimalTransport(m).indices(x_0[rows], x_1[rows])])


@pytest.mark.parametrize("make", [OptimalTransport, Sinkhorn])
def test_an_unknown_condition_is_a_condition_of_its_own(make: type) -> None:
    m, x_0, x_1, label = labelled_batch(80)
    label[::3] = math.nan
    for weight in (math.inf, 2.0):
        index = make(m, condition_weight=weight).indices(x_0, x_1, condition=label, generator=seeded())
        assert torch.equal(label[index].isnan(), label.isnan())
    known = ~label.isnan()
    index = make(m).indices(x_0, x_1, condition=label, generator=seeded())
    assert torch.equal(label[index][known], label[known])


def test_the_weight_leads_from_plain_transport_to_independent_pairs() -> None:
    m, x_0, x_1, _ = labelled_batch(50)
    condition = torch.randn(50, 2, generator=seeded(5), dtype=torch.float64)
    plain = OptimalTransport(m).indices(x_0, x_1)
    weights = (0.0, 1.0, 1e4, math.inf)
    indices = [OptimalTransport(m, w).indices(x_0, x_1, condition=condition) for w in weights]
    assert torch.equal(indices[0], plain)
    assert torch.equal(indices[-1], torch.arange(50))
    moved = [float((condition[i] - condition).square().sum()) for i in indices]
    assert moved == sorted(moved, reverse=True)
    costs = [mean_cost(m, x_0[i], x_1) for i in indices]
    assert costs == sorted(costs)
    assert moved[1] > 0


# Bad input.


def test_bad_arguments_are_refused() -> None:
    m = Sphere(2)
    x = points(m, 4)
    for make in (OptimalTransport, Sinkhorn):
        with pytest.raises(ValueError, match="condition_weight must be at least 0"):
            make(m, condition_weight=-1.0)
        with pytest.raises(ValueError, match=r"one vector per target, \(4, c\).*add an axis"):
            make(m).indices(x, x, condition=torch.zeros(4))
    for name in ("regularisation", "tolerance", "max_steps"):
        with pytest.raises(ValueError, match=f"Sinkhorn: {name} must be positive"):
            Sinkhorn(m, **{name: 0})
    with pytest.raises(ValueError, match="some distances are not finite"):
        OptimalTransport(m).indices(x * math.nan, x)
