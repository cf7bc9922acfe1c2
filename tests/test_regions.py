"""Probabilities of regions: areas and masses in closed form, by quadrature of other programs, and laws."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

from manifolds import (
    SO3,
    SPD,
    WGS84_AXES,
    Antipodal,
    Ellipsoid,
    Euclidean,
    FlatTorus,
    Hyperboloid,
    Manifold,
    Octahedral,
    PoincareBall,
    Quotient,
    RightMultiplication,
    Sphere,
)
from rfm import Flow
from rfm.flow.refinement import Refinement
from rfm.regions import AngleBox, Ball, CoordinateBox, LatitudeLongitudeBox, Polygon, Region, Share, probability
from rfm.regions.cubature import cubature
from rfm.regions.polygons import ring_area
from rfm.sources import IsotropicGaussianSO3, KernelMixture, Source, Uniform, VonMisesFisher, WrappedNormal

_MEAN = torch.nn.functional.normalize(torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64), dim=0)


def at_rest(source: Source) -> Flow:
    """Return the flow that leaves its source where it is."""
    return Flow(source.manifold, lambda x, t: torch.zeros_like(x), source)


def vmf(concentration: float) -> Flow:
    return at_rest(VonMisesFisher(Sphere(2), _MEAN, concentration))


def ring(*places: tuple[float, float]) -> list[list[float]]:
    return [list(place) for place in (*places, places[0])]


def rectangle(west: float, south: float, east: float, north: float) -> list[list[float]]:
    return ring((west, south), (east, south), (east, north), (west, north))


# Cubature.


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_cubature_agrees_with_scipy(dim: int) -> None:
    def f(x: np.ndarray) -> np.ndarray:
        return np.exp(-30 * ((x - 0.3) ** 2).sum(-1)) + np.cos(x.sum(-1))

    truth = integrate.cubature(f, np.zeros(dim), np.ones(dim), rtol=1e-10, atol=1e-12).estimate
    found = cubature(lambda piece, u: f(u), 1, dim, relative=1e-6, absolute=0.0, most=200_000)
    assert found.converged
    assert abs(found.value - truth) <= max(found.error, 1e-12)
    assert found.error <= 1e-6 * truth


@pytest.mark.parametrize("dim", [2, 3])
def test_cubature_is_exact_to_degree_seven(dim: int) -> None:
    for powers in itertools.product(range(8), repeat=dim):
        if sum(powers) <= 7:
            found = cubature(
                lambda piece, u, k=powers: (u ** np.array(k)).prod(-1), 1, dim, relative=1.0, absolute=1.0, most=1,
                least_boxes=1,
            )  # fmt: skip
            assert found.value == pytest.approx(math.prod(1 / (k + 1) for k in powers), rel=1e-12)


def test_cubature_adds_pieces_and_stops_at_its_budget() -> None:
    found = cubature(lambda piece, u: piece + 1.0, 3, 2, relative=1e-6, absolute=0.0, most=10)
    assert found.value == pytest.approx(6)
    assert found.converged
    rough = cubature(lambda piece, u: (u[:, 0] < 0.123456).astype(float), 1, 2, relative=1e-9, absolute=0.0, most=3000)
    assert not rough.converged
    assert abs(rough.value - 0.123456) < rough.error < 0.05
    assert rough.evaluations < 3200


# Areas under the uniform density.


def polygon_over_the_date_line(west: float, east: float, south: float, north: float) -> Polygon:
    return Polygon([[rectangle(west, south, 180, north)], [rectangle(-180, south, east, north)]])


@pytest.mark.parametrize(
    ("region", "area"),
    [
        (LatitudeLongitudeBox(30, 40, -10, 20), math.radians(30) * (math.sin(math.radians(40)) - 0.5)),
        (LatitudeLongitudeBox(-30, 30, 170, -170), math.radians(20)),
        (LatitudeLongitudeBox(-30, 30, 170, 190), math.radians(20)),
        (LatitudeLongitudeBox(-90, 90, -180, 180), 4 * math.pi),
        (LatitudeLongitudeBox(60, 90, 0, 360), 2 * math.pi * (1 - math.sqrt(0.75))),
        (Ball(Sphere(2), _MEAN, 0.4), 2 * math.pi * (1 - math.cos(0.4))),
        (Ball(Sphere(2), _MEAN, math.pi), 4 * math.pi),
        (Polygon([[rectangle(-10, 0, 20, 30)]]), math.radians(30) * 0.5),
        (Polygon([[rectangle(170, 0, 200, 30)]]), math.radians(30) * 0.5),
        (Polygon([[rectangle(-190, 0, -160, 30)]]), math.radians(30) * 0.5),
        (polygon_over_the_date_line(160, -160, -30, 30), math.radians(40)),
        (Polygon([[rectangle(-180, 60, 180, 90)]]), 2 * math.pi * (1 - math.sqrt(0.75))),
        (Polygon([[rectangle(-180, -90, 180, 90)]]), 4 * math.pi),
        (Polygon([[rectangle(0, 0, 60, 30), rectangle(20, 0.5, 40, 29.5)]]), None),
        (Polygon([[ring((0, 0), (90, 0), (45, 60))]]), None),
    ],
    ids=lambda value: value.describe() if isinstance(value, Region) else "",
)
def test_areas(region: Region, area: float | None) -> None:
    volume = region.volume
    assert volume is not None
    if area is not None:
        assert volume == pytest.approx(area, rel=1e-8)
    found = probability(at_rest(Uniform(Sphere(2))), region)
    assert found.method == "cubature"
    assert found.value == pytest.approx(volume / (4 * math.pi), rel=1e-6)
    low, high = found.interval_95
    assert low <= volume / (4 * math.pi) * (1 + 1e-6)
    assert high >= volume / (4 * math.pi) * (1 - 1e-6)
    # The points that it contains are as many.
    x = Sphere(2).random_uniform(20_000, generator=torch.Generator().manual_seed(0))
    share = Share(int(region.contains(x).sum()), len(x))
    assert share.agrees_with(volume / (4 * math.pi), 0.0)


def test_regions_of_the_earths_ellipsoid() -> None:
    earth = Ellipsoid([axis / WGS84_AXES[0] for axis in WGS84_AXES])
    flow = at_rest(Uniform(earth))
    assert earth.volume is not None
    box = LatitudeLongitudeBox(30, 50, 170, -170, surface=earth)
    polygon = Polygon([[rectangle(170, 30, 190, 50)]], surface=earth)
    assert box.volume is not None
    assert polygon.volume == pytest.approx(box.volume, rel=1e-8)
    for region in (box, polygon):
        assert probability(flow, region, draws=500).value == pytest.approx(box.volume / earth.volume, rel=1e-4)
    assert LatitudeLongitudeBox(-90, 90, -180, 180, surface=earth).volume == pytest.approx(earth.volume, rel=1e-12)
    place = earth.from_geodetic(torch.tensor([40.0, 40.0]), torch.tensor([179.0, 160.0]))
    assert box.contains(place).tolist() == polygon.contains(place).tolist() == [True, False]
    with pytest.raises(ValueError, match="the flow on Ellipsoid"):
        probability(flow, LatitudeLongitudeBox(30, 50, 0, 10))


def test_a_hole_is_left_out_and_overlaps_count_once() -> None:
    outer, hole = rectangle(0, 0, 60, 30), rectangle(20, 10, 40, 20)
    difference = Polygon([[outer]]).volume - Polygon([[hole]]).volume
    assert Polygon([[outer, hole]]).volume == pytest.approx(difference)
    assert Polygon([[outer], [hole]]).volume == pytest.approx(Polygon([[outer]]).volume)
    assert Polygon([[outer], [rectangle(360, 0, 360 - 30, 30)]]).volume == pytest.approx(
        Polygon([[outer]]).volume + Polygon([[rectangle(-30, 0, 0, 30)]]).volume
    )


def test_the_area_of_a_ring_is_that_of_a_dense_one_by_geographiclib() -> None:
    from geographiclib.geodesic import Geodesic

    places = np.array([(0.0, 10.0), (40.0, -20.0), (70.0, 35.0), (30.0, 60.0), (0.0, 10.0)])
    steps = np.linspace(0, 1, 2001)[:-1, None]
    dense = np.concatenate([a + steps * (b - a) for a, b in itertools.pairwise(places)])
    polygon = Geodesic(1.0, 0.0).Polygon()
    for longitude, latitude in dense:
        polygon.AddPoint(latitude, longitude)
    truth = polygon.Compute(False, True)[2]
    assert ring_area(places) == pytest.approx(truth, rel=1e-5)
    assert ring_area(places[::-1]) == pytest.approx(-truth, rel=1e-5)


@pytest.fixture(scope="module")
def countries() -> dict[str, Polygon]:
    """The countries that pyogrio's own tests hold, of Natural Earth at 1:110 million."""
    import pyogrio

    folder = Path(pyogrio.__file__).parent / "tests" / "fixtures" / "naturalearth_lowres"
    if not folder.is_dir():
        pytest.skip("pyogrio was installed without its tests")
    import shapely

    meta, _, geometry, fields = pyogrio.raw.read(folder / "naturalearth_lowres.shp", columns=["name"])
    assert list(meta["fields"]) == ["name"]
    shapes = dict(zip(fields[0], shapely.from_wkb(geometry), strict=True))
    return {
        name: Polygon.from_geojson(json.loads(shapely.to_geojson(shapes[name])))
        for name in ("Fiji", "Italy", "South Africa", "Antarctica", "Russia")
    }


