"""Quotients by finite groups: the groups, the laws up to the group, and what networks read."""

import math

import pytest
import torch

from manifolds import FlatTorus, Manifold, Sphere
from manifolds.composed.finite_group import Antipodal, FiniteGroup, LeftMultiplication, RightMultiplication
from manifolds.composed.power import Power
from manifolds.composed.product import Product
from manifolds.composed.quotient import Quotient
from manifolds.rotations.rotation_group import Cyclic, Dihedral, Icosahedral, Octahedral, RotationGroup, Tetrahedral
from manifolds.rotations.special_euclidean import SE3
from manifolds.rotations.special_orthogonal import SO3

# The first forward-mode derivative of a process compiles torch's own decompositions with torch.jit.script.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

DTYPES = [torch.float32, torch.float64]
ROTATIONS = [
    (Cyclic(1), 1),
    (Cyclic(2), 2),
    (Cyclic(3), 3),
    (Cyclic(6), 6),
    (Dihedral(2), 4),
    (Dihedral(3), 6),
    (Dihedral(6), 12),
    (Tetrahedral(), 12),
    (Octahedral(), 24),
    (Icosahedral(), 60),
]


class HalfTurns(FiniteGroup):
    """All of the torus's angles together by half a turn, as a user would write it: neither push nor invariants."""

    def __init__(self, n):
        super().__init__(2, (n,))
        self.n = n
        self.displacement = math.pi * math.sqrt(n)

    def orbit(self, x):
        return torch.stack([x, FlatTorus(self.n).projx(x + math.pi)], dim=-2)


class Reflection(FiniteGroup):
    """Of the sphere in the plane normal to the first axis: an element with fixed points, whose push is not given."""

    def __init__(self):
        super().__init__(2, (3,))

    def orbit(self, x):
        return torch.stack([x, torch.cat([-x[..., :1], x[..., 1:]], dim=-1)], dim=-2)


SPACES: dict[str, Quotient] = {
    "axes in space": Quotient(Sphere(2), Antipodal(2)),
    "lines in R^5": Quotient(Sphere(4), Antipodal(4)),
    "cubic crystal": Quotient(SO3(), RightMultiplication(Octahedral())),
    "hexagonal crystal": Quotient(SO3(), RightMultiplication(Dihedral(6))),
    "cubic sample": Quotient(SO3(), LeftMultiplication(Octahedral())),
    "cubic body": Quotient(SE3(2.0), RightMultiplication(Octahedral(), 4)),
    "hexagonal scene": Quotient(SE3(), LeftMultiplication(Dihedral(6), 4)),
    "half turns": Quotient(FlatTorus(3), HalfTurns(3)),
    "half a sphere": Quotient(Sphere(2), Reflection()),
}


@pytest.fixture(params=SPACES, ids=lambda name: name.replace(" ", "_"))
def m(request) -> Quotient:
    return SPACES[request.param]


@pytest.fixture(params=DTYPES, ids=["float32", "float64"])
def dtype(request) -> torch.dtype:
    return request.param


def rounding(dtype, units=1.0):
    return units * torch.finfo(dtype).eps


