"""Posteriors on the command line: draws follow what is given, and what makes no sense is refused in a sentence."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import rfm
from manifolds import FlatTorus, Manifold, Sphere
from rfm.command_line import main as cli
from rfm.command_line.column_measurements import Given, likelihood_and_slice, parse_given
from rfm.datasets import read_table
from rfm.datasets.angles import Angles
from rfm.datasets.cartesian import Cartesian
from rfm.datasets.coordinates import Coordinates
from rfm.datasets.geographic import LatitudeLongitude
from rfm.integrators import FixedStep
from rfm.networks import VelocityField
from rfm.posterior import Likelihood


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a fit of a few steps to places of the Pacific."""
    folder = tmp_path_factory.mktemp("posterior")
    generator = np.random.default_rng(0)
    rows = [f"{8 * generator.standard_normal():.3f},{180 + 15 * generator.standard_normal():.3f}" for _ in range(60)]
    (folder / "quakes.csv").write_text("\n".join(["lat,lon", *rows]) + "\n")
    defaults = VelocityField.__init__.__defaults__
    assert defaults is not None
    VelocityField.__init__.__defaults__ = (16, 1, 16, *defaults[3:])
    try:
        words = ["--manifold", "sphere", "--steps", "10", "--batch-size", "32", "--device", "cpu", "--quiet"]
        assert cli.main(["fit", str(folder / "quakes.csv"), "--out", str(folder / "run"), *words]) == 0
    finally:
        VelocityField.__init__.__defaults__ = defaults
    return folder / "run"


def test_draws_follow_what_is_given_across_the_date_line(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "draws.csv"
    words = [
        "posterior",
        str(run_folder),
        "--given",
        "lat=10±2",
        "--given",
        "LON=179+-5",
        "-n",
        "64",
        "--out",
        str(out),
    ]
    assert cli.main([*words, "--particles", "128", "--plot", str(tmp_path / "plot.png")]) == 0
    err = capsys.readouterr().err
    assert "64 draws, worth" in err
    table = read_table(out)
    assert table.names[:2] == ("lat", "lon")
    latitude, longitude = table.numbers(("lat", "lon")).T
    assert abs(latitude.mean() - 10) < 2
    assert latitude.std() < 4
    off = np.remainder(longitude - 179 + 180, 360) - 180
    assert abs(off.mean()) < 4
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_draws_about_the_date_line_are_those_of_quadrature(run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "draws.csv"
    words = ["posterior", str(run_folder), "--given", "lon=179+-5", "-n", "600", "--out", str(out), "--quiet"]
    assert cli.main(words) == 0
    longitude = read_table(out).numbers(("lat", "lon"))[:, 1]
    # Of the fitted density on a grid of equal areas, within six deviations of the noise.
    level, degrees = torch.meshgrid(torch.linspace(-0.995, 0.995, 80), torch.linspace(149, 209, 60), indexing="ij")
    across, turn = (1 - level.square()).sqrt(), degrees.deg2rad()
    x = torch.stack([across * turn.cos(), across * turn.sin(), level], -1).reshape(-1, 3)
    log_p = rfm.Flow.load(run_folder).log_prob(x, solver=FixedStep(steps=16)).double()
    shares = torch.softmax(log_p - ((degrees.flatten().double() - 179) / 5).square() / 2, 0)
    west = float(shares[degrees.flatten() > 180].sum())
    assert 0.2 < west < 0.8
    off = np.remainder(longitude - 179 + 180, 360) - 180
    assert float((off > 1).mean()) == pytest.approx(west, abs=4.5 * math.sqrt(west * (1 - west) / 300))
    mean = float((shares * (degrees.flatten() - 179)).sum())
    assert off.mean() == pytest.approx(mean, abs=4.5 * 5 / math.sqrt(300))
    assert np.abs(off).max() < 30


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["lat=10"], "are not coordinates that can be known without error"),
        (["lat=ten"], "holds no number"),
        (["10±2"], "is neither COLUMN=VALUE±SD nor a file"),
        (["lat=a±2"], "no two numbers"),
        (["lat=1±2±3"], "no two numbers"),
        (["lat=1±0"], "positive"),
        (["lat=1±-1"], "positive"),
        (["lat=inf±1"], "finite"),
        (["depth=1±1"], "there is no column"),
        (["lat=1±1", "LAT=2±1"], "given twice"),
        (["lat=100±1"], "from -90 to 90"),
        (["lon=10±400"], "more than half the period"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(
    run_folder: Path, words: list[str], match: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["posterior", str(run_folder), "--given", *words]) == 2
    err = capsys.readouterr().err
    assert match in " ".join(err.split())
    assert len(err.strip().splitlines()) <= 4


def test_ways_to_write_a_measurement() -> None:
    for word in ("psi=140±10", "psi=140+-10", "psi=140+/-10", "psi = 140 ± 10", "psi=1.4e2+-1e1"):
        assert parse_given(word) == Given("psi", 140.0, 10.0, f"--given {word!r}")
    assert parse_given("psi=-140+-10").value == -140
    assert parse_given("psi=140") == Given("psi", 140.0, None, "--given 'psi=140'")


def likelihood(word: str, coordinates: Coordinates, manifold: Manifold) -> Likelihood:
    found, known = likelihood_and_slice([parse_given(word)], coordinates, manifold)
    assert found is not None
    assert known is None
    return found


def test_columns_are_measured_in_their_units() -> None:
    degrees = likelihood("psi=-175±10", Angles(("phi", "psi")), FlatTorus(2))
    word = f"psi={math.radians(-175)}±{math.radians(10)}"
    radians = likelihood(word, Angles(("phi", "psi"), radians=True), FlatTorus(2))
    x = torch.tensor([[0.0, math.radians(179)], [1.0, math.radians(-170)]], dtype=torch.float64)
    shift = math.log(math.radians(10) / 10)
    assert torch.allclose(degrees(x), radians(x) + shift)
    assert float(degrees(x)[0]) == pytest.approx(-(0.6**2) / 2 - math.log(10 * math.sqrt(2 * math.pi)), abs=1e-9)
    flat = likelihood("y=0.5±0.1", Cartesian(("x", "y", "z"), unit_norm=True), Sphere(2))
    expected = -12.5 - math.log(0.1 * math.sqrt(2 * math.pi))
    assert float(flat(torch.eye(3, dtype=torch.float64))[1]) == pytest.approx(expected)
    first = likelihood("longitude=0±1", LatitudeLongitude(longitude_first=True), Sphere(2))
    east = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    assert float(first(east)[0]) == pytest.approx(-math.log(math.sqrt(2 * math.pi)))