def test_areas_of_countries(countries: dict[str, Polygon]) -> None:
    from geographiclib.geodesic import Geodesic

    # South Africa has a hole, Fiji lies on both sides of the date line, Antarctica about the pole.
    truths = {"Fiji": 18_274, "Italy": 301_230, "South Africa": 1_219_912, "Antarctica": 12.3e6, "Russia": 17.1e6}
    for name, country in countries.items():
        area = country.volume * 6371.0088**2
        assert area == pytest.approx(truths[name], rel=0.06)
        if name != "Antarctica":
            total = 0.0
            for part in country.geometry.geoms:
                for own, sign in ((part.exterior, 1), *((hole, -1) for hole in part.interiors)):
                    polygon = Geodesic(6371.0088, 0.0).Polygon()
                    for longitude, latitude in own.segmentize(0.2).coords[:-1]:
                        polygon.AddPoint(latitude, longitude)
                    total += sign * abs(polygon.Compute(False, True)[2])
            assert area == pytest.approx(total, rel=1e-4)
    found = probability(at_rest(Uniform(Sphere(2))), countries["Antarctica"])
    assert found.value == pytest.approx(countries["Antarctica"].volume / (4 * math.pi), rel=1e-4)
    assert countries["Antarctica"].contains(torch.tensor([[0.0, 0.0, -1.0], [0.0, 0.0, 1.0]])).tolist() == [True, False]
    assert not any(country.notes for country in countries.values())


