"""Grassmann manifolds: classes, principal angles, the cut locus, and agreement with projective space."""

import math
import os

import pytest
import torch
from random_fields import normal, points, tangents, wavy_field
from torch import Tensor

import rfm
from manifolds import Antipodal, Grassmann, Quotient, Sphere
from manifolds.testing import check_manifold
from rfm.networks import VelocityField
from rfm.sources import Uniform

# The first forward-mode derivative of a process compiles torch's own decompositions with torch.jit.script.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

SIZES = [(2, 1), (3, 1), (3, 2), (4, 2), (5, 3), (7, 2)]


def turned(m: Grassmann, x: Tensor, seed: int = 9) -> tuple[Tensor, Tensor]:
    """Return orthogonal matrices Q, of both determinants, and ``x Q``."""
    q = torch.linalg.qr(normal(*x.shape[:-2], m.p, m.p, seed=seed, dtype=x.dtype)).Q
    return q, x @ q


@pytest.mark.slow
@pytest.mark.parametrize(("n", "p"), [(2, 1), (3, 1), (3, 2), (5, 3)])
def test_laws(n: int, p: int) -> None:
    check_manifold(Grassmann(n, p)).raise_if_failed()


@pytest.mark.slow
def test_methods_compile() -> None:
    check_manifold(Grassmann(3, 2), compile=True).raise_if_failed()


# Classes.


@pytest.mark.parametrize(("n", "p"), SIZES)
def test_every_method_sees_the_class_only(n: int, p: int) -> None:
    m = Grassmann(n, p)
    x, y = points(m, 20, seed=1), points(m, 20, seed=2)
    u, w = tangents(m, x, seed=3), normal(20, m.field_dim, seed=4)
    q, xq = turned(m, x)
    _, yq = turned(m, y, seed=10)
    assert torch.allclose(m.embed(xq), m.embed(x), atol=1e-14)
    assert torch.allclose(m.dist(xq, yq), m.dist(x, y), atol=1e-13)
    assert m.dist(x, xq).max() < 1e-14
    assert torch.allclose(m.logmap(x, yq), m.logmap(x, y), atol=1e-12)
    assert torch.allclose(m.logmap(xq, y), m.logmap(x, y) @ q, atol=1e-12)
    assert torch.allclose(m.embed(m.expmap(xq, u @ q)), m.embed(m.expmap(x, u)), atol=1e-13)
    assert torch.allclose(m.log_det_expmap(xq, u @ q), m.log_det_expmap(x, u), atol=1e-10)
    assert torch.allclose(m.tangent_from_vector(xq, w), m.tangent_from_vector(x, w) @ q, atol=1e-13)
    q_y, carried = turned(m, y, seed=10)[0], m.transp(x, y, u)
    assert torch.allclose(m.transp(x, yq, u), carried @ q_y, atol=1e-12)


