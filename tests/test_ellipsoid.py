"""Ellipsoids: the earth against geographiclib, closed forms against others, the laws, a flow."""

import math

import pytest
import torch
from geographiclib.geodesic import Geodesic

import rfm
from manifolds import WGS84_AXES, Ellipsoid, LevelSet, Sphere
from manifolds.level_sets.ellipsoid import ellipsoid_area
from manifolds.testing import LAWS, check_manifold
from rfm.networks import VelocityField

UNIT_EARTH = tuple(a / WGS84_AXES[0] for a in WGS84_AXES)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def karney(earth, x, y):
    """Distances in metres and initial azimuths in degrees, to nanometres (Karney 2013)."""
    rows = torch.stack([*earth.to_geodetic(x), *earth.to_geodetic(y)], dim=-1).tolist()
    found = [Geodesic.WGS84.Inverse(*row) for row in rows]
    return tuple(torch.tensor([f[key] for f in found], dtype=torch.float64) for key in ("s12", "azi1"))


@pytest.fixture(scope="module")
def earth():
    return Ellipsoid(WGS84_AXES, nodes=16)


def test_distances_on_the_earth_are_geographiclibs(earth):
    x, y = (earth.random_uniform(150, generator=seeded(i), dtype=torch.float64) for i in (0, 1))
    u, converged = earth.solve_logmap(x, y)
    distance, azimuth = karney(earth, x, y)
    assert converged[distance < earth.logmap_radius].all()
    # A metre is asked for; 16 nodes and steps give a centimetre.
    assert (earth.norm(x, u) - distance)[converged].abs().max() < 0.01
    east = torch.nn.functional.normalize(torch.stack([-x[:, 1], x[:, 0], 0 * x[:, 0]], dim=-1), dim=-1)
    north = torch.linalg.cross(earth.normal(x), east)
    own = torch.rad2deg(torch.atan2((u * east).sum(-1), (u * north).sum(-1)))
    turn = torch.remainder(own - azimuth + 180, 360) - 180
    assert (torch.deg2rad(turn).abs() * distance)[converged].max() < 1.0
    assert (earth.expmap(x, u) - y)[converged].norm(dim=-1).max() < 0.01


def test_short_distances_keep_their_digits(earth):
    x = earth.random_uniform(50, generator=seeded(), dtype=torch.float64)
    direction = earth.proju(x, torch.randn(50, 3, generator=seeded(1), dtype=torch.float64))
    for metres in (1.0, 1000.0):
        y = earth.expmap(x, metres * direction / direction.norm(dim=-1, keepdim=True))
        assert (earth.dist(x, y) - metres).abs().max() < 1e-7
        assert (karney(earth, x, y)[0] - metres).abs().max() < 1e-7


def test_near_the_antipode_what_is_found_is_stated(earth):
    x = earth.random_uniform(80, generator=seeded(), dtype=torch.float64)
    latitude, longitude = earth.to_geodetic(x)
    noise = 2 * torch.randn(2, 80, generator=seeded(1), dtype=torch.float64)
    y = earth.from_geodetic((-latitude + noise[0]).clamp(-90, 90), longitude + 180 + noise[1])
    distance = karney(earth, x, y)[0]
    u, converged = earth.solve_logmap(x, y)
    within = distance < earth.logmap_radius
    assert 20 < within.sum() < 80
    assert converged[within].all()
    assert (earth.norm(x, u) - distance)[within].abs().max() < 1.0
    # Beyond, a geodesic is connecting but need not be the shortest: never shorter.
    excess = (earth.norm(x, u) - distance)[converged & ~within]
    assert excess.min() > -1.0
    assert excess.max() < 60_000
    assert torch.equal(earth.logmap(x, y).isnan().any(-1), ~converged)


def test_geodetic_coordinates(earth):
    latitude = torch.tensor([0.0, 90.0, -45.0, 51.4779], dtype=torch.float64)
    longitude = torch.tensor([0.0, 0.0, 180.0, -0.0015], dtype=torch.float64)
    x = earth.from_geodetic(latitude, longitude)
    earth.check_point(x)
    assert torch.allclose(x[0], torch.tensor([6378137.0, 0, 0], dtype=torch.float64))
    assert torch.allclose(x[1], torch.tensor([0, 0, 6356752.314245179], dtype=torch.float64), atol=1e-8)
    again = earth.to_geodetic(x)
    assert (again[0] - latitude).abs().max() < 1e-12
    assert (again[1] - longitude)[[0, 2, 3]].abs().max() < 1e-12
    with pytest.raises(ValueError, match="use point_with_normal"):
        Ellipsoid((3.0, 2.0, 1.0)).from_geodetic(latitude, longitude)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("axes", [(3.0, 2.0, 1.0), (1.0, 2.0), (2.0, 1.0, 1.0, 0.5), (1.0, 1.0, 1.0)])
