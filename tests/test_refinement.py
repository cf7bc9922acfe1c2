"""Flows that start at a time, and flows refined by sources along them."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from manifold_zoo import ZOO
from random_fields import points, wavy_field
from torch import Tensor, nn
from zoo_sources import source_of

import rfm
from manifolds import SO3, FlatTorus, FractionalCoordinates, Hyperboloid, Manifold, Sphere
from rfm import Flow, Hutchinson
from rfm.command_line import main as cli
from rfm.conditions import Conditions
from rfm.flow import Refinement
from rfm.flow.progress import training_bar
from rfm.integrators import RK4, Adaptive, FixedStep
from rfm.likelihood import log_prob
from rfm.metrics import paired_difference
from rfm.networks import VelocityField
from rfm.records.descriptions import SavedFlowError, read_json, write_json
from rfm.sources import KernelMixture, Uniform, VonMisesFisher, WrappedNormal, likeliest_weights
from rfm.sources.folds import folds_of, places_of
from rfm.steering import EnergyGuidance
from rfm.training.checkpoint import Checkpoint, Validation
from rfm.training.mixture_choice import Choice, Clusters, cross_validated, stacked
from rfm.training.refinement import candidates, refine, solver_error
from rfm.training.weighted_points import Points, merged, thinned

STEPS = FixedStep(RK4, 4)
STARTS = (1.0, 0.8, 0.4, 0.0)
KERNELS = [pytest.param(make, id=name) for name, make in ZOO if make().kernel is not None]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def kernels(m: Manifold, seed: int, concentrations: tuple[float, ...] = (3.0, 9.0)) -> KernelMixture:
    """A mixture about a few points, one width for all of them and one for each."""
    centres = points(m, 5, seed=seed)
    k = torch.tensor(concentrations, dtype=torch.float64)[:, None] * torch.linspace(1, 2, 5, dtype=torch.float64)
    k[0] = concentrations[0]
    return KernelMixture(m, centres, k, torch.tensor([0.4, 0.3, 0.3], dtype=torch.float64), source_of(m, 0.6))


def refined(m: Manifold, size: float = 0.3) -> Flow:
    sources = [kernels(m, 3), kernels(m, 4), kernels(m, 5), source_of(m, 0.6)]
    refinement = Refinement(STARTS, sources, [0.3, 0.2, 0.4, 0.1])
    if isinstance(m, FractionalCoordinates):
        # A turn round the cell has length 1, not 2 pi.
        size = size / (2 * math.pi)
    return Flow(m, wavy_field(m, size=size), source_of(m, 0.6), refinement=refinement)


# Starts.


@pytest.mark.parametrize("m", [Sphere(2), FlatTorus(2), SO3()], ids=str)
def test_a_flow_that_starts_at_a_time_is_the_rest_of_the_flow(m: Manifold) -> None:
    field, source = wavy_field(m), kernels(m, 1)
    flow = Flow(m, field, source, start=0.7)
    x, log_p = flow.sample(7, generator=seeded(), return_log_prob=True)
    x_s = source.sample(7, generator=seeded(), dtype=torch.get_default_dtype())
    torch.testing.assert_close(x, flow.trajectory(x_s, (0.7, 1.0))[-1], atol=1e-5, rtol=0)
    torch.testing.assert_close(flow.log_prob(x), log_p, atol=1e-4, rtol=1e-4)
    # The last 0.3 of a field, slowed down, from time 0 to 1.
    slow = Flow(m, lambda y, t: 0.3 * field(y, 0.7 + 0.3 * t), source)
    torch.testing.assert_close(slow.log_prob(x), log_p, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("start", [-0.1, 1.0, math.nan, "late"])
def test_a_start_is_a_time_before_the_data(start: float) -> None:
    with pytest.raises(ValueError, match=r"Flow: start must be"):
        Flow(Sphere(2), wavy_field(Sphere(2)), start=start)


# The mixture.


@pytest.mark.parametrize("make", KERNELS)
def test_the_density_is_the_mixture_of_flows_from_each_start(make: Callable[[], Manifold]) -> None:
    m = make()
    flow = refined(m)
    assert flow.refinement is not None
    x, solver = points(m, 3, seed=9), Adaptive(atol=1e-5, rtol=1e-5)
    parts = []
    for start, source in zip(STARTS, flow.refinement.sources, strict=True):
        one = source.log_prob(x) if start == 1 else log_prob(flow.field, source, x, solver, start=start)
        parts.append(one)
    expected = torch.logsumexp(torch.stack(parts) + flow.refinement.weights.log()[:, None], dim=0)
    torch.testing.assert_close(flow.log_prob(x, solver=solver), expected, atol=3e-4, rtol=1e-4)


@pytest.mark.parametrize("make", KERNELS)
def test_draws_follow_the_density(make: Callable[[], Manifold]) -> None:
    """The mean over draws of another density over the flow's is one: draws are exact, and the density normalised."""
    m = make()
    flow = refined(m)
    own = flow.refinement
    assert own is not None
    x, log_p = flow.sample(400, generator=seeded(1), solver=FixedStep(RK4, 2), return_log_prob=True)
    m.check_point(x)
    assert log_p.shape == (400,)
    other = own.sources[2]
    ratio = (other.log_prob(x).double() - log_p.double()).exp()
    error = float(ratio.std()) / math.sqrt(len(ratio))
    assert error < 0.1
    assert float(ratio.std()) > 0.02
    assert abs(float(ratio.mean()) - 1) < 4 * error + 1e-3


