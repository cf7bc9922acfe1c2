"""Flows that start at a time, and flows refined by sources along them."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from manifold_zoo import ZOO
from random_fields import points, wavy_field
from torch import nn
from zoo_sources import source_of

from manifolds import SO3, FlatTorus, Manifold, Sphere
from rfm import Flow, Hutchinson
from rfm.conditions import Conditions
from rfm.flow import Refinement
from rfm.integrators import RK4, Adaptive, FixedStep
from rfm.likelihood import log_prob
from rfm.networks import VelocityField
from rfm.records.descriptions import SavedFlowError, read_json, write_json
from rfm.sources import KernelMixture, Uniform, VonMisesFisher
from rfm.steering import SelfConditioning

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
    flow.sample(50, batch_size=8, progress=counted.append)
    assert sum(counted) == 50
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


def test_a_refined_flow_knows_no_condition_and_no_steering() -> None:
    m = Sphere(2)
    field = VelocityField(m, width=8, depth=1, features=4, condition_dim=1)
    flow = Flow(m, field, refinement=Refinement([1.0], [Uniform(m)], [1.0]))
    x = points(m, 2, dtype=torch.float32)
    for call, name in (
        (lambda: flow.log_prob(x, condition=torch.zeros(1)), "log_prob"),
        (lambda: flow.sample(2, condition=torch.zeros(1)), "sample"),
        (lambda: flow.sample(2, steering=[SelfConditioning()]), "sample"),
    ):
        with pytest.raises(ValueError, match=f"use flow.base.{name}"):
            call()
    with pytest.raises(ValueError, match=r"use flow\.base\.on\(manifold\)"):
        flow.on(Sphere(3))
    conditions = Conditions.of({"magnitude": [1.0, 2.0]})
    with pytest.raises(ValueError, match="conditional on magnitude; leave the refinement out"):
        Flow(m, field, conditions=conditions, refinement=flow.refinement)


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
