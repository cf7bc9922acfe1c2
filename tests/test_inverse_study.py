"""The study of inverse problems: its truths against brute force, its command in the quick form."""

import functools
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import rfm
from experiments.inverse import __main__ as study
from experiments.inverse.calibration import calibration
from experiments.inverse.measures import sliced_wasserstein
from experiments.inverse.problems import SOLVER, Mixture, Problem, plane, rotations, sphere, torus
from experiments.inverse.results import Results
from rfm.posterior import Importance, Measurement, PosteriorDraws, Sampler, Tempering, Unmeasured


def test_the_exact_posterior_of_a_mixture_is_the_prior_times_the_likelihood() -> None:
    problem = plane()
    generator = torch.Generator().manual_seed(0)
    line = torch.linspace(-5, 5, 201)
    grid = torch.cartesian_prod(line, line)
    means = torch.tensor([[-2.0, 1.5], [2.0, 1.5], [0.0, -2.0]])
    prior = (-torch.cdist(grid, means).square() / 2 / 0.4**2).exp().sum(-1)
    shares = prior.double() * problem.measurement(grid).double().exp()
    shares = shares / shares.sum()
    mean = shares @ grid.double()
    exact = problem.exact(20_000, generator).double()
    spread = (shares @ (grid.double() - mean).square()).sqrt()
    assert ((exact.mean(0) - mean).abs() < 4.5 * spread / math.sqrt(20_000)).all()
    assert torch.allclose(exact.std(0), spread, rtol=0.03)


def test_the_closed_form_velocity_carries_to_the_mixture() -> None:
    flow = plane().flow
    x = flow.sample(4000, generator=torch.Generator().manual_seed(0), solver=SOLVER)
    nearest = torch.cdist(x, torch.tensor([[-2.0, 1.5], [2.0, 1.5], [0.0, -2.0]]))
    assert torch.bincount(nearest.argmin(1)).tolist() == pytest.approx([4000 / 3] * 3, rel=0.15)
    assert float(nearest.min(1).values.square().mean()) == pytest.approx(2 * 0.4**2, rel=0.1)


def test_sliced_distances_are_those_of_a_shift() -> None:
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    assert sliced_wasserstein(x, x) == 0
    # The mean square of a coordinate of a unit vector in the plane is a half.
    assert sliced_wasserstein(x, x + torch.tensor([1.0, 0])) == pytest.approx(math.sqrt(0.5), rel=0.15)


@pytest.mark.parametrize("dim", [2, 80])
def test_the_velocity_of_a_mixture_is_the_mean_over_its_parts(dim: int) -> None:
    """Of each part by the formula of two normal distributions."""
    generator = torch.Generator().manual_seed(0)
    x, means = (2 * torch.randn(n, dim, generator=generator, dtype=torch.float64) for n in (20, 5))
    t = torch.linspace(0, 1, 20, dtype=torch.float64)
    variance = (t * 0.4) ** 2 + (1 - t) ** 2
    off = x[:, None] - t[:, None, None] * means
    shares = torch.softmax(-off.square().sum(-1) / 2 / variance[:, None], -1)
    slope = (t * 0.4**2 - (1 - t)) / variance
    expected = (shares[..., None] * (means + slope[:, None, None] * off)).sum(1)
    torch.testing.assert_close(Mixture(means, 0.4).velocity(x, t), expected)


def test_ranks_of_exact_draws_are_uniform_and_those_of_wrong_ones_are_not() -> None:
    problem, method = plane(), Importance(1500)
    assert calibration(problem, method, 40, 0) > 0.01
    for wrong in (_Overconfident, _Prior):
        assert calibration(replace(problem, flow=wrong(problem.flow)), method, 40, 0) < 0.01


class _Overconfident(rfm.Flow):
    """Takes measurements for six times as exact as they are."""

    def __init__(self, flow: rfm.Flow) -> None:
        super().__init__(flow.manifold, flow.field, flow.source)

    def posterior(self, likelihood: Measurement, n: int, **own: Any) -> PosteriorDraws:  # type: ignore[override]
        return super().posterior(Measurement(likelihood.operator, likelihood.y, likelihood.noise / 6), n, **own)


