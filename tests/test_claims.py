"""What tutorials say: the parts that are known exactly, and that the studies run."""

import itertools
import math
from pathlib import Path

import pytest
import torch

from experiments import claims, steps_on_the_sphere
from experiments.ancestors.planes import Circle


def test_a_residual_network_of_one_field_is_eulers_method() -> None:
    found = claims.residual_errors((16, 32, 64), points=40)
    assert all(difference < 1e-12 for _, difference, _ in found)
    errors = [error for _, _, error in found]
    assert all(1.8 < first / second < 2.2 for first, second in itertools.pairwise(errors))


def test_at_time_0_the_mean_aims_at_one_point_and_later_at_the_data() -> None:
    (_, _, first), (_, _, second), (_, _, last) = claims.averaged((0.0, 0.4, 0.8))
    assert first < 1e-9 < second < last


@pytest.mark.parametrize("radius", claims.RADII)
def test_the_circle_contracts_until_a_time_that_its_radius_decides(radius: float) -> None:
    generator = torch.Generator().manual_seed(0)
    data = Circle(radius, 1e-3).sample(20_000, generator)
    noise = torch.randn(20_000, 2, generator=generator, dtype=torch.float64)
    squares = [float(((1 - t) * noise + t * data).square().sum(-1).mean()) for t in torch.linspace(0, 1, 101)]
    assert abs(min(range(101), key=squares.__getitem__) / 100 - 2 / (2 + radius**2)) < 0.02
    assert abs(2 / (2 + math.sqrt(3) ** 2) - 0.4) < 1e-12


def test_costs_are_of_the_processor() -> None:
    [(dim, *milliseconds)] = claims.costs((2,), repeats=1)
    assert dim == 2
    assert all(value >= 0 for value in milliseconds)


@pytest.mark.slow
def test_quick_claims_write_their_page(tmp_path: Path) -> None:
    page, figure = tmp_path / "page.md", tmp_path / "figure.png"
    names = ("head", "paths", "circle", "averaged", "blocks", "cost")
    page.write_text("\n".join(f"<!-- {name} -->\n\n<!-- end -->\n" for name in names))
    claims.main(["--quick", "--out", str(page), "--figure", str(figure), "--runs", str(tmp_path)])
    text = page.read_text()
    assert text.count("<!-- end -->") == len(names)
    assert all(label in text for label in claims.SCHEDULES)
    assert figure.stat().st_size > 5000


def test_a_table_of_steps_puts_spaces_side_by_side() -> None:
    row = steps_on_the_sphere.Row("Euler", 10, 10.0, 0.1, 0.2)
    lines = steps_on_the_sphere.table({"sphere": [row], "plane": [row]}).splitlines()
    assert lines[2] == "| Euler | 10 | 10 | 1.0e-01 | 2.0e-01 | 1.0e-01 | 2.0e-01 |"
    assert len({line.count("|") for line in lines}) == 1
