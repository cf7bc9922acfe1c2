"""The integrators: order, accuracy, independence of samples, and failures that say so."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from manifold_zoo import ZOO
from random_fields import normal, points, wavy_field
from scipy.integrate import solve_ivp
from torch import Tensor

from manifolds import SO3, SPD, Euclidean, FlatTorus, Manifold, Sphere
from rfm.integrators import (
    DORMAND_PRINCE,
    EULER,
    MIDPOINT,
    RK4,
    Adams,
    Adaptive,
    FixedStep,
    IntegrationError,
    Method,
    Shared,
    Tableau,
    integrate,
)

SPACES = [Sphere(2), FlatTorus(2), Euclidean(3), SO3()]
METHODS = [EULER, MIDPOINT, RK4, DORMAND_PRINCE]
NAMES = ["euler", "midpoint", "rk4", "dormand_prince"]
TIGHT = Adaptive(atol=1e-13, rtol=1e-13)


def solvers(tableau: Tableau, steps: int) -> list[object]:
    """Return parameters: steps of Runge and Kutta's and of Adams's, chosen and fixed."""
    methods = {
        "adaptive": Adaptive(),
        "adaptive-adams": Adaptive(Adams()),
        "fixed": FixedStep(tableau, steps),
        "fixed-adams": FixedStep(Adams(4), steps),
    }
    return [pytest.param(method, id=name) for name, method in methods.items()]


def by_scipy(field: Callable[..., Tensor], m: Manifold, x: Tensor, times: tuple[float, ...]) -> Tensor:
    """Solve in the ambient space, where solutions of a tangent field stay on the manifold by themselves."""

    def rhs(t: float, y: object) -> object:
        at = torch.as_tensor(y).reshape(x.shape)
        return field(at, torch.full(x.shape[:1], t, dtype=torch.float64)).flatten().numpy()

    result = solve_ivp(
        rhs, (times[0], times[-1]), x.flatten().numpy(), "DOP853", times, rtol=1e-12, atol=1e-12, max_step=0.2
    )
    return torch.as_tensor(result.y.T.copy()).reshape(len(times), *x.shape)


def pole_turn(x: Tensor, t: Tensor) -> Tensor:
    """Turn the sphere about its third axis with angular velocity 2 t: by angle t^2."""
    return 2 * t[..., None] * torch.stack([-x[..., 1], x[..., 0], 0 * x[..., 2]], dim=-1)


def turned(x: Tensor, angle: float) -> Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return torch.stack([c * x[..., 0] - s * x[..., 1], s * x[..., 0] + c * x[..., 1], x[..., 2]], dim=-1)


# The tableaux.


@pytest.mark.parametrize("tableau", METHODS, ids=NAMES)
def test_tableaux_satisfy_the_order_conditions(tableau: Tableau) -> None:
    c, b = tableau.c, tableau.b
    for row, time in zip(tableau.a, c, strict=True):
        assert sum(row) == pytest.approx(time, abs=1e-14)
    for k in range(1, tableau.order + 1):
        assert sum(w * s ** (k - 1) for w, s in zip(b, c, strict=True)) == pytest.approx(1 / k, abs=1e-14)
    if tableau.b_error is not None:
        # The embedded method is of one order less.
        for k in range(1, tableau.order):
            assert sum(w * s ** (k - 1) for w, s in zip(tableau.b_error, c, strict=True)) == pytest.approx(0, abs=1e-14)
        k = tableau.order
        assert abs(sum(w * s ** (k - 1) for w, s in zip(tableau.b_error, c, strict=True))) > 1e-5


def test_only_dormand_prince_reuses_its_last_stage() -> None:
    assert [t.first_same_as_last for t in METHODS] == [False, False, False, True]


# Order and accuracy.


@functools.cache
def fine_solution(m: Manifold) -> tuple[Tensor, Callable[..., Tensor], Tensor]:
    x, field = points(m, 5), wavy_field(m, size=2)
    return x, field, integrate(field, m, x, (0.1, 0.9), FixedStep(DORMAND_PRINCE, 120)).final


@pytest.mark.parametrize("m", SPACES, ids=str)
@pytest.mark.parametrize("tableau", METHODS, ids=NAMES)
def test_order_of_convergence(m: Manifold, tableau: Tableau) -> None:
    x, field, exact = fine_solution(m)
    counts = {1: (64, 192), 2: (32, 96), 4: (16, 48), 5: (16, 48)}[tableau.order]
    errors = [
        float(m.dist(integrate(field, m, x, (0.1, 0.9), FixedStep(tableau, n)).final, exact).square().mean().sqrt())
        for n in counts
    ]
    assert errors[1] > 1e-13
    slope = math.log(errors[0] / errors[1]) / math.log(counts[1] / counts[0])
    assert slope > tableau.order - 0.3, errors
    # The leading error of order five is so small that at these steps the next one still counts.
    assert tableau.order == 5 or slope < tableau.order + 0.4, errors


@pytest.mark.parametrize("m", SPACES, ids=str)
def test_default_error_is_at_most_1e_5_along_the_way(m: Manifold) -> None:
    x, field = points(m, 8), wavy_field(m, size=2)
    times = (0.0, 0.15, 0.5, 0.77, 1.0)
    truth = by_scipy(field, m, x, times)
    assert float(m.dist(m.projx(truth), integrate(field, m, x, times, Adaptive(atol=1e-10, rtol=1e-10)).x).max()) < 1e-8
    solution = integrate(field, m, x, times)
    assert float(m.dist(m.projx(truth), solution.x).max()) < 1e-5
    assert int(solution.evaluations.max()) < 400


def test_closed_form_on_the_sphere() -> None:
    x = points(Sphere(2), 5)
    solution = integrate(pole_turn, Sphere(2), x, (0.5, 1.0, 1.5), TIGHT)
    for at, t in zip(solution.x, (0.5, 1.0, 1.5), strict=True):
        torch.testing.assert_close(at, turned(x, t * t - 0.25), atol=1e-11, rtol=0)


@pytest.mark.parametrize("method", solvers(RK4, 40))
def test_a_grid_that_starts_late_is_not_solved_from_zero(method: Adaptive | FixedStep) -> None:
    x = points(Sphere(2), 5)
    late = integrate(pole_turn, Sphere(2), x, (0.6, 1.0), method)
    torch.testing.assert_close(late.x[0], x, atol=0, rtol=0)
    torch.testing.assert_close(late.final, turned(x, 0.64), atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", solvers(RK4, 50))
@pytest.mark.parametrize("m", SPACES, ids=str)
def test_forwards_and_backwards(m: Manifold, method: Adaptive | FixedStep) -> None:
    x, field = points(m, 6), wavy_field(m)
    times = (0.0, 0.3, 0.7, 1.0)
    there = integrate(field, m, x, times, method)
    back = integrate(field, m, there.final, times[::-1], method)
    assert float(m.dist(there.final, x).min()) > 0.05
    assert float(m.dist(back.x.flip(0), there.x).max()) < 2e-5
    assert torch.equal(back.times, torch.tensor(times[::-1], dtype=torch.float64))


@pytest.mark.parametrize("method", solvers(EULER, 8))
def test_output_times(method: Adaptive | FixedStep) -> None:
    m = Sphere(2)
    x = points(m, 4)
    times = (0.0, 0.125, 0.5, 1.0)
    solution = integrate(wavy_field(m), m, x, times, method)
    assert solution.x.shape == (4, 4, 3)
    assert solution.integral is None
    assert torch.equal(solution.x[0], x)
    for i in range(1, 4):
        # Output times do not move the steps much; with fixed steps on these times, not at all.
        part = integrate(wavy_field(m), m, x, times[: i + 1], method if i == 3 else _same_steps(method, times[i]))
        assert float(m.dist(part.final, solution.x[i]).max()) < (1e-5 if isinstance(method, Adaptive) else 1e-14)


def _same_steps(method: Adaptive | FixedStep, end: float) -> Adaptive | FixedStep:
    return FixedStep(method.scheme, round(method.steps * end)) if isinstance(method, FixedStep) else method


def test_fixed_steps_make_one_step_at_least_between_output_times() -> None:
    m = Euclidean(1)
    solution = integrate(lambda x, t: torch.ones_like(x), m, torch.zeros(2, 1), (0.0, 0.001, 1.0), FixedStep(EULER, 5))
    torch.testing.assert_close(solution.x[:, 0, 0], torch.tensor([0.0, 0.001, 1.0]))
    assert solution.evaluations.tolist() == [6, 6]


def test_graded_steps_shrink_towards_the_latest_time() -> None:
    method = FixedStep(EULER, 4, grading=2.0)
    [mesh] = method.mesh((0.0, 1.0))
    assert mesh == pytest.approx([0, 7 / 16, 12 / 16, 15 / 16, 1])
    [back] = method.mesh((1.0, 0.0))
    assert back == pytest.approx(mesh[::-1])
    # Output times between them keep the steps, up to one at least in each part.
    parts = method.mesh((0.0, 0.75, 1.0))
    assert [len(part) - 1 for part in parts] == [2, 2]
    assert [*parts[0], *parts[1][1:]] == pytest.approx(mesh)
    with pytest.raises(ValueError, match="grading must be"):
        FixedStep(EULER, 4, grading=0.5)


@pytest.mark.parametrize("times", [(0.0, 1.0), (1.0, 0.3, 0.0)])
def test_graded_steps_are_of_the_same_order_and_better_where_time_speeds_up(times: tuple[float, ...]) -> None:
    m = Euclidean(1)
    x = torch.zeros(1, 1, dtype=torch.float64)

    def field(y: Tensor, t: Tensor) -> Tensor:
        return (1 / (1.02 - t))[:, None] + 0 * y

    exact = math.log((1.02 - times[0]) / (1.02 - times[-1]))
    errors = [
        abs(float(integrate(field, m, x, times, FixedStep(RK4, n, grading)).final) - exact)
        for grading, n in ((1.0, 40), (2.0, 40), (2.0, 80))
    ]
    assert errors[1] < errors[0] / 10
    assert math.log2(errors[1] / errors[2]) > 3.65


def test_evaluations_are_counted() -> None:
    m, calls = Sphere(2), []

    def counted(x: Tensor, t: Tensor) -> Tensor:
        calls.append(len(x))
        return pole_turn(x, t)

    x = points(m, 7)
    adams = [Adaptive(Adams()), *(FixedStep(Adams(order), 7) for order in (2, 5, 6))]
    for method in (Adaptive(), FixedStep(MIDPOINT, 5), FixedStep(DORMAND_PRINCE, 3), *adams):
        calls.clear()
        solution = integrate(counted, m, x, (0.0, 0.4, 1.0), method)
        assert int(solution.evaluations.sum()) == sum(calls)
        assert solution.evaluations.shape == (7,)


# What the field sees, and what comes out.


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in ZOO])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_are_points_and_the_field_sees_only_points(make: Callable[[], Manifold], dtype: torch.dtype) -> None:
    m = make()
    inner = wavy_field(m, size=0.5)

    def field(x: Tensor, t: Tensor) -> Tensor:
        m.check_point(x)
        assert x.dtype == t.dtype == dtype
        assert t.shape == m.batch_shape(x)
        return inner(x, t)

    x = points(m, 3, dtype=dtype)
    for method in (
        FixedStep(RK4, 2),
        Adaptive(atol=1e-3, rtol=1e-3),
        FixedStep(Adams(3), 4),
        Adaptive(Adams(), 1e-3, 1e-3),
    ):
        solution = integrate(field, m, x, (0.0, 0.5, 1.0), method)
        assert solution.x.dtype == solution.times.dtype == dtype
        m.check_point(solution.x)
        assert bool(solution.success.all())
        assert solution.describe_failure() == ""


@pytest.mark.parametrize("method", solvers(RK4, 10))
@pytest.mark.parametrize("m", [Sphere(2), SO3()], ids=str)
@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (0,), (2, 0)], ids=str)
def test_batch_shapes(m: Manifold, batch: tuple[int, ...], method: Adaptive | FixedStep) -> None:
    x, field = points(m, *batch), wavy_field(m)

    def pair(y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return field(y, t), t

    solution = integrate(pair, m, x, (0.0, 0.5, 1.0), method, with_integral=True)
    assert solution.x.shape == (3, *x.shape)
    assert solution.integral is not None
    assert solution.integral.shape == (3, *batch)
    assert solution.status.shape == solution.evaluations.shape == solution.success.shape == batch
    if x.numel():
        alone = integrate(field, m, x.reshape(-1, *m.event_shape)[0], (0.0, 0.5, 1.0), method)
        assert float(m.dist(alone.x, solution.x.reshape(3, -1, *m.event_shape)[:, 0]).max()) < 1e-6


def test_points_of_a_wrong_shape_or_dtype_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        integrate(pole_turn, Sphere(2), torch.ones(5, 4), (0.0, 1.0))
    with pytest.raises(ValueError, match="floating point"):
        integrate(pole_turn, Sphere(2), torch.tensor([0, 0, 1]), (0.0, 1.0))


BAD_TIMES = [
    (),
    (0.0,),
    (0.0, 0.0),
    (0.0, 1.0, 0.5),
    (0.0, 1.0, 1.0),
    (0.0, math.nan),
    (0.0, math.inf),
    torch.tensor(1.0),
    torch.tensor([[0.0, 1.0]]),
    1.0,
]


@pytest.mark.parametrize("times", BAD_TIMES, ids=str)
@pytest.mark.parametrize("method", solvers(RK4, 100))
def test_bad_times_are_refused(times: object, method: Adaptive | FixedStep) -> None:
    with pytest.raises(ValueError, match="at least two finite numbers, strictly ascending or strictly descending"):
        integrate(pole_turn, Sphere(2), points(Sphere(2), 2), times, method)  # type: ignore[arg-type]


def test_times_may_be_tensors_lists_and_arrays() -> None:
    x = points(Sphere(2), 2)
    results = [
        integrate(pole_turn, Sphere(2), x, times).final
        for times in ((0, 1), [0.0, 1.0], torch.tensor([0.0, 1.0]), torch.arange(2), torch.arange(2).numpy())
    ]
    assert all(torch.equal(results[0], other) for other in results)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        FixedStep(RK4, 0)
    with pytest.raises(ValueError, match="DORMAND_PRINCE"):
        Adaptive(RK4)
    for make in (lambda: FixedStep(20), lambda: Adaptive(1e-3)):  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"scheme must be an object of Scheme.*go by name"):
            make()
    for order in (7, 1, 5.0):
        with pytest.raises(ValueError, match=f"from 2 to 6, got {order}"):
            Adams(order)  # type: ignore[arg-type]
    for atol, rtol in ((0.0, 0.0), (-1.0, 1e-3), (math.nan, 1e-3)):
        with pytest.raises(ValueError, match="tolerances"):
            Adaptive(atol=atol, rtol=rtol)


# Samples are solved for alone.


def elementwise(x: Tensor, t: Tensor, rate: Tensor | None = None) -> Tensor:
    """A field on the sphere without matrix products, whose rounding depends on the size of the batch."""
    k = 3 + 20 * (x[..., 0] > 0).to(x)[..., None] if rate is None else rate[..., None]
    w = torch.stack([torch.sin(k * x[..., :1] + t[..., None])[..., 0], torch.cos(k * x[..., 1:2])[..., 0], t], dim=-1)
    return w - (x * w).sum(-1, keepdim=True) * x


@pytest.mark.parametrize("method", solvers(RK4, 20))
def test_result_and_cost_do_not_depend_on_batch_mates(method: Adaptive | FixedStep) -> None:
    m = Sphere(2)
    x = points(m, 9)
    times = (0.0, 0.4, 1.0)
    together = integrate(elementwise, m, x, times, method)
    if isinstance(method, Adaptive):
        assert len(set(together.evaluations.tolist())) > 2
    order = torch.tensor([4, 1, 8])
    some = integrate(elementwise, m, x[order], times, method)
    assert torch.equal(some.x, together.x[:, order])
    assert torch.equal(some.evaluations, together.evaluations[order])
    alone = integrate(elementwise, m, x[4], times, method)
    assert torch.equal(alone.x, together.x[:, 4])
    assert alone.evaluations == together.evaluations[4]


def test_conditions_follow_their_samples_when_others_have_arrived() -> None:
    m = Sphere(2)
    x, rate = points(m, 2, 3), torch.tensor([[1.0, 30.0, 2.0], [15.0, 1.0, 60.0]], dtype=torch.float64)
    together = integrate(elementwise, m, x, (0.0, 1.0), rate=rate)
    assert len(set(together.evaluations.flatten().tolist())) > 3
    for i in range(2):
        for j in range(3):
            alone = integrate(elementwise, m, x[i, j], (0.0, 1.0), rate=rate[i, j])
            assert torch.equal(alone.final, together.final[i, j])


@pytest.mark.parametrize("method", solvers(RK4, 8))
@pytest.mark.parametrize("shape", [(1,), (2,), (3, 2), (4, 3, 2), (3, 3), (3,), (2, 2, 3)])
def test_shared_conditions_are_the_same_for_all_samples(method: Method, shape: tuple[int, ...]) -> None:
    """Whatever the batch: three points with a shared condition of three rows end where each would alone."""
    m, drift = Sphere(2), normal(*shape, seed=4)

    def field(y: Tensor, t: Tensor, drift: Tensor) -> Tensor:
        assert drift.shape == shape
        # Speeds differ, so that samples arrive one by one.
        return (1 + 9 * (y[..., :1] > 0)) * m.proju(y, torch.ones(3).to(y) * drift.sum())

    x = points(m, 3, 2)
    each = (integrate(field, m, y, (0.0, 0.4), method, drift=Shared(drift)).final for y in x.flatten(0, 1))
    alone = torch.stack(list(each))
    for together in (x.flatten(0, 1), x, x.flatten(0, 1)[:3], x.flatten(0, 1)[:4], x.reshape(2, 3, 3)):
        final = integrate(field, m, together, (0.0, 0.4), method, drift=Shared(drift)).final.reshape(-1, 3)
        torch.testing.assert_close(final, alone[: len(final)], rtol=1e-12, atol=1e-12)


def test_what_holds_no_tensors_is_passed_as_it_is() -> None:
    m, seen = Euclidean(2), []

    def field(x: Tensor, t: Tensor, label: str, pair: tuple[int, int], graph: dict[str, Tensor]) -> Tensor:
        seen.append((label, pair, tuple(graph["edges"].shape)))
        return 0 * x

    integrate(field, m, torch.zeros(3, 2), (0.0, 1.0), label="a", pair=(1, 2), graph=Shared({"edges": torch.ones(3)}))
    assert set(seen) == {("a", (1, 2), (3,))}


@pytest.mark.parametrize(
    "condition",
    [
        torch.ones(2),
        torch.ones(4, 2),
        torch.ones(()),
        torch.ones(1, 2),
        {"a": torch.ones(3)},
        [torch.ones(3, 2)],
        [(torch.ones(3, 2), 1)],
        np.ones(3),
    ],
    ids=str,
)
def test_a_condition_that_is_neither_per_sample_nor_marked_is_refused(condition: Any) -> None:
    def field(x: Tensor, t: Tensor, drift: Any) -> Tensor:
        return 0 * x

    with pytest.raises(ValueError, match=r"^integrate: condition drift .*rfm\.Shared\(drift\)"):
        integrate(field, Euclidean(2), torch.zeros(3, 2), (0.0, 1.0), drift=condition)


# The integral.


@pytest.mark.parametrize(
    ("method", "tolerance"),
    [
        (TIGHT, 1e-11),
        (Adaptive(), 1e-5),
        (Adaptive(Adams()), 1e-5),
        (FixedStep(RK4, 50), 1e-6),
        (FixedStep(Adams(4), 50), 1e-4),
        (FixedStep(Adams(6), 50), 1e-6),
    ],
)
def test_integral_along_the_path(method: Adaptive | FixedStep, tolerance: float) -> None:
    m = Sphere(2)
    x = points(m, 5)
    a = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)

    def pair(y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        u = pole_turn(y, t)
        # The rate of change of exp(<a, y>) + t^3.
        return u, torch.exp(y @ a) * (u @ a) + 3 * t * t

    for times in ((0.0, 0.5, 1.2), (1.2, 0.3)):
        solution = integrate(pair, m, x, times, method, with_integral=True)
        assert solution.integral is not None
        for at, t, value in zip(solution.x, times, solution.integral, strict=True):
            truth = torch.exp(at @ a) - torch.exp(x @ a) + t**3 - times[0] ** 3
            torch.testing.assert_close(value, truth, atol=tolerance, rtol=0)


def test_the_integral_decides_the_steps_too() -> None:
    """Points at rest, and an integrand with a sharp peak that only error control can find."""
    m = Euclidean(1)

    def pair(y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(y), torch.exp(-(((t - 0.3) / 0.03) ** 2))

    for method in (Adaptive(), Adaptive(Adams())):
        solution = integrate(pair, m, torch.zeros(1, 1, dtype=torch.float64), (0.0, 1.0), method, with_integral=True)
        assert solution.integral is not None
        assert float(solution.integral[-1, 0]) == pytest.approx(0.03 * math.sqrt(math.pi), abs=1e-5)


# Failures.


def nan_beyond(x: Tensor, t: Tensor) -> Tensor:
    """Fine where the third coordinate is positive; elsewhere NaN from time 0.5 on, and NaN at once below -0.9."""
    bad = (x[..., 2] < 0) & (t > 0.5) | (x[..., 2] < -0.9)
    return torch.where(bad[..., None], math.nan, pole_turn(x, t))


@pytest.mark.parametrize("method", solvers(RK4, 20))
def test_failures_are_reported_per_sample(method: Adaptive | FixedStep) -> None:
    m = Sphere(2)
    x = m.projx(torch.tensor([[1.0, 0, 0.5], [0, 1.0, -0.3], [0, 0.1, -1.0], [1, 1, 1]], dtype=torch.float64))
    times = (0.0, 0.4, 0.8, 1.0)

    def pair(y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return nan_beyond(y, t), torch.ones_like(t)

    solution = integrate(pair, m, x, times, method, with_integral=True, raise_on_failure=False)
    assert solution.success.tolist() == [True, False, False, True]
    assert solution.integral is not None
    # Right up to the failure, NaN after it, and never a zero.
    for values in (solution.x.sum(-1), solution.integral):
        expected = [[False] * 4, [False, False, True, True], [False, True, True, True], [False] * 4]
        assert torch.isnan(values).T.tolist() == expected
    torch.testing.assert_close(solution.x[1, 1], turned(x[1], 0.16), atol=1e-5, rtol=0)
    assert "2 of 4 samples (numbers 1, 2)" in solution.describe_failure()
    assert "NaN" in solution.describe_failure()
    # Given up soon: not after max_steps.
    assert int(solution.evaluations.max()) < 1000
    fine = integrate(pair, m, x[[0, 3]], times, method, with_integral=True)
    assert torch.equal(fine.x, solution.x[:, [0, 3]])

    with pytest.raises(IntegrationError, match="2 of 4 samples") as caught:
        integrate(pair, m, x, times, method, with_integral=True)
    assert torch.equal(caught.value.solution.status, solution.status)
    assert torch.equal(torch.isnan(caught.value.solution.x), torch.isnan(solution.x))


@pytest.mark.parametrize("method", solvers(RK4, 5))
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("what", ["point", "field", "integrand"])
def test_not_finite_anywhere_is_a_failure(what: str, value: float, method: Adaptive | FixedStep) -> None:
    m = Sphere(2)
    x = points(m, 3)
    if what == "point":
        x[1, 0] = value

    def pair(y: Tensor, t: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        u, q = pole_turn(y, t), torch.ones_like(t)
        if what == "field":
            u = torch.where(second[:, None], value, u)
        if what == "integrand":
            q = torch.where(second, value, q)
        return u, q

    second = torch.arange(3) == 1
    solution = integrate(pair, m, x, (0.0, 1.0), method, with_integral=True, raise_on_failure=False, second=second)
    assert solution.success.tolist() == [True, False, True]
    assert solution.integral is not None
    assert bool(torch.isnan(solution.final[1]).all())
    assert bool(torch.isnan(solution.integral[-1, 1]))


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in ZOO])
def test_a_nan_field_fails_on_every_manifold(make: Callable[[], Manifold]) -> None:
    m = make()
    x, inner = points(m, 2), wavy_field(m, size=0.3)

    def field(y: Tensor, t: Tensor, bad: Tensor) -> Tensor:
        return torch.where(m.lift(bad), math.nan, inner(y, t))

    for method in (
        FixedStep(RK4, 2),
        Adaptive(atol=1e-3, rtol=1e-3),
        FixedStep(Adams(3), 4),
        Adaptive(Adams(), 1e-3, 1e-3),
    ):
        bad = torch.tensor([True, False])
        solution = integrate(field, m, x, (0.0, 1.0), method, raise_on_failure=False, bad=bad)
        assert solution.success.tolist() == [False, True]
        assert bool(torch.isnan(solution.final[0]).all())


@pytest.mark.parametrize(("scheme", "stages"), [(DORMAND_PRINCE, 6), (Adams(), 1)], ids=["adaptive", "adams"])
def test_too_many_steps(scheme: Tableau | Adams, stages: int) -> None:
    m = Sphere(2)
    x = points(m, 4)
    solution = integrate(elementwise, m, x, (0.0, 1.0), Adaptive(scheme, max_steps=3), raise_on_failure=False)
    assert not bool(solution.success.any())
    assert "max_steps" in solution.describe_failure()
    assert bool(torch.isnan(solution.final).all())
    enough = int((integrate(elementwise, m, x, (0.0, 1.0), Adaptive(scheme)).evaluations.max() - 2) // stages)
    assert bool(integrate(elementwise, m, x, (0.0, 1.0), Adaptive(scheme, max_steps=enough)).success.all())


@pytest.mark.parametrize("method", [Adaptive(), Adaptive(Adams())], ids=["adaptive", "adams"])
def test_step_too_small(method: Adaptive) -> None:
    """Solutions of x' = x^2 run to infinity at time 1 / x: the step shrinks there, for that sample alone."""
    m = Euclidean(1)
    x = torch.tensor([[2.0], [0.5]], dtype=torch.float64)
    solution = integrate(lambda y, t: y * y, m, x, (0.0, 1.0), method, raise_on_failure=False)
    assert solution.success.tolist() == [False, True]
    assert bool(torch.isnan(solution.final[0]).all())
    assert float(solution.final[1]) == pytest.approx(1.0, abs=1e-5)
    assert "too small" in solution.describe_failure() or "max_steps" in solution.describe_failure()
    # A jump at a time that no step can land on exactly.
    jump = integrate(
        lambda y, t: torch.where(t[..., None] < 1 / 3, y, 1e16 * y), m, x, (0.0, 1.0), method, raise_on_failure=False
    )
    assert not bool(jump.success.any())


