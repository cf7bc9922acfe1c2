"""The study of few steps: its densities, its measures, and its page from figures that are made up."""

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import pytest
import torch
from test_likelihood_normalisation import sphere_rule
from torch import Tensor

from experiments.few_steps.densities import DENSITIES, planted, sphere
from experiments.few_steps.measures import discrepancy
from experiments.few_steps.report import draw, write_page
from experiments.few_steps.rna import biased_discrepancy
from experiments.few_steps.study import Record
from experiments.few_steps.training import Budget
from manifolds import FlatTorus, Manifold, Sphere
from rfm.metrics import maximum_mean_discrepancy
from rfm.metrics.kernels import Kernel


@pytest.mark.parametrize("name", DENSITIES)
def test_densities_are_those_of_their_draws(name: str) -> None:
    """By importance: the mean of ``p' / p`` over draws from p is one for every density p', here with other weights."""
    density = DENSITIES[name]()
    x = density.sample((4000,), generator=torch.Generator().manual_seed(0))
    density.manifold.check_point(x)
    other = planted(density, 0.02, x)
    ratio = (other.log_prob(x) - density.log_prob(x)).exp()
    assert float(ratio.mean()) == pytest.approx(1, abs=4 * float(ratio.std()) / 4000**0.5)
    assert float((density.log_prob(x) - other.log_prob(x)).mean()) == pytest.approx(0.02, abs=1e-6)


def test_the_mixture_on_the_sphere_integrates_to_one() -> None:
    x, weights = sphere_rule(2, 40)
    assert float((sphere().log_prob(x).exp() * weights).sum()) == pytest.approx(1, abs=1e-6)


def test_the_discrepancy_is_that_of_its_kernel() -> None:
    m, generator = Sphere(2), torch.Generator().manual_seed(0)
    x, y = m.random_uniform(2, 300, generator=generator)
    y = m.projx(y + 0.2)

    @dataclass(frozen=True)
    class Features(Kernel):
        manifold: Manifold
        frequency: Tensor

        def __call__(self, a: Tensor, b: Tensor) -> Tensor:
            return torch.cos((self.manifold.embed(a) - self.manifold.embed(b)) @ self.frequency.mT).mean(-1)

    draw_frequencies = torch.Generator().manual_seed(5)
    frequency = torch.randn(128, 3, generator=draw_frequencies) / torch.pdist(y).median()
    frequency[64:] *= 4
    expected = maximum_mean_discrepancy(x, y, Features(m, frequency))
    found = discrepancy(m, x, y)
    assert found[0] == pytest.approx(expected.mean, rel=1e-3)
    assert found[1] == pytest.approx(expected.standard_error, rel=1e-3)


def test_the_published_measure_is_not_zero_for_perfect_samples() -> None:
    x, y = FlatTorus(7).random_uniform(2, 200, generator=torch.Generator().manual_seed(0))
    assert biased_discrepancy(x, y) == pytest.approx((2 / 200) ** 0.5, rel=0.1)
    assert biased_discrepancy(x, x) == 0


def test_figures_are_kept_and_make_a_page(tmp_path: Path) -> None:
    made: list[dict[str, float]] = []

    def counted(row: dict[str, float]) -> dict[str, float]:
        made.append(row)
        return row

    for _ in range(2):
        record = Record(tmp_path / "S2.json", "S2", asdict(Budget()) | {"objective": "semigroup"})
        for method, steps in (("another", 0), ("planted", 0), ("jumps", 1), ("Euler", 8), ("equation", 0)):
            row = {"mmd2": 1e-5, "mmd2_error": 1e-6, "accuracy": 0.512, "accuracy_error": 0.004}
            record.add("samples", {"method": method, "steps": steps}, partial(counted, row))
    assert len(made) == 5
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- results -->\nold\n<!-- end -->\nafter\n")
    write_page(page, tmp_path)
    text = page.read_text()
    assert "old" not in text
    assert "| sphere S^2 | 0.512 | 0.512 | 0.512 |  |  |  |  | 0.512 |  |  |  | 0.512 |" in text
    assert "0.01 ± 0.00" in text
    assert text.startswith("before")
    assert text.endswith("after\n")
    draw(tmp_path, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000
    assert json.loads((tmp_path / "S2.json").read_text())["name"] == "S2"