def test_the_density_integrates_to_one_by_quadrature() -> None:
    m = FlatTorus(2)
    line = (torch.arange(120, dtype=torch.float64) + 0.5) * (2 * math.pi / 120) - math.pi
    x = torch.cartesian_prod(line, line)
    density = refined(m, size=1.0).log_prob(x, solver=FixedStep(RK4, 8)).exp()
    assert float(density.mean()) * (2 * math.pi) ** 2 == pytest.approx(1, abs=1e-4)


def test_shapes_and_batches() -> None:
    m = Sphere(2)
    flow = refined(m)
    x, log_p = flow.sample((2, 3), generator=seeded(), return_log_prob=True)
    assert x.shape == (2, 3, 3)
    assert log_p.shape == (2, 3)
    torch.testing.assert_close(flow.log_prob(x, batch_size=2), log_p, atol=1e-5, rtol=1e-5)
    assert flow.sample(0).shape == (0, 3)
    counted: list[int] = []
    drawn = flow.sample(50, batch_size=8, progress=counted.append)
    assert sum(counted) == 50
    for own in (flow, Flow(m, flow.field, refinement=Refinement([1.0], [kernels(m, 3)], [1.0]))):
        counted.clear()
        together = own.log_prob(drawn, solver=STEPS)
        in_parts = own.log_prob(drawn, solver=STEPS, batch_size=8, progress=counted.append)
        torch.testing.assert_close(in_parts, together, atol=1e-5, rtol=1e-5)
        assert sum(counted) == 50
    assert flow.log_prob(drawn[:0]).shape == (0,)
    estimate = flow.log_prob(drawn, solver=STEPS, batch_size=8, estimator=Hutchinson(4, seeded()))
    assert [len(part) for part in estimate] == [50, 50]
    before = torch.get_rng_state()
    assert torch.equal(flow.sample(9, generator=seeded(2)), flow.sample(9, generator=seeded(2)))
    assert torch.equal(before, torch.get_rng_state())


def test_a_refinement_by_its_own_source_is_the_flow() -> None:
    m = Sphere(2)
    plain = Flow(m, wavy_field(m))
    same = Flow(m, plain.field, refinement=Refinement([0.0], [Uniform(m)], [1.0]))
    x = points(m, 5)
    torch.testing.assert_close(same.log_prob(x), plain.log_prob(x))
    assert same.base.refinement is None
    torch.testing.assert_close(same.base.log_prob(x), plain.log_prob(x))
    assert plain.base is plain


