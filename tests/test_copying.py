"""Whether samples copy the training points."""

import pytest
import torch
from torch import Tensor

from manifolds import FlatTorus, Sphere
from rfm.metrics import nearest_distances, nearest_training


def uniform(n: int, seed: int) -> Tensor:
    return Sphere(2).random_uniform(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_nearest_distances_are_those_of_all_pairs() -> None:
    m = FlatTorus(2)
    x, y = (m.random_uniform(n, generator=torch.Generator().manual_seed(n), dtype=torch.float64) for n in (30, 50))
    difference = x[:, None] - y[None]
    wrapped = torch.atan2(difference.sin(), difference.cos())
    torch.testing.assert_close(nearest_distances(m, x, y), wrapped.norm(dim=-1).amin(1))


def test_new_draws_are_as_near_as_data_held_out() -> None:
    """The interval covers one half as often as it says."""
    covered = 0
    for seed in range(40):
        train, test, samples = (uniform(n, 3 * seed + i) for i, n in enumerate((300, 80, 120)))
        low, high = nearest_training(Sphere(2), train, test, samples).nearer.interval_95
        covered += low <= 0.5 <= high
    assert covered >= 33


def test_copies_are_nearer_and_blurs_farther() -> None:
    m = Sphere(2)
    cap = torch.nn.functional.normalize(uniform(900, 1) + torch.tensor([3.0, 0.0, 0.0], dtype=torch.float64), dim=-1)
    train, test, fresh = cap.split(300)
    copied = nearest_training(m, train, test, m.projx(train + 1e-4 * uniform(300, 2)))
    assert copied.nearer.interval_95[0] > 0.8
    assert copied.samples < 0.1 * copied.held_out
    blurred = nearest_training(m, train, test, uniform(300, 3))
    assert blurred.nearer.interval_95[1] < 0.2
    exact = nearest_training(m, train, test, train)
    assert exact.nearer.mean == pytest.approx(1)
    # Ties are halved: against themselves samples are as near as the others.
    assert nearest_training(m, train, fresh, fresh).nearer.mean == pytest.approx(0.5, abs=1e-12)
    assert "50 % is new, 100 % copied" in copied.describe()
    assert copied.record()["sample_is_nearer"]["mean"] == copied.nearer.mean


def test_repeats_of_a_place_are_one_observation() -> None:
    m = Sphere(2)
    train, test, samples = uniform(100, 1), uniform(40, 2), uniform(60, 3)
    plain = nearest_training(m, train, test, samples).nearer
    repeated = nearest_training(m, train, test.repeat(5, 1), samples).nearer
    assert repeated.mean == pytest.approx(plain.mean)
    assert repeated.standard_error == pytest.approx(plain.standard_error, rel=1e-9)


def test_one_sample_has_no_interval() -> None:
    found = nearest_training(Sphere(2), uniform(10, 1), uniform(5, 2), uniform(1, 3))
    assert not found.nearer.has_error
    assert found.record()["sample_is_nearer"]["interval_95"] is None
    assert "[" not in found.describe()
