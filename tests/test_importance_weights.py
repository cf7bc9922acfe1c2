"""Means under one density from draws of another, against closed forms and for jumps against a known density."""

import math

import pytest
import torch
from test_jump_density import WavyMap

import rfm
from manifolds import Sphere
from rfm.metrics import importance_weights
from rfm.sources import KernelMixture, Uniform


def test_weights_of_a_few_draws_by_hand() -> None:
    log_p, log_q = torch.tensor([0.0, math.log(3.0), -math.inf]), torch.zeros(3)
    found = importance_weights(log_p, log_q)
    torch.testing.assert_close(found.weights, torch.tensor([0.25, 0.75, 0.0], dtype=torch.float64))
    assert found.effective_size == pytest.approx(1 / (1 / 16 + 9 / 16))
    assert found.integral.mean == pytest.approx(4 / 3)
    mean = found.mean(torch.tensor([2.0, 6.0, 100.0]))
    assert mean.mean == pytest.approx(5.0)
    assert mean.standard_error == pytest.approx(math.hypot(0.25 * 3, 0.75 * 1))


def test_equal_densities_weigh_equally_whatever_their_unit() -> None:
    log_p = torch.randn(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = importance_weights(log_p + 200, log_p)
    torch.testing.assert_close(found.weights, torch.full((50,), 0.02, dtype=torch.float64))
    assert found.effective_size == pytest.approx(50)


def test_draws_of_jumps_stand_for_a_known_density() -> None:
    """The mean height and the integral of a kernel's density, from jumps of a map that leads elsewhere."""
    m = Sphere(2)
    flow = rfm.Flow(m, WavyMap(m, 0.3))
    x, log_q = flow.sample(5000, steps=2, return_log_prob=True, generator=torch.Generator().manual_seed(0))
    pole, concentration = torch.tensor([[0.0, 0.0, 1.0]]), 2.0
    density = KernelMixture(m, pole, torch.tensor([concentration]), torch.tensor([1.0, 0.0]), Uniform(m))
    found = importance_weights(density.log_prob(x.double()), log_q)
    height = found.mean(x[:, 2])
    assert found.integral.mean == pytest.approx(1, abs=4 * found.integral.standard_error)
    # Of the von Mises-Fisher density: coth k - 1 / k.
    expected = 1 / math.tanh(concentration) - 1 / concentration
    assert height.mean == pytest.approx(expected, abs=4 * height.standard_error)
    assert height.standard_error < 0.02
    # Without them the mean is another.
    assert abs(float(x[:, 2].mean()) - expected) > 0.1
    assert 500 < found.effective_size < 5000


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        importance_weights(torch.zeros(3), torch.zeros(4))
    with pytest.raises(ValueError, match="not known at 1 of 2"):
        importance_weights(torch.tensor([0.0, math.nan]), torch.zeros(2))
    with pytest.raises(ValueError, match="not known"):
        importance_weights(torch.full((2,), -math.inf), torch.zeros(2))
    with pytest.raises(ValueError, match="one value for each of 2 draws"):
        importance_weights(torch.zeros(2), torch.zeros(2)).mean(torch.zeros(3))