def test_estimated_log_densities_agree_within_their_errors() -> None:
    m = Sphere(2)
    flow = refined(m)
    x = points(m, 60, seed=9)
    estimate = flow.log_prob(x, estimator=Hutchinson(8, seeded()))
    z = (estimate.log_prob - flow.log_prob(x)) / estimate.standard_error
    assert 0.5 < float(z.square().mean()) < 2
    drawn, scored = flow.sample(3, return_log_prob=True, estimator=Hutchinson(2, seeded()))
    assert scored.log_prob.shape == scored.standard_error.shape == (3,)
    m.check_point(drawn)


def test_sources_that_know_of_no_condition_refuse_one() -> None:
    m = Sphere(2)
    field = VelocityField(m, width=8, depth=1, features=4, condition_dim=1)
    flow = Flow(m, field, refinement=Refinement([1.0], [Uniform(m)], [1.0]))
    x = points(m, 2, dtype=torch.float32)
    for call, name in (
        (lambda: flow.log_prob(x, condition=torch.zeros(1)), "log_prob"),
        (lambda: flow.sample(2, condition=torch.zeros(1)), "sample"),
    ):
        with pytest.raises(ValueError, match=f"use flow.base.{name}"):
            call()
    with pytest.raises(ValueError, match=r"use flow\.base\.on\(manifold\)"):
        flow.on(Sphere(3))
    conditions = Conditions.of({"magnitude": [1.0, 2.0]})
    with pytest.raises(ValueError, match="conditional on magnitude; leave the refinement out"):
        Flow(m, field, conditions=conditions, refinement=flow.refinement)


def test_steered_samples_are_of_the_flow_without_its_refinement_and_say_so() -> None:
    m = Sphere(2)
    flow, energy = refined(m), [EnergyGuidance(m, lambda x: x[..., 2], through_field=False)]
    with pytest.warns(UserWarning, match=r"under an energy .* call flow\.base\.sample to say so"):
        steered = flow.sample(5, steering=energy, generator=seeded())
    torch.testing.assert_close(steered, flow.base.sample(5, steering=energy, generator=seeded()))


