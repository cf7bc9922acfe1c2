"""Hyperboloid and Poincare ball: laws at random base points, accuracy against mpmath, hard places."""

import math
from functools import partial

import mpmath as mp
import pytest
import torch
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

from manifolds import Manifold
from manifolds.hyperbolic import Hyperboloid, PoincareBall

# The first forward-mode derivative of a process compiles torch's own decompositions with torch.jit.script.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

SPACES = [Hyperboloid(3, 0.7), PoincareBall(3, 0.7), Hyperboloid(2), PoincareBall(2), Hyperboloid(1), PoincareBall(1)]
DTYPES = [torch.float32, torch.float64]
each_space = pytest.mark.parametrize("m", SPACES, ids=str)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def points(m, *shape, radius=2.0, seed=0, dtype=torch.float64):
    """Points at about ``radius / sqrt(c)`` from the origin, in random directions."""
    direction = randn(*shape, m.n, seed=seed)
    direction = direction / direction.norm(dim=-1, keepdim=True)
    size = radius * (1 - 0.1 * randn(*shape, 1, seed=seed + 1).abs().clamp(max=1))
    if isinstance(m, Hyperboloid):
        return m.projx(torch.nn.functional.pad(torch.sinh(size) * direction / math.sqrt(m.curvature), (1, 0)).to(dtype))
    return m.projx((torch.tanh(size / 2) * direction / math.sqrt(m.curvature)).to(dtype))


def tangents(m, x, size=1.0, seed=5):
    return (size * randn(*x.shape[:-1], m.n, 1, seed=seed).to(x.dtype) * m.tangent_basis(x)).sum(-2)


@each_dtype
@each_space
@pytest.mark.parametrize("separation", [1e-3, 1.0, 3.0])
def test_laws_of_geodesics(m, dtype, separation):
    tol = 2000 * torch.finfo(dtype).eps
    x = points(m, 40, dtype=dtype)
    u = tangents(m, x, separation)
    y, z = m.expmap(x, u), points(m, 40, seed=9, dtype=dtype)
    log = m.logmap(x, y)
    m.check_point(y)
    m.check_tangent(x, log)
    # A coordinate's rounding moves a point by cosh(radius) times as much, and what follows grows with that.
    growth = m.log_det_expmap(x, u).exp().max() ** (1 / max(m.n - 1, 1)) * torch.cosh(m.norm(x, u)).max()
    assert m.norm(x, log - u).max() <= tol * growth * (1 + separation)
    assert m.dist(m.expmap(x, log), y).max() <= tol * growth
    torch.testing.assert_close(m.dist(x, y), m.norm(x, log), rtol=tol, atol=0)
    assert torch.equal(m.dist(x, y), m.dist(y, x))
    assert (m.dist(x, z) <= m.dist(x, y) + m.dist(y, z) + tol).all()
    assert (m.dist(x, x) == 0).all()
    assert (m.logmap(x, x) == 0).all()


@each_space
def test_shoot_gives_position_and_its_derivative_at_constant_speed(m):
    x = points(m, 40)
    u, t = tangents(m, x), 2 * torch.rand(40, generator=torch.Generator().manual_seed(3), dtype=torch.float64) - 0.5
    x_t, dx_t = m.shoot(x, u, t)
    default_x, default_dx = Manifold.shoot(m, x, u, t)
    assert m.dist(x_t, default_x).max() < 1e-11
    assert m.norm(x_t, dx_t - default_dx).max() < 1e-10
    torch.testing.assert_close(m.norm(x_t, dx_t), m.norm(x, u), rtol=1e-10, atol=0)
    y = points(m, 40, seed=8)
    start, end = m.geodesic(x, y, torch.zeros(40, dtype=x.dtype)), m.geodesic(x, y, torch.ones(40, dtype=x.dtype))
    assert m.dist(start[0], x).max() < 1e-12
    assert m.norm(x, start[1] - m.logmap(x, y)).max() < 1e-12
    assert m.dist(end[0], y).max() < 1e-11


