"""Conditional flows refined by kernels of the points that share a condition."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from random_fields import points, wavy_field
from test_refinement import clumps, seeded
from torch import Tensor, nn
from zoo_sources import source_of

import rfm
from manifolds import SO3, FlatTorus, Hyperboloid, Manifold, Sphere
from rfm import Flow, Hutchinson
from rfm.command_line import main as cli
from rfm.conditions import Conditions, Picture
from rfm.flow import ConditionalRefinement, Refinement, StratifiedRefinement
from rfm.integrators import RK4, Adaptive, FixedStep
from rfm.likelihood import log_prob
from rfm.networks import VelocityField
from rfm.records.descriptions import SavedFlowError, read_json, write_json
from rfm.sources import KernelMixture, Strata, StratifiedKernels, Uniform
from rfm.sources.stratified_kernels import members_of
from rfm.training import conditional_kernels
from rfm.training.conditional_refinement import refine_given
from rfm.training.weighted_points import Points, merged

STEPS = FixedStep(RK4, 4)
LABELS = (4, 0)
"""A label, of which 1 has a single point and 3 none, and a number."""


def given_field(m: Manifold, size: float = 0.3) -> Callable[..., Tensor]:
    """A field that turns with the condition; what is not known is as zero."""
    wave = wavy_field(m, size=size)

    def field(x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        return wave(x, t, None if condition is None else condition.nan_to_num(0.0).sum(-1).to(x))

    return field


def condition_of(n: int, seed: int = 0) -> Tensor:
    """Labels 0 and 2, one point of 1, and numbers."""
    label = 2.0 * torch.randint(2, (n,), generator=seeded(seed)).double()
    label[0] = 1
    return torch.stack([label, torch.randn(n, generator=seeded(seed + 1), dtype=torch.float64)], dim=-1)


def kernels_on(m: Manifold, strata: Strata, seed: int, n: int = 20) -> StratifiedKernels:
    x, c = points(m, n, seed=seed), condition_of(n)
    k = 3 + 6 * torch.rand(2, len(members_of(strata, c).point), generator=seeded(seed), dtype=torch.float64)
    return StratifiedKernels(m, x, c, strata, k, torch.tensor([0.6, 0.4]), source_of(m, 0.6))


def density_on(m: Manifold, entries: tuple[int, ...] = (0, 1)) -> StratifiedRefinement:
    """Three levels, or two of a label alone; kernels at 1, 0.8 and, of the narrowest strata, at 0.8 as well."""
    levels = Strata.of(condition_of(20), LABELS, entries, 3).levels
    kernels = [*(kernels_on(m, own, 3 + i) for i, own in enumerate(levels)), kernels_on(m, levels[0], 9)]
    depth = len(levels)
    weights = torch.zeros(depth, depth + 3, dtype=torch.float64)
    weights[0, 0], weights[0, depth], weights[0, -1] = 0.5, 0.3, 0.2
    for i in range(1, depth - 1):
        weights[i, i] = 1
    weights[-1, depth - 1], weights[-1, -2], weights[-1, -1] = 0.6, 0.1, 0.3
    return StratifiedRefinement(kernels, [*range(depth), 0], [*[1.0] * depth, 0.8], weights, source_of(m, 0.6), 0.7)


def refined(m: Manifold, size: float = 0.3) -> Flow:
    plain = Refinement([1.0, 0.0], [source_of(m, 0.6), source_of(m, 0.6)], [0.4, 0.6])
    own = ConditionalRefinement(
        [(0, 1), (0,), ()], [density_on(m), density_on(m, (0,)), plain], source_of(m, 0.6), len(LABELS)
    )
    return Flow(m, given_field(m, size), source_of(m, 0.6), refinement=own)


GIVEN = [
    pytest.param([0.0, 0.3], id="label and number"),
    pytest.param([1.0, -0.5], id="rare label"),
    pytest.param([3.0, 9.0], id="label without points, number outside"),
    pytest.param([2.0, math.nan], id="number not known"),
    pytest.param([math.nan, 0.2], id="no density for what is known"),
    pytest.param([math.nan, math.nan], id="nothing"),
]


# The density.


@pytest.mark.parametrize("given", GIVEN)
def test_the_density_given_a_condition_integrates_to_one(given: list[float]) -> None:
    m = FlatTorus(2)
    line = (torch.arange(60, dtype=torch.float64) + 0.5) * (2 * math.pi / 60) - math.pi
    x = torch.cartesian_prod(line, line)
    density = refined(m, size=1.0).log_prob(x, condition=torch.tensor(given), solver=STEPS).exp()
    assert float(density.mean()) * (2 * math.pi) ** 2 == pytest.approx(1, abs=2e-4)


@pytest.mark.parametrize("given", GIVEN[:2])
def test_it_integrates_to_one_on_the_sphere(given: list[float]) -> None:
    """Equal steps in the sine of latitude by the midpoint rule, and in longitude."""
    z = (torch.arange(60, dtype=torch.float64) + 0.5) / 30 - 1
    turn = torch.arange(90, dtype=torch.float64) * (2 * math.pi / 90)
    z, turn = torch.meshgrid(z, turn, indexing="ij")
    r = (1 - z.square()).sqrt()
    x = torch.stack([r * turn.cos(), r * turn.sin(), z], dim=-1).flatten(0, 1)
    density = refined(Sphere(2)).log_prob(x, condition=torch.tensor(given), solver=STEPS).exp()
    assert float(density.mean()) * 4 * math.pi == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("m", [Sphere(2), FlatTorus(1), SO3()], ids=str)
def test_the_density_is_the_mixture_of_flows_from_each_start(m: Manifold) -> None:
    own, field, solver = density_on(m), given_field(m), Adaptive(atol=1e-7, rtol=1e-7)
    x, c = points(m, 4, seed=9), torch.tensor([[0.0, 0.3], [1.0, -0.5], [3.0, 0.0], [2.0, 2.0]]).double()
    mass = own.part_masses(c)
    torch.testing.assert_close(mass.sum(-1), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(own.masses(4, c).sum(-1), torch.ones(4, dtype=torch.float64))
    parts = []
    for kernels, start in zip(own.kernels, own.kernel_starts, strict=True):
        assert isinstance(kernels, StratifiedKernels)
        at, integral = x, torch.zeros(4, dtype=torch.float64)
        if start < 1:
            solution = rfm.likelihood.transport(field, m, x, 1.0, start, solver, condition=c)
            assert solution.integral is not None
            at, integral = solution.final, solution.integral[-1]
        parts.append(kernels.log_prob(at, c) + integral)
    parts += [own.source.log_prob(x), log_prob(field, own.source, x, solver, condition=c)]
    expected = torch.logsumexp(torch.stack(parts, dim=-1) + mass.log(), dim=-1)
    flow = Flow(m, field, source_of(m, 0.6), refinement=ConditionalRefinement([(0, 1)], [own], own.source, 2))
    torch.testing.assert_close(flow.log_prob(x, condition=c, solver=solver), expected, atol=1e-5, rtol=1e-5)


def test_levels_share_by_their_points() -> None:
    own = density_on(Sphere(2), (0,))
    shares = own.shares(torch.tensor([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0]]).double())
    counts = torch.bincount(condition_of(20)[:, 0].long(), minlength=4).double()[[0, 1, 3]]
    torch.testing.assert_close(shares[:, 0], counts / (counts + 0.7))
    assert shares[1, 0] == pytest.approx(1 / 1.7)
    assert shares[2].tolist() == [0, 1]
    assert "1 strata of a single point lean on the rest by 41 %" in own.describe()


@pytest.mark.parametrize("m", [Sphere(2), FlatTorus(2)], ids=str)
@pytest.mark.parametrize("given", [GIVEN[0], GIVEN[1], GIVEN[3], GIVEN[5]])
def test_draws_follow_the_density(m: Manifold, given: list[float]) -> None:
    """The mean over draws of another density over the flow's is one, whatever else is drawn beside them."""
    flow, c = refined(m), torch.tensor(given).double()
    mixed = torch.stack([c, torch.tensor([2.0, 0.1]).double()])[torch.arange(1200) % 2]
    x, log_p = flow.sample(1200, condition=mixed, generator=seeded(1), solver=STEPS, return_log_prob=True)
    m.check_point(x)
    other = KernelMixture(m, points(m, 3, seed=6), torch.tensor([2.0]), torch.tensor([0.8, 0.2]), Uniform(m))
    ratio = (other.log_prob(x).double() - log_p.double()).exp()[::2]
    error = float(ratio.std()) / math.sqrt(len(ratio))
    assert error < 0.15
    assert abs(float(ratio.mean()) - 1) < 4 * error + 1e-3