# Masses of other densities.


@pytest.mark.parametrize("radius", [0.05, 0.3, 1.5, 3.0])
def test_caps_of_a_von_mises_fisher_density(radius: float) -> None:
    k = 8.0
    truth = math.expm1(-k * (1 - math.cos(radius))) / math.expm1(-2 * k)
    found = probability(vmf(k), Ball(Sphere(2), _MEAN, radius))
    assert found.value == pytest.approx(truth, rel=1e-3)
    assert found.evaluations < 6000


def test_boxes_of_a_von_mises_fisher_density_by_scipy() -> None:
    k, flow = 8.0, vmf(8.0)
    for south, north, west, east in ((20, 70, -100, 10), (-10, 90, 150, 300), (-90, 90, -60, -50)):
        box = LatitudeLongitudeBox(south, north, west, east)

        def density(latitude: float, longitude: float) -> float:
            parallel = math.cos(latitude)
            x = (parallel * math.cos(longitude), parallel * math.sin(longitude), math.sin(latitude))
            cos = sum(a * b for a, b in zip(x, _MEAN.tolist(), strict=True))
            return parallel * k / (2 * math.pi * -math.expm1(-2 * k)) * math.exp(k * (cos - 1))

        truth = integrate.dblquad(density, *np.radians([west, east]), *np.radians([south, north]), epsrel=1e-8)[0]
        found = probability(flow, box)
        assert found.value == pytest.approx(truth, rel=1e-3)
        polygon = probability(flow, Polygon([[rectangle(west, south, east, north)]]))
        assert polygon.value == pytest.approx(truth, rel=2e-3)