def test_a_stage_outside_the_domain_rejects_the_step() -> None:
    """A field defined on the cone only: log det falls at a rate that long steps would overshoot."""
    m = SPD(2)

    def field(x: Tensor, t: Tensor) -> Tensor:
        assert bool((torch.linalg.eigvalsh(x) > 0).all())
        return -8 * x

    x = points(m, 3)
    for method in (Adaptive(), Adaptive(Adams())):
        solution = integrate(field, m, x, (0.0, 1.0), method)
        torch.testing.assert_close(solution.final, math.exp(-8) * x, rtol=0, atol=1e-5)


# Under transformations of functions.


@pytest.mark.parametrize("m", [Sphere(2), FlatTorus(2), SO3()], ids=str)
@pytest.mark.parametrize("scheme", [*METHODS, Adams(5)], ids=[*NAMES, "adams"])
def test_fixed_steps_under_vmap_and_grad(m: Manifold, scheme: Tableau | Adams) -> None:
    x, field = points(m, 4), wavy_field(m)
    direction = normal(*m.event_shape, seed=5)

    def height(y: Tensor, scale: Tensor) -> Tensor:
        def scaled(z: Tensor, t: Tensor) -> Tensor:
            return scale * field(z, t)

        return (
            integrate(scaled, m, y, (0.0, 1.0), FixedStep(scheme, 4), raise_on_failure=False).final * direction
        ).sum()

    one = torch.ones((), dtype=torch.float64)
    values = torch.func.vmap(height, in_dims=(0, None))(x, one)
    torch.testing.assert_close(values, torch.stack([height(y, one) for y in x]))
    slope = torch.func.vmap(torch.func.grad(height, argnums=1), in_dims=(0, None))(x, one)
    h = 1e-5
    central = torch.stack([(height(y, one + h) - height(y, one - h)) / (2 * h) for y in x])
    torch.testing.assert_close(slope, central, atol=1e-8, rtol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", [RK4, Adams(5)], ids=["rk4", "adams"])
def test_fixed_steps_compile_and_differentiate(scheme: Tableau | Adams) -> None:
    m = Sphere(2)
    x = points(m, 4)

    def solve(y: Tensor, k: Tensor) -> Tensor:
        def field(z: Tensor, t: Tensor) -> Tensor:
            return k * pole_turn(z, t)

        return integrate(field, m, y, (0.0, 1.0), FixedStep(scheme, 12), raise_on_failure=False).final

    k = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(torch.compile(solve, backend="eager", fullgraph=True)(x, k), solve(x, k))
    (slope,) = torch.autograd.grad(solve(x, k).select(-1, 0).sum(), k)
    tight = TIGHT if isinstance(scheme, Tableau) else Adaptive(Adams(6), 1e-11, 1e-11)
    (adaptive,) = torch.autograd.grad(
        integrate(lambda z, t: k * pole_turn(z, t), m, x, (0.0, 1.0), tight).final.select(-1, 0).sum(), k
    )
    exact = -(math.sin(1.5) * x[:, 0] + math.cos(1.5) * x[:, 1]).sum()
    assert float(slope) == pytest.approx(float(exact), abs=1e-3)
    assert float(adaptive) == pytest.approx(float(exact), abs=1e-9)