def test_rows_are_scored_by_themselves_whatever_their_order() -> None:
    m, flow = Sphere(2), refined(Sphere(2))
    x, c = points(m, 12, seed=9), torch.tensor([own.values[0] for own in GIVEN]).double().repeat(2, 1)
    full = flow.log_prob(x, condition=c, solver=STEPS)
    order = torch.randperm(12, generator=seeded())
    torch.testing.assert_close(flow.log_prob(x[order], condition=c[order], solver=STEPS), full[order])
    torch.testing.assert_close(flow.log_prob(x, condition=c, solver=STEPS, batch_size=5), full)
    one = flow.log_prob(x[:1], condition=c[0], solver=STEPS)
    torch.testing.assert_close(one, full[:1])
    shaped = flow.log_prob(x.reshape(2, 6, 3), condition=c.reshape(2, 6, 2), solver=STEPS)
    torch.testing.assert_close(shaped.flatten(), full)


def test_what_is_known_decides_on_the_density() -> None:
    m, flow = Sphere(2), refined(Sphere(2))
    own = flow.refinement
    assert isinstance(own, ConditionalRefinement)
    x, nan = points(m, 3, seed=9), math.nan
    nothing = flow.log_prob(x, solver=STEPS)
    torch.testing.assert_close(nothing, flow.log_prob(x, condition=torch.full((2,), nan), solver=STEPS))
    plain = own.densities[2]
    assert isinstance(plain, Refinement)
    torch.testing.assert_close(nothing, Flow(m, flow.field, refinement=plain).log_prob(x, solver=STEPS))
    # A number alone has no density of its own here: it is that of the flow.
    number = torch.tensor([nan, 0.4])
    log_p = [f.log_prob(x, condition=number, solver=STEPS) for f in (flow, flow.base)]
    torch.testing.assert_close(*log_p)
    draws = [f.sample(5, condition=number, generator=seeded(1), solver=STEPS) for f in (flow, flow.base)]
    assert draws[0].shape == draws[1].shape
    assert flow.sample((2, 3), condition=torch.zeros(2, 3, 2)).shape == (2, 3, 3)
    assert flow.sample(0, condition=torch.zeros(2)).shape == (0, 3)


