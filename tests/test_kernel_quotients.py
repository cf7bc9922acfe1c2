"""Kernel mixtures on quotients: one value on each class, total 1, draws from the density."""

import math

import pytest
import torch
from torch import Tensor

from manifolds import (
    SE3,
    SO3,
    Antipodal,
    Dihedral,
    Euclidean,
    FiniteGroup,
    LeftMultiplication,
    Manifold,
    Octahedral,
    Power,
    Product,
    Quotient,
    RightMultiplication,
    Sphere,
)
from rfm.sources import KernelMixture, RigidMotionSource, Source, Uniform

AXES = Quotient(Sphere(2), Antipodal(2))
CUBIC = Quotient(SO3(), RightMultiplication(Octahedral()))
SPACES = [
    AXES,
    CUBIC,
    Quotient(SO3(), LeftMultiplication(Dihedral(3))),
    Quotient(CUBIC, LeftMultiplication(Dihedral(2))),
]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mixture(m: Manifold, background: Source | None = None, weighted: bool = False) -> KernelMixture:
    points = m.random_uniform(6, generator=seeded(), dtype=torch.float64)
    shares = torch.tensor([1.0, 2.0, 0.0, 4.0, 1.0, 1.0]) if weighted else None
    weights = torch.tensor([0.6, 0.3, 0.1])
    return KernelMixture(m, points, torch.tensor([12.0, 60.0]), weights, background or Uniform(m), shares)


@pytest.mark.parametrize("weighted", [False, True], ids=["equal", "weighted"])
@pytest.mark.parametrize("m", SPACES, ids=str)
def test_the_density_has_one_value_on_a_class_and_total_one(m: Quotient, weighted: bool) -> None:
    density = mixture(m, weighted=weighted)
    x = m.random_uniform(3000, generator=seeded(1), dtype=torch.float64)
    images = m.group.orbit(x[:50])
    values = density.log_prob(images)
    torch.testing.assert_close(values, values[:, :1].expand_as(values), rtol=0, atol=1e-10)
    assert m.volume is not None
    ratio = density.log_prob(x).exp() * m.volume
    standard_error = float(ratio.std()) / math.sqrt(len(ratio))
    assert abs(float(ratio.mean()) - 1) < 4 * standard_error < 0.5


@pytest.mark.parametrize("m", SPACES, ids=str)
def test_draws_have_the_density(m: Quotient) -> None:
    """The mean over draws of h / p is the integral of h, here of the uniform density over a ball about a centre."""
    density = mixture(m)
    x = density.sample((3000,), seeded(2), torch.float64)
    assert m.volume is not None
    reference = m.random_uniform(3000, generator=seeded(3), dtype=torch.float64)
    inside = m.dist(density.points[0], reference) < 0.5
    found = (m.dist(density.points[0], x) < 0.5) / (density.log_prob(x).exp() * m.volume)
    error = math.hypot(float(found.std()), float(inside.double().std())) / math.sqrt(len(x))
    assert abs(float(found.mean()) - float(inside.double().mean())) < 4 * error < 0.1


def test_poses_of_a_symmetric_body_have_kernels() -> None:
    m = SE3(0.5)
    body = Quotient(m, RightMultiplication(Octahedral(), 4))
    points = RigidMotionSource(m, Uniform(SO3())).sample((5,), seeded(), torch.float64)
    centres = body.kernel.centres(points)
    torch.testing.assert_close(centres, body.group.orbit(points))
    k = torch.tensor([20.0], dtype=torch.float64)
    torch.testing.assert_close(body.kernel.log_normaliser(k), m.kernel.log_normaliser(k))


def test_a_class_in_a_product_has_no_kernel() -> None:
    assert Product(AXES, Euclidean(1)).kernel is None
    assert Power(CUBIC, 2).kernel is None


class _Shear(FiniteGroup):
    """An involution of the plane that is no isometry."""

    def __init__(self) -> None:
        super().__init__(2, (2,))

    def orbit(self, x: Tensor) -> Tensor:
        return torch.stack([x, x @ torch.tensor([[1.0, 0.0], [1.0, -1.0]], dtype=x.dtype)], dim=-2)


def test_a_group_that_changes_the_kernel_is_refused() -> None:
    m = Quotient(Euclidean(2), _Shear())
    with pytest.raises(ValueError, match="changes distances between embedded points"):
        m.kernel.centres(torch.randn(9, 2, generator=seeded()))