@pytest.mark.parametrize(
    ("starts", "weights", "message"),
    [
        ((0.5, 0.8), (0.5, 0.5), "strictly descending"),
        ((0.8, 0.8), (0.5, 0.5), "strictly descending"),
        ((1.2, 0.8), (0.5, 0.5), r"a time in \[0, 1\]"),
        ((1.0, 0.8), (0.5, 0.6), "sum 1"),
        ((1.0, 0.8), (1.0, 0.0), "leave out zeros"),
        ((1.0,), (0.5, 0.5), "one source and one weight for each of the 1 starts"),
        ((), (), "strictly descending"),
    ],
)
def test_arguments_of_a_refinement(starts: tuple[float, ...], weights: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Refinement(starts, [Uniform(Sphere(2))] * len(weights), weights)


def test_sources_live_on_the_manifold_of_the_flow() -> None:
    with pytest.raises(ValueError, match=r"the source at time 1 lives on Sphere"):
        Flow(Sphere(2), wavy_field(Sphere(2)), refinement=Refinement([1.0], [Uniform(Sphere(3))], [1.0]))


# The saved flow.


def test_a_refined_flow_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    m = Sphere(2)
    field = VelocityField(m, width=8, depth=1, features=4)
    for parameter in field.parameters():
        nn.init.normal_(parameter, std=0.3, generator=seeded())
    source = VonMisesFisher(m, torch.tensor([0.0, 0.0, 1.0]), 2.0)
    centres = points(m, 300)
    k = torch.linspace(5, 50, 600, dtype=torch.float64).reshape(2, 300)
    broad = KernelMixture(m, centres, k, torch.tensor([0.5, 0.4, 0.1]), source)
    told = {"flow": 1.0, "kernels": 0.5, "refined": 0.25}
    own = Refinement([1.0, 0.9, 0.0], [broad, kernels(m, 2), source], [0.5, 0.3, 0.2], told)
    flow = Flow(m, field, source, refinement=own)
    flow.refinement_report = "refined"
    flow.save(tmp_path)
    again = Flow.load(tmp_path)
    assert again.refinement is not None
    assert again.refinement.sources[2] is again.source
    assert (again.refinement.validation_nll, again.refinement_report) == (told, "refined")
    x = points(m, 4, dtype=torch.float32)
    assert torch.equal(again.log_prob(x), flow.log_prob(x))
    assert torch.equal(again.base.log_prob(x), flow.base.log_prob(x))
    assert torch.equal(again.sample(5, generator=seeded()), flow.sample(5, generator=seeded()))
    record = read_json(tmp_path / "flow.json")
    record["refinement"]["weights"] = [0.5, 0.5]
    write_json(tmp_path / "flow.json", record)
    with pytest.raises(SavedFlowError, match="refinement is damaged"):
        Flow.load(tmp_path)


def test_a_start_is_saved_and_flows_of_the_first_format_are_read(tmp_path: Path) -> None:
    m = Sphere(2)
    flow = Flow(m, VelocityField(m, width=8, depth=1, features=4), start=0.5)
    flow.save(tmp_path)
    assert Flow.load(tmp_path).start == 0.5
    record = read_json(tmp_path / "flow.json")
    for key in ("start", "refinement", "refinement_report"):
        del record[key]
    write_json(tmp_path / "flow.json", record | {"version": 1})
    old = Flow.load(tmp_path)
    assert (old.start, old.refinement, old.refinement_report) == (0.0, None, "")


# The choice.


def clumps(n: int, seed: int, m: Manifold | None = None) -> Tensor:
    """Points about 40 places, whose spread varies by a factor of a hundred."""
    m = Sphere(2) if m is None else m
    centres = points(m, 40, seed=0)
    spread = torch.logspace(-3, -1, 40, dtype=torch.float64)
    index = torch.randint(40, (n,), generator=seeded(seed))
    noise = torch.randn(n, *m.event_shape, generator=seeded(seed + 1), dtype=torch.float64)
    x = centres[index]
    return m.expmap(x, m.proju(x, noise * m.lift(spread[index])))


def equal_shares(number: Tensor, grouped: bool = False) -> Clusters:
    return Clusters(torch.full((len(number),), 1 / len(number), dtype=torch.float64), number, grouped)


def best_of_steps(log_p: Tensor, place: Tensor) -> Choice:
    clusters = equal_shares(place)
    return stacked(cross_validated(log_p, clusters), clusters)


def test_weights_of_few_points_stay_near_equal_ones_and_of_many_do_not() -> None:
    """A hundred components of equal worth: what a few points prefer among them is noise."""
    log_p = 0.5 * torch.randn(2000, 100, generator=seeded(), dtype=torch.float64)
    few = log_p[:30]
    chosen_few = best_of_steps(few, torch.arange(30))
    likeliest = likeliest_weights(few, None, 300)
    entropy = [float(-(w * w.clamp(min=1e-300).log()).sum()) for w in (chosen_few.weights, likeliest)]
    assert entropy[0] > entropy[1] + 0.5
    fresh = log_p[30:]
    nll = [float(-torch.logsumexp(fresh + w.log(), -1).mean()) for w in (chosen_few.weights, likeliest)]
    assert nll[0] < nll[1]
    # What is left out of the choice tells what it is worth on new points, where the chosen points themselves flatter.
    inside = float(-torch.logsumexp(few + chosen_few.weights.log(), -1).mean())
    assert inside < nll[0]
    assert abs(chosen_few.nll - nll[0]) < 0.1
    log_p[:, 0] += 3
    assert float(best_of_steps(log_p, torch.arange(2000)).weights[0]) > 0.8


def test_equal_points_share_a_fold() -> None:
    x = torch.tensor([0.0, 1.0, -0.0, 2.0, 1.0, 3.0, 4.0, 5.0])[:, None]
    fold = folds_of(places_of(x))
    assert fold[0] == fold[2]
    assert fold[1] == fold[4]
    assert sorted(fold.unique().tolist()) == [0, 1, 2, 3, 4]


def test_the_choice_is_never_behind_any_that_it_is_made_from() -> None:
    """On the points left out; and the mixture of two that are good in different places is better than both."""
    left = torch.where(torch.arange(200) < 100, -1.0, -4.0).double()
    clusters = equal_shares(torch.arange(200))
    first, second = torch.tensor([1.0, 0.0]).double(), torch.tensor([0.0, 1.0]).double()
    choices = [Choice(first, left, -float(left.mean())), Choice(second, left.flip(0), -float(left.mean()))]
    both = stacked(choices, clusters)
    assert both.nll < choices[0].nll - 0.5
    torch.testing.assert_close(both.weights, torch.full((2,), 0.5, dtype=torch.float64))
    worse = Choice(second, left - 1e-3, 1e-3 - float(left.mean()))
    assert stacked([choices[0], worse], clusters).nll <= choices[0].nll


def test_gains_are_clustered_by_place() -> None:
    """What decides whether a flow is refined: four times the same points are no more information."""
    values = torch.randn(30, generator=seeded(), dtype=torch.float64)
    shares, none = torch.full((30,), 1 / 30, dtype=torch.float64), torch.zeros(30, dtype=torch.float64)
    expected = float(values.std()) / math.sqrt(30)
    assert paired_difference(values, none, torch.arange(30), shares).standard_error == pytest.approx(expected)
    four = paired_difference(values.repeat(4), none.repeat(4), torch.arange(30).repeat(4), shares.repeat(4) / 4)
    assert four.standard_error == pytest.approx(expected)


def test_repeats_are_one_point_of_more_weight() -> None:
    x = torch.tensor([[1.0, 2.0], [-0.0, 1.0], [1.0, 2.0], [0.0, 1.0], [1.0, 2.0]])
    found = merged(Points(x, None, torch.tensor([1.0, 2.0, 3.0, 0.0, 4.0])))
    assert found.weights is not None
    assert {tuple(a): b for a, b in zip(found.x.tolist(), found.weights.tolist(), strict=True)} == {
        (1.0, 2.0): pytest.approx(0.8),
        (0.0, 1.0): pytest.approx(0.2),
    }
    alone = Points(x[:2])
    assert merged(alone) is alone


def test_repeats_are_one_neighbour_also_where_they_are_carried_to() -> None:
    """The refinement by repeated points is that by points with weights."""
    m, x, held = Sphere(2), clumps(300, 1), Points(clumps(200, 11))
    repeated, weighted = (Flow(m, wavy_field(m, size=0.5)) for _ in range(2))
    refine(repeated, Points(torch.cat([x, x[:100]])), held)
    refine(weighted, Points(x, None, torch.where(torch.arange(300) < 100, 2.0, 1.0)), held)
    test = clumps(50, 21)
    torch.testing.assert_close(repeated.log_prob(test), weighted.log_prob(test), atol=1e-4, rtol=1e-4)


def test_kernels_alone_are_the_refinement_where_nothing_is_gained_by_the_flow() -> None:
    """A field that does nothing: kernels at each time are those at time 1, and the choice is about what they are."""
    m = Sphere(2)
    flow = Flow(m, lambda x, t: 0 * x)
    refine(flow, Points(clumps(600, 1)), Points(clumps(100, 11)))
    own = flow.refinement
    assert own is not None
    assert own.validation_nll["refined"] <= own.validation_nll["kernels"]
    kernels_alone = KernelMixture.adaptive(m, clumps(600, 1), clumps(100, 11))
    test = clumps(300, 21)
    assert -float(flow.log_prob(test).mean()) < -float(kernels_alone.log_prob(test).mean()) + 0.02


def test_the_share_that_is_done_is_reported() -> None:
    m = Sphere(2)
    shares: list[float] = []
    refine(Flow(m, wavy_field(m, size=0.5)), Points(clumps(100, 1)), Points(clumps(60, 11)), shares.append)
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)
    assert len(shares) > 5


