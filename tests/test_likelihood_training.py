"""Maximum likelihood: gradients against differences and against each other, memory, and training."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from random_fields import normal, points
from torch import Tensor, nn
from zoo_sources import source_of

import rfm
from manifolds import (
    SE3,
    SO3,
    SPD,
    Antipodal,
    CentredPoses,
    Euclidean,
    FlatTorus,
    Grassmann,
    Hyperboloid,
    LogEuclideanSPD,
    Manifold,
    PoincareBall,
    Power,
    Product,
    Quotient,
    Sphere,
    Stiefel,
)
from rfm import Hutchinson, MaximumLikelihood, negative_log_likelihood_loss
from rfm.couplings import Independent
from rfm.integrators import (
    BOGACKI_SHAMPINE,
    DORMAND_PRINCE,
    EULER,
    MIDPOINT,
    RK4,
    Adams,
    Adaptive,
    FixedStep,
    Geodesic,
    Scheme,
    Shared,
    Tableau,
)
from rfm.likelihood import discrete_log_prob, log_prob
from rfm.likelihood.discrete_flow import GRADED
from rfm.networks import VelocityField
from rfm.objectives.maximum_likelihood import adjoint_log_prob
from rfm.records.descriptions import SavedFlowError
from rfm.sources import Uniform
from rfm.training.agreement import agreeing
from rfm.training.arguments import hold_out
from rfm.training.jitter import jitter_scales
from rfm.training.points import BatchSampler
from rfm.training.weighted_points import Points

AXES = Quotient(Sphere(2), Antipodal(2))
MANIFOLDS = [Sphere(2), SO3(), FlatTorus(2), Hyperboloid(2), PoincareBall(2), SPD(2), Product(Sphere(2), Euclidean(1))]
SLOW = [MANIFOLDS[3], MANIFOLDS[5]]
"""To solve adjoint equations on; the ball and the other matrices are like them."""
OTHERS = [SE3(2.0), LogEuclideanSPD(2), Grassmann(3, 1), Stiefel(3, 2), Power(Sphere(2), 2), CentredPoses(2, 2.0), AXES]


class Wave(nn.Module):
    """A field with parameters that is smooth in time."""

    def __init__(self, m: Manifold) -> None:
        super().__init__()
        self.m = m
        self.inner = nn.Parameter(normal(m.embed_dim, 6) / math.sqrt(m.embed_dim))
        self.outer = nn.Parameter(0.1 * normal(6, m.field_dim, seed=1))
        self.unused = nn.Parameter(normal(2))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        wave = self.m.embed(x) @ self.inner + t[..., None] * torch.arange(6).to(x)
        if condition is not None:
            wave = wave + condition
        return self.m.tangent_from_vector(x, torch.sin(wave) @ self.outer)


def gradients(field: nn.Module, loss: Tensor) -> list[Tensor]:
    found = torch.autograd.grad(loss, list(field.parameters()), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, field.parameters(), strict=True)]


# Gradients.


@pytest.mark.parametrize("m", MANIFOLDS + OTHERS, ids=str)
def test_gradients_are_those_of_differences(m: Manifold) -> None:
    field, source, x = Wave(m), source_of(m), points(m, 3)
    method = FixedStep(BOGACKI_SHAMPINE, 2)
    found = gradients(field, negative_log_likelihood_loss(field, source, x, method))
    with torch.no_grad():
        for parameter, gradient in list(zip(field.parameters(), found, strict=True))[:2]:
            direction = normal(*parameter.shape, seed=5)
            kept, values = parameter.clone(), []
            for sign in (1, -1):
                parameter.copy_(kept + sign * 1e-4 * direction)
                values.append(negative_log_likelihood_loss(field, source, x, method))
            parameter.copy_(kept)
            slope = float((gradient * direction).sum())
            assert slope == pytest.approx(float(values[0] - values[1]) / 2e-4, rel=1e-5, abs=1e-7)
            assert abs(slope) > 1e-4


@pytest.mark.parametrize(
    ("m", "probes"),
    [
        *(pytest.param(m, 0, marks=pytest.mark.slow if m in SLOW else ()) for m in MANIFOLDS),
        (Sphere(2), 2),
        (PoincareBall(2), 2),
    ],
    ids=str,
)
def test_the_adjoint_equation_gives_the_gradient_of_the_exact_solve(m: Manifold, probes: int) -> None:
    field, source, x = Wave(m), source_of(m), points(m, 2, 1)

    def found(steps: int, adjoint: bool) -> list[Tensor]:
        y = x.clone().requires_grad_()
        estimator = Hutchinson(probes, torch.Generator().manual_seed(0)) if probes else None
        loss = negative_log_likelihood_loss(
            field, source, y, FixedStep(RK4, steps), adjoint=adjoint, estimator=estimator
        )
        (along_x,) = torch.autograd.grad(loss, y, retain_graph=True)
        # What the gradient does to tangent vectors: its normal part depends on how functions are extended.
        rank = len(m.event_shape)
        tangential = (along_x.unsqueeze(-1 - rank) * m.tangent_basis(x)).flatten(-rank).sum(-1)
        return [tangential, *gradients(field, loss)]

    by_adjoint, by_backpropagation = found(6, True), found(6, False)
    for ours, reference in zip(by_adjoint, by_backpropagation, strict=True):
        torch.testing.assert_close(ours, reference, atol=5e-4, rtol=1e-3)
    assert float(by_adjoint[1].abs().max()) > 5e-3
    assert float(by_adjoint[-1].abs().max()) == 0


@pytest.mark.parametrize(("scheme", "order"), [(EULER, 1), (RK4, 4), (Geodesic(MIDPOINT), 2), (Adams(3), 3)])
def test_the_adjoint_converges_with_the_order_of_the_method(scheme: Tableau | Scheme, order: int) -> None:
    m = Sphere(2)
    field, source, x = Wave(m), Uniform(m), points(m, 4)
    truth = gradients(field, negative_log_likelihood_loss(field, source, x, FixedStep(RK4, 16)))[0]

    def error(steps: int) -> float:
        log_p = adjoint_log_prob(field, source, x, FixedStep(scheme, steps))
        return float((gradients(field, -log_p.mean())[0] - truth).norm())

    assert 2 ** (order - 0.5) < error(4) / error(8) < 2 ** (order + 1.5)


@pytest.mark.parametrize("condition", [normal(2, 3, 6), Shared(normal(6)), Shared(normal(1, 6))], ids=type)
def test_values_agree_with_the_log_density(condition: Tensor | Shared) -> None:
    m = Sphere(2)
    field, source, x = Wave(m), Uniform(m), points(m, 2, 3)
    method = FixedStep(RK4, 4)
    discrete = discrete_log_prob(field, source, x, method, condition=condition).log_prob
    for adjoint, exact in ((False, discrete), (True, log_prob(field, source, x, method, condition=condition))):
        how: dict[str, Any] = {"adjoint": adjoint, "condition": condition}
        each = negative_log_likelihood_loss(field, source, x, method, "none", **how)
        torch.testing.assert_close(each, -exact)
        torch.testing.assert_close(negative_log_likelihood_loss(field, source, x, method, "sum", **how), -exact.sum())
        torch.testing.assert_close(negative_log_likelihood_loss(field, source, x, method, **how), -exact.mean())


def test_gradients_under_shared_conditions_are_those_of_copies() -> None:
    m, shared = Sphere(2), normal(6, seed=3)
    field, source, x, method = Wave(m), Uniform(m), points(m, 6), FixedStep(RK4, 12)
    for adjoint in (False, True):
        one, copies = (
            gradients(field, negative_log_likelihood_loss(field, source, x, method, adjoint=adjoint, condition=given))
            for given in (Shared(shared), shared.expand(6, 6))
        )
        torch.testing.assert_close(one, copies)


def test_memory_of_the_adjoint_does_not_grow_with_the_steps() -> None:
    m = Sphere(2)
    field, source, x = Wave(m), Uniform(m), points(m, 4)

    def saved(steps: int, adjoint: bool) -> int:
        count = [0]

        def pack(tensor: Tensor) -> Tensor:
            count[0] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            negative_log_likelihood_loss(field, source, x, FixedStep(RK4, steps), adjoint=adjoint)
        return count[0]

    assert saved(2, True) == saved(8, True)
    assert saved(8, False) > 3 * saved(2, False)


def test_what_cannot_be_differentiated_is_refused() -> None:
    m = Sphere(2)
    with pytest.raises(ValueError, match="must take fixed steps"):
        negative_log_likelihood_loss(Wave(m), Uniform(m), points(m, 2), Adaptive())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='reduction must be "mean", "sum" or "none"'):
        negative_log_likelihood_loss(Wave(m), Uniform(m), points(m, 2), reduction="median")


# Training.


def cluster(n: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return Sphere(2).projx(torch.tensor([0.0, 0.0, 1.0]) + 0.4 * torch.randn(n, 3, generator=generator))


def small_field() -> VelocityField:
    return VelocityField(Sphere(2), width=16, depth=1, features=8, max_frequency=4.0)


@pytest.mark.slow
@pytest.mark.parametrize("adjoint", [False, True])
def test_training_lowers_the_negative_log_likelihood(adjoint: bool) -> None:
    m = Sphere(2)
    field, x = small_field(), cluster(64)
    method = FixedStep(RK4, 4)
    optimizer = torch.optim.Adam(field.parameters(), lr=2e-2)
    losses = []
    for _ in range(25):
        loss = negative_log_likelihood_loss(field, Uniform(m), x, method, adjoint=adjoint)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(math.log(4 * math.pi), abs=1e-5)
    assert losses[-1] < losses[0] - 0.7


@pytest.mark.parametrize(
    "objective",
    [
        MaximumLikelihood(FixedStep(RK4, 3)),
        pytest.param(MaximumLikelihood(FixedStep(RK4, 3), True), marks=pytest.mark.slow),
    ],
)
def test_fit_takes_it_as_an_objective(objective: MaximumLikelihood, tmp_path: Path) -> None:
    how: dict[str, Any] = {
        "steps": 24,
        "batch_size": 64,
        "training": rfm.Training(learning_rate=2e-2, validations=2),
        "progress": False,
        "refine": False,
        "out": tmp_path,
    }
    flow = rfm.fit(cluster(200), Sphere(2), field=small_field(), objective=objective, **how)
    assert flow.history[-1]["validation_nll"] < math.log(4 * math.pi) - 0.3
    rfm.fit(cluster(200), Sphere(2), field=small_field(), objective=objective, resume=True, **how)
    with pytest.raises(SavedFlowError, match="other settings"):
        rfm.fit(cluster(200), Sphere(2), field=small_field(), resume=True, **how)


@pytest.mark.slow
def test_conditions_reach_the_objective() -> None:
    m = Sphere(2)
    x, side = cluster(200), torch.randint(2, (200,), generator=torch.Generator().manual_seed(1)).float() * 2 - 1
    flow = rfm.fit(
        x * side[:, None],
        m,
        condition=side,
        field=VelocityField(m, width=16, depth=1, features=8, max_frequency=4.0, condition_dim=1),
        objective=MaximumLikelihood(FixedStep(RK4, 3)),
        steps=30,
        batch_size=64,
        training=rfm.Training(learning_rate=2e-2),
        progress=False,
    )
    right, wrong = (flow.log_prob(x[:50], condition=torch.tensor([s])).mean() for s in (1.0, -1.0))
    assert float(right) > float(wrong) + 0.05


# Going on from a trained flow.


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
