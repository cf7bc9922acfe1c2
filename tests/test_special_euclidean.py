import math

import pytest
import torch
from torch import Tensor

from manifolds.base import Manifold
from manifolds.rotations.special_euclidean import SE3
from manifolds.rotations.special_orthogonal import SO3

# The first forward-mode derivative of a process compiles torch's own decompositions with torch.jit.script.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

DTYPES = (torch.float32, torch.float64)
M = SE3(length=2.5)


def random_points(n: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    x = torch.zeros(n, 4, 4, dtype=dtype)
    x[:, :3, :3] = SO3().random_uniform(n, generator=g, dtype=dtype)
    x[:, :3, 3] = 3 * torch.randn(n, 3, generator=g, dtype=dtype)
    x[:, 3, 3] = 1
    return x


def random_tangents(x: Tensor, seed: int = 5) -> Tensor:
    return M.proju(x, torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype))


def close(a: Tensor, b: Tensor, units: float = 64) -> None:
    tol = units * torch.finfo(a.dtype).eps
    torch.testing.assert_close(a, b, rtol=tol, atol=tol)


@pytest.mark.parametrize("dtype", DTYPES)
def test_projections(dtype: torch.dtype) -> None:
    off = torch.randn(200, 4, 4, generator=torch.Generator().manual_seed(1), dtype=dtype)
    x = M.projx(off)
    M.check_point(x)
    torch.testing.assert_close(x[:, :3, 3], off[:, :3, 3], rtol=0, atol=0)
    close(M.projx(x), x, 4)
    u = random_tangents(x)
    M.check_tangent(x, u)
    close(M.proju(x, u), u)
    h = torch.ones(200, 4, 4, dtype=dtype)
    close(torch.func.jvp(M.projx, (x,), (h,))[1], M.proju(x, h))


@pytest.mark.parametrize("dtype", DTYPES)
def test_round_trip_distance_and_triangle(dtype: torch.dtype) -> None:
    x, y, z = (random_points(200, dtype, seed=s) for s in range(3))
    for b in (y, x, M.expmap(x, 1e-6 * random_tangents(x))):
        u = M.logmap(x, b)
        M.check_tangent(x, u)
        M.check_point(M.expmap(x, u))
        close(M.expmap(x, u), b)
        close(M.norm(x, u), M.dist(x, b))
        close(M.dist(b, x), M.dist(x, b))
    assert bool((M.dist(x, x) == 0).all())
    assert bool((M.dist(x, z) <= M.dist(x, y) + M.dist(y, z) + 1e-5).all())
    x_t = torch.eye(4, dtype=dtype)
    far = M.projx(x_t + torch.nn.functional.pad(torch.tensor([3.0, 4.0, 0.0], dtype=dtype)[:, None], (3, 0, 0, 1)))
    close(M.dist(x_t, far), torch.tensor(5 / 2.5, dtype=dtype))


def test_left_invariance_and_its_absence_on_the_right() -> None:
    x, y, a = (random_points(50, seed=s) for s in range(3))
    u, v = random_tangents(x), random_tangents(x, seed=6)
    ax, ay = M.compose(a, x), M.compose(a, y)
    close(M.dist(ax, ay), M.dist(x, y))
    close(M.inner(ax, a @ u, a @ v), M.inner(x, u, v))
    close(M.expmap(ax, a @ u), M.compose(a, M.expmap(x, u)))
    close(M.logmap(ax, ay), a @ M.logmap(x, y), 256)
    close(M.transp(ax, ay, a @ u), a @ M.transp(x, y, u), 256)
    assert float((M.dist(M.compose(x, a), M.compose(y, a)) - M.dist(x, y)).abs().max()) > 0.1


@pytest.mark.parametrize("dtype", DTYPES)
def test_geodesics_translate_linearly_at_constant_speed(dtype: torch.dtype) -> None:
    x, y = random_points(30, dtype), random_points(30, dtype, seed=1)
    t = torch.linspace(-0.5, 1.5, 30, dtype=dtype)
    x_t, dx_t = M.geodesic(x, y, t)
    p, q = x[:, :3, 3], y[:, :3, 3]
    close(x_t[:, :3, 3], p + t[:, None] * (q - p))
    close(dx_t[:, :3, 3], q - p)
    close(M.norm(x_t, dx_t), M.dist(x, y))
    M.check_point(x_t)
    M.check_tangent(x_t, dx_t)
    close(x_t, M.shoot(x, M.logmap(x, y), t)[0], 256)
    velocity = torch.func.jvp(lambda s: M.geodesic(x, y, s)[0], (t,), (torch.ones_like(t),))[1]
    close(dx_t, velocity, 256)
    close(M.geodesic(x, y, torch.ones_like(t))[0], y)


