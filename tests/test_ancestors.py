"""The study of flow matching's ancestors: its densities, its splits, and that it runs."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from experiments.ancestors import __main__ as command
from experiments.ancestors.data import DIGITS, PROBLEMS, TABLES, points_of
from experiments.ancestors.glow import multiscale
from experiments.ancestors.models import CIRCULAR, NORMALIZING, SAME_NETWORK, methods
from experiments.ancestors.page import draw, pooled, write_page
from experiments.ancestors.planes import PLANES, PlaneDensity
from experiments.ancestors.study import file_of

BETWEEN = 4.5


def grid(n: int) -> tuple[Tensor, float]:
    """Midpoints of cells that cover the densities, and the area of one."""
    line = BETWEEN * (2 * (torch.arange(n, dtype=torch.float64) + 0.5) / n - 1)
    return torch.cartesian_prod(line, line), (2 * BETWEEN / n) ** 2


@pytest.mark.parametrize("density", PLANES.values(), ids=list(PLANES))
def test_a_plane_density_integrates_to_one_and_is_that_of_its_samples(density: PlaneDensity) -> None:
    x, area = grid(180)
    log_p = torch.cat([density.log_prob(part) for part in x.split(20_000)])
    p = log_p.exp() * area
    assert abs(float(p.sum()) - 1) < 2e-3
    samples = density.sample(4000, torch.Generator().manual_seed(0))
    moments = torch.stack([samples, samples**2, samples[:, :1] * samples.flip(1), samples**4])
    exact = torch.stack([x, x**2, x[:, :1] * x.flip(1), x**4])
    error = moments.std(1) / math.sqrt(len(samples))
    assert bool(((moments.mean(1) - (exact * p[:, None]).sum(1)).abs() < 4.5 * error + 2e-3).all())
    nats = -density.log_prob(samples)
    by_grid = float(-(p * log_p.where(p > 0, torch.zeros(()).double())).sum())
    assert abs(float(nats.mean()) - by_grid) < 4.5 * float(nats.std()) / math.sqrt(len(nats)) + 2e-3


def test_entropies() -> None:
    assert PLANES["checkerboard"].entropy() == (math.log(8), 0.0)
    entropy, error = PLANES["four clusters"].entropy(n=40_000)
    # Apart, so that it is that of one normal distribution and of the choice among four.
    assert abs(entropy - (math.log(4) + math.log(2 * math.pi * math.e * 0.3**2))) < 4 * error + 2e-3


@pytest.mark.parametrize("problem", [*list(PLANES)[:1], *TABLES, DIGITS])
def test_splits_share_no_point_and_repeat(problem: str) -> None:
    points, again, other = (points_of(problem, seed, 200) for seed in (0, 0, 1))
    torch.testing.assert_close(points.train, again.train)
    assert not torch.equal(points.test, other.test)
    rows = torch.cat([points.train, points.validation, points.test])
    assert len(rows.unique(dim=0)) == len(rows)
    assert rows.isfinite().all()
    assert (points.exact is None) == (problem not in PLANES)
    if points.exact is not None:
        torch.testing.assert_close(points.exact, PLANES[problem].log_prob(points.test.double()), atol=1e-3, rtol=0)


def test_every_data_set_has_methods() -> None:
    assert set(methods("torsions, glycine")) == set(CIRCULAR) | set(SAME_NETWORK) - {"diffusion, VP"}
    assert "Glow" in methods(DIGITS)
    assert all(set(NORMALIZING) <= set(methods(name)) for name in (*PLANES, *TABLES))
    assert len({file_of(Path(), name, 0) for name in PROBLEMS}) == len(PROBLEMS)


def test_glow_is_a_density() -> None:
    pytest.importorskip("normflows")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = multiscale(2, 8)
        x = torch.randn(6, 1, 8, 8)
        model.log_prob(x, None)
        for parameter in model.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    model = model.double()
    x = x[:1].double()

    def noise(flat: Tensor) -> Tensor:
        return torch.cat([z.flatten() for z in model.inverse_and_log_det(flat.reshape(1, 1, 8, 8))[0]])

    # By the Jacobian of the map as a whole; the noise has variance 1 only after its own affine map, of the model.
    z, log_det = model.inverse_and_log_det(x)
    jacobian = torch.autograd.functional.jacobian(noise, x.flatten())
    torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1], log_det[0], atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(model.forward_and_log_det(z)[0], x)


def test_intervals_pool_what_varies_most() -> None:
    assert pooled([(1.0, 0.1)]) == "1.000 ± 0.196"
    assert pooled([(1.0, 0.1), (1.0, 0.1)]) == "1.000 ± 0.139"
    assert pooled([(0.0, 0.0), (2.0, 0.0)]) == "1.000 ± 1.960"


@pytest.mark.slow
def test_quick_study_resumes_and_writes_its_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, figure = tmp_path / "page.md", tmp_path / "figure.png"
    page.write_text("Before.\n\n<!-- results -->\n\n<!-- end -->\nAfter.\n")
    arguments = ["--quick", "--problems", "two moons", "--runs", str(tmp_path), "--out", str(page)]
    arguments += ["--figure", str(figure)]
    command.main(arguments)
    assert capsys.readouterr().out.count("two moons, seed 0") == len(methods("two moons"))
    text = page.read_text()
    assert all(f"| {name} |" in text for name in methods("two moons"))
    assert text.endswith("After.\n")
    command.main(arguments)
    assert capsys.readouterr().out == ""
    assert page.read_text() == text
    assert figure.stat().st_size > 5000
    write_page(page, tmp_path, command.QUICK)
    draw(tmp_path, figure)
