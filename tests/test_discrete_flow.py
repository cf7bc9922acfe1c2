"""The density of the discrete flow: its Jacobian against differences, its gradient, its integral, its order."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from manifold_zoo import ZOO
from random_fields import normal, points, wavy_field
from torch import Tensor, nn
from zoo_sources import source_of

from manifolds import SPD, Manifold, PoincareBall, Sphere
from rfm.integrators import BOGACKI_SHAMPINE, DORMAND_PRINCE, EULER, KUTTA3, RK4, Adams, FixedStep, Geodesic, Tableau
from rfm.likelihood import discrete_log_prob, log_prob
from rfm.networks import VelocityField
from rfm.sources import Uniform

CASES = [pytest.param(make(), id=name) for name, make in ZOO]


def discrete_map(field: Callable[..., Tensor], m: Manifold, x: Tensor, tableau: Tableau, times: list[float]) -> Tensor:
    """Return where projected Runge-Kutta steps lead: the textbook's loop."""
    for t, end in itertools.pairwise(times):
        h, rates = end - t, []
        for c, row in zip(tableau.c, tableau.a, strict=True):
            y = x + sum((h * a * k for a, k in zip(row, rates, strict=True)), torch.zeros_like(x))
            y = m.projx(y) if rates else x
            rates.append(field(y, torch.full(m.batch_shape(y), t + c * h, dtype=y.dtype)))
        x = m.projx(x + sum(h * b * k for b, k in zip(tableau.b, rates, strict=True)))
    return x


@pytest.mark.parametrize("tableau", [KUTTA3, BOGACKI_SHAMPINE], ids=["steps", "first same as last"])
@pytest.mark.parametrize("m", CASES)
def test_the_jacobian_is_that_of_differences(m: Manifold, tableau: Tableau) -> None:
    field, source, x = wavy_field(m), source_of(m), points(m, 3)
    times = [1.0, 1 / 3, 0.0]
    # By the shift, which moves the time in the middle from 1/2.
    found = discrete_log_prob(field, source, x, FixedStep(tableau, 2), shift=1 / 3).log_prob
    y = discrete_map(field, m, x, tableau, times)
    columns, size = [], 1e-5
    for e in m.tangent_basis(x).unbind(1):
        ends = [discrete_map(field, m, m.expmap(x, s * e), tableau, times) for s in (size, -size)]
        columns.append((m.logmap(y, ends[0]) - m.logmap(y, ends[1])) / (2 * size))
    matrix = torch.stack([torch.stack([m.inner(y, e, c) for c in columns], -1) for e in m.tangent_basis(y).unbind(1)], -2)
    expected = source.log_prob(y) + torch.linalg.slogdet(matrix).logabsdet
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=2e-6)
    assert float(torch.linalg.slogdet(matrix).logabsdet.abs().max()) > 0.02
