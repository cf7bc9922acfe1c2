"""The commands that answer questions of a fitted density, on runs whose density is known."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray
from scipy import stats

import rfm
from manifolds import SPD, Euclidean, FlatTorus, Sphere
from rfm.command_line import main as cli
from rfm.command_line.run_folder import RunData
from rfm.conditions import Conditions
from rfm.datasets import EARTH_RADIUS_KM, Angles, Cartesian, Coordinates, LatitudeLongitude, Orientations, Split
from rfm.networks import VelocityField
from rfm.sources import IsotropicGaussianSO3, Source, Uniform, VonMisesFisher, WrappedNormal

_MEAN = torch.tensor([0.0, 0.6, 0.8], dtype=torch.float64)
_CONCENTRATION = 8.0


def run(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 0) -> tuple[str, str]:
    """Run a command in this process; return stdout and stderr."""
    found = cli.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert found == status, err
    return out, err


def write_run(
    folder: Path,
    source: Source,
    coordinates: Coordinates,
    points: torch.Tensor | None = None,
    conditions: Conditions | None = None,
    weights: torch.Tensor | None = None,
) -> Path:
    """Write the run of a flow that leaves its source where it is, with draws of it as the data."""
    field = VelocityField(source.manifold, width=8, depth=1, features=8, condition_dim=0 if conditions is None else 1)
    for parameter in field.parameters():
        parameter.data.zero_()
    own = source.sample((200,), torch.Generator().manual_seed(0), torch.float64) if points is None else points
    n = len(own)
    split = Split(torch.arange(n // 2), torch.arange(n // 2, 3 * n // 4), torch.arange(3 * n // 4, n))
    rfm.Flow(source.manifold, field, source, conditions=conditions).save(folder)
    condition = None if conditions is None else torch.linspace(4, 8, n, dtype=torch.float64)[:, None]
    RunData(own, split, coordinates, "quakes.csv", condition=condition, weights=weights).save(folder)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs on several manifolds; not to be written to."""
    folder = tmp_path_factory.mktemp("runs")
    places = LatitudeLongitude(("latitude", "longitude"))
    write_run(folder / "quakes", VonMisesFisher(Sphere(2), _MEAN, _CONCENTRATION), places)
    write_run(folder / "flat", Uniform(Sphere(2)), places)
    angles = Angles(("phi", "psi"))
    write_run(folder / "torsions", WrappedNormal(FlatTorus(2), torch.tensor([-1.0, 2.9]), 0.5), angles)
    write_run(folder / "plane", WrappedNormal(Euclidean(2), torch.zeros(2)), Cartesian(("x", "y")))
    write_run(folder / "turns", IsotropicGaussianSO3(torch.eye(3), 0.4), Orientations(("phi1", "Phi", "phi2")))
    write_run(folder / "covariances", WrappedNormal(SPD(2), torch.eye(2)), Cartesian(("a", "b", "c", "d")))
    known = Conditions.of({"magnitude": np.linspace(4, 8, 200)})
    write_run(folder / "by-magnitude", Uniform(Sphere(2)), places, conditions=known)
    weights = torch.ones(200, dtype=torch.float64)
    write_run(folder / "weighted", Uniform(Sphere(2)), places, weights=weights)
    return folder


# Grids.


