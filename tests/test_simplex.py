"""The simplex: against closed forms and the Dirichlet distribution, at and across the border."""

import math

import pytest
import scipy.stats
import torch
from torch import Tensor

import rfm
from manifolds import FlatTorus, Power, Product, Scaled, Simplex
from manifolds.testing import check_manifold
from rfm.sources import Uniform

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


def dirichlet(count: int, *alpha: float, seed: int = 0) -> Tensor:
    draw = scipy.stats.dirichlet(alpha).rvs(count, random_state=seed)
    return torch.from_numpy(draw)


@pytest.mark.parametrize("n", [1, 4])
def test_laws(n: int) -> None:
    check_manifold(Simplex(n), dtypes=(torch.float64,), compile=n == 4).raise_if_failed()


def test_distance_is_that_of_fisher_and_rao() -> None:
    m = Simplex(3)
    p, q = dirichlet(40, 1, 1, 1, 1), dirichlet(40, 1, 1, 1, 1, seed=1)
    torch.testing.assert_close(m.dist(p, q), 2 * torch.acos((p * q).sqrt().sum(-1)), atol=1e-12, rtol=0)
    corners = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(m.dist(corners[0], corners[1:]), torch.full((3,), math.pi, dtype=torch.float64))


def test_metric_is_the_fisher_information() -> None:
    """E[(d log p)^2] over the outcomes, for a small change of the shares."""
    m = Simplex(3)
    p = dirichlet(10, 2, 2, 2, 2)
    u = m.proju(p, torch.randn(10, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    score = torch.func.jvp(torch.log, (p,), (u,))[1]
    torch.testing.assert_close(m.inner(p, u, u), (p * score * score).sum(-1))


def test_uniform_is_the_dirichlet_distribution_of_a_half() -> None:
    """Its density with respect to shares is the metric's volume density over the volume."""
    m = Simplex(3)
    p = dirichlet(20, 2, 2, 2, 2)
    reference = torch.tensor([scipy.stats.dirichlet([0.5] * 4).logpdf(row) for row in p.numpy()])
    # With respect to the first n shares: sqrt(det of the metric) is prod p_i^(-1/2).
    volume_density = -torch.log(p).sum(-1) / 2
    torch.testing.assert_close(Uniform(m).log_prob(p) + volume_density, reference, atol=1e-9, rtol=0)
    draws = m.random_uniform(20000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    test = scipy.stats.kstest(draws[:, 0].numpy(), scipy.stats.beta(0.5, 1.5).cdf)
    assert test.pvalue > 1e-3


def test_geodesics_between_points_stay_inside() -> None:
    m = Simplex(2)
    p, q = dirichlet(200, 0.3, 0.3, 0.3), dirichlet(200, 0.3, 0.3, 0.3, seed=1)
    for t in torch.linspace(0, 1, 9, dtype=torch.float64):
        x_t, dx_t = m.geodesic(p, q, t.expand(200))
        assert not m.outside(x_t).any()
        assert dx_t.sum(-1).abs().max() < 1e-12
    torch.testing.assert_close(m.geodesic(p, q, torch.ones(200, dtype=torch.float64))[0], q, atol=1e-14, rtol=0)


def test_a_geodesic_ends_exactly_at_the_border() -> None:
    """Data may hold zeros: the way to them is exact, in both dtypes."""
    for dtype in (torch.float32, torch.float64):
        m, p = Simplex(2), torch.tensor([0.2, 0.3, 0.5], dtype=dtype)
        q = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.4, 0.6]], dtype=dtype)
        torch.testing.assert_close(m.expmap(p, m.logmap(p, q)), q, atol=2e-7, rtol=0)
        m.check_point(q)
        assert m.dist(p, q).isfinite().all()


def test_reflection_at_the_border() -> None:
    """A geodesic that goes on for a full circle of the sphere comes back, at constant speed and inside."""
    m = Simplex(2)
    p = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    u = m.tangent_basis(p)[0]
    t = torch.linspace(0, 2 * math.pi, 200, dtype=torch.float64)
    x_t, dx_t = m.shoot(p.expand(200, 3), u.expand(200, 3), t)
    assert (x_t >= 0).all()
    torch.testing.assert_close(x_t.sum(-1), torch.ones(200, dtype=torch.float64))
    torch.testing.assert_close(x_t[-1], p)
    off = m.distance_to_border(x_t) > 1e-3
    torch.testing.assert_close(m.norm(x_t, dx_t)[off], torch.ones(int(off.sum()), dtype=torch.float64))
    # Up to the border it is the shortest way, beyond it no longer.
    border = float(m.distance_to_border(p))
    before, after = 0.99 * border, 2.5
    assert float(m.dist(p, m.expmap(p, before * u))) == pytest.approx(before)
    assert float(m.dist(p, m.expmap(p, after * u))) < after - 0.1


