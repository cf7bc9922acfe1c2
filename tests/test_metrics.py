"""Comparisons of densities: means, standard errors, clusters."""

import math
import subprocess
import sys

import pytest
import torch

from manifolds import Sphere
from rfm.metrics import Estimate, negative_log_likelihood, paired_difference


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_negative_log_likelihood() -> None:
    values = torch.tensor([1.0, 2.0, 4.0, 5.0])
    assert negative_log_likelihood(values).mean == -3
    assert negative_log_likelihood(values).standard_error == pytest.approx(float(values.double().std()) / 2)
    assert negative_log_likelihood(values.reshape(2, 2)) == negative_log_likelihood(values)
    alone = negative_log_likelihood(values[:1])
    assert (alone.mean, alone.count) == (-1, 1)
    assert math.isnan(alone.standard_error)
    assert Estimate(1.0, 0.5, 9).interval_95 == pytest.approx((0.02, 1.98))


def test_paired_difference_without_groups_is_the_mean_of_differences() -> None:
    a, b = torch.randn(2, 100, generator=generator())
    estimate = paired_difference(a, b)
    difference = a.double() - b.double()
    assert estimate.mean == pytest.approx(float(difference.mean()))
    assert estimate.standard_error == pytest.approx(float(difference.std()) / 10)
    assert estimate == paired_difference(a, b, torch.arange(100))


def test_repeating_every_point_adds_no_information() -> None:
    a, b = torch.randn(2, 50, generator=generator(), dtype=torch.float64)
    places = Sphere(2).random_uniform(50, generator=generator(1))
    once = paired_difference(a, b, torch.arange(50))
    thrice = paired_difference(a.repeat(3), b.repeat(3), places.repeat(3, 1))
    assert thrice.count == 50
    assert thrice.mean == pytest.approx(once.mean)
    assert thrice.standard_error == pytest.approx(once.standard_error)
    assert paired_difference(a.repeat(3), b.repeat(3)).standard_error < 0.6 * once.standard_error


def test_the_sign_of_zero_makes_no_other_place() -> None:
    groups = torch.tensor([[0.0, 1.0], [-0.0, 1.0], [1.0, 0.0]])
    assert paired_difference(torch.tensor([1.0, 2.0, 4.0]), torch.zeros(3), groups).count == 2


def test_weights_are_relative_and_equal_ones_change_nothing() -> None:
    a, b, w = torch.rand(3, 60, generator=generator(), dtype=torch.float64)
    places = torch.arange(60) % 20
    for weights in (torch.ones(60), torch.full((60,), 7.0)):
        assert negative_log_likelihood(a, weights) == negative_log_likelihood(a)
        assert paired_difference(a, b, places, weights) == paired_difference(a, b, places)
    once, twice = paired_difference(a, b, places, w), paired_difference(a, b, places, 2 * w)
    assert (once.mean, once.standard_error) == pytest.approx((twice.mean, twice.standard_error))
    assert once.mean == pytest.approx(float((w * (a - b)).sum() / w.sum()))


def test_points_of_weight_zero_do_not_count() -> None:
    a, b, w = torch.rand(3, 60, generator=generator(), dtype=torch.float64)
    w[:20], a[:20], places = 0, -math.inf, torch.arange(60) // 2
    assert negative_log_likelihood(a, w) == negative_log_likelihood(a[20:], w[20:])
    assert paired_difference(a, b, places, w) == paired_difference(a[20:], b[20:], places[20:], w[20:])


def test_weighted_standard_error_is_the_spread_of_weighted_means() -> None:
    """Weights that fall with the score, as those of importance sampling do."""
    x = torch.rand(1000, 200, generator=generator(), dtype=torch.float64)
    estimates = [negative_log_likelihood(-row, (-3 * row).exp()) for row in x]
    spread = torch.tensor([e.mean for e in estimates]).std()
    assert sum(e.standard_error for e in estimates) / 1000 == pytest.approx(float(spread), rel=0.1)


def test_bad_weights() -> None:
    for bad in (torch.ones(4), torch.tensor([1.0, -1.0, 1.0]), torch.zeros(3), torch.tensor([1.0, 1.0, math.nan])):
        with pytest.raises(ValueError, match="negative_log_likelihood: weights must be one finite number per point"):
            negative_log_likelihood(torch.ones(3), bad)
        with pytest.raises(ValueError, match="paired_difference: weights must be"):
            paired_difference(torch.ones(3), torch.ones(3), weights=bad)


def test_bad_scores() -> None:
    with pytest.raises(ValueError, match="1 of 2 NaN"):
        negative_log_likelihood(torch.tensor([1.0, math.nan]))
    with pytest.raises(ValueError, match="got none"):
        negative_log_likelihood(torch.empty(0))
    with pytest.raises(ValueError, match="same points in the same order"):
        paired_difference(torch.ones(3), torch.ones(4))
    with pytest.raises(ValueError, match="log_prob_b"):
        paired_difference(torch.ones(1), torch.tensor([math.nan]))
    with pytest.raises(ValueError, match="one row for each of the 3 points"):
        paired_difference(torch.ones(3), torch.ones(3), torch.ones(4))


def test_import_leaves_scipy_out() -> None:
    code = "import sys, rfm.metrics; sys.exit('scipy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
