"""Symmetric positive definite matrices: laws at random base points, checks and transformations."""

from functools import partial

import pytest
import torch
from definite_matrices import SPACES, each_dtype, each_space, points, randn, tangents
from torch.func import jacfwd, jacrev, jvp, vmap

from manifolds import Manifold
from manifolds.matrices.spd import SPD, LogEuclideanSPD
from manifolds.matrices.spectral import symmetrise

# The first forward-mode derivative of a process compiles torch's own decompositions with torch.jit.script.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


@each_dtype
@each_space
@pytest.mark.parametrize("separation", [1e-5, 0.1, 1.0])
def test_laws_of_geodesics(m, dtype, separation):
    tol = 2000 * torch.finfo(dtype).eps
    x = points(m, 20, dtype=dtype)
    u = tangents(m, x, separation)
    y, z = m.expmap(x, u), points(m, 20, seed=9, dtype=dtype)
    log = m.logmap(x, y)
    m.check_point(y)
    m.check_tangent(x, log)
    growth = float(m.norm(x, u).max().exp())
    assert m.norm(x, log - u).max() <= tol * growth
    assert m.dist(m.expmap(x, log), y).max() <= tol * growth
    torch.testing.assert_close(m.dist(x, y), m.norm(x, log), rtol=tol, atol=0)
    torch.testing.assert_close(m.dist(x, y), m.dist(y, x), rtol=tol, atol=0)
    assert (m.dist(x, z) <= m.dist(x, y) + m.dist(y, z) + tol).all()
    assert (m.dist(x, x) == 0).all()
    assert (m.logmap(x, x) == 0).all()


@each_space
def test_shoot_gives_position_and_its_derivative_at_constant_speed(m):
    x, y = points(m, 20), points(m, 20, seed=8)
    u, t = tangents(m, x), 2 * torch.rand(20, generator=torch.Generator().manual_seed(3), dtype=torch.float64) - 0.5
    x_t, dx_t = m.shoot(x, u, t)
    default_x, default_dx = Manifold.shoot(m, x, u, t)
    assert m.dist(x_t, default_x).max() < 1e-10
    assert m.norm(x_t, dx_t - default_dx).max() < 1e-9
    torch.testing.assert_close(m.norm(x_t, dx_t), m.norm(x, u), rtol=1e-9, atol=0)
    end = m.geodesic(x, y, torch.ones(20, dtype=x.dtype))
    assert m.dist(end[0], y).max() < 1e-12
    assert m.norm(y, end[1] + m.logmap(y, x)).max() < 1e-11


@each_space
def test_transport_is_isometric_parallel_and_carries_velocities(m):
    x, y = points(m, 20), points(m, 20, spread=3.0, seed=7)
    u, v = tangents(m, x), tangents(m, x, seed=6)
    carried_u, carried_v = m.transp(x, y, u), m.transp(x, y, v)
    m.check_tangent(y, carried_u)
    torch.testing.assert_close(m.inner(y, carried_u, carried_v), m.inner(x, u, v), rtol=1e-10, atol=1e-10)
    assert m.norm(y, m.transp(x, y, m.logmap(x, y)) + m.logmap(y, x)).max() < 1e-10
    middle = m.geodesic(x, y, torch.full((20,), 0.3, dtype=x.dtype))[0]
    assert m.norm(y, m.transp(middle, y, m.transp(x, middle, u)) - carried_u).max() < 1e-10


@each_dtype
@each_space
def test_basis_is_orthonormal(m, dtype):
    x = points(m, 20, dtype=dtype)
    basis = m.tangent_basis(x)
    gram = m.inner(x[:, None, None], basis[:, :, None], basis[:, None, :])
    torch.testing.assert_close(
        gram, torch.eye(m.dim, dtype=dtype).expand_as(gram), rtol=0, atol=200 * torch.finfo(dtype).eps
    )


def wavy(m, x):
    """A field that is neither a gradient nor symmetric in the entries."""
    a = randn(m.n, m.n, seed=4)
    return m.proju(x, torch.sin(x @ a) + a @ x @ x)


