"""The study of ideas for better densities: what its trials compute, and that it runs on a few points."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from experiments import density_trials
from experiments.density_trials import Bumps, MuonBeside, averaged_targets, muon
from manifolds import Sphere
from rfm.sources import Uniform


def test_averaged_targets_are_the_mean_velocity() -> None:
    """The mean of a function times the velocities of pairs is that times their averages over all data points."""
    m, generator = Sphere(2), torch.Generator().manual_seed(0)
    data = m.random_uniform(6, generator=generator, dtype=torch.float64)
    turn = torch.randn(3, 3, generator=generator, dtype=torch.float64)

    def field(x: Tensor, t: Tensor) -> Tensor:
        return m.proju(x, (3 * x @ turn).sin())

    differences = []
    for _ in range(30):
        x_1 = data.repeat(50, 1)
        x_0 = m.random_uniform(len(x_1), generator=generator, dtype=torch.float64)
        t = 0.9 * torch.rand(len(x_1), generator=generator, dtype=torch.float64)
        x, u = m.geodesic(x_0, x_1, t)
        # The loss of the field less that of its negative is -4 times the mean product.
        losses = [averaged_targets(lambda y, s, k=k: k * field(y, s), Uniform(m), x_0, x_1, t) for k in (1, -1)]
        differences.append(float((losses[1] - losses[0]) / 4 - (field(x, t) * u).sum(-1).mean()))
    found = torch.tensor(differences)
    error = float(found.std()) / math.sqrt(len(found))
    assert error < 0.02
    assert abs(float(found.mean())) < 4 * error


def test_averaged_targets_of_one_point_are_its_own() -> None:
    m, generator = Sphere(2), torch.Generator().manual_seed(0)
    x_1 = m.random_uniform(1, generator=generator).expand(8, 3)
    x_0, t = m.random_uniform(8, generator=generator), torch.linspace(0.1, 0.9, 8)
    u = m.geodesic(x_0, x_1, t)[1]
    assert float(averaged_targets(lambda x, s: u, Uniform(m), x_0, x_1, t)) == pytest.approx(0, abs=1e-8)


def test_muon_moves_hidden_matrices_and_adam_the_rest() -> None:
    layers = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 3))
    before = [p.detach().clone() for p in layers.parameters()]
    with muon():
        optimizer = torch.optim.AdamW(layers.parameters(), lr=0.1, weight_decay=0.0)
    assert isinstance(optimizer, MuonBeside)
    layers(torch.randn(16, 64, generator=torch.Generator().manual_seed(0))).square().sum().backward()
    optimizer.step()
    moved = [p.detach() - q for p, q in zip(layers.parameters(), before, strict=True)]
    # An orthogonal update: all of its singular values are alike, which those of AdamW's are not.
    values = torch.linalg.svdvals(moved[0])
    assert float(values.max() / values[:3].min()) < 2
    torch.testing.assert_close(moved[3].abs(), torch.full((3,), 0.1), rtol=1e-3, atol=0)


def test_bumps_give_tangent_velocities() -> None:
    m, generator = Sphere(2), torch.Generator().manual_seed(0)
    field = Bumps(m, m.random_uniform(16, generator=generator), 32.0, width=64, depth=1)
    nn.init.normal_(field.last.weight, generator=generator)
    x = m.random_uniform(5, generator=generator)
    u = field(x, torch.rand(5, generator=generator))
    m.check_tangent(x, u)
    assert bool((u != 0).any())


@pytest.mark.slow
def test_the_study_runs_and_goes_on_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--quick", "--runs", str(tmp_path), "--out", str(tmp_path / "page.md")]
    density_trials.main(command)
    first = capsys.readouterr().out
    assert "| flood, deduplicated | bag of two |" in first
    density_trials.main(command)
    again = capsys.readouterr().out
    assert again.strip() == first[first.index("| data |") :].strip()
    assert again.strip() in (tmp_path / "page.md").read_text()