@each_space
def test_transport_is_isometric_parallel_and_carries_velocities(m):
    x, y = points(m, 40), points(m, 40, radius=3.0, seed=7)
    u, v = tangents(m, x), tangents(m, x, seed=6)
    carried_u, carried_v = m.transp(x, y, u), m.transp(x, y, v)
    m.check_tangent(y, carried_u)
    torch.testing.assert_close(m.inner(y, carried_u, carried_v), m.inner(x, u, v), rtol=1e-10, atol=1e-10)
    assert m.norm(y, m.transp(x, y, m.logmap(x, y)) + m.logmap(y, x)).max() < 1e-10
    middle = m.geodesic(x, y, torch.full((40,), 0.3, dtype=x.dtype))[0]
    assert m.norm(y, m.transp(middle, y, m.transp(x, middle, u)) - carried_u).max() < 1e-10
    assert m.norm(x, m.transp(x, x, u) - u).max() < 1e-14


@each_dtype
@each_space
def test_basis_is_orthonormal(m, dtype):
    x = points(m, 40, dtype=dtype)
    basis = m.tangent_basis(x)
    gram = m.inner(x[:, None, None], basis[:, :, None], basis[:, None, :])
    eye = torch.eye(m.n, dtype=dtype).expand_as(gram)
    # A vector of the basis has entries of size cosh(radius): rounding them moves it by as many units across.
    torch.testing.assert_close(gram, eye, rtol=0, atol=100 * torch.finfo(dtype).eps)


def wavy(m, x):
    """A field that is neither a gradient nor symmetric, of the ambient coordinates."""
    a = randn(*m.event_shape, *m.event_shape, seed=4)
    return m.proju(x, torch.sin(x @ a) + x.flip(-1) ** 2)


def divergence(m, field, x):
    vectors, covectors = m.divergence_frame(x)
    columns = torch.stack([jvp(field, (x,), (e,))[1] for e in vectors.unbind(-2)], -2)
    return (covectors * columns).sum((-2, -1)) + m.log_volume_derivative(x, field(x))


