"""Densities on grids: areas and integrals in closed form, and files that other programs read."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray
from scipy import stats

from manifolds import (
    SO3,
    SPD,
    WGS84_AXES,
    Antipodal,
    Cyclic,
    Dihedral,
    Ellipsoid,
    Euclidean,
    FlatTorus,
    Icosahedral,
    Manifold,
    Octahedral,
    Quotient,
    RightMultiplication,
    Sphere,
    Tetrahedral,
)
from rfm import Flow
from rfm.datasets import EARTH_RADIUS_KM, Angles, Cartesian
from rfm.grids import DensityGrid, cell_count, density_grid, geography_of, to_xarray, write_grid
from rfm.grids.files import check_ending
from rfm.records.packages import MissingPackageError, optional_package
from rfm.sources import IsotropicGaussianSO3, KernelMixture, Source, Uniform, VonMisesFisher, WrappedNormal


def at_rest(source: Source) -> Flow:
    """Return the flow that leaves its source where it is."""
    return Flow(source.manifold, lambda x, t: torch.zeros_like(x), source)


def crystal(group) -> Quotient:
    return Quotient(SO3(), RightMultiplication(group))


def _normalised(*x: float) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.tensor(x, dtype=torch.float64), dim=0)


COMPLETE = [
    Sphere(1),
    Sphere(2),
    Quotient(Sphere(2), Antipodal(2)),
    FlatTorus(1),
    FlatTorus(2),
    FlatTorus(3),
    SO3(),
    crystal(Cyclic(3)),
    crystal(Dihedral(2)),
    crystal(Dihedral(6)),
    crystal(Tetrahedral()),
    crystal(Octahedral()),
    crystal(Icosahedral()),
]


@pytest.mark.parametrize("manifold", COMPLETE, ids=str)
def test_cells_have_the_volume_of_the_manifold_and_centres_on_it(manifold: Manifold) -> None:
    found = density_grid(at_rest(Uniform(manifold)), resolution=15)
    assert manifold.volume is not None
    assert found.grid.volumes.sum() == pytest.approx(manifold.volume, rel=1e-12)
    assert found.integral == pytest.approx(1, abs=1e-6)
    points = found.grid.points
    assert points.shape == (found.grid.size, *manifold.event_shape)
    manifold.check_point(points, tol=1e-9)
    # The centres are different points, and no cell is counted twice.
    assert len(torch.unique((points.flatten(1) * 1e6).round(), dim=0)) == found.grid.size


@pytest.mark.parametrize(
    ("source", "resolution"),
    [
        (VonMisesFisher(Sphere(2), _normalised(0.1, 0.2, -0.97), 20.0), 2),
        (VonMisesFisher(Sphere(1), torch.tensor([0.0, 1.0]), 3.0), 2),
        (WrappedNormal(FlatTorus(1), torch.tensor([3.1]), 0.2), 1),
        (WrappedNormal(FlatTorus(2), torch.tensor([3.1, -1.0]), 0.4), 3),
        (WrappedNormal(FlatTorus(3), torch.tensor([3.1, 0.0, -1.0]), 0.9), 15),
        (IsotropicGaussianSO3(torch.eye(3), 0.7), 10),
    ],
    ids=["sphere", "circle", "T1", "T2", "T3", "SO3"],
)
def test_densities_integrate_to_one(source: Source, resolution: float) -> None:
    found = density_grid(at_rest(source), resolution=resolution)
    assert found.integral == pytest.approx(1, abs=3e-3)
    assert "the integral over them is 1.00" in found.describe() or "0.99" in found.describe()
    truth = source.log_prob(found.grid.points).numpy().reshape(found.grid.shape)
    np.testing.assert_allclose(found.log_density, truth, atol=2e-4)


def test_a_part_of_the_euler_angles_stands_for_all_orientations_of_a_crystal() -> None:
    manifold = crystal(Octahedral())
    points = SO3().random_uniform(5, generator=torch.Generator().manual_seed(0))
    flow = at_rest(KernelMixture.one_bandwidth(manifold, points[:3], points[3:], concentrations=torch.tensor([10.0])))
    found = density_grid(flow, resolution=7.5)
    assert found.grid.shape == (48, 12, 12)
    assert found.grid.multiplicity == 8
    assert found.integral == pytest.approx(1, abs=0.02)
    # The mean of multiples of uniform, by volume, is 1.
    odf = found.density(found.units[0])
    assert found.units[0].name == "multiples_of_uniform"
    assert (odf * found.grid.volumes).sum() / (8 * math.pi**2) == pytest.approx(found.integral)


def test_bunge_angles_are_those_of_the_tables() -> None:
    from rfm.datasets import Orientations

    grid = density_grid(at_rest(Uniform(SO3())), resolution=30).grid
    assert [axis.name for axis in grid.axes] == ["phi1", "Phi", "phi2"]
    written = Orientations(("phi1", "Phi", "phi2")).columns_of(grid.points)
    np.testing.assert_allclose(written % 360, grid.coordinates, atol=1e-9)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_window_of_euclidean_space_holds_its_probability(n: int) -> None:
    flow = at_rest(WrappedNormal(Euclidean(n), torch.zeros(n), 1.0))
    limits = [(-1.0, 2.0), (-2.0, 1.5), (0.0, 3.0)][:n]
    found = density_grid(flow, limits=limits, resolution=0.1)
    truth = math.prod(stats.norm.cdf(high) - stats.norm.cdf(low) for low, high in limits)
    assert found.integral == pytest.approx(truth, abs=1e-3)
    assert "in the window" in found.describe()
    if n < 3:
        mean = density_grid(flow, limits=limits, resolution=0.7, average=5)
        assert mean.integral == pytest.approx(truth, abs=3e-3)
    default = density_grid(flow)
    assert default.integral == pytest.approx(1, abs=0.02)


def test_resolution_is_chosen_and_refined_where_the_integral_shows_the_need(monkeypatch: pytest.MonkeyPatch) -> None:
    broad = density_grid(at_rest(VonMisesFisher(Sphere(2), torch.tensor([1.0, 0.0, 0.0]), 20.0)))
    assert broad.grid.shape == (90, 180)
    # A spike of two degrees' width.
    spike = at_rest(VonMisesFisher(Sphere(2), torch.tensor([0.8, 0.0, 0.6]), 8000.0))
    monkeypatch.setattr(sys.modules["rfm.grids.density_grid"], "_CELLS", (200, 1000))
    assert density_grid(spike).grid.shape == (18, 36)
    coarse = density_grid(spike, resolution=10)
    assert "should be 1" in coarse.describe()
    seen: list[int] = []
    density_grid(broad_flow(), resolution=30, batch_size=20, progress=seen.append)
    assert seen == [20, 20, 20, 12]


def broad_flow() -> Flow:
    return at_rest(VonMisesFisher(Sphere(2), torch.tensor([0.0, 0.6, 0.8]), 4.0))


@pytest.mark.parametrize("p", [0.5, 0.9])
def test_regions_of_cells_hold_their_probability_and_end_at_the_level(p: float) -> None:
    found = density_grid(broad_flow(), resolution=3)
    inside = found.region_probabilities <= p
    assert found.masses[inside].sum() == pytest.approx(p, abs=1e-3)
    # The cap that holds p of a von Mises-Fisher density ends where its exponent is this much below the mode.
    truth = math.log(4 / (2 * math.pi * -math.expm1(-8))) + math.log1p(-p * -math.expm1(-8))
    assert found.level(p) == pytest.approx(truth, abs=0.02)
    assert found.log_density[inside].min() >= found.log_density[~inside].max()


def test_names_of_axes_come_from_the_coordinates() -> None:
    flow = at_rest(Uniform(FlatTorus(2)))
    named = density_grid(flow, resolution=30, coordinates=Angles(("phi [deg]", "psi")))
    assert [axis.name for axis in named.grid.axes] == ["phi_deg", "psi"]
    assert [axis.name for axis in density_grid(flow, resolution=30).grid.axes] == ["angle_1", "angle_2"]
    sky = density_grid(broad_flow(), resolution=30, coordinates=Cartesian(("x", "y", "z"), unit_norm=True))
    assert not sky.grid.earth
    assert [unit.name for unit in sky.units] == ["density_per_steradian"]


# Files.


def read_back(path: Path) -> xarray.Dataset:
    with xarray.open_dataset(path) as dataset:
        return dataset.load()


@pytest.mark.parametrize("engine", ["h5netcdf", "netcdf4"])
def test_netcdf_comes_back_with_units_and_bounds(tmp_path: Path, engine: str) -> None:
    found = density_grid(broad_flow(), resolution=10)
    write_grid(found, tmp_path / "density.nc")
    with xarray.open_dataset(tmp_path / "density.nc", engine=engine) as dataset:
        xarray.testing.assert_equal(dataset.load(), to_xarray(found))
        assert dataset.attrs["Conventions"] == "CF-1.8"
        assert dataset.attrs["integral_over_cells"] == pytest.approx(1, abs=1e-2)
        assert dataset.lat.attrs == {
            "units": "degrees_north",
            "standard_name": "latitude",
            "axis": "Y",
            "long_name": "latitude",
            "bounds": "lat_bnds",
        }
        assert dataset.density_per_km2.attrs["units"] == "km-2"
        assert dataset[dataset.density_per_km2.attrs.get("grid_mapping", "crs")].attrs["semi_major_axis"] == 6378137.0
        # The integral by a reader who knows nothing but the file.
        south, north = np.sin(np.radians(dataset.lat_bnds.values.T))
        west, east = np.radians(dataset.lon_bnds.values.T)
        area = np.outer(north - south, east - west) * EARTH_RADIUS_KM**2
        assert (dataset.density_per_km2.values * area).sum() == pytest.approx(found.integral)
        assert float(dataset.density_per_steradian.sel(lat=45, lon=-170, method="nearest")) > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["density.nc"]


def test_gdal_reads_netcdf_and_geotiff_alike(tmp_path: Path) -> None:
    import rasterio

    found = density_grid(broad_flow(), resolution=10)
    for name in ("density.nc", "density.tif"):
        write_grid(found, tmp_path / name)
    with rasterio.open(tmp_path / "density.tif") as raster:
        assert raster.crs.to_epsg() == 4326
        assert raster.bounds == (-180, -90, 180, 90)
        assert raster.descriptions[:2] == ("density_per_km2", "density_per_steradian")
        assert raster.shape == (18, 36)
        # The value of the cell that a place lies in.
        [values] = raster.sample([(95.0, 55.0)])
        east, north = math.radians(95), math.radians(55)
        x = torch.tensor([[math.cos(north) * math.cos(east), math.cos(north) * math.sin(east), math.sin(north)]])
        truth = math.exp(float(broad_flow().log_prob(x)))
        assert values[1] == pytest.approx(truth, rel=1e-3)
        assert values[0] == pytest.approx(truth / EARTH_RADIUS_KM**2, rel=1e-3)
        first = raster.read(2)
    with rasterio.open(f'netcdf:"{tmp_path / "density.nc"}":density_per_steradian') as raster:
        assert raster.bounds == (-180, -90, 180, 90)
        assert raster.crs.is_geographic
        np.testing.assert_allclose(raster.read(1), first)


def test_csv_has_a_row_for_each_cell(tmp_path: Path) -> None:
    found = density_grid(broad_flow(), resolution=30)
    write_grid(found.with_rate(12.0), tmp_path / "density.csv")
    table = np.genfromtxt(tmp_path / "density.csv", delimiter=",", names=True)
    assert table.dtype.names == (
        *("lat", "lon", "density_per_km2", "density_per_steradian", "events_per_km2_year"),
        *("log_density", "highest_density_probability", "cell_probability"),
    )
    assert len(table) == 72
    assert table["cell_probability"].sum() == pytest.approx(found.integral)
    np.testing.assert_allclose(table["events_per_km2_year"], 12 * table["density_per_km2"])


def test_every_manifold_writes_netcdf_and_csv(tmp_path: Path) -> None:
    for i, manifold in enumerate([Sphere(1), FlatTorus(1), FlatTorus(2), crystal(Octahedral())]):
        found = density_grid(at_rest(Uniform(manifold)), resolution=30)
        write_grid(found, tmp_path / f"{i}.nc")
        write_grid(found, tmp_path / f"{i}.csv")
        back = read_back(tmp_path / f"{i}.nc")
        assert back.log_density.shape == found.grid.shape
        assert all(back[axis.name].attrs["units"] == "degrees" for axis in found.grid.axes)


def test_cells_are_counted_beforehand() -> None:
    assert cell_count(Sphere(2)) == density_grid(broad_flow()).grid.size == 16_200
    assert cell_count(crystal(Octahedral()), 30) == 12 * 3 * 3
    assert cell_count(Euclidean(2), 1e-9) == 20_000
    with pytest.raises(ValueError, match="divides 90"):
        cell_count(Sphere(2), 7)


@pytest.mark.parametrize(
    "source",
    [
        VonMisesFisher(Sphere(2), _normalised(0.3, 0.2, 0.8), 300.0),
        WrappedNormal(FlatTorus(1), torch.tensor([3.1]), 0.05),
        IsotropicGaussianSO3(torch.eye(3), 0.7),
    ],
    ids=["sphere", "circle", "SO3"],
)
def test_cells_may_hold_the_mean_of_several_points(source: Source) -> None:
    flow = at_rest(source)
    coarse, mean = (density_grid(flow, resolution=30, average=k) for k in (1, 6 if source.manifold.dim < 3 else 3))
    assert mean.grid.shape == coarse.grid.shape
    np.testing.assert_allclose(mean.grid.volumes, coarse.grid.volumes)
    assert abs(mean.integral - 1) < 0.02
    assert abs(mean.integral - 1) <= abs(coarse.integral - 1)
    fine = density_grid(flow, resolution=5 if source.manifold.dim < 3 else 10)
    assert mean.integral == pytest.approx(fine.integral)
    [first, *_] = mean.grid.axes
    np.testing.assert_allclose(first.edges, coarse.grid.axes[0].edges)


def test_a_density_that_vanishes_has_levels() -> None:
    grid = density_grid(at_rest(Uniform(FlatTorus(1))), resolution=30).grid
    half = np.where(grid.coordinates[:, 0] > 0, -math.log(math.pi), -math.inf)
    found = DensityGrid(grid, half)
    assert found.integral == pytest.approx(1)
    assert (found.region_probabilities[:6] >= 1 - 1e-9).all()
    assert -math.inf < found.level(0.5) <= 1e-6 - math.log(math.pi)


# Bad input.


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: density_grid(at_rest(WrappedNormal(SPD(2), torch.eye(2)))), "no usual coordinates for a grid"),
        (lambda: density_grid(at_rest(Uniform(Sphere(3)))), "no usual coordinates"),
        (lambda: density_grid(at_rest(Uniform(FlatTorus(4)))), "no usual coordinates"),
        (lambda: density_grid(broad_flow(), resolution=7), "choose a resolution that divides 90"),
        (lambda: density_grid(broad_flow(), resolution=-1), "resolution must be"),
        (lambda: density_grid(broad_flow(), resolution=0.01), "choose a coarser one"),
        (lambda: density_grid(broad_flow(), limits=[(0, 1)] * 2), "leave them out"),
        (lambda: density_grid(broad_flow(), average=2), "give resolution too"),
        (lambda: density_grid(Sphere(2)), "flow must be"),
        (lambda: density_grid(broad_flow(), resolution=30).level(50), "for 90 % pass 0.9"),
        (lambda: density_grid(at_rest(Uniform(FlatTorus(1)))).with_rate(1.0), "of the earth alone"),
        (lambda: check_ending(Path("density.png"), earth=True), "ends in none of .nc, .tif"),
        (lambda: optional_package("no_such_package", "geo", "a netCDF file"), r"pip install .*\[geo\]"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_limits_of_a_window() -> None:
    flow = at_rest(WrappedNormal(Euclidean(1), torch.zeros(1), 1.0))
    for limits, message in (([(1.0, 0.0)], "give the smaller one first"), ([(0, 1)] * 2, "one for each coordinate")):
        with pytest.raises(ValueError, match=message):
            density_grid(flow, limits=limits)


def test_a_geotiff_is_of_the_earth(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"choose \.nc or \.csv"):
        write_grid(density_grid(at_rest(Uniform(FlatTorus(2))), resolution=30), tmp_path / "density.tif")


def test_a_missing_package_is_an_import_error_too() -> None:
    assert issubclass(MissingPackageError, ImportError)


def test_values_that_are_no_densities_are_refused() -> None:
    grid = density_grid(at_rest(Uniform(FlatTorus(1))), resolution=30).grid
    with pytest.raises(ValueError, match="grid's shape"):
        DensityGrid(grid, np.zeros(5))


# Ellipsoids.


def test_the_earths_ellipsoid_has_its_area_and_densities_per_square_kilometre() -> None:
    earth = Ellipsoid([axis / WGS84_AXES[0] for axis in WGS84_AXES])
    flow = Flow(earth, lambda x, t: torch.zeros_like(x), Uniform(earth))
    found = density_grid(flow, resolution=15)
    assert earth.volume is not None
    assert found.grid.volumes.sum() == pytest.approx(earth.volume, rel=1e-12)
    assert found.integral == pytest.approx(1, abs=1e-6)
    assert found.grid.earth
    # National Geospatial-Intelligence Agency: the area of the ellipsoid is 510,065,621.724 square kilometres.
    np.testing.assert_allclose(found.density(found.units[0]), 1 / 510065621.724, rtol=1e-6)
    latitude, longitude = earth.to_geodetic(found.grid.points)
    np.testing.assert_allclose(np.stack([latitude, longitude], axis=1), found.grid.coordinates, atol=1e-9)


def test_bands_of_an_ellipsoid_are_those_of_geographiclib() -> None:
    from geographiclib.geodesic import Geodesic

    own = geography_of(Ellipsoid(WGS84_AXES))
    assert own.kilometres == pytest.approx(1e-3)
    [band] = own.bands(np.array([30.0, 50.0]))
    polygon = Geodesic.WGS84.Polygon()
    # Parallels in small steps, as the polygon's sides are geodesics.
    for latitude, longitudes in ((30.0, range(4001)), (50.0, range(4000, -1, -1))):
        for step in longitudes:
            polygon.AddPoint(latitude, step / 100)
    assert band * math.radians(40) == pytest.approx(polygon.Compute(False, True)[2], rel=1e-7)


@pytest.mark.parametrize("manifold", [Ellipsoid([1.0, 2.0, 3.0]), Ellipsoid([1.0, 2.0]), Sphere(3)], ids=str)
def test_surfaces_without_parallels(manifold: Manifold) -> None:
    with pytest.raises(ValueError, match="latitude"):
        geography_of(manifold)