@pytest.fixture(scope="module")
def chosen_flow() -> Flow:
    m = Sphere(2)
    flow = Flow(m, wavy_field(m, size=0.5))
    refine(flow, Points(clumps(600, 1)), Points(clumps(200, 11)))
    return flow


def test_clumps_are_refined_on_points_that_chose_nothing(chosen_flow: Flow) -> None:
    own = chosen_flow.refinement
    assert own is not None
    test = clumps(300, 21)
    nll = -float(chosen_flow.log_prob(test).mean())
    assert nll < -float(chosen_flow.base.log_prob(test).mean()) - 1
    # The validation points tell what it is worth elsewhere, for they are scored by weights that others chose.
    assert own.validation_nll["refined"] == pytest.approx(nll, abs=0.3)
    kernels_alone = KernelMixture.adaptive(Sphere(2), clumps(600, 1), clumps(200, 11))
    assert nll < -float(kernels_alone.log_prob(test).mean()) + 0.05
    told = chosen_flow.refinement_report
    assert told.startswith("refined by sources at time 1 (")
    assert f"validation NLL {own.validation_nll['refined']:.3f} nats, of the flow alone" in told


def test_the_solver_errs_by_less_than_a_tenth_of_every_kernel(chosen_flow: Flow) -> None:
    """Also against a solve of far tighter tolerance; and the density is then the same to a few hundredths of a nat."""
    own, m = chosen_flow.refinement, chosen_flow.manifold
    assert own is not None
    tight = Adaptive(atol=1e-11, rtol=1e-11)
    x = clumps(200, 21)
    for start, source in zip(own.starts, own.sources, strict=True):
        if 0 < start < 1 and isinstance(source, KernelMixture):
            at, truth = (rfm.integrate(chosen_flow.field, m, x, (1.0, start), s).final for s in (None, tight))
            width = float(source.concentrations.max()) ** -0.5
            assert float((at - truth).norm(dim=-1).max()) < 0.1 * width
    difference = chosen_flow.log_prob(x) - chosen_flow.log_prob(x, solver=tight)
    assert float(difference.abs().max()) < 0.05