def wrapped_mass(mean: float, scale: float, low: float, high: float) -> float:
    turns = 2 * math.pi * np.arange(-4, 5)
    return float((stats.norm.cdf(high + turns, mean, scale) - stats.norm.cdf(low + turns, mean, scale)).sum())


@pytest.mark.parametrize("n", [1, 2, 3])
def test_boxes_of_a_wrapped_normal_density(n: int) -> None:
    means, ranges = [3.0, -1.0, 0.5], [(2.5, -2.8), (-1.2, 0.4), None]
    flow = at_rest(WrappedNormal(FlatTorus(n), torch.tensor(means[:n]), 0.6))
    ends = [(2.5, -2.8 + 2 * math.pi), (-1.2, 0.4), (-math.pi, math.pi)]
    truth = math.prod(wrapped_mass(m, 0.6, *own) for m, own in list(zip(means, ends, strict=True))[:n])
    found = probability(flow, AngleBox(FlatTorus(n), ranges[:n]))
    assert found.method == "cubature"
    assert found.value == pytest.approx(truth, rel=2e-3)


@pytest.mark.parametrize(
    "manifold", [Euclidean(1), Euclidean(2), Euclidean(3), Hyperboloid(2), PoincareBall(3), SPD(2)], ids=str
)
def test_balls_about_the_mean_of_a_wrapped_normal_have_the_law_of_chi(manifold: Manifold) -> None:
    generator = torch.Generator().manual_seed(0)
    zero = torch.eye(2) if manifold.event_shape == (2, 2) else manifold.projx(torch.zeros(manifold.event_shape))
    basis = manifold.tangent_basis(zero)
    step = torch.tensordot(torch.randn(manifold.dim, generator=generator), basis, dims=1)
    mean = manifold.expmap(zero.double(), 0.4 * step.double())
    flow = at_rest(WrappedNormal(manifold, mean, 0.5))
    for radius in (0.4, 1.2):
        truth = stats.chi2(manifold.dim).cdf((radius / 0.5) ** 2)
        found = probability(flow, Ball(manifold, mean, radius))
        assert found.method == "cubature"
        assert found.value == pytest.approx(truth, rel=2e-3)


