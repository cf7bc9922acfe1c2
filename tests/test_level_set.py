"""Level sets: laws with the curvature against them, references in closed form, failures per sample, a flow."""

import math

import pytest
import torch
from torch import nn

import rfm
from manifolds import Ellipsoid, LevelSet, Sphere
from manifolds.level_sets.collocation import Collocation
from manifolds.testing import check_manifold
from rfm.networks import VelocityField


def sphere(x):
    return x.square().sum(-1) - 1


def torus(x):
    """Of revolution: the circle of radius 1 about (2, 0), turned about the third axis."""
    return (torch.sqrt(x[..., 0] ** 2 + x[..., 1] ** 2) - 2) ** 2 + x[..., 2] ** 2 - 1


def two_circles(x):
    """Two equations in R^4: the flat torus."""
    return torch.stack([x[..., :2].square().sum(-1) - 1, x[..., 2:].square().sum(-1) - 1], dim=-1)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def angles(x):
    return torch.stack([torch.atan2(x[..., 1], x[..., 0]), torch.atan2(x[..., 3], x[..., 2])], dim=-1)


@pytest.fixture(scope="module")
def tori():
    return LevelSet(torus, 3, radius=3.1, curvature=1.0, volume=8 * math.pi**2, rounds=6)


@pytest.fixture(scope="module")
def flat():
    return LevelSet(two_circles, 4, radius=1.5, curvature=1.0, volume=4 * math.pi**2)


# Laws.


@pytest.mark.slow
def test_sphere_keeps_the_laws():
    m = LevelSet(sphere, 3, radius=1.1, curvature=1.0, steps=6, nodes=8, rounds=4)
    m.logmap_radius = 1.0
    names = (
        "projx",
        "proju",
        "expmap",
        "acceleration",
        "speed",
        "logmap inverts",
        "logmap keeps",
        "arrives",
        "distance is",
    )
    laws = [law for law in check_laws() if law.name.startswith(names)]
    report = check_manifold(m, samples=6, laws=laws)
    report.raise_if_failed()
    assert len(report.held) > 10


@pytest.mark.slow
def test_a_set_without_symmetries_keeps_every_law():
    """Not a quadric, not of constant curvature, and nothing stated that could be measured."""

    def dented(x):
        return x.square().sum(-1) + 0.3 * x[..., 0] * x[..., 1] * x[..., 2] - 1

    report = check_manifold(LevelSet(dented, 3, radius=1.5, steps=8, nodes=8, rounds=4))
    report.raise_if_failed()
    assert {"random_uniform is uniform", "methods work under torch.func"} <= set(report.held)


def check_laws():
    from manifolds.testing import LAWS

    return LAWS


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_projx_is_the_nearest_point(tori, dtype):
    x = tori.random_uniform(50, generator=seeded(), dtype=dtype)
    normal = x - tori.proju(x, torch.randn(x.shape, generator=seeded(1), dtype=dtype))
    unit = nn.functional.normalize(normal - tori.proju(x, normal), dim=-1)
    eps = torch.finfo(dtype).eps
    # The torus has reach 1: up to there the nearest point of one moved along its normal is where it was.
    assert (tori.projx(x + 0.4 * unit) - x).norm(dim=-1).max() < 200 * eps
    once = tori.projx(x + 0.1 * torch.randn(x.shape, generator=seeded(2), dtype=dtype))
    assert once.dtype == dtype
    assert torch.equal(tori.projx(once), once)
    tori.check_point(once)


@pytest.mark.slow
def test_projx_has_the_derivative_of_the_nearest_point(tori):
    x = tori.random_uniform(6, generator=seeded(), dtype=torch.float64)
    near = x + 0.2 * torch.randn(x.shape, generator=seeded(1), dtype=torch.float64)
    v = torch.randn(x.shape, generator=seeded(2), dtype=torch.float64)
    for at in (x, near):
        forward = torch.func.jvp(tori.projx, (at,), (v,))[1]
        h = 1e-4
        difference = (tori.projx(at + h * v) - tori.projx(at - h * v)) / (2 * h)
        assert (forward - difference).abs().max() < 1e-6
        pulled = torch.func.vjp(tori.projx, at)[1](v)[0]
        assert ((pulled * v).sum() - (forward * v).sum()).abs() < 1e-10
        second = torch.func.jvp(lambda a: torch.func.jvp(tori.projx, (a,), (v,))[1], (at,), (v,))[1]
        bend = (tori.projx(at + h * v) - 2 * tori.projx(at) + tori.projx(at - h * v)) / h**2
        assert (second - bend).abs().max() < 1e-4 * second.abs().max()


