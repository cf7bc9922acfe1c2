"""The velocity network that turns with its condition, and the encoder of pictures before it."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import rfm
from manifolds import SO3
from rfm.likelihood import divergence
from rfm.networks import Encoded, PictureEncoder, RotationVelocity

SMALL = {"channels": 2, "invariants": 3, "width": 8, "depth": 2}


def network(dtype: torch.dtype = torch.float64, degree: int = 6) -> RotationVelocity:
    field = RotationVelocity(**SMALL, degree=degree).to(dtype)
    generator = torch.Generator().manual_seed(0)
    for parameter in field.parameters():
        nn.init.normal_(parameter, std=0.1, generator=generator)
    return field.requires_grad_(False)


def rotations(*shape: int, seed: int = 0) -> Tensor:
    return SO3().random_uniform(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@pytest.mark.parametrize("degree", range(1, 7))
def test_functions_seen_by_a_turned_body_keep_their_norm_in_each_degree_and_turn_as_a_group(degree: int) -> None:
    field = network(degree=degree)
    x, y, c = rotations(4), rotations(4, seed=1), normal(4, field.signals)
    seen = field.readings(x, c)
    sizes = [(2 * n + 1) * field.channels for n in range(1, degree + 1)]
    assert sum(sizes) == field.signals
    for before, after in zip(c.split(sizes, -1), seen.split(sizes, -1), strict=True):
        torch.testing.assert_close(after.norm(dim=-1), before.norm(dim=-1))
    torch.testing.assert_close(field.readings(x @ y, c), field.readings(y, seen))
    torch.testing.assert_close(field.readings(torch.eye(3, dtype=x.dtype), c), c)


def test_the_velocity_turns_with_the_functions() -> None:
    field = network()
    x, g, condition, t = rotations(5), rotations(1, seed=1), normal(5, field.condition_dim), torch.rand(5).double()
    plain, signals = condition.split([field.invariants, field.signals], -1)
    turned = torch.cat([plain, field.readings(g.mT, signals)], -1)
    torch.testing.assert_close(field(g @ x, t, turned), g @ field(x, t, condition))
    assert not torch.allclose(field(g @ x, t, condition), g @ field(x, t, condition))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_velocities_are_tangent_and_the_same_however_conditions_are_shared(dtype: torch.dtype) -> None:
    field = network(dtype)
    x, t, c = rotations(4, 3).to(dtype), torch.rand(4, 3).to(dtype), normal(4, 1, field.condition_dim).to(dtype)
    u = field(x, t, c)
    assert u.dtype == dtype
    SO3().check_tangent(x, u)
    close: dict[str, float] = {"rtol": 0, "atol": float(u.abs().max()) * (1e-12 if dtype == torch.float64 else 1e-4)}
    torch.testing.assert_close(field(x, t, c.expand(4, 3, -1)), u, **close)
    torch.testing.assert_close(torch.stack([field(x[i], t[i], c[i, 0]) for i in range(4)]), u, **close)
    torch.testing.assert_close(field(x[0, 0], t[0, 0], c[0, 0]), u[0, 0], **close)
    assert field(x[:0], t[:0], c[:0]).shape == (0, 3, 3, 3)


def test_a_new_network_is_at_rest_and_can_learn() -> None:
    field = RotationVelocity(**SMALL).double()
    u = field(rotations(5), torch.rand(5).double(), normal(5, field.condition_dim))
    assert not bool(u.any())
    (slope,) = torch.autograd.grad((u * rotations(5, seed=2)).sum(), field.last.weight)
    assert bool(slope.any())


def test_the_divergence_is_that_of_the_field() -> None:
    """Against central differences along the three axes of the body."""
    field, so3 = network(), SO3()
    x, t, c = rotations(6), torch.rand(6).double(), normal(6, field.condition_dim)
    u, div = divergence(field, so3, x, t, condition=c)
    torch.testing.assert_close(u, field(x, t, c))
    h, total = 1e-5, torch.zeros(6, dtype=torch.float64)
    for e in so3.tangent_basis(x).unbind(1):
        ahead, behind = (so3.expmap(x, s * h * e) for s in (1, -1))
        # In the left-invariant frame: half of the commutator's part drops out of the trace.
        rates = [y.mT @ field(y, t, c) for y in (ahead, behind)]
        total += ((rates[0] - rates[1]) / (2 * h) * (x.mT @ e)).sum((-2, -1)) / 2
    torch.testing.assert_close(div, total, atol=1e-7, rtol=1e-6)


def test_degrees_beyond_six_are_refused() -> None:
    with pytest.raises(ValueError, match="degree must be 1 to 6, got 7"):
        RotationVelocity(degree=7)


def test_a_picture_is_encoded_alike_alone_and_among_others() -> None:
    encoder = PictureEncoder(16, 5, width=4, hidden=8).double()
    pictures = torch.rand(3, 2, 16, 16, dtype=torch.float64)
    vectors = encoder(pictures)
    assert vectors.shape == (3, 2, 5)
    torch.testing.assert_close(encoder(pictures[1, 1]), vectors[1, 1])
    assert not torch.allclose(vectors[0, 0], vectors[0, 1])


def test_pictures_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 8, got 12"):
        PictureEncoder(12, 5)
    with pytest.raises(ValueError, match=r"16 x 16 pixels are required, got shape \(2, 8, 8\)"):
        PictureEncoder(16, 5)(torch.rand(2, 8, 8))


def test_an_encoded_flow_is_saved_whole(tmp_path: Path) -> None:
    velocity = network(torch.float32)
    flow = rfm.Flow(SO3(), Encoded(PictureEncoder(8, velocity.condition_dim, width=4, hidden=8), velocity))
    flow.save(tmp_path)
    loaded = rfm.Flow.load(tmp_path)
    x, t, pictures = rotations(2, 3).float(), torch.rand(2, 3), torch.rand(2, 1, 8, 8)
    field = flow.field
    assert isinstance(field, Encoded)
    expected = velocity(x, t, condition=field.encoder(pictures))
    torch.testing.assert_close(loaded.field(x, t, condition=pictures), expected)