def test_projx_is_the_nearest_point_from_anywhere(axes, dtype):
    m, n, eps = Ellipsoid(axes), len(axes), torch.finfo(dtype).eps
    z = 1.5 * torch.randn(200, n, generator=seeded(), dtype=dtype)
    z[0] = 0.0
    z[1] = torch.eye(n)[0] / 10
    x = m.projx(z)
    m.check_point(x)
    assert torch.equal(m.projx(x), x)
    assert m.proju(x, z - x).norm(dim=-1).max() < 30 * eps
    others = m.random_uniform(2000, generator=seeded(1), dtype=dtype)
    assert (
        (z - x).norm(dim=-1) <= torch.cdist(z, others, compute_mode="donot_use_mm_for_euclid_dist").amin(-1) + 10 * eps
    ).all()


def test_projx_has_the_derivative_of_the_nearest_point():
    m = Ellipsoid((3.0, 2.0, 1.0))
    z = 2 * torch.randn(10, 3, generator=seeded(), dtype=torch.float64)
    v = torch.randn(10, 3, generator=seeded(1), dtype=torch.float64)
    h = 1e-5
    for at in (z, m.projx(z)):
        forward = torch.func.jvp(m.projx, (at,), (v,))[1]
        difference = (m.projx(at + h * v) - m.projx(at - h * v)) / (2 * h)
        assert (forward - difference).norm(dim=-1).max() < 1e-6 * (1 + forward.norm(dim=-1).max())
        pulled = torch.func.vjp(m.projx, at)[1](v)[0]
        assert (pulled * v).sum() == pytest.approx(float((forward * v).sum()), rel=1e-9)


def test_areas():
    assert ellipsoid_area((1.0, 1.0, 1.0)) == pytest.approx(4 * math.pi, rel=1e-14)
    assert ellipsoid_area((1.0,) * 6) == pytest.approx(math.pi**3, rel=1e-13)
    # Prolate and oblate spheroids in closed form; the perimeter of an ellipse; the earth of the survey, in m^2.
    e = math.sqrt(1 - 1 / 4)
    assert ellipsoid_area((1.0, 1.0, 2.0)) == pytest.approx(2 * math.pi * (1 + 2 / e * math.asin(e)), rel=1e-13)
    assert ellipsoid_area((2.0, 2.0, 1.0)) == pytest.approx(
        2 * math.pi * 4 * (1 + (1 - e * e) / e * math.atanh(e)), rel=1e-13
    )
    assert ellipsoid_area((1.0, 2.0)) == pytest.approx(9.688448220547675, rel=1e-13)
    assert ellipsoid_area(WGS84_AXES) == pytest.approx(510_065_621_724_088.44, rel=1e-13)
    lines = LevelSet(
        lambda x: (x / x.new_tensor((3.0, 2.0, 1.0))).square().sum(-1) - 1, 3, radius=3.0, curvature=3.0, volume=1.0
    )
    estimate, error = lines.estimate_volume(8192, generator=seeded())
    assert abs(estimate - ellipsoid_area((3.0, 2.0, 1.0))) < 5 * error


def test_draws_are_uniform_in_area():
    m = Ellipsoid((3.0, 2.0, 1.0))
    x = m.random_uniform(20_000, generator=seeded(), dtype=torch.float64)
    s = Sphere(2).random_uniform(20_000, generator=seeded(1), dtype=torch.float64)
    axes = torch.tensor(m.axes, dtype=torch.float64)
    weight = (s / axes).norm(dim=-1)
    for i in range(3):
        expected = (weight * (axes * s)[:, i] ** 2).mean() / weight.mean()
        assert (x[:, i].square().mean() - expected).abs() < 8 * x[:, i].square().std() / math.sqrt(20_000)
    assert m.random_uniform(2, 0, 3).shape == (2, 0, 3, 3)


