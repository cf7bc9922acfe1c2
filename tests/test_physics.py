"""Operators that carry their adjoint: its law, derivatives by it, and what is refused."""

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import rfm
from manifolds import Euclidean
from rfm.integrators import FixedStep
from rfm.posterior import OTODE, DFlow, FlowChef, FlowDPS, Flower, Guided, Measurement, PnPFlow, operators
from rfm.posterior.tangent_solve import linearised, solve
from rfm.sources import WrappedNormal

SIDE = 6


class Shift:
    """Neighbours' means along rows, as deepinv writes it, on pictures (n, 1, h, w); it counts its calls."""

    def __init__(self, adjoint_sign: float = 1.0) -> None:
        self.adjoint_sign, self.calls = adjoint_sign, {"A": 0, "A_adjoint": 0}

    def A(self, x: Tensor) -> Tensor:  # noqa: N802
        self.calls["A"] += 1
        # Not differentiable by torch: the adjoint is all there is.
        return (x.detach() + 2 * x.detach().roll(1, -1)) / 3

    def A_adjoint(self, y: Tensor) -> Tensor:  # noqa: N802
        self.calls["A_adjoint"] += 1
        return (y.detach() + 2 * self.adjoint_sign * y.detach().roll(-1, -1)) / 3


class Square:
    """A measurement without adjoint, which torch differentiates."""

    def A(self, x: Tensor) -> Tensor:  # noqa: N802
        return x.square()


def pictures(n: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, SIDE**2, generator=torch.Generator().manual_seed(0), dtype=dtype)


def dense(physics: Any, shape: tuple[int, ...], y: Tensor) -> Tensor:
    """Return the matrix of a linear physics, column by column."""
    eye = torch.eye(math.prod(shape), dtype=y.dtype).reshape(-1, *shape)
    return torch.stack([physics.A(e[None])[0].flatten() for e in eye], dim=1)


def test_a_physics_is_differentiated_by_its_adjoint() -> None:
    physics = Shift()
    y = torch.zeros(1, SIDE, SIDE, dtype=torch.float64)
    measured, x = Measurement(physics, y, 0.5, shape=(1, SIDE, SIDE)), pictures()
    matrix = dense(physics, (1, SIDE, SIDE), y)
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(measured(leaf).sum(), leaf, create_graph=True)
    torch.testing.assert_close(slope, -(x @ matrix.T) @ matrix / 0.25)
    # Of the derivative again, which methods that are tuned by gradients take.
    (second,) = torch.autograd.grad(slope.square().sum() / 2, leaf)
    gram = matrix.T @ matrix / 0.25
    torch.testing.assert_close(second, x @ gram @ gram)
    problem = linearised(Euclidean(SIDE**2), measured, x)
    u, v = pictures() + 1, pictures() - 1
    torch.testing.assert_close(problem.forward(u), u @ matrix.T / 0.5)
    torch.testing.assert_close(problem.adjoint(v), v @ matrix / 0.5)
    precision = torch.full((3,), 2.0, dtype=torch.float64)
    found = solve(problem, torch.zeros_like(problem.residual), precision, v, tol=1e-12)
    torch.testing.assert_close(found, torch.linalg.solve(gram + 2 * torch.eye(SIDE**2).double(), v.T).T)
    assert physics.calls["A_adjoint"] > 1


def test_a_physics_without_adjoint_is_differentiated() -> None:
    measured = Measurement(Square(), torch.zeros(1, SIDE, SIDE, dtype=torch.float64), 1.0, shape=(1, SIDE, SIDE))
    leaf = pictures().requires_grad_()
    (slope,) = torch.autograd.grad(measured(leaf).sum(), leaf)
    torch.testing.assert_close(slope, -2 * leaf.detach() ** 3)


