"""Symmetric positive definite matrices: laws at random base points, accuracy against mpmath, repeated eigenvalues."""

import math
from functools import partial

import mpmath as mp
import pytest
import torch
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

from experiments.benchmarks.truth import truth_of
from manifolds import Manifold
from manifolds.spd import SPD, LogEuclideanSPD
from manifolds.spectral import log_det_sinhc, log_det_sinhc_gradient, symmetric_exp, symmetric_log, symmetrise

# The first forward-mode derivative of a process compiles torch's own decompositions with torch.jit.script.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

SPACES = [SPD(3), LogEuclideanSPD(3), SPD(1), LogEuclideanSPD(2)]
DTYPES = [torch.float32, torch.float64]
each_space = pytest.mark.parametrize("m", SPACES, ids=str)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def points(m, *shape, spread=2.0, seed=0, dtype=torch.float64):
    """Matrices in random directions whose logarithms' eigenvalues spread over ``spread``."""
    basis = torch.linalg.qr(randn(*shape, m.n, m.n, seed=seed)).Q
    logs = spread * torch.linspace(-0.5, 0.5, m.n, dtype=torch.float64) if m.n > 1 else torch.full((1,), spread)
    return symmetrise((basis * logs.exp()) @ basis.mT).to(dtype)


def tangents(m, x, size=1.0, seed=5):
    return (size * randn(*x.shape[:-2], m.dim, 1, 1, seed=seed).to(x.dtype) * m.tangent_basis(x)).sum(-3)


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


# Accuracy: 16 units of rounding times the condition number, against 50 digits.


def exact_value(m, name, *arrays):
    """The value at 50 digits and its condition number, ``max(|f|, sum_i |D_i f| |z_i|)``, by differences."""
    truth, step = truth_of(m), mp.mpf(10) ** -30

    def f(x, b):
        if name == "expmap":
            return truth.exp(truth.project(x), truth.tangent(x, b))
        log = truth.log(truth.project(x), truth.project(b))
        return [truth.length(x, log)] if name == "dist" else log

    z = [[mp.mpf(v) for v in a.double().flatten().tolist()] for a in arrays]
    value, condition = f(*z), 0.0
    for i, a in enumerate(z):
        h = step * mp.norm(a)
        ends = [[*z[:i], [c + h * d for c, d in zip(a, e, strict=True)], *z[i + 1 :]] for e in truth.directions(a)]
        columns = [[float((p - q) / step) for p, q in zip(f(*end), value, strict=True)] for end in ends]
        condition += float(torch.linalg.matrix_norm(torch.tensor(columns, dtype=torch.float64), 2))
    return value, max(condition, float(mp.norm(value)))


def error_in_units(m, name, *arrays):
    """The error of one map, over the units of rounding that its condition number allows."""
    with mp.workdps(60):
        exact, condition = exact_value(m, name, *arrays)
        value = getattr(m, name)(*arrays)
        computed = [mp.mpf(v) for v in value.double().flatten().tolist()]
        error = mp.norm([a - b for a, b in zip(computed, exact, strict=True)])
    return float(error) / condition / (torch.finfo(value.dtype).eps / 2)


@each_dtype
@pytest.mark.parametrize("m", SPACES[:2], ids=str)
@pytest.mark.parametrize(("spread", "separation"), [(0.0, 1e-6), (1.0, 1e-3), (3.0, 1.0), (12.0, 1e-6), (12.0, 1.0)])
def test_accuracy_against_fifty_digits(m, dtype, spread, separation):
    x = points(m, spread=spread, dtype=dtype)
    u = tangents(m, x, separation)
    for y in (m.expmap(x, u), points(m, spread=spread + separation, seed=21, dtype=dtype)):
        assert error_in_units(m, "dist", x, y) <= 16
        assert error_in_units(m, "logmap", x, y) <= 16
    assert error_in_units(m, "expmap", x, u) <= 16


