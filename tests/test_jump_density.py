"""The density of what jumps draw: its Jacobian against differences, its integral, and samples against it."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from manifold_zoo import ZOO
from random_fields import normal, points, wavy_field
from test_likelihood_normalisation import Rule, circle_rule, rotation_rule, sphere_rule
from torch import Tensor
from zoo_sources import source_of

import rfm
from manifolds import SO3, Euclidean, FlatTorus, Manifold, Octahedral, Quotient, Ragged, RightMultiplication, Sphere
from rfm.field import FlowMap
from rfm.flow import Refinement
from rfm.integrators import Jumps, integrate
from rfm.likelihood import Hutchinson, Inversion, NotInvertibleError, jump_inverse, jump_log_prob, jump_transport
from rfm.networks import AverageVelocity
from rfm.objectives import Semigroup
from rfm.objectives.flow_maps.flow_map_objective import round_trip_loss
from rfm.sources import KernelMixture, Uniform, WrappedNormal

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

# Every third one is fast: the rest differ by the differential of exp alone, of which the checker has a law.
CASES = [
    pytest.param(make(), id=name, marks=[pytest.mark.slow] if i % 3 else [])
    for i, (name, make) in enumerate([*ZOO, ("SO3/cubic", lambda: Quotient(SO3(), RightMultiplication(Octahedral())))])
]


class WavyMap(FlowMap):
    """A flow map that is no flow: its jumps back are other than the inverses of its jumps."""

    def __init__(self, m: Manifold, size: float = 0.15, seed: int = 0, shared: float = 0.5) -> None:
        self.manifold, self.shared = m, shared
        self.one, self.other = (wavy_field(m, seed=seed + i, size=size) for i in (0, 50))

    def average_velocity(self, x: Tensor, s: Tensor, t: Tensor, **condition: Any) -> Tensor:
        gap = self.manifold.lift(self.shared * (t - s))
        return self.one(x, (s + t) / 2, **condition) + gap * self.other(x, t, **condition)


class CountedMap(FlowMap):
    """Translations of a torus, whose jumps back are inverses; it counts evaluations, directions included."""

    def __init__(self, n: int) -> None:
        self.manifold, self.count = FlatTorus(n), 0

    def average_velocity(self, x: Tensor, s: Tensor, t: Tensor, **condition: Any) -> Tensor:
        self.count += len(x)
        return torch.ones_like(x)

    def average_pushforward(
        self, x: Tensor, s: Tensor, t: Tensor, tangents: Tensor, **condition: Any
    ) -> tuple[Tensor, Tensor]:
        self.count += len(x) * (1 + tangents.shape[1])
        return torch.ones_like(x), torch.zeros_like(tangents)


def size_on(m: Manifold) -> float:
    """Return how far a jump may lead without folding the space or leaving it."""
    if isinstance(m, FlatTorus):
        return 0.5
    if isinstance(m, SO3):
        return 0.22
    return 0.03 if any(name in str(m) for name in ("Fractional", "Simplex", "Correlation")) else 0.15


@pytest.mark.parametrize("m", CASES)
def test_the_jacobian_is_that_of_differences(m: Manifold) -> None:
    field, source, x, jumps = WavyMap(m, size_on(m)), source_of(m), points(m, 3), Jumps(2)

    def jumped(start: Tensor) -> Tensor:
        return integrate(field, m, start, (0.0, 1.0), jumps).final

    y = jumped(x)
    basis, h = m.tangent_basis(x).movedim(1, 0), 1e-5
    ahead, behind = (
        m.logmap(y, jumped(m.expmap(x.expand_as(basis), s * basis).flatten(0, 1)).unflatten(0, basis.shape[:2]))
        for s in (h, -h)
    )
    columns = (ahead - behind) / (2 * h)
    matrix = m.inner(y, m.tangent_basis(y).movedim(1, 0)[:, None], columns[None]).movedim(-1, 0)
    log_det = torch.linalg.slogdet(matrix).logabsdet
    landed, found = jump_transport(field, m, x, jumps)
    torch.testing.assert_close(m.dist(landed, y), torch.zeros(3, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(found, log_det, atol=2e-6, rtol=2e-6)
    density = jump_log_prob(field, source, y, jumps, inversion=Inversion(tolerance=1e-7))
    torch.testing.assert_close(density.log_prob, source.log_prob(x) - log_det, atol=3e-6, rtol=3e-6)
    assert float(log_det.abs().max()) > 1e-4


RULES: list[tuple[str, Manifold, Callable[[], Rule]]] = [
    ("sphere", Sphere(2), lambda: sphere_rule(2, 20)),
    ("torus", FlatTorus(2), lambda: torus_rule(32)),
    ("rotations", SO3(), lambda: rotation_rule(10)),
]


def torus_rule(n: int) -> Rule:
    x, w = circle_rule(n)
    return torch.cartesian_prod(x[:, 0], x[:, 0]), (w[:, None] * w).flatten()


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize(("m", "rule"), [pytest.param(m, rule, id=name) for name, m, rule in RULES])
def test_it_integrates_to_one(m: Manifold, rule: Callable[[], Rule], steps: int) -> None:
    x, weights = rule()
    found = jump_log_prob(WavyMap(m, size_on(m)), Uniform(m), x, Jumps(steps))
    assert float((found.log_prob.exp() * weights).sum()) == pytest.approx(1, abs=1e-3)
    assert float(found.log_prob.std()) > 0.05
    assert float(found.residual.max()) <= Inversion().tolerance


def misfit(m: Manifold, log_p: Callable[[Tensor], Tensor], draws: Tensor, rule: Rule) -> float:
    """Return the chi-squared statistic, of 12 degrees at most, of means over draws against integrals of a density."""
    frequency = normal(m.embed_dim, 12, seed=7)
    nodes, weights = rule
    expected = ((log_p(nodes).exp() * weights)[:, None] * torch.sin(m.embed(nodes) @ frequency)).sum(0)
    values = torch.sin(m.embed(draws) @ frequency)
    variances, axes = torch.linalg.eigh(values.T.cov())
    off = axes.T @ (values.mean(0) - expected)
    # Combinations that hardly vary tell nothing but rounding.
    return float(len(draws) * (off.square() / variances)[variances > 1e-3 * variances.max()].sum())


@pytest.mark.parametrize(("m", "rule"), [pytest.param(m, rule, id=name) for name, m, rule in RULES])
def test_samples_tell_the_density_of_the_jumps_from_that_of_the_jumps_back(
    m: Manifold, rule: Callable[[], Rule]
) -> None:
    """Both integrate to one: the jumps back, taken for the inverse, have a density too, of other samples."""
    field, source, jumps = WavyMap(m, size_on(m)), Uniform(m), Jumps(1)
    draw = torch.Generator().manual_seed(0)
    draws, _ = jump_transport(field, m, source.sample((8000,), generator=draw, dtype=torch.float64), jumps)

    def of_jumps(x: Tensor) -> Tensor:
        return jump_log_prob(field, source, x, jumps).log_prob

    def of_jumps_back(x: Tensor) -> Tensor:
        start, log_det = jump_transport(field, m, x, jumps, start=1.0, time=0.0)
        return source.log_prob(start) + log_det

    nodes, weights = rule()
    assert float((of_jumps_back(nodes).exp() * weights).sum()) == pytest.approx(1, abs=1e-3)
    # Of chi-squared of 12 degrees the quantile of 1 - 1e-4 is 39.1.
    assert misfit(m, of_jumps, draws, (nodes, weights)) < 39.1
    assert misfit(m, of_jumps_back, draws, (nodes, weights)) > 60


def test_evaluations_are_counted_with_directional_derivatives() -> None:
    field = CountedMap(3)
    x = points(field.manifold, 5)
    found = jump_log_prob(field, Uniform(field.manifold), x, Jumps(2))
    # A guess, a check that it is right, and a Jacobian, for each jump.
    assert found.evaluations.tolist() == [2 * (1 + 1 + 1 + 3)] * 5
    assert field.count == float(found.evaluations.sum())
    bare = jump_log_prob(field, Uniform(field.manifold), x, inversion=Inversion(corrections=0))
    assert bare.evaluations.tolist() == [5.0] * 5


def test_corrections_by_jumps_back_are_steps_towards_the_inverse() -> None:
    m = SO3()
    field, x = WavyMap(m, size=0.05, shared=0.05), points(m, 20)
    counts = []
    for corrections in (0, 1):
        found = jump_inverse(field, m, x, inversion=Inversion(corrections=corrections))
        returned, _ = jump_transport(field, m, found.x)
        assert float(m.dist(returned, x).max()) < 1e-6
        counts.append(float(found.evaluations.mean()))
    assert counts[1] < counts[0]


def test_dimensions_that_differ_from_point_to_point() -> None:
    m = Ragged(Sphere(2), FlatTorus(1), 2)
    there = torch.tensor([[True, False], [True, True], [False, False]])
    x = m.pack(points(Sphere(2), 3), points(FlatTorus(1), 3, 2), there)

    class Shift(FlowMap):
        manifold = m

        def average_velocity(self, x: Tensor, s: Tensor, t: Tensor) -> Tensor:
            head, copies, mask = m.unpack(x)
            return m.proju(x, m.pack(0.1 * torch.sin(head), 0.2 * torch.sin(copies), mask))

    y, log_det = jump_transport(Shift(), m, x)
    found = jump_inverse(Shift(), m, y, inversion=Inversion(1e-8))
    torch.testing.assert_close(found.x, x, atol=1e-8, rtol=0)
    torch.testing.assert_close(found.log_det, log_det, atol=1e-6, rtol=0)
    angles = m.unpack(x)[1][..., 0]
    alone = jump_transport(Shift(), m, m.pack(m.unpack(x)[0], m.unpack(x)[1], there & False))[1]
    expected = alone + torch.where(there, torch.log1p(0.2 * torch.cos(angles)), 0.0).sum(-1)
    torch.testing.assert_close(log_det, expected, atol=1e-9, rtol=0)


def test_conditions_follow_their_points() -> None:
    m = Sphere(2)
    field, x, shift = WavyMap(m), points(m, 2, 6), normal(2, 6)
    found = jump_log_prob(field, Uniform(m), x, Jumps(2), shift=shift).log_prob
    assert found.shape == (2, 6)
    for i in (0, 5):
        alone = jump_log_prob(field, Uniform(m), x[1, i], Jumps(2), shift=shift[1, i]).log_prob
        torch.testing.assert_close(alone, found[1, i], atol=1e-6, rtol=0)


def network(m: Manifold, seed: int = 0) -> AverageVelocity:
    """Return a network none of whose weights are zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        field = AverageVelocity(m, width=24, depth=1, features=24, max_frequency=1.5)
        for weight in field.parameters():
            if not bool(weight.any()):
                torch.nn.init.normal_(weight, std=0.1)
    return field.requires_grad_(False)


