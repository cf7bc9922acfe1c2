"""The checker passes every built-in manifold, and names what is wrong with every broken one."""

from collections.abc import Callable

import pytest
import torch
from broken_manifolds import BROKEN, RIGHT
from manifold_zoo import ZOO

from manifolds import Manifold, Sphere
from manifolds.testing import LAWS, ConformanceError, check_manifold
from manifolds.testing.methods import METHODS, Method
from manifolds.testing.probe import Probe, Watched, choose_points

# The first forward-mode derivative of a process compiles torch's own decompositions with torch.jit.script.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


HEAVY = {
    "SE3(2.0)",
    "SO3()",
    "CentredPoses(3, 2.0)",
    "Stiefel(6, 2)",
    "SpecialOrthogonal(4)",
    "LogEuclideanSPD(2)",
    "SPD(3)",
    "Product(Hyperboloid(2), SPD(2))",
    "Power(SE3(), 3)",
}
"""Manifolds whose whole report takes long; the laws of their own files are fast."""


def _marks(slow: bool) -> list[pytest.MarkDecorator]:
    return [pytest.mark.slow] if slow else []


@pytest.mark.parametrize(
    "make", [pytest.param(make, id=name, marks=_marks(name in HEAVY)) for name, make in (*ZOO, *RIGHT)]
)
def test_right_manifolds_pass(make: Callable[[], Manifold]) -> None:
    check_manifold(make()).raise_if_failed()


# Every third one is fast: a new way to be wrong goes into the list, not into the waiting time.
@pytest.mark.parametrize(
    ("make", "law"),
    [pytest.param(make, law, id=name, marks=_marks(i % 3 > 0)) for i, (name, make, law) in enumerate(BROKEN)],
)
def test_broken_manifolds_fail_with_the_right_diagnosis(make: Callable[[], Manifold], law: str) -> None:
    # One dtype where that shows it: twice as fast.
    single = law not in ("dtype is kept", "logmap keeps its digits near the point")
    report = check_manifold(make(), dtypes=(torch.float64,) if single else (torch.float32, torch.float64))
    assert not report.passed
    first = report.findings[0]
    assert first.law == law, str(report)
    assert not first.follows_from
    with pytest.raises(ConformanceError, match="breaks"):
        report.raise_if_failed()


def test_every_law_is_broken_by_some_manifold_or_rests_on_others() -> None:
    named = {law for _, _, law in BROKEN}
    assert {law.name for law in LAWS} - named == {
        "distance is symmetric",
        "derivative of logmap at the point is the identity",
        "methods compile",
    }


def test_report_says_where_and_what_to_do() -> None:
    name, make, law = next(entry for entry in BROKEN if entry[0] == "DistanceIsTheChord")
    text = str(check_manifold(make()))
    assert text.startswith(f"{name}()")
    for part in (law, "seed 0", "claim", "x = [", "y = [", "allowed", "means", "do ", "Not tested"):
        assert part in text


def test_a_call_is_named_alike_in_every_run() -> None:
    watched = Watched(Sphere(2))
    for _ in range(2):
        watched.random_uniform(2, generator=torch.Generator())
        assert watched.last_call == "random_uniform(2, <torch._C.Generator object>)"


def test_seed_decides_the_inputs() -> None:
    make = next(make for name, make, _ in BROKEN if name == "LogIsScaled")
    laws = [law for law in LAWS if law.name == "logmap inverts expmap"]
    options = {"dtypes": (torch.float64,), "laws": laws}
    one, again, other = (check_manifold(make(), seed=seed, **options).findings[0] for seed in (3, 3, 4))
    assert one.error == again.error != other.error


def test_points_of_the_caller_are_used() -> None:
    points = Sphere(2).random_uniform(8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert check_manifold(Sphere(2), points=points).passed


def test_argument_errors_name_the_remedy() -> None:
    with pytest.raises(ValueError, match="instance"):
        check_manifold(Sphere)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 6"):
        check_manifold(Sphere(2), samples=2)


def test_global_random_state_is_untouched() -> None:
    before = torch.get_rng_state()
    check_manifold(Sphere(2))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.slow
@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in ZOO])
def test_built_in_manifolds_compile(make: Callable[[], Manifold]) -> None:
    report = check_manifold(make(), compile=True)
    report.raise_if_failed()
    assert "methods compile" in report.held


@pytest.mark.slow
@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in ZOO])
def test_built_in_manifolds_compile_for_batches_of_any_size(make: Callable[[], Manifold]) -> None:
    p = Probe(
        make(),
        torch.float64,
        choose_points(make(), 12, torch.Generator().manual_seed(0)),
        samples=12,
        seed=0,
        device=torch.device("cpu"),
    )
    for method in METHODS:
        torch.compiler.reset()

        def call(method: Method = method, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return method(p.m.manifold, **inputs)

        compiled = torch.compile(call, fullgraph=True, dynamic=True, backend="eager")
        for n in (5, 8, 3):
            inputs = {name: getattr(p, name)[:n].clone() for name in method.arguments}
            for expected, result in zip(call(**inputs), compiled(**inputs), strict=True):
                torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9)
