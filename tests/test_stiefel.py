"""Stiefel manifolds: the solver's honesty, agreement with the sphere and the rotations, and with other libraries."""

import math
import os

import pytest
import torch
from random_fields import normal, points, tangents, wavy_field
from torch import Tensor

import rfm
from manifolds import SO3, Sphere, Stiefel
from manifolds.matrices import stiefel_log
from manifolds.matrices.orthonormal import polar
from manifolds.rotations import cross
from manifolds.testing import check_manifold
from rfm.networks import VelocityField
from rfm.sources import Uniform

# The first forward-mode derivative of a process compiles torch's own decompositions with torch.jit.script.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

SIZES = [(3, 1), (3, 2), (4, 2), (4, 3), (5, 3), (7, 3)]


def within(m: Stiefel, count: int, share: float, seed: int = 0, dtype: torch.dtype = torch.float64):
    """Return points and tangent vectors of length ``share * m.logmap_radius``, a part of them of low rank."""
    x = points(m, count, seed=seed, dtype=dtype)
    u = tangents(m, x, seed=seed + 1)
    third = count // 3
    line = normal(third, m.n, 1, seed=seed + 2, dtype=dtype) @ normal(third, 1, m.p, seed=seed + 3, dtype=dtype)
    u[:third] = line - x[:third] @ (x[:third].mT @ line)
    if m.p > 1:
        u[third : 2 * third] = x[third : 2 * third] @ (x[third : 2 * third].mT @ u[third : 2 * third])
    return x, share * m.logmap_radius * u / m.lift(m.norm(x, u))


# Laws, where the zoo is too quick.


@pytest.mark.slow
@pytest.mark.parametrize(("n", "p"), [(2, 1), (3, 1), (3, 2), (5, 3)])
def test_laws(n: int, p: int) -> None:
    check_manifold(Stiefel(n, p)).raise_if_failed()


@pytest.mark.slow
def test_methods_compile() -> None:
    m = Stiefel(4, 2)
    x, u = within(m, 4, 0.5)
    y = m.expmap(x, u)
    for f, arguments in ((m.expmap, (x, u)), (m.logmap, (x, y)), (m.dist, (x, y)), (m.projx, (x + 0.1 * u,))):
        torch.compiler.reset()
        compiled = torch.compile(f, fullgraph=True, backend="eager")
        assert torch.allclose(compiled(*arguments), f(*arguments), atol=1e-12)


# The solver.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "p"), SIZES)
def test_solver_finds_the_shortest_geodesic_within_its_radius(n: int, p: int, dtype: torch.dtype) -> None:
    m = Stiefel(n, p)
    eps = torch.finfo(dtype).eps
    for share in (1e-6, 0.3, 0.9, 0.99):
        x, u = within(m, 60, share, seed=n + p, dtype=dtype)
        y = m.expmap(x, u)
        log, converged = m.solve_logmap(x, y)
        assert converged.all()
        assert (m.expmap(x, log) - y).abs().max() < 100 * eps
        # Near conjugate points the velocity is less well determined than the end.
        assert (log - u).abs().max() < (1e3 if share < 0.9 else 1e4) * eps


@pytest.mark.parametrize(("n", "p"), [(4, 2), (5, 3), (7, 4)])
def test_solver_says_where_it_did_not_converge(n: int, p: int) -> None:
    m = Stiefel(n, p)
    x, y = points(m, 300, seed=1), points(m, 300, seed=2)
    log, converged = m.solve_logmap(x, y)
    miss = torch.linalg.vector_norm(m.expmap(x, log) - y, dim=(-2, -1))
    assert converged.float().mean() > 0.98
    assert miss[converged].max() < 1e-12
    assert torch.equal(m.logmap(x, y), log)


def test_an_interrupted_solver_does_not_claim_to_have_converged(monkeypatch: pytest.MonkeyPatch) -> None:
    m = Stiefel(4, 2)
    x, y = points(m, 100, seed=1), points(m, 100, seed=2)
    monkeypatch.setattr(stiefel_log, "_DESCENTS", 0)
    monkeypatch.setattr(stiefel_log, "_NEWTONS", 0)
    log, converged = m.solve_logmap(x, y)
    miss = torch.linalg.vector_norm(m.expmap(x, log) - y, dim=(-2, -1))
    assert not converged[miss > 1e-6].any()
    assert (miss > 1e-6).sum() > 50