def test_estimates_scores_and_posteriors_are_of_the_refined_density() -> None:
    m, flow, c = Sphere(2), refined(Sphere(2)), torch.tensor([0.0, 0.3])
    x = points(m, 40, seed=9)
    estimate = flow.log_prob(x, condition=c, estimator=Hutchinson(8, seeded()), solver=STEPS)
    z = (estimate.log_prob - flow.log_prob(x, condition=c, solver=STEPS)) / estimate.standard_error.clamp(min=1e-6)
    assert 0.4 < float(z.square().mean()) < 2.5
    score = flow.score(x[:3], condition=c, solver=FixedStep(RK4, 8))
    u = m.proju(x[:3], torch.randn(3, 3, generator=seeded(), dtype=torch.float64))
    step = 1e-3
    up, down = (flow.log_prob(m.expmap(x[:3], s * u), condition=c, solver=FixedStep(RK4, 8)) for s in (step, -step))
    torch.testing.assert_close((score * u).sum(-1), ((up - down) / (2 * step)).to(score), atol=2e-3, rtol=2e-3)
    # Where a label has no points, nor has a start.
    unseen = torch.tensor([3.0, 0.0])
    assert bool(flow.score(x[:3], condition=unseen, solver=STEPS).isfinite().all())
    draws = flow.posterior(lambda y: 2 * y[..., 0], 300, condition=c, generator=seeded(), solver=STEPS)
    prior = flow.sample(4000, condition=c, generator=seeded(), solver=STEPS)
    mean = float((torch.softmax(2 * prior[:, 0], 0) * prior[:, 0]).sum())
    assert float(draws.points[:, 0].mean()) == pytest.approx(mean, abs=0.15)
    assert mean > float(prior[:, 0].mean()) + 0.2
    # A density of what stands at each start, with its share, is that of the flow's terms.
    [density] = [own for own in (flow.refinement,) if own is not None]
    parts = density.standing(c)
    assert sum(mass for _, mass, _ in parts) == pytest.approx(1)
    at_data = [(mass, source) for start, mass, source in parts if start == 1]
    assert all(source.sample((5,), seeded(), x.dtype).shape == (5, 3) for _, _, source in parts)
    total = sum(mass * source.log_prob(x).exp() for mass, source in at_data)
    assert bool((flow.log_prob(x, condition=c, solver=STEPS).exp() >= total * (1 - 1e-4)).all())