def test_fields_of_networks_turn_with_the_basis() -> None:
    m = Grassmann(4, 2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        field = VelocityField(m, width=16, depth=1, features=8, max_frequency=2.0).double()
        for parameter in field.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    x, t = points(m, 8), torch.linspace(0, 1, 8, dtype=torch.float64)
    q, xq = turned(m, x)
    u = field(x, t)
    assert torch.allclose(field(xq, t), u @ q, atol=1e-12)
    assert u.abs().max() > 0.1
    assert torch.allclose(rfm.divergence(field, m, xq, t)[1], rfm.divergence(field, m, x, t)[1], atol=1e-10)


# Principal angles.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distance_is_the_norm_of_the_principal_angles(dtype: torch.dtype) -> None:
    """Down to tiny angles, with full relative accuracy."""
    m = Grassmann(5, 2)
    for first, second in ((1.2, 0.3), (1.57, 1.5), (1e-3, 1e-4), (1e-6, 0.0)):
        angles = torch.tensor([first, second], dtype=dtype)
        x = torch.eye(5, 2, dtype=dtype)
        y = torch.zeros(5, 2, dtype=dtype)
        y[:2], y[2:4] = torch.diag(torch.cos(angles)), torch.diag(torch.sin(angles))
        expected = float(torch.linalg.vector_norm(angles))
        assert float(m.dist(x, y)) == pytest.approx(expected, rel=20 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("angles", [(math.pi / 2, 0.3), (math.pi / 2, math.pi / 2), (math.pi / 2, 0.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logarithm_arrives_at_the_cut_locus(angles: tuple[float, float], dtype: torch.dtype) -> None:
    m = Grassmann(5, 2)
    theta = torch.tensor(angles, dtype=dtype)
    x, y = torch.eye(5, 2, dtype=dtype), torch.zeros(5, 2, dtype=dtype)
    y[:2], y[2:4] = torch.diag(torch.cos(theta)), torch.diag(torch.sin(theta))
    log = m.logmap(x, y)
    assert float(m.dist(m.expmap(x, log), y)) < 20 * torch.finfo(dtype).eps
    assert float(m.norm(x, log)) == pytest.approx(math.hypot(*angles), rel=1e-6)
    gradient = torch.func.grad(lambda a: m.logmap(x, a).sum())(y)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(("n", "p"), [(4, 2), (5, 3)])
def test_derivative_of_the_logarithm_also_with_equal_angles(n: int, p: int) -> None:
    m = Grassmann(n, p)
    x = points(m, 6, seed=1)
    u = tangents(m, x, seed=2)
    left, _, right = torch.linalg.svd(u, full_matrices=False)
    equal = torch.linspace(0.1, 1.4, 6, dtype=torch.float64)[:, None, None] * (
        left[..., : n - p] @ right[..., : n - p, :]
    )
    for log in (equal, 0.5 * u / m.lift(m.norm(x, u))):
        y = m.expmap(x, m.proju(x, log))
        dx, dy = tangents(m, x, seed=3), tangents(m, y, seed=4)

        def along(s: Tensor, y: Tensor = y, dx: Tensor = dx, dy: Tensor = dy) -> Tensor:
            a = m.projx(x + m.lift(s) * dx)
            return m.logmap(a, m.projx(y + m.lift(s) * dy))

        zero, h = torch.zeros(6, dtype=torch.float64), 1e-4
        slope = torch.func.jvp(along, (zero,), (torch.ones_like(zero),))[1]
        difference = (8 * (along(zero + h) - along(zero - h)) - along(zero + 2 * h) + along(zero - 2 * h)) / (12 * h)
        assert (slope - difference).abs().max() < 1e-8 * (1 + float(slope.abs().max()))


# Agreement with projective space.


def test_one_dimensional_subspaces_are_axes() -> None:
    m, axes = Grassmann(3, 1), Quotient(Sphere(2), Antipodal(2))
    x, y = points(m, 30, seed=1), points(m, 30, seed=2)
    assert torch.allclose(m.dist(x, y), axes.dist(x[..., 0], y[..., 0]), atol=1e-14)
    log = m.logmap(x, y)
    assert torch.allclose(log[..., 0], axes.logmap(x[..., 0], y[..., 0]), atol=1e-13)
    assert torch.allclose(m.log_det_expmap(x, log), axes.log_det_expmap(x[..., 0], log[..., 0]), atol=1e-12)
    # The quotient counts both ends of an axis.
    assert m.volume == pytest.approx(axes.volume / axes.points_per_class)
    assert Grassmann(2, 1).volume == pytest.approx(math.pi)


def test_complements_have_the_same_geometry() -> None:
    """``Grassmann(n, p)`` and ``Grassmann(n, n - p)`` are isometric."""
    m, dual = Grassmann(5, 2), Grassmann(5, 3)
    x, y = points(m, 10, seed=1), points(m, 10, seed=2)
    across = [torch.linalg.qr(a, mode="complete").Q[..., 2:] for a in (x, y)]
    assert m.volume == pytest.approx(dual.volume)
    assert torch.allclose(m.dist(x, y), dual.dist(*across), atol=1e-13)
    log, log_across = m.logmap(x, y), dual.logmap(*across)
    assert torch.allclose(m.log_det_expmap(x, log), dual.log_det_expmap(across[0], log_across), atol=1e-10)


# Densities.


@pytest.mark.parametrize(("n", "p"), [(2, 1), (3, 1), (4, 2)])
def test_density_of_a_random_field_integrates_to_one(n: int, p: int) -> None:
    m = Grassmann(n, p)
    flow = rfm.Flow(m, wavy_field(m, size=0.5), Uniform(m))
    if n == 2:  # by the trapezoidal rule, exact for smooth periodic functions
        angle = math.pi / 64 * torch.arange(64, dtype=torch.float64)
        x = torch.stack([torch.cos(angle), torch.sin(angle)], dim=-1)[..., None]
        allowed = 1e-6
    else:
        x = m.random_uniform(600, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        allowed = None
    density = torch.exp(flow.log_prob(x)) * m.volume
    error = 4 * float(density.std()) / math.sqrt(len(x)) if allowed is None else allowed
    assert float(density.std()) > 0.05
    assert abs(float(density.mean()) - 1) < error


@pytest.mark.parametrize(("n", "p"), [(3, 1), (4, 2)])
def test_a_flow_is_fitted(n: int, p: int) -> None:
    m = Grassmann(n, p)
    centre = torch.eye(n, p, dtype=torch.float64).expand(150, n, p)
    data = turned(m, m.expmap(centre, 0.15 * tangents(m, centre)))[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        field = VelocityField(m, width=32, depth=1, features=16, max_frequency=2.0)
    few = rfm.Training(validations=2)
    flow = rfm.fit(data, m, field=field, steps=60, batch_size=64, training=few, progress=False, device="cpu")
    drawn = flow.sample(50, generator=torch.Generator().manual_seed(0))
    m.check_point(drawn)
    scores = flow.log_prob(data[:50].float())
    assert float(scores.mean()) > -math.log(m.volume) + 0.5
    again = turned(m, data[:50].float(), seed=11)[1]
    assert torch.allclose(flow.log_prob(again), scores, atol=1e-3)


# Refusals and references.


@pytest.mark.parametrize(("n", "p"), [(3, 3), (2, 3), (3, 0)])
def test_impossible_sizes_are_refused(n: int, p: int) -> None:
    with pytest.raises(ValueError, match="needs 1 <= p < n"):
        Grassmann(n, p)


def test_a_broken_matrix_spoils_itself_only() -> None:
    m = Grassmann(4, 2)
    x, y = points(m, 3, seed=1), points(m, 3, seed=2)
    y[1, 0, 0] = torch.nan
    for result in (m.logmap(x, y), m.transp(x, y, tangents(m, x)), m.projx(y)):
        assert result.isfinite().all(-1).all(-1).tolist() == [True, False, True]


@pytest.mark.filterwarnings("ignore")
def test_exponential_and_logarithm_are_those_of_geomstats(monkeypatch: pytest.MonkeyPatch) -> None:
    """On projectors: the velocity of X X' is U X' + X U'."""
    monkeypatch.setitem(os.environ, "GEOMSTATS_BACKEND", os.environ.get("GEOMSTATS_BACKEND", "pytorch"))
    grassmannian = pytest.importorskip("geomstats.geometry.grassmannian")
    import geomstats.backend as gs

    m = Grassmann(4, 2)
    metric = grassmannian.GrassmannianCanonicalMetric(grassmannian.Grassmannian(4, 2, equip=False))
    x = points(m, 5)
    u = tangents(m, x)
    u = 0.7 * u / m.lift(m.norm(x, u))
    y = m.expmap(x, u)
    for i in range(len(x)):
        a, b, w = (gs.array(z.tolist()) for z in (x[i] @ x[i].mT, y[i] @ y[i].mT, u[i] @ x[i].mT + x[i] @ u[i].mT))
        assert torch.allclose(torch.as_tensor(metric.exp(w, a)).double(), y[i] @ y[i].mT, atol=1e-6)
        log = m.logmap(x[i], y[i])
        assert torch.allclose(torch.as_tensor(metric.log(b, a)).double(), log @ x[i].mT + x[i] @ log.mT, atol=1e-5)
