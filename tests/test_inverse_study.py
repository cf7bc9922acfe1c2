"""The study of inverse problems: its truths against brute force, its command in the quick form."""

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import rfm
from experiments.inverse import __main__ as study
from experiments.inverse.measures import calibration, sliced_wasserstein
from experiments.inverse.problems import SOLVER, plane
from rfm.posterior import Importance, Measurement, PosteriorDraws


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


def test_ranks_of_exact_draws_are_uniform_and_those_of_overconfident_ones_are_not() -> None:
    problem, method = plane(), Importance(1500)
    assert calibration(problem, method, 40, 0) > 0.01
    assert calibration(replace(problem, flow=_Overconfident(problem.flow)), method, 40, 0) < 0.01


class _Overconfident(rfm.Flow):
    """Takes measurements for six times as exact as they are."""

    def __init__(self, flow: rfm.Flow) -> None:
        super().__init__(flow.manifold, flow.field, flow.source)

    def posterior(self, likelihood: Measurement, n: int, **own: Any) -> PosteriorDraws:  # type: ignore[override]
        return super().posterior(Measurement(likelihood.operator, likelihood.y, likelihood.noise / 6), n, **own)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mixture, 2-D", "sphere", "rotations", "earthquakes", "torsions", "motif"])
def test_the_study_runs(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if name in ("earthquakes", "torsions", "motif") and "RFM_DATA" not in os.environ:
        pytest.skip("the data sets are where RFM_DATA says, and it says nothing")
    study.main(["--quick", "--problems", name, "--replications", "0", "--fits", str(tmp_path)])
    out = capsys.readouterr().out
    for method in ("exact draws", "Tempering", "Chains, tempered", "FLOWER"):
        assert f"| {method} |" in out
    assert ("| Twisted |" in out) == (name in ("mixture, 2-D", "sphere", "rotations"))


@pytest.mark.slow
def test_the_study_draws_its_figure_and_ranks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study.main(["--quick", "--problems", "--figure", str(tmp_path / "figure.png")])
    assert "| sphere | Importance | 10 |" in capsys.readouterr().out
    assert (tmp_path / "figure.png").stat().st_size > 1000
