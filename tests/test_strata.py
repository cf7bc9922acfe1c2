"""Strata of conditions, and kernel densities of the points in them."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from manifold_zoo import ZOO
from random_fields import points
from scipy.optimize import minimize
from torch import Tensor
from zoo_sources import source_of

from manifolds import FlatTorus, Manifold, Sphere
from rfm.sources import (
    KernelMixture,
    Strata,
    StratifiedKernels,
    Uniform,
    kernel_concentrations,
    likeliest_weights,
    stratified_concentrations,
)
from rfm.sources.stratified_kernels import members_of

KERNELS = [pytest.param(make, id=name) for name, make in ZOO if make().kernel is not None]
LABELS = (3, 0)
"""Conditions of one of three labels, and a number."""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def conditions(n: int, seed: int = 0) -> Tensor:
    label = torch.randint(3, (n,), generator=seeded(seed)).double()
    return torch.stack([label, torch.randn(n, generator=seeded(seed + 1), dtype=torch.float64)], dim=-1)


def kernels_of(m: Manifold, strata: Strata, n: int = 12, weights: Tensor | None = None) -> StratifiedKernels:
    x, c = points(m, n, seed=1), conditions(n)
    members = len(members_of(strata, c).point)
    k = 2 + 5 * torch.rand(2, members, generator=seeded(5), dtype=torch.float64)
    return StratifiedKernels(m, x, c, strata, k, torch.tensor([0.3, 0.7]), source_of(m, 0.6), weights)


# Strata.


def test_the_parts_of_a_number_are_linear_between_knots_and_sum_to_one() -> None:
    strata = Strata((0,), ((0.0, 1.0, 4.0),), (0,))
    c = torch.tensor([[-3.0], [0.0], [0.25], [1.0], [3.0], [4.0], [9.0]], dtype=torch.float64)
    stratum, part = strata.members(c)
    dense = torch.zeros(len(c), 3, dtype=torch.float64).scatter_add(1, stratum, part)
    expected = [[1, 0, 0], [1, 0, 0], [0.75, 0.25, 0], [0, 1, 0], [0, 1 / 3, 2 / 3], [0, 0, 1], [0, 0, 1]]
    torch.testing.assert_close(dense, torch.tensor(expected, dtype=torch.float64))


def test_strata_of_several_entries_are_products_and_unknown_ones_are_in_none() -> None:
    strata = Strata((3, 0, 2), ((), (0.0, 1.0), ()), (0, 1, 2))
    c = torch.tensor([[2, 0.25, 1], [math.nan, 0.5, 0], [0, math.nan, 1]], dtype=torch.float64)
    stratum, part = strata.members(c)
    assert stratum[0].tolist() == [9, 11]
    torch.testing.assert_close(part, torch.tensor([[0.75, 0.25], [0, 0], [0, 0]], dtype=torch.float64))
    # An entry that does not divide points need not be known.
    assert Strata((3, 0, 2), ((), (), ()), (2,)).members(c)[1].tolist() == [[1.0], [1.0], [1.0]]


def test_levels_leave_out_numbers_first_and_then_the_last_label() -> None:
    strata = Strata((3, 0, 2), ((), (0.0, 1.0), ()), (0, 1, 2))
    assert [level.entries for level in strata.levels] == [(0, 1, 2), (0, 2), (0,), ()]
    stratum, part = strata.levels[-1].members(torch.full((4, 3), math.nan))
    assert stratum.tolist() == [[0]] * 4
    assert part.tolist() == [[1.0]] * 4


def test_knots_are_quantiles_of_what_is_known() -> None:
    c = torch.arange(101, dtype=torch.float64)[:, None].clone()
    c[::2] = math.nan
    assert Strata.of(c, (0,), (0,), 3).knots == ((1.0, 50.0, 99.0),)
    # Fewer where values repeat.
    assert Strata.of(torch.ones(9, 1), (0,), (0,), 4).knots == ((1.0,),)
    assert Strata.of(c, (0,), (0,), 1).knots == ((50.0,),)


@pytest.mark.parametrize(
    ("labels", "knots", "entries", "message"),
    [
        ((0,), ((1.0, 0.0),), (0,), "entry 0 of 0 labels needs ascending knots"),
        ((0,), ((),), (0,), "needs ascending knots"),
        ((2,), ((1.0,),), (0,), "entry 0 of 2 labels needs no knots"),
        ((2,), ((), ()), (0,), "needs knots for each of the 1 entries"),
        ((2,), ((),), (1,), "entries below 1, each once"),
        ((2,), ((),), (0, 0), "each once"),
    ],
)
def test_arguments_of_strata(
    labels: tuple[int, ...], knots: tuple[tuple[float, ...], ...], entries: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Strata(labels, knots, entries)


# Kernels.


@pytest.mark.parametrize("make", KERNELS)
def test_the_density_is_that_of_the_points_of_the_strata(make: Callable[[], Manifold]) -> None:
    """Against the sum over all centres, written out."""
    m = make()
    kernel = m.kernel
    assert kernel is not None
    strata = Strata.of(conditions(12), LABELS, (0, 1), 3)
    own = kernels_of(m, strata, weights=torch.linspace(1, 2, 12, dtype=torch.float64))
    x, c = points(m, 5, seed=8), conditions(5, seed=3)
    members = members_of(strata, own.condition)
    weight = torch.linspace(1, 2, 12, dtype=torch.float64)[members.point] * members.part
    expected = torch.zeros(5, dtype=torch.float64)
    stratum, part = strata.members(c)
    centres = kernel.embed(kernel.centres(own.points))
    for i in range(5):
        there = {s: p for s, p in zip(stratum[i].tolist(), part[i].tolist(), strict=True) if s in members.stratum}
        total = sum(there.values())
        for s, p in there.items():
            rows = (members.stratum == s).nonzero()[:, 0]
            for k, w in zip(own.concentrations, (0.3, 0.7), strict=True):
                half = (kernel.embed(x[i]) - centres[members.point[rows]]).square().sum(-1) / 2
                density = (-half * k[rows, None] - kernel.log_normaliser(k[rows])[:, None]).exp().mean(-1)
                share = weight[rows] / weight[rows].sum()
                expected[i] += p / total * w * (share * density).sum()
    torch.testing.assert_close(own.log_prob(x, c).exp(), expected, rtol=1e-5, atol=1e-9)
    mixed = torch.logsumexp(own.component_log_prob(x, c) + own.weights.log(), dim=-1)
    torch.testing.assert_close(mixed, own.log_prob(x, c), rtol=1e-6, atol=1e-6)


def test_rows_are_scored_by_themselves_whatever_their_order() -> None:
    m = Sphere(2)
    own = kernels_of(m, Strata.of(conditions(60), LABELS, (0, 1), 4), 60)
    x, c = points(m, 40, seed=8), conditions(40, seed=3)
    order = torch.randperm(40, generator=seeded(4))
    full = own.log_prob(x, c)
    torch.testing.assert_close(own.log_prob(x[order], c[order]), full[order], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(own.log_prob(x[:1], c[:1]), full[:1], rtol=1e-12, atol=1e-12)


def test_strata_without_points_have_density_zero_and_no_draws() -> None:
    m, x = Sphere(2), points(Sphere(2), 6)
    c = torch.tensor([0.0, 0, 0, 2, 2, 0])[:, None]
    strata = Strata((3,), ((),), (0,))
    own = StratifiedKernels(m, x, c, strata, torch.full((1, 6), 9.0), [1.0], Uniform(m))
    asked = torch.tensor([[0.0], [1.0], [2.0], [math.nan]])
    assert own.counts(asked).tolist() == [4, 0, 2, 0]
    assert own.log_prob(points(m, 4, seed=1), asked).isinf().tolist() == [False, True, False, True]
    with pytest.raises(ValueError, match="no points in the strata of some conditions"):
        own.sample(asked)


def test_counts_are_those_of_kish() -> None:
    m, x = Sphere(2), points(Sphere(2), 4)
    own = StratifiedKernels(
        m,
        x,
        torch.zeros(4, 1),
        Strata((1,), ((),), (0,)),
        torch.full((1, 4), 9.0),
        [1.0],
        Uniform(m),
        torch.tensor([1.0, 1.0, 2.0, 0.0]),
    )
    assert float(own.counts(torch.zeros(1, 1))) == pytest.approx(16 / 6)


@pytest.mark.parametrize("m", [Sphere(2), FlatTorus(2)], ids=str)
def test_draws_follow_the_density_given_their_own_conditions(m: Manifold) -> None:
    own = kernels_of(m, Strata.of(conditions(30), LABELS, (0, 1), 3), 30)
    c = conditions(4, seed=3).repeat_interleave(400, 0)
    x = own.sample(c, seeded(2))
    m.check_point(x)
    other = KernelMixture(m, points(m, 3, seed=6), torch.tensor([3.0]), torch.tensor([0.9, 0.1]), Uniform(m))
    y = other.sample(4000, seeded(3), torch.float64)
    for part, given in zip(x.split(400), c.split(400), strict=True):
        # Moments of the draws beside those by importance sampling, which also tell whether the density is normalised.
        ratio = (own.log_prob(y, given[:1].expand(4000, 2)) - other.log_prob(y)).exp()
        assert float(ratio.mean()) == pytest.approx(1, abs=5 * float(ratio.std()) / math.sqrt(4000))
        weighted = m.embed(y) * ratio[:, None]
        error = 5 * (weighted.std(0) / math.sqrt(4000) + m.embed(part).std(0) / 20)
        assert bool(((m.embed(part).mean(0) - weighted.mean(0)).abs() < error).all())


def test_widths_are_those_of_each_stratum_by_itself() -> None:
    m, n = Sphere(2), 40
    x, c = points(m, n, seed=1), torch.randint(3, (n,), generator=seeded()).double()[:, None]
    c[0] = 3
    strata = Strata((5,), ((),), (0,))
    k = stratified_concentrations(m, x, c, strata)
    members = members_of(strata, c)
    for label in range(3):
        torch.testing.assert_close(k[:, members.stratum == label], kernel_concentrations(m, x[c[:, 0] == label]))
    # A point alone has no neighbours in its stratum.
    torch.testing.assert_close(k[:, members.stratum == 3], kernel_concentrations(m, x)[:, :1])


def test_arguments_of_stratified_kernels() -> None:
    m, strata = Sphere(2), Strata((2,), ((),), (0,))
    x = points(m, 4)
    with pytest.raises(ValueError, match=r"condition must have shape \(4, 1\)"):
        StratifiedKernels(m, x, torch.zeros(3, 1), strata, torch.ones(1, 4), [1.0], Uniform(m))
    with pytest.raises(ValueError, match="concentrations must be positive"):
        StratifiedKernels(m, x, torch.zeros(4, 1), strata, torch.ones(1, 3), [1.0], Uniform(m))


# Weights in levels.


def test_weights_in_levels_are_the_likeliest() -> None:
    """Against a minimiser that knows nothing of expectation maximisation."""
    log_p = torch.randn(60, 5, generator=seeded(), dtype=torch.float64)
    share = torch.rand(60, generator=seeded(1), dtype=torch.float64)
    level = torch.tensor([0, 0, 0, 1, 1])
    log_p = log_p + torch.where(level == 0, share[:, None], 1 - share[:, None]).log()
    weights = likeliest_weights(log_p, None, 3000, level)
    assert float(weights[:3].sum()) == pytest.approx(1)
    assert float(weights[3:].sum()) == pytest.approx(1)

    def nll(logits: np.ndarray) -> float:  # type: ignore[type-arg]
        a, b = (torch.from_numpy(part).log_softmax(0) for part in np.split(logits, [3]))
        return -float(torch.logsumexp(log_p + torch.cat([a, b]), dim=-1).mean())

    best = minimize(nll, np.zeros(5)).fun
    assert -float(torch.logsumexp(log_p + weights.log(), dim=-1).mean()) == pytest.approx(best, abs=1e-5)
    # One level is what there was before.
    one = likeliest_weights(log_p, None, 50, torch.zeros(5, dtype=torch.long))
    torch.testing.assert_close(one, likeliest_weights(log_p, None, 50))