def test_methods_that_guide_take_a_physics() -> None:
    space = Euclidean(SIDE**2)
    truth, y = pictures(1, torch.float32), Shift().A(pictures(1, torch.float32).reshape(1, 1, SIDE, SIDE))[0]
    measured = Measurement(Shift(), y, 0.1, shape=(1, SIDE, SIDE))

    def field(x: Tensor, t: Tensor) -> Tensor:
        t = t[..., None]
        return x * (2 * t - 1) / (t * t + (1 - t) ** 2)

    flow = rfm.Flow(space, field, WrappedNormal(space, torch.zeros(space.dim)))
    solver = FixedStep(steps=20)
    for method in (
        Flower(20),
        PnPFlow(20),
        Guided([OTODE(space, measured)], solver),
        Guided([FlowDPS(space, measured, 0.1)], solver),
        Guided([FlowChef(space, measured, 0.1)], solver),
        DFlow(1, 10),
    ):
        x = flow.posterior(measured, 8, method=method, generator=torch.Generator().manual_seed(0)).points
        assert float((x - truth).square().mean()) < float(truth.square().mean()), method


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Measurement(Shift(-1), torch.zeros(1, SIDE, SIDE), 0.1), "not the adjoint of its A"),
        (lambda: Measurement(_Affine(), torch.zeros(1, SIDE, SIDE), 0.1), "not the adjoint of its A"),
        (lambda: Measurement(_Scalar(), torch.zeros(1, SIDE, SIDE), 0.1), "does not take y, of shape"),
        (lambda: Measurement(_Wider(), torch.zeros(1, SIDE, SIDE), 0.1), "y has shape"),
    ],
)
def test_an_adjoint_that_is_none_is_refused_in_one_sentence(make: Callable[[], object], match: str) -> None:
    with pytest.raises(ValueError, match=match) as error:
        make()
    assert "\n" not in str(error.value)


class _Affine(Shift):
    def A(self, x: Tensor) -> Tensor:  # noqa: N802
        return super().A(x) + 1


class _Scalar(Shift):
    def A_adjoint(self, y: Tensor) -> Tensor:  # noqa: N802
        return y @ torch.zeros(99, 99)


class _Wider(Shift):
    def A(self, x: Tensor) -> Tensor:  # noqa: N802
        return torch.cat([x, x], -1)


# Those of deepinv.


@pytest.fixture(scope="module")
def physics(imaging: ModuleType) -> ModuleType:
    """Return deepinv's operators."""
    return imaging


def kernel() -> Tensor:
    line = torch.tensor([0.25, 0.5, 0.25])
    return (line[:, None] * line)[None, None]


SIZE = (1, 12, 12)
DEEPINV: dict[str, Callable[[Any], Any]] = {
    "inpainting": lambda p: p.Inpainting(img_size=SIZE, mask=(torch.arange(144) % 3 > 0).float().reshape(SIZE)),
    "blur": lambda p: p.Blur(filter=kernel(), padding="circular"),
    "super-resolution": lambda p: p.Downsampling(filter=kernel(), img_size=SIZE, factor=2, padding="circular"),
    "tomography": lambda p: p.Tomography(angles=7, img_width=12, normalize=False),
}


@pytest.mark.parametrize("name", DEEPINV)
def test_deepinv_operators_are_taken_with_their_adjoint(name: str, physics: Any) -> None:
    own = DEEPINV[name](physics)
    x = torch.randn(4, 144, generator=torch.Generator().manual_seed(0))
    y = own.A(x[:1].reshape(1, *SIZE))[0]
    measured = Measurement(own, y, 0.5, shape=SIZE)
    problem = linearised(Euclidean(144), measured, x)
    v = torch.randn(problem.residual.shape, generator=torch.Generator().manual_seed(1))
    left, right = (problem.forward(x) * v).sum(), (x * problem.adjoint(v)).sum()
    assert float((left - right).abs()) < 1e-4 * float(problem.forward(x).norm() * v.norm())
    matrix = dense(own, SIZE, y)
    torch.testing.assert_close(problem.adjoint(v), v @ matrix / 0.5, atol=1e-3, rtol=1e-3)
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(measured(leaf).sum(), leaf)
    torch.testing.assert_close(slope, (y.flatten() - x @ matrix.T) @ matrix / 0.25, atol=1e-2, rtol=1e-3)


def test_an_approximate_adjoint_of_deepinv_is_refused(physics: Any) -> None:
    radon = physics.Tomography(angles=7, img_width=12, normalize=False, adjoint_via_backprop=False)
    y = radon.A(torch.ones(1, *SIZE))[0]
    with pytest.raises(ValueError, match="A_adjoint of Tomography is not the adjoint"):
        Measurement(radon, y, 0.5, shape=SIZE)
    assert callable(Measurement(radon.A, y, 0.5, shape=SIZE).operator)


def test_the_same_posterior_by_deepinv_and_by_a_mask(physics: Any) -> None:
    kept = torch.ones(1, 1, 4)
    kept[..., 1] = 0
    inpainting = physics.Inpainting(img_size=(1, 1, 4), mask=kept)
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    found = Measurement(inpainting, torch.tensor([[[1.0, 0, 2, 3]]]), 0.5, shape=(1, 1, 4))(x)
    own = Measurement(operators.mask(kept[0, 0] > 0), [1.0, 2, 3], 0.5)(x)
    # The entry that is masked is zero on both sides.
    assert torch.allclose(found, own - math.log(0.5 * math.sqrt(2 * math.pi)), atol=1e-5)