def test_distance_to_the_border() -> None:
    """Against the least distance to points with a zero share."""
    m = Simplex(2)
    p = dirichlet(20, 1, 1, 1)
    share = torch.linspace(0, 1, 20001, dtype=torch.float64)[:, None]
    edges = [torch.cat([share[:, :0], *parts], dim=-1) for parts in (
        (torch.zeros_like(share), share, 1 - share),
        (share, torch.zeros_like(share), 1 - share),
        (share, 1 - share, torch.zeros_like(share)),
    )]  # fmt: skip
    nearest = torch.stack([m.dist(p[:, None], edge).amin(-1) for edge in edges]).amin(0)
    torch.testing.assert_close(m.distance_to_border(p), nearest, atol=1e-6, rtol=0)
    assert float(Scaled(m, 3.0).distance_to_border(p[0])) == pytest.approx(3 * float(nearest[0]), rel=1e-5)
    assert float(Power(m, 20).distance_to_border(p)) == pytest.approx(float(nearest.min()), abs=1e-6)
    product = Product(FlatTorus(1), m, weights=(1.0, 4.0))
    x = product.join(torch.zeros(1, dtype=torch.float64), p[0])
    assert float(product.distance_to_border(x)) == pytest.approx(2 * float(nearest[0]), abs=1e-5)
    assert FlatTorus(1).distance_to_border(torch.zeros(1)) is None


@pytest.mark.parametrize("concentration", [0.5, 10.0, 400.0])
def test_kernel_is_normalised(concentration: float) -> None:
    """By quadrature over the angle, for two shares, also about points of the border."""
    m = Simplex(1)
    angle = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000 * math.pi / 2
    x = torch.stack([torch.cos(angle), torch.sin(angle)], dim=-1) ** 2
    kernel, k = m.kernel, torch.tensor(concentration, dtype=torch.float64)
    assert kernel is not None
    for centre in ([0.3, 0.7], [1.0, 0.0], [0.999, 0.001]):
        images = kernel.embed(kernel.centres(torch.tensor(centre, dtype=torch.float64)))
        square = (kernel.embed(x)[:, None] - images).square().sum(-1)
        density = torch.exp(-k * square / 2 - kernel.log_normaliser(k)).mean(-1)
        # An angle a of the root is a length 2 a.
        assert float(density.sum()) * math.pi / 20000 == pytest.approx(1, rel=1e-4)


def test_projection_keeps_ratios() -> None:
    m = Simplex(2)
    x = torch.tensor([[3.0, 1.0, 1e-20], [-0.1, 0.5, 0.5], [0.0, 0.0, 0.0]], dtype=torch.float64)
    expected = [[0.75, 0.25, 2.5e-21], [0.0, 0.5, 0.5], [1 / 3, 1 / 3, 1 / 3]]
    torch.testing.assert_close(m.projx(x), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-29)
    assert m.outside(x).tolist() == [False, True, False]
    with pytest.raises(ValueError, match="Simplex"):
        m.check_point(torch.tensor([0.5, 0.4, 0.3]))


def test_velocities_of_networks_vanish_at_the_border() -> None:
    m = Simplex(2)
    x = torch.tensor([[0.0, 0.4, 0.6], [1e-6, 0.4, 0.6 - 1e-6]], dtype=torch.float64)
    w = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u = m.tangent_from_vector(x, w)
    assert u[0, 0] == 0
    assert abs(float(u[1, 0])) < 1e-4
    assert m.norm(x, u).isfinite().all()


def test_fit() -> None:
    """A flow learns a Dirichlet distribution: its likelihood is near the true one, its samples have the right means."""
    m, alpha = Simplex(2), (6.0, 3.0, 2.0)
    flow = rfm.fit(
        dirichlet(1000, *alpha),
        m,
        steps=150,
        seed=0,
        refine=False,
        training=rfm.Training(validations=2),
        progress=False,
    )
    draws = flow.sample(500, generator=torch.Generator().manual_seed(1))
    m.check_point(draws)
    assert (draws > 0).all()
    torch.testing.assert_close(draws.double().mean(0), torch.tensor(alpha).double() / 11, atol=0.03, rtol=0)
    test = dirichlet(100, *alpha, seed=2)
    truth = torch.tensor([scipy.stats.dirichlet(alpha).logpdf(row) for row in test.numpy()])
    truth = truth + torch.log(test).sum(-1) / 2
    assert float((truth - flow.log_prob(test)).mean()) < 0.25