class _Prior(_Overconfident):
    """Does not look at measurements: the ranks of coordinates alone are uniform."""

    def posterior(self, likelihood: Measurement, n: int, **own: Any) -> PosteriorDraws:  # type: ignore[override]
        return rfm.Flow.posterior(self, Unmeasured(self.manifold), n, **own)


@pytest.mark.slow
@pytest.mark.parametrize("method", [Tempering(moves=5, particles=512), Importance(4000)], ids=["tempering", "weights"])
@pytest.mark.parametrize("make", [sphere, torus, rotations])
def test_exact_methods_are_calibrated(make: Callable[[bool], Problem], method: Sampler) -> None:
    problem = make(True)
    assert calibration(problem, method, 100, 1) > 1e-3
    assert calibration(replace(problem, flow=_Overconfident(problem.flow)), method, 60, 1) < 1e-3


def test_what_is_known_is_not_computed_again(tmp_path: Path) -> None:
    path, calls = tmp_path / "folder" / "results.jsonl", []

    def compute() -> dict[str, float]:
        calls.append(1)
        return {"value": 1.5, "modes": math.nan}

    assert Results(path).get({"seed": 0, "draws": 5}, compute)["value"] == 1.5
    with path.open("a", encoding="utf-8") as file:
        file.write('\n{"settings": {"seed": 1')
    again = Results(path)
    assert again.get({"draws": 5, "seed": 0}, compute)["value"] == 1.5
    assert len(calls) == 1
    again.get({"seed": 1, "draws": 5}, compute)
    assert len(calls) == 2
    assert math.isnan(Results(path).get({"seed": 1, "draws": 5}, compute)["modes"])
    assert len(calls) == 2


def test_tables_hold_means_over_seeds_of_what_is_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = Results(tmp_path / "results.jsonl")
    for seed, method in ((0, "Tempering"), (1, "Tempering"), (0, "FLOWER")):
        values = dict.fromkeys(
            ("wasserstein", "mmd", "mmd_at_worth", "coverage", "worth", "evaluations", "seconds"), 1.0 + seed
        )
        settings = {"problem": "sphere", "method": method, "seed": seed, "draws": 1000, "quick": False}
        results.get(settings, functools.partial(dict, values, modes=math.nan))
    other = {"problem": "sphere", "ranks": "Tempering", "replications": 200, "quick": False}
    results.get(other, lambda: {"p": 0.25})
    page = tmp_path / "page.md"
    study.main(["--seeds", "0", "--out", str(tmp_path), "--page", str(page)])
    for out in (capsys.readouterr().out, page.read_text(encoding="utf-8")):
        assert "| sphere | Tempering | 2 | 1.500 ± 0.707 | 1.5 | 1.5 | 1.50 |  | 2 | 2 | 1.5 |" in out
        assert "| sphere | FLOWER | 1 | 1.000 | 1.0 |" in out
        assert "| sphere | Tempering | 200 | 0.25 |" in out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mixture, 2-D", "sphere", "rotations", "earthquakes", "torsions", "motif"])
def test_the_study_runs(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if name in ("earthquakes", "torsions", "motif") and "RFM_DATA" not in os.environ:
        pytest.skip("the data sets are where RFM_DATA says, and it says nothing")
    arguments = ["--quick", "--problems", name, "--calibrated", "--out", str(tmp_path)]
    study.main(arguments)
    out = capsys.readouterr().out
    for method in ("exact draws", "Tempering", "Chains, tempered", "FLOWER"):
        assert f"| {method} |" in out
    assert ("| Twisted |" in out) == (name in ("mixture, 2-D", "sphere", "rotations", "motif"))
    study.main(arguments)
    assert capsys.readouterr().out == out


@pytest.mark.slow
def test_the_study_draws_its_figure_and_writes_its_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    arguments = ["--quick", "--problems", "--out", str(tmp_path), "--page", str(page)]
    study.main([*arguments, "--figure", str(tmp_path / "figure.png")])
    for out in (capsys.readouterr().out, page.read_text(encoding="utf-8")):
        for name in ("sphere", "torus", "rotations"):
            assert f"| {name} | Importance | 10 |" in out
    assert (tmp_path / "figure.png").stat().st_size > 1000
