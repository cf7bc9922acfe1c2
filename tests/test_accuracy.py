"""The rule on accuracy: at most 16 units of rounding times the condition of the problem, for values and gradients."""

import math

import pytest
import torch

from experiments.benchmarks.rounding import RULE, SUBJECTS, Score, Subject, exact, label, score, worst

# Exact values of matrix functions take seconds: most of these are left to the slow tests.
COSTLY = ("SE3", "SPD", "LogEuclidean")
FEW = (0.0, 1e-8, 1e-4, 1.0, math.pi - 1e-3, math.pi)


def cases() -> list[object]:
    found = []
    for subject in SUBJECTS:
        for dtype in (torch.float32, torch.float64):
            for separation in subject.separations:
                costly = subject.name.startswith(COSTLY)
                fast = separation in ((1e-4,) if costly else FEW) and not (costly and subject.screw)
                name = f"{subject.name}-{str(dtype).removeprefix('torch.')}-{label(separation)}"
                found.append(pytest.param(subject, dtype, separation, id=name, marks=() if fast else pytest.mark.slow))
    return found


@pytest.mark.parametrize(("subject", "dtype", "separation"), cases())
def test_values_gradients_and_round_trips_keep_the_rule(
    subject: Subject, dtype: torch.dtype, separation: float
) -> None:
    cell = exact(subject, separation, 2, dtype, seed=1)
    for quantity, result in score(cell, subject.maps).items():
        assert result.units <= RULE, f"{quantity}: {result} units"


def test_the_measure_sees_what_is_wrong() -> None:
    """An error of 100 units, a NaN, a wrong sign and an exception, each under its own name."""
    sphere = next(s for s in SUBJECTS if s.name == "Sphere(2)")
    cell = exact(sphere, 1.0, 2, torch.float64)
    exp, log, dist = (sphere.maps[name] for name in ("exp", "log", "dist"))

    def refuses(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        raise ValueError("no")

    found = score(cell, {"exp": lambda x, u: exp(x, u) * (1 + 1e-13), "log": lambda x, y: -log(x, y), "dist": refuses})
    assert 100 < found["exp"].units < 1e4
    assert found["exp"].mark == ""
    assert found["log"].mark == found["log'"].mark == found["round trip"].mark == "wrong"
    assert found["dist"].mark == "raises"
    # Right values, but a gradient that is NaN at coincidence.
    same = exact(sphere, 0.0, 2, torch.float64)
    found = score(same, {"dist": lambda x, y: (y - x).norm(dim=-1) + 0 * torch.sqrt((y - x).square().sum(-1))})
    assert found["dist"].passes
    assert found["dist'"].mark == "NaN"
    assert score(same, {"dist": dist})["dist'"].mark == "finite"


def test_the_worst_score_is_the_one_that_matters() -> None:
    scores = [Score(0.0, "finite"), Score(3.0), Score(1.0)]
    assert worst(scores) == Score(3.0)
    assert worst([*scores, Score(20.0), Score(math.inf, "NaN")]).mark == "NaN"
    assert str(Score(3.04)) == "3.0"
    assert str(Score(212.3)) == "212"
    assert str(Score(2e6)) == "2e6"