def test_guidance_is_of_the_flow_without_its_refinement_and_says_so() -> None:
    m = Sphere(2)
    field = VelocityField(m, width=8, depth=1, features=4, condition_dim=2, condition_labels=LABELS)
    own = ConditionalRefinement([(0, 1)], [density_on(m)], Uniform(m), 2)
    flow = Flow(m, field, refinement=own)
    c = torch.tensor([0.0, 0.3])
    with pytest.warns(UserWarning, match=r"under guidance .* call flow\.base\.sample to say so"):
        guided = flow.sample(6, condition=c, guidance=2, generator=seeded())
    torch.testing.assert_close(guided, flow.base.sample(6, condition=c, guidance=2, generator=seeded()))


# The saved flow.


def saved_example() -> Flow:
    m = Sphere(2)
    field = VelocityField(m, width=8, depth=1, features=4, condition_dim=2, condition_labels=LABELS)
    for parameter in field.parameters():
        nn.init.normal_(parameter, std=0.3, generator=seeded())
    plain = Refinement([1.0, 0.0], [kernels_plain(m), Uniform(m)], [0.4, 0.6])
    own = ConditionalRefinement([(0, 1), ()], [density_on(m), plain], Uniform(m), 2)
    return Flow(m, field, refinement=own)


def kernels_plain(m: Manifold) -> KernelMixture:
    return KernelMixture(m, points(m, 300), torch.tensor([5.0, 9.0]), torch.tensor([0.4, 0.3, 0.3]), Uniform(m))


def test_it_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    flow = saved_example()
    flow.save(tmp_path)
    again = Flow.load(tmp_path)
    x = points(Sphere(2), 12, dtype=torch.float32)
    c = torch.tensor([own.values[0] for own in GIVEN]).repeat(2, 1)
    scores = [f.log_prob(x, condition=c, solver=STEPS) for f in (flow, again)]
    assert torch.equal(*scores)
    draws = [f.sample(12, condition=c, generator=seeded(3), solver=STEPS) for f in (flow, again)]
    assert torch.equal(*draws)
    assert again.refinement is not None
    assert flow.refinement is not None
    assert again.refinement.summary() == flow.refinement.summary()


