"""Divergence against closed forms and other definitions; densities that integrate to one."""

import math
from collections.abc import Callable

import pytest
import torch
from manifold_zoo import ZOO
from random_fields import normal, points, wavy_field
from torch import Tensor, nn

from manifolds import (
    SE3,
    SO3,
    SPD,
    Euclidean,
    FlatTorus,
    Hyperboloid,
    LogEuclideanSPD,
    Manifold,
    PoincareBall,
    Power,
    Product,
    Sphere,
)
from manifolds.tangent_spaces import log_volume_density
from rfm import Flow, divergence
from rfm.integrators import DORMAND_PRINCE, RK4, Adaptive, FixedStep
from rfm.likelihood import log_prob, transport
from rfm.networks import VelocityField
from rfm.sources import Uniform, WrappedNormal

EVERY = pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in ZOO])


def times(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def network(m: Manifold, depth: int = 2, condition_dim: int = 0, std: float = 0.3) -> VelocityField:
    field = VelocityField(m, width=12, depth=depth, features=8, max_frequency=4.0, condition_dim=condition_dim).double()
    generator = torch.Generator().manual_seed(0)
    for parameter in field.parameters():
        nn.init.normal_(parameter, std=std, generator=generator)
    return field.requires_grad_(False)


def plain(field: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Hide the closed form of a network, so that it is differentiated in forward mode."""
    return lambda x, t, **condition: field(x, t, **condition)


# The divergence.


@EVERY
def test_divergence_is_the_rate_at_which_the_flow_spreads_volume(make: Callable[[], Manifold]) -> None:
    """By another way: the derivative of the log-determinant of the flow map, between orthonormal bases.

    The map here is ``y -> expmap(y, h v(y))``, whose derivative is read off in normal coordinates.
    """
    m = make()
    field, h, eps = wavy_field(m), 1e-3, 1e-3
    x = points(m, 1)
    t = times(1)
    basis = m.tangent_basis(x).movedim(-1 - len(m.event_shape), 0)

    def log_volume(h: float) -> Tensor:
        def image(w: Tensor) -> Tensor:
            y = m.expmap(x, w)
            return m.expmap(y, h * field(y, t))

        centre = image(0 * x)
        frame = m.tangent_basis(centre).movedim(-1 - len(m.event_shape), 0)
        columns = [(m.logmap(centre, image(eps * e)) - m.logmap(centre, image(-eps * e))) / (2 * eps) for e in basis]
        matrix = torch.stack([torch.stack([m.inner(centre, c, f)[0] for f in frame]) for c in columns])
        return torch.linalg.slogdet(matrix).logabsdet

    rate = (log_volume(h) - log_volume(-h)) / (2 * h)
    u, div = divergence(field, m, x, t)
    torch.testing.assert_close(u, field(x, t))
    assert abs(float(div)) > 1e-3
    assert float(div) == pytest.approx(float(rate), abs=2e-4 * max(1, m.dim), rel=2e-4)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_gradient_of_a_linear_function_on_the_sphere(n: int) -> None:
    m = Sphere(n)
    a, x = normal(n + 1, seed=4), points(m, 2, 3)
    _, div = divergence(lambda y, t: m.proju(y, a.expand_as(y)), m, x, times(2, 3))
    torch.testing.assert_close(div, -n * (x @ a))


def test_gradients_of_linear_functions_on_rotations() -> None:
    """Entries of a rotation matrix are eigenfunctions of the Laplacian, with eigenvalue -2 in this metric."""
    m = SO3()
    a, x = normal(3, 3, seed=4), points(m, 5)
    # The ambient product is twice the metric.
    _, div = divergence(lambda y, t: 2 * m.proju(y, a.expand_as(y)), m, x, times(5))
    torch.testing.assert_close(div, -2 * (x * a).sum((-2, -1)))


def test_known_divergences() -> None:
    x, t = points(Euclidean(3), 5), times(5)
    a = normal(3, 3, seed=4)
    torch.testing.assert_close(divergence(lambda y, t: y @ a, Euclidean(3), x, t)[1], a.trace().expand(5))
    angle = points(FlatTorus(2), 5)
    torch.testing.assert_close(
        divergence(lambda y, t: torch.sin(y), FlatTorus(2), angle, t)[1], torch.cos(angle).sum(-1)
    )
    # Scaling a positive definite matrix is an isometry in the affine-invariant metric.
    s = points(SPD(2), 5)
    torch.testing.assert_close(divergence(lambda y, t: y, SPD(2), s, t)[1], torch.zeros(5, dtype=torch.float64))
    # The gradient of the distance from the origin times the distance, on the hyperbolic plane: 1 + r coth r.
    h = Hyperboloid(2)
    y = points(h, 5)
    origin = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    r = h.dist(origin, y)
    div = divergence(lambda z, t: -h.logmap(z, origin.expand_as(z)), h, y, t)[1]
    torch.testing.assert_close(div, 1 + r / torch.tanh(r))


@EVERY
def test_a_field_that_does_not_move_has_none(make: Callable[[], Manifold]) -> None:
    m = make()
    for batch in ((), (3,), (0,)):
        u, div = divergence(lambda y, t: torch.zeros_like(y), m, points(m, *batch), times(*batch))
        assert u.shape == (*batch, *m.event_shape)
        torch.testing.assert_close(div, torch.zeros(batch, dtype=torch.float64))


@pytest.mark.parametrize("curvature", [1.0, 2.0])
def test_the_ambient_trace_is_wrong_in_the_ball_and_ours_is_right(curvature: float) -> None:
    m = PoincareBall(2, curvature)
    x, t = points(m, 5), times(5)
    a = normal(2, 2, seed=4)

    def field(y: Tensor, t: Tensor) -> Tensor:
        return y @ a

    _, div = divergence(field, m, x, t)
    naive = a.trace()
    conformal = 2 / (1 - curvature * (x * x).sum(-1))
    # d log lambda = c lambda <x, dx>, and the volume has density lambda^2.
    torch.testing.assert_close(div, naive + 2 * curvature * conformal * (x * field(x, t)).sum(-1))
    assert float((div - naive).abs().min()) > 1e-3
    # The same field on the hyperboloid, carried there by the isometry.
    h = Hyperboloid(2, curvature)
    back = points(h, 5)

    def carried(y: Tensor, t: Tensor) -> Tensor:
        y = h.projx(y)
        to_ball = torch.func.vmap(torch.func.jacrev(h.to_poincare))(y.reshape(-1, 3)).reshape(*y.shape[:-1], 2, 3)
        frame = h.tangent_basis(y)
        pushed = torch.einsum("...ij,...kj->...ki", to_ball, frame)
        coefficients = torch.linalg.solve(pushed.mT, field(h.to_poincare(y), t)[..., None])
        return (coefficients * frame).sum(-2)

    torch.testing.assert_close(divergence(carried, h, back, t)[1], divergence(field, m, h.to_poincare(back), t)[1])


def ambient_trace(field: Callable[..., Tensor], m: Manifold, x: Tensor, t: Tensor) -> Tensor:
    """The trace over ambient coordinates of the field made constant along normals: right for induced metrics only."""

    def one(y: Tensor, s: Tensor) -> Tensor:
        jacobian = torch.func.jacrev(lambda z: field(m.projx(z)[None], s[None])[0])(y)
        return jacobian.reshape(y.numel(), y.numel()).trace()

    return torch.stack([one(y, s) for y, s in zip(x, t, strict=True)])


INDUCED = [Euclidean(3), FlatTorus(2), Sphere(2), Sphere(4), SO3(), SE3(2.0), Power(Sphere(2), 2)]
OTHER = [Hyperboloid(2), PoincareBall(2), SPD(2), LogEuclideanSPD(2), Product(Sphere(2), PoincareBall(2))]


@pytest.mark.parametrize("m", [*INDUCED, *OTHER], ids=str)
def test_the_ambient_trace_is_right_where_the_metric_is_induced_up_to_constants_and_wrong_elsewhere(
    m: Manifold,
) -> None:
    x, t, field = points(m, 3), times(3), wavy_field(m)
    difference = (divergence(field, m, x, t)[1] - ambient_trace(field, m, x, t)).abs()
    if m in INDUCED:
        assert float(difference.max()) < 1e-9
    else:
        assert float(difference.min()) > 1e-3


@EVERY
def test_closed_forms_are_the_default_for_any_metric(make: Callable[[], Manifold]) -> None:
    """What a manifold gets that overrides ``inner``: a trace in a Euclidean basis, and the volume's rate."""
    m = make()
    x, t, field = points(m, 2), times(2), wavy_field(m)
    u, div = divergence(field, m, x, t)
    vectors, covectors = Manifold.divergence_frame(m, x)
    rank = len(m.event_shape)
    terms = [
        (torch.func.jvp(lambda y: field(y, t), (x,), (e,))[1] * w).flatten(1).sum(-1)
        for e, w in zip(vectors.movedim(-1 - rank, 0), covectors.movedim(-1 - rank, 0), strict=True)
    ]
    volume = torch.func.jvp(lambda y: log_volume_density(m, y), (x,), (u,))[1]
    torch.testing.assert_close(sum(terms) + volume, div, rtol=1e-7, atol=1e-8)


@EVERY
@pytest.mark.parametrize(("depth", "condition_dim"), [(0, 0), (2, 0), (1, 2)])
def test_closed_form_of_the_network_is_its_derivative(
    make: Callable[[], Manifold], depth: int, condition_dim: int
) -> None:
    m = make()
    field = network(m, depth, condition_dim)
    x, t = points(m, 4), times(4)
    conditions: list[dict[str, Tensor]] = [{}]
    if condition_dim:
        given = normal(4, condition_dim, seed=8)
        given[1] = math.nan
        conditions.append({"condition": given})
    for own in conditions:
        u, div = divergence(field, m, x, t, **own)
        reference, trace = divergence(plain(field), m, x, t, **own)
        torch.testing.assert_close(u, reference)
        torch.testing.assert_close(div, trace, rtol=1e-8, atol=1e-9)
        assert float(div.abs().max()) > 1e-6


@pytest.mark.parametrize("m", [Sphere(2), SO3(), PoincareBall(2)], ids=str)
@pytest.mark.parametrize("batch", [(), (1,), (2, 3), (0,)], ids=str)
def test_divergence_has_the_batch_shape(m: Manifold, batch: tuple[int, ...]) -> None:
    x, t = points(m, *batch), times(*batch)
    for field in (wavy_field(m), network(m)):
        u, div = divergence(field, m, x, t)
        assert u.shape == x.shape
        assert div.shape == batch
    expanded = points(m).expand(3, *m.event_shape)
    torch.testing.assert_close(*[divergence(wavy_field(m), m, y, times(3))[1] for y in (expanded, expanded.clone())])


def test_divergence_keeps_single_precision() -> None:
    m = Sphere(2)
    u, div = divergence(wavy_field(m), m, points(m, 3, dtype=torch.float32), times(3).float())
    assert u.dtype == div.dtype == torch.float32


# The density.

STEPS = FixedStep(DORMAND_PRINCE, 12)


def sphere_rule(n: int) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre in height, equal weights in longitude."""
    off = torch.arange(1, n, dtype=torch.float64)
    off = off / torch.sqrt(4 * off * off - 1)
    z, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    weight = 2 * vectors[0] ** 2
    angle = (torch.arange(2 * n, dtype=torch.float64) + 0.5) * (math.pi / n)
    z, angle = torch.meshgrid(z, angle, indexing="ij")
    r = torch.sqrt(1 - z * z)
    x = torch.stack([r * torch.cos(angle), r * torch.sin(angle), z], dim=-1).reshape(-1, 3)
    return x / x.norm(dim=-1, keepdim=True), weight.repeat_interleave(2 * n) * (math.pi / n)


@pytest.mark.parametrize("kind", ["wavy", "network"])
def test_densities_on_the_sphere_integrate_to_one(kind: str) -> None:
    m = Sphere(2)
    field = wavy_field(m, size=0.3) if kind == "wavy" else network(m)
    x, weight = sphere_rule(24)
    assert float(weight.sum()) == pytest.approx(4 * math.pi)
    log_p = log_prob(field, Uniform(m), x, STEPS)
    assert float(log_p.std()) > 0.1
    assert float((weight * log_p.exp()).sum()) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("kind", ["wavy", "network"])
def test_densities_on_the_torus_integrate_to_one_and_have_no_seam(kind: str) -> None:
    m = FlatTorus(2)
    field = wavy_field(m) if kind == "wavy" else network(m)
    n = 32
    angle = (torch.arange(n, dtype=torch.float64) + 0.5) * (2 * math.pi / n) - math.pi
    x = torch.cartesian_prod(angle, angle)
    moved = transport(field, m, x, 1.0, 0.0, STEPS).final
    assert bool(((moved - x).abs() > 3).any()), "some points cross the seam"
    log_p = log_prob(field, Uniform(m), x, STEPS)
    assert float(log_p.std()) > 0.1
    assert float(log_p.exp().sum()) * (2 * math.pi / n) ** 2 == pytest.approx(1, abs=1e-3)
    pair = torch.tensor([[-math.pi, 0.3], [math.pi - 1e-9, 0.3]], dtype=torch.float64)
    left, right = log_prob(field, Uniform(m), pair, STEPS)
    assert float(left) == pytest.approx(float(right), abs=1e-6)


@pytest.mark.parametrize("m", [SO3(), Hyperboloid(2), SPD(2), Euclidean(2), PoincareBall(2)], ids=str)
def test_densities_elsewhere_integrate_to_one_by_importance(m: Manifold) -> None:
    field = wavy_field(m, size=0.5)
    if m.volume is not None:
        source = proposal = Uniform(m)
    else:
        # Wider than the flow, which moves nothing by more than 0.5.
        source, proposal = WrappedNormal(m, points(m, seed=3), 0.6), WrappedNormal(m, points(m, seed=3), 0.9)
    x = proposal.sample((1000,), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    log_p = log_prob(field, source, x, FixedStep(RK4, 8))
    assert float((log_p - source.log_prob(x)).std()) > 0.05
    ratio = (log_p - proposal.log_prob(x)).exp()
    error = float(ratio.std()) / math.sqrt(len(ratio))
    assert error < 0.07
    assert abs(float(ratio.mean()) - 1) < 4 * error


def test_closed_form_density_of_a_linear_flow() -> None:
    """The flow of x' = a x carries a normal of width s to one of width s exp(a)."""
    m = Euclidean(2)
    source = WrappedNormal(m, torch.zeros(2, dtype=torch.float64), 0.8)
    truth = WrappedNormal(m, torch.zeros(2, dtype=torch.float64), 0.8 * math.exp(0.5))
    x = points(m, 6)
    torch.testing.assert_close(log_prob(lambda y, t: 0.5 * y, source, x), truth.log_prob(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("m", [Sphere(2), FlatTorus(2), SO3(), Hyperboloid(2)], ids=str)
def test_log_densities_computed_while_sampling_are_those_computed_after(m: Manifold) -> None:
    source = Uniform(m) if m.volume is not None else WrappedNormal(m, points(m, seed=3), 0.6)
    flow = Flow(m, wavy_field(m), source)
    tight = Adaptive(atol=1e-6, rtol=1e-6)
    generator = torch.Generator().manual_seed(1)
    torch.set_default_dtype(torch.float64)
    try:
        x, log_p = flow.sample((2, 3), generator=generator, solver=tight, return_log_prob=True)
    finally:
        torch.set_default_dtype(torch.float32)
    assert log_p.shape == (2, 3)
    torch.testing.assert_close(flow.log_prob(x, solver=tight), log_p, atol=5e-5, rtol=0)
    assert float(log_p.std()) > 0.01


def test_a_mixture_of_conditions_gets_each_its_own_density() -> None:
    m = Sphere(2)
    flow = Flow(m, network(m, condition_dim=2, std=0.1))
    x, condition = points(m, 3), normal(3, 2, seed=8)
    together = flow.log_prob(x, condition=condition)
    alone = torch.stack([flow.log_prob(x[i], condition=condition[i]) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-8, rtol=0)
    assert float((together - flow.log_prob(x)).abs().max()) > 1e-5
