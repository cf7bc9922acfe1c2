"""Products and powers: laws at random base points, and agreement with the factors."""

import math

import pytest
import torch

from manifolds import Euclidean, FlatTorus, Manifold, Sphere
from manifolds.composed.power import Power
from manifolds.composed.product import Product
from manifolds.rotations.special_euclidean import SE3
from manifolds.rotations.special_orthogonal import SO3
from manifolds.tangent_spaces import gram

# The first forward-mode derivative of a process compiles torch's own decompositions with torch.jit.script.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

DTYPES = [torch.float32, torch.float64]


class Funnel(Manifold):
    """The plane with the metric dx^2 + e^(2x) dy^2, a hyperbolic plane: not induced, not homogeneous in its chart."""

    def __init__(self):
        super().__init__(2, (2,))

    def projx(self, x):
        return x

    def proju(self, x, u):
        return u.expand(torch.broadcast_shapes(x.shape, u.shape))

    def inner(self, x, u, v):
        return u[..., 0] * v[..., 0] + torch.exp(2 * x[..., 0]) * u[..., 1] * v[..., 1]


SPACES: dict[str, Manifold] = {
    "sphere x torus x plane": Product(Sphere(2), FlatTorus(3), Euclidean(2), weights=(2.0, 0.5, 3.0)),
    "sphere x circle": Product(Sphere(3), FlatTorus(1)),
    "one factor": Product(Sphere(2), weights=[0.25]),
    "nested": Product(Product(FlatTorus(2), Sphere(1), weights=(1.0, 9.0)), Power(Sphere(2), 3)),
    "spheres": Power(Sphere(2), 4),
    "one copy": Power(FlatTorus(2), 1),
    "power of product": Power(Product(Sphere(2), Euclidean(1), weights=(1.0, 4.0)), 3),
    "power of power": Power(Power(Sphere(1), 2), 3),
    "rotation x sphere": Product(SO3(), Sphere(2), weights=(0.5, 2.0)),
    "rotations": Power(SO3(), 3),
    "poses": Power(SE3(2.0), 2),
}


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def points(m: Manifold, *shape, seed=0, dtype=torch.float64):
    return m.projx(m.projx(randn(*shape, *m.event_shape, seed=seed, dtype=dtype)))


def tangents(m: Manifold, x, seed=11, size=1.0):
    """Short enough, at size 1, to stay within the injectivity radius of the spaces here."""
    u = m.proju(x, randn(*x.shape, seed=seed, dtype=x.dtype))
    return size * 0.3 * u / m.norm(x, u)[(..., *(None,) * len(m.event_shape))]


@pytest.fixture(params=SPACES, ids=lambda name: name.replace(" ", "_"))
def m(request) -> Manifold:
    return SPACES[request.param]


@pytest.fixture(params=DTYPES, ids=["float32", "float64"])
def dtype(request) -> torch.dtype:
    return request.param


def rounding(dtype, units=1.0):
    return units * torch.finfo(dtype).eps


def test_projections(m, dtype):
    x = points(m, 50, dtype=dtype)
    u = tangents(m, x)
    m.check_point(x)
    m.check_tangent(x, u)
    assert x.dtype == u.dtype == dtype
    torch.testing.assert_close(m.projx(x), x, rtol=0, atol=rounding(dtype, 8))
    moved = m.expmap(x, u)
    m.check_point(moved)
    assert moved.dtype == dtype


def test_exp_and_log_are_inverse(m, dtype):
    x = points(m, 50, dtype=dtype)
    u = tangents(m, x)
    y = points(m, 50, seed=3, dtype=dtype)
    torch.testing.assert_close(m.logmap(x, m.expmap(x, u)), u, rtol=0, atol=rounding(dtype, 100))
    back = m.expmap(x, m.logmap(x, y))
    assert m.dist(back, y).max() < rounding(dtype, 300)