def test_kernels_narrower_than_the_solvers_error_allows_are_widened() -> None:
    m, coarse = Sphere(2), FixedStep(RK4, 1)
    field = wavy_field(m, size=2.0)
    train = clumps(300, 1)
    [last] = candidates(field, Uniform(m), [0.5], Points(train), clumps(50, 11), method=coarse)
    assert last.kernels is not None
    error = solver_error(field, m, thinned(Points(last.kernels.points), 64).x, 0.5, coarse)
    assert error > 1e-3
    assert float(last.kernels.concentrations.max()) <= 1.001 * (0.1 / error) ** 2


def test_candidates_are_densities_of_flows_from_their_starts() -> None:
    m = Sphere(2)
    field, source, x = wavy_field(m), Uniform(m), clumps(20, 11)
    found = candidates(field, source, [1.0, 0.7, 0.0], Points(clumps(100, 1)), x)
    assert [c.start for c in found] == [1.0, 0.7, 0.0]
    for c in found:
        weights = torch.rand(c.log_p.shape[1], generator=seeded(), dtype=torch.float64)
        weights[1:-1:2] = 0
        mixed = c.source(weights)
        assert (c.kernels is None) == (c.start == 0)
        flow = Flow(m, field, refinement=Refinement([c.start], [mixed], [1.0]))
        expected = torch.logsumexp(c.log_p + (weights / weights.sum()).log(), dim=-1)
        torch.testing.assert_close(flow.log_prob(x), expected, atol=2e-3, rtol=1e-4)
    # The last component at time 0 is the flow itself.
    only = torch.zeros(found[-1].log_p.shape[1], dtype=torch.float64)
    only[-1] = 1
    assert found[-1].source(only) is source
    # To a looser solver, as the source is broad.
    torch.testing.assert_close(found[-1].log_p[:, -1], Flow(m, field).log_prob(x), atol=2e-3, rtol=1e-4)