class Bare(FlowMap):
    """The network, without derivatives of its own."""

    def __init__(self, m: Manifold) -> None:
        self.manifold, self.field = m, network(m)

    def average_velocity(self, x: Tensor, s: Tensor, t: Tensor, **condition: Any) -> Tensor:
        return self.field.average_velocity(x, s, t, **condition)


def test_a_flow_scores_its_own_samples_as_they_were_drawn() -> None:
    flow = rfm.Flow(Sphere(2), network(Sphere(2)))
    x, log_p = flow.sample(200, steps=2, return_log_prob=True, generator=torch.Generator().manual_seed(0))
    again = flow.sample(200, steps=2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(x, again)
    torch.testing.assert_close(flow.log_prob(x, steps=2), log_p, atol=1e-3, rtol=0)
    assert float((flow.log_prob(x) - log_p).abs().max()) > 0.01
    assert float(log_p.std()) > 0.05
    # The network's own derivatives, against those of forward mode.
    known, bare = (jump_transport(own, flow.manifold, x)[1] for own in (network(flow.manifold), Bare(flow.manifold)))
    torch.testing.assert_close(known, bare, atol=1e-5, rtol=0)


def test_where_several_points_jump_to_one_there_is_a_sentence() -> None:
    m = Euclidean(1)

    class Square(FlowMap):
        manifold = m

        def average_velocity(self, x: Tensor, s: Tensor, t: Tensor, **condition: Any) -> Tensor:
            return x * x - x

    source, x = (
        WrappedNormal(m, torch.zeros(1, dtype=torch.float64)),
        torch.tensor([[4.0], [-1.0]], dtype=torch.float64),
    )
    with pytest.raises(NotInvertibleError, match=r"could not be inverted at 1 of 2 points on Euclidean.*one-to-one"):
        jump_log_prob(Square(), source, x)
    found = jump_log_prob(Square(), source, x, check=False)
    assert found.log_prob.isnan().tolist() == [False, True]
    # One of the two points that jump to 4 is counted.
    expected = source.log_prob(torch.tensor([2.0], dtype=torch.float64)) - math.log(4)
    torch.testing.assert_close(found.log_prob[0], expected, atol=1e-6, rtol=0)
    assert float(found.residual[1]) >= 1
    with pytest.raises(NotInvertibleError, match="leave out steps"):
        rfm.Flow(m, Square(), source).log_prob(x, steps=1)


def test_refusals_say_what_to_do() -> None:
    m = Sphere(2)
    flow, x = rfm.Flow(m, network(m)), points(m, 2, dtype=torch.float32)
    with pytest.raises(ValueError, match="need a field with a second time"):
        rfm.Flow(m, wavy_field(m)).log_prob(x, steps=1)
    with pytest.raises(ValueError, match="no divergence to estimate"):
        flow.log_prob(x, steps=1, estimator=Hutchinson())
    with pytest.raises(ValueError, match="both steps and solver"):
        flow.log_prob(x, steps=1, solver=Jumps(1))
    with pytest.raises(ValueError, match="tolerance must be a positive distance"):
        Inversion(0.0)
    with pytest.raises(ValueError, match="iterations at least 1"):
        Inversion(iterations=0)
    with pytest.raises(ValueError, match="invertibility is a weight"):
        Semigroup(invertibility=-1)


def test_the_penalty_is_the_round_trip() -> None:
    m = Sphere(2)
    field, source, x_1 = network(m), Uniform(m), points(m, 64, dtype=torch.float32)
    x_0 = source.sample((64,), generator=torch.Generator().manual_seed(1))
    t = torch.linspace(0.1, 0.9, 64)

    def loss(weight: float) -> Tensor:
        return Semigroup(invertibility=weight)(field, source, x_0, x_1, t, generator=torch.Generator().manual_seed(2))

    draw = torch.Generator().manual_seed(2)
    s, end = Semigroup().spans.sample(t.shape, draw, t.dtype, t.device)
    start = rfm.GeodesicPath(m).sample(x_0, x_1, s).x_t
    expected = round_trip_loss(field, start, s, end).mean()
    torch.testing.assert_close(loss(2.0) - loss(0.0), 2 * expected, atol=1e-5, rtol=1e-4)
    back = field.jump(field.jump(start, s, end), end, s)
    torch.testing.assert_close(expected, (m.dist(start, back) / (end - s).abs()).square().mean(), atol=1e-4, rtol=1e-2)
    assert float(expected) > 0.01


@pytest.mark.slow
def test_training_with_the_penalty_makes_jumps_back_inverses() -> None:
    m, source = Sphere(2), Uniform(Sphere(2))
    missed = {}
    for weight in (0.0, 1.0):
        field = network(m).requires_grad_(True)
        objective, draw = Semigroup(invertibility=weight), torch.Generator().manual_seed(0)
        optimizer = torch.optim.Adam(field.parameters(), lr=3e-3)
        for _ in range(150):
            x_0, noise = source.sample((128,), generator=draw), torch.randn(128, 3, generator=draw)
            x_1 = m.projx(torch.tensor([0.0, 0.0, 1.0]) + 0.4 * noise)
            t = torch.rand(128, generator=draw)
            optimizer.zero_grad()
            objective(field, source, x_0, x_1, t, generator=draw).backward()
            optimizer.step()
        x = source.sample((500,), generator=draw)
        one = torch.ones(500)
        with torch.no_grad():
            missed[weight] = float(m.dist(field.jump(field.jump(x, 0 * one, one), one, 0 * one), x).mean())
    assert missed[1.0] < 0.5 * missed[0.0]


def test_a_refined_flow_has_the_density_of_its_jumps() -> None:
    """Its components set out from times of their own: the mixture integrates to one, and draws agree with it."""
    m = FlatTorus(1)
    field = network(m, seed=3)
    kernels = KernelMixture(m, points(m, 12), torch.tensor([20.0]), torch.tensor([1.0, 0.0]), Uniform(m))
    base = rfm.Flow(m, field)
    refinement = Refinement((1.0, 0.6, 0.0), (kernels, kernels, base.source), (0.2, 0.5, 0.3))
    refined = rfm.Flow(m, field, refinement=refinement)
    nodes, weights = circle_rule(400)
    log_p = refined.log_prob(nodes.float(), steps=1).double()
    assert float((log_p.exp() * weights).sum()) == pytest.approx(1, abs=2e-3)
    draws = refined.sample(4000, steps=1, generator=torch.Generator().manual_seed(0)).double()
    assert misfit(m, lambda x: refined.log_prob(x.float(), steps=1).double(), draws, (nodes, weights)) < 39.1
    assert float((log_p - base.log_prob(nodes.float(), steps=1)).abs().max()) > 0.1