@pytest.mark.parametrize(
    ("part", "value"),
    [
        (("known",), [[0, 1]]),
        (("known",), [[0, 5], []]),
        (("entries",), "two"),
        (("densities", 0), {}),
        (("densities", 0, "weights"), [[1.0]]),
        (("densities", 0, "tau"), -1),
        (("densities", 0, "kernels", 0), {"shared": "manifold"}),
    ],
)
def test_a_damaged_record_is_refused(tmp_path: Path, part: tuple[Any, ...], value: Any) -> None:
    saved_example().save(tmp_path)
    record = read_json(tmp_path / "flow.json")
    at = record["refinement"]
    for key in part[:-1]:
        at = at[key]
    at[part[-1]] = value
    write_json(tmp_path / "flow.json", record)
    with pytest.raises(SavedFlowError):
        Flow.load(tmp_path)


def test_arguments() -> None:
    m, own = Sphere(2), density_on(Sphere(2))
    parts: dict[str, Any] = {"kernels": list(own.kernels), "levels": own.levels, "starts": own.kernel_starts}
    parts |= {"weights": own.weights, "source": own.source, "tau": own.tau}
    for name, value, message in (
        ("levels", [0, 1], "a level and a start for each of the 4 kernels"),
        ("levels", [0, 1, 1, 0], "the last one stratum of all points"),
        ("starts", [1.0, 0.8, 1.0, 0.8], "each level needs kernels at time 1"),
        ("weights", own.weights * 0.9, "sum to 1 in each level"),
        ("weights", own.weights.flip(0), "weight in other levels than their own"),
        ("tau", 0.0, "tau must be"),
    ):
        with pytest.raises(ValueError, match=message):
            StratifiedRefinement(**(parts | {name: value}))
    with pytest.raises(ValueError, match="for entries \\[\\] must be"):
        ConditionalRefinement([()], [own], own.source, 2)
    named = Conditions.of({"kind": ["a", "b"]})
    with pytest.raises(ValueError, match="made for 2 entries, conditions kind have 1"):
        Flow(m, given_field(m), conditions=named, refinement=ConditionalRefinement([(0, 1)], [own], own.source, 2))
    named = Conditions.of({"kind": ["a", "b"], "size": [1.0, 2.0]})
    with pytest.raises(ValueError, match=r"made for \[4, 0\] labels"):
        Flow(m, given_field(m), conditions=named, refinement=ConditionalRefinement([(0, 1)], [own], own.source, 2))


# The choice.