def uniform_sphere(n: int, seed: int) -> Points:
    return Points(Sphere(2).random_uniform(n, generator=seeded(seed), dtype=torch.float64))


@pytest.mark.parametrize(
    ("flow", "data", "validation", "told"),
    [
        (Flow(Sphere(2), lambda x, t: 0 * x), uniform_sphere(300, 0), uniform_sphere(150, 1), "nats of the flow"),
        (Flow(Sphere(2), lambda x, t: 0 * x), uniform_sphere(50, 0), uniform_sphere(20, 1), "20 different validation"),
        (
            Flow(Sphere(2), lambda x, t: 0 * x, KernelMixture.fit(Sphere(2), clumps(50, 1))),
            uniform_sphere(50, 0),
            uniform_sphere(50, 1),
            "its source is a kernel density already",
        ),
        (
            Flow(Hyperboloid(2), lambda x, t: 0 * x, source_of(Hyperboloid(2))),
            Points(points(Hyperboloid(2), 50)),
            Points(points(Hyperboloid(2), 50)),
            "no smoothing kernel on Hyperboloid",
        ),
    ],
    ids=["no gain", "few points", "kernels", "no kernel"],
)
def test_what_is_not_refined_says_why(flow: Flow, data: Points, validation: Points, told: str) -> None:
    refine(flow, data, validation)
    assert flow.refinement is None
    assert flow.refinement_report.startswith("not refined: ")
    assert told in flow.refinement_report


def test_weights_of_points_count() -> None:
    """Points of weight zero are as if left out."""
    m = Sphere(2)
    train, held = clumps(200, 1), clumps(100, 11)
    weighted, plain = (Flow(m, wavy_field(m, size=0.5)) for _ in range(2))
    w, v = (torch.ones(n, dtype=torch.float64) for n in (200, 100))
    w[150:], v[80:] = 0, 0
    refine(weighted, Points(train, None, w), Points(held, None, v))
    refine(plain, Points(train[:150]), Points(held[:80]))
    assert weighted.refinement is not None
    assert plain.refinement is not None
    x = clumps(50, 21)
    torch.testing.assert_close(weighted.log_prob(x), plain.log_prob(x), atol=1e-3, rtol=1e-4)


# In a fit.


def test_a_fit_ends_with_a_refinement_that_is_saved_and_resumed(tmp_path: Path) -> None:
    m = Sphere(2)
    x = clumps(800, 1)
    settings: dict[str, Any] = {"steps": 40, "batch_size": 64, "progress": False, "device": "cpu", "validation": 0.2}
    settings["field"] = VelocityField(m, width=16, depth=1, features=8)
    flow = rfm.fit(x, m, out=tmp_path, **settings)
    assert flow.refinement is not None
    assert all(parameter.device.type == "cpu" for parameter in flow.parameters())
    fresh = clumps(200, 21)
    assert flow.log_prob(fresh).mean() > flow.base.log_prob(fresh).mean() + 1
    assert flow.history[-1]["refinement_seconds"] > 0
    # The quick refinement tells what the last one will about reach.
    quick = min(record["validation_nll"] for record in flow.history)
    assert quick == pytest.approx(flow.refinement.validation_nll["refined"], abs=0.6)
    again = rfm.fit(x, m, out=tmp_path, resume=True, **settings)
    assert torch.equal(again.log_prob(fresh), flow.log_prob(fresh))
    plain = rfm.fit(x, m, refine=False, **settings)
    assert plain.refinement is None
    assert plain.refinement_report == ""
    with pytest.raises(SavedFlowError, match="other data or with other settings"):
        rfm.fit(x, m, out=tmp_path, resume=True, refine=False, **settings)


