"""Projections and normalisations of what is far from the manifold: of any scale, or nearly singular."""

import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

from manifolds import SE3, SO3, Grassmann, Manifold, Sphere, Stiefel
from manifolds import rotations as r
from manifolds.hyperbolic import Hyperboloid, PoincareBall
from manifolds.level_sets.ellipsoid import Ellipsoid

RULE = 16.0
SCALES = {
    torch.float32: (1e-38, 1e-30, 1e-20, 1.0, 1e20, 1e37),
    torch.float64: (1e-300, 1e-160, 1e-20, 1.0, 1e160, 1e300),
}
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def polar_factor(x: Tensor, rotation: bool) -> tuple[Tensor, float]:
    """Return the nearest orthonormal matrix, or rotation, in 50 digits, and the condition number."""
    with mpmath.workdps(50):
        u, s, v = mpmath.svd_r(mpmath.matrix(x.double().tolist()))
        signs = mpmath.eye(len(s))
        last, size = mpmath.mpf(1), mpmath.norm(s)
        if rotation and mpmath.det(u) * mpmath.det(v) < 0:
            last = signs[len(s) - 1, len(s) - 1] = mpmath.mpf(-1)
        nearest = u * signs * v
        gap = s[len(s) - 2] + last * s[len(s) - 1] if x.shape[0] == x.shape[1] else s[len(s) - 1]
        # No more digits are needed once the value computed is subtracted, in pieces of double precision.
        high = torch.tensor([[float(e) for e in row] for row in nearest.tolist()], dtype=torch.float64)
        low = torch.tensor(
            [
                [float(nearest[i, j] - mpmath.mpf(float(high[i, j]))) for j in range(x.shape[1])]
                for i in range(x.shape[0])
            ],
            dtype=torch.float64,
        )
    return torch.stack([high, low]), max(math.sqrt(x.shape[1]), math.sqrt(2) * float(size / gap))


def with_singular_values(values: tuple[float, ...], count: int) -> Tensor:
    left, right = (SO3().projx(normal(count, 3, 3, seed=seed)) for seed in (1, 2))
    return left * torch.tensor(values, dtype=torch.float64) @ right


RANDOM_ROTATIONS = {
    "random": normal(300, 3, 3),
    "nearly-rank-two": with_singular_values((1.0, 0.1, 1e-9), 20),
    "ill-conditioned": with_singular_values((1.0, 1e-3, 1e-4), 20),
    "worse": with_singular_values((1.0, 1e-4, 1e-5), 20),
    "left-handed": with_singular_values((1.0, 0.1, -0.09), 20),
    "nearly-a-reflection": with_singular_values((1.0, 1.0, -0.9), 20),
    "more-nearly": with_singular_values((1.0, 1.0, -0.999), 40),
    "all-different": with_singular_values((1.0, 0.9995, -0.999), 40),
    "second-and-third-opposite": with_singular_values((1.0, 0.5, -0.499), 40),
}


@DTYPES
@pytest.mark.parametrize("name", RANDOM_ROTATIONS)
def test_the_nearest_rotation_keeps_the_rule(name: str, dtype: torch.dtype) -> None:
    x = RANDOM_ROTATIONS[name].to(dtype)
    unit = torch.finfo(dtype).eps / 2
    found = SO3().projx(x)
    assert float((SO3().projx(found) - found).abs().max()) <= 4 * unit
    for a, y in zip(x, found.double(), strict=True):
        (high, low), condition = polar_factor(a, rotation=True)
        assert float(torch.linalg.matrix_norm(y - high - low)) <= RULE * unit * condition


@DTYPES
def test_of_rank_one_the_nearest_rotation_is_one_of_many(dtype: torch.dtype) -> None:
    """It turns the one direction that the matrix has as it should."""
    x = with_singular_values((1.0, 0.0, 0.0), 20).to(dtype)
    agreement = (SO3().projx(x) * x).sum((-2, -1))
    torch.testing.assert_close(agreement, torch.ones(20, dtype=dtype), atol=32 * torch.finfo(dtype).eps, rtol=0)


@DTYPES
@pytest.mark.parametrize("m", [Stiefel(3, 2), Stiefel(5, 2), Grassmann(4, 2)], ids=str)
def test_the_nearest_frame_keeps_the_rule(m: Manifold, dtype: torch.dtype) -> None:
    x = normal(40, *m.event_shape)
    x[:10, :, 1] = x[:10, :, 0] + 1e-4 * x[:10, :, 1]
    x = x.to(dtype)
    unit = torch.finfo(dtype).eps / 2
    for a, y in zip(x, m.projx(x).double(), strict=True):
        (high, low), condition = polar_factor(a, rotation=False)
        assert float(torch.linalg.matrix_norm(y - high - low)) <= RULE * unit * condition


@pytest.mark.parametrize("name", RANDOM_ROTATIONS)
def test_the_derivative_of_the_nearest_rotation_is_right(name: str) -> None:
    """``d(R) = R W``, with ``W S + S W = R' dx - dx' R`` and ``S = R' x`` symmetric."""
    x, change = RANDOM_ROTATIONS[name][:20], normal(20, 3, 3, seed=5)
    y, found = torch.func.jvp(SO3().projx, (x,), (change,))
    pulled = torch.autograd.functional.vjp(lambda z: SO3().projx(z), x, change)[1]
    for a, b, turn, du, back in zip(x, y, found, change, pulled, strict=True):
        eye = np.eye(3)
        stretch = (b.mT @ a).numpy()
        right = (b.mT @ du - du.mT @ b).numpy()
        w = np.linalg.solve(np.kron(eye, stretch) + np.kron(stretch.T, eye), right.flatten()).reshape(3, 3)
        exact = b.numpy() @ w
        assert np.abs(turn.numpy() - exact).max() <= 1e-6 * np.abs(exact).max()
        # The derivative is a symmetric matrix.
        assert float((back * du).sum()) == pytest.approx(float((turn * du).sum()), rel=1e-6)