def test_grid_writes_what_xarray_reads_and_prints_the_integral(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "density.nc"
    text, err = run(capsys, "grid", runs / "quakes", "--out", out, "--resolution", 10, "--years", 20)
    assert "18 lat x 36 lon cells of 10 degrees; the integral over them is 1.00" in text
    assert "10 events per year in all" in text
    assert text.endswith(f"{out}\n")
    assert "points from columns latitude, longitude" in err
    with xarray.open_dataset(out) as dataset:
        assert dataset.attrs["title"] == "quakes.csv"
        np.testing.assert_allclose(dataset.events_per_km2_year, 10 * dataset.density_per_km2)
    _, err = run(capsys, "grid", runs / "quakes", "--out", out, "--resolution", 10, status=2)
    assert "use --force" in err
    record = json.loads(run(capsys, *_grid(runs, tmp_path / "density.tif"), "--json", "--quiet")[0])
    assert record["cells"] == {"lat": 6, "lon": 12}
    assert record["variables"] == ["density_per_km2", "density_per_steradian"]
    assert record["integral"] == pytest.approx(1, abs=0.05)


def _grid(runs: Path, out: Path) -> list[object]:
    return ["grid", runs / "quakes", "--out", out, "--resolution", 30]


@pytest.mark.parametrize(
    ("name", "axes"),
    [("torsions", ["phi", "psi"]), ("plane", ["x", "y"]), ("turns", ["phi1", "Phi", "phi2"])],
)
def test_grids_of_other_manifolds(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, axes: list[str]
) -> None:
    more = ["--resolution", 1, "--window", "y=-2..2", "x=-1..3"] if name == "plane" else ["--resolution", 30]
    run(capsys, "grid", runs / name, "--out", tmp_path / "density.nc", "--quiet", *more)
    with xarray.open_dataset(tmp_path / "density.nc") as dataset:
        assert set(axes) <= set(dataset.coords)
        if name == "plane":
            assert dataset.x_bnds.values[0, 0] == -1
            assert dataset.y_bnds.values[-1, 1] == 2


def test_a_grid_given_a_condition(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "density.nc"
    options = ["--condition", "magnitude=6", "--resolution", 30, "--quiet"]
    run(capsys, "grid", runs / "by-magnitude", "--out", out, *options)
    with xarray.open_dataset(out) as dataset:
        assert "magnitude" in dataset.attrs["title"]


# Probabilities.


def cap(radius: float) -> float:
    k = _CONCENTRATION
    return math.expm1(-k * (1 - math.cos(radius))) / math.expm1(-2 * k)


def test_the_probability_of_a_ball_in_kilometres(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    latitude, longitude = math.degrees(math.asin(0.8)), 90
    region = ["--ball", latitude, longitude, 2000, "--years", 50, "--horizon", 1, 10]
    text, _ = run(capsys, "probability", runs / "quakes", *region, "--quiet")
    assert "by cubature" in text
    assert text.startswith("ball of radius 2000 km about latitude 53.1301, longitude 90\n")
    record = json.loads(run(capsys, "probability", runs / "quakes", *region, "--quiet", "--json")[0])
    radius = 2000 / EARTH_RADIUS_KM
    truth = cap(radius)
    area = 2 * math.pi * (1 - math.cos(radius)) * EARTH_RADIUS_KM**2
    assert record["probability"] == pytest.approx(truth, rel=1e-3)
    assert record["area_km2"] == pytest.approx(area, rel=1e-6)
    assert record["events_per_year"] == pytest.approx(4 * truth, rel=1e-3)
    assert record["events_per_km2_year"] == pytest.approx(4 * truth / area, rel=1e-3)
    assert record["at_least_one"]["10"]["probability"] == pytest.approx(-math.expm1(-40 * truth), rel=1e-3)
    assert f"{record['events_per_km2_year']:.4g} per km2 and year" in text
    assert "at least one in 10 years" in text


def test_boxes_on_the_earth_also_over_the_date_line(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for box, truth in (
        (["south=30", "north=90", "west=170", "east=-170"], 20 / 360 * 0.25),
        (["south=-30", "north=30"], 0.5),
        (["west=-10", "east=20"], 30 / 360),
    ):
        record = json.loads(run(capsys, "probability", runs / "flat", "--box", *box, "--json", "--quiet")[0])
        assert record["probability"] == pytest.approx(truth, rel=1e-4)
        assert record["area_km2"] == pytest.approx(truth * 4 * math.pi * EARTH_RADIUS_KM**2)


def test_boxes_and_balls_in_the_units_of_the_run(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def value(name: str, *region: object) -> float:
        record = json.loads(run(capsys, "probability", runs / name, *region, "--json", "--quiet")[0])
        assert "area_km2" not in record
        return record["probability"]

    def wrapped(mean: float, low: float, high: float) -> float:
        turns = np.radians(np.arange(-720, 721, 360.0))
        law = stats.norm(mean, 0.5)
        return float((law.cdf(np.radians(high) + turns) - law.cdf(np.radians(low) + turns)).sum())

    own = value("torsions", "--box", "phi=-90..-30", "psi=150..-170")
    assert own == pytest.approx(wrapped(-1.0, -90, -30) * wrapped(2.9, 150, 190), rel=2e-3)
    assert value("torsions", "--box", "phi=-90..-30") == pytest.approx(wrapped(-1.0, -90, -30), rel=2e-3)
    half = value("plane", "--box", "x=0..", "--draws", 4000)
    assert half == pytest.approx(0.5, abs=0.03)
    assert value("plane", "--ball", 0, 0, 1.5) == pytest.approx(stats.chi2(2).cdf(1.5**2), rel=1e-3)
    assert value("turns", "--ball", 0, 0, 0, 180) == pytest.approx(1, abs=1e-3)
    far = math.degrees(1.2)
    assert value("torsions", "--ball", math.degrees(-1.0), math.degrees(2.9), far) == pytest.approx(
        1 - math.exp(-(1.2**2) / 0.5), rel=0.02
    )


def test_a_polygon_of_a_file(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ring = [[-170, 0], [170, 0], [170, 30], [-170, 30], [-170, 0]]
    (tmp_path / "region.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    out, err = run(capsys, "probability", runs / "flat", "--polygon", tmp_path / "region.geojson")
    assert f"probability {340 / 360 / 4:.3g}" in out
    assert "340 degrees of longitude" in err
    assert "probability:" in err  # progress


# Regions.


def test_regions_and_their_outlines(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "regions.geojson"
    command = ["regions", runs / "quakes", "--probabilities", 50, 90, "--resolution", 3, "--quiet"]
    text, _ = run(capsys, *command, "--out", out)
    rows = text.splitlines()
    assert rows[0].split("  ")[0] == "region"
    assert rows[1].startswith("50")
    assert "area, km2" in rows[0]
    assert "nats per steradian" in rows[-2]
    assert "outlines are of 60 lat x 120 lon cells" in rows[-1]
    assert "the integral over them is 1.0" in rows[-1]
    record = json.loads(run(capsys, *command, "--json")[0])
    for row, p in zip(record["regions"], (0.5, 0.9), strict=True):
        area = -2 * math.pi * math.log1p(-p) / _CONCENTRATION * EARTH_RADIUS_KM**2
        assert row["area_km2"] == pytest.approx(area, rel=0.02)
    assert record["test_coverage"]["probability"] == [0.5, 0.9]
    features = json.loads(out.read_text())["features"]
    assert [feature["properties"]["probability"] for feature in features] == [0.9, 0.5]


def test_regions_of_other_manifolds_have_levels_and_no_outlines(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = json.loads(run(capsys, "regions", runs / "torsions", "--json", "--quiet")[0])
    assert [row["probability"] for row in record["regions"]] == [0.5, 0.9, 0.99]
    assert "area_km2" not in record["regions"][0]
    _, err = run(capsys, "regions", runs / "torsions", "--out", tmp_path / "regions.geojson", status=2)
    assert "highest_density_probability" in err
    record = json.loads(run(capsys, *_conditional(runs), "--json", "--quiet")[0])
    assert "test_coverage" in record
    given = json.loads(run(capsys, *_conditional(runs), "--condition", "magnitude=5", "--json", "--quiet")[0])
    assert "test_coverage" not in given


def _conditional(runs: Path) -> list[object]:
    return ["regions", runs / "by-magnitude", "--resolution", 30, "--draws", 100]


# Comparisons.


@pytest.fixture
def points(tmp_path: Path) -> Path:
    """New points of the density of the run on quakes, with a column of storms."""
    source = VonMisesFisher(Sphere(2), _MEAN, _CONCENTRATION)
    x = source.sample((120,), torch.Generator().manual_seed(7), torch.float64)
    places = LatitudeLongitude(("latitude", "longitude")).columns_of(x)
    rows = [f"{a:.6f},{b:.6f},storm {i // 6}" for i, (a, b) in enumerate(places)]
    (tmp_path / "points.csv").write_text("\n".join(["latitude,longitude,storm", *rows]))
    return tmp_path / "points.csv"


def test_the_better_of_two_fits(runs: Path, points: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["compare", runs / "quakes", runs / "flat", points, "--quiet"]
    text, err = run(capsys, *command)
    assert f"{runs / 'quakes'} is better" in text
    assert err == ""
    record = json.loads(run(capsys, *command, "--json")[0])
    k = _CONCENTRATION
    # The mean of the log-density of a von Mises-Fisher law: log(normaliser) + k (coth k - 1) - 1 / k ... by its cosine.
    truth = math.log(k / (2 * math.pi * -math.expm1(-2 * k))) + k * (1 / math.tanh(k) - 1 / k - 1)
    difference = record["nll_difference_nats"]
    assert abs(difference["mean"] - (-truth - math.log(4 * math.pi))) < 4 * difference["standard_error"]
    assert difference["interval_95"][1] < 0
    own, flat = (record["runs"][str(runs / name)] for name in ("quakes", "flat"))
    assert flat["nll_nats"]["mean"] == pytest.approx(math.log(4 * math.pi), rel=1e-4)
    assert abs(own["squared_mmd"]["mean"]) < 4 * own["squared_mmd"]["standard_error"]
    assert flat["squared_mmd"]["mean"] > 4 * flat["squared_mmd"]["standard_error"]
    assert flat["classifier_accuracy"]["mean"] > own["classifier_accuracy"]["mean"]
    assert record["clusters"] == record["points"] == 120


def test_groups_widen_the_interval_and_training_points_are_noticed(
    runs: Path, points: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compare", runs / "quakes", runs / "flat", points, "--json", "--quiet"]
    grouped = json.loads(run(capsys, *command, "--groups", "storm")[0])
    assert grouped["clusters"] == 20
    assert grouped["clustered_by"] == "storm"
    # The run's own data, in the digits that read back to the same numbers.
    seen = LatitudeLongitude(("latitude", "longitude")).columns_of(
        torch.tensor([[0.6, 0.0, 0.8], [0.0, -0.6, 0.8]]).double()
    )
    table = tmp_path / "seen.csv"
    table.write_text("latitude,longitude\n" + "\n".join(f"{a!r},{b!r}" for a, b in (seen + 0.0).tolist()))
    places = LatitudeLongitude(("latitude", "longitude"))
    own = places.points(places.read(table))
    again = write_run(tmp_path / "again", Uniform(Sphere(2)), places, points=torch.cat([own, own, own, own]))
    record = json.loads(run(capsys, "compare", again, runs / "flat", table, "--json", "--quiet")[0])
    assert len(record["warnings"]) == 1
    assert "2 of 2 points are among those" in record["warnings"][0]


def test_conditions_of_a_compared_run_come_from_the_table(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "points.csv"
    table.write_text("latitude,longitude,magnitude\n" + "\n".join(f"{i},{2 * i},{5 + i / 40}" for i in range(1, 40)))
    record = json.loads(run(capsys, "compare", runs / "by-magnitude", runs / "flat", table, "--json", "--quiet")[0])
    assert record["nll_difference_nats"]["mean"] == pytest.approx(0, abs=1e-3)
    assert record["verdict"] == "no clear difference" or abs(record["nll_difference_nats"]["mean"]) < 1e-3


# Bad input.


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["grid", "quakes", "--out", "x.png"], "ends in none of .nc"),
        (["grid", "quakes", "--out", "x.nc", "--resolution", "7"], "divides 90"),
        (["grid", "covariances", "--out", "x.nc"], "no usual coordinates"),
        (["grid", "torsions", "--out", "x.tif", "--resolution", "30"], "choose .nc or .csv"),
        (["grid", "plane", "--out", "x.nc", "--window", "x=0..1"], "two ends for y"),
        (["grid", "torsions", "--out", "x.nc", "--resolution", "30", "--years", "3"], "of runs on the earth"),
        (["grid", "quakes", "--out", "x.nc", "--events", "3"], "give --years too"),
        (["grid", "weighted", "--out", "x.nc", "--years", "3"], "give --events"),
        (["probability", "quakes"], "one of the arguments --box --ball --polygon is required"),
        (["probability", "quakes", "--box", "south=50", "north=40"], "exchange or correct them"),
        (["probability", "quakes", "--box", "top=50"], "is none of south=, north=, west=, east="),
        (["probability", "quakes", "--box", "south=low"], "holds 'low', which is no number"),
        (["probability", "torsions", "--box", "phi=3"], "is no range"),
        (["probability", "torsions", "--box", "phi=3.."], "an angle has two ends"),
        (["probability", "turns", "--box", "phi1=0..3"], "use --ball"),
        (["probability", "quakes", "--ball", "10", "20"], "latitude, longitude and a radius, 3 numbers, got 2"),
        (["probability", "quakes", "--ball", "100", "20", "5"], "latitude 100 is not in -90 to 90"),
        (["probability", "torsions", "--polygon", "x.geojson"], "use --box or --ball"),
        (["regions", "quakes", "--probabilities", "100"], "below 100 percent"),
        (["compare", "quakes", "quakes", "points.csv"], "are one run"),
        (["compare", "quakes", "torsions", "points.csv"], "phi"),
    ],
)
def test_bad_input_is_one_sentence(
    runs: Path, points: Path, capsys: pytest.CaptureFixture[str], command: list[str], message: str
) -> None:
    places = {path.name: str(path) for path in runs.iterdir()}
    words = [places.get(word, str(points) if word == "points.csv" else word) for word in command]
    words = [str(points.parent / word) if word.startswith("x.") else word for word in words]
    _, err = run(capsys, *words, status=2)
    assert message in " ".join(err.split())
    assert len(err.strip().splitlines()) <= 3


def test_runs_of_other_columns_are_not_compared(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_run(tmp_path / "other", Uniform(Sphere(2)), LatitudeLongitude(("lat2", "lon2")))
    table = tmp_path / "both.csv"
    table.write_text("latitude,longitude,lat2,lon2\n1,2,3,4\n5,6,7,8\n")
    _, err = run(capsys, "compare", runs / "quakes", other, table, status=2)
    assert "read different points" in err