def test_distance_is_the_length_of_the_log_and_a_metric(m, dtype):
    x, y, z = (points(m, 50, seed=seed, dtype=dtype) for seed in (0, 1, 2))
    dist = m.dist(x, y)
    torch.testing.assert_close(dist, m.norm(x, m.logmap(x, y)), rtol=rounding(dtype, 100), atol=rounding(dtype, 100))
    torch.testing.assert_close(dist, m.dist(y, x), rtol=rounding(dtype, 100), atol=0)
    assert (m.dist(x, z) <= dist + m.dist(y, z) + rounding(dtype, 100)).all()
    assert dist.dtype == dtype
    assert dist.shape == (50,)


def test_distance_to_itself_is_exactly_zero():
    for m in (SPACES["sphere x torus x plane"], SPACES["nested"], SPACES["power of product"]):
        x = points(m, 100, dtype=torch.float32)
        assert (m.dist(x, x) == 0).all()


def test_squared_distance_is_the_weighted_sum():
    a, b, c = Sphere(2), FlatTorus(3), Euclidean(2)
    m = Product(a, b, c, weights=(2.0, 0.5, 3.0))
    x, y = points(m, 20), points(m, 20, seed=1)
    (xa, xb, xc), (ya, yb, yc) = m.split(x), m.split(y)
    expected = 2 * a.dist(xa, ya) ** 2 + 0.5 * b.dist(xb, yb) ** 2 + 3 * c.dist(xc, yc) ** 2
    torch.testing.assert_close(m.dist(x, y) ** 2, expected)
    torch.testing.assert_close(m.join(xa, xb, xc), x)