def labelled(n: int, seed: int) -> Points:
    """Clumps, of which each has one of four labels; label 3 is rare."""
    x = clumps(n, seed)
    centres = points(Sphere(2), 40, seed=0)
    label = (x @ centres.T).argmax(-1) % 3
    label[: max(1, n // 300)] = 3
    return Points(x, label.double()[:, None])


class GivenField(nn.Module):
    """A field that depends on the condition a little, and takes NaN for not known."""

    reads_unknown = True
    condition_labels = (4,)

    def __init__(self) -> None:
        super().__init__()
        self.velocity = given_field(Sphere(2), 0.5)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.velocity(x, t, condition)


@pytest.fixture(scope="module")
def chosen_flow() -> Flow:
    flow = Flow(Sphere(2), GivenField())
    refine_given(flow, labelled(600, 1), labelled(160, 11))
    return flow


def test_labels_are_refined_on_points_that_chose_nothing(chosen_flow: Flow) -> None:
    own = chosen_flow.refinement
    assert isinstance(own, ConditionalRefinement)
    assert own.known == ((0,), ())
    test = labelled(300, 21)
    nll = -float(chosen_flow.log_prob(test.x, condition=test.condition).mean())
    assert nll < -float(chosen_flow.base.log_prob(test.x, condition=test.condition).mean()) - 1
    assert own.validation_nll["refined"] == pytest.approx(nll, abs=0.4)
    # What a label says is worth something, and is said in words.
    assert nll < -float(chosen_flow.log_prob(test.x).mean()) - 0.3
    told = chosen_flow.refinement_report
    assert told.startswith("given entry 0: kernels of 4 strata at time 1 (")
    assert "given nothing: refined by sources at time 1" in told
    kernels = conditional_kernels(Sphere(2), labelled(600, 1), labelled(160, 11), (4,))
    assert test.condition is not None
    assert nll < -float(kernels.kernel_log_prob(test.x, test.condition).mean()) + 0.05


def test_points_carried_back_are_those_of_their_own_labels(chosen_flow: Flow) -> None:
    """Kernels before time 1 stand where the flow given the label takes the points of that label."""
    own = chosen_flow.refinement
    assert isinstance(own, ConditionalRefinement)
    density = own.densities[0]
    assert isinstance(density, StratifiedRefinement)
    late = [k for k, start in zip(density.kernels, density.kernel_starts, strict=True) if start < 1]
    first = density.kernels[0]
    assert isinstance(first, StratifiedKernels)
    for kernels in late:
        assert isinstance(kernels, StratifiedKernels)
        there = rfm.integrate(chosen_flow.field, Sphere(2), kernels.points, (0.98, 1.0), condition=kernels.condition)
        torch.testing.assert_close(there.final, first.points, atol=1e-4, rtol=0)


def test_kernels_in_a_number_beside_one_kernel_in_it() -> None:
    """Points whose place follows a number: both kernel densities find it, and the adaptive ones do not lose to one."""
    m = FlatTorus(1)

    def data(n: int, seed: int) -> Points:
        z = 4 * torch.rand(n, 1, generator=seeded(seed), dtype=torch.float64) - 2
        noise = 0.2 * torch.randn(n, 1, generator=seeded(seed + 1), dtype=torch.float64)
        return Points(m.projx(z + noise), z)

    test = data(400, 21)
    assert test.condition is not None
    nll = {}
    for one_width in (False, True):
        density = conditional_kernels(m, data(500, 1), data(200, 11), (0,), one_width=one_width)
        nll[one_width] = -float(density.kernel_log_prob(test.x, test.condition).mean())
        line = (torch.arange(4000, dtype=torch.float64) + 0.5)[:, None] * (2 * math.pi / 4000) - math.pi
        total = density.kernel_log_prob(line, torch.full((4000, 1), 0.7)).exp().mean() * 2 * math.pi
        assert float(total) == pytest.approx(1, abs=1e-3)
        assert density.summary()["knots"][0] >= 4
    truth = 0.5 * math.log(2 * math.pi * math.e * 0.04)
    assert truth - 0.1 < nll[False] < truth + 0.35
    assert nll[False] < nll[True] + 0.03


def test_where_the_number_says_nothing_it_costs_nothing() -> None:
    m = Sphere(2)
    train, held, test = (
        Points(clumps(n, s), torch.randn(n, 1, generator=seeded(s), dtype=torch.float64))
        for n, s in ((400, 1), (150, 11), (300, 21))
    )
    assert test.condition is not None
    density = conditional_kernels(m, train, held, (0,))
    plain = KernelMixture.adaptive(m, train.x, held.x)
    nll = -float(density.kernel_log_prob(test.x, test.condition).mean())
    assert nll < -float(plain.log_prob(test.x).mean()) + 0.1


def test_conditions_that_are_not_known_are_left_out_of_the_kernels() -> None:
    train, held = labelled(300, 1), labelled(100, 11)
    assert train.condition is not None
    hidden = train.condition.clone()
    hidden[200:] = math.nan
    some = conditional_kernels(Sphere(2), Points(train.x, hidden), held, (4,))
    few = conditional_kernels(Sphere(2), train.take(torch.arange(200)), held, (4,))
    x, c = clumps(20, 21), torch.zeros(20, 1)
    torch.testing.assert_close(some.kernel_log_prob(x, c), few.kernel_log_prob(x, c))
    with pytest.raises(ValueError, match="0 training and 100 validation points have a condition"):
        conditional_kernels(Sphere(2), Points(train.x, torch.full_like(hidden, math.nan)), held, (4,))


def test_repeats_of_one_condition_are_one_point_of_more_weight() -> None:
    x = torch.tensor([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [0.0, 1.0]])
    found = merged(Points(x, torch.tensor([[1.0], [1.0], [math.nan], [1.0]])))
    assert found.weights is not None
    assert found.condition is not None
    cells = zip(found.x.tolist(), found.condition.tolist(), found.weights.tolist(), strict=True)
    rows = {(*a, str(c)): w for a, [c], w in cells}
    assert rows == {(0.0, 1.0, "1.0"): 0.25, (1.0, 2.0, "1.0"): 0.5, (1.0, 2.0, "nan"): 0.25}


def plain_field(x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
    return 0 * x


@pytest.mark.parametrize(
    ("flow", "width", "told"),
    [
        (Flow(Sphere(2), plain_field), 4, "conditional on 4 numbers, and points that share more than 3 are too few"),
        (Flow(Hyperboloid(2), plain_field, source_of(Hyperboloid(2))), 1, "no smoothing kernel on Hyperboloid"),
        (Flow(Sphere(2), plain_field, conditions=Conditions((Picture("eye", 1),))), 1, "no kernel in those"),
    ],
    ids=["numbers", "no kernel", "picture"],
)
def test_what_is_not_refined_says_why(flow: Flow, width: int, told: str) -> None:
    data, held = (Points(points(flow.manifold, n), torch.zeros(n, width)) for n in (80, 50))
    refine_given(flow, data, held)
    assert flow.refinement is None
    assert flow.refinement_report.startswith("not refined: ")
    assert told in flow.refinement_report


def test_a_label_with_few_validation_points_known_is_left_to_the_flow() -> None:
    data, held = labelled(80, 1), labelled(60, 11)
    assert held.condition is not None
    held.condition[30:] = math.nan
    flow = Flow(Sphere(2), GivenField())
    refine_given(flow, data, held)
    assert "given entry 0: not refined: 30 different validation points are too few" in flow.refinement_report
    own = flow.refinement
    assert isinstance(own, ConditionalRefinement)
    assert own.known == ((),)
    x, c = clumps(4, 21), torch.zeros(1)
    torch.testing.assert_close(flow.log_prob(x, condition=c), flow.base.log_prob(x, condition=c))


# In a fit.


def test_a_conditional_fit_ends_with_a_refinement_that_is_saved_and_resumed(tmp_path: Path) -> None:
    m, data = Sphere(2), labelled(700, 1)
    names = [("a", "b", "c", "d")[int(i)] for i in data.condition[:, 0]]  # type: ignore[index]
    settings: dict[str, Any] = {"steps": 30, "batch_size": 64, "progress": False, "device": "cpu", "validation": 0.2}
    settings["condition"] = {"kind": names}
    settings["field"] = VelocityField(m, width=16, depth=1, features=8, condition_dim=1, condition_labels=[4])
    flow = rfm.fit(data.x, m, out=tmp_path, **settings)
    assert isinstance(flow.refinement, ConditionalRefinement)
    assert flow.history[-1]["refinement_seconds"] > 0
    test = labelled(200, 21)
    better = flow.log_prob(test.x, condition=test.condition) - flow.base.log_prob(test.x, condition=test.condition)
    assert float(better.mean()) > 1
    again = rfm.fit(data.x, m, out=tmp_path, resume=True, **settings)
    assert torch.equal(again.log_prob(test.x, condition={"kind": "b"}), flow.log_prob(test.x, condition={"kind": "b"}))
    with pytest.raises(ValueError, match="kind has no label 'e'"):
        flow.sample(3, condition={"kind": "e"})
    plain = rfm.fit(data.x, m, refine=False, **settings)
    assert plain.refinement is None
    assert plain.refinement_report == ""


def test_the_command_line_tells_of_conditional_kernels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = VelocityField.__init__.__defaults__
    assert defaults is not None
    monkeypatch.setattr(VelocityField.__init__, "__defaults__", (16, 1, 16, *defaults[3:]))
    data = labelled(600, 1)
    assert data.condition is not None
    x = torch.rad2deg(torch.stack([data.x[:, 2].asin(), torch.atan2(data.x[:, 1], data.x[:, 0])], -1)).tolist()
    rows = [f"{a:.4f},{b:.4f},k{int(c)}" for (a, b), c in zip(x, data.condition[:, 0], strict=True)]
    (tmp_path / "t.csv").write_text("\n".join(["latitude,longitude,kind", *rows]))

    def told(*arguments: object) -> str:
        assert cli.main([*map(str, arguments), "--quiet"]) == 0
        return capsys.readouterr().out

    fit = ["fit", tmp_path / "t.csv", "--manifold", "sphere", "--condition", "kind", "--steps", 20]
    record = json.loads(told(*fit, "--batch-size", 32, "--device", "cpu", "--out", tmp_path / "a", "--json"))
    assert record["refinement"]["densities"]["0"]["tau"] > 0
    assert record["refinement_report"].startswith("given kind: kernels of 4 strata at time 1")
    scores = json.loads(told("evaluate", tmp_path / "a", "--json"))
    nll = {name: row["mean"] for name, row in scores["test_nll_nats"].items()}
    assert nll["flow with conditions"] < nll["flow with conditions, unrefined"] - 1
    assert nll["kernels per condition"] < nll["one kernel in the condition"] + 0.3
    assert scores["best_conditional_kernel"] in nll
    assert scores["conditional_flow_minus_best_kernel_nats"]["interval_95"][0] < 0.2
    out = ["sample", tmp_path / "a", "-n", 20, "--condition", "kind=k1", "--seed", 1]
    assert told(*out) == told(*out)
    assert cli.main([*map(str, out), "--quiet", "--guidance", "2"]) == 0
    assert "samples under guidance are of the flow without its refinement" in capsys.readouterr().err
    assert len(told("log-prob", tmp_path / "a", tmp_path / "t.csv").splitlines()) == 601


def test_numbers_that_come_round_are_known_as_one() -> None:
    """Two entries of the vectors, one column: sets of what is known are sets of columns, and so are their names."""
    g = torch.Generator().manual_seed(0)
    hour = torch.rand(500, generator=g) * 24
    x = FlatTorus(1).projx((hour / 24 * 2 * math.pi)[:, None] + 0.3 * torch.randn(500, 1, generator=g))
    columns = {"hour": hour.tolist(), "speed": torch.rand(500, generator=g).tolist()}
    conditions = Conditions.of(columns, periods={"hour": 24.0})
    field = VelocityField(FlatTorus(1), width=16, depth=1, features=8, condition_dim=3)
    flow = rfm.fit(
        x, FlatTorus(1), condition=columns, conditions=conditions, field=field, steps=5, batch_size=32, progress=False
    )
    assert isinstance(flow.refinement, ConditionalRefinement)
    for known in ("given hour, speed: ", "given hour: ", "given speed: ", "given nothing: "):
        assert flow.refinement_report.count(known) == 1
    noon = flow.log_prob(torch.tensor([[math.pi - 0.01]]), condition={"hour": 12.0, "speed": 0.5})
    midnight = flow.log_prob(torch.tensor([[math.pi - 0.01]]), condition={"hour": 0.0, "speed": 0.5})
    assert float(noon) > float(midnight) + 1
