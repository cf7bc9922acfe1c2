"""Divergences of users' networks are the same in every mode of differentiation, and reverse mode is never trusted."""

import pytest
import torch
from torch import Tensor, nn

import rfm
from manifolds import SO3, FlatTorus, Manifold, Sphere
from rfm.likelihood.derivatives import differentiable

MANIFOLDS = [Sphere(2), SO3(), FlatTorus(4)]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


class Perceptron(nn.Module):
    """A user's network; a part of it may be computed without a record."""

    def __init__(self, manifold: Manifold, unrecorded: bool = False) -> None:
        super().__init__()
        self.manifold, self.unrecorded = manifold, unrecorded
        size = manifold.random_uniform(1).numel()
        self.first, self.last = nn.Linear(size + 1, 32), nn.Linear(32, size)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=generator()) / p.shape[-1] ** 0.5)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        flat = torch.cat([x.flatten(x.ndim - len(self.manifold.event_shape)), t[..., None]], dim=-1)
        if self.unrecorded:
            with torch.no_grad():
                h = torch.tanh(self.first(flat))
        else:
            h = torch.tanh(self.first(flat))
        return self.manifold.proju(x, self.last(h).reshape(x.shape) + x.square())


def points(manifold: Manifold) -> tuple[Tensor, Tensor]:
    return manifold.random_uniform(20, generator=generator(), dtype=torch.float32), torch.rand(
        20, generator=generator()
    )


@pytest.mark.parametrize("manifold", MANIFOLDS, ids=repr)
def test_all_modes_agree(manifold: Manifold) -> None:
    """In the first call, when it is remembered, and where derivatives are recorded, which is forward mode."""
    field, (x, t) = Perceptron(manifold), points(manifold)
    recorded = rfm.divergence(field, manifold, x, t)
    with torch.no_grad():
        first, second = (rfm.divergence(field, manifold, x, t) for _ in range(2))
    assert recorded[1].requires_grad
    for own in (first, second):
        assert not own[1].requires_grad
        torch.testing.assert_close(own, tuple(part.detach() for part in recorded), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("manifold", MANIFOLDS, ids=repr)
def test_what_a_field_does_not_record_counts_all_the_same(manifold: Manifold) -> None:
    field, (x, t) = Perceptron(manifold, unrecorded=True), points(manifold)
    whole = Perceptron(manifold)
    with torch.no_grad():
        expected = rfm.divergence(whole, manifold, x, t)
        for _ in range(2):
            torch.testing.assert_close(rfm.divergence(field, manifold, x, t), expected, rtol=1e-4, atol=1e-4)


def test_a_solve_remembers_the_mode() -> None:
    manifold = Sphere(2)
    field, (x, t) = Perceptron(manifold), points(manifold)
    known = differentiable(field)
    vectors, covectors = manifold.divergence_frame(x)
    with torch.no_grad():
        first, second = (known.along(manifold, x, t, vectors, covectors, {}) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)


def test_a_field_that_is_random_has_no_density_in_any_call() -> None:
    manifold = Sphere(2)
    x, t = points(manifold)

    def noisy(y: Tensor, s: Tensor) -> Tensor:
        return manifold.proju(y, y.square() + torch.randn_like(y))

    with torch.no_grad():
        for _ in range(2):
            with pytest.raises(ValueError, match="draws random numbers"):
                rfm.divergence(noisy, manifold, x, t)