@pytest.mark.parametrize("radius", [0.3, 2.0, math.pi])
def test_balls_of_rotations(radius: float) -> None:
    ball = Ball(SO3(), torch.eye(3), radius)
    assert ball.volume == pytest.approx(8 * math.pi * (radius - math.sin(radius)), rel=1e-8)
    source = IsotropicGaussianSO3(torch.eye(3), 0.4)

    def law(angle: float) -> float:
        x = torch.tensor([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
        return 16 * math.pi * math.sin(angle / 2) ** 2 * float(source.log_prob(x.double()).exp())

    truth = integrate.quad(law, 0, radius)[0]
    assert probability(at_rest(source), ball).value == pytest.approx(truth, rel=1e-3)


def test_a_ball_of_classes_holds_all_representatives() -> None:
    crystal = Quotient(SO3(), RightMultiplication(Octahedral()))
    flow = at_rest(Uniform(crystal))
    found = probability(flow, Ball(crystal, torch.eye(3), 0.3))
    assert found.value == pytest.approx(24 * (0.3 - math.sin(0.3)) / math.pi, rel=1e-3)
    axes = Quotient(Sphere(2), Antipodal(2))
    found = probability(at_rest(Uniform(axes)), Ball(axes, _MEAN, 0.5))
    assert found.value == pytest.approx(1 - math.cos(0.5), rel=1e-3)


def test_regions_of_many_dimensions_are_by_draws() -> None:
    flow = at_rest(WrappedNormal(Euclidean(5), torch.zeros(5)))
    truth = stats.chi2(5).cdf(4.0)
    found = probability(flow, Ball(Euclidean(5), torch.zeros(5), 2.0))
    assert found.method == "draws of the flow"
    assert found.share.agrees_with(truth, 0.0)
    assert found.interval_95[0] < found.value < found.interval_95[1]
    half = probability(flow, CoordinateBox(Euclidean(5), [(0.0, math.inf), None, None, None, None]), draws=4000)
    assert half.share.agrees_with(0.5, 0.0)
    never = probability(flow, Ball(Euclidean(5), torch.full((5,), 9.0), 0.5), draws=500)
    assert never.value == 0
    assert never.interval_95[1] == pytest.approx(1.96**2 / (500 + 1.96**2))
    assert "no draw lies in it" in never.describe()


def test_boxes_of_coordinates() -> None:
    flow = at_rest(WrappedNormal(Euclidean(2), torch.zeros(2), 2.0))
    found = probability(flow, CoordinateBox(Euclidean(2), [(-1.0, 3.0), (0.0, 1.0)]))
    law = stats.norm(0, 2)
    truth = (law.cdf(3) - law.cdf(-1)) * (law.cdf(1) - law.cdf(0))
    assert found.value == pytest.approx(truth, rel=1e-3)


# Laws.


@pytest.mark.parametrize("seed", range(3))
def test_the_probabilities_of_a_partition_add_to_one(seed: int) -> None:
    generator = np.random.default_rng(seed)
    flow = vmf(float(generator.uniform(1, 30)))
    south, north = np.sort(generator.uniform(-80, 80, 2))
    west, east = generator.uniform(-180, 180, 2)
    parts = [LatitudeLongitudeBox(-90, south, -180, 180), LatitudeLongitudeBox(north, 90, -180, 180)]
    parts += [LatitudeLongitudeBox(south, north, west, east), LatitudeLongitudeBox(south, north, east, west)]
    assert sum(probability(flow, part, draws=500).value for part in parts) == pytest.approx(1, abs=2e-3)
    x = flow.sample(500, generator=torch.Generator().manual_seed(seed))
    assert (sum(part.contains(x).long() for part in parts) == 1).all()


def test_a_ball_and_what_a_larger_one_adds() -> None:
    flow = vmf(5.0)
    centre = torch.tensor([0.0, 0.0, 1.0])
    masses = [probability(flow, Ball(Sphere(2), centre, r), draws=500).value for r in (0.5, 1.0, 2.0, math.pi)]
    assert masses == sorted(masses)
    assert masses[-1] == pytest.approx(1, abs=2e-3)


def test_what_turns_with_the_density_keeps_its_probability() -> None:
    """A flow that turns the sphere by a radian about the z axis moves mass by a radian of longitude."""

    def field(x: Tensor, t: Tensor) -> Tensor:
        return torch.stack([-x[..., 1], x[..., 0], torch.zeros_like(x[..., 0])], dim=-1)

    source = VonMisesFisher(Sphere(2), _MEAN, 10.0)
    turned, degrees = Flow(Sphere(2), field, source), math.degrees(1.0)
    before = probability(at_rest(source), LatitudeLongitudeBox(20, 60, -90, -40))
    after = probability(turned, LatitudeLongitudeBox(20, 60, -90 + degrees, -40 + degrees))
    assert after.value == pytest.approx(before.value, rel=1e-3)


def test_draws_replace_cubature_that_passes_over_a_peak() -> None:
    narrow = vmf(1e7)
    box = LatitudeLongitudeBox(0, 90, -180, 180)
    found = probability(narrow, box, evaluations=1000)
    assert found.method == "draws of the flow"
    assert found.value == 1
    assert "contradict" in found.note
    assert found.note in found.describe()
    assert found.record()["note"] == found.note


def test_polygons_of_many_corners_are_by_draws_in_them() -> None:
    angle = np.linspace(0, 2 * np.pi, 2001)[:-1]
    wave = 20 + 5 * np.cos(9 * angle)
    star = Polygon([[ring(*zip((wave * np.cos(angle)).tolist(), (wave * np.sin(angle)).tolist(), strict=True))]])
    found = probability(at_rest(Uniform(Sphere(2))), star, tolerance=5e-3)
    assert found.method == "draws in the region"
    low, high = found.interval_95
    assert abs(found.value - star.volume / (4 * math.pi)) < 4 * found.standard_error
    assert high - low < 0.02 * found.value


def test_refined_and_conditional_flows() -> None:
    sphere = Sphere(2)
    points = VonMisesFisher(sphere, _MEAN, 50.0).sample((60,), torch.Generator().manual_seed(0))
    kernels = KernelMixture.one_bandwidth(sphere, points[:40], points[40:])
    refined = Flow(
        sphere,
        lambda x, t: torch.zeros_like(x),
        refinement=Refinement([1.0, 0.0], [kernels, Uniform(sphere)], [0.7, 0.3]),
    )
    box = LatitudeLongitudeBox(20, 80, -100, 0)
    truth = 0.7 * probability(at_rest(kernels), box).value + 0.3 * box.volume / (4 * math.pi)
    assert probability(refined, box).value == pytest.approx(truth, rel=3e-3)

    def shifted(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return condition.expand(*x.shape)

    flow = Flow(Euclidean(1), shifted, WrappedNormal(Euclidean(1), torch.zeros(1)))
    half = CoordinateBox(Euclidean(1), [(0.0, 2.0)])
    found = probability(flow, half, condition=torch.tensor([1.0]))
    assert found.value == pytest.approx(stats.norm.cdf(1) - stats.norm.cdf(-1), rel=1e-3)


def test_the_result_repeats_and_reads() -> None:
    first, again = (probability(vmf(5.0), LatitudeLongitudeBox(0, 90, -180, 180)) for _ in range(2))
    assert first == again
    assert "by cubature" in first.describe()
    assert json.loads(json.dumps(first.record()))["probability"] == first.value
    counted: list[int] = []
    probability(vmf(5.0), LatitudeLongitudeBox(0, 90, -180, 180), draws=100, progress=counted.append)
    assert sum(counted) == first.evaluations + 100


@pytest.mark.parametrize(("inside", "draws"), [(0, 50), (1, 50), (25, 50), (50, 50)])
def test_shares_have_wilsons_interval(inside: int, draws: int) -> None:
    truth = stats.binomtest(inside, draws).proportion_ci(0.95, method="wilson")
    assert Share(inside, draws).interval_95 == pytest.approx((truth.low, truth.high), abs=1e-4)


# GeoJSON.


def test_geojson_of_every_shape(tmp_path: Path) -> None:
    one = {"type": "Polygon", "coordinates": [rectangle(0, 0, 10, 10)]}
    two = {"type": "MultiPolygon", "coordinates": [[rectangle(20, 0, 30, 10)], [rectangle(40, 0, 50, 10)]]}
    collection = {
        "type": "FeatureCollection",
        "features": [
            {"type": "Feature", "properties": {}, "geometry": one},
            {"type": "Feature", "properties": {}, "geometry": {"type": "GeometryCollection", "geometries": [two]}},
            {"type": "Feature", "properties": {}, "geometry": None},
            {"type": "Feature", "properties": {}, "geometry": {"type": "Point", "coordinates": [0, 0]}},
        ],
    }
    (tmp_path / "region.geojson").write_text(json.dumps(collection), encoding="utf-8")
    read = Polygon.from_geojson(tmp_path / "region.geojson")
    assert read.volume == pytest.approx(3 * Polygon.from_geojson(one).volume)
    assert "3 polygons" in read.describe()
    high = {"type": "Polygon", "coordinates": [[[*place, 250.0] for place in rectangle(0, 0, 10, 10)]]}
    assert Polygon.from_geojson(high).volume == pytest.approx(Polygon.from_geojson(one).volume)


def test_an_edge_round_the_earth_is_noted() -> None:
    assert "340 degrees of longitude" in Polygon([[rectangle(-170, 0, 170, 10)]]).notes[0]
    assert not Polygon([[rectangle(-180, 0, 180, 10)]]).notes
    assert not Polygon([[rectangle(170, 0, 190, 10)]]).notes


_BOW = ring((0, 0), (10, 10), (10, 0), (0, 10))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LatitudeLongitudeBox(40, 30, 0, 1), "exchange or correct them"),
        (lambda: LatitudeLongitudeBox(-95, 30, 0, 1), "-90 <= south"),
        (lambda: LatitudeLongitudeBox(0, 30, 5, 5), "two different ones"),
        (lambda: LatitudeLongitudeBox(0, 30, 5, math.nan), "must be"),
        (lambda: AngleBox(FlatTorus(2), [(0, 1)]), "for each of 2 angles"),
        (lambda: AngleBox(FlatTorus(1), [(0, 100)]), "-2 pi to 2 pi"),
        (lambda: AngleBox(Sphere(2), [(0, 1)]), "manifold must be"),
        (lambda: CoordinateBox(Euclidean(1), [(1, 0)]), "ascending range"),
        (lambda: Ball(Sphere(2), torch.tensor([0.0, 0.0, 2.0]), 1.0), "is off it by"),
        (lambda: Ball(Sphere(2), torch.zeros(2, 3), 1.0), "one point of shape"),
        (lambda: Ball(Sphere(2), _MEAN, 0.0), "radius must be"),
        (lambda: Polygon([]), "there is no polygon"),
        (lambda: Polygon([[_BOW]]), "is not valid .*repair it"),
        (lambda: Polygon([[rectangle(0, 0, 10, 95)]]), "longitude, then latitude"),
        (lambda: Polygon([[[[0, 0], [1, 1]]]]), "no sequence of rings"),
        (lambda: Polygon.from_geojson({"type": "Point", "coordinates": [0, 0]}), "holds no Polygon"),
        (lambda: Polygon.from_geojson({"type": "Polygon"}), "a Polygon in it is damaged"),
        (
            lambda: Polygon.from_geojson(
                {
                    "type": "Polygon",
                    "coordinates": [rectangle(0, 0, 1, 1)],
                    "crs": {"properties": {"name": "EPSG:3857"}},
                }
            ),
            "another system than WGS 84",
        ),
        (lambda: probability(vmf(1.0), AngleBox(FlatTorus(1), [(0, 1)])), "the flow on Sphere"),
        (lambda: probability(vmf(1.0), "box"), "region must be"),
        (lambda: probability(vmf(1.0), LatitudeLongitudeBox(0, 1, 0, 1), tolerance=0), "tolerance must be"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(("text", "message"), [("{", "is no GeoJSON"), ("[1]", "but list")])
def test_files_that_are_no_geojson(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "region.geojson").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        Polygon.from_geojson(tmp_path / "region.geojson")