def test_progress_goes_on_through_the_refinement(capsys: pytest.CaptureFixture[str]) -> None:
    m, seen = Sphere(2), list[tuple[float, dict[str, Any]]]()
    field = VelocityField(m, width=16, depth=1, features=8)
    settings: dict[str, Any] = {"steps": 20, "batch_size": 32, "device": "cpu", "validation": 0.2, "field": field}
    flow = rfm.fit(clumps(400, 1), m, progress=lambda share, record: seen.append((share, record)), **settings)
    shares = [record["refinement"] for _, record in seen if "refinement" in record]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)
    share, last = seen[-1]
    assert share == 1
    assert {name: last[name] for name in ("step", "loss", "validation_nll")}.items() <= flow.history[-1].items()
    assert all("refinement" in record for _, record in seen[-len(shares) :])
    with training_bar(True) as report:
        assert report is not None
        report(1.0, {"step": 20, "loss": 1.0})
        for share in (0.0, 0.5, 1.0):
            report(1.0, {"step": 20, "loss": 1.0, "refinement": share})
    shown = capsys.readouterr().err
    assert "fit 100%" in shown
    assert "refine 100%" in shown.split("fit 100%")[-1]


def test_the_command_line_tells_of_the_flow_with_and_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = VelocityField.__init__.__defaults__
    assert defaults is not None
    monkeypatch.setattr(VelocityField.__init__, "__defaults__", (16, 1, 16, *defaults[3:]))
    x = clumps(800, 1)
    latitude, longitude = torch.rad2deg(x[:, 2].asin()), torch.rad2deg(torch.atan2(x[:, 1], x[:, 0]))
    rows = [f"{a:.4f},{b:.4f}" for a, b in zip(latitude.tolist(), longitude.tolist(), strict=True)]
    (tmp_path / "t.csv").write_text("\n".join(["latitude,longitude", *rows]))

    def told(*arguments: object) -> dict[str, Any]:
        assert cli.main([*map(str, arguments), "--json", "--quiet"]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    fit = ["fit", tmp_path / "t.csv", "--manifold", "sphere", "--steps", 20, "--batch-size", 32, "--device", "cpu"]
    record = told(*fit, "--out", tmp_path / "a")
    assert record["refinement_seconds"] > 0
    assert record["refinement"]["starts"][0] == 1
    assert record["refinement_report"].startswith("refined by sources at time 1")
    assert record["validation_nll_nats"] == record["refinement"]["validation_nll"]["refined"]
    scores = told("evaluate", tmp_path / "a")
    nll = {name: row["mean"] for name, row in scores["test_nll_nats"].items()}
    assert nll["flow, refined"] < nll["flow, unrefined"] - 1
    assert 0 < scores["nearest_training"]["sample_is_nearer"]["mean"] < 1
    record = told(*fit, "--out", tmp_path / "b", "--no-refine")
    assert (record["refinement"], record["refinement_report"]) == ({}, "")
    assert "flow" in told("evaluate", tmp_path / "b")["test_nll_nats"]


def test_where_kernels_decide_nothing_the_flow_is_trained_all_the_same() -> None:
    """Values that are alike are told apart by the flow's own likelihood, so that training goes on while that falls."""
    state, average = Checkpoint.start(), nn.Linear(1, 1)
    for step, (refined, flow) in enumerate([(1.0, 2.0), (1.001, 1.8), (1.001, 1.9), (0.9, 1.9)]):
        state.step = step
        state.record(Validation(refined, {"flow_nll": flow}, 0.01 * flow), None, average)
        assert state.since_best == (1 if step == 2 else 0)
    assert [record["validation_nll"] for record in state.history] == [1.0, 1.001, 1.001, 0.9]
    x = WrappedNormal(FlatTorus(1), torch.zeros(1), 0.5).sample(400, torch.Generator().manual_seed(0))
    field = VelocityField(FlatTorus(1), width=16, depth=1, features=16)
    flow = rfm.fit(x, FlatTorus(1), field=field, steps=300, batch_size=128, progress=False)
    history = [record["flow_nll"] for record in flow.history]
    assert history[-1] < history[0] - 0.2
