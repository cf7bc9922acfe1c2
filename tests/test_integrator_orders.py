"""Every scheme shows the order of its tableau on every kind of manifold, for points and integrals."""

import functools
import itertools
import math
from collections.abc import Callable

import numpy.polynomial
import pytest
import torch
from random_fields import normal, points, wavy_field
from torch import Tensor

from manifolds import SE3, SO3, SPD, FlatTorus, Hyperboloid, Manifold, PoincareBall, Power, Product, Sphere
from rfm.integrators import (
    BOGACKI_SHAMPINE,
    DORMAND_PRINCE,
    EULER,
    GEODESIC_EULER,
    GEODESIC_MIDPOINT,
    HEUN_EULER,
    KUTTA3,
    MIDPOINT,
    RK4,
    TSITOURAS,
    Adams,
    Adaptive,
    FixedStep,
    Geodesic,
    MuntheKaas,
    NormalCoordinates,
    Projected,
    Scheme,
    Tableau,
    integrate,
)
from rfm.integrators.adams.quadrature import composite_weights, interpolatory_weights, newton_weights
from rfm.integrators.adams.spaces import velocity_space

TABLEAUX = {
    "euler": EULER,
    "midpoint": MIDPOINT,
    "kutta3": KUTTA3,
    "rk4": RK4,
    "heun_euler": HEUN_EULER,
    "bogacki_shampine": BOGACKI_SHAMPINE,
    "dormand_prince": DORMAND_PRINCE,
    "tsitouras": TSITOURAS,
}
SPACES = [Sphere(2), FlatTorus(2), SO3(), SE3(2.0), Hyperboloid(2), SPD(2)]
GROUPS = [SO3(), SE3(2.0), Product(SO3(), FlatTorus(1)), Power(SE3(), 2)]
PAIRS = [HEUN_EULER, BOGACKI_SHAMPINE, DORMAND_PRINCE, TSITOURAS]
SPAN = (0.1, 0.9)


def slow(*names: str) -> list[object]:
    """Return parameters for tests that are as good as others that run always."""
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


# The tableaux.


def trees(tableau: Tableau) -> dict[int, list[tuple[Tensor, float]]]:
    """Return, by order, the vectors whose sum with weights b has a known value: the order conditions."""
    c = torch.tensor(tableau.c, dtype=torch.float64)
    a = torch.zeros(len(c), len(c), dtype=torch.float64)
    for i, row in enumerate(tableau.a):
        a[i, :i] = torch.tensor(row, dtype=torch.float64)
    ac, ac2 = a @ c, a @ c**2
    return {
        1: [(torch.ones_like(c), 1)],
        2: [(c, 1 / 2)],
        3: [(c**2, 1 / 3), (ac, 1 / 6)],
        4: [(c**3, 1 / 4), (c * ac, 1 / 8), (ac2, 1 / 12), (a @ ac, 1 / 24)],
        5: [
            *((c**4, 1 / 5), (c**2 * ac, 1 / 10), (ac**2, 1 / 20), (c * ac2, 1 / 15), (a @ c**3, 1 / 20)),
            *((c * (a @ ac), 1 / 30), (a @ (c * ac), 1 / 40), (a @ ac2, 1 / 60), (a @ (a @ ac), 1 / 120)),
        ],
    }


@pytest.mark.parametrize("tableau", TABLEAUX.values(), ids=TABLEAUX)
def test_tableaux_satisfy_exactly_the_order_conditions(tableau: Tableau) -> None:
    b = torch.tensor(tableau.b, dtype=torch.float64)
    conditions = trees(tableau)
    for row, time in zip(tableau.a, tableau.c, strict=True):
        assert sum(row) == pytest.approx(time, abs=1e-14)
    for order in range(1, 6):
        worst = max(abs(float(b @ v) - value) for v, value in conditions[order])
        if order <= tableau.order:
            assert worst < 1e-14
        elif order == tableau.order + 1:
            assert worst > 1e-3


@pytest.mark.parametrize("tableau", PAIRS)
def test_embedded_methods_have_one_order_less(tableau: Tableau) -> None:
    difference = torch.tensor(tableau.b_error, dtype=torch.float64)
    conditions = trees(tableau)
    for order in range(1, tableau.order):
        assert max(abs(float(difference @ v)) for v, _ in conditions[order]) < 1e-14
    assert max(abs(float(difference @ v)) for v, _ in conditions[tableau.order]) > 1e-5


