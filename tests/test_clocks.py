"""Clocks: parts of a point that run ahead of the others."""

import math

import pytest
import torch
from random_fields import normal, points
from torch import Tensor

from manifolds import SE3, SO3, Euclidean, Manifold, Power, Product, Sphere
from rfm.integrators import DORMAND_PRINCE, FixedStep, integrate
from rfm.steering import Clocks, ExponentialClock, PowerClock


def towards(m: Manifold, x_1: Tensor) -> object:
    """Return the velocity of geodesics that reach ``x_1`` at time 1, at even speed."""

    def field(x: Tensor, t: Tensor) -> Tensor:
        return m.logmap(x, x_1) / m.lift(1 - t)

    return field


def near(m: Manifold, *shape: int) -> tuple[Tensor, Tensor]:
    x_0 = points(m, *shape)
    return x_0, m.expmap(x_0, 0.3 * m.proju(x_0, normal(*x_0.shape, seed=3)))


@pytest.mark.parametrize("end", [0.3, 0.9])
def test_factors_of_a_product_are_where_their_clocks_say(end: float) -> None:
    m = Product(Sphere(2), SO3(), Euclidean(2))
    x_0, x_1 = near(m, 3)
    clocks = Clocks.of_factors(m, [ExponentialClock(3.0), PowerClock(2.0), None])
    x = integrate(
        clocks.applied_to(towards(m, x_1)),
        m,
        x_0,
        (0.0, end),
        FixedStep(DORMAND_PRINCE, 14),  # type: ignore[arg-type]
    ).final
    for part, a, b, f, r in zip(
        m.split(x),
        m.split(x_0),
        m.split(x_1),
        (Sphere(2), SO3(), Euclidean(2)),
        (1 - math.exp(-3 * end), 1 - (1 - end) ** 2, end),
        strict=True,
    ):
        torch.testing.assert_close(part, f.geodesic(a, b, torch.tensor(r).double())[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("m", [SE3(2.0), Power(SE3(2.0), 3)], ids=str)
def test_rotations_and_positions_of_poses(m: Manifold) -> None:
    x_0, x_1 = near(m, 2)
    clocks = Clocks.of_poses(rotation=ExponentialClock(3.0))
    x = integrate(
        clocks.applied_to(towards(m, x_1)),
        m,
        x_0,
        (0.0, 0.8),
        FixedStep(DORMAND_PRINCE, 14),  # type: ignore[arg-type]
    ).final
    early = m.geodesic(x_0, x_1, torch.tensor(1 - math.exp(-2.4)).double())[0]
    late = m.geodesic(x_0, x_1, torch.tensor(0.8).double())[0]
    torch.testing.assert_close(x[..., :3, :3], early[..., :3, :3], atol=1e-5, rtol=0)
    torch.testing.assert_close(x[..., :3, 3], late[..., :3, 3], atol=1e-5, rtol=0)


def test_powers_of_products_and_single_times() -> None:
    m = Power(Product(Sphere(2), Euclidean(1)), 4)
    clocks = Clocks.of_factors(m, [None, PowerClock(3.0)])
    x = points(m, 2)
    u = m.proju(x, normal(*x.shape))
    for t in (torch.zeros(2).double(), torch.zeros(()).double()):
        v = clocks.applied_to(lambda x, t: u)(x, t)
        torch.testing.assert_close(v[..., :3], u[..., :3])
        torch.testing.assert_close(v[..., 3:], 3 * u[..., 3:])
        assert v.dtype == u.dtype


def test_what_makes_no_clocks_is_refused() -> None:
    with pytest.raises(ValueError, match="takes a product, or a power of one"):
        Clocks.of_factors(Sphere(2), [None])
    with pytest.raises(ValueError, match="2 clocks"):
        Clocks.of_factors(Product(Sphere(2)), [None, None])
    with pytest.raises(ValueError, match="parts that do not overlap"):
        Clocks([(torch.ones(3), PowerClock(2.0)), (torch.ones(3), PowerClock(2.0))])
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="must be positive and finite"):
            ExponentialClock(wrong)
        with pytest.raises(ValueError, match="must be positive and finite"):
            PowerClock(wrong)
