import math

import mpmath
import pytest
import torch
from torch import Tensor

from manifolds.base import Manifold
from manifolds.rotations import hat, matrix_from_rotvec
from manifolds.rotations.rotation_entries import components, entries, exponential, logarithm, matrix, vector
from manifolds.rotations.special_orthogonal import SO3

# The first forward-mode derivative of a process compiles torch's own decompositions with torch.jit.script.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

M = SO3()
DTYPES = (torch.float32, torch.float64)
SEPARATIONS = [0.0, 1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 2.0, *(math.pi - 10.0**-k for k in range(1, 9)), math.pi]


def unit_of(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps / 2


def size(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=(-2, -1))


def random_points(n: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return M.random_uniform(n, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def random_directions(n: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    v = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return v / v.norm(dim=-1, keepdim=True)


def random_tangents(x: Tensor, seed: int = 2) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return M.proju(x, torch.randn(x.shape, generator=g, dtype=x.dtype))


def tangent(x: Tensor, omega: Tensor) -> Tensor:
    return x @ hat(omega)


def log(x: Tensor, y: Tensor) -> Tensor:
    return vector(logarithm(entries(x), entries(y)))


def exp(x: Tensor, omega: Tensor) -> Tensor:
    return matrix(exponential(entries(x), components(omega)))


def pairs(angle: float, n: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    x = random_points(n, torch.float64)
    y = x @ matrix_from_rotvec(angle * random_directions(n))
    return M.projx(x.to(dtype)), M.projx(y.to(dtype))


# Projections.


@pytest.mark.parametrize("dtype", DTYPES)
def test_projection_is_idempotent_and_nearest(dtype: torch.dtype) -> None:
    x = random_points(5000, dtype)
    g = torch.Generator().manual_seed(3)
    off = x + 0.1 * torch.randn(x.shape, generator=g, dtype=dtype)
    p = M.projx(off)
    assert float(size(M.projx(p) - p).max()) <= 4 * unit_of(dtype) * math.sqrt(3)
    # Newton's iteration: the SVD in double precision has errors of 40 units of its own.
    nearest = off.double()
    for _ in range(8):
        nearest = (nearest + torch.linalg.inv(nearest).mT) / 2
    assert float(size(p - nearest).max()) < 16 * unit_of(dtype) * math.sqrt(3)
    torch.testing.assert_close(torch.linalg.det(p), torch.ones(5000, dtype=dtype))
    M.check_point(p)


def test_projection_of_any_matrix_is_the_rotation_that_the_svd_gives() -> None:
    a = torch.randn(5000, 3, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    u, s, vh = torch.linalg.svd(a)
    sign = torch.sign(torch.linalg.det(u @ vh))
    nearest = (u * torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign], -1)[:, None, :]) @ vh
    condition = s[:, 0] / (s[:, 1] + sign * s[:, 2])
    p = M.projx(a)
    M.check_point(p)
    clear = condition < 50
    assert bool((size(p - nearest) < 1e-13 * condition**2)[clear].all())
    # The size of the matrix does not matter.
    torch.testing.assert_close(M.projx(1e3 * a)[clear], p[clear])


@pytest.mark.parametrize("diagonal", [(0, 0, 0), (-1, -1, -1), (1, 0, 0), (1, 1, -1), (0, 0, -2)])
def test_projection_where_no_nearest_rotation_is_unique(diagonal: tuple[int, ...]) -> None:
    x = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    p = M.projx(x)
    M.check_point(p)
    assert float(torch.linalg.det(p)) == pytest.approx(1)
    assert bool(torch.func.jacrev(M.projx)(x).isfinite().all())


def test_projection_has_its_derivatives_on_and_off_the_manifold() -> None:
    x = random_points(1)[0]
    h = torch.randn(3, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    torch.testing.assert_close(torch.func.jvp(M.projx, (x,), (h,))[1], M.proju(x, h))
    for point in (x, x + 0.1 * h, torch.eye(3, dtype=torch.float64)):
        leaf = point.clone().requires_grad_()
        assert torch.autograd.gradcheck(M.projx, (leaf,), check_forward_ad=True)
        assert torch.autograd.gradgradcheck(M.projx, (leaf,), fast_mode=True)


def test_tangent_projection_is_orthogonal_and_idempotent() -> None:
    x, h = random_points(50), torch.randn(50, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    u = M.proju(x, h)
    torch.testing.assert_close(M.proju(x, u), u)
    torch.testing.assert_close(x.mT @ u, -(x.mT @ u).mT)
    torch.testing.assert_close((u * (h - u)).sum((-2, -1)), torch.zeros(50, dtype=torch.float64))
    M.check_tangent(x, u)


# Distances and geodesics.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("angle", SEPARATIONS)
def test_round_trip_and_distance_at_every_separation(angle: float, dtype: torch.dtype) -> None:
    x, y = pairs(angle, 300, dtype)
    u, unit = M.logmap(x, y), unit_of(dtype)
    z = M.expmap(x, u)
    M.check_point(z)
    M.check_tangent(x, u)
    assert float(size(z - y).max()) < 32 * unit * math.sqrt(3)
    d = M.dist(x, y)
    assert bool((d <= math.pi * (1 + 2 * unit)).all())
    # The inputs are rounded, so the angle between them is the intended one to a few units only.
    assert float((d - angle).abs().max()) < 16 * unit
    # Relative to the distance: nothing is lost at tiny separations.
    torch.testing.assert_close(M.norm(x, u), d, rtol=32 * unit, atol=0)
    torch.testing.assert_close(M.dist(y, x), d, rtol=32 * unit, atol=8 * unit * min(angle, 1))
    assert bool((M.dist(x, x) == 0).all())
    assert bool((M.logmap(x, x) == 0).all())


def exact_log(x: Tensor, y: Tensor) -> tuple[mpmath.matrix, mpmath.mpf]:
    """Return rotation vector and angle of the nearest rotations to two matrices, with 50 digits."""

    def polar(a: Tensor) -> mpmath.matrix:
        m = mpmath.matrix(a.double().tolist())
        for _ in range(4):
            m = m * (3 * mpmath.eye(3) - m.T * m) / 2
        return m

    e = polar(x).T * polar(y)
    w = mpmath.matrix([e[2, 1] - e[1, 2], e[0, 2] - e[2, 0], e[1, 0] - e[0, 1]]) / 2
    sine = mpmath.norm(w)
    angle = mpmath.atan2(sine, (e[0, 0] + e[1, 1] + e[2, 2] - 1) / 2)
    return (w * (angle / sine) if sine else w), angle


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("angle", SEPARATIONS[1:-1])
def test_log_and_distance_have_fifty_digit_references(angle: float, dtype: torch.dtype) -> None:
    x, y = pairs(angle, 12, dtype)
    u, d, unit = M.logmap(x, y), M.dist(x, y), unit_of(dtype)
    with mpmath.workdps(50):
        for i in range(len(x)):
            omega, true_angle = exact_log(x[i], y[i])
            # The condition of a difference of points of size 1 is 1 / angle, of the logarithm pi / 2 at most.
            assert abs(mpmath.mpf(float(d[i])) - true_angle) <= 16 * unit * max(1, angle)
            got = torch.linalg.solve(x[i].double(), u[i].double())
            w = mpmath.matrix([float(got[2, 1]), float(got[0, 2]), float(got[1, 0])])
            error = mpmath.norm(w - omega)
            if math.pi - true_angle <= 16 * unit:
                # The other way round is as short, to rounding.
                error = min(error, mpmath.norm(w - omega * (1 - 2 * mpmath.pi / true_angle)))
            assert error <= 16 * unit * math.pi / 2 * max(1, angle)


@pytest.mark.parametrize("dtype", DTYPES)
def test_expmap_has_a_fifty_digit_reference(dtype: torch.dtype) -> None:
    for scale in (0.0, 1e-8, 1e-3, 0.3, 1.0, 3.0, math.pi, 6.0):
        omega = scale * random_directions(4, dtype)
        x = M.expmap(torch.eye(3, dtype=dtype), tangent(torch.eye(3, dtype=dtype), omega))
        for got, w in zip(x, omega.double().tolist(), strict=True):
            with mpmath.workdps(50):
                true = mpmath.expm(mpmath.matrix([[0, -w[2], w[1]], [w[2], 0, -w[0]], [-w[1], w[0], 0]]))
                error = mpmath.norm(mpmath.matrix(got.double().tolist()) - true)
            assert error <= 16 * unit_of(dtype) * math.sqrt(3) * max(1, scale)


def test_cut_locus_is_deterministic_and_exact() -> None:
    for axis, sign in (((1, 0, 0), 1), ((0, -1, 0), -1), ((0, 0, 1), 1)):
        a = torch.tensor(axis, dtype=torch.float64)
        y = 2 * torch.outer(a, a) - torch.eye(3, dtype=torch.float64)
        u = M.logmap(torch.eye(3, dtype=torch.float64), y)
        torch.testing.assert_close(u, tangent(torch.eye(3, dtype=torch.float64), math.pi * sign * a))


def test_dist_is_a_bi_invariant_metric() -> None:
    x, y, z, a, b = (random_points(200, seed=s) for s in range(5))
    torch.testing.assert_close(M.dist(a @ x @ b, a @ y @ b), M.dist(x, y))
    torch.testing.assert_close(M.dist(x.mT, y.mT), M.dist(x, y))
    assert bool((M.dist(x, z) <= M.dist(x, y) + M.dist(y, z) + 1e-12).all())


@pytest.mark.parametrize("dtype", DTYPES)
def test_geodesics_have_constant_speed_and_their_velocity(dtype: torch.dtype) -> None:
    x, y = random_points(50, dtype), random_points(50, dtype, seed=1)
    t = torch.linspace(-0.5, 1.5, 50, dtype=dtype)
    u = M.logmap(x, y)
    for pair, function in (
        (M.shoot(x, u, t), lambda s: M.expmap(x, s[:, None, None] * u)),
        (M.geodesic(x, y, t), lambda s: M.geodesic(x, y, s)[0]),
    ):
        position, velocity = torch.func.jvp(function, (t,), (torch.ones_like(t),))
        torch.testing.assert_close(pair[0], position)
        torch.testing.assert_close(pair[1], velocity, rtol=1e-4 if dtype == torch.float32 else 1e-12, atol=1e-5)
        torch.testing.assert_close(M.norm(*pair), M.dist(x, y))
    ends = M.geodesic(x, y, torch.ones(50, dtype=dtype))[0]
    assert float(size(ends - y).max()) < 64 * unit_of(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)])
def test_ten_thousand_maps_stay_on_the_manifold(dtype: torch.dtype) -> None:
    x = random_points(4, dtype)
    u = 2 * torch.randn(10_000, 4, 3, 3, generator=torch.Generator().manual_seed(7), dtype=dtype)
    for velocity in u:
        x = M.expmap(x, velocity - x @ velocity.mT @ x)
    M.check_point(x, tol=20 * unit_of(dtype))


# Transport.


def test_transport_is_parallel_along_the_geodesic() -> None:
    x, y = random_points(20), random_points(20, seed=1)
    u, w, v = M.logmap(x, y), random_tangents(x), random_tangents(x, seed=9)

    def carried(t: Tensor) -> Tensor:
        return M.transp(x, M.expmap(x, t * u), w)

    for t in (0.1, 0.6, 0.95):
        time = torch.tensor(t, dtype=torch.float64)
        value, rate = torch.func.jvp(carried, (time,), (torch.ones_like(time),))
        x_t = M.expmap(x, t * u)
        # Parallel: the derivative in the ambient space is normal.
        torch.testing.assert_close(M.proju(x_t, rate), torch.zeros_like(rate), rtol=0, atol=1e-12)
        torch.testing.assert_close(M.proju(x_t, value), value)
        torch.testing.assert_close(M.inner(x_t, value, M.transp(x, x_t, v)), M.inner(x, w, v))
    torch.testing.assert_close(M.transp(x, y, u), -M.logmap(y, x))
    torch.testing.assert_close(M.transp(x, x, w), w)
    turned = x @ matrix_from_rotvec(math.pi * random_directions(20))
    torch.testing.assert_close(M.norm(turned, M.transp(x, turned, w)), M.norm(x, w))


# Bases, volume, divergence.


@pytest.mark.parametrize("dtype", DTYPES)
def test_tangent_basis_is_orthonormal(dtype: torch.dtype) -> None:
    x = random_points(20, dtype)
    basis = M.tangent_basis(x)
    gram = M.inner(x[:, None, None], basis[:, :, None], basis[:, None, :])
    torch.testing.assert_close(gram, torch.eye(3, dtype=dtype).expand(20, 3, 3))
    M.check_tangent(x[:, None].expand_as(basis), basis)


def field(x: Tensor) -> Tensor:
    weights = torch.linspace(-1, 1, 9, dtype=x.dtype).reshape(3, 3)
    return M.proju(x, torch.sin(x * weights) @ x + weights * x[..., :1, :1] ** 2)


def test_divergence_agrees_with_the_volume_of_a_flowed_box() -> None:
    for x in random_points(4):
        frame, dual = M.divergence_frame(x)
        columns = torch.stack([torch.func.jvp(field, (x,), (e,))[1] for e in frame])
        divergence = (dual * columns).sum() + M.log_volume_derivative(x, field(x))

        # In exponential coordinates at x the volume density is sinc^2(|a|/2), flat to second order at 0.
        def coordinates(a: Tensor, x: Tensor = x) -> Tensor:
            y = x @ matrix_from_rotvec(a)
            step = 1e-4
            ahead, back = (log(x, M.expmap(y, s * step * field(y))) for s in (1, -1))
            return (ahead - back) / (2 * step)

        reference = torch.trace(torch.func.jacfwd(coordinates)(torch.full((3,), 1e-9, dtype=x.dtype)))
        assert float(divergence) == pytest.approx(float(reference), abs=1e-6)
        assert abs(float(divergence)) > 1e-2


def test_divergence_integrates_to_zero() -> None:
    x = random_points(20_000)
    frame, dual = M.divergence_frame(x)
    columns = torch.func.vmap(lambda e: torch.func.jvp(field, (x,), (e,))[1], in_dims=1, out_dims=1)(frame)
    divergence = (dual * columns).sum((-3, -2, -1))
    assert abs(float(divergence.mean())) < 4 * float(divergence.std()) / math.sqrt(20_000)


def test_log_det_expmap_matches_the_generic_one() -> None:
    x = random_points(20)
    u = 1.3 * random_tangents(x)
    torch.testing.assert_close(M.log_det_expmap(x, u), Manifold.log_det_expmap(M, x, u))
    assert bool((M.log_det_expmap(x, 0 * u) == 0).all())


def test_uniform_has_haar_moments() -> None:
    n = 40_000
    x = random_points(n)
    M.check_point(x)
    assert float(x.mean(0).abs().max()) < 5 / math.sqrt(3 * n)
    assert float((x**2).mean(0).sub(1 / 3).abs().max()) < 5 / math.sqrt(n)
    trace = x.diagonal(dim1=-2, dim2=-1).sum(-1)
    # Characters of the spins 1 and 2 are orthonormal.
    assert float((trace**2).mean()) == pytest.approx(1, abs=0.05)
    assert float((trace * (trace**2 - trace - 1)).mean()) == pytest.approx(0, abs=0.05)
    angle = M.dist(torch.eye(3, dtype=torch.float64), x)
    assert float(angle.mean()) == pytest.approx(math.pi / 2 + 2 / math.pi, abs=0.02)
    assert x.dtype == torch.float64
    assert M.random_uniform(2, 3).shape == (2, 3, 3, 3)


@pytest.mark.parametrize("k", [0.0, 1e-3, 0.5, 3.0, 12.4, 12.6, 200.0, 1e5, 1e8])
def test_kernel_normaliser_is_the_weyl_integral(k: float) -> None:
    with mpmath.workdps(30):
        width = 12 / math.sqrt(k) if k > 15 else math.pi
        integral = mpmath.quad(
            lambda a: 8 * mpmath.pi * (1 - mpmath.cos(a)) * mpmath.exp(-2 * k * (1 - mpmath.cos(a))),
            mpmath.linspace(0, min(width, math.pi), 9),
        )
        true = float(mpmath.log(integral))
    got = M.kernel.log_normaliser(torch.tensor(k, dtype=torch.float64))
    assert float(got) == pytest.approx(true, rel=1e-13, abs=1e-13)
    single = M.kernel.log_normaliser(torch.tensor(k))
    assert single.dtype == torch.float32
    assert float(single) == pytest.approx(true, rel=1e-5, abs=1e-5)
    assert bool(torch.func.grad(M.kernel.log_normaliser)(torch.tensor(k)).isfinite())


def test_kernel_is_in_the_embedding() -> None:
    x, y = random_points(5), random_points(5, seed=1)
    chord2 = (M.embed(x) - M.embed(y)).square().sum(-1)
    torch.testing.assert_close(chord2, 4 * (1 - torch.cos(M.dist(x, y))))
    assert M.embed(x).shape == (5, M.embed_dim)


# Derivatives and transforms.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("angle", SEPARATIONS)
def test_gradients_are_finite_and_bounded(angle: float, dtype: torch.dtype) -> None:
    x, y = pairs(angle, 20, dtype)
    w = random_tangents(x)
    for function in (
        lambda x, y: M.dist(x, y),
        lambda x, y: M.logmap(x, y) * w,
        lambda x, y: M.geodesic(x, y, torch.full((20,), 0.3, dtype=dtype))[1] * w,
        lambda x, y: M.transp(x, y, w) * w,
        lambda x, y: M.expmap(x, y - x) * w,
    ):
        for argument in (0, 1):
            gradient = torch.func.grad(lambda x, y, f=function: f(x, y).sum(), argnums=argument)(x, y)
            assert bool(gradient.isfinite().all())
            assert float(gradient.abs().max()) < 100
            forward = torch.func.jvp(lambda z, f=function: f(x, z), (y,), (M.proju(y, w),))[1]
            assert bool(forward.isfinite().all())


def test_derivatives_at_coincidence_and_of_the_distance() -> None:
    x = random_points(5)
    e = random_tangents(x)
    torch.testing.assert_close(torch.func.jvp(lambda u: M.expmap(x, u), (0 * e,), (e,))[1], e)
    torch.testing.assert_close(torch.func.jvp(lambda y: M.logmap(x, y), (x,), (e,))[1], e)
    assert bool((torch.func.grad(lambda y: M.dist(x, y).sum())(x) == 0).all())
    for angle in (1e-6, 0.5, math.pi - 1e-3):
        a, b = pairs(angle, 5, torch.float64)
        gradient = torch.func.grad(lambda y, a=a: M.dist(a, y).sum())(b)
        rate = (gradient * random_tangents(b)).sum((-2, -1))
        expected = -M.inner(b, M.logmap(b, a), random_tangents(b)) / M.dist(a, b)
        torch.testing.assert_close(rate, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("angle", [0.0, 0.3, 2.5])
def test_second_derivatives_agree_with_differences(angle: float) -> None:
    omega = angle * random_directions(1)[0]
    x = random_points(1)[0]

    def cost(w: Tensor) -> Tensor:
        return (log(x, exp(x, omega) @ matrix_from_rotvec(w)) ** 3).sum() + exp(x, omega + w)[0, 0]

    assert torch.autograd.gradgradcheck(cost, (torch.zeros(3, dtype=torch.float64, requires_grad=True),))


def test_vmap_broadcasting_and_dtype() -> None:
    x, y = random_points(6, torch.float32), random_points(6, torch.float32, seed=1)
    u, t = M.logmap(x, y), torch.linspace(0, 1, 6)
    calls = {
        "projx": (M.projx, (x,)),
        "proju": (M.proju, (x, y)),
        "inner": (M.inner, (x, u, u)),
        "dist": (M.dist, (x, y)),
        "expmap": (M.expmap, (x, u)),
        "logmap": (M.logmap, (x, y)),
        "transp": (M.transp, (x, y, u)),
        "log_det_expmap": (M.log_det_expmap, (x, u)),
        "tangent_basis": (M.tangent_basis, (x,)),
        "shoot": (lambda *a: M.shoot(*a)[1], (x, u, t)),
        "geodesic": (lambda *a: M.geodesic(*a)[0], (x, y, t)),
    }
    for name, (function, arguments) in calls.items():
        direct = function(*arguments)
        assert direct.dtype == torch.float32, name
        torch.testing.assert_close(torch.func.vmap(function)(*arguments), direct)
        torch.testing.assert_close(function(*(a.reshape(2, 3, *a.shape[1:]) for a in arguments)).flatten(0, 1), direct)
        if len(arguments) > 1 and name != "inner":
            outer = function(arguments[0][:, None], *(a[None] for a in arguments[1:]))
            torch.testing.assert_close(outer.diagonal(dim1=0, dim2=1).movedim(-1, 0), direct)
            torch.testing.assert_close(function(arguments[0][0], *arguments[1:])[0], direct[0])


def test_compiles_as_one_graph() -> None:
    x, y = random_points(4), random_points(4, seed=1)
    t = torch.full((4,), 0.3, dtype=torch.float64)

    def all_of_it(x: Tensor, y: Tensor) -> Tensor:
        x_t, dx_t = M.geodesic(M.projx(x), y, t)
        return M.dist(x_t, y) + M.inner(x_t, dx_t, M.transp(x, x_t, M.proju(x, y)))

    torch.testing.assert_close(torch.compile(all_of_it, fullgraph=True, backend="eager")(x, y), all_of_it(x, y))


def test_facts() -> None:
    assert M.dim == 3
    assert M.event_shape == (3, 3)
    assert M.volume == pytest.approx(8 * math.pi**2)
    assert M.injectivity_radius == math.pi
    assert repr(M) == "SO3()"