def unit_first(scale: Tensor) -> Tensor:
    return SE3().projx(torch.nn.functional.pad(scale, (0, 1, 0, 1)))


SCALED: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...]]] = {
    "wxyz": (r.matrix_from_wxyz, (4,)),
    "xyzw": (r.matrix_from_xyzw, (4,)),
    "rotvec": (r.rotvec_from_wxyz, (4,)),
    "rows": (lambda d: r.matrix_from_6d(d, "rows"), (6,)),
    "columns": (lambda d: r.matrix_from_6d(d, "columns"), (6,)),
    "axis": (lambda a: r.matrix_from_axis_angle(a, torch.ones(len(a), dtype=a.dtype)), (3,)),
    "circle": (Sphere(1).projx, (2,)),
    "sphere": (Sphere(2).projx, (3,)),
    "sphere-of-many": (Sphere(20).projx, (21,)),
    "SO3": (SO3().projx, (3, 3)),
    "SE3": (unit_first, (3, 3)),
    "Stiefel": (Stiefel(4, 2).projx, (4, 2)),
    "Grassmann": (Grassmann(4, 2).projx, (4, 2)),
}


@DTYPES
@pytest.mark.parametrize("name", SCALED)
def test_scale_does_not_matter(name: str, dtype: torch.dtype) -> None:
    """Values agree with those of the same directions at scale one, and derivatives go like the inverse scale."""
    f, shape = SCALED[name]
    directions = normal(20, *shape, seed=3)
    for scale in SCALES[dtype]:
        x = (scale * directions).to(dtype)
        exact = f(x.double() / scale) if dtype == torch.float32 else f(directions)
        bound = 1e3 * torch.finfo(dtype).eps
        torch.testing.assert_close(f(x).double(), exact, atol=bound, rtol=0)
        if 1e-30 <= scale <= 1e30:
            x.requires_grad_()
            [slope] = torch.autograd.grad(f(x).sum(), x)
            unscaled = directions.clone().requires_grad_()
            [expected] = torch.autograd.grad(f(unscaled).sum(), unscaled)
            largest = float(expected.abs().max())
            torch.testing.assert_close(slope.double() * scale, expected, atol=1e3 * bound * largest, rtol=0)


@DTYPES
def test_what_is_far_from_a_manifold_of_some_size_is_projected(dtype: torch.dtype) -> None:
    """The ball's boundary and an ellipsoid in the direction of the point, and the hyperboloid above it."""
    directions = normal(20, 3, seed=4)
    earth, ball, sheet = Ellipsoid((1.0, 2.0, 3.0)), PoincareBall(3, 4.0), Hyperboloid(3, 4.0)
    bound = 1e2 * torch.finfo(dtype).eps
    for scale in (1e10, *SCALES[dtype][-2:]):
        x = (scale * directions).to(dtype)
        y = earth.projx(x).double()
        # In the limit, the point whose normal points there.
        torch.testing.assert_close(y, earth.point_with_normal(directions), atol=bound + 100 / scale, rtol=0)
        torch.testing.assert_close(earth.normal(x).norm(dim=-1), torch.ones(20, dtype=dtype), atol=bound, rtol=0)
        torch.testing.assert_close(
            ball.projx(x).double(), directions / directions.norm(dim=-1, keepdim=True) / 2, atol=bound, rtol=0
        )
        lifted = sheet.projx(torch.nn.functional.pad(x, (1, 0)))
        assert torch.equal(lifted[:, 1:], x)
        torch.testing.assert_close(lifted[:, 0].double() / scale, directions.norm(dim=-1), atol=0, rtol=bound)


def test_tiny_and_huge_directions_are_directions() -> None:
    earth = Ellipsoid((1.0, 2.0, 3.0))
    for scale in (1e-38, 1e-20, 1e20):
        for f in (earth.normal, earth.point_with_normal):
            x = normal(5, 3, seed=6)
            torch.testing.assert_close(f((scale * x).float()), f(x.float()), atol=1e-5, rtol=0)


def test_zero_is_what_the_documentation_says() -> None:
    zero = torch.zeros(1, 4)
    assert bool(r.matrix_from_wxyz(zero).isnan().any())
    assert bool(r.matrix_from_xyzw(zero).isnan().any())
    torch.testing.assert_close(Sphere(3).projx(zero), torch.eye(4)[:1])
    torch.testing.assert_close(SO3().projx(torch.zeros(1, 3, 3)), torch.eye(3)[None])


@DTYPES
def test_entries_of_mixed_scale(dtype: torch.dtype) -> None:
    """Quaternions and points with one huge, one tiny and one zero entry."""
    q = torch.tensor([[1e-25, 1e20, 0.0, 1e20], [3e-20, 0.0, 4e-20, 0.0]], dtype=dtype)
    expected = r.matrix_from_wxyz(torch.tensor([[0.0, 1.0, 0.0, 1.0], [3.0, 0.0, 4.0, 0.0]], dtype=dtype))
    torch.testing.assert_close(r.matrix_from_wxyz(q), expected)
    torch.testing.assert_close(Sphere(3).projx(q).norm(dim=-1), torch.ones(2, dtype=dtype))
