"""The density of the discrete flow: its Jacobian against differences, its gradient, its integral, its order."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from manifold_zoo import ZOO
from random_fields import normal, points, wavy_field
from torch import Tensor, nn
from zoo_sources import source_of

from manifolds import SPD, Euclidean, Manifold, PoincareBall, Sphere
from rfm.integrators import BOGACKI_SHAMPINE, DORMAND_PRINCE, EULER, KUTTA3, RK4, Adams, FixedStep, Geodesic, Tableau
from rfm.likelihood import discrete_log_prob, log_prob
from rfm.networks import VelocityField
from rfm.objectives import MaximumLikelihood
from rfm.sources import Uniform, WrappedNormal

CASES = [pytest.param(make(), id=name) for name, make in ZOO]


def field_on(m: Manifold) -> Callable[..., Tensor]:
    """Return a field that two steps neither fold, in a cell of unit length, nor carry across a border."""
    return wavy_field(m, size=0.1 if any(name in str(m) for name in ("Fractional", "Simplex", "Correlation")) else 1.0)


def discrete_map(field: Callable[..., Tensor], m: Manifold, x: Tensor, tableau: Tableau, times: list[float]) -> Tensor:
    """Return where projected Runge-Kutta steps lead: the textbook's loop."""
    for t, end in itertools.pairwise(times):
        h, rates = end - t, []
        for c, row in zip(tableau.c, tableau.a, strict=True):
            y = x + sum((h * a * k for a, k in zip(row, rates, strict=True)), torch.zeros_like(x))
            y = m.projx(y) if rates else x
            rates.append(field(y, torch.full(m.batch_shape(y), t + c * h, dtype=y.dtype)))
        x = m.projx(x + sum(h * b * k for b, k in zip(tableau.b, rates, strict=True)))
    return x


@pytest.mark.parametrize("tableau", [KUTTA3, BOGACKI_SHAMPINE], ids=["steps", "first same as last"])
@pytest.mark.parametrize("m", CASES)
def test_the_jacobian_is_that_of_differences(m: Manifold, tableau: Tableau) -> None:
    field, source, x = field_on(m), source_of(m), points(m, 3)
    times = [1.0, 1 / 3, 0.0]
    # By the shift, which moves the time in the middle from 1/2.
    found = discrete_log_prob(field, source, x, FixedStep(tableau, 2), shift=1 / 3).log_prob
    y = discrete_map(field, m, x, tableau, times)
    basis, size = m.tangent_basis(x).movedim(1, 0), 1e-5
    starts = (m.expmap(x.expand_as(basis), s * basis) for s in (size, -size))
    ahead, behind = (m.logmap(y, discrete_map(field, m, start, tableau, times)) for start in starts)
    columns = (ahead - behind) / (2 * size)
    matrix = m.inner(y, m.tangent_basis(y).movedim(1, 0)[:, None], columns[None]).movedim(-1, 0)
    expected = source.log_prob(y) + torch.linalg.slogdet(matrix).logabsdet
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=2e-6)
    assert float(torch.linalg.slogdet(matrix).logabsdet.abs().max()) > 0.002


@pytest.mark.parametrize("m", CASES)
def test_automatic_differentiation_of_the_whole_map_agrees(m: Manifold) -> None:
    field, source, x = field_on(m), source_of(m), points(m)
    found = discrete_log_prob(field, source, x, FixedStep(KUTTA3, 1)).log_prob

    def end(coefficients: Tensor) -> Tensor:
        start = m.expmap(x, (coefficients.reshape(-1, *(1,) * x.ndim) * basis).sum(0))
        return discrete_map(field, m, start, KUTTA3, [1.0, 0.0])

    basis = m.tangent_basis(x)
    y, columns = end(x.new_zeros(m.dim)), torch.func.jacrev(end)(x.new_zeros(m.dim)).movedim(-1, 0)
    matrix = m.inner(y, m.tangent_basis(y)[:, None], m.proju(y, columns)[None])
    torch.testing.assert_close(found, source.log_prob(y) + torch.linalg.slogdet(matrix).logabsdet, atol=1e-9, rtol=1e-9)


def test_derivatives_of_fields_that_know_no_forward_mode() -> None:
    class Sine(torch.autograd.Function):
        @staticmethod
        def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return torch.sin(x)

        @staticmethod
        def backward(ctx: torch.autograd.function.FunctionCtx, cotangent: Tensor) -> Tensor:  # type: ignore[override]
            return cotangent * torch.cos(ctx.saved_tensors[0])  # type: ignore[attr-defined]

    m, weight = Sphere(2), normal(3, 3)
    x = points(m, 4)
    found, expected = (
        discrete_log_prob(lambda y, t, sine=sine: m.proju(y, sine(y @ weight)), Uniform(m), x).log_prob
        for sine in (Sine.apply, torch.sin)
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("tableau", "order"), [(KUTTA3, 3), (RK4, 4)])
def test_it_converges_to_the_density_of_the_flow(tableau: Tableau, order: int) -> None:
    m = Sphere(2)
    field, source, x = wavy_field(m), Uniform(m), points(m, 10)
    truth = log_prob(field, source, x, FixedStep(DORMAND_PRINCE, 30))
    errors = [
        float((discrete_log_prob(field, source, x, FixedStep(tableau, n)).log_prob - truth).norm()) for n in (8, 16)
    ]
    assert 2 ** (order - 0.6) < errors[0] / errors[1] < 2 ** (order + 1.5)


