"""SO(n): against scipy and SO(3), next to and at the cut locus, Haar measure."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import expm, logm
from torch import Tensor

import rfm
from manifolds import SO3, SpecialOrthogonal
from manifolds.testing import check_manifold

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

SIZES = (2, 3, 4, 5, 6)


def uniform(m: SpecialOrthogonal, count: int, seed: int = 0) -> Tensor:
    return m.random_uniform(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def planes(n: int, *angles: float) -> Tensor:
    """Return the rotation of the first coordinate planes by these angles."""
    x = torch.eye(n, dtype=torch.float64)
    for i, a in enumerate(angles):
        block = torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]], dtype=torch.float64)
        x[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = block
    return x


@pytest.mark.parametrize("n", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (3, 5, 6))])
def test_laws(n: int) -> None:
    check_manifold(SpecialOrthogonal(n), dtypes=(torch.float64,)).raise_if_failed()


@pytest.mark.slow
def test_compiles() -> None:
    check_manifold(SpecialOrthogonal(4), dtypes=(torch.float32,), compile=True).raise_if_failed()


@pytest.mark.parametrize("n", SIZES)
def test_agrees_with_scipy(n: int) -> None:
    m = SpecialOrthogonal(n)
    x, y = uniform(m, 20), uniform(m, 20, 1)
    u = m.logmap(x, y)
    for a, b, v in zip(x.numpy(), y.numpy(), u.numpy(), strict=True):
        np.testing.assert_allclose(a.T @ v, logm(a.T @ b).real, atol=1e-9)
        np.testing.assert_allclose(a @ expm(a.T @ v), b, atol=1e-13)
    angles = np.angle(np.linalg.eigvals((x.mT @ y).numpy()))
    np.testing.assert_allclose(m.dist(x, y), np.sqrt((angles**2).sum(-1) / 2), atol=1e-12)


def test_is_so3_in_three_dimensions() -> None:
    m, s = SpecialOrthogonal(3), SO3()
    x, y = uniform(m, 50), uniform(m, 50, 1)
    u = s.logmap(x, y)
    torch.testing.assert_close(m.logmap(x, y), u, atol=1e-12, rtol=0)
    torch.testing.assert_close(m.expmap(x, u), s.expmap(x, u), atol=1e-14, rtol=0)
    torch.testing.assert_close(m.transp(x, y, u), s.transp(x, y, u), atol=1e-12, rtol=0)
    torch.testing.assert_close(m.log_det_expmap(x, u), s.log_det_expmap(x, u), atol=1e-12, rtol=0)
    assert m.volume == pytest.approx(s.volume, rel=1e-14)


@pytest.mark.parametrize("n", [4, 5, 6])
def test_log_det_is_that_of_the_roots(n: int) -> None:
    """The product of sin(a) / a over half the sums of pairs of eigenvalue angles (Weyl's formula)."""
    m = SpecialOrthogonal(n)
    x, y = uniform(m, 10), uniform(m, 10, 1)
    u = m.logmap(x, y)
    eigenvalues = np.linalg.eigvals((x.mT @ u).numpy()).imag
    i, j = np.triu_indices(n, 1)
    expected = np.log(np.abs(np.sinc((eigenvalues[:, i] + eigenvalues[:, j]) / (2 * np.pi)))).sum(-1)
    np.testing.assert_allclose(m.log_det_expmap(x, u), expected, atol=1e-9)


@pytest.mark.parametrize("gap", [10.0**-k for k in range(1, 16)])
@pytest.mark.parametrize("n", [2, 4, 5])
def test_next_to_the_cut_locus(n: int, gap: float) -> None:
    m, other = SpecialOrthogonal(n), () if n < 4 else (0.7,)
    x = uniform(m, 8)
    y = x @ planes(n, math.pi - gap, *other)
    u = m.logmap(x, y)
    torch.testing.assert_close(m.expmap(x, u), y, atol=2e-14, rtol=0)
    expected = math.sqrt((math.pi - gap) ** 2 + sum(a * a for a in other))
    torch.testing.assert_close(m.dist(x, y), torch.full((8,), expected, dtype=torch.float64), atol=1e-14, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("angles", [(math.pi,), (math.pi, math.pi), (math.pi, math.pi, 1.0), (math.pi,) * 3])
def test_at_the_cut_locus(angles: tuple[float, ...], dtype: torch.dtype) -> None:
    n = 2 * len(angles)
    m = SpecialOrthogonal(n)
    x = uniform(m, 6).to(dtype)
    y = m.projx(x @ planes(n, *angles).to(dtype))
    u = m.logmap(x, y)
    unit = torch.finfo(dtype).eps
    assert (m.expmap(x, u) - y).abs().max() < 50 * unit
    length = math.sqrt(sum(a * a for a in angles))
    assert (m.norm(x, u) - length).abs().max() < 50 * unit
    assert torch.equal(m.logmap(x, y), u)
    # Bit for bit a turn by pi, so that rounding tells no plane.
    eye = torch.eye(n, dtype=dtype)
    turned = eye.clone()
    turned[: 2 * angles.count(math.pi), : 2 * angles.count(math.pi)] *= -1
    assert (m.expmap(eye, m.logmap(eye, turned)) - turned).abs().max() < 50 * unit


def test_small_steps_keep_their_digits() -> None:
    m = SpecialOrthogonal(5)
    x = uniform(m, 10)
    y = m.expmap(x, 1e-9 * m.proju(x, uniform(m, 10, 1)))
    u = m.proju(x, y - x)
    error = m.norm(x, m.logmap(x, y) - u) / m.norm(x, u)
    assert error.max() < 1e-8
    assert torch.equal(m.dist(x, x), torch.zeros(10, dtype=torch.float64))


def test_what_is_not_finite_stays_alone() -> None:
    m = SpecialOrthogonal(4)
    x, y = uniform(m, 3), uniform(m, 3, 1)
    bad = y.clone()
    bad[1, 0, 0] = torch.nan
    u = m.logmap(x, bad)
    assert u[1].isnan().all()
    torch.testing.assert_close(u[::2], m.logmap(x, y)[::2])


@pytest.mark.parametrize("n", [2, 3, 4])
def test_projection_is_the_nearest_rotation(n: int) -> None:
    """Against the singular value decomposition in numpy, also of reflections."""
    m = SpecialOrthogonal(n)
    x = torch.randn(30, n, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    nearest = m.projx(x)
    u, _, vh = np.linalg.svd(x.numpy())
    u[..., -1] *= np.linalg.det(u @ vh)[:, None]
    np.testing.assert_allclose(nearest, u @ vh, atol=1e-12)
    assert (torch.linalg.det(x) < 0).any()
    m.check_point(nearest)
    with pytest.raises(ValueError, match="off it by"):
        m.check_point(torch.eye(n, dtype=torch.float64) * torch.tensor([-1.0] + [1.0] * (n - 1)))


def test_projection_of_reflections_has_the_right_derivative() -> None:
    m = SpecialOrthogonal(3)
    x = torch.diag(torch.tensor([2.0, 1.5, -0.5], dtype=torch.float64)) @ planes(3, 0.4)
    h = torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    _, slope = torch.func.jvp(m.projx, (x,), (h,))
    torch.testing.assert_close(slope, (m.projx(x + 1e-6 * h) - m.projx(x - 1e-6 * h)) / 2e-6, atol=1e-8, rtol=0)


@pytest.mark.parametrize("n", SIZES)
def test_uniform_is_haar(n: int) -> None:
    """Haar measure has E tr(X) = 0 and E tr(X)^2 = 1 (2 for n = 2), and determinants are +1."""
    x = uniform(SpecialOrthogonal(n), 20000)
    trace = torch.diagonal(x, dim1=-2, dim2=-1).sum(-1)
    second = 2.0 if n == 2 else 1.0
    assert abs(float(trace.mean())) < 5 * math.sqrt(second / 20000)
    assert abs(float((trace * trace).mean()) - second) < 5 * float((trace * trace).std()) / math.sqrt(20000)
    assert torch.linalg.det(x).min() > 0


@pytest.mark.parametrize("n", [0, 1])
def test_needs_a_plane(n: int) -> None:
    with pytest.raises(ValueError, match="SpecialOrthogonal"):
        SpecialOrthogonal(n)


def test_fit() -> None:
    """A flow on SO(4) finds a cluster; its density beats the uniform one."""
    m = SpecialOrthogonal(4)
    g = torch.Generator().manual_seed(0)
    centre = m.random_uniform(generator=g)
    u = 0.3 * m.proju(centre, torch.randn(200, 4, 4, generator=g))
    flow = rfm.fit(
        m.expmap(centre, u), m, steps=60, seed=0, refine=False, training=rfm.Training(validations=2), progress=False
    )
    draws = flow.sample(50, generator=torch.Generator().manual_seed(1))
    m.check_point(draws)
    gain = flow.log_prob(m.expmap(centre, u)[:20]).mean() + math.log(m.volume)
    assert gain > 0.5