def divergence(m, field, x):
    vectors, covectors = m.divergence_frame(x)
    columns = torch.stack([jvp(field, (x,), (e,))[1] for e in vectors.unbind(-3)], -3)
    return (covectors * columns).sum((-3, -2, -1)) + m.log_volume_derivative(x, field(x))


@each_space
def test_divergence_is_that_of_the_formula_in_logarithmic_coordinates(m):
    """``d_i (sqrt(g) v^i) / sqrt(g)`` by central differences, in the chart of torch's own matrix exponential."""

    def density_and_flux(a):
        def chart(a):
            entries = torch.zeros(m.n, m.n, dtype=a.dtype).index_put(tuple(torch.triu_indices(m.n, m.n)), a)
            return torch.linalg.matrix_exp(entries + entries.T)

        x, columns = chart(a), jacfwd(chart)(a).movedim(-1, 0)
        gram = m.inner(x, columns[:, None], columns[None])
        root = torch.linalg.det(gram).sqrt()
        return root, root * torch.linalg.solve(gram, m.inner(x, columns, wavy(m, x))), x

    for a in 0.4 * randn(3, m.dim, seed=2):
        root, _, x = density_and_flux(a)
        h = 1e-4
        steps = h * torch.eye(m.dim, dtype=torch.float64)
        flux = [density_and_flux(a + e)[1] - density_and_flux(a - e)[1] for e in steps]
        expected = sum(f[i] for i, f in enumerate(flux)) / (2 * h) / root
        torch.testing.assert_close(divergence(m, lambda x: wavy(m, x), x), expected, rtol=1e-6, atol=1e-6)


@each_space
def test_volume_terms_agree_with_the_defaults(m):
    x = points(m, 10)
    u = tangents(m, x)
    torch.testing.assert_close(m.log_det_expmap(x, u), Manifold.log_det_expmap(m, x, u), rtol=1e-9, atol=1e-10)
    default = Manifold.log_volume_derivative(m, x, u)
    torch.testing.assert_close(m.log_volume_derivative(x, u), default, rtol=1e-8, atol=1e-8)


def test_affine_invariance():
    m = SPD(4)
    x, y, a = points(m, 20), points(m, 20, seed=3), randn(20, 4, 4, seed=4)
    u = tangents(m, x)

    def moved(s):
        return symmetrise(a @ s @ a.mT)

    torch.testing.assert_close(m.dist(moved(x), moved(y)), m.dist(x, y), rtol=1e-8, atol=0)
    torch.testing.assert_close(m.dist(x.inverse(), y.inverse()), m.dist(x, y), rtol=1e-9, atol=0)
    torch.testing.assert_close(m.inner(moved(x), moved(u), moved(u)), m.inner(x, u, u), rtol=1e-8, atol=0)
    torch.testing.assert_close(m.logmap(moved(x), moved(y)), moved(m.logmap(x, y)), rtol=1e-7, atol=1e-7)


@each_space
@pytest.mark.parametrize("weighted", [False, True])
def test_frechet_mean_is_where_the_logs_cancel(m, weighted):
    p = points(m, 4, 7, spread=4.0)
    w = torch.rand(4, 7, generator=torch.Generator().manual_seed(2), dtype=p.dtype) if weighted else None
    mean = m.frechet_mean(p, w)
    logs = m.logmap(mean[:, None], p)
    residual = (logs if w is None else w[..., None, None] * logs).sum(1)
    assert m.norm(mean, residual).max() < 1e-10
    # Commuting matrices: the geometric mean of the eigenvalues.
    d = torch.rand(5, m.n, generator=torch.Generator().manual_seed(3), dtype=p.dtype) + 0.1
    torch.testing.assert_close(m.frechet_mean(torch.diag_embed(d)), torch.diag(d.log().mean(0).exp()))


