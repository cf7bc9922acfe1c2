"""The study of inverse problems: its truths against brute force, its command in the quick form."""

import math
from pathlib import Path

import pytest
import torch

from experiments.inverse import __main__ as study
from experiments.inverse.measures import sliced_wasserstein
from experiments.inverse.problems import SOLVER, plane


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


@pytest.mark.slow
def test_the_study_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study.main(["--quick", "--figure", str(tmp_path / "figure.png")])
    out = capsys.readouterr().out
    for name in ("mixture, 80-D | exact draws", "rotations | Tempering", "sphere | FLOWER", "| Importance |"):
        assert name in out
    assert (tmp_path / "figure.png").stat().st_size > 1000
