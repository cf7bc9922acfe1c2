"""``--inside``: polygons and ranges on the command line, from the table to samples, densities and pictures."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import rfm
from manifolds import Bounded, Box, Euclidean, FlatTorus, JointLimits, PlanarPolygon, Sphere
from rfm.command_line import main as cli
from rfm.networks import VelocityField
from rfm.plotting import border_lines, plot_flow
from rfm.regions import LatitudeLongitudeBox, Polygon, planar_polygon, probability

_FIT = ["--steps", "3", "--validations", "1", "--batch-size", "16", "--device", "cpu"]
ISLAND = [[[0, 0], [30, 0], [30, 20], [10, 30], [0, 0]], [[12, 8], [12, 12], [18, 12], [18, 8], [12, 8]]]
"""With a lake, and an outer ring that runs clockwise or not: GeoJSON's readers do not mind."""


@pytest.fixture(autouse=True)
def _small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = VelocityField.__init__.__defaults__
    assert defaults is not None
    monkeypatch.setattr(VelocityField.__init__, "__defaults__", (8, 1, 8, *defaults[3:]))


def run(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 0) -> tuple[str, str]:
    found = cli.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert found == status, err
    return out, err


def geojson(path: Path, rings: list[list[list[float]]] = ISLAND) -> Path:
    geometry = {"type": "Polygon", "coordinates": rings}
    feature = {"type": "Feature", "properties": {}, "geometry": geometry}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    return path


def table(path: Path, names: str, rows: np.ndarray) -> Path:
    np.savetxt(path, rows, delimiter=",", header=names, comments="", fmt="%.9f")
    return path


def on_island(count: int) -> np.ndarray:
    """Return latitudes and longitudes on the island."""
    generator = torch.Generator().manual_seed(0)
    x = Bounded(Sphere(2), Polygon([ISLAND]).constraint()).random_uniform(
        count, generator=generator, dtype=torch.float64
    )
    return torch.stack(Sphere.to_degrees(x), 1).numpy()


def columns(text: str) -> dict[str, np.ndarray]:
    rows = list(csv.reader(io.StringIO(text)))
    values = np.array(rows[1:], dtype=float)
    return {name: values[:, i] for i, name in enumerate(rows[0])}


def test_a_polygon_of_the_earth_from_table_to_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = np.concatenate([on_island(60), [[50.0, 100.0], [10.0, 15.0]]])
    file = table(tmp_path / "points.csv", "latitude,longitude", points)
    border, out = geojson(tmp_path / "island.geojson"), tmp_path / "run"
    fit = ["fit", file, "--manifold", "sphere", "--inside", border, "--out", out, *_FIT]
    _, err = run(capsys, *fit, status=2)
    assert "line 62: latitude 50.000000000, longitude 100.000000000 lies outside --inside" in err
    assert "2 of 62 rows are like that" in err
    assert "--skip-bad-rows" in err
    _, err = run(capsys, *fit, "--skip-bad-rows")
    assert "skipped 2 of 62 rows" in err
    sampled = columns(run(capsys, "sample", out, "-n", 300)[0])
    inside = Polygon([ISLAND])
    x = Sphere.from_degrees(*(torch.tensor(sampled[name]) for name in ("latitude", "longitude")))
    assert inside.contains(x).all()
    scores = columns(run(capsys, "log-prob", out, file)[0])["log_prob_nats_per_steradian"]
    assert np.isfinite(scores[:60]).all()
    assert np.isneginf(scores[60:]).all()
    text, _ = run(capsys, "evaluate", out)
    assert "divided by their mass inside" in text
    flow = rfm.Flow.load(out)
    figure = plot_flow(flow, x[:50], x[50:100], evaluations=100)
    assert any(len(axes.collections) > 1 for axes in figure.axes)
    everywhere = LatitudeLongitudeBox(-90, 90, -180, 180)
    assert probability(flow, everywhere, evaluations=400, draws=100).value == pytest.approx(1, abs=0.1)


