"""Maximum likelihood: gradients against differences and against each other, memory, and training."""

import math
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from random_fields import normal, points
from sphere_clusters import cluster, small_field
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
from rfm.integrators import (
    BOGACKI_SHAMPINE,
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
from rfm.networks import VelocityField
from rfm.objectives.maximum_likelihood import adjoint_log_prob
from rfm.records.descriptions import SavedFlowError
from rfm.sources import Uniform

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

    class Saved:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor
            held.add(self)

    # What the graph of the loss holds on to, and not what was saved and freed on the way.
    held: weakref.WeakSet[Saved] = weakref.WeakSet()

    def saved(steps: int, adjoint: bool) -> int:
        held.clear()
        with torch.autograd.graph.saved_tensors_hooks(Saved, lambda kept: kept.tensor):
            loss = negative_log_likelihood_loss(field, source, x, FixedStep(RK4, steps), adjoint=adjoint)
        assert loss.requires_grad
        return sum(kept.tensor.numel() for kept in held)

    assert 0 < saved(2, True) == saved(8, True)
    assert saved(8, False) > 3 * saved(2, False)


def test_what_cannot_be_differentiated_is_refused() -> None:
    m = Sphere(2)
    with pytest.raises(ValueError, match="must take fixed steps"):
        negative_log_likelihood_loss(Wave(m), Uniform(m), points(m, 2), Adaptive())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='reduction must be "mean", "sum" or "none"'):
        negative_log_likelihood_loss(Wave(m), Uniform(m), points(m, 2), reduction="median")


# Training.


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
        "steps": 30,
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