@pytest.mark.parametrize("tableau", [DORMAND_PRINCE, TSITOURAS])
@pytest.mark.parametrize("s", [0.3, 0.5, 0.9])
def test_interpolants_have_order_four(tableau: Tableau, s: float) -> None:
    b, d = (torch.tensor(w, dtype=torch.float64) for w in (tableau.b, tableau.bump))
    weights = s * s * (3 - 2 * s) * b + s * s * (1 - s) ** 2 * d
    weights[0] += s * (1 - s) ** 2
    weights[-1] -= s * s * (1 - s)
    for order in range(1, 5):
        for v, value in trees(tableau)[order]:
            assert float(weights @ v) == pytest.approx(value * s**order, abs=1e-14)


def test_a_last_stage_changes_nothing_but_the_count() -> None:
    for tableau in TABLEAUX.values():
        longer = tableau.with_last_stage()
        assert longer.first_same_as_last
        assert longer.order == tableau.order
        x, field = points(Sphere(2), 3), wavy_field(Sphere(2))
        results = [integrate(field, Sphere(2), x, SPAN, FixedStep(t, 3)).final for t in (tableau, longer)]
        torch.testing.assert_close(*results, rtol=0, atol=1e-15)
    reuse = [name for name, tableau in TABLEAUX.items() if tableau.first_same_as_last]
    assert reuse == ["bogacki_shampine", "dormand_prince", "tsitouras"]


