"""Products with weights are the same by either library, and have derivatives wherever these are asked for."""

import pytest
import torch
from torch import Tensor

from manifolds import Sphere
from rfm.networks import VelocityField
from rfm.networks.matrix_products import add_product


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def field_and_points(n: int = 600) -> tuple[VelocityField, Tensor, Tensor]:
    field = VelocityField(Sphere(2), width=128, features=256)
    torch.nn.init.normal_(field.last.weight, std=0.1, generator=generator())
    x = Sphere(2).random_uniform(n, generator=generator(), dtype=torch.float32)
    return field, x, torch.rand(n, generator=generator(1))


@pytest.mark.parametrize("rows", [1, 3, 400, 3000], ids="{} rows".format)
def test_the_sum_is_that_of_double_precision(rows: int) -> None:
    base, x = torch.randn(rows, 96, generator=generator()), torch.randn(rows, 128, generator=generator(1))
    weight = torch.randn(96, 128, generator=generator(2))
    expected = base.double() + x.double() @ weight.double().mT
    with torch.no_grad():
        total = base.clone()
        assert add_product(total, x, weight).data_ptr() == total.data_ptr()
    torch.testing.assert_close(total.double(), expected, rtol=1e-5, atol=1e-4)


@torch.no_grad()
def test_velocities_are_the_same_by_both_libraries() -> None:
    """Few points at a time are left to the one, many are given to the other."""
    field, x, t = field_and_points()
    directions = x.roll(1, -1)[:, None]
    few = [field.pushforward(*part) for part in zip(x.split(10), t.split(10), directions.split(10), strict=True)]
    u, du = map(torch.cat, zip(*few, strict=True))
    torch.testing.assert_close(field.pushforward(x, t, directions), (u, du), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(field(x, t), u, rtol=1e-4, atol=1e-5)


def test_derivatives_are_never_lost() -> None:
    """Outside of autograd's record forward mode and transformations still differentiate."""
    field, x, t = field_and_points()
    direction = x.roll(1, -1)
    with torch.no_grad():
        own = field.pushforward(x, t, direction[:, None])[1][:, 0]
        _, forward = torch.func.jvp(lambda y: field(y, t), (x,), (direction,))
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, direction)
            tangent = torch.autograd.forward_ad.unpack_dual(field(dual, t)).tangent
    torch.testing.assert_close(forward, own, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(tangent, own, rtol=1e-3, atol=1e-4)