def test_transport_is_an_isometry_and_parallel() -> None:
    x, y = random_points(20), random_points(20, seed=1)
    u, v, way = random_tangents(x), random_tangents(x, seed=6), M.logmap(x, y)
    close(M.inner(y, M.transp(x, y, u), M.transp(x, y, v)), M.inner(x, u, v))
    close(M.transp(x, y, way), -M.logmap(y, x), 256)
    time = torch.tensor(0.4, dtype=torch.float64)
    rate = torch.func.jvp(lambda t: M.transp(x, M.expmap(x, t * way), u), (time,), (torch.ones_like(time),))[1]
    close(M.proju(M.expmap(x, time * way), rate), torch.zeros_like(rate), 1e4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_basis_is_orthonormal_and_frames_are_dual(dtype: torch.dtype) -> None:
    x = random_points(10, dtype)
    basis = M.tangent_basis(x)
    assert basis.shape == (10, 6, 4, 4)
    close(M.inner(x[:, None, None], basis[:, :, None], basis[:, None]), torch.eye(6, dtype=dtype).expand(10, 6, 6))
    e, w = M.divergence_frame(x)
    close((w[:, :, None] * e[:, None]).sum((-2, -1)), torch.eye(6, dtype=dtype).expand(10, 6, 6))


def field(x: Tensor) -> Tensor:
    weights = torch.linspace(-1, 1, 16, dtype=x.dtype).reshape(4, 4)
    return M.proju(x, torch.sin(x * weights) @ x + weights * x[..., :1, 3:] ** 2)


def test_divergence_is_that_of_the_exponential_chart() -> None:
    for x in random_points(3):
        e, w = M.divergence_frame(x)
        columns = torch.stack([torch.func.jvp(field, (x,), (d,))[1] for d in e])
        divergence = float((w * columns).sum() + M.log_volume_derivative(x, field(x)))
        basis, h, reference = M.tangent_basis(x), 1e-4, 0.0
        # The chart's volume density is flat to second order at x, so the divergence is the trace of its Jacobian.
        for b in basis:
            components = []
            for s in (h, -h):
                y = M.expmap(x, s * b)
                ends = [M.logmap(x, M.expmap(y, r * field(y))) for r in (h, -h)]
                components.append(M.inner(x, b, ends[0] - ends[1]) / (2 * h))
            reference += float(components[0] - components[1]) / (2 * h)
        assert divergence == pytest.approx(reference, abs=1e-5)
        assert abs(divergence) > 1e-2


def test_log_det_expmap_and_kernel() -> None:
    x, y = random_points(10), random_points(10, seed=1)
    u = random_tangents(x)
    close(M.log_det_expmap(x, u), Manifold.log_det_expmap(M, x, u), 1e4)
    chord2 = (M.embed(x) - M.embed(y)).square().sum(-1)
    way2 = (x[:, :3, 3] - y[:, :3, 3]).square().sum(-1) / 2.5**2
    close(chord2, 4 * (1 - torch.cos(SO3().dist(x[:, :3, :3], y[:, :3, :3]))) + way2)
    assert M.embed(x).shape == (10, M.embed_dim)
    k = torch.tensor([0.3, 40.0], dtype=torch.float64)
    close(M.kernel.log_normaliser(k), SO3().kernel.log_normaliser(k) + 1.5 * torch.log(2 * math.pi / k))


def test_group_axioms_and_action() -> None:
    x, y, z = (random_points(20, seed=s) for s in range(3))
    a = torch.randn(20, 3, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    close(M.compose(x, y), x @ y)
    close(M.compose(M.compose(x, y), z), M.compose(x, M.compose(y, z)))
    close(M.compose(x, M.inverse(x)), M.identity(torch.float64).expand(20, 4, 4))
    close(M.compose(M.identity(torch.float64), x), x)
    close(M.act(M.compose(x, y), a), M.act(x, M.act(y, a)))
    close(M.act(M.inverse(x), M.act(x, a)), a)
    assert M.act(x[:, None], a[None]).shape == (20, 20, 3)
    M.check_point(M.inverse(x))


def twist(x: Tensor, u: Tensor) -> Tensor:
    """Return x^-1 u, an element of the Lie algebra."""
    return M.inverse(x) @ u


@pytest.mark.parametrize("scale", [0.0, 1e-9, 1e-4, 0.29, 0.33, 1.0, 3.1])
def test_screw_motion_is_the_group_exponential(scale: float) -> None:
    x = random_points(20)
    u = random_tangents(x)
    turn = SO3().norm(x[:, :3, :3], u[:, :3, :3])[:, None, None]
    u[:, :3, :3] *= scale / turn
    y = M.screw_expmap(x, u)
    close(y, x @ torch.linalg.matrix_exp(twist(x, u)), 256)
    close(M.screw_logmap(x, y), u, 1e4)
    close(M.expmap(x, u)[:, :3, :3], y[:, :3, :3])
    # Constant velocity in the body's frame.
    t = torch.tensor(0.7, dtype=torch.float64)
    x_t, dx_t = torch.func.jvp(lambda s: M.screw_expmap(x, s * u), (t,), (torch.ones_like(t),))
    close(twist(x_t, dx_t), twist(x, u), 256)
    gradient = torch.func.grad(lambda v: (M.screw_logmap(x, M.screw_expmap(x, v)) ** 2).sum())(u)
    assert bool(gradient.isfinite().all())


def test_screw_motion_is_a_geodesic_only_where_it_turns_about_its_way() -> None:
    x = random_points(20)
    u = random_tangents(x)
    assert float((M.screw_expmap(x, u) - M.expmap(x, u)).abs().max()) > 0.1
    turn = SO3().logmap(x[:, :3, :3], SO3().expmap(x[:, :3, :3], u[:, :3, :3]))
    body = torch.stack([(x[:, :3, :3].mT @ turn)[:, i, j] for i, j in ((2, 1), (0, 2), (1, 0))], -1)
    u[:, :3, 3] = (x[:, :3, :3] @ body[..., None])[..., 0]
    close(M.screw_expmap(x, u), M.expmap(x, u))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("angle", [0.0, 1e-8, 1e-3, 1.0, math.pi - 1e-4, math.pi])
def test_gradients_are_finite(angle: float, dtype: torch.dtype) -> None:
    x = random_points(10, dtype)
    turn = torch.zeros(4, 4, dtype=dtype)
    turn[0, 1], turn[1, 0] = -angle, angle
    y = M.expmap(x, x @ turn)
    w = random_tangents(x)
    for function in (M.dist, M.logmap, M.screw_logmap, lambda x, y: M.transp(x, y, w), M.compose):
        for argument in (0, 1):
            gradient = torch.func.grad(lambda *a, f=function: f(*a).sum(), argnums=argument)(x, y)
            assert bool(gradient.isfinite().all())
    for function in (M.expmap, M.screw_expmap):
        assert bool(torch.func.grad(lambda u, f=function: f(x, u).sum())(M.logmap(x, y)).isfinite().all())
    close(M.expmap(x, M.logmap(x, y)), y)


def test_vmap_broadcasting_and_dtype() -> None:
    x, y = random_points(6, torch.float32), random_points(6, torch.float32, seed=1)
    u, t = M.logmap(x, y), torch.linspace(0, 1, 6)
    for function, arguments in (
        (M.projx, (x,)),
        (M.proju, (x, y)),
        (M.dist, (x, y)),
        (M.expmap, (x, u)),
        (M.logmap, (x, y)),
        (M.transp, (x, y, u)),
        (M.log_det_expmap, (x, u)),
        (M.tangent_basis, (x,)),
        (M.compose, (x, y)),
        (M.screw_expmap, (x, u)),
        (M.screw_logmap, (x, y)),
        (lambda *a: M.shoot(*a)[1], (x, u, t)),
        (lambda *a: M.geodesic(*a)[0], (x, y, t)),
    ):
        direct = function(*arguments)
        assert direct.dtype == torch.float32
        close(torch.func.vmap(function)(*arguments), direct)
        if len(arguments) > 1:
            outer = function(arguments[0][:, None], *(a[None] for a in arguments[1:]))
            close(outer.diagonal(dim1=0, dim2=1).movedim(-1, 0), direct)
            close(function(arguments[0][0], *arguments[1:])[0], direct[0])


def test_compiles_as_one_graph() -> None:
    x, y = random_points(4), random_points(4, seed=1)

    def all_of_it(x: Tensor, y: Tensor) -> Tensor:
        u = M.logmap(M.projx(x), y)
        return M.dist(x, M.compose(M.expmap(x, u), M.screw_expmap(x, M.screw_logmap(x, y))))

    close(torch.compile(all_of_it, fullgraph=True, backend="eager")(x, y), all_of_it(x, y))


def test_facts_and_errors() -> None:
    assert (M.dim, tuple(M.event_shape), M.length, M.volume) == (6, (4, 4), 2.5, None)
    assert M.injectivity_radius == math.pi
    assert repr(M) == "SE3(length=2.5)"
    with pytest.raises(ValueError, match="length must be positive"):
        SE3(0.0)
    with pytest.raises(ValueError, match="uniform"):
        M.random_uniform(3)
