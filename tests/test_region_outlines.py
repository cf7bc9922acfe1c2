"""Outlines of highest-density regions as GeoJSON, and rates of events."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import shapely
import torch
from scipy import stats

from manifolds import FlatTorus, Sphere
from rfm import Flow
from rfm.datasets import EARTH_RADIUS_KM
from rfm.grids import DensityGrid, density_grid
from rfm.regions import HighestDensity, Polygon, Rate, outlines, probability, write_geojson
from rfm.regions.polygons import ring_area
from rfm.sources import KernelMixture, Source, Uniform, VonMisesFisher

MEANS = {
    "date line": (10.0, 179.0),
    "north pole": (89.0, 30.0),
    "south pole": (-90.0, 0.0),
    "Greenwich": (51.0, 0.0),
}


def at_rest(source: Source) -> Flow:
    return Flow(source.manifold, lambda x, t: torch.zeros_like(x), source)


def at(latitude: float, longitude: float) -> torch.Tensor:
    north, east = math.radians(latitude), math.radians(longitude)
    x = [math.cos(north) * math.cos(east), math.cos(north) * math.sin(east), math.sin(north)]
    return torch.tensor(x, dtype=torch.float64)


def cap(concentration: float, p: float) -> float:
    """Return the area of the cap that holds p of a von Mises-Fisher density, in steradians."""
    return -2 * math.pi * math.log1p(-p * -math.expm1(-2 * concentration)) / concentration


@pytest.mark.parametrize("place", MEANS)
def test_outlines_are_valid_and_of_the_right_area(place: str, tmp_path: Path) -> None:
    k, flow = 20.0, at_rest(VonMisesFisher(Sphere(2), at(*MEANS[place]), 20.0))
    density = density_grid(flow, resolution=1.5)
    found = outlines(density, [0.5, 0.9, 0.99])
    assert [outline.probability for outline in found] == [0.99, 0.9, 0.5]
    for outline in found:
        truth = cap(k, outline.probability)
        assert outline.area_km2 == pytest.approx(truth * EARTH_RADIUS_KM**2, rel=0.02)
        region = Polygon([[ring.tolist() for ring in rings] for rings in outline.polygons])
        assert region.volume == pytest.approx(truth, rel=0.02)
        assert probability(flow, region).value == pytest.approx(outline.probability, abs=0.006)
        for outer, *holes in outline.polygons:
            assert ring_area(outer) > 0
            assert all(ring_area(hole) < 0 for hole in holes)
    write_geojson(found, tmp_path / "regions.geojson")
    content = json.loads((tmp_path / "regions.geojson").read_text())
    shapes = [shapely.from_geojson(json.dumps(feature["geometry"])) for feature in content["features"]]
    assert all(shape.is_valid for shape in shapes)
    # Nested, and within the map.
    assert all(larger.buffer(1e-5).contains(smaller) for larger, smaller in itertools.pairwise(shapes))
    assert all(np.abs(shape.bounds).max() <= 180 for shape in shapes)
    assert len(shapes[0].geoms) == (2 if place == "date line" else 1)


def test_other_programs_read_the_regions(tmp_path: Path) -> None:
    import pyogrio

    density = density_grid(at_rest(VonMisesFisher(Sphere(2), at(0, 180), 20.0)), resolution=5)
    write_geojson(outlines(density, [0.5, 0.9]), tmp_path / "regions.geojson")
    info = pyogrio.read_info(tmp_path / "regions.geojson")
    assert info["features"] == 2
    assert info["crs"] == "EPSG:4326"
    assert set(info["fields"]) == {
        *("probability", "log_density_nats_per_steradian", "density_per_km2", "area_km2"),
    }
    meta, _, geometry, fields = pyogrio.raw.read(tmp_path / "regions.geojson")
    assert fields[list(meta["fields"]).index("probability")].tolist() == [0.9, 0.5]
    assert shapely.is_valid(shapely.from_wkb(geometry)).all()


def test_regions_with_holes_and_islands() -> None:
    """Kernels about a circle have a region that is a ring, with a hole, and one far away has an island."""
    sphere = Sphere(2)
    around = torch.linspace(0, 2 * math.pi, 61, dtype=torch.float64)[:-1]
    circle = torch.stack([0.6 * around.cos(), 0.6 * around.sin(), torch.full_like(around, 0.8)], dim=-1)
    points = torch.cat([circle, at(-40, 100).expand(8, 3)])
    kernels = KernelMixture.one_bandwidth(sphere, points, points, concentrations=torch.tensor([200.0]))
    density = density_grid(at_rest(kernels), resolution=2)
    [outline] = outlines(density, [0.9])
    region = Polygon([[ring.tolist() for ring in rings] for rings in outline.polygons])
    assert region.contains(torch.stack([at(-40, 100), at(53, 20), at(90, 0), at(0, 0)])).tolist() == [
        *(True, True, False, False),
    ]
    assert probability(at_rest(kernels), region).value == pytest.approx(0.9, abs=0.02)


def test_levels_of_cells_and_of_draws_agree() -> None:
    flow = at_rest(VonMisesFisher(Sphere(2), at(20, 20), 10.0))
    density, regions = density_grid(flow, resolution=2), HighestDensity(flow)
    for p in (0.5, 0.9):
        level = regions.level(p)
        low, high = (2 * bound - level.log_density for bound in level.interval_95)
        assert low < density.level(p) < high


def test_outlines_are_of_the_earth() -> None:
    density = density_grid(at_rest(Uniform(FlatTorus(2))), resolution=30)
    with pytest.raises(ValueError, match="highest_density_probability"):
        outlines(density, [0.5])
    earth = density_grid(at_rest(VonMisesFisher(Sphere(2), at(0, 0), 2.0)), resolution=30)
    assert isinstance(earth, DensityGrid)
    with pytest.raises(ValueError, match=r"for 90 % pass 0\.9"):
        outlines(earth, [90])


# Rates.


@pytest.mark.parametrize("events", [0, 1, 7, 120])
def test_rates_have_garwoods_interval(events: int) -> None:
    low, high = Rate(events, 2.5).interval_95
    # Poisson's law puts a fortieth beyond each end.
    assert stats.poisson.cdf(events, 2.5 * high) == pytest.approx(0.025)
    if events:
        assert stats.poisson.sf(events - 1, 2.5 * low) == pytest.approx(0.025)
    else:
        assert low == 0


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    generator, p, rate, years = np.random.default_rng(0), 0.2, 3.0, 20.0
    held = [
        low <= rate * p <= high
        for events in generator.poisson(rate * years, 1000)
        for _, low, high in [Rate(int(events), years).expected(p)]
    ]
    assert 0.93 < np.mean(held) < 0.99


def test_expected_numbers_and_the_probability_of_one() -> None:
    rate = Rate(50, 10)
    value, low, high = rate.expected(0.1)
    assert value == pytest.approx(0.5)
    assert (low, high) == pytest.approx(tuple(0.1 * end for end in rate.interval_95))
    wide = rate.expected(0.1, (0.08, 0.12))
    assert wide[1] < low
    assert wide[2] > high
    one = rate.at_least_one(0.1, 2.0)
    assert one == pytest.approx(tuple(1 - math.exp(-2 * number) for number in (value, low, high)))
    # Over a partition of the time, none in either half is none in all.
    half = rate.at_least_one(0.1, 1.0)[0]
    assert 1 - one[0] == pytest.approx((1 - half) ** 2)
    assert rate.expected(0.0) == (0, 0, 0)
    none = Rate(0, 10).expected(0.5)
    assert none[:2] == (0, 0)
    assert none[2] == pytest.approx(0.5 * 3.688879 / 10, rel=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Rate(-1, 2), "must not be negative"),
        (lambda: Rate(1, 0), "years must be"),
        (lambda: Rate(1, 1).at_least_one(0.5, -1), "years must be"),
    ],
)
def test_bad_rates(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
