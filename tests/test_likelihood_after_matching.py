"""Maximum likelihood that goes on from a trained flow: what may stop it, how many steps it solves by, jitter."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from random_fields import points
from sphere_clusters import cluster, small_field
from torch import Tensor, nn

import rfm
from manifolds import SPD, Antipodal, FlatTorus, Manifold, Product, Quotient, Sphere
from rfm import MaximumLikelihood
from rfm.couplings import Independent
from rfm.integrators import DORMAND_PRINCE, EULER, RK4, FixedStep
from rfm.likelihood import log_prob
from rfm.likelihood.discrete_flow import GRADED
from rfm.networks import VelocityField
from rfm.sources import Uniform
from rfm.training.agreement import agreeing
from rfm.training.arguments import hold_out
from rfm.training.jitter import jitter_scales
from rfm.training.points import BatchSampler
from rfm.training.weighted_points import Points

AXES = Quotient(Sphere(2), Antipodal(2))


def train_on(field: nn.Module, objective: MaximumLikelihood, learning_rate: float, **how: Any) -> rfm.Flow:
    settings: dict[str, Any] = {"steps": 16, "batch_size": 32, "progress": False, "refine": False} | how
    return rfm.fit(
        cluster(100),
        Sphere(2),
        field=field,
        objective=objective,
        training=rfm.Training(learning_rate=learning_rate),
        **settings,
    )


class Ascent(MaximumLikelihood):
    """The wrong way."""

    def __call__(self, *arguments: Any, **options: Any) -> Tensor:
        return -super().__call__(*arguments, **options)


def test_the_weights_at_the_start_compete() -> None:
    field = small_field()
    nn.init.normal_(field.last.weight, std=0.02, generator=torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in field.state_dict().items()}
    flow = train_on(field, Ascent(FixedStep(RK4, 3), tolerance=1.0), 1e-2)
    assert flow.history[0]["step"] == 0
    assert "loss" not in flow.history[0]
    assert min(r["validation_nll"] for r in flow.history[1:]) > flow.history[0]["validation_nll"]
    assert isinstance(flow.field, nn.Module)
    for name, value in flow.field.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_training_ends_where_the_loss_is_no_longer_the_true_one(tmp_path: Path) -> None:
    # One step of Euler's method with nothing against its error.
    objective = MaximumLikelihood(FixedStep(EULER, 1), penalty=0.0)
    flow = train_on(small_field(), objective, 3e-2, steps=64, out=tmp_path)
    assert "training loss and the true NLL of the validation points differ by" in flow.stopped
    assert "take more steps" in flow.stopped
    assert "of 64" in flow.stopped
    assert flow.history[-1]["step"] < 64
    assert rfm.Flow.load(tmp_path).stopped == flow.stopped
    x = cluster(20)
    with torch.no_grad():
        apart = float((objective.log_prob(flow.field, flow.source, x) - flow.log_prob(x)).mean())
    assert abs(apart) < 0.05
    again = train_on(small_field(), objective, 3e-2, steps=64, out=tmp_path, resume=True)
    assert again.stopped == flow.stopped


def test_steps_that_are_too_few_for_the_flow_at_the_start_are_an_error() -> None:
    field = small_field()
    nn.init.normal_(field.last.weight, std=1.0, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"differ by [-+]\d+\.\d+ nats, more than 0.01 .*: .* take more steps"):
        train_on(field, MaximumLikelihood(FixedStep(EULER, 1)), 1e-3)


def test_kernels_along_the_flow_follow_and_the_guard_looks_at_the_flow_alone() -> None:
    x, uniform = cluster(300), math.log(4 * math.pi)
    how: dict[str, Any] = {"field": small_field(), "validation": 0.2, "steps": 2, "batch_size": 8, "progress": False}
    flow = rfm.fit(x, Sphere(2), objective=MaximumLikelihood(), **how)
    assert flow.refinement is not None
    # The field is none to speak of, so kernels do the work; the two solves are of the field.
    assert float(-flow.base.log_prob(x).mean()) == pytest.approx(uniform, abs=0.1)
    assert all(record["validation_nll"] < uniform - 0.5 for record in flow.history)
    assert all(abs(record["solver_excess"]) < 1e-3 for record in flow.history)


def sharp_field(size: float) -> VelocityField:
    """Return a field, always the same, whose velocities and derivatives grow with ``size``."""
    field, generator = small_field(), torch.Generator().manual_seed(0)
    for parameter in field.parameters():
        nn.init.normal_(parameter, std=0.5, generator=generator)
    nn.init.normal_(field.last.weight, std=size, generator=generator)
    return field


@pytest.mark.parametrize(("size", "steps"), [(0.02, 12), (0.1, 24), (0.5, 96)])
def test_a_sharp_flow_is_trained_with_as_many_steps_as_it_needs(size: float, steps: int, tmp_path: Path) -> None:
    how: dict[str, Any] = {"steps": 1, "batch_size": 8, "out": tmp_path, "training": rfm.Training(learning_rate=1e-9)}
    field, x = sharp_field(size), cluster(100)
    flow = rfm.fit(x, Sphere(2), field=field, objective=MaximumLikelihood(), refine=False, progress=False, **how)
    assert [record["solver_steps"] for record in flow.history] == [steps] * 2
    held = hold_out(x, 0.1, 0)[1]
    with torch.no_grad():
        truth = log_prob(sharp_field(size), Uniform(Sphere(2)), x[held], FixedStep(DORMAND_PRINCE, 96)).mean()
        excess = {
            c.solver_steps: float(truth - c.log_prob(sharp_field(size), Uniform(Sphere(2)), x[held]).mean())
            for c in MaximumLikelihood().candidates
        }
    assert all((abs(nats) <= 0.005) == (n >= steps) for n, nats in excess.items())
    assert flow.history[0]["solver_excess"] == pytest.approx(excess[steps], abs=4e-3)


def test_a_flow_too_sharp_for_all_steps_is_refused_and_a_method_is_kept() -> None:
    with pytest.raises(ValueError, match=r"differ by .* nats, more than 0.01 \(steps of the solve: 96\): .* take more"):
        train_on(sharp_field(1.5), MaximumLikelihood(), 1e-3)
    with pytest.raises(ValueError, match=r"more than 0.01 \(steps of the solve: 12\)"):
        train_on(sharp_field(0.5), MaximumLikelihood(GRADED), 1e-3)


def test_a_resumed_run_takes_the_steps_that_it_began_with() -> None:
    x, history = Points(cluster(20)), [{"solver_steps": 48.0}]
    flow = rfm.Flow(Sphere(2), sharp_field(0.02))
    assert agreeing(MaximumLikelihood(), flow, x).solver_steps == 12
    assert agreeing(MaximumLikelihood(), flow, x, history).solver_steps == 48


@pytest.mark.parametrize("m", [Sphere(2), SPD(2), Product(Sphere(2), FlatTorus(1)), AXES], ids=str)
def test_scales_of_jitter_are_shares_of_distances_between_all_pairs(m: Manifold) -> None:
    x = points(m, 30)
    x = torch.cat([x, x[:7]])
    found = jitter_scales(m, x, 0.3)
    # Chords to the nearer representative grow with the distances of axes.
    apart = m.dist(x[:, None], x[:30]) if m is AXES else torch.cdist(m.embed(x), m.embed(x[:30]))
    # The nearest is the place itself.
    sixth = apart.argsort(1)[:, 6]
    torch.testing.assert_close(found, 0.3 * m.dist(x, x[sixth]))
    assert torch.equal(jitter_scales(m, x[:1].expand(4, *m.event_shape), 0.3), torch.zeros(4).double())
    torch.testing.assert_close(jitter_scales(m, x[:2], 1.0), m.dist(x[:2], x[:2].flip(0)))


def test_jitter_moves_points_by_a_share_of_the_distance_to_neighbours() -> None:
    m, x = Sphere(2), points(Sphere(2), 40)
    spread = jitter_scales(m, x, 0.3)

    def batch(jitter: float) -> Tensor:
        objective = MaximumLikelihood(jitter=jitter)
        sampler = BatchSampler(Uniform(m), Points(x), 20_000, objective, Independent(), False)
        return sampler.seeded_batch(0)[1]

    still, moved = batch(0.0), batch(0.3)
    assert bool((still[:, None] == x).all(-1).any(1).all())
    index = torch.cdist(still, x).argmin(1)
    share = m.dist(still, moved) / spread[index]
    # The mean square of a normal vector in two dimensions, of unit variance in each.
    assert float(share.square().mean()) == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("name", ["jitter", "penalty", "tolerance"])
def test_negative_settings_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"MaximumLikelihood: {name} must be a number of at least 0, got -1"):
        MaximumLikelihood(**{name: -1})  # type: ignore[arg-type]


def test_the_learning_rate_is_the_objectives_unless_given() -> None:
    assert rfm.FlowMatching.learning_rate == 3e-3
    assert MaximumLikelihood.learning_rate == 5e-4
    assert rfm.Training().learning_rate is None