@each_space
def test_divergence_is_that_of_the_formula_in_normal_coordinates(m):
    """``d_i (sqrt(g) v^i) / sqrt(g)`` by central differences in normal coordinates at the origin."""
    origin = m.projx(torch.zeros(m.event_shape, dtype=torch.float64))

    def density_and_flux(a):
        def chart(a):
            return m.expmap(origin, (a[:, None] * m.tangent_basis(origin)).sum(0))

        x, columns = chart(a), jacfwd(chart)(a).T
        gram = m.inner(x, columns[:, None], columns[None])
        root = torch.linalg.det(gram).sqrt()
        return root, root * torch.linalg.solve(gram, m.inner(x, columns, wavy(m, x))), x

    for a in randn(4, m.n, seed=2):
        root, _, x = density_and_flux(a)
        h = 1e-4
        steps = h * torch.eye(m.n, dtype=torch.float64)
        flux = [density_and_flux(a + e)[1] - density_and_flux(a - e)[1] for e in steps]
        expected = sum(f[i] for i, f in enumerate(flux)) / (2 * h) / root
        torch.testing.assert_close(divergence(m, lambda x: wavy(m, x), x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("m", SPACES[:4], ids=str)
def test_divergence_and_volume_agree_with_the_defaults(m):
    x = points(m, 20, radius=1.0)
    u = tangents(m, x)
    torch.testing.assert_close(m.log_det_expmap(x, u), Manifold.log_det_expmap(m, x, u), rtol=1e-9, atol=1e-12)
    small = tangents(m, x, 1e-5)
    expected = (m.n - 1) / 6 * m.curvature * m.inner(x, small, small)
    torch.testing.assert_close(m.log_det_expmap(x, small), expected, rtol=1e-8, atol=0)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_models_are_isometric(n):
    h, b = Hyperboloid(n, 0.6), PoincareBall(n, 0.6)
    x, y = points(h, 30), points(h, 30, radius=4.0, seed=3)
    to_ball, u = h.to_poincare, tangents(h, x)
    torch.testing.assert_close(b.to_hyperboloid(to_ball(x)), x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(b.dist(to_ball(x), to_ball(y)), h.dist(x, y), rtol=1e-12, atol=0)
    pushed = jvp(to_ball, (x,), (u,))[1]
    torch.testing.assert_close(b.norm(to_ball(x), pushed), h.norm(x, u), rtol=1e-12, atol=0)
    assert b.dist(b.expmap(to_ball(x), pushed), to_ball(h.expmap(x, u))).max() < 1e-11
    carried = jvp(to_ball, (y,), (h.transp(x, y, u),))[1]
    assert b.norm(to_ball(y), b.transp(to_ball(x), to_ball(y), pushed) - carried).max() < 1e-10
    torch.testing.assert_close(b.embed(to_ball(x)), h.embed(x), rtol=1e-12, atol=1e-12)
    origin = h.projx(torch.zeros(n + 1, dtype=x.dtype))
    torch.testing.assert_close(h.embed(x).norm(dim=-1), h.dist(origin, x), rtol=1e-12, atol=0)
    assert h.embed_dim == b.embed_dim == n


# Accuracy: 16 units of rounding times the condition number, against 50 digits.


def reference(m, name, *arrays):
    """The textbook formulas, which need the digits; inputs are taken exactly, and moved to the manifold."""
    c = mp.mpf(m.curvature)
    vectors = [mp.matrix([mp.mpf(float(v)) for v in a]) for a in arrays]

    def dot(a, b):
        return mp.fsum(p * q for p, q in zip(a, b, strict=True))

    if isinstance(m, Hyperboloid):

        def minkowski(a, b):
            return dot(a, b) - 2 * a[0] * b[0]

        x = vectors[0]
        x[0] = mp.sqrt(1 / c + dot(x, x) - x[0] ** 2)
        if name == "expmap":
            u = vectors[1]
            u[0] = (dot(x, u) - x[0] * u[0]) / x[0]
            theta = mp.sqrt(c * minkowski(u, u))
            return mp.cosh(theta) * x + mp.sinh(theta) / theta * u
        y = vectors[1]
        y[0] = mp.sqrt(1 / c + dot(y, y) - y[0] ** 2)
        theta = mp.acosh(-c * minkowski(x, y))
        if name == "dist":
            return mp.matrix([theta / mp.sqrt(c)])
        if name == "logmap":
            return theta / mp.sinh(theta) * (y - mp.cosh(theta) * x)
        u = vectors[2]
        u[0] = (dot(x, u) - x[0] * u[0]) / x[0]
        return u + minkowski(y, u) / (1 / c - minkowski(x, y)) * (x + y)

    def add(a, b):
        ab, aa, bb = c * dot(a, b), c * dot(a, a), c * dot(b, b)
        return ((1 + 2 * ab + bb) * a + (1 - aa) * b) / (1 + 2 * ab + aa * bb)

    x, y = vectors[:2]
    factor = 2 / (1 - c * dot(x, x))
    if name == "expmap":
        size = mp.sqrt(c * dot(y, y))
        return add(x, mp.tanh(factor * size / 2) / size * y)
    z = add(-x, y)
    size = mp.sqrt(c * dot(z, z))
    if name == "dist":
        return mp.matrix([2 * mp.atanh(size) / mp.sqrt(c)])
    if name == "logmap":
        return 2 / factor * mp.atanh(size) / size * z
    ratio = factor * (1 - c * dot(y, y)) / 2
    u = vectors[2] / (10 * mp.norm(vectors[2]) * mp.sqrt(c))
    return ratio * 10 * mp.norm(vectors[2]) * mp.sqrt(c) * add(-add(y, -x), add(y, add(-x, u)))


def error_in_units(m, name, *arrays):
    """The error of one map, over the units of rounding that its condition number allows."""
    value = getattr(m, name)(*arrays)
    doubles = [a.double() for a in arrays]

    def on_manifold(*inputs):
        x = m.projx(inputs[0])
        moved = [m.projx(inputs[1]) if name != "expmap" else m.proju(x, inputs[1])]
        return getattr(m, name)(x, *moved, *(m.proju(x, u) for u in inputs[2:]))

    with mp.workdps(50):
        exact = reference(m, name, *arrays)
        flat = value.reshape(-1)
        error = mp.norm(mp.matrix([mp.mpf(float(v)) for v in flat]) - exact)
        scale = float(mp.norm(exact))
    # Inputs enter through what is stored of them: the spatial part of a point of the hyperboloid.
    for i, a in enumerate(doubles):
        jacobian = jacrev(on_manifold, i)(*doubles).reshape(flat.numel(), -1)
        scale += float(torch.linalg.matrix_norm(jacobian, 2) * a.norm())
    return float(error) / scale / (torch.finfo(value.dtype).eps / 2)


@each_dtype
@pytest.mark.parametrize("m", [SPACES[0], SPACES[1], SPACES[4], SPACES[5]], ids=str)
@pytest.mark.parametrize(
    ("radius", "separation"),
    [(0.01, 1e-6), (0.01, 8.0), (1.0, 1e-2), (1.0, 1.0), (10.0, 1e-6), (10.0, 1.0), (10.0, 8.0)],
)
def test_accuracy_against_fifty_digits(m, dtype, radius, separation):
    x = points(m, radius=radius, dtype=dtype)
    u = tangents(m, x, separation)
    inward = -separation * m.proju(x, x) / m.norm(x, m.proju(x, x))
    for y in (m.expmap(x, inward), points(m, radius=separation, seed=21, dtype=dtype)):
        if torch.equal(x, y):
            continue
        assert error_in_units(m, "dist", x, y) <= 16
        assert error_in_units(m, "logmap", x, y) <= 16
        assert error_in_units(m, "transp", x, y, u) <= 16
    assert error_in_units(m, "expmap", x, u / 8) <= 16
    # On a line there is no direction across, whose rounding would excuse the cancellation on a long way inwards.
    assert m.n == 1 or error_in_units(m, "expmap", x, inward) <= 16


# Hard places.


@pytest.mark.parametrize("m", SPACES[:2], ids=str)
@pytest.mark.parametrize("separation", [0.0, 1e-30, 1e-9])
@pytest.mark.parametrize("at_origin", [True, False])
def test_derivatives_are_finite_and_agree_in_both_modes(m, separation, at_origin):
    x = points(m, radius=0.0 if at_origin else 1.5)
    u = separation * m.tangent_basis(x)[0]
    y = m.expmap(x, u)
    maps = {
        "expmap": lambda v: m.expmap(m.projx(x + v), m.proju(m.projx(x + v), u)),
        "expmap in u": lambda v: m.expmap(x, m.proju(x, u + v)),
        "logmap": lambda v: m.logmap(m.projx(x + v), y),
        "logmap in y": lambda v: m.logmap(x, m.projx(y + v)),
        "dist": lambda v: m.dist(x, m.projx(y + v)),
        "norm": lambda v: m.norm(x, m.proju(x, u + v)),
        "shoot": lambda v: m.shoot(x, m.proju(x, u + v), torch.full((), 0.5, dtype=x.dtype))[1],
        "transp": lambda v: m.transp(m.projx(x + v), y, m.proju(m.projx(x + v), u)),
        "embed": lambda v: m.embed(m.projx(x + v)),
        "log_det": lambda v: m.log_det_expmap(x, m.proju(x, u + v)),
        "basis": lambda v: m.tangent_basis(m.projx(x + v)),
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


@each_space
def test_gradient_of_squared_distance_is_minus_two_log(m):
    x, y = points(m, radius=1.0), points(m, radius=2.0, seed=4)
    gradient = grad(lambda x: m.dist(m.projx(x), y) ** 2)(x)
    for e in m.tangent_basis(x):
        torch.testing.assert_close(gradient @ e, -2 * m.inner(x, m.logmap(x, y), e), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("count", [100, pytest.param(10_000, marks=pytest.mark.slow)])
@each_dtype
@each_space
def test_many_maps_stay_on_the_manifold(m, dtype, count):
    x, targets = points(m, 8, dtype=dtype), points(m, 10, 8, radius=6.0, seed=5, dtype=dtype)
    for i in range(count):
        x = m.expmap(x, 0.4 * m.logmap(x, targets[i % 10]))
    m.check_point(x)
    assert torch.isfinite(x).all()


@each_dtype
@each_space
def test_projx_is_idempotent_with_the_right_derivative(m, dtype):
    x = points(m, 30, radius=3.0, dtype=dtype)
    assert torch.equal(m.projx(x), x)
    outside = m.projx(3 * randn(30, *m.event_shape, dtype=dtype))
    torch.testing.assert_close(m.projx(outside), outside, rtol=2 * torch.finfo(dtype).eps, atol=0)
    m.check_point(outside)
    u = tangents(m, x)
    torch.testing.assert_close(jvp(m.projx, (x,), (u,))[1], m.proju(x, u))


def test_far_steps_stop_inside_the_ball():
    for dtype in DTYPES:
        m = PoincareBall(2)
        y = m.expmap(torch.zeros(2, dtype=dtype), torch.tensor([40.0, 3.0], dtype=dtype))
        m.check_point(y)
        assert torch.isfinite(m.dist(y, -y))


def test_checks_refuse():
    with pytest.raises(ValueError, match="PoincareBall"):
        PoincareBall(2).check_point(torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match="off it by"):
        Hyperboloid(2).check_point(torch.tensor([-1.0, 0.0, 0.0]))
    with pytest.raises(ValueError, match="not finite"):
        PoincareBall(2).check_point(torch.tensor([math.nan, 0.0]))
    for curvature in (0.0, -1.0, math.inf):
        with pytest.raises(ValueError, match="curvature"):
            Hyperboloid(2, curvature)
    assert repr(Hyperboloid(2, 0.5)) == "Hyperboloid(2, curvature=0.5)"


# Transformations.


def everything(m, x, y, u, t):
    return (
        *(m.dist(x, y), m.logmap(x, y), m.expmap(x, u), *m.shoot(x, u, t), m.transp(x, y, u), m.inner(x, u, u)),
        *(m.projx(x), m.proju(x, u), m.log_det_expmap(x, u), m.log_volume_derivative(x, u), m.embed(x)),
        *(m.tangent_basis(x), *m.divergence_frame(x), *m.geodesic(x, y, t)),
    )


@each_dtype
@each_space
def test_vmap_broadcasting_and_dtype(m, dtype):
    x, y = points(m, 4, 1, dtype=dtype), points(m, 5, seed=3, dtype=dtype)
    u, t = tangents(m, x), torch.linspace(0, 1, 5, dtype=dtype)

    values = everything(m, x, y, u, t)
    assert all(v.dtype == dtype for v in values)
    assert m.dist(x, y).shape == (4, 5)
    assert m.logmap(x, y).shape == m.transp(x, y, u).shape == m.shoot(x, u, t)[1].shape == (4, 5, *m.event_shape)
    full = [a.expand(4, 5, *a.shape[2 if a.ndim > 2 else 1 :]) for a in (x, y, u)]
    mapped = vmap(vmap(partial(everything, m)))(*full, t.expand(4, 5))
    for a, b in zip(values, mapped, strict=True):
        expected = a.expand(4, 5, *a.shape[2:]) if a.shape[:2] == (4, 1) else a
        torch.testing.assert_close(b, expected, rtol=1e-3 if dtype == torch.float32 else 1e-10, atol=1e-4)


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