@pytest.mark.parametrize(("n", "p"), [(4, 2), (5, 3), (6, 2), (5, 4)])
def test_derivative_of_the_solution_is_that_of_the_equation(n: int, p: int) -> None:
    """``D exp`` after ``D log`` is the identity, for far points and for both arguments."""
    m = Stiefel(n, p)
    x, y = points(m, 50, seed=3), points(m, 50, seed=4)
    x, y = (a[m.solve_logmap(x, y)[1]] for a in (x, y))
    dx, dy = tangents(m, x, seed=5), tangents(m, y, seed=6)
    path = torch.zeros(len(x), dtype=x.dtype)

    def end(s: Tensor) -> Tensor:
        a, b = m.projx(x + m.lift(s) * dx), m.projx(y + m.lift(s) * dy)
        return m.expmap(a, m.logmap(a, b))

    moved = torch.func.jvp(end, (path,), (torch.ones_like(path),))[1]
    errors = torch.linalg.vector_norm(moved - dy, dim=(-2, -1))
    # Far pairs may be next to conjugate points.
    assert errors.median() < 1e-10
    assert errors.max() < 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_coincident_opposite_and_broken_points(dtype: torch.dtype) -> None:
    m = Stiefel(4, 2)
    x = points(m, 3, dtype=dtype)
    assert torch.equal(m.dist(x, x), torch.zeros(3, dtype=dtype))
    log, converged = m.solve_logmap(x, -x)
    assert converged.all()
    assert (m.expmap(x, log) + x).abs().max() < 100 * torch.finfo(dtype).eps
    assert torch.allclose(m.norm(x, log), torch.full_like(m.norm(x, log), math.pi))
    y = x.clone()
    y[1, 0, 0] = torch.nan
    log, converged = m.solve_logmap(x, y)
    assert log.isfinite().all(-1).all(-1).tolist() == converged.tolist() == [True, False, True]


# Agreement with manifolds that have closed forms.


def test_one_column_is_the_sphere() -> None:
    m, sphere = Stiefel(4, 1), Sphere(3)
    x, u = within(m, 30, 0.95)
    y = m.expmap(x, u)
    assert torch.allclose(y[..., 0], sphere.expmap(x[..., 0], u[..., 0]), atol=1e-14)
    assert torch.allclose(m.logmap(x, y)[..., 0], sphere.logmap(x[..., 0], y[..., 0]), atol=1e-13)
    assert torch.allclose(m.dist(x, y), sphere.dist(x[..., 0], y[..., 0]), atol=1e-14)
    assert torch.allclose(m.log_det_expmap(x, u), sphere.log_det_expmap(x[..., 0], u[..., 0]), atol=1e-9)
    assert m.volume == pytest.approx(sphere.volume)


def test_two_columns_in_space_are_the_rotations() -> None:
    m, so3 = Stiefel(3, 2), SO3()
    r, s = points(so3, 40, seed=1), points(so3, 40, seed=2)
    x, y = r[..., :2].contiguous(), s[..., :2].contiguous()
    log = so3.logmap(r, s)
    assert torch.allclose(m.logmap(x, y), log[..., :2], atol=1e-11)
    assert torch.allclose(m.dist(x, y), so3.dist(r, s), atol=1e-13)
    assert torch.allclose(m.norm(x, log[..., :2]), so3.norm(r, log))
    assert torch.allclose(m.log_det_expmap(x, log[..., :2]), so3.log_det_expmap(r, log), atol=1e-10)
    third = cross(m.expmap(x, log[..., :2]).mT[..., :1, :], m.expmap(x, log[..., :2]).mT[..., 1:, :])
    assert torch.allclose(third[..., 0, :], s[..., 2], atol=1e-13)
    assert m.volume == pytest.approx(8 * math.pi**2)
    assert m.injectivity_radius == so3.injectivity_radius


def test_divergence_is_that_of_the_rotations() -> None:
    """The same field on ``Stiefel(3, 2)`` and on SO(3)."""
    m, so3 = Stiefel(3, 2), SO3()
    r = points(so3, 10)
    a = normal(3, 3, seed=3)

    def on_frames(x: Tensor, t: Tensor) -> Tensor:
        third = torch.linalg.cross(x[..., 0], x[..., 1], dim=-1)
        full = torch.cat([x, third[..., None]], dim=-1)
        return so3.proju(full, torch.sin(a @ full))[..., :2]

    def on_rotations(x: Tensor, t: Tensor) -> Tensor:
        return so3.proju(x, torch.sin(a @ x))

    t = torch.zeros(10, dtype=r.dtype)
    frames = rfm.divergence(on_frames, m, r[..., :2].contiguous(), t)[1]
    assert torch.allclose(frames, rfm.divergence(on_rotations, so3, r, t)[1], atol=1e-12)


def test_volume_is_that_of_the_invariant_differential_form() -> None:
    """It is ``2^p pi^(n p / 2) / Gamma_p(n / 2)``: Chikuse, Statistics on Special Manifolds, 2003, chapter 1."""
    for n, p in SIZES:
        gamma = p * (p - 1) / 4 * math.log(math.pi) + sum(math.lgamma((n - j) / 2) for j in range(p))
        form = math.exp(p * math.log(2) + n * p / 2 * math.log(math.pi) - gamma)
        assert Stiefel(n, p).volume == pytest.approx(form)


