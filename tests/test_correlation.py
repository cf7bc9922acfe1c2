"""Correlation matrices: flat coordinates, geodesics and volume against formulas that share no code with them."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import rfm
from manifolds import Correlation
from manifolds.testing import check_manifold
from rfm.sources import WrappedNormal

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


def matrices(n: int, count: int, seed: int = 0, size: float = 0.6) -> Tensor:
    """Return correlations of random data."""
    generator = np.random.default_rng(seed)
    mixed = generator.normal(size=(count, n, 4 * n)) + size * generator.normal(size=(count, 1, 4 * n))
    return torch.from_numpy(np.stack([np.corrcoef(rows) for rows in mixed]))


@pytest.mark.parametrize("n", [2, 4])
def test_laws(n: int) -> None:
    check_manifold(Correlation(n), dtypes=(torch.float64,), compile=n == 4).raise_if_failed()


@pytest.mark.parametrize("n", [2, 3, 6])
def test_flat_coordinates(n: int) -> None:
    """Rows of the Cholesky factor over its diagonal, by numpy; and back."""
    m, x = Correlation(n), matrices(n, 10)
    root = np.linalg.cholesky(x.numpy())
    scaled = root / np.diagonal(root, axis1=-2, axis2=-1)[..., None]
    i, j = np.tril_indices(n, -1)
    np.testing.assert_allclose(m.to_flat(x), scaled[:, i, j], atol=1e-13)
    torch.testing.assert_close(m.from_flat(m.to_flat(x)), x, atol=1e-13, rtol=0)
    assert torch.equal(torch.diagonal(m.from_flat(m.to_flat(x)), dim1=-2, dim2=-1), torch.ones(10, n).double())


def test_two_variables_have_one_coordinate() -> None:
    """For one correlation r it is r / sqrt(1 - r^2)."""
    r = torch.linspace(-0.99, 0.99, 21, dtype=torch.float64)
    x = torch.stack([torch.stack([torch.ones_like(r), r], -1), torch.stack([r, torch.ones_like(r)], -1)], -2)
    torch.testing.assert_close(Correlation(2).to_flat(x)[:, 0], r / torch.sqrt(1 - r * r))


def test_volume_density_is_the_jacobian_of_the_flat_coordinates() -> None:
    m, x = Correlation(4), matrices(4, 5)
    basis = m.divergence_frame(x[0])[0]
    for point in x:
        columns = [torch.func.jvp(m.to_flat, (point,), (e,))[1] for e in basis]
        jacobian = np.linalg.slogdet(torch.stack(columns).numpy())[1]
        stated = -m.dim / 2 * math.log(2) - (m.n + 1) / 2 * np.linalg.slogdet(point.numpy())[1]
        assert jacobian == pytest.approx(stated, abs=1e-10)


def test_wrapped_normal_is_normal_in_flat_coordinates() -> None:
    m, x = Correlation(3), matrices(3, 6)
    source = WrappedNormal(m, x[0], 0.7)
    z = (m.to_flat(x) - m.to_flat(x[0])).numpy() / 0.7
    expected = -(z * z).sum(-1) / 2 - 1.5 * math.log(2 * math.pi * 0.49)
    np.testing.assert_allclose(source.log_prob(x), expected, atol=1e-10)


def test_projection_repairs_what_is_not_definite() -> None:
    m = Correlation(3)
    x = torch.tensor([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]], dtype=torch.float64)
    assert m.outside(x)
    with pytest.raises(ValueError, match="Correlation"):
        m.check_point(x)
    y = m.projx(x)
    m.check_point(y)
    assert torch.equal(m.projx(y), y)
    inside = matrices(3, 5)
    covariance = 4 * inside
    with pytest.raises(ValueError, match="off it by"):
        m.check_point(covariance)


def test_what_is_not_definite_is_nan_for_itself_alone() -> None:
    m, x = Correlation(3), matrices(3, 3)
    x[1] = torch.ones(3, 3)
    x[1, 0, 1] = x[1, 1, 0] = 2.0
    distance = m.dist(x[:1], x)
    assert distance.isnan().tolist() == [False, True, False]


def test_needs_two_variables() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        Correlation(1)


def test_fit() -> None:
    """A flow learns correlations that are normal in flat coordinates: its likelihood is near the true one."""
    m = Correlation(3)
    generator = torch.Generator().manual_seed(0)
    truth = WrappedNormal(m, m.from_flat(torch.tensor([0.8, -0.3, 0.5], dtype=torch.float64)), 0.4)
    points, test = truth.sample(1000, generator=generator), truth.sample(100, generator=generator)
    flow = rfm.fit(points, m, steps=150, seed=0, refine=False, training=rfm.Training(validations=2), progress=False)
    m.check_point(flow.sample(100, generator=generator))
    assert abs(float((truth.log_prob(test) - flow.log_prob(test)).mean())) < 0.25