def test_the_estimated_error_falls_with_the_order_of_the_embedded_method() -> None:
    m = Sphere(2)
    field, source, x = wavy_field(m), Uniform(m), points(m, 20)
    found = [
        float(discrete_log_prob(field, source, x, FixedStep(BOGACKI_SHAMPINE, n)).squared_error.mean()) for n in (8, 16)
    ]
    # The square of a local error of order three, summed over twice as many steps.
    assert 2**4 < found[0] / found[1] < 2**6
    assert float(discrete_log_prob(field, source, x, FixedStep(RK4, 4)).squared_error.abs().max()) == 0


def sphere_quadrature(n: int) -> tuple[Tensor, Tensor]:
    """Return points of the sphere and weights: Gauss and Legendre's in height, equal ones around."""
    height, weight = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(n))
    angle = torch.arange(2 * n, dtype=torch.float64) * (math.pi / n)
    ring = torch.sqrt(1 - height**2)[:, None]
    x = torch.stack(torch.broadcast_tensors(ring * angle.cos(), ring * angle.sin(), height[:, None]), -1)
    return x.flatten(0, 1), (weight[:, None] * (math.pi / n)).expand(n, 2 * n).flatten()


def about_two_places() -> Tensor:
    places = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]], dtype=torch.float64)
    return Sphere(2).projx(places.repeat(32, 1) + 0.15 * normal(64, 3))


def trained(loss: Callable[[nn.Module, Tensor], Tensor], steps: int) -> VelocityField:
    """Return a field after steps of Adam on a loss of it and of points."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        field = VelocityField(Sphere(2), width=24, depth=1, features=24, max_frequency=6.0).double()
    optimizer = torch.optim.Adam(field.parameters(), lr=2e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(field, about_two_places()).backward()
        optimizer.step()
    return field.requires_grad_(False)


@pytest.mark.slow
def test_an_optimiser_games_the_divergence_and_not_the_jacobian() -> None:
    source, objective = Uniform(Sphere(2)), MaximumLikelihood(FixedStep(BOGACKI_SHAMPINE, 10, 2.0))
    method, (grid, weights), draw = objective.method, sphere_quadrature(96), torch.Generator().manual_seed(0)
    gamed = trained(lambda field, x: -log_prob(field, source, x, method).mean(), 60)
    honest = trained(lambda field, x: objective(field, source, x, x, x[:, 0], generator=draw), 60)
    x, accurate = about_two_places(), FixedStep(DORMAND_PRINCE, 40)
    # The integral along the steps promises what the density at the data does not keep, and is no density.
    promised, kept = (float(-log_prob(gamed, source, x, how).mean()) for how in (method, accurate))
    assert promised < kept - 0.5
    assert float((log_prob(gamed, source, grid, method).exp() * weights).sum()) > 1.1
    own, true = (float(-f(honest, source, x).mean()) for f in (objective.log_prob, log_prob))
    assert own == pytest.approx(true, abs=0.01)
    assert true < math.log(4 * math.pi) - 3
    integral = float((discrete_log_prob(honest, source, grid, method).log_prob.exp() * weights).sum())
    assert integral == pytest.approx(1, abs=1e-3)


def test_a_fold_counts_as_improbable_and_its_gradient_leads_back() -> None:
    m = Euclidean(1)
    source, x = WrappedNormal(m, torch.zeros(1).double(), 1.0), torch.tensor([[0.5]]).double()
    rate = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    # One step of Euler's back in time: x - rate x.
    log_p = discrete_log_prob(lambda y, t: rate * y, source, x, FixedStep(EULER, 1)).log_prob
    expected = source.log_prob(-2 * x) + math.log(1e-3) - math.log(1 + 2)
    torch.testing.assert_close(log_p, expected)
    assert float(torch.autograd.grad(log_p.sum(), rate)[0]) < 0


@pytest.mark.parametrize("m", [PoincareBall(2), SPD(2)], ids=str)
def test_steps_that_leave_the_domain_are_refused(m: Manifold) -> None:
    x = points(m, 3)
    with pytest.raises(ValueError, match=r"a step leaves .* at [123] of 3 points.* take more steps"):
        discrete_log_prob(lambda y, t: 30 * y, source_of(m), x, FixedStep(RK4, 2))


@pytest.mark.parametrize("scheme", [Geodesic(EULER), Adams(3)], ids=["geodesic", "adams"])
def test_other_steps_are_refused(scheme: Geodesic | Adams) -> None:
    m = Sphere(2)
    with pytest.raises(ValueError, match="the steps must be those of a tableau"):
        discrete_log_prob(wavy_field(m), Uniform(m), points(m, 2), FixedStep(scheme, 2))
    with pytest.raises(ValueError, match="shift must be a number between -1 and 1, got 1"):
        discrete_log_prob(wavy_field(m), Uniform(m), points(m, 2), shift=1.0)