def test_uniform_draws_fill_a_ball_in_proportion_to_its_volume() -> None:
    """The share of draws within a radius, against the integral of the exponential map's determinant over volume."""
    m, radius, count = Stiefel(4, 2), 1.6, 4000
    draws = m.random_uniform(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.eye(4, 2, dtype=torch.float64)
    inside = (m.dist(x, draws) < radius).double()
    d = normal(count, m.dim, seed=7)
    d = d / torch.linalg.vector_norm(d, dim=-1, keepdim=True)
    r = radius * torch.rand(count, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64) ** (1 / m.dim)
    u = torch.einsum("bm,mij->bij", r * d, m.tangent_basis(x))
    ball = math.pi ** (m.dim / 2) / math.gamma(m.dim / 2 + 1) * radius**m.dim
    share = ball * torch.exp(m.log_det_expmap(x, u)) / m.volume
    error = math.sqrt(float(inside.var() / count + share.var() / count))
    assert error < 0.05 * float(share.mean())
    assert abs(float(inside.mean() - share.mean())) < 4 * error


def test_projection_is_the_nearest_frame_also_far_away() -> None:
    for scale in (1e-3, 1.0, 100.0):
        x = scale * normal(20, 5, 3, seed=1)
        near = polar(x)
        assert (near.mT @ near - torch.eye(3)).abs().max() < 1e-14
        stretch = near.mT @ x
        assert torch.allclose(stretch, stretch.mT, atol=1e-12 * scale)
        assert (torch.linalg.eigvalsh(stretch) > 0).all()
        dx = normal(20, 5, 3, seed=2)
        h = 1e-5 * scale
        slope = torch.func.jvp(polar, (x,), (dx,))[1]
        difference = (polar(x + h * dx) - polar(x - h * dx)) / (2 * h)
        assert (slope - difference).abs().max() < 1e-5 * max(1.0, 1 / scale)
    zero = polar(torch.zeros(1, 4, 2))
    assert (zero.mT @ zero - torch.eye(2)).abs().max() < 1e-6


# Densities.


@pytest.mark.parametrize(("n", "p"), [(3, 2), (4, 2)])
def test_density_of_a_random_field_integrates_to_one(n: int, p: int) -> None:
    m = Stiefel(n, p)
    flow = rfm.Flow(m, wavy_field(m, size=0.6), Uniform(m))
    x = m.random_uniform(600, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    density = torch.exp(flow.log_prob(x)) * m.volume
    error = float(density.std()) / math.sqrt(len(x))
    assert float(density.std()) > 0.05
    assert abs(float(density.mean()) - 1) < 4 * error


def test_a_flow_is_fitted() -> None:
    m = Stiefel(4, 2)
    centre = torch.eye(4, 2, dtype=torch.float64).expand(150, 4, 2)
    data = m.expmap(centre, 0.2 * tangents(m, centre))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        field = VelocityField(m, width=32, depth=1, features=16, max_frequency=2.0)
    flow = rfm.fit(
        data,
        m,
        field=field,
        steps=60,
        training=rfm.Training(learning_rate=1e-2, validations=2),
        batch_size=64,
        progress=False,
        device="cpu",
    )
    drawn = flow.sample(50, generator=torch.Generator().manual_seed(0))
    m.check_point(drawn)
    uniform = -math.log(m.volume)
    assert float(flow.log_prob(data[:50].float()).mean()) > uniform + 1
    assert float(m.dist(drawn, centre[0].float()).median()) < 0.8 * float(m.dist(centre[0], points(m, 50)).median())


# Refusals and references.


@pytest.mark.parametrize(("n", "p"), [(3, 3), (2, 3), (3, 0)])
def test_square_and_impossible_sizes_are_refused(n: int, p: int) -> None:
    with pytest.raises(ValueError, match=r"needs 1 <= p < n.*Stiefel\(n, n - 1\)"):
        Stiefel(n, p)


def test_metric_is_geoopts() -> None:
    """Its exponential map is a retraction, and its projection of a tangent vector doubles ``X A``."""
    geoopt = pytest.importorskip("geoopt")
    m = Stiefel(5, 3)
    x = points(m, 10)
    u, v = tangents(m, x, seed=1), tangents(m, x, seed=2)
    assert torch.allclose(m.inner(x, u, v), geoopt.CanonicalStiefel().inner(x, u, v))


@pytest.mark.filterwarnings("ignore")
def test_exponential_and_logarithm_are_those_of_geomstats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "GEOMSTATS_BACKEND", os.environ.get("GEOMSTATS_BACKEND", "pytorch"))
    stiefel = pytest.importorskip("geomstats.geometry.stiefel")
    import geomstats.backend as gs

    m = Stiefel(5, 2)
    metric = stiefel.StiefelCanonicalMetric(stiefel.Stiefel(5, 2, equip=False))
    # Of full rank: where K has rank one, its logarithm is zero.
    x = points(m, 5)
    u = tangents(m, x)
    u = u / m.lift(m.norm(x, u))
    y = m.expmap(x, u)
    for i in range(len(x)):
        a, b, w = (gs.array(z[i].tolist()) for z in (x, y, u))
        assert torch.allclose(torch.as_tensor(metric.exp(w, a)).double(), y[i], atol=1e-6)
        assert torch.allclose(torch.as_tensor(metric.log(b, a)).double(), m.logmap(x[i], y[i]), atol=1e-5)