@pytest.mark.parametrize("count", [100, pytest.param(10_000, marks=pytest.mark.slow)])
@each_dtype
@pytest.mark.parametrize("m", SPACES[:2], ids=str)
def test_many_maps_stay_on_the_manifold(m, dtype, count):
    x, targets = points(m, dtype=dtype), points(m, 3, spread=4.0, seed=5, dtype=dtype)
    u = torch.stack([tangents(m, y, 0.1, seed=i) for i, y in enumerate(targets)])
    for i in range(count // 3):
        for step in (u[i % 3], -u[i % 3], 0.1 * (targets[i % 3] - x)):
            x = m.expmap(x, step)
    m.check_point(x)


@each_dtype
@each_space
def test_projx_is_idempotent_with_the_right_derivative(m, dtype):
    x, u = points(m, 20, spread=4.0, dtype=dtype), randn(20, m.n, m.n, dtype=dtype)
    assert torch.equal(m.projx(x), x)
    torch.testing.assert_close(jvp(m.projx, (x,), (u,))[1], m.proju(x, u))
    outside = m.projx(u)
    m.check_point(outside)
    assert torch.equal(m.projx(outside), outside)
    assert torch.isfinite(jacrev(m.projx)(torch.zeros(m.n, m.n, dtype=dtype))).all()
    m.check_point(m.projx(torch.zeros(m.n, m.n, dtype=dtype)))


def test_checks_refuse_and_bad_entries_stay_alone():
    m = SPD(2)
    with pytest.raises(ValueError, match="off it by"):
        m.check_point(torch.tensor([[1.0, 0.5], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="positive definite"):
        m.check_point(torch.diag(torch.tensor([1e-8, -1e-8])))
    x = torch.stack([torch.eye(2), torch.diag(torch.tensor([1.0, -1.0]))])
    for space in (m, LogEuclideanSPD(2)):
        d = space.dist(x, 2 * torch.eye(2))
        assert torch.isfinite(d[0])
        assert torch.isnan(d[1])


# Transformations.


def everything(m, x, y, u, t):
    return (
        *(m.dist(x, y), m.logmap(x, y), m.expmap(x, u), *m.shoot(x, u, t), m.transp(x, y, u), m.inner(x, u, u)),
        *(m.projx(x), m.proju(x, u), m.log_det_expmap(x, u), m.log_volume_derivative(x, u), m.embed(x)),
        *(m.tangent_basis(x), *m.divergence_frame(x), *m.geodesic(x, y, t)),
    )


@each_dtype
@pytest.mark.parametrize("m", SPACES[:2], ids=str)
def test_vmap_broadcasting_and_dtype(m, dtype):
    x, y = points(m, 4, 1, dtype=dtype), points(m, 5, seed=3, dtype=dtype)
    u, t = tangents(m, x), torch.linspace(0, 1, 5, dtype=dtype)

    values = everything(m, x, y, u, t)
    assert all(v.dtype == dtype for v in values)
    assert m.dist(x, y).shape == (4, 5)
    assert m.logmap(x, y).shape == m.transp(x, y, u).shape == m.shoot(x, u, t)[1].shape == (4, 5, *m.event_shape)
    assert m.embed(x).shape == (4, 1, m.embed_dim)
    tol = 1e-3 if dtype == torch.float32 else 1e-10
    full = [a.expand(4, 5, m.n, m.n) for a in (x, y, u)]
    mapped = vmap(vmap(partial(everything, m)))(*full, t.expand(4, 5))
    for a, b in zip(values, mapped, strict=True):
        torch.testing.assert_close(b, a.expand_as(b), rtol=tol, atol=tol)


@pytest.mark.slow
@each_dtype
@pytest.mark.parametrize("m", SPACES[:2], ids=str)
def test_compiles_without_graph_breaks(m, dtype):
    x, y = points(m, 4, dtype=dtype), points(m, 4, seed=3, dtype=dtype)
    u, t = tangents(m, x), torch.linspace(0, 1, 4, dtype=dtype)
    torch._dynamo.reset()
    compiled = torch.compile(partial(everything, m), backend="aot_eager", fullgraph=True)(x, y, u, t)
    tol = 1e-3 if dtype == torch.float32 else 1e-10
    for a, b in zip(everything(m, x, y, u, t), compiled, strict=True):
        torch.testing.assert_close(b, a, rtol=tol, atol=tol)
