"""Couplings: the pairing is the cheapest, and targets stay where they are."""

import itertools

import pytest
import torch
from random_fields import points

from manifolds import SO3, Euclidean, FlatTorus, Manifold, Quotient, Sphere
from manifolds.finite_group import Antipodal
from rfm.couplings import OptimalTransport


@pytest.mark.parametrize(
    "m", [Sphere(2), FlatTorus(2), SO3(), Euclidean(3), Quotient(Sphere(2), Antipodal(2))], ids=str
)
def test_pairing_is_the_cheapest_of_all(m: Manifold) -> None:
    x_0, x_1 = points(m, 6), points(m, 6, seed=50)
    index = OptimalTransport(m)(x_0, x_1)
    assert sorted(index.tolist()) == list(range(6))
    cost = float((m.dist(x_0[index], x_1) ** 2).sum())
    orders = torch.tensor(list(itertools.permutations(range(6))))
    costs = (m.dist(x_0[orders], x_1) ** 2).sum(-1)
    assert cost == pytest.approx(float(costs.min()))
    assert cost < float(costs.median())


def test_targets_keep_their_order() -> None:
    m = Sphere(2)
    x_1 = points(m, 20)
    shuffled = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    index = OptimalTransport(m)(x_1[shuffled], x_1)
    assert torch.equal(shuffled[index], torch.arange(20))


def test_cost_is_the_distance_of_the_manifold() -> None:
    """Across the seam of a circle the near pair is the cheap one; along the line it is not."""
    x_0, x_1 = torch.tensor([[-3.1], [0.5]]), torch.tensor([[3.1], [-1.0]])
    assert OptimalTransport(FlatTorus(1))(x_0, x_1).tolist() == [0, 1]
    assert OptimalTransport(Euclidean(1))(x_0, x_1).tolist() == [1, 0]


def test_points_that_need_gradients_and_matrices_are_fine() -> None:
    m = SO3()
    x = points(m, 4).requires_grad_()
    assert OptimalTransport(m)(x, x).tolist() == [0, 1, 2, 3]
    assert OptimalTransport(m)(x[:0], x[:0]).shape == (0,)


def test_batches_of_different_sizes_are_refused() -> None:
    m = Sphere(2)
    for a, b in ((3, 5), (5, 3)):
        with pytest.raises(ValueError, match=f"got {a} and {b}"):
            OptimalTransport(m)(points(m, a), points(m, b))