def test_where_newton_finds_nothing_projx_is_nan_for_that_sample_alone():
    m = LevelSet(sphere, 3, curvature=1.0)
    z = m.projx(torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]]))
    assert z[0].isnan().all()
    assert torch.equal(z[1], torch.tensor([1.0, 0.0, 0.0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_maps_are_the_spheres(dtype):
    m, s = LevelSet(sphere, 3, curvature=1.0, nodes=12, rounds=6), Sphere(2)
    x, y = (s.random_uniform(40, generator=seeded(i), dtype=dtype) for i in (0, 1))
    tol = 2e-5 if dtype == torch.float32 else 1e-9
    u, converged = m.solve_logmap(x, y)
    near = s.dist(x, y) < 3.0
    assert converged[near].all()
    assert (u - s.logmap(x, y))[near].norm(dim=-1).max() < tol
    assert (m.dist(x, y) - s.dist(x, y))[near].abs().max() < tol
    t = torch.rand(40, generator=seeded(2), dtype=dtype)
    for got, expected in zip(m.geodesic(x, y, t), s.geodesic(x, y, t), strict=True):
        assert (got - expected)[near].norm(dim=-1).max() < 10 * tol
    v = s.logmap(x, y) / 2
    for got, expected in zip(m.shoot(x, v, t), s.shoot(x, v, t), strict=True):
        assert (got - expected).norm(dim=-1).max() < tol
    w = s.proju(x, torch.randn(40, 3, generator=seeded(3), dtype=dtype))
    assert (m.transp(x, y, w) - s.transp(x, y, w))[near].norm(dim=-1).max() < 10 * tol
    assert (m.log_det_expmap(x, v) - s.log_det_expmap(x, v)).abs().max() < 10 * tol
    assert torch.equal(m.dist(x, x), torch.zeros(40, dtype=dtype))


def test_several_equations(flat):
    x, y = (flat.projx(torch.randn(20, 4, generator=seeded(i), dtype=torch.float64)) for i in (0, 1))
    difference = torch.remainder(angles(y) - angles(x) + math.pi, 2 * math.pi) - math.pi
    u, converged = flat.solve_logmap(x, y)
    minimal = converged & (difference.norm(dim=-1) < flat.logmap_radius)
    assert minimal.sum() > 10
    assert (u.norm(dim=-1) - difference.norm(dim=-1))[minimal].abs().max() < 1e-8
    assert (flat.expmap(x, u) - y)[converged].norm(dim=-1).max() < 1e-7
    basis = flat.tangent_basis(x)
    assert (basis @ basis.mT - torch.eye(2, dtype=torch.float64)).abs().max() < 1e-12
    assert flat.greatest_curvature(x).max() <= math.sqrt(2) + 1e-9


def test_slopes_of_the_acceleration_are_its_derivatives(tori, flat):
    plane = LevelSet(lambda x: x.sum(-1) - 1, 3, curvature=1e-9)
    for m in (tori, flat, plane, Ellipsoid((3.0, 2.0, 1.0))):
        shape = (2, 3, m.n)
        x, v = (torch.randn(shape, generator=seeded(i), dtype=torch.float64) for i in (0, 1))
        equations = m._equations
        value, *slopes = equations.acceleration_slopes(x, v)
        for i, e in enumerate(torch.eye(2 * m.n, dtype=torch.float64)):
            along = (e[: m.n].expand(shape).contiguous(), e[m.n :].expand(shape).contiguous())
            expected = torch.func.jvp(equations.acceleration, (x, v), along)
            assert torch.allclose(value, expected[0], atol=1e-12)
            assert torch.allclose(slopes[i // m.n][..., i % m.n], expected[1], atol=1e-12)
        live = equations.acceleration_slopes(x.clone().requires_grad_(), v)
        assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(live, (value, *slopes), strict=True))


def test_parameters_of_a_constraint_have_gradients():
    size = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    m = LevelSet(lambda x: x.square().sum(-1) - size.to(x).square(), 3, curvature=1.0)
    x = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    y = m.expmap(x, torch.tensor([0.5, 0.0, 0.0], dtype=torch.float64))
    # The point that is at radius 1 is put onto the sphere of the other radius.
    assert torch.autograd.grad((y * y).sum() / 2, size)[0] == pytest.approx(1.0)


def test_geodesics_of_a_torus_keep_clairauts_constant(tori):
    x = tori.random_uniform(20, generator=seeded(), dtype=torch.float64)
    u = tori.proju(x, torch.randn(20, 3, generator=seeded(1), dtype=torch.float64))
    u = 3 * u / u.norm(dim=-1, keepdim=True)
    y, v = tori.shoot(x, u, torch.ones(()))
    momentum = [p[:, 0] * w[:, 1] - p[:, 1] * w[:, 0] for p, w in ((x, u), (y, v))]
    assert (momentum[0] - momentum[1]).abs().max() < 1e-9
    assert (v.norm(dim=-1) - 3).abs().max() < 1e-13
    # Within the stated radius the logarithm is the inverse.
    assert (tori.logmap(x, y) - u).norm(dim=-1).max() < 1e-7


@pytest.mark.slow
def test_derivatives_of_logmap_and_geodesic(tori):
    x = tori.random_uniform(5, generator=seeded(), dtype=torch.float64)
    u = tori.proju(x, torch.randn(5, 3, generator=seeded(1), dtype=torch.float64))
    y = tori.expmap(x, u / u.norm(dim=-1, keepdim=True))
    a, b = (tori.proju(p, torch.randn(5, 3, generator=seeded(i), dtype=torch.float64)) for i, p in ((2, x), (3, y)))
    t = torch.full((5,), 0.3, dtype=torch.float64)

    def f(s):
        p, q = tori.projx(x + s[:, None] * a), tori.projx(y + s[:, None] * b)
        return torch.cat([tori.logmap(p, q), *tori.geodesic(p, q, t), tori.transp(p, q, tori.proju(p, a))], dim=-1)

    zero, one, h = t * 0, torch.ones_like(t), 1e-3
    forward = torch.func.jvp(f, (zero,), (one,))[1]
    difference = (8 * (f(zero + h) - f(zero - h)) - (f(zero + 2 * h) - f(zero - 2 * h))) / (12 * h)
    assert (forward - difference).abs().max() < 1e-6
    weights = torch.randn(forward.shape, generator=seeded(4), dtype=torch.float64)
    assert (torch.func.vjp(f, zero)[1](weights)[0] - (weights * forward).sum(-1)).abs().max() < 1e-9
    # Position and velocity belong together.
    slope = torch.func.jvp(lambda s: tori.geodesic(x, y, s), (t,), (one,))[1][0]
    assert (slope - tori.geodesic(x, y, t)[1]).abs().max() < 1e-8
    # And at coincident points, where the derivative of the logarithm is the identity.
    along = torch.func.jvp(lambda p: tori.logmap(x, tori.projx(p)), (x,), (a,))[1]
    assert (along - a).abs().max() < 1e-9


@pytest.mark.slow
def test_batches_broadcast_and_map(tori):
    x = tori.random_uniform(2, 1, generator=seeded(), dtype=torch.float64)
    y = tori.random_uniform(3, generator=seeded(1), dtype=torch.float64)
    t = torch.linspace(0, 1, 3, dtype=torch.float64)
    position, velocity = tori.geodesic(x, y, t)
    assert position.shape == velocity.shape == (2, 3, 3)
    assert (position[:, 0] - x[:, 0]).abs().max() < 1e-12
    assert (position[:, -1] - y[-1]).abs().max() < 1e-12
    assert tori.dist(x, y).shape == (2, 3)
    assert tori.projx(x[0, 0]).shape == (3,)
    assert tori.logmap(x[:0], y).shape == (0, 3, 3)
    mapped = torch.func.vmap(tori.expmap)(y, tori.proju(y, y.roll(1, 0)))
    assert (mapped - tori.expmap(y, tori.proju(y, y.roll(1, 0)))).abs().max() < 1e-12
    assert (torch.func.vmap(tori.logmap)(y, y.roll(1, 0)) - tori.logmap(y, y.roll(1, 0))).abs().max() < 1e-8


@pytest.mark.slow
def test_maps_compile():
    m = LevelSet(sphere, 3, curvature=1.0, steps=1, nodes=4, rounds=1)
    x = Sphere(2).random_uniform(4, generator=seeded(), dtype=torch.float64)
    u = Sphere(2).proju(x, x.roll(1, 0))
    for name, arguments in (("projx", (1.1 * x,)), ("proju", (x, x.roll(1, 0))), ("expmap", (x, u))):
        torch.compiler.reset()
        compiled = torch.compile(getattr(m, name), fullgraph=True, backend="eager")(*arguments)
        assert torch.allclose(compiled, getattr(m, name)(*arguments), atol=1e-10)


# Failures.


def test_two_components_have_no_geodesic_between_them():
    m = LevelSet(lambda x: (x[..., 0].square() - 4).square() + 4 * x[..., 1:].square().sum(-1) - 1, 3, curvature=8.0)
    x = m.projx(torch.tensor([[1.5, 0.2, 0.1], [1.5, 0.2, 0.1]], dtype=torch.float64))
    y = m.projx(torch.tensor([[1.6, 0.25, 0.1], [-1.5, 0.2, 0.1]], dtype=torch.float64))
    u, converged = m.solve_logmap(x, y)
    assert converged.tolist() == [True, False]
    log = m.logmap(x, y)
    assert torch.equal(log[0], u[0])
    assert log[1].isnan().all()


def test_a_failed_sample_leaves_the_gradients_of_others_alone():
    m = LevelSet(lambda x: (x[..., 0].square() - 4).square() + 4 * x[..., 1:].square().sum(-1) - 1, 3, curvature=8.0)
    x = m.projx(torch.tensor([[1.5, 0.2, 0.1], [1.5, 0.2, 0.1]], dtype=torch.float64)).requires_grad_()
    y = m.projx(torch.tensor([[1.6, 0.25, 0.1], [-1.5, 0.2, 0.1]], dtype=torch.float64))
    u, converged = m.solve_logmap(x, y)
    gradient = torch.autograd.grad(u[converged].square().sum(), x)[0]
    assert gradient[0].isfinite().all()
    assert gradient[0].norm() > 0.01


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"constraint must turn points \(\*batch, 3\)"):
        LevelSet(lambda x: x.sum(), 3)
    with pytest.raises(ValueError, match="leave no manifold"):
        LevelSet(lambda x: x, 3)
    with pytest.raises(ValueError, match="radius must be positive"):
        LevelSet(sphere, 3, radius=-1.0)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        LevelSet(sphere, 3, steps=0)
    with pytest.raises(ValueError, match="no point with constraint"):
        LevelSet(lambda x: x.square().sum(-1) + 1, 3)
    with pytest.raises(ValueError, match="raise crossings"):
        LevelSet(torus, 3, radius=3.1, curvature=1.0, crossings=2)
    with pytest.raises(ValueError, match="state radius="):
        LevelSet(sphere, 3, curvature=1.0).estimate_volume()
    with pytest.raises(ValueError, match="no uniform distribution"):
        LevelSet(sphere, 3, curvature=1.0).random_uniform(2)


# Volume and draws.


@pytest.mark.parametrize(
    ("constraint", "n", "radius", "volume"),
    [(sphere, 2, 1.3, 2 * math.pi), (sphere, 4, 1.5, 2 * math.pi**2), (torus, 3, 3.2, 8 * math.pi**2)],
)
def test_volume_is_estimated_with_its_standard_error(constraint, n, radius, volume):
    m = LevelSet(constraint, n, radius=radius, curvature=1.0, volume=1.0)
    estimate, error = m.estimate_volume(8192, generator=seeded())
    assert 0 < error < 0.03 * volume
    assert abs(estimate - volume) < 5 * error


def test_volume_is_set_at_construction():
    m = LevelSet(sphere, 3, radius=1.2)
    assert 0 < m.volume_standard_error < 0.01 * m.volume
    assert abs(m.volume - 4 * math.pi) < 5 * m.volume_standard_error
    assert m.injectivity_radius is None
    assert m.logmap_radius == pytest.approx(0.9 * math.pi / 1.25)


def test_draws_on_the_torus_are_uniform_in_area(tori):
    x = tori.random_uniform(4000, generator=seeded())
    assert x.dtype == torch.float32
    tori.check_point(x)
    # Of the area 2 pi (2 + cos a) da, the part inside the circle of radius 2 is 1/2 - 1/(2 pi) of the whole.
    inside = (x[:, :2].norm(dim=-1) < 2).double().mean()
    assert abs(inside - (0.5 - 1 / (2 * math.pi))) < 5 * 0.5 / math.sqrt(4000)
    assert x.mean(0).norm() < 5 * 1.6 / math.sqrt(4000)
    before = torch.get_rng_state()
    assert torch.equal(tori.random_uniform(2, 3, generator=seeded(5)), tori.random_uniform(2, 3, generator=seeded(5)))
    assert torch.equal(before, torch.get_rng_state())
    assert tori.random_uniform(0).shape == (0, 3)


@pytest.mark.slow
def test_chains_are_uniform():
    """The ellipse x^2 + 4 y^2 = 1 in a plane of R^3: uniform in length, which a projected Gaussian is not."""

    def ellipse(x):
        return torch.stack([x[..., 0].square() + 4 * x[..., 1].square() - 1, x[..., 2] - x[..., 0]], dim=-1)

    m = LevelSet(ellipse, 3, radius=1.5, curvature=2.0, volume=1.0)
    x = m.random_uniform(500, generator=seeded(), dtype=torch.float64)
    m.check_point(x)
    a = torch.linspace(0, 2 * math.pi, 20001, dtype=torch.float64)[:-1]
    speed = torch.sqrt(2 * torch.sin(a) ** 2 + torch.cos(a) ** 2 / 4)
    expected = (torch.cos(a) ** 2 * speed).sum() / speed.sum()
    got = x[:, 0].square()
    assert (got.mean() - expected).abs() < 5 * got.std() / math.sqrt(500)


# Parts, and a flow.


def test_collocation_is_exact_for_polynomials():
    rule = Collocation(6, 8)
    t = rule.nodes
    w = (1 + 2 * t - 12 * t**2)[:, None]
    x, y = torch.tensor([2.0], dtype=torch.float64), torch.tensor([5.0], dtype=torch.float64)

    def position(s):
        return 2 + (3 - 0.5 - 1 / 3 + 1) * s + s**2 / 2 + s**3 / 3 - s**4

    assert (rule.curve(x, y, w)[0][:, 0] - position(t)).abs().max() < 1e-14
    s = torch.tensor(0.37, dtype=torch.float64)
    slope = torch.func.jvp(position, (s,), (torch.ones_like(s),))
    assert torch.allclose(torch.stack(rule.at(x, y, w, s))[:, 0], torch.stack(slope), atol=1e-13)
    assert (rule.fit(x, y, position(rule.stations)[:, None]) - w).abs().max() < 1e-11


def small_field(m):
    return VelocityField(m, width=32, depth=2, features=32, max_frequency=4.0)


@pytest.mark.slow
def test_a_flow_trains_on_a_torus():
    m = LevelSet(torus, 3, radius=3.1, curvature=1.0, volume=8 * math.pi**2, nodes=10, rounds=4)
    data = m.projx(torch.tensor([3.0, 0.0, 0.0]) + 0.4 * torch.randn(300, 3, generator=seeded()))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        field = small_field(m)
    flow = rfm.fit(
        data, m, field=field, steps=60, batch_size=48, training=rfm.Training(learning_rate=1e-2), progress=False
    )
    log_density = flow.log_prob(data[:50])
    uniform = -math.log(m.volume)
    assert log_density.mean() > uniform + 0.5
    samples = flow.sample(50, generator=seeded(1))
    m.check_point(samples, tol=1e-5)
    near = (samples - torch.tensor([3.0, 0.0, 0.0])).norm(dim=-1) < 1.5
    assert near.float().mean() > 0.4


def test_a_flow_on_a_level_set_is_loaded_with_its_manifold(tmp_path):
    m = LevelSet(sphere, 3, radius=1.1, curvature=1.0, volume=4 * math.pi)
    with torch.random.fork_rng():
        flow = rfm.Flow(m, small_field(m), rfm.sources.Uniform(m))
    flow.save(tmp_path / "flow")
    with pytest.raises(ValueError, match="pass it"):
        rfm.Flow.load(tmp_path / "flow")
    again = rfm.Flow.load(tmp_path / "flow", manifold=m)
    x = m.random_uniform(3, generator=seeded())
    t = torch.full((3,), 0.5)
    assert torch.equal(again.field(x, t), flow.field(x, t))
