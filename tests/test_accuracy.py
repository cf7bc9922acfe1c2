"""The rule on accuracy: at most 16 units of rounding times the condition of the problem, for values and gradients."""

import math

import pytest
import torch

from experiments.benchmarks.rounding import RULE, Score, exact, score, worst
from experiments.benchmarks.subjects import SUBJECTS, Subject, draw, label
from manifolds.hyperbolic import Hyperboloid, PoincareBall

# Exact values of matrix functions take seconds: most of these are left to the slow tests.
COSTLY = ("SE3", "SPD", "LogEuclidean")
QUICK_PAIRS = {"SE3()": ("size 1e6",), "SPD(2)": ("both spread",), "LogEuclideanSPD(2)": ("both spread",)}
NOT_KEPT = {("LogEuclideanSPD(3)", torch.float64, "spread, by 1e-3", "round trip")}
"""What docs/numerics.md says of round trips at the end of the domain of positive definite matrices."""
FEW = (0.0, 1e-8, 1e-4, 1.0, math.pi - 1e-3, math.pi)


def cases() -> list[object]:
    found = []
    for subject in SUBJECTS:
        for dtype in (torch.float32, torch.float64):
            for separation in subject.places:
                costly = subject.name.startswith(COSTLY)
                few = QUICK_PAIRS.get(subject.name, ()) if costly else (*FEW, *subject.pairs)
                fast = separation in few or (costly and separation == 1e-4 and not subject.screw)
                name = f"{subject.name}-{str(dtype).removeprefix('torch.')}-{label(separation)}"
                found.append(pytest.param(subject, dtype, separation, id=name, marks=() if fast else pytest.mark.slow))
    return found


@pytest.mark.parametrize(("subject", "dtype", "separation"), cases())
def test_values_gradients_and_round_trips_keep_the_rule(
    subject: Subject, dtype: torch.dtype, separation: float | str
) -> None:
    cell = exact(subject, separation, 2, dtype, seed=1)
    for quantity, result in score(cell, subject.maps).items():
        if (subject.name, dtype, separation, quantity) not in NOT_KEPT:
            assert result.units <= RULE, f"{quantity}: {result} units"


@pytest.mark.parametrize(
    "subject", [s for s in SUBJECTS if s.name.startswith(("Hyperboloid", "Poincare"))], ids=lambda s: s.name
)
def test_pairs_reach_the_end_of_the_documented_domain(subject: Subject) -> None:
    assert isinstance(subject.manifold, Hyperboloid | PoincareBall)
    for dtype, radius in ((torch.float32, 10.0), (torch.float64, 20.0)):
        for name in subject.pairs:
            points = draw(subject, name, 2, dtype, seed=0)
            origin = torch.zeros(1, *subject.manifold.event_shape, dtype=torch.float64)
            if isinstance(subject.manifold, Hyperboloid):
                origin[..., 0] = 1 / math.sqrt(subject.manifold.curvature)
            reached = max(float(subject.manifold.dist(origin, p.double()).max()) for p in (points.x, points.y))
            assert 0.99 < reached * math.sqrt(subject.manifold.curvature) / radius < 1


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