@pytest.mark.parametrize("tableau", TABLEAUX.values(), ids=TABLEAUX)
def test_a_scalar_is_evaluated_only_where_it_has_a_weight(tableau: Tableau) -> None:
    m, calls = Sphere(2), dict.fromkeys(("both", "alone"), 0)
    x, field = points(m, 3), wavy_field(m)

    def pair(y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        calls["both"] += 1
        return field(y, t), y[..., 0]

    def alone(y: Tensor, t: Tensor) -> Tensor:
        calls["alone"] += 1
        return field(y, t)

    methods = [FixedStep(tableau, 3), *([Adaptive(tableau, 1e-3, 1e-3)] if tableau.b_error else [])]
    for method in methods:
        all_pairs, few = (
            integrate(pair, m, x, SPAN, method, with_integral=True, velocity=velocity) for velocity in (None, alone)
        )
        assert torch.equal(all_pairs.final, few.final)
        assert all_pairs.integral is not None
        assert few.integral is not None
        assert torch.equal(all_pairs.integral, few.integral)
    weightless = not all(tableau.integrands_at(with_error=tableau.b_error is not None))
    assert (calls["alone"] > 0) == weightless
    assert weightless == (tableau in (MIDPOINT, DORMAND_PRINCE))


def test_several_scalars_are_integrated_at_once_and_their_mean_controls_the_steps() -> None:
    m = Sphere(2)
    x, field = points(m, 4), wavy_field(m)

    def one(y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return field(y, t), torch.sin(3 * y[..., 0] + t)

    def several(y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        u, q = one(y, t)
        return u, torch.stack([q - 1, q + 1], -1)

    for method in (Adaptive(), Adaptive(Adams()), FixedStep(RK4, 5), FixedStep(Adams(), 5)):
        times = (*SPAN, 1.5)
        single, double = (integrate(f, m, x, times, method, with_integral=True) for f in (one, several))
        assert single.integral is not None
        assert double.integral is not None
        assert torch.equal(single.evaluations, double.evaluations)
        span = (single.times - SPAN[0])[:, None]
        expected = torch.stack([single.integral - span, single.integral + span], -1)
        torch.testing.assert_close(double.integral, expected)


def test_malformed_tableaux_are_refused() -> None:
    with pytest.raises(ValueError, match="rows of a of lengths"):
        Tableau(order=2, c=(0.0, 0.5), a=((0.5,), ()), b=(0.0, 1.0))


# Slopes.


@functools.cache
def solved(m: Manifold) -> tuple[Tensor, Callable[..., tuple[Tensor, Tensor]], Tensor, Tensor]:
    """Return points, a field with an integrand, and both solutions, by projected steps."""
    x, inner = points(m, 3), wavy_field(m, size=1.5)
    direction = normal(m.embed_dim, seed=7)

    def field(y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return inner(y, t), torch.sin(m.embed(y) @ direction + 2 * t)

    fine = integrate(field, m, x, SPAN, FixedStep(Projected(DORMAND_PRINCE), 90), with_integral=True)
    assert fine.integral is not None
    return x, field, fine.final, fine.integral[-1]


def slopes(m: Manifold, scheme: Scheme | Tableau | Adams, order: int) -> tuple[float, float]:
    x, field, exact, exact_integral = solved(m)
    counts = {1: (24, 72), 2: (14, 42), 3: (10, 30), 4: (8, 24), 5: (9, 36)}[order]
    logs = []
    for n in counts:
        solution = integrate(field, m, x, SPAN, FixedStep(scheme, n), with_integral=True)
        assert solution.integral is not None
        errors = m.dist(solution.final, exact), solution.integral[-1] - exact_integral
        logs.append([math.log(float(e.square().mean().sqrt())) for e in errors])
    assert logs[1][0] > math.log(1e-13)
    point, integral = ((a - b) / math.log(counts[1] / counts[0]) for a, b in zip(*logs, strict=True))
    return point, integral


def check(m: Manifold, scheme: Scheme | Tableau | Adams, order: int) -> None:
    point, integral = slopes(m, scheme, order)
    assert point > order - 0.35
    assert integral > order - 0.35
    # The leading error of order five is so small that at these steps the next one still counts.
    assert order == 5 or point < order + 0.7


@pytest.mark.parametrize("m", SPACES, ids=str)
@pytest.mark.parametrize("name", [*slow("euler", "midpoint", "kutta3", "tsitouras"), "rk4"])
def test_order_of_projected_steps(m: Manifold, name: str) -> None:
    check(m, Projected(TABLEAUX[name]), TABLEAUX[name].order)


@pytest.mark.parametrize("m", [*SPACES, PoincareBall(2)], ids=str)
@pytest.mark.parametrize(
    ("scheme", "order"),
    [
        pytest.param(GEODESIC_EULER, 1, marks=pytest.mark.slow),
        (GEODESIC_MIDPOINT, 2),
        pytest.param(Geodesic(HEUN_EULER), 2, marks=pytest.mark.slow),
    ],
)
def test_order_of_geodesic_steps(m: Manifold, scheme: Scheme, order: int) -> None:
    check(m, scheme, order)


@pytest.mark.parametrize("m", GROUPS, ids=str)
@pytest.mark.parametrize("name", [*slow("euler", "midpoint", "kutta3", "dormand_prince"), "rk4"])
def test_order_of_munthe_kaas_steps(m: Manifold, name: str) -> None:
    check(m, MuntheKaas(TABLEAUX[name]), TABLEAUX[name].order)


@pytest.mark.parametrize("m", [*SPACES, PoincareBall(2)], ids=str)
@pytest.mark.parametrize("name", [*slow("midpoint", "kutta3", "dormand_prince"), "rk4"])
def test_order_of_normal_coordinates(m: Manifold, name: str) -> None:
    check(m, NormalCoordinates(TABLEAUX[name]), TABLEAUX[name].order)


@pytest.mark.parametrize("m", [*SPACES, PoincareBall(2), Product(SO3(), FlatTorus(1)), Power(SE3(), 2)], ids=str)
@pytest.mark.parametrize("order", [*(pytest.param(p, marks=pytest.mark.slow) for p in (2, 3)), 4, 5, 6])
def test_order_of_adams_steps(m: Manifold, order: int) -> None:
    x, field, exact, exact_integral = solved(m)
    logs = []
    counts = (20, 160) if order == 4 else (20, 80)
    for n in counts:
        solution = integrate(field, m, x, SPAN, FixedStep(Adams(order), n), with_integral=True)
        assert solution.integral is not None
        errors = m.dist(solution.final, exact), solution.integral[-1] - exact_integral
        logs.append([math.log(float(e.square().mean().sqrt())) for e in errors])
    point, integral = ((a - b) / math.log(counts[1] / counts[0]) for a, b in zip(*logs, strict=True))
    assert point > order - 0.5
    # The integral's leading error may change its sign between the two.
    assert integral > order - (0.6 if order < 6 else 1.3)
    assert order > 4 or point < order + 0.7


def test_interpolatory_weights_are_exact_for_polynomials() -> None:
    start, end = 0.7, 0.4
    nodes = [0.95, 0.7, 0.4, 0.05, 1.4]
    for count in range(1, 6):
        weights = interpolatory_weights(nodes[:count], start, end, moments=3)
        for moment, power in itertools.product(range(3), range(count)):
            # The integral of t^power ((t - middle) / h)^moment.
            factor = numpy.polynomial.Polynomial([-(start + end) / 2, 1]) / (end - start)
            whole = (numpy.polynomial.Polynomial([0, 1]) ** power * factor**moment).integ()
            found = sum(w * t**power for w, t in zip(weights[moment], nodes, strict=False))
            assert found == pytest.approx(whole(end) - whole(start), abs=1e-13)


def test_composite_weights_are_exact_for_cubics_between_any_nodes() -> None:
    nodes = [0.0, 0.1, 0.3, 0.35, 0.7, 1.0]
    for first, last in itertools.combinations(range(6), 2):
        weights = composite_weights(nodes, first, last, points=4)
        for power in range(4):
            exact = (nodes[last] ** (power + 1) - nodes[first] ** (power + 1)) / (power + 1)
            assert sum(w * t**power for w, t in zip(weights, nodes, strict=True)) == pytest.approx(exact, abs=1e-14)
    # Two nodes are all there is: the trapezoid.
    assert composite_weights([0.0, 2.0], 0, 1, points=4) == pytest.approx([1.0, 1.0])


def test_newtons_form_is_carried_on_and_integrated_as_the_polynomial_it_is() -> None:
    generator = torch.Generator().manual_seed(0)
    k, n = 4, 3
    gaps = 0.1 + torch.rand(k + 1, n, generator=generator, dtype=torch.float64)
    times = 1 - gaps.cumsum(0)  # the latest first; all before 1
    ahead = torch.full((n,), 1.3, dtype=torch.float64)
    values = torch.sin(3 * times[:k])
    carry, weights = newton_weights(times[:k], ahead, moments=3)
    for sample in range(n):
        nodes, value = times[:k, sample].tolist(), values[:, sample]
        table = torch.stack([_newton(nodes, value.tolist(), order) for order in range(k)])
        carried = carry[:, sample] * table
        h = float(ahead[sample]) - nodes[0]
        for moment in range(3):
            own = interpolatory_weights(nodes, nodes[0], float(ahead[sample]), moments=3)[moment]
            expected = sum(w * float(v) for w, v in zip(own, value, strict=True))
            assert float(h * (weights[moment, :k, sample] * carried).sum()) == pytest.approx(expected, rel=1e-10)
        # With a value at the new time, the last term makes it the polynomial through that too.
        new = 0.7
        latest = new - float(carried.sum())
        [own] = interpolatory_weights([float(ahead[sample]), *nodes], nodes[0], float(ahead[sample]))
        expected = sum(w * v for w, v in zip(own, [new, *value.tolist()], strict=True))
        found = h * float((weights[0, :k, sample] * carried).sum() + weights[0, k, sample] * latest)
        assert found == pytest.approx(expected, rel=1e-10)


def _newton(nodes: list[float], values: list[float], order: int) -> Tensor:
    """Return the divided difference of the first nodes, scaled by the distances of the others from the first."""
    if order == 0:
        return torch.tensor(values[0], dtype=torch.float64)
    column = values[: order + 1]
    for step in range(1, order + 1):
        column = [(column[i] - column[i + 1]) / (nodes[i] - nodes[i + step]) for i in range(len(column) - 1)]
    return torch.tensor(column[0] * math.prod(nodes[0] - t for t in nodes[1 : order + 1]), dtype=torch.float64)


@pytest.mark.parametrize("m", [SO3(), SE3(2.0)], ids=str)
@pytest.mark.parametrize(("order", "power"), [(2, 3), (4, 5), (6, 7)])
def test_magnus_series_has_the_error_of_its_order(m: Manifold, order: int, power: int) -> None:
    """Moments are exact here, so that nothing but the series errs: velocities depend on time alone."""
    group = m.lie_group
    assert group is not None
    x, a, b, c = points(m, 1), *(normal(1, m.dim, seed=seed) for seed in (1, 2, 3))
    space = velocity_space(m, order)

    def algebra(t: Tensor) -> Tensor:
        return a + b * torch.sin(t)[..., None] + c * torch.cos(2 * t)[..., None]

    errors = []
    for h in (0.5, 0.25):
        nodes = torch.linspace(0.3, 0.3 + h, 12, dtype=torch.float64)
        weights = interpolatory_weights(nodes.tolist(), 0.3, 0.3 + h, space.count)
        moments = [sum(w * algebra(t) for w, t in zip(row, nodes, strict=True)) for row in weights]
        found, _ = space.moved(x, moments)
        span = (0.3, 0.3 + h)
        exact = integrate(
            lambda y, t: group.from_algebra(y, algebra(t)), m, x, span, FixedStep(MuntheKaas(DORMAND_PRINCE), 100)
        ).final
        errors.append(float(m.dist(found, exact)))
    assert power - 0.4 < math.log2(errors[0] / errors[1]) < power + 1.5


def test_output_times_close_together_do_not_disturb_adams_steps() -> None:
    m = Sphere(2)
    x, field, exact, exact_integral = solved(m)
    for close in (1e-3, 1e-6, 1e-12):
        times = (SPAN[0], 0.5, 0.5 + close, SPAN[1])
        for order in (3, 5):
            solution = integrate(field, m, x, times, FixedStep(Adams(order), 40), with_integral=True)
            plain = integrate(field, m, x, SPAN, FixedStep(Adams(order), 40), with_integral=True)
            assert solution.integral is not None
            assert plain.integral is not None
            assert float(m.dist(solution.final, exact).max()) < 5 * float(m.dist(plain.final, exact).max())
            errors = [(s.integral[-1] - exact_integral).abs().max() for s in (solution, plain)]
            assert float(errors[0]) < 20 * float(errors[1])


def test_a_sample_that_fails_keeps_its_integral_until_then() -> None:
    m = Sphere(2)
    x = points(m, 2)

    def pair(y: Tensor, t: Tensor, bad: Tensor) -> tuple[Tensor, Tensor]:
        return wavy_field(m)(y, t), torch.where(bad & (t > 0.5), math.nan, torch.exp(t))

    bad = torch.tensor([True, False])
    for order in (2, 4, 6):
        method = FixedStep(Adams(order), 40)
        solution = integrate(pair, m, x, (0.0, 0.5, 1.0), method, with_integral=True, raise_on_failure=False, bad=bad)
        assert solution.success.tolist() == [False, True]
        assert solution.integral is not None
        assert torch.isnan(solution.integral).tolist() == [[False] * 2, [False] * 2, [True, False]]
        torch.testing.assert_close(solution.integral[1], torch.full_like(bad, math.exp(0.5) - 1, dtype=x.dtype))


def test_steps_keep_the_dtype_of_the_points_whatever_the_default() -> None:
    m = Sphere(2)
    x, inner = points(m, 3, dtype=torch.float32), wavy_field(m)

    def field(y: Tensor, t: Tensor) -> Tensor:
        assert y.dtype == t.dtype == torch.float32
        return inner(y, t)

    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        for method in (Adaptive(Adams(), 1e-4, 1e-4), FixedStep(Adams(), 6), Adaptive(atol=1e-4, rtol=1e-4)):
            assert integrate(field, m, x, (0.0, 0.5, 1.0), method).x.dtype == torch.float32
    finally:
        torch.set_default_dtype(default)


def test_steps_shorter_than_rounding_are_left_out() -> None:
    m = Sphere(2)
    x, field, _, _ = solved(m)
    for scheme in (RK4, Adams(4)):
        method = FixedStep(scheme, 100, grading=10.0)
        [mesh] = method.mesh((0.0, 1.0))
        assert 50 < len(mesh) < 101
        assert all(b > a for a, b in itertools.pairwise(mesh))
        solution = integrate(lambda y, t: field(y, t)[0], m, x, (0.0, 1.0), method)
        assert bool(solution.success.all())


def test_adams_orders_fall_on_stiff_fields() -> None:
    """A velocity field that pulls towards the equator 200 times as fast as it moves along it."""
    m = Sphere(2)
    x, along = points(m, 4), wavy_field(m, size=0.5)

    def field(y: Tensor, t: Tensor) -> Tensor:
        down = torch.zeros_like(y)
        down[..., 2] = -200 * y[..., 2]
        return along(y, t) + m.proju(y, down)

    truth = integrate(field, m, x, SPAN, Adaptive(atol=1e-10, rtol=1e-10))
    plain = integrate(field, m, x, SPAN, Adaptive(atol=1e-5, rtol=1e-5))
    for order in (4, 6):
        found = integrate(field, m, x, SPAN, Adaptive(Adams(order), 1e-5, 1e-5))
        assert float(m.dist(found.final, truth.final).max()) < 1e-4
        times = torch.linspace(*SPAN, 30, dtype=torch.float64)
        between = integrate(field, m, x, times, Adaptive(Adams(order), 1e-5, 1e-5))
        exact = integrate(field, m, x, times, Adaptive(atol=1e-10, rtol=1e-10))
        assert float(m.dist(between.x, exact.x).max()) < 1e-4
        assert int(found.evaluations.max()) < 1.5 * int(plain.evaluations.max())


def test_adaptive_adams_takes_far_fewer_evaluations() -> None:
    m = Sphere(2)
    x = points(m, 6)
    field = wavy_field(m, size=4)
    truth = integrate(field, m, x, SPAN, Adaptive(TSITOURAS, 1e-12, 1e-12)).final
    errors, costs = [], []
    for scheme, tol in ((DORMAND_PRINCE, 1e-7), (Adams(6), 1e-7)):
        solution = integrate(field, m, x, SPAN, Adaptive(scheme, tol, tol))
        errors.append(float(m.dist(solution.final, truth).max()))
        costs.append(float(solution.evaluations.double().mean()))
    assert errors[1] < 10 * errors[0]
    assert costs[1] < 0.6 * costs[0]


def test_a_bare_tableau_takes_the_cheapest_coordinates() -> None:
    for m, scheme in [(Sphere(2), Projected), (FlatTorus(2), Projected), (SPD(2), Projected), (SO3(), MuntheKaas)]:
        x, field = points(m, 2), wavy_field(m)
        bare, named = (integrate(field, m, x, SPAN, FixedStep(s, 3)).final for s in (RK4, scheme(RK4)))
        assert torch.equal(bare, named)


# Adaptive, and output times.


@pytest.mark.parametrize(
    ("m", "scheme"),
    [
        (Sphere(2), Projected(BOGACKI_SHAMPINE)),
        (Sphere(2), Projected(TSITOURAS)),
        (Sphere(2), NormalCoordinates(DORMAND_PRINCE)),
        (SO3(), MuntheKaas(BOGACKI_SHAMPINE)),
        (SO3(), MuntheKaas(TSITOURAS)),
        (SPD(2), Projected(DORMAND_PRINCE)),
        (SPD(2), NormalCoordinates(TSITOURAS)),
        *((m, Adams(order)) for m in (Sphere(2), SO3(), SE3(2.0), SPD(2)) for order in (3, 5, 6)),
    ],
)
def test_adaptive_error_follows_the_tolerance(m: Manifold, scheme: Scheme | Adams) -> None:
    x, field, exact, exact_integral = solved(m)
    for tol in (1e-3, 1e-6):
        method = Adaptive(scheme, atol=tol, rtol=tol)
        solution = integrate(field, m, x, SPAN, method, with_integral=True)
        assert solution.integral is not None
        # What one step may err by; the whole errs by a few times as much.
        tolerated = tol * (1 + torch.maximum(*(y.flatten(1).norm(dim=1) for y in (x, exact))))
        assert bool((m.dist(solution.final, exact) < 15 * tolerated).all())
        assert bool(((solution.integral[-1] - exact_integral).abs() < 15 * tolerated).all())


@pytest.mark.parametrize("m", [Sphere(2), SO3(), SE3(2.0)], ids=str)
def test_output_times_cost_adams_nothing_and_are_as_accurate(m: Manifold) -> None:
    x, field, _, _ = solved(m)
    times = torch.linspace(*SPAN, 41, dtype=torch.float64)
    for order, grid in itertools.product((3, 5, 6), (times, times.flip(0))):
        truth = integrate(field, m, x, grid, FixedStep(DORMAND_PRINCE, 80), with_integral=True)
        many = integrate(field, m, x, grid, Adaptive(Adams(order), 1e-5, 1e-5), with_integral=True)
        ends = integrate(field, m, x, grid[[0, -1]], Adaptive(Adams(order), 1e-5, 1e-5), with_integral=True)
        assert torch.equal(many.final, ends.final)
        assert torch.equal(many.evaluations, ends.evaluations)
        m.check_point(many.x)
        assert many.integral is not None
        assert truth.integral is not None
        assert float(m.dist(many.x, truth.x).max()) < 3e-4
        assert float((many.integral - truth.integral).abs().max()) < 3e-4


@pytest.mark.parametrize("m", [Sphere(2), SO3()], ids=str)
@pytest.mark.parametrize("tableau", [HEUN_EULER, BOGACKI_SHAMPINE, DORMAND_PRINCE, TSITOURAS])
def test_many_output_times_cost_little_and_are_as_accurate(m: Manifold, tableau: Tableau) -> None:
    x, field, _, _ = solved(m)
    tol = 1e-3 if tableau is HEUN_EULER else 1e-5
    method = Adaptive(tableau, atol=tol, rtol=tol)
    times = torch.linspace(*SPAN, 41, dtype=torch.float64)
    for grid in (times, times.flip(0)):
        truth = integrate(field, m, x, grid, FixedStep(DORMAND_PRINCE, 80), with_integral=True)
        many = integrate(field, m, x, grid, method, with_integral=True)
        ends = integrate(field, m, x, grid[[0, -1]], method, with_integral=True)
        assert torch.equal(many.final, ends.final)
        stages = len(tableau.with_last_stage().c) - 1
        steps = (ends.evaluations - 2) // stages
        assert bool((many.evaluations <= ends.evaluations + 2 * steps).all())
        m.check_point(many.x)
        assert many.integral is not None
        assert truth.integral is not None
        assert float(m.dist(many.x, truth.x).max()) < 30 * tol
        assert float((many.integral - truth.integral).abs().max()) < 30 * tol


# What is needed of a manifold.


def test_schemes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Sphere\(2\) has no lie_group.*Projected"):
        integrate(wavy_field(Sphere(2)), Sphere(2), points(Sphere(2), 2), SPAN, FixedStep(MuntheKaas(RK4), 2))
    with pytest.raises(ValueError, match=r"order 2 at most.*NormalCoordinates"):
        Geodesic(RK4)
    with pytest.raises(ValueError, match="order 5 at most"):
        MuntheKaas(Tableau(order=6, c=(0.0,), a=((),), b=(1.0,)))


def test_a_field_constant_in_the_body_is_solved_exactly_in_one_step() -> None:
    for m in GROUPS:
        group = m.lie_group
        assert group is not None
        x, a = points(m, 4), normal(4, m.dim)
        found = integrate(
            lambda y, t, g=group, b=a: g.from_algebra(y, b), m, x, (0.0, 1.0), FixedStep(MuntheKaas(EULER), 1)
        )
        torch.testing.assert_close(found.final, group.translate(x, a), rtol=0, atol=1e-14)


def test_geodesic_euler_follows_the_geodesic() -> None:
    for m, n in itertools.product([Sphere(2), Hyperboloid(2), SPD(2)], (1, 2)):
        x = points(m, 4)
        u = wavy_field(m)(x, torch.zeros(4, dtype=torch.float64))
        one = integrate(lambda y, t, v=u: v, m, x, (0.0, 1.0), FixedStep(GEODESIC_EULER, 1)).final
        torch.testing.assert_close(one, m.expmap(x, u))
        # The same constant-speed geodesic, carried along itself, in any number of steps.
        along = integrate(
            lambda y, t, start=x, v=u, m=m: m.shoot(start, v, t)[1], m, x, (0.0, 1.0), FixedStep(GEODESIC_EULER, n)
        ).final
        torch.testing.assert_close(along, m.expmap(x, u), rtol=1e-10, atol=1e-12)