def test_limits_of_angles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = np.random.default_rng(0)
    angles = np.stack([generator.uniform(-180, 0, 60), generator.uniform(-180, 180, 60)], 1)
    file, out = table(tmp_path / "angles.csv", "phi,psi", angles), tmp_path / "run"
    run(capsys, "fit", file, "--manifold", "torus", "--inside", "phi=-180..0", "--out", out, *_FIT)
    sampled = columns(run(capsys, "sample", out, "-n", 200)[0])
    assert (sampled["phi"] <= 1e-9).all()
    assert (sampled["psi"] > 0).any()
    manifold = rfm.Flow.load(out).manifold
    assert isinstance(manifold, Bounded)
    assert isinstance(manifold.constraint, JointLimits)
    _, err = run(
        capsys, "fit", file, "--manifold", "torus", "--inside", "phi=-90..0", "--out", tmp_path / "b", *_FIT, status=2
    )
    assert "lies outside --inside phi=-90..0" in err
    for words, sentence in (
        (["omega=0..1"], "is none of phi=, psi="),
        (["phi=0.."], "an angle has two ends"),
        (["phi=x..1"], "holds 'x', which is no number"),
    ):
        refused = ["fit", file, "--manifold", "torus", "--inside", *words, "--out", tmp_path / "c", *_FIT]
        assert sentence in run(capsys, *refused, status=2)[1]


def test_ranges_and_polygons_of_the_plane(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = np.random.default_rng(0).uniform(0, 1, (60, 2)) * [4, 1]
    file = table(tmp_path / "plane.csv", "x,y", x)
    run(capsys, "fit", file, "--manifold", "euclidean", "--inside", "x=0..4", "--out", tmp_path / "a", *_FIT)
    half = rfm.Flow.load(tmp_path / "a")
    assert isinstance(half.manifold, Bounded)
    assert isinstance(half.manifold.constraint, Box)
    assert half.manifold.volume is None
    assert half.sample(100)[:, 0].min() >= 0
    border = geojson(tmp_path / "plane.geojson", [[[-1, -1], [5, -1], [5, 2], [-1, 2], [-1, -1]]])
    run(capsys, "fit", file, "--manifold", "euclidean", "--inside", border, "--out", tmp_path / "b", *_FIT)
    assert isinstance(rfm.Flow.load(tmp_path / "b").manifold.constraint, PlanarPolygon)
    plot_flow(rfm.Flow.load(tmp_path / "b"), x[:20], x[20:40], evaluations=100)


@pytest.mark.parametrize(
    ("manifold", "inside", "sentence"),
    [
        ("sphere", ["nowhere.geojson"], "there is no such file"),
        ("sphere", ["a", "b"], "takes one GeoJSON file"),
        ("so3", ["x=0..1"], "--inside is for the sphere, tori and Euclidean space"),
    ],
)
def test_refused_sets(
    manifold: str, inside: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = "latitude,longitude" if manifold == "sphere" else "qx,qy,qz,qw"
    rows = on_island(20) if manifold == "sphere" else np.tile([0.0, 0.0, 0.0, 1.0], (20, 1))
    file = table(tmp_path / "t.csv", names, rows)
    arguments = ["fit", file, "--manifold", manifold, "--inside", *inside, "--out", tmp_path / "run", *_FIT]
    assert sentence in run(capsys, *arguments, status=2)[1]


def test_a_broken_polygon_gets_a_sentence(tmp_path: Path) -> None:
    bow_tie = geojson(tmp_path / "bow.geojson", [[[0, 0], [1, 1], [1, 0], [0, 1], [0, 0]]])
    with pytest.raises(ValueError, match=r"polygon 1 is not valid .* shapely\.make_valid"):
        planar_polygon(bow_tie)
    with pytest.raises(ValueError, match=r"bow\.geojson: polygon 1 is not valid"):
        Polygon.from_geojson(bow_tie)
    (tmp_path / "point.geojson").write_text('{"type": "Point", "coordinates": [0, 0]}')
    with pytest.raises(ValueError, match="holds no Polygon"):
        planar_polygon(tmp_path / "point.geojson")


def test_borders_as_lines_lie_on_the_border() -> None:
    from bounded_zoo import BOUNDED

    for _, make in BOUNDED:
        m = make()
        lines = border_lines(m)
        assert bool(lines) == (m.dim == 2)
        for line in lines:
            depth = m.constraint.depth(m.m.projx(torch.from_numpy(line)))
            assert depth.abs().max() < 1e-6
    assert border_lines(Euclidean(2)) == []
    assert len(border_lines(Bounded(FlatTorus(2), JointLimits([-1.0, -1.0], [1.0, 1.0])))) == 9
