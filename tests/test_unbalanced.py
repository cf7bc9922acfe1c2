"""Unbalanced couplings: POT's plan, its limits, and pairs in which what has no counterpart takes no part."""

import math

import ot
import pytest
import torch
from random_fields import points
from torch import Tensor

import rfm
from manifolds import SO3, Euclidean, FlatTorus, Manifold, Sphere
from rfm.couplings import Pairs, Sinkhorn, UnbalancedSinkhorn

MANIFOLDS = [Sphere(2), FlatTorus(2), SO3(), Euclidean(3)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def two_clusters(n: int, share: float, shift: float = 0.0) -> Tensor:
    """Points about 0, and a share of them about (10, 0)."""
    x = 0.3 * torch.randn(n, 2, generator=seeded(n))
    x[: round(share * n), 0] += 10
    return x + shift


@pytest.mark.parametrize(("source", "target"), [(0.5, 2.0), (1.0, 1.0), (1e4, 0.3)])
@pytest.mark.parametrize("m", MANIFOLDS, ids=str)
def test_plan_is_that_of_pot(m: Manifold, source: float, target: float) -> None:
    x_0, x_1 = points(m, 7), points(m, 7, seed=3)
    coupling = UnbalancedSinkhorn(m, target, source, regularisation=0.2, tolerance=1e-10, max_steps=20_000)
    plan = coupling.plan(x_0, x_1)
    cost = m.dist(x_0[:, None], x_1[None]) ** 2
    a = torch.full((7,), 1 / 7, dtype=torch.float64).numpy()
    expected = ot.unbalanced.sinkhorn_unbalanced(
        a, a, (cost / cost.mean()).numpy(), 0.2, (source, target), stopThr=1e-12, numItermax=20_000
    )
    torch.testing.assert_close(plan, torch.from_numpy(expected), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("m", MANIFOLDS, ids=str)
def test_with_high_prices_it_is_the_balanced_plan(m: Manifold) -> None:
    x_0, x_1 = points(m, 8), points(m, 8, seed=3)
    plan = UnbalancedSinkhorn(m, math.inf, math.inf, 0.2, tolerance=1e-9, max_steps=20_000).plan(x_0, x_1)
    balanced = Sinkhorn(m, 0.2, tolerance=1e-9, max_steps=20_000).plan(x_0, x_1)
    torch.testing.assert_close(8 * plan.mT, balanced, atol=1e-6, rtol=1e-5)


def test_by_default_the_source_is_kept_and_data_far_from_it_are_left_out() -> None:
    m, x_0, x_1 = Euclidean(2), two_clusters(200, 0.0), two_clusters(200, 0.3)
    kept = UnbalancedSinkhorn(m, target_relaxation=0.05)
    torch.testing.assert_close(kept.plan(x_0, x_1).sum(1), torch.full((200,), 1 / 200), atol=1e-5, rtol=0)
    pairs = kept(x_0, x_1, generator=seeded())
    assert torch.equal(pairs.x_0, x_0)
    assert float((pairs.x_1[:, 0] > 5).double().mean()) < 0.02
    dear = UnbalancedSinkhorn(m, target_relaxation=100.0)(x_0, x_1, generator=seeded())
    assert float((dear.x_1[:, 0] > 5).double().mean()) == pytest.approx(0.3, abs=0.08)


def test_with_both_relaxed_each_side_leaves_out_what_the_other_has_not() -> None:
    """A third of either side has a counterpart: pairs are of that third alone, and near."""
    m, x_0, x_1 = Euclidean(2), two_clusters(150, 0.34), -two_clusters(150, 0.34)
    pairs = UnbalancedSinkhorn(m, 0.05, 0.05)(x_0, x_1, generator=seeded())
    assert float((m.dist(pairs.x_0, pairs.x_1) < 3).double().mean()) > 0.98


def test_conditions_follow_their_data_and_part_them() -> None:
    m, x_0, x_1 = Sphere(2), points(Sphere(2), 40), points(Sphere(2), 40, seed=5)
    condition = torch.arange(40.0)[:, None] % 2
    marked = torch.cat([condition, torch.arange(40.0)[:, None]], dim=-1)
    pairs = UnbalancedSinkhorn(m, 0.5, condition_weight=1e-6)(x_0, x_1, condition=marked, generator=seeded())
    assert pairs.condition is not None
    assert torch.equal(x_1[pairs.condition[:, 1].long()], pairs.x_1)
    plan = UnbalancedSinkhorn(m, 0.5).plan(x_0, x_1, condition)
    assert float(plan[condition[:, 0] == 0][:, condition[:, 0] == 1].max()) == 0


def test_a_fit_from_points_to_points_of_other_mass() -> None:
    m, x_0, x_1 = Euclidean(2), two_clusters(200, 0.0), two_clusters(200, 0.3)
    coupling = UnbalancedSinkhorn(m, target_relaxation=0.02, max_steps=50)
    flow = rfm.fit(x_1, m, start=x_0, coupling=coupling, steps=60, batch_size=128, progress=False)
    assert float((flow.sample(400, generator=seeded())[:, 0] > 6).double().mean()) < 0.05


def test_bad_arguments_are_refused() -> None:
    m = Sphere(2)
    for options, message in (
        ({"target_relaxation": 0.0}, "target_relaxation must be positive, infinity included"),
        ({"source_relaxation": -1.0}, "source_relaxation must be positive"),
        ({"regularisation": 0.0}, "regularisation must be positive"),
        ({"condition_weight": -1.0}, "condition_weight must be at least 0"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            UnbalancedSinkhorn(m, **options)
    with pytest.raises(ValueError, match="as many sources as targets"):
        UnbalancedSinkhorn(m).plan(points(m, 3), points(m, 4))
    empty = UnbalancedSinkhorn(m)(points(m, 3)[:0], points(m, 3)[:0])
    assert isinstance(empty, Pairs)
    assert len(empty.x_0) == 0
