"""Sets with a border: what lies in them, how far borders are, volumes, damping; against references and brute force."""

import math

import numpy as np
import pytest
import scipy.spatial
import shapely
import torch
from bounded_zoo import BOUNDED, COUNTRY, FRAME, HOOK, LAKE, PILLAR, WALLS, around, drawn, ring
from torch import Tensor

from manifolds import (
    Ball,
    Bounded,
    Box,
    Cap,
    Constraint,
    Euclidean,
    FlatTorus,
    JointLimits,
    PlanarPolygon,
    Polytope,
    Sphere,
    SphericalPolygon,
)
from rfm.regions import Polygon

EACH = pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in BOUNDED])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def near_border(m: Bounded, count: int, distance: float) -> Tensor:
    """Return points of a set at a distance inside its border."""
    x, _ = around(m, 40 * count)
    x = m.m.projx(x)
    return m.constraint.nearest(x[~m.constraint.contains(x)][:count], distance)


@EACH
def test_volume_is_the_share_of_points_inside(make: type) -> None:
    m = make()
    x, volume = around(m, 40_000)
    share = float(m.constraint.contains(m.m.projx(x)).double().mean())
    assert abs(share * volume - m.volume) < 4.5 * volume * math.sqrt(share * (1 - share) / len(x))


@EACH
def test_uniform_points_lie_inside_evenly(make: type) -> None:
    """As even as those that rejection finds: waves have the same means."""
    m = make()
    x, _ = around(m, 40_000, seed=1)
    by_rejection = m.m.projx(x)[m.constraint.contains(m.m.projx(x))]
    own = drawn(m, 20_000)
    assert m.constraint.contains(own).all()
    m.check_point(own)
    w = torch.randn(m.embed_dim, 20, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    a, b = (torch.sin(m.embed(y) @ w) for y in (own, by_rejection))
    gap = (a.mean(0) - b.mean(0)) / torch.sqrt(a.var(0) / len(a) + b.var(0) / len(b))
    assert gap.abs().max() < 4.5


@EACH
@DTYPES
def test_projection_keeps_points_inside_and_brings_others_back(make: type, dtype: torch.dtype) -> None:
    m = make()
    inside = drawn(m, 500, dtype=dtype)
    assert torch.equal(m.projx(inside), m.m.projx(inside))
    outside, _ = around(m, 4000)
    y = m.projx(outside.to(dtype))
    assert y.dtype == dtype
    assert m.constraint.contains(y).all()
    assert not m.outside(y).any()
    torch.testing.assert_close(m.projx(y), y, atol=8 * torch.finfo(dtype).eps, rtol=0)
    m.check_point(y)


@EACH
def test_nearest_points_are_as_near_as_the_border_is(make: type) -> None:
    m = make()
    x, _ = around(m, 2000)
    x = m.m.projx(x)
    x = x[m.constraint.depth(x) < -0.05][:300]
    y = m.constraint.nearest(x, 1e-9)
    border = torch.cat([near_border(m, 2000, 1e-9), y])
    least = torch.stack([m.m.dist(a, border).min() for a in x])
    assert (m.m.dist(x, y) <= least + 1e-5).all()


@EACH
def test_depth_is_the_distance_to_the_border(make: type) -> None:
    """No point outside is nearer; and one straight across the border is hardly farther."""
    m = make()
    x = drawn(m, 200)
    depth = m.constraint.depth(x)
    u = m.m.proju(x, torch.randn(40, *x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype))
    u = u / m.m.norm(x.expand_as(u), u)[..., None]
    ends = m.m.expmap(x.expand_as(u), u * depth[:, None] * (1 - 1e-6))
    assert m.constraint.contains(ends).all()
    close = near_border(m, 300, 1e-3)
    found = m.constraint.depth(close)
    # At a sharp corner a point so far from the corner is nearer to its sides.
    assert (found > 0).all()
    assert float(found.max()) == pytest.approx(1e-3, abs=1e-8)


@EACH
def test_walls_are_on_the_border_and_normals_point_inside(make: type) -> None:
    m = make()
    x = drawn(m, 300)
    at, normal = m.constraint.wall(x)
    assert m.constraint.depth(at).abs().max() < 1e-7
    m.check_tangent(m.m.projx(at), normal, tol=1e-9)
    torch.testing.assert_close(m.m.norm(at, normal), torch.ones(300).double())
    torch.testing.assert_close(m.constraint.dist(m.m, at, x), m.constraint.depth(x), atol=1e-6, rtol=1e-6)
    # Straight in from the foot, but at a corner that juts in.
    inside = m.constraint.contains(m.m.expmap(at, 1e-4 * normal))
    assert inside.double().mean() > 0.9


@EACH
@DTYPES
def test_damping_is_symmetric_shrinks_and_stops_at_the_border(make: type, dtype: torch.dtype) -> None:
    m = make()
    c = m.constraint
    x = drawn(m, 100, dtype=dtype)
    u, v = (m.proju(x, torch.randn(x.shape, generator=torch.Generator().manual_seed(i)).to(dtype)) for i in (0, 1))
    du, dv = c.damped(x, u, c.layer), c.damped(x, v, c.layer)
    assert du.dtype == dtype
    m.check_tangent(x, du)
    tol = 200 * torch.finfo(dtype).eps
    torch.testing.assert_close(m.inner(x, du, v), m.inner(x, u, dv), atol=tol, rtol=tol)
    assert (m.inner(x, du, u) > 0).all()
    assert (m.norm(x, du) <= m.norm(x, u) * (1 + tol)).all()
    torch.testing.assert_close(c.damped(x, u, 1e-9), u, atol=1e-3, rtol=1e-3)
    shape = (5, *x.shape)
    torch.testing.assert_close(c.damped(x, u.expand(shape), c.layer), du.expand(shape))


@EACH
def test_the_normal_velocity_falls_in_proportion_to_the_distance(make: type) -> None:
    m = make()
    c = m.constraint
    for distance in (1e-3, 1e-5, 1e-7):
        x = near_border(m, 60, distance)
        w = m.proju(x, torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype))
        normal = m.m.transp(m.m.projx(c.wall(x)[0]), x, c.wall(x)[1])
        rate = m.inner(x, c.damped(x, w, c.layer), normal).abs()
        layer = float(torch.as_tensor(c.layer).min())
        assert (rate <= 4 * m.m.norm(x, w) * distance / layer).all(), float((rate / distance).max() * layer)


