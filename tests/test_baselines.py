"""Normalising flows of zuko as sources, and as baselines of the evaluation."""

import math
from pathlib import Path

import pytest
import torch

import rfm
from manifolds import SO3, SPD, Euclidean, FlatTorus, Manifold, Sphere
from manifolds.rotations import matrix_from_euler
from rfm.baselines import BASELINES, NormalizingFlow
from rfm.baselines.charts import chart_of
from rfm.command_line import main as cli
from rfm.networks import VelocityField
from rfm.sources import WrappedNormal

FLAT, CIRCULAR = ["nice", "realnvp", "maf", "spline"], ["circular-spline"]
CASES = [(Euclidean(2), kind) for kind in FLAT] + [(m, "circular-spline") for m in (FlatTorus(2), Sphere(2), SO3())]
"""Every kind on every manifold that it serves."""


def random_flow(manifold: Manifold, kind: str) -> NormalizingFlow:
    """Return a flow that was never fitted, far from its base."""
    source = NormalizingFlow(manifold, kind, seed=3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in source.flow.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    source.flow.requires_grad_(False)
    return source


def run(*arguments: object) -> int:
    """Run a command in this process and return its status."""
    return cli.main([str(argument) for argument in arguments])


def uniform_points(manifold: Manifold, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    if manifold.volume is None:
        return torch.randn(count, *manifold.event_shape, generator=generator, dtype=torch.float64)
    return manifold.random_uniform(count, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("manifold", "kind"), CASES, ids=str)
def test_what_is_drawn_is_what_is_scored(manifold: Manifold, kind: str) -> None:
    """The density of draws, found from their neighbours in the chart's coordinates, is what `log_prob` says."""
    source = random_flow(manifold, kind)
    generator = torch.Generator().manual_seed(2)
    points = source.sample(20_000, generator=generator, dtype=torch.float64)
    manifold.check_point(points)
    v = source.chart.coordinates(points)
    lower, upper = v.quantile(0.3, dim=0), v.quantile(0.7, dim=0)
    share = ((v > lower) & (v < upper)).all(-1).double().mean()
    # The same box by draws that are uniform in the coordinates.
    u = lower + (upper - lower) * torch.rand(20_000, manifold.dim, generator=generator, dtype=torch.float64)
    density = (source.log_prob(source.chart.point(u)) - source.chart.log_scale).exp()
    volume = float((upper - lower).prod())
    error = math.sqrt(float(share) / 20_000 + volume**2 * float(density.var()) / 20_000)
    assert abs(float(share) - volume * float(density.mean())) < 5 * error


@pytest.mark.parametrize("manifold", [FlatTorus(2), Sphere(2), SO3()], ids=str)
def test_densities_on_compact_manifolds_integrate_to_one(manifold: Manifold) -> None:
    source = random_flow(manifold, "circular-spline")
    assert manifold.volume is not None
    density = source.log_prob(uniform_points(manifold, 40_000)).exp() * manifold.volume
    assert abs(float(density.mean()) - 1) < 5 * float(density.std()) / 200
    assert float(density.std()) > 0.1, "a uniform density would tell nothing"


@pytest.mark.parametrize("kind", ["maf", "spline"])
def test_a_density_on_the_line_integrates_to_one(kind: str) -> None:
    source = random_flow(Euclidean(1), kind)
    x = torch.linspace(-30, 30, 100_001, dtype=torch.float64)
    assert float(torch.trapezoid(source.log_prob(x[:, None]).exp(), x)) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("manifold", "kind"), CASES, ids=str)
def test_charts_are_inverted_everywhere(manifold: Manifold, kind: str) -> None:
    points = uniform_points(manifold, 500)
    chart = chart_of(manifold, points.mean(0), points.std(0))
    again = chart.point(chart.coordinates(points))
    assert float(manifold.dist(points, again).max()) < 1e-6


def test_a_fit_finds_the_density_that_points_come_from() -> None:
    truth = WrappedNormal(Euclidean(2), torch.tensor([5.0, -3.0]), 0.5)
    points = truth.sample(3000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    source = NormalizingFlow.fit(Euclidean(2), points[:2000], points[2000:2500], kind="realnvp", steps=200)
    test = points[2500:]
    assert float((truth.log_prob(test) - source.log_prob(test)).mean()) == pytest.approx(0, abs=0.02)
    assert not any(parameter.requires_grad for parameter in source.parameters())
    weights = (points[:2000, 0] > 5).double()
    half = NormalizingFlow.fit(
        Euclidean(2),
        points[:2000],
        points[2000:2500],
        kind="realnvp",
        steps=200,
        sample_weights=weights,
        validation_weights=(points[2000:2500, 0] > 5).double(),
    )
    drawn = half.sample(1000, generator=torch.Generator().manual_seed(1))
    assert float((drawn[:, 0] > 5).double().mean()) > 0.9


def test_the_sphere_of_a_chart_is_torn_at_the_pole() -> None:
    """What charts cost: round the pole of the coordinates the density depends on the side one comes from."""
    source = random_flow(Sphere(2), "circular-spline")
    longitude = torch.linspace(-3, 3, 13, dtype=torch.float64)
    near = torch.stack([1e-4 * longitude.cos(), 1e-4 * longitude.sin(), torch.ones_like(longitude)], -1)
    values = source.log_prob(Sphere(2).projx(near))
    assert float(values.max() - values.min()) > 0.1


def test_rotations_of_a_chart_are_torn_where_its_middle_angle_vanishes() -> None:
    """About the identity the first and the last angle turn about one axis: their difference says nothing there."""
    source = random_flow(SO3(), "circular-spline")
    first = torch.linspace(-3, 3, 13, dtype=torch.float64)
    near = matrix_from_euler(torch.stack([first, torch.full_like(first, 1e-4), -first], -1), "zxz", "intrinsic")
    assert float(SO3().dist(near[:1], near).max()) < 1e-3
    values = source.log_prob(near)
    assert float(values.max() - values.min()) > 0.1


def test_it_starts_a_flow_and_is_saved_with_it(tmp_path: Path) -> None:
    points = Euclidean(2).projx(torch.randn(300, 2, generator=torch.Generator().manual_seed(0)) * 0.5)
    source = NormalizingFlow.fit(Euclidean(2), points[:250], points[250:], steps=20)
    flow = rfm.Flow(Euclidean(2), VelocityField(Euclidean(2), 16, 1), source)
    flow.save(tmp_path / "run")
    again = rfm.Flow.load(tmp_path / "run")
    assert torch.equal(again.source.log_prob(points), source.log_prob(points))
    assert torch.equal(again.log_prob(points[:5]), flow.log_prob(points[:5]))


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: NormalizingFlow(FlatTorus(2), "maf"), "must be one of circular-spline"),
        (lambda: NormalizingFlow(Euclidean(2), "glow"), "must be one of nice, realnvp, maf, spline"),
        (lambda: NormalizingFlow(Euclidean(1), "realnvp"), "choose maf or spline"),
        (lambda: NormalizingFlow(SPD(2), "spline"), "chart_of.register"),
        (lambda: NormalizingFlow(Sphere(3), "circular-spline"), "Sphere\\(2\\) has"),
        (lambda: NormalizingFlow.fit(Euclidean(2), torch.zeros(5, 2), torch.zeros(0, 2)), "hold out a tenth"),
    ],
)
def test_bad_input_gets_one_sentence(make: object, named: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=named) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_command_line_compares_with_what_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "angles.csv"
    angles = torch.randn(120, 2, generator=torch.Generator().manual_seed(0)) * 0.4
    table.write_text("phi,psi\n" + "\n".join(f"{a:.5f},{b:.5f}" for a, b in angles.tolist()), encoding="utf-8")
    out = tmp_path / "run"
    assert run("fit", table, "--manifold", "torus", "--radians", "--steps", 5, "--out", out) == 0
    capsys.readouterr()
    assert run("evaluate", out, "--baseline", "circular-spline") == 0
    text = capsys.readouterr().out
    assert "circular spline flow" in text
    assert "flow minus circular spline flow, per point" in text
    assert run("evaluate", out, "--baseline", "glow") == 2
    assert f"take {', '.join(BASELINES)}" in " ".join(capsys.readouterr().err.split())