WIDEST = {torch.float32: 12.0, torch.float64: 30.0}


def farthest(n, dtype, seed):
    """A matrix at the end of the documented domain: eigenvalues all apart, or all but one of them together."""
    basis = torch.linalg.qr(randn(n, n, seed=seed)).Q
    inner = [torch.linspace(-0.5, 0.5, n), torch.full((n,), -0.5), torch.full((n,), 0.5)][seed % 3]
    logs = torch.cat([torch.tensor([-0.5]), inner[1:-1], torch.tensor([0.5])])[-n:].double()
    return symmetrise((basis * (WIDEST[dtype] * logs).exp()) @ basis.mT).to(dtype)


@each_dtype
@pytest.mark.parametrize("space", [SPD, LogEuclideanSPD])
@pytest.mark.parametrize(
    "n", [1, 2, 3, pytest.param(4, marks=pytest.mark.slow), pytest.param(6, marks=pytest.mark.slow)]
)
def test_accuracy_between_the_ends_of_the_domain(space, n, dtype):
    m = space(n)
    for seed in range(9):
        x, y = farthest(n, dtype, seed // 3), farthest(n, dtype, 3 + seed)
        assert error_in_units(m, "dist", x, y) <= 16
        assert error_in_units(m, "logmap", x, y) <= 16


@each_dtype
@pytest.mark.parametrize("space", [SPD, LogEuclideanSPD])
def test_derivatives_between_the_ends_of_the_domain(space, dtype):
    """Those of the distance, against differences with 60 digits, for ends that move in their own frame."""
    m, truth = space(3), truth_of(space(3))
    for seed in range(6):
        x, y = farthest(3, dtype, seed // 2), farthest(3, dtype, 3 + seed)
        along = [tangents(m, a.double(), seed=seed + i) for i, a in enumerate((x, y))]
        gradient = grad(lambda z: m.dist(*map(symmetrise, z)))(torch.stack([x, y])).double()

        flat = [(a.double().flatten().tolist(), b.flatten().tolist()) for a, b in zip((x, y), along, strict=True)]

        def exact(h, flat=flat):
            ends = [[mp.mpf(p) + h * mp.mpf(q) for p, q in zip(*pair, strict=True)] for pair in flat]
            return truth.length(ends[0], truth.log(*ends))

        with mp.workdps(60):
            h = mp.mpf(10) ** -20
            expected = float((exact(h) - exact(-h)) / (2 * h))
        allowed = 4 * math.exp(WIDEST[dtype]) * torch.finfo(dtype).eps
        assert abs(float((gradient * torch.stack(along)).sum()) - expected) <= allowed


def test_distance_between_two_matrices_that_spread_over_twelve():
    """The right distance is of 80 digits."""
    x = [[157.49624633789062, -2436.018310546875, -3386.717041015625], [0, 60619.33203125, 78414.265625]]
    y = [[152996.453125, -20872.30078125, 32483.158203125], [0, 2857.30029296875, -4371.55029296875]]
    x, y = (torch.triu(torch.tensor([*a, [0, 0, last]])) for a, last in ((x, 102382.390625), (y, 7305.47314453125)))
    x, y = (torch.triu(a) + torch.triu(a, 1).mT for a in (x, y))
    for a, b in ((x, y), (y, x)):
        torch.testing.assert_close(SPD(3).dist(a, b), torch.tensor(16.0187), rtol=1e-3, atol=0)


# Hard places.


@pytest.mark.parametrize("eigenvalues", [(1.0, 1.0, 1.0), (2.0, 2.0, 0.5), (1.0, 1.0 + 1e-9, 1.0 - 1e-7), (0.3, 1, 2)])
@pytest.mark.parametrize("f", [symmetric_exp, symmetric_log, log_det_sinhc, log_det_sinhc_gradient])
def test_spectral_functions_have_right_derivatives(f, eigenvalues):
    """First derivatives against differences of values, second ones against differences of first ones."""
    q = torch.linalg.qr(randn(3, 3, seed=8)).Q
    x, u, h = symmetrise((q * torch.tensor(eigenvalues, dtype=q.dtype)) @ q.mT), symmetrise(randn(3, 3)), 1e-5

    def slope(x):
        return jvp(f, (x,), (u,))[1]

    torch.testing.assert_close(slope(x), (f(x + h * u) - f(x - h * u)) / (2 * h), rtol=1e-7, atol=1e-7)
    reverse, forward = jacrev(lambda s: f(symmetrise(s)))(x), jacfwd(lambda s: f(symmetrise(s)))(x)
    torch.testing.assert_close(reverse, forward, rtol=1e-10, atol=1e-10)
    second = jvp(slope, (x,), (u,))[1]
    torch.testing.assert_close(second, (slope(x + h * u) - slope(x - h * u)) / (2 * h), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("m", SPACES[:2], ids=str)
@pytest.mark.parametrize("separation", [0.0, 1e-30, 1e-9])
@pytest.mark.parametrize("eigenvalues", [(1.0, 1.0, 1.0), (2.0, 2.0, 0.5)])
def test_derivatives_are_finite_and_agree_in_both_modes(m, separation, eigenvalues):
    x = torch.diag(torch.tensor(eigenvalues, dtype=torch.float64))
    u = separation * m.tangent_basis(x)[1]
    y = m.expmap(x, u)
    maps = {
        "expmap": lambda v: m.expmap(m.projx(x + v), u),
        "expmap in u": lambda v: m.expmap(x, m.proju(x, u + v)),
        "logmap": lambda v: m.logmap(m.projx(x + v), y),
        "logmap in y": lambda v: m.logmap(x, m.projx(y + v)),
        "dist": lambda v: m.dist(x, m.projx(y + v)),
        "norm": lambda v: m.norm(x, m.proju(x, u + v)),
        "shoot": lambda v: m.shoot(x, m.proju(x, u + v), torch.full((), 0.5, dtype=x.dtype))[1],
        "transp": lambda v: m.transp(m.projx(x + v), y, u),
        "embed": lambda v: m.embed(m.projx(x + v)),
        "log_det": lambda v: m.log_det_expmap(x, m.proju(x, u + v)),
        "log_volume": lambda v: m.log_volume_derivative(m.projx(x + v), u),
    }
    for name, f in maps.items():
        zero = torch.zeros_like(x)
        reverse, forward = jacrev(f)(zero), jacfwd(f)(zero)
        assert torch.isfinite(reverse).all(), name
        torch.testing.assert_close(reverse, forward, rtol=1e-9, atol=1e-9, msg=name)
        if separation in (0.0, 1e-9) and name != "basis":
            assert torch.isfinite(hessian(f)(zero)).all(), name
    identity = m.tangent_basis(x)
    moved = torch.stack([jvp(lambda w: m.expmap(x, w), (torch.zeros_like(x),), (e,))[1] for e in identity])
    torch.testing.assert_close(moved, identity, rtol=1e-12, atol=1e-12)
    moved = torch.stack([jvp(lambda z: m.logmap(x, z), (x,), (e,))[1] for e in identity])
    torch.testing.assert_close(moved, identity, rtol=1e-12, atol=1e-12)


SECOND_MAPS = {
    "inner": lambda m, x, y, u: m.inner(x, u, y),
    "dist": lambda m, x, y, u: m.dist(x, y),
    "norm": lambda m, x, y, u: m.norm(x, u),
    "expmap": lambda m, x, y, u: m.expmap(x, u),
    "expmap far": lambda m, x, y, u: m.expmap(x, 6 * u),
    "logmap": lambda m, x, y, u: m.logmap(x, y),
    "shoot": lambda m, x, y, u: torch.stack(m.shoot(x, u, torch.full_like(x[0, 0], 0.4))),
    "geodesic": lambda m, x, y, u: torch.stack(m.geodesic(x, y, torch.full_like(x[0, 0], 0.4))),
    "transp": lambda m, x, y, u: m.transp(x, y, u),
    "embed": lambda m, x, y, u: m.embed(x),
    "tangent_basis": lambda m, x, y, u: m.tangent_basis(x),
    "log_volume_derivative": lambda m, x, y, u: m.log_volume_derivative(x, u),
    "log_det_expmap": lambda m, x, y, u: m.log_det_expmap(x, u),
    "kernel_embed": lambda m, x, y, u: m.kernel_embed(x) * m.kernel_embed(y),
}


def second_derivatives(f, z, v, w):
    """The second derivative along v and w, in the four orders of forward and reverse mode."""
    live = z.clone().requires_grad_()
    once = torch.autograd.grad(f(live), live, create_graph=True)[0]

    def along(z):
        return jvp(f, (z,), (v,))[1]

    return {
        "reverse over reverse": (torch.autograd.grad((once * v).sum(), live)[0] * w).sum(),
        "forward over reverse": (jvp(grad(f), (z,), (v,))[1] * w).sum(),
        "reverse over forward": (grad(along)(z) * w).sum(),
        "forward over forward": jvp(along, (z,), (w,))[1],
    }


@pytest.mark.parametrize("m", SPACES[:2], ids=str)
@pytest.mark.parametrize("place", ["generic", "repeated", "identity", "coincident"])
@pytest.mark.parametrize("name", SECOND_MAPS)
def test_second_derivatives_are_differences_of_first_ones(name, place, m):
    if (name, place) == ("dist", "coincident") or (name, m) == ("log_det_expmap", SPACES[1]):
        pytest.skip("no derivative there, or the constant zero")
    eigenvalues = {"generic": (1.0, 3.0, 0.2), "identity": (1.0, 1.0, 1.0)}.get(place, (2.0, 2.0, 0.5))
    q = torch.linalg.qr(randn(3, 3, seed=8)).Q
    x = symmetrise((q * torch.tensor(eigenvalues, dtype=q.dtype)) @ q.mT)
    z = torch.stack([x, x if place == "coincident" else points(m, seed=4), 0.5 * symmetrise(randn(3, 3, seed=3))])
    v, w = symmetrise(randn(2, 3, 3, 3, seed=6))
    weights = randn(*SECOND_MAPS[name](m, *z).shape, 1, seed=2)[..., 0]

    def f(z):
        return (weights * SECOND_MAPS[name](m, *map(symmetrise, z))).sum()

    h = 1e-4
    ahead, near, back, behind = (grad(f)(z + k * h * v) for k in (2, 1, -1, -2))
    expected = ((8 * (near - back) - (ahead - behind)) / (12 * h) * w).sum()
    for order, value in second_derivatives(f, z, v, w).items():
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6, msg=lambda text, o=order: f"{o}: {text}")


@pytest.mark.parametrize("f", [symmetric_exp, symmetric_log, log_det_sinhc, log_det_sinhc_gradient])
def test_third_derivatives_are_not_silently_zero(f):
    x, u = torch.diag(torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)), symmetrise(randn(3, 3))
    third = jvp(lambda a: jvp(lambda b: jvp(f, (b,), (u,))[1], (a,), (u,))[1], (x,), (u,))[1]
    assert not torch.isfinite(third).any()


@each_space
def test_gradient_of_squared_distance_is_minus_two_log(m):
    x, y = points(m), points(m, seed=4)
    gradient = grad(lambda x: m.dist(m.projx(x), y) ** 2)(x)
    for e in m.tangent_basis(x):
        torch.testing.assert_close((gradient * e).sum(), -2 * m.inner(x, m.logmap(x, y), e), rtol=1e-9, atol=1e-9)


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