def test_points_inside_polygons_are_those_of_shapely() -> None:
    polygon = shapely.Polygon(FRAME, [PILLAR])
    x = 6 * torch.rand(5000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1
    inside = shapely.contains_xy(polygon, *x.numpy().T)
    np.testing.assert_array_equal(PlanarPolygon([FRAME, PILLAR]).contains(x).numpy(), inside)
    distance = shapely.distance(polygon.boundary, shapely.points(x.numpy()))
    np.testing.assert_allclose(PlanarPolygon([FRAME, PILLAR]).depth(x).abs().numpy(), distance, atol=1e-12)
    assert PlanarPolygon(HOOK).volume == pytest.approx(shapely.Polygon(HOOK).area)


def test_polytope_against_qhull() -> None:
    a, b = (np.array(part) for part in WALLS)
    halfspaces = scipy.spatial.HalfspaceIntersection(np.c_[a, -b], np.array([0.0, 0.0, 0.0]))
    hull = scipy.spatial.ConvexHull(halfspaces.intersections)
    c = Polytope(*WALLS)
    assert c.volume == pytest.approx(hull.volume, rel=1e-9)
    cube = Polytope(torch.cat([torch.eye(4), -torch.eye(4)]), torch.ones(8))
    assert cube.volume == pytest.approx(16.0)
    doubled = Polytope(torch.cat([cube.A, cube.A[:1]]), torch.ones(9))
    assert doubled.volume == pytest.approx(16.0)


@pytest.mark.parametrize(
    "polygons",
    [
        [[[[170, -10], [190, -10], [190, 60], [170, 60], [170, -10]]]],
        [
            [[[170, -10], [180, -10], [180, 60], [170, 60], [170, -10]]],
            [[[-180, -10], [-170, -10], [-170, 50], [-180, 50], [-180, -10]]],
        ],
        [[[[-180, -60], [0, -70], [180, -60], [180, -90], [-180, -90], [-180, -60]]]],
        [[[[-180, 80], [180, 80], [180, 90], [-180, 90], [-180, 80]]]],
        [[[[-180, -90], [180, -90], [180, 90], [-180, 90], [-180, -90]], [[0, 0], [0, 40], [40, 40], [40, 0], [0, 0]]]],
    ],
    ids=["beyond 180", "cut at 180", "over a pole", "cap", "all but a square"],
)
def test_polygons_of_longitudes_and_latitudes_become_arcs(polygons: list[list[list[list[float]]]]) -> None:
    """Their points are those of shapely but within the 60 metres that arcs may be off, and so are their areas."""
    region = Polygon(polygons)
    c = region.constraint()
    assert c.volume == pytest.approx(region.volume, abs=2e-5 * float(c.half_lengths.sum()))
    x = Sphere(2).random_uniform(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    far = c.depth(x).abs() > 2e-5
    assert torch.equal(c.contains(x)[far], region.contains(x)[far])


def test_spherical_areas() -> None:
    octant = SphericalPolygon(torch.eye(3))
    assert octant.volume == pytest.approx(math.pi / 2)
    assert octant.convex
    rest = SphericalPolygon(torch.eye(3).flip(0))
    assert rest.volume == pytest.approx(3.5 * math.pi)
    assert not rest.convex
    hole = SphericalPolygon([ring(COUNTRY), ring(LAKE)])
    filled, lake = SphericalPolygon(ring(COUNTRY)), SphericalPolygon(ring(LAKE).flip(0))
    assert hole.volume == pytest.approx(filled.volume + SphericalPolygon(ring(LAKE)).volume - 4 * math.pi)
    assert lake.volume == pytest.approx(4 * math.pi - SphericalPolygon(ring(LAKE)).volume)


def test_joint_limits_count_over_the_seam_and_ways_stay_within() -> None:
    m = Bounded(FlatTorus(1), JointLimits([math.radians(170)], [math.radians(370)]))
    x = torch.deg2rad(torch.tensor([[175.0], [-175.0], [0.0], [90.0], [165.0]], dtype=torch.float64))
    assert m.constraint.contains(x).tolist() == [True, True, True, False, False]
    # The short way from 175 to 0 degrees leads through 90, outside: the way within is 185 degrees long.
    torch.testing.assert_close(m.dist(x[0], x[2]), torch.deg2rad(torch.tensor(185.0).double()))
    t = torch.linspace(0, 1, 50, dtype=torch.float64)
    path = m.geodesic(x[:1].expand(50, 1), x[2:3].expand(50, 1), t)[0]
    assert m.constraint.contains(path).all()
    torch.testing.assert_close(path[-1], x[2], atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Box([0.0, 1.0], [1.0, 1.0]), "each end in low must be below"),
        (lambda: Box(["a"], [1.0]), "low must be numbers"),
        (lambda: Box([math.nan], [1.0]), "with NaN"),
        (lambda: JointLimits([0.0], [7.0]), "by a turn at most"),
        (lambda: Ball([0.0, 0.0], -1.0), "radius must be positive"),
        (lambda: Cap([0.0, 2.0], 0.5), "unit vector, got length 2"),
        (lambda: Cap([0.0, 1.0], 90.0), "turn degrees into radians"),
        (lambda: Polytope([[1.0, 0.0], [0.0, 1.0]], [1.0, 1.0]), "open on a side"),
        (lambda: Polytope([[1.0], [-1.0]], [-1.0, -1.0]), "empty, flat, or open"),
        (lambda: Polytope([[0.0], [-1.0]], [1.0, 1.0]), "row 0 of A is zero"),
        (lambda: PlanarPolygon([[0, 0], [1, 1], [1, 0], [0, 1]]), "no area"),
        (lambda: PlanarPolygon([[0, 0], [2, 2], [2, 0], [0, 1]]), "cross themselves"),
        (lambda: PlanarPolygon([[0, 0], [1, 0]]), "has 2 corners"),
        (lambda: PlanarPolygon([FRAME, PILLAR[::-1]]), "runs the wrong way round"),
        (lambda: PlanarPolygon([FRAME, [[3, 3], [3, 5], [5, 5], [5, 3]]]), "cross themselves or each other"),
        (lambda: PlanarPolygon([]), "there is no ring"),
        (lambda: SphericalPolygon(torch.eye(3) * 2), "must consist of unit vectors"),
        (lambda: SphericalPolygon([ring(COUNTRY), ring(LAKE).flip(0)]), "runs the wrong way round"),
        (lambda: SphericalPolygon(ring([(0, 0), (10, 10), (0, 10), (10, 0)])), "cross themselves"),
        (lambda: Bounded(Sphere(2), Box([0.0], [1.0])), "manifold must be an object of Euclidean"),
        (lambda: Bounded(Euclidean(2), Box([0.0], [1.0])), "has 1 ranges"),
        (lambda: Bounded(Euclidean(3), Ball([0.0], 1.0)), "has 3 coordinates, got 1"),
        (lambda: Bounded(FlatTorus(2), JointLimits([0.0], [1.0])), "give one for each"),
        (lambda: Bounded(Sphere(2), FRAME), "constraint must be an object of Constraint"),
        (lambda: Bounded(Sphere(2), SphericalPolygon(torch.eye(3)), layer=0.0), "layer must be positive"),
        (
            lambda: Polygon([[[[-180, -90], [180, -90], [180, 90], [-180, 90], [-180, -90]]]]).constraint(),
            "all of the sphere",
        ),
    ],
)
def test_bad_sets_get_a_sentence(make: type, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_set_of_ones_own_needs_its_methods() -> None:
    class Nothing(Constraint):
        pass

    with pytest.raises(TypeError, match="Nothing does not define check_manifold"):
        Bounded(Sphere(2), Nothing())
