"""The convolutional velocity network: at rest at first, the same however it is called, and able to learn pictures."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rfm
from manifolds import Euclidean
from rfm.networks import ConvolutionalField
from rfm.sources import WrappedNormal

SHAPE = (1, 8, 8)


def network(dtype: torch.dtype = torch.float64, **settings: Any) -> ConvolutionalField:
    field = ConvolutionalField(SHAPE, **{"width": 8, **settings}).to(dtype)
    generator = torch.Generator().manual_seed(0)
    for parameter in field.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    return field.requires_grad_(False)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def times(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [(), (4,), (2, 3), (0,)], ids=str)
@pytest.mark.parametrize("settings", [{}, {"patch": 2}, {"levels": 3, "blocks": 2}, {"labels": 4}], ids=str)
def test_velocities_keep_shape_and_dtype(dtype: torch.dtype, batch: tuple[int, ...], settings: dict[str, int]) -> None:
    field, x = network(dtype, **settings), normal(*batch, 64, dtype=dtype)
    u = field(x, times(*batch).to(dtype))
    assert u.shape == x.shape
    assert u.dtype == dtype
    assert bool((u != 0).any()) or not u.numel()


def test_a_new_network_is_at_rest_and_can_learn() -> None:
    field = ConvolutionalField(SHAPE, width=8).double()
    u = field(normal(5, 64), times(5))
    assert not bool(u.any())
    (slope,) = torch.autograd.grad((u * normal(5, 64, seed=1)).sum(), field.last.weight)
    assert bool(slope.isfinite().all())
    assert bool(slope.any())


def test_pictures_of_a_batch_and_times_do_not_depend_on_each_other() -> None:
    field, x, t = network(), normal(2, 3, 64), times(2, 3)
    each = torch.stack([torch.stack([field(x[i, j], t[i, j]) for j in range(3)]) for i in range(2)])
    torch.testing.assert_close(field(x, t), each)
    torch.testing.assert_close(field(x, t[0, 0]), field(x, t[0, 0].expand(2, 3)))
    torch.testing.assert_close(torch.func.vmap(field)(x[0], t[0]), each[0])
    assert float((field(x, t) - field(x, t + 0.1)).abs().max()) > 1e-3


@pytest.mark.parametrize("patch", [1, 2])
def test_a_picture_that_moves_by_the_coarsest_cell_moves_its_velocity(patch: int) -> None:
    # Where the border is out of reach: the middle of a large picture.
    field = ConvolutionalField((1, 96, 96), width=8, patch=patch).double()
    generator = torch.Generator().manual_seed(0)
    for parameter in field.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    spot = normal(8, 8)
    x = torch.zeros(2, 96, 96, dtype=torch.float64)
    cell = 2 * patch
    x[0, 40:48, 40:48] = x[1, 40 + cell : 48 + cell, 40 + cell : 48 + cell] = spot
    u = field(x.flatten(1), torch.tensor(0.5, dtype=torch.float64)).reshape(2, 96, 96).detach()
    near, moved = u[0, 36:52, 36:52], u[1, 36 + cell : 52 + cell, 36 + cell : 52 + cell]
    torch.testing.assert_close(near, moved, atol=0.05 * float(near.abs().max()), rtol=0.05)


def test_labels_that_are_not_known_are_none() -> None:
    field, x, t = network(labels=4), normal(4, 64), times(4)
    label = torch.tensor([[0.0], [math.nan], [3.0], [math.nan]], dtype=torch.float64)
    mixed, free = field(x, t, label), field(x, t)
    torch.testing.assert_close(mixed[[1, 3]], free[[1, 3]])
    assert float((mixed - free)[[0, 2]].abs().amin(1).max()) > 0
    both = field.without_and_with(x, t, torch.tensor([2.0], dtype=torch.float64))
    torch.testing.assert_close(both[0], free)
    torch.testing.assert_close(both[1], field(x, t, torch.full((4, 1), 2.0, dtype=torch.float64)))


def test_the_divergence_is_that_of_finite_differences() -> None:
    field, x, t = network(), normal(64), torch.tensor(0.3, dtype=torch.float64)
    u, div = rfm.divergence(field, Euclidean(64), x, t)
    torch.testing.assert_close(u, field(x, t))
    h = 1e-5 * torch.eye(64, dtype=torch.float64)
    expected = ((field(x + h, t.expand(64)) - field(x - h, t.expand(64))) / 2e-5).diagonal().sum()
    torch.testing.assert_close(div, expected, rtol=1e-6, atol=1e-6)


def test_a_saved_flow_of_pictures_comes_back(tmp_path: Path) -> None:
    space = Euclidean(64)
    field = network(torch.float32, labels=3, patch=2)
    rfm.Flow(space, field, WrappedNormal(space, torch.zeros(64))).save(tmp_path)
    loaded = rfm.Flow.load(tmp_path)
    x, t = normal(3, 64, dtype=torch.float32), times(3).float()
    label = torch.tensor([[0.0], [2.0], [math.nan]])
    torch.testing.assert_close(loaded.field(x, t, condition=label), field(x, t, label))


@pytest.mark.parametrize(
    ("shape", "settings", "match"),
    [
        ((1, 9, 8), {}, "multiples of 2"),
        ((1, 8), {}, "channels, height and width"),
        ((1, 8, 8), {"patch": 8}, "multiples of 16"),
        ((1, 8, 8), {"width": 12}, "multiple of 8"),
    ],
)
def test_what_does_not_fit_is_refused(shape: tuple[int, ...], settings: dict[str, int], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        ConvolutionalField(shape, **settings)


def test_points_that_are_no_pictures_are_refused() -> None:
    field, t = network(), times(2)
    with pytest.raises(ValueError, match="vectors of 64 numbers"):
        field(normal(2, 63), t)
    with pytest.raises(ValueError, match="condition vectors have 0 entries"):
        field(normal(2, 64), t, normal(2, 1))
