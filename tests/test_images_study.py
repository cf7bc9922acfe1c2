"""The study of restored pictures: its measures against formulas, its operators by their adjoint, the quick form."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from experiments.images import __main__ as study
from experiments.images.assess import relative_spread, signal_to_noise
from experiments.images.pictures import draw_ellipses, random_phantoms, shepp_logan


@pytest.fixture(scope="module", autouse=True)
def _deepinv(imaging: ModuleType) -> Iterator[None]:
    """Torchvision, which it imports, says now and then that it reads no image files."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Failed to load image Python extension")
        yield


def test_signal_to_noise_is_that_of_a_range_of_two() -> None:
    truth = torch.zeros(3, 16)
    assert torch.allclose(signal_to_noise(truth + 0.2, truth), torch.full((3,), 20.0))


def test_draws_of_the_posterior_spread_as_much_as_they_err() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = 0.3 * torch.randn(400, 50, generator=generator)
    draws = 0.3 * torch.randn(5, 400, 50, generator=generator)
    assert relative_spread(draws, truth) == pytest.approx(1, rel=0.03)
    assert relative_spread(draws / 2, truth) == pytest.approx(0.5 * (1.2 / 1.05) ** 0.5, rel=0.03)


def test_ellipses_have_their_area_and_place() -> None:
    [picture] = draw_ellipses(torch.tensor([[[0.25, 0.5, 0.5, 0.25, 0.3, 1.0]]]), 64)
    grey = (picture.reshape(64, 64) + 1) / 2
    assert float(grey.mean() * 4) == pytest.approx(torch.pi * 0.5 * 0.25, rel=0.01)
    line = (torch.arange(64) + 0.5) / 32 - 1
    assert float((grey.sum(0) * line).sum() / grey.sum()) == pytest.approx(0.25, abs=0.01)
    assert float((grey.sum(1) * -line).sum() / grey.sum()) == pytest.approx(0.5, abs=0.01)
    # The skull of Shepp and Logan is white, its brain a fifth of that.
    phantom = (shepp_logan(96).reshape(96, 96) + 1) / 2
    assert float(phantom.max()) == pytest.approx(1)
    assert float(phantom[phantom > 0.05].median()) == pytest.approx(0.2, abs=0.01)
    some = random_phantoms(4, torch.Generator().manual_seed(0))
    assert some.shape == (4, 1024)
    assert float(some.min()) >= -1
    assert float(some.max()) <= 1


@pytest.mark.parametrize("prior", ["digits", "mnist", "phantoms"])
def test_operators_have_their_adjoint(prior: str) -> None:
    from experiments.images.problems import restorations

    generator = torch.Generator().manual_seed(0)
    for task in restorations(prior):
        x = torch.randn(3, *task.shape, generator=generator)
        ahead = task.physics.A(x)
        v = torch.randn(ahead.shape, generator=generator)
        left, right = (ahead * v).sum(), (x * task.physics.A_adjoint(v)).sum()
        assert float((left - right).abs()) < 1e-4 * float(ahead.norm() * v.norm()), task.name
        assert float(ahead.norm()) <= task.norm() * float(x.norm()) * (1 + 1e-3)
        flat = x.flatten(1)
        likelihood = task.likelihood(task.measured(flat, seed=0))
        # Row i is the picture of measurement i modulo 3: the true ones, twice, fit to a deviation.
        misfit = likelihood.whitened(flat.repeat(2, 1)).square().mean().sqrt()
        assert float(misfit) == pytest.approx(1, abs=0.2)


@pytest.mark.slow
def test_the_study_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- digits -->\n<!-- end of digits -->\nb\n")
    words = ["--quick", "--priors", "digits", "--exact", "1", "--figures", str(tmp_path), "--page", str(page)]
    study.main(words)
    out = capsys.readouterr().out
    for name in ("deblurring | FLOWER", "inpainting | total variation", "super-resolution", "| Tempering |"):
        assert name in out
    assert out.strip() in page.read_text()
    assert (tmp_path / "restored-digits.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="there are no marks"):
        study.write_into(page, "mnist", "")