def test_an_ellipse_is_a_circle_by_length():
    m = Ellipsoid((1.0, 2.0))
    assert m.injectivity_radius == pytest.approx(9.688448220547675 / 2)
    x = m.random_uniform(30, generator=seeded(), dtype=torch.float64)
    y = m.random_uniform(30, generator=seeded(1), dtype=torch.float64)
    a = torch.linspace(0, 1, 20001, dtype=torch.float64)
    first, second = (torch.atan2(p[:, 1] / 2, p[:, 0])[:, None] for p in (x, y))
    angles = first + a * (second - first)
    arc = torch.trapezoid(torch.sqrt(torch.sin(angles) ** 2 + 4 * torch.cos(angles) ** 2), angles, dim=-1).abs()
    arc = torch.minimum(arc, m.volume - arc)
    near = arc < m.logmap_radius
    assert (m.dist(x, y) - arc)[near].abs().max() < 1e-4


def test_logarithms_on_a_sphere_are_the_spheres():
    m = Ellipsoid((1.0, 1.0, 1.0))
    x = m.random_uniform(10, generator=seeded(), dtype=torch.float64)
    y = m.random_uniform(10, generator=seeded(1), dtype=torch.float64)
    assert (m.logmap(x, y) - Sphere(2).logmap(x, y)).norm(dim=-1).max() < 1e-8


def test_bad_axes_are_named():
    for axes in ((1.0,), (1.0, -2.0), (1.0, math.inf)):
        with pytest.raises(ValueError, match="axes must be at least two positive numbers"):
            Ellipsoid(axes)


def test_saved_flows_know_ellipsoids(tmp_path):
    m = Ellipsoid(UNIT_EARTH, nodes=16)
    with torch.random.fork_rng():
        field = VelocityField(m, width=16, depth=1, features=16, max_frequency=4.0)
    flow = rfm.Flow(m, field, rfm.sources.Uniform(m))
    flow.save(tmp_path / "flow")
    again = rfm.Flow.load(tmp_path / "flow")
    assert isinstance(again.manifold, Ellipsoid)
    assert again.manifold.axes == m.axes
    assert again.manifold.nodes == 16


# The laws of the volume ask for a hundred thousand distances; draws and areas are tested above.
SOME = tuple(law for law in LAWS if law.name not in ("random_uniform is uniform", "the uniform density is normalised"))


@pytest.mark.slow
def test_ellipsoid_keeps_the_laws():
    m = Ellipsoid((1.1, 1.0, 0.9), steps=6, nodes=10, rounds=4)
    # Nearer than the cut locus, so that few nodes are enough.
    m.injectivity_radius, m.logmap_radius = 1.0, 0.9
    check_manifold(m, samples=6, laws=SOME).raise_if_failed()


@pytest.mark.slow
def test_maps_compile():
    m = Ellipsoid((1.1, 1.0, 0.9), steps=1, nodes=4, rounds=1)
    x, y = m.random_uniform(2, 4, generator=seeded(), dtype=torch.float64)
    t = torch.full((4,), 0.3, dtype=torch.float64)
    for name, arguments in (
        ("projx", (2 * x,)),
        ("logmap", (x, y)),
        ("geodesic", (x, y, t)),
        ("transp", (x, y, 0 * x)),
    ):
        torch.compiler.reset()
        compiled = torch.compile(getattr(m, name), fullgraph=True, backend="eager")(*arguments)
        for got, expected in zip(compiled, getattr(m, name)(*arguments), strict=True):
            assert torch.allclose(got, expected, atol=1e-9, equal_nan=True)


@pytest.mark.slow
def test_a_flow_trains_on_the_earth():
    m = Ellipsoid(UNIT_EARTH, nodes=12, rounds=4)
    centre = m.from_geodetic(torch.tensor(35.7), torch.tensor(139.7))
    data = m.projx(centre + 0.2 * torch.randn(300, 3, generator=seeded()))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        field = VelocityField(m, width=32, depth=2, features=32, max_frequency=4.0)
    flow = rfm.fit(
        data, m, field=field, steps=100, batch_size=64, training=rfm.Training(learning_rate=1e-2), progress=False
    )
    assert flow.log_prob(data[:50]).mean() > -math.log(m.volume) + 1.0
    samples = flow.sample(50, generator=seeded(1))
    m.check_point(samples, tol=1e-5)
    assert (m.dist(centre, samples) < 1.0).float().mean() > 0.5