def test_geodesics_have_constant_speed_and_their_own_velocity(m):
    x, y = points(m, 20), points(m, 20, seed=1)
    speed = m.dist(x, y)
    for t in (0.0, 0.3, 1.0):
        time = torch.full((20,), t, dtype=x.dtype)
        x_t, dx_t = m.geodesic(x, y, time)
        torch.testing.assert_close(m.norm(x_t, dx_t), speed, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(m.dist(x, x_t), t * speed, rtol=1e-10, atol=1e-10)
        derivative = torch.func.jvp(lambda s: m.geodesic(x, y, s)[0], (time,), (torch.ones_like(time),))[1]
        torch.testing.assert_close(dx_t, derivative, rtol=1e-9, atol=1e-9)
        u = m.logmap(x, y)
        for mine, default in zip(m.shoot(x, u, time), Manifold.shoot(m, x, u, time), strict=True):
            torch.testing.assert_close(mine, default, rtol=1e-9, atol=1e-9)


def test_basis_is_orthonormal(m, dtype):
    x = points(m, 10, dtype=dtype)
    basis = m.tangent_basis(x)
    assert basis.shape == (10, m.dim, *m.event_shape)
    products = gram(m, x, basis)
    eye = torch.eye(m.dim, dtype=dtype).expand_as(products)
    torch.testing.assert_close(products, eye, rtol=0, atol=rounding(dtype, 20))
    for i in range(m.dim):
        m.check_tangent(x, basis[:, i])


def test_transport_keeps_lengths_and_carries_the_geodesic():
    for m in (SPACES["sphere x torus x plane"], SPACES["nested"], SPACES["power of product"]):
        x = points(m, 20)
        u, v = tangents(m, x), tangents(m, x, seed=2)
        y, arriving = m.shoot(x, u, torch.ones(20, dtype=x.dtype))
        torch.testing.assert_close(m.transp(x, y, u), arriving, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(m.inner(y, m.transp(x, y, u), m.transp(x, y, v)), m.inner(x, u, v))


def field_on(m: Manifold):
    """A smooth tangent field that mixes all coordinates."""
    matrix = randn(math.prod(m.event_shape), m.embed_dim, seed=7) / math.sqrt(m.embed_dim)

    def field(x):
        h = torch.sin(m.embed(x) @ matrix.mT + 0.3)
        return m.proju(x, h.reshape(*h.shape[:-1], *m.event_shape))

    return field


def divergence(m: Manifold, field, x):
    """The divergence by the frame and the derivative of the volume: sum_i <w_i, Dv e_i> + D_v log volume."""

    def along(e):
        return torch.func.jvp(field, (x,), (e,))[1]

    vectors, covectors = m.divergence_frame(x)
    first = -1 - len(m.event_shape)
    derivatives = torch.func.vmap(along, in_dims=first, out_dims=first)(vectors)
    return (derivatives * covectors).flatten(first).sum(-1) + m.log_volume_derivative(x, field(x))


def divergence_by_flow(m: Manifold, field, x):
    """The divergence as the trace of the derivative of the flow, by central differences in normal coordinates at x.

    It uses expmap, logmap and an orthonormal basis, and neither divergence_frame nor the derivative of the volume.
    """
    step, total = 1e-5, torch.zeros(m.batch_shape(x), dtype=x.dtype)
    for b in m.tangent_basis(x).unbind(-1 - len(m.event_shape)):
        ahead, behind = m.expmap(x, step * b), m.expmap(x, -step * b)
        change = m.logmap(x, m.expmap(ahead, step * field(ahead))) - m.logmap(x, m.expmap(behind, step * field(behind)))
        # In normal coordinates the volume's density is stationary at x, so that the divergence there is that of the
        # components; the base points ahead and behind are twice step * b apart.
        total = total + (m.inner(x, change, b) - 2 * step) / (2 * step * step)
    return total


def test_divergence_agrees_with_normal_coordinates(m):
    x = points(m, 4)
    field = field_on(m)
    torch.testing.assert_close(
        divergence(m, field, x), divergence_by_flow(m, field, x), rtol=1e-4, atol=3e-4 * math.sqrt(m.dim)
    )


def test_divergence_of_separate_fields_is_the_sum():
    a, b = Sphere(2), FlatTorus(2)
    m = Product(a, b, weights=(5.0, 0.2))
    field_a, field_b = field_on(a), field_on(b)
    x = points(m, 20)
    xa, xb = m.split(x)
    total = divergence(m, lambda z: m.join(field_a(m.split(z)[0]), field_b(m.split(z)[1])), x)
    torch.testing.assert_close(total, divergence(a, field_a, xa) + divergence(b, field_b, xb))


def test_divergence_with_a_metric_that_is_not_induced():
    m = Product(Funnel(), Euclidean(1), weights=(3.0, 1.0))
    x = randn(10, 3)
    # div v = d_x v_x + v_x + d_y v_y + d_z v_z, from the volume e^x dx dy dz.
    field = lambda z: torch.stack([z[..., 0] ** 2, z[..., 1] * z[..., 2], z[..., 0] * z[..., 2]], dim=-1)  # noqa: E731
    expected = 2 * x[:, 0] + x[:, 0] ** 2 + x[:, 2] + x[:, 0]
    torch.testing.assert_close(divergence(m, field, x), expected)
    power = Power(Funnel(), 3)
    y = randn(10, 3, 2)
    torch.testing.assert_close(divergence(power, lambda z: z.sin(), y), (y.cos().sum(-1) + y.sin()[..., 0]).sum(-1))
    for space in (m, power):
        assert not space.metric_is_induced


def test_metric_is_induced_only_with_induced_factors_of_weight_one():
    assert Product(Sphere(2), FlatTorus(1)).metric_is_induced
    assert not Product(Sphere(2), FlatTorus(1), weights=(1.0, 2.0)).metric_is_induced
    assert Power(Sphere(2), 3).metric_is_induced
    assert not Power(Product(Sphere(2), weights=(2.0,)), 3).metric_is_induced


def test_log_det_expmap_agrees_with_the_jacobian():
    for m in (SPACES["sphere x torus x plane"], SPACES["nested"], SPACES["power of product"], SPACES["spheres"]):
        x = points(m, 5)
        u = tangents(m, x, size=5.0)
        torch.testing.assert_close(m.log_det_expmap(x, u), Manifold.log_det_expmap(m, x, u), rtol=1e-8, atol=1e-10)


def test_volumes_and_injectivity_radii():
    m = Product(Sphere(2), FlatTorus(3), weights=(4.0, 9.0))
    assert m.volume == pytest.approx(4 * math.pi * 4.0 * (2 * math.pi) ** 3 * 27.0)
    assert m.injectivity_radius == pytest.approx(2 * math.pi)
    assert Product(Sphere(2), Euclidean(1)).volume is None
    assert Product(Sphere(2), Euclidean(1), weights=(1.0, 1e-6)).injectivity_radius == pytest.approx(math.pi)
    assert Product(Euclidean(2), Euclidean(1)).injectivity_radius == math.inf
    assert Product(Sphere(2), Funnel()).injectivity_radius is None
    assert Power(Sphere(2), 3).volume == pytest.approx((4 * math.pi) ** 3)
    assert Power(Sphere(2), 3).injectivity_radius == math.pi
    # Out of the range of a double, not an OverflowError.
    assert Power(Sphere(2), 1000).volume is None
    assert Power(Sphere(20), 1000).volume is None


def test_uniform_draws_are_uniform_and_repeatable():
    m = Product(Sphere(2), FlatTorus(1), weights=(1.0, 2.0))
    draw = m.random_uniform(20000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    m.check_point(draw)
    again = m.random_uniform(20000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(draw, again)
    sphere, circle = m.split(draw)
    height, turn = (sphere[:, 2] + 1) / 2, (circle[:, 0] + math.pi) / (2 * math.pi)
    # Uniform and independent: 16 cells, each with a sixteenth of the draws to 5 standard errors.
    cells = torch.bincount((4 * height).long() * 4 + (4 * turn).long(), minlength=16) / 20000
    assert ((cells - 1 / 16).abs() < 5 * math.sqrt(15 / 256 / 20000)).all()
    power = Power(Sphere(2), 3).random_uniform(20000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert power.shape == (20000, 3, 3)
    flat = power.flatten(1)
    covariance = flat.mT @ flat / 20000
    torch.testing.assert_close(covariance, torch.eye(9, dtype=torch.float64) / 3, rtol=0, atol=0.02)
    with pytest.raises(ValueError, match=r"Euclidean\(2\) has no uniform"):
        Product(Sphere(2), Euclidean(2)).random_uniform(3)


@pytest.mark.parametrize(
    "m", [Product(Sphere(2), FlatTorus(2), weights=(4.0, 0.5)), Power(Sphere(1), 3)], ids=["product", "power"]
)
def test_uniform_density_and_kernel_integrate(m):
    y = m.random_uniform(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, concentration = points(m), torch.tensor(2.0, dtype=torch.float64)
    kernel = torch.exp(-concentration / 2 * ((m.embed(x) - m.embed(y)) ** 2).sum(-1)) * m.volume
    log_normaliser = m.kernel.log_normaliser(concentration)
    error = 5 * float(kernel.std()) / math.sqrt(len(y))
    assert float(log_normaliser.exp()) == pytest.approx(float(kernel.mean()), abs=error)


def test_no_kernel_where_a_factor_has_none():
    concentration = torch.tensor(2.0)
    assert Product(Sphere(2), Funnel()).kernel is None
    assert Power(Funnel(), 2).kernel is None
    # A weight multiplies the volume: the Gaussian integral over R^2 with weight 3 is 3 times as large.
    value = Product(Euclidean(2), weights=(3.0,)).kernel.log_normaliser(concentration)
    torch.testing.assert_close(value, torch.tensor(math.log(3 * math.pi)))


def test_embed_joins_the_factors(m):
    x = points(m, 5)
    assert m.embed(x).shape == (5, m.embed_dim)


@pytest.mark.parametrize("one", [Sphere(2), FlatTorus(2), Product(Sphere(1), Euclidean(2), weights=(2.0, 3.0))])
def test_power_is_the_product_of_copies(one):
    power, product = Power(one, 3), Product(one, one, one)
    x, y = points(power, 10), points(power, 10, seed=1)
    u, t = tangents(power, x, size=4.0), torch.rand(10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    fx, fy, fu = x.flatten(-2), y.flatten(-2), u.flatten(-2)
    assert power.dim == product.dim
    assert power.volume == product.volume
    assert power.injectivity_radius == product.injectivity_radius
    for name, args, flat_args in [
        ("projx", (x + 0.1,), (fx + 0.1,)),
        ("proju", (x, y), (fx, fy)),
        ("expmap", (x, u), (fx, fu)),
        ("logmap", (x, y), (fx, fy)),
        ("transp", (x, y, u), (fx, fy, fu)),
        ("shoot", (x, u, t), (fx, fu, t)),
        ("geodesic", (x, y, t), (fx, fy, t)),
        ("tangent_basis", (x,), (fx,)),
        ("divergence_frame", (x,), (fx,)),
    ]:
        mine, theirs = getattr(power, name)(*args), getattr(product, name)(*flat_args)
        for a, b in zip(*((r if isinstance(r, tuple) else (r,)) for r in (mine, theirs)), strict=True):
            torch.testing.assert_close(a.flatten(-2), b)
    for name, args, flat_args in [
        ("inner", (x, u, u), (fx, fu, fu)),
        ("norm", (x, u), (fx, fu)),
        ("dist", (x, y), (fx, fy)),
        ("log_det_expmap", (x, u), (fx, fu)),
        ("log_volume_derivative", (x, u), (fx, fu)),
        ("embed", (x,), (fx,)),
    ]:
        torch.testing.assert_close(getattr(power, name)(*args), getattr(product, name)(*flat_args))


def test_batches_broadcast(m):
    x, y = points(m, 5), points(m, 4, 1, seed=1)
    t = torch.rand(3, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert m.dist(x, y).shape == (4, 5)
    assert m.logmap(x, y).shape == (4, 5, *m.event_shape)
    assert m.inner(x, m.logmap(x, y), m.logmap(x, y)).shape == (4, 5)
    x_t, dx_t = m.geodesic(x, y, t)
    assert x_t.shape == dx_t.shape == (3, 4, 5, *m.event_shape)
    single = m.geodesic(x[2], y[1, 0], t[0, 0, 0])[0]
    torch.testing.assert_close(x_t[0, 1, 2], single)
    assert m.tangent_basis(x[0]).shape == (m.dim, *m.event_shape)
    assert m.embed(points(m)).shape == (m.embed_dim,)


def test_functions_of_torch_func(m):
    x, y = points(m, 6), points(m, 6, seed=1)
    t = torch.full((6,), 0.4, dtype=torch.float64)
    torch.testing.assert_close(torch.func.vmap(m.dist)(x, y), m.dist(x, y))
    for mine, mapped in zip(m.geodesic(x, y, t), torch.func.vmap(m.geodesic)(x, y, t), strict=True):
        torch.testing.assert_close(mapped, mine)
    torch.testing.assert_close(torch.func.vmap(m.tangent_basis)(x), m.tangent_basis(x))
    field = field_on(m)
    torch.testing.assert_close(
        torch.func.vmap(lambda z: divergence(m, field, z))(x), divergence(m, field, x), rtol=1e-9, atol=1e-9
    )


def test_gradients_are_finite_where_points_coincide_in_one_factor_or_all(m):
    x, y = points(m, 4), points(m, 4, seed=1)
    if isinstance(m, Product):
        y = m.join(m.split(x)[0], *m.split(y)[1:])
    for target in (x, y):
        for argnum in (0, 1):
            gradient = torch.func.grad(lambda a, b: m.dist(a, b).sum(), argnums=argnum)(x, target)
            assert torch.isfinite(gradient).all()
        tangent = torch.func.jvp(lambda b: m.dist(x, b), (target,), (tangents(m, target),))[1]
        assert torch.isfinite(tangent).all()


def test_distance_gradient_is_minus_the_unit_log():
    m = SPACES["sphere x torus x plane"]
    x, y = points(m, 10), points(m, 10, seed=1)
    u = tangents(m, x)
    slope = torch.func.jvp(lambda z: m.dist(z, y), (x,), (u,))[1]
    torch.testing.assert_close(slope, -m.inner(x, u, m.logmap(x, y)) / m.dist(x, y))


@pytest.mark.parametrize("m", [Product(Sphere(2), FlatTorus(1), weights=(2.0, 1.0)), Power(Sphere(2), 3)], ids=repr)
def test_compiles_without_breaks(m):
    def step(x, y, t):
        x_t, dx_t = m.geodesic(x, y, t)
        return m.dist(x, y), x_t, m.embed(x_t), m.norm(x_t, dx_t), m.divergence_frame(x_t)[0]

    args = (points(m, 5), points(m, 5, seed=1), torch.full((5,), 0.3, dtype=torch.float64))
    compiled = torch.compile(step, fullgraph=True, backend="eager")
    for mine, theirs in zip(step(*args), compiled(*args), strict=True):
        torch.testing.assert_close(theirs, mine)


def test_power_makes_one_call_whatever_k_is():
    calls = []

    class Counted(Sphere):
        def expmap(self, x, u):
            calls.append(x.shape)
            return super().expmap(x, u)

    m = Power(Counted(2), 128)
    x = points(m, 2)
    m.expmap(x, tangents(m, x))
    assert calls == [(2, 128, 3)]


def test_errors_name_the_factor():
    m = Product(Sphere(2), FlatTorus(1))
    x = points(m, 3)
    x[1, 0] += 1
    with pytest.raises(ValueError, match=r"factor 0 of Product\(Sphere\(2\), FlatTorus\(1\)\): points of Sphere\(2\)"):
        m.check_point(x)
    y = points(m, 3)
    with pytest.raises(ValueError, match=r"factor 0 of .*: tangent vectors of Sphere\(2\)"):
        m.check_tangent(y, y)
    with pytest.raises(ValueError, match=r"points of Product\(.*\) have shape \(\*batch, 4\), got \(3, 3\)"):
        m.check_point(torch.zeros(3, 3))
    power = Power(Sphere(2), 2)
    z = points(power, 3)
    z[2, 1] *= 2
    with pytest.raises(ValueError, match=r"Power\(Sphere\(2\), 2\), whose copy is the last index: .* at index 2, 1 is"):
        power.check_point(z)


def test_constructors_refuse_nonsense_and_keep_their_arguments():
    with pytest.raises(ValueError, match="factors must be manifolds"):
        Product()
    with pytest.raises(ValueError, match="factors must be manifolds"):
        Product([Sphere(2)])
    for weights in [(1.0,), (1.0, 0.0), (1.0, -1.0), (1.0, math.nan), (1.0, math.inf)]:
        with pytest.raises(ValueError, match="weights must be one positive finite number per factor"):
            Product(Sphere(2), Sphere(2), weights=weights)
    with pytest.raises(ValueError, match="number of copies"):
        Power(Sphere(2), 0)
    with pytest.raises(ValueError, match="one part per factor"):
        Product(Sphere(2), Sphere(2)).join(torch.zeros(3))
    m = Product(Sphere(2), FlatTorus(1), weights=[2, 3])
    assert repr(Product(*m.factors, weights=m.weights)) == repr(m)
    assert repr(m) == "Product(Sphere(2), FlatTorus(1), weights=(2.0, 3.0))"
    power = Power(m, 3)
    assert (power.m, power.k) == (m, 3)
