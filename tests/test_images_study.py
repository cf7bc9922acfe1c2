"""The study of restored pictures: its measures against formulas, its operators by their adjoint, the quick form."""

import argparse
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

import rfm
from experiments.images import __main__ as study
from experiments.images.assess import relative_spread, signal_to_noise
from experiments.images.exact import deviation, exact_runs
from experiments.images.pictures import draw_ellipses, phantoms, random_phantoms, shepp_logan
from experiments.images.priors import with_classes
from experiments.images.problems import inpainting
from manifolds import Euclidean
from rfm.networks import ConvolutionalField
from rfm.posterior import Hamiltonian, Tempering
from rfm.sources import WrappedNormal


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
    assert torch.equal(phantoms().test[:1], shepp_logan())


def test_pictures_of_known_classes_follow_the_field_of_their_own() -> None:
    space, generator = Euclidean(16), torch.Generator().manual_seed(0)
    field = ConvolutionalField((1, 4, 4), width=8, labels=3)
    for parameter in field.parameters():
        parameter.requires_grad_(False).add_(0.1 * torch.randn(parameter.shape, generator=generator))
    flow = rfm.Flow(space, field, WrappedNormal(space, torch.zeros(16)))
    x, t = torch.randn(6, 16, generator=generator), torch.rand(6, generator=generator)
    labels = torch.tensor([2, 0])
    free, own = field(x, t), torch.stack([field(x[i], t[i], labels[i % 2, None].float()) for i in range(6)])
    assert float((free - own).abs().max()) > 1e-3
    for guidance in (1.0, 2.5):
        led = with_classes(flow, labels, guidance).field(x, t)
        assert torch.allclose(led, free + guidance * (own - free), atol=1e-5)


def test_exact_runs_are_those_of_a_normal_prior_and_kept(tmp_path: Path) -> None:
    def still(x: Tensor, t: Tensor) -> Tensor:
        return torch.zeros_like(x)

    space, task = Euclidean(64), replace(inpainting("digits", 8), noise=0.5)
    flow = rfm.Flow(space, still, WrappedNormal(space, torch.zeros(64)))
    y = task.measured(torch.randn(1, 64, generator=torch.Generator().manual_seed(0)), seed=1)
    method = Tempering(Hamiltonian(2), moves=2, particles=64)
    [pair] = exact_runs(task, flow, y, tmp_path, method)
    seen = task.physics.A(torch.ones(1, 1, 8, 8)).flatten() > 0
    # Pixel by pixel normal; of pixels that nothing measures the noise alone is seen, whatever the picture.
    mean, deviation = y.flatten() / (1 + task.noise**2), task.noise / (1 + task.noise**2) ** 0.5
    scale = torch.where(seen, (1 + task.noise**2) ** 0.5, task.noise)
    truth = float(torch.distributions.Normal(0.0, scale).log_prob(y.flatten()).sum())
    for run in pair:
        assert float((run.points.mean(0) - mean)[seen].square().mean().sqrt()) < 3 * deviation / len(run.points) ** 0.5
        assert float(run.points[:, seen].std(0).mean()) == pytest.approx(deviation, rel=0.1)
        assert float(run.points[:, ~seen].std()) == pytest.approx(1, abs=0.1)
        assert run.log_evidence == pytest.approx(truth, abs=4)
    [again] = exact_runs(task, flow, y, tmp_path, method)
    assert all(torch.equal(a.points, b.points) for a, b in zip(pair, again, strict=True))
    [other] = exact_runs(task, flow, y + 0.1, tmp_path, method)
    assert not torch.equal(pair[0].points, other[0].points)


def test_deviations_are_those_of_shifted_and_widened_draws() -> None:
    task, generator = inpainting("digits", 8), torch.Generator().manual_seed(0)
    runs = 0.5 * torch.randn(2, 4000, 1, 64, generator=generator)
    y = torch.zeros(1, 1, 8, 8)
    same = deviation(task, runs[0], runs[1:], y)
    assert same.mean < 0.04
    assert same.spread < 0.04
    assert same.wasserstein < 0.06
    shifted = deviation(task, runs[0] + 0.5 * 0.7, runs[1:], y)
    assert shifted.mean == pytest.approx(0.7, abs=0.05)
    assert shifted.wasserstein == pytest.approx(0.7, abs=0.1)
    assert shifted.spread == pytest.approx(same.spread)
    widened = deviation(task, 2 * runs[0], runs[1:], y)
    assert widened.spread == pytest.approx(1, abs=0.05)
    assert widened.misfit == pytest.approx((48 / 64) ** 0.5 / task.noise, rel=0.02)


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


def test_the_matrix_of_an_operator_is_the_operator() -> None:
    from deepinv.physics import Tomography

    from experiments.images.problems import Matrix

    radon = Tomography(angles=5, img_width=12, normalize=False)
    x = torch.randn(3, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(Matrix(radon, (1, 12, 12)).A(x), radon.A(x), atol=1e-4)


def test_tasks_are_chosen_by_their_first_word(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    [(name, [task])] = study.selected(parser, ["digits", "phantoms"], ["super-resolution"]).items()
    assert (name, task.name) == ("digits", "super-resolution, 2 times")
    with pytest.raises(SystemExit):
        study.selected(parser, ["digits"], ["tomography"])
    assert "no tomography of digits; choose from deblurring, inpainting, super-resolution" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prior", "tasks", "expected"),
    [
        (
            "digits",
            ["super-resolution"],
            ("times | FLOWER, class known", "times | exact, another"),
        ),
        (
            "mnist",
            ["deblurring", "inpainting"],
            ("deblurring | as measured", "inpainting | FLOWER, class"),
        ),
        ("phantoms", [], ("tomography, 20 angles | filtered back-", "magnetic resonance, 10 of 32 lines | OT-ODE")),
    ],
)
def test_the_study_runs(
    prior: str, tasks: list[str], expected: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"a\n<!-- {prior} -->\n<!-- end of {prior} -->\nb\n<!-- exact -->\n<!-- end of exact -->\n")
    words = ["--quick", "--priors", prior, "--exact", "1", "--figures", str(tmp_path), "--page", str(page)]
    study.main([*words, *(["--tasks", *tasks] if tasks else [])])
    out = capsys.readouterr().out
    for name in expected:
        assert name in out
    assert ("| exact, another run |" in out) == (prior == "digits")
    assert out.strip().split("\n\n")[1] in page.read_text()
    assert (tmp_path / f"restored-{prior}.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="there are no marks"):
        study.write_into(page, "others", "")