def randn(*shape, seed=11, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def points(m: Manifold, *shape, seed=0, dtype=torch.float64):
    return m.projx(m.projx(randn(*shape, *m.event_shape, seed=seed, dtype=dtype)))


def images(m: Quotient, x):
    """The orbit with the order first: ``(order, *batch, *event_shape)``."""
    return m.group.orbit(x).movedim(-1 - len(m.event_shape), 0)


def angle(matrices):
    return torch.acos(((matrices.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).clamp(-1, 1))


# The groups of rotations.


@pytest.mark.parametrize(("group", "order"), ROTATIONS, ids=repr)
def test_rotation_groups_are_groups(group: RotationGroup, order):
    g = group.matrices
    assert g.shape == (order, 3, 3)
    assert g.dtype == torch.float64
    assert torch.equal(g[0], torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(torch.linalg.det(g), torch.ones(order, dtype=torch.float64))
    apart = (g[:, None] - g).abs().amax((-1, -2)) + torch.eye(order)
    assert apart.min() > 0.1
    products = (g[:, None] @ g).flatten(0, 1)
    assert (products[:, None] - g).abs().amax((-1, -2)).amin(-1).max() < 4e-15
    assert (g.mT[:, None] - g).abs().amax((-1, -2)).amin(-1).max() < 1e-15
    if order > 1:
        assert group.smallest_angle == pytest.approx(float(angle(g[1:]).min()))


@pytest.mark.parametrize(("group", "order"), ROTATIONS, ids=repr)
def test_invariants_separate_the_cosets(group: RotationGroup, order):
    so3 = SO3()
    x, y = points(so3, 400), points(so3, 400, seed=1)
    e = group.invariants(x)
    assert e.shape == (400, group.invariant_dim)
    torch.testing.assert_close(
        group.invariants(x[:, None] @ group.matrices), e[:, None].expand(-1, order, -1), rtol=0, atol=5e-15
    )
    # Not only different for different cosets: the distance between invariants is at least 0.6 of that between cosets,
    # at random pairs and at close ones.
    near = x @ torch.linalg.matrix_exp(1e-3 * (a := randn(400, 3, 3, seed=2)) - 1e-3 * a.mT)
    for other in (y, near):
        apart = angle(x[:, None].mT @ other[:, None] @ group.matrices).amin(-1)
        ratio = (e - group.invariants(other)).norm(dim=-1) / apart
        assert ratio.min() > 0.6
        assert ratio.max() < 6


@pytest.mark.parametrize(("group", "rate"), [(Tetrahedral(), 4), (Octahedral(), 20 / 3), (Icosahedral(), 14)], ids=repr)
def test_invariants_of_the_solids_keep_small_distances_up_to_a_factor(group, rate):
    # A harmonic of degree l has the squared rate l (l + 1) / 3: degrees 3, 4 and 6 here.
    so3 = SO3()
    x = points(so3, 50)
    u = so3.proju(x, randn(50, 3, 3))
    moved = torch.func.jvp(group.invariants, (x,), (u,))[1]
    torch.testing.assert_close(moved.norm(dim=-1), math.sqrt(rate) * so3.norm(x, u))
    assert (
        group.invariants(so3.random_uniform(10_000, generator=torch.Generator().manual_seed(0))).mean(0).norm() < 0.03
    )


@pytest.mark.parametrize("n", [1, 2, 5])
def test_invariants_of_antipodes_are_unit_vectors(n):
    sphere, group = Sphere(n), Antipodal(n)
    x = points(sphere, 20)
    u = sphere.proju(x, randn(20, n + 1))
    torch.testing.assert_close(group.invariants(x).norm(dim=-1), torch.ones(20, dtype=torch.float64))
    moved = torch.func.jvp(group.invariants, (x,), (u,))[1]
    torch.testing.assert_close(moved.norm(dim=-1), math.sqrt(2 + 2 / n) * sphere.norm(x, u))


def test_group_elements_keep_float64_when_a_model_is_cast():
    m = SPACES["hexagonal crystal"]
    x = points(m, 20)
    before = m.embed(x), m.dist(x, points(m, 20, seed=1))
    m.to(torch.float32).to(torch.float16)
    after = m.embed(x), m.dist(x, points(m, 20, seed=1))
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert m.state_dict() == {}


# The laws.


def test_points_of_a_class_are_one_point(m, dtype):
    x, y = points(m, 50, dtype=dtype), points(m, 50, seed=1, dtype=dtype)
    dist = m.dist(x, y)
    assert dist.dtype == dtype
    assert (m.dist(x, x) == 0).all()
    for gx in images(m, x):
        m.check_point(gx)
        assert m.dist(x, gx).max() < rounding(dtype, 50)
        torch.testing.assert_close(m.dist(gx, y), dist, rtol=0, atol=rounding(dtype, 50))
        torch.testing.assert_close(m.dist(y, gx), dist, rtol=0, atol=rounding(dtype, 50))


def test_distance_is_the_minimum_and_a_metric(m):
    x, y, z = (points(m, 100, seed=seed) for seed in range(3))
    expected = torch.stack([m.m.dist(x, gy) for gy in images(m, y)]).amin(0)
    torch.testing.assert_close(m.dist(x, y), expected)
    assert (m.dist(x, z) <= m.dist(x, y) + m.dist(y, z) + 1e-12).all()


def test_log_reaches_the_class_by_a_shortest_way(m, dtype):
    x, y = points(m, 100, dtype=dtype), points(m, 100, seed=1, dtype=dtype)
    u = m.logmap(x, y)
    m.check_tangent(x, u)
    assert u.dtype == dtype
    assert m.dist(m.expmap(x, u), y).max() < rounding(dtype, 100)
    torch.testing.assert_close(m.norm(x, u), m.dist(x, y), rtol=0, atol=rounding(dtype, 50))


def test_geodesics(m):
    x, y = points(m, 50), points(m, 50, seed=1)
    speed = m.dist(x, y)
    for t in (0.0, 0.4, 1.0):
        time = torch.full((50,), t, dtype=torch.float64)
        x_t, dx_t = m.geodesic(x, y, time)
        torch.testing.assert_close(m.norm(x_t, dx_t), speed)
        torch.testing.assert_close(m.dist(x, x_t), t * speed, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(m.dist(x_t, y), (1 - t) * speed, rtol=1e-9, atol=1e-12)
        derivative = torch.func.jvp(lambda s: m.geodesic(x, y, s)[0], (time,), (torch.ones_like(time),))[1]
        torch.testing.assert_close(dx_t, derivative, rtol=1e-9, atol=1e-9)


def test_within_the_injectivity_radius_the_log_is_unique():
    expected = {"axes in space": math.pi / 2, "cubic crystal": math.pi / 4, "hexagonal crystal": math.pi / 6}
    for name, m in SPACES.items():
        radius = m.injectivity_radius
        if name in expected:
            assert radius == pytest.approx(expected[name])
        if radius is None:
            assert name == "half a sphere"
            continue
        x = points(m, 500)
        u = m.proju(x, randn(*x.shape))
        u = 0.999 * radius * u / m.m.lift(m.norm(x, u))
        for gy in images(m, m.expmap(x, u)):
            torch.testing.assert_close(m.logmap(x, gy), u, rtol=0, atol=1e-12)


def test_transport_does_not_depend_on_representatives(m):
    x, y = points(m, 50), points(m, 50, seed=1)
    u = m.proju(x, randn(*x.shape, seed=2))
    y_t, arriving = m.shoot(x, m.logmap(x, y), torch.ones(50, dtype=torch.float64))
    carried = m.transp(x, y, u)
    m.check_tangent(y, carried)
    torch.testing.assert_close(m.norm(y, carried), m.norm(x, u))
    pushed = m.group.push(x, u).movedim(-1 - len(m.event_shape), 0)
    for gx, gu in zip(images(m, x), pushed, strict=True):
        m.check_tangent(gx, gu)
        torch.testing.assert_close(m.transp(gx, y, gu), carried, rtol=1e-9, atol=1e-9)
    # The way's own velocity arrives as the velocity there.
    torch.testing.assert_close(m.transp(x, y_t, m.logmap(x, y)), arriving, rtol=1e-9, atol=1e-9)


def test_densities_are_with_respect_to_the_full_volume(m):
    assert m.volume == m.m.volume
    if m.volume is None:
        return
    y = m.random_uniform(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # The uniform density, 1 / volume, gives the ball of radius r of the quotient the mass of group.order balls of m.
    x, r = points(m, seed=1), 0.3
    if m.injectivity_radius is not None and r < m.injectivity_radius:
        inside, one = (m.dist(x, y) < r).double().mean(), (m.m.dist(x, y) < r).double().mean()
        error = 5 * math.sqrt(float(inside) / 20_000) + 5 * m.group.order * math.sqrt(float(one) / 20_000)
        assert float(inside) == pytest.approx(m.group.order * float(one), abs=error)


# What networks read, and what they return.


def test_embed_is_invariant_and_separates(m):
    x, y = points(m, 400), points(m, 400, seed=1)
    e = m.embed(x)
    assert e.shape == (400, m.embed_dim)
    for gx in images(m, x):
        torch.testing.assert_close(m.embed(gx), e, rtol=0, atol=1e-13)
    near = m.expmap(x, 1e-3 * m.proju(x, randn(*x.shape, seed=2)))
    for other in (y, near):
        ratio = (m.embed(other) - e).norm(dim=-1) / m.dist(x, other)
        # An embedding has no derivative across a mirror: only pairs off it are separated at this rate.
        assert ratio.median() > 0.2
        assert ratio.min() > (0.1 if m.injectivity_radius is not None else 1e-3)


def test_embed_has_a_derivative_of_full_rank(m):
    if m.injectivity_radius is None:
        pytest.skip("the group has fixed points")
    x = points(m, 50)
    basis = m.tangent_basis(x).movedim(1, 0)
    columns = torch.func.vmap(lambda e: torch.func.jvp(m.embed, (x,), (e,))[1])(basis).movedim(0, -1)
    assert torch.linalg.svdvals(columns)[:, -1].min() > 0.2


def test_tangent_from_vector_is_equivariant(m):
    x = points(m, 50)
    matrix, phase = randn(m.embed_dim, m.embed_dim), 3 * randn(m.embed_dim, seed=12)

    def field(z):
        return m.tangent_from_vector(z, torch.cos(m.embed(z) @ matrix + phase))

    u = field(x)
    m.check_tangent(x, u)
    assert m.norm(x, u).median() > 0.1
    pushed = m.group.push(x, u).movedim(-1 - len(m.event_shape), 0)
    for gx, gu in zip(images(m, x), pushed, strict=True):
        torch.testing.assert_close(field(gx), gu, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.func.vmap(field)(x), u)
    assert torch.isfinite(torch.func.jvp(field, (x,), (u,))[1]).all()


# Shapes, torch.func, compilation, gradients.


def test_batches_broadcast(m):
    x, y = points(m, 5), points(m, 4, 1, seed=1)
    t = torch.full((3, 1, 1), 0.3, dtype=torch.float64)
    assert m.dist(x, y).shape == m.dist(y, x).shape == (4, 5)
    assert m.logmap(x, y).shape == m.logmap(y, x).shape == (4, 5, *m.event_shape)
    assert m.geodesic(x, y, t)[0].shape == (3, 4, 5, *m.event_shape)
    assert m.transp(x, y, m.logmap(x, y)).shape == (4, 5, *m.event_shape)
    assert m.transp(x, y, m.logmap(x, x)).shape == (4, 5, *m.event_shape)
    torch.testing.assert_close(m.dist(x[2], y[1, 0]), m.dist(x, y)[1, 2])
    assert m.embed(x[0]).shape == (m.embed_dim,)
    h = torch.zeros(4, 1, m.embed_dim, dtype=torch.float64)
    assert m.tangent_from_vector(x, h).shape == (4, 5, *m.event_shape)


def test_functions_of_torch_func(m):
    x, y = points(m, 6), points(m, 6, seed=1)
    for name in ("dist", "logmap", "nearest"):
        method = getattr(m, name)
        torch.testing.assert_close(torch.func.vmap(method)(x, y), method(x, y))
    u = m.logmap(x, y)
    torch.testing.assert_close(torch.func.vmap(m.transp)(x, y, u), m.transp(x, y, u))
    torch.testing.assert_close(torch.func.vmap(m.embed)(x), m.embed(x))


def test_gradients(m):
    x, y = points(m, 20), points(m, 20, seed=1)
    u = m.proju(x, randn(*x.shape, seed=2))
    slope = torch.func.jvp(lambda z: m.dist(z, y), (x,), (u,))[1]
    torch.testing.assert_close(slope, -m.inner(x, u, m.logmap(x, y)) / m.dist(x, y), rtol=1e-7, atol=1e-7)
    for target in (x, images(m, x)[-1]):
        for argnum in (0, 1):
            gradient = torch.func.grad(lambda a, b: m.dist(a, b).sum(), argnums=argnum)(x, target)
            assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", ["cubic crystal", "half turns"])
def test_compiles_without_breaks(name):
    m = SPACES[name]

    def step(x, y, t):
        x_t, dx_t = m.geodesic(x, y, t)
        return m.dist(x, y), x_t, m.embed(x_t), m.norm(x_t, dx_t), m.tangent_from_vector(x, m.embed(y))

    args = (points(m, 5), points(m, 5, seed=1), torch.full((5,), 0.3, dtype=torch.float64))
    compiled = torch.compile(step, fullgraph=True, backend="eager")
    for mine, theirs in zip(step(*args), compiled(*args), strict=True):
        torch.testing.assert_close(theirs, mine)


# Poses, products, errors.


@pytest.mark.parametrize("act", [LeftMultiplication, RightMultiplication])
def test_poses_of_a_symmetric_body(act):
    group = act(Octahedral(), 4)
    rotation, shift = points(SO3(), 50), randn(50, 3)
    pose = torch.eye(4, dtype=torch.float64).repeat(50, 1, 1)
    pose[:, :3, :3], pose[:, :3, 3] = rotation, shift
    orbit = group.orbit(pose)
    assert orbit.shape == (50, 24, 4, 4)
    assert torch.equal(orbit[:, 0], pose)
    torch.testing.assert_close(orbit[..., 3, :], pose[:, None, 3].expand(50, 24, 4))
    moved = orbit[..., :3, 3] if act is RightMultiplication else orbit[..., :3, :3].mT @ orbit[..., :3, 3:]
    reference = shift if act is RightMultiplication else rotation.mT @ shift[..., None]
    torch.testing.assert_close(moved, reference[:, None].expand_as(moved))
    e = group.invariants(pose)
    assert e.shape == (50, group.invariant_dim)
    torch.testing.assert_close(group.invariants(orbit), e[:, None].expand(-1, 24, -1), rtol=0, atol=1e-13)
    assert ((e[:, None] - e).norm(dim=-1) + torch.eye(50)).min() > 0.1


def test_a_quotient_is_a_factor():
    axes = SPACES["axes in space"]
    m = Product(axes, FlatTorus(1), weights=(4.0, 1.0))
    x, y = points(m, 20), points(m, 20, seed=1)
    flipped = m.join(-m.split(y)[0], m.split(y)[1])
    torch.testing.assert_close(m.dist(x, y), m.dist(x, flipped))
    assert m.injectivity_radius == pytest.approx(math.pi)
    power = Power(axes, 3)
    z = points(power, 20)
    signs = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)[:, None]
    assert power.dist(z, signs * z).max() < 1e-15
    torch.testing.assert_close(power.embed(signs * z), power.embed(z))


def test_errors_and_arguments():
    with pytest.raises(ValueError, match=r"Antipodal\(3\) acts on points of shape \(4,\), those of Sphere\(2\)"):
        Quotient(Sphere(2), Antipodal(3))
    with pytest.raises(ValueError, match="n must be at least 2"):
        Dihedral(1)
    with pytest.raises(ValueError, match="size is 3"):
        RightMultiplication(Octahedral(), 5)
    with pytest.raises(TypeError, match="does not define orbit"):
        FiniteGroup(1, (3,)).orbit(torch.zeros(3))
    m = Quotient(SO3(), RightMultiplication(Dihedral(6)))
    assert repr(m) == "Quotient(SO3(), RightMultiplication(Dihedral(6)))"
    assert repr(Quotient(m.m, m.group)) == repr(m)
