"""Operators, regions and slices: values against formulas, chains on slices against conditional densities."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import rfm
from manifolds import SE3, SO3, Euclidean, FlatTorus, Power, Product, Sphere
from rfm.integrators import FixedStep
from rfm.posterior import Chains, Guided, Importance, Measurement, Polygon, Slice, Tempering, operators
from rfm.sources import IsotropicGaussianSO3, PowerSource, ProductSource, RigidMotionSource, Uniform, WrappedNormal


def drawn(manifold: Sphere | SO3 | FlatTorus | SE3 | Power, n: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    if isinstance(manifold, SE3):
        return RigidMotionSource(manifold, Uniform(SO3())).sample((n,), generator=generator, dtype=torch.float64)
    return manifold.random_uniform(n, generator=generator, dtype=torch.float64)


def test_latitude_and_longitude_are_those_of_the_map() -> None:
    x = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.0, math.sqrt(0.75)], [-1.0, -1e-9, 0.0]], dtype=torch.float64)
    assert torch.allclose(operators.LATITUDE(x), torch.tensor([0, math.pi / 3, 0], dtype=torch.float64))
    assert torch.allclose(operators.LONGITUDE(x), torch.tensor([math.pi / 2, 0, -math.pi], dtype=torch.float64))
    across = Measurement(operators.LONGITUDE, math.pi - 0.01, 0.05)
    assert across(x[2]) == pytest.approx(-(0.01**2) / 2 / 0.05**2 - math.log(0.05 * math.sqrt(2 * math.pi)), abs=1e-6)


def test_a_wrapped_measurement_is_a_density_on_the_circle() -> None:
    grid = (torch.arange(720, dtype=torch.float64) + 0.5) / 720 * 360
    for noise in (5.0, 90.0, 180.0):
        density = Measurement(operators.Operator(lambda x: x, 360.0), 350.0, noise)(grid).exp()
        assert float(density.mean() * 360) == pytest.approx(1, abs=1e-6)
    with pytest.raises(ValueError, match="more than half the period"):
        Measurement(operators.angles(0), 0.0, 4.0)


def test_bearing_and_distance_give_back_the_point() -> None:
    sphere = Sphere(2)
    x, beacon = drawn(sphere), torch.tensor([1.0, 0, 0], dtype=torch.float64)
    north, east = torch.tensor([[0.0, 0, 1], [0.0, 1, 0]], dtype=torch.float64)
    angle = operators.bearing(sphere, beacon, north, east)(x)
    length = operators.distance_to(sphere, beacon)(x)
    u = length[:, None] * (angle.cos()[:, None] * north + angle.sin()[:, None] * east)
    assert torch.allclose(sphere.expmap(beacon.expand_as(u), u), x)


def test_displacements_have_the_length_of_the_distance() -> None:
    for manifold in (Sphere(2), SO3(), FlatTorus(3), SE3()):
        x = drawn(manifold)
        values = operators.displacement(manifold, x[0])(x)
        assert values.shape == (len(x), manifold.dim)
        assert torch.allclose(values.norm(dim=-1), manifold.dist(x[0], x), atol=1e-9)
    rows = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    x = drawn(Sphere(2))
    full, mapped = (operators.displacement(Sphere(2), x[0], r)(x) for r in (None, rows))
    assert torch.allclose(mapped, full @ rows.T)


def test_parts_of_points() -> None:
    poses = drawn(SE3())
    assert torch.equal(operators.POSITION(poses), poses[:, :3, 3])
    chain = drawn(Power(SO3(), 4)).reshape(7, 4, 3, 3)
    some = operators.frames([0, 2])(chain)
    assert torch.equal(some, chain[:, [0, 2]])
    part = operators.displacement(Power(SO3(), 2), some[0], part=operators.frames([0, 2]))
    assert torch.allclose(part(chain)[0], torch.zeros(6, dtype=torch.float64), atol=1e-7)
    assert torch.equal(operators.angles([1, 2])(torch.eye(3)), torch.eye(3)[:, 1:])
    kept = torch.tensor([True, False, True])
    assert torch.equal(operators.mask(kept)(torch.eye(3)), torch.eye(3)[:, [0, 2]])
    rows = torch.arange(18.0).reshape(2, 9)
    assert torch.equal(
        operators.matrix(rows)(chain.float()), torch.einsum("oi,bki->bko", rows, chain.float().flatten(2))
    )


def test_polygons_hold_what_is_inside_either_way_round() -> None:
    corners = torch.tensor([[0.0, 0, 1], [1.0, 0, 0], [0.0, 1, 0]], dtype=torch.float64)
    x = Sphere(2).random_uniform(2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    octant = (x > 0).all(-1)
    for order in (corners, corners.flip(0)):
        assert torch.equal(Polygon(order)(x), octant)
    # A notch, so that the region is not convex.
    notched = torch.cat([corners, torch.tensor([[0.4, 0.4, math.sqrt(0.68)]], dtype=torch.float64)])
    share = Polygon(notched)(x).double().mean()
    assert 0 < share < octant.double().mean()
    with pytest.raises(ValueError, match="one hemisphere"):
        Polygon(torch.cat([corners, -corners]))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: operators.mask(torch.zeros(3, dtype=torch.bool)), "at least one"),
        (lambda: operators.matrix(torch.eye(3))(torch.zeros(2)), "hold 3 numbers each"),
        (lambda: Polygon(torch.eye(3)[:2]), "three points"),
        (lambda: Slice.of_factors(Product(Sphere(2), FlatTorus(1)), {5: torch.zeros(1)}), "numbers from 0 to 1"),
        (lambda: Slice.of_copies(Power(SO3(), 2), {0: torch.zeros(3, 3)}), "Slice.of_copies"),
        (lambda: Slice.of_position([0.0, 1.0]), "Slice.of_position"),
        (lambda: Slice.of_position([math.nan] * 3), "at least one of them known"),
        (lambda: Slice.of_position([0.0, math.inf, 0.0]), "Slice.of_position"),
        (lambda: Slice.of_entries(FlatTorus(2), [0.0, 1.0]), "and one not"),
        (lambda: Slice.of_entries(Sphere(2), [0.0, math.nan, math.nan]), "on Euclidean and FlatTorus"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(make: Callable[[], object], match: str) -> None:
    with pytest.raises(ValueError, match=match) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_measurement_that_nothing_reaches_is_reported() -> None:
    flow = rfm.Flow(Sphere(2), lambda x, t: torch.zeros_like(x))
    far = Measurement(operators.distance_to(Sphere(2), torch.tensor([0.0, 0, 1])), 4.0, 0.05)
    draws = flow.posterior(far, 256, solver=FixedStep(steps=1), generator=torch.Generator().manual_seed(0))
    assert any("miss the measurement" in note for note in draws.warnings)
    fine = Measurement(operators.distance_to(Sphere(2), torch.tensor([0.0, 0, 1])), 2.0, 0.05)
    assert not flow.posterior(fine, 256, solver=FixedStep(steps=1)).warnings


# Slices.


def tied(product: Product) -> rfm.Flow:
    """Return a flow on a torus times a line whose angle drives the line, so that the two are dependent."""

    def field(x: Tensor, t: Tensor) -> Tensor:
        return torch.stack([torch.zeros_like(x[..., 0]), 2 * x[..., 0].cos()], dim=-1)

    source = ProductSource(product, [Uniform(FlatTorus(1)), WrappedNormal(Euclidean(1), torch.zeros(1), 0.5)])
    return rfm.Flow(product, field, source)


@pytest.mark.parametrize("method", [Importance(4000), Tempering(moves=5)], ids=["importance", "tempering"])
def test_draws_of_a_slice_follow_the_conditional_density(method: Tempering | Importance) -> None:
    product = Product(FlatTorus(1), Euclidean(1))
    flow, y = tied(product), 1.2
    draws = flow.posterior(
        None,
        1000,
        known=Slice.of_factors(product, {1: [y]}),
        method=method,
        solver=FixedStep(steps=4),
        generator=torch.Generator().manual_seed(0),
    )
    # p(angle | y) is proportional to N(y; 2 cos(angle), 0.5).
    grid = (torch.arange(720, dtype=torch.float64) + 0.5) / 720 * 2 * math.pi
    log_p = -((y - 2 * grid.cos()) ** 2) / 2 / 0.25
    shares = torch.softmax(log_p, 0)
    angle = draws.points[:, 0].double()
    assert torch.allclose(draws.points[:, 1], torch.tensor(y))
    for f in (torch.cos, lambda a: torch.cos(2 * a), torch.sin):
        mean = (shares * f(grid)).sum()
        spread = (shares * (f(grid) - mean) ** 2).sum().sqrt()
        assert float((f(angle).mean() - mean).abs()) < 4.5 * float(spread) / math.sqrt(draws.effective_sample_size)
    evidence = (log_p.exp() / (0.5 * math.sqrt(2 * math.pi))).mean().log()
    assert draws.log_evidence == pytest.approx(float(evidence), abs=0.1)


def test_a_pose_of_known_position_has_a_free_orientation() -> None:
    # Positions are moved by the orientation's axis, so that a position says where that axis points.
    def field(x: Tensor, t: Tensor) -> Tensor:
        return torch.nn.functional.pad(x[..., :3, 2:3], (3, 0, 0, 1))

    flow = rfm.Flow(SE3(), field, RigidMotionSource(SE3(), Uniform(SO3()), 0.3))
    draws = flow.posterior(
        None,
        300,
        known=Slice.of_position([0.0, 0.0, 1.0]),
        method=Tempering(particles=150, moves=4),
        solver=FixedStep(steps=2),
        generator=torch.Generator().manual_seed(0),
    )
    SE3().check_point(draws.points, tol=1e-4)
    # p(axis) is proportional to exp(cos(angle) / 0.09): a von Mises-Fisher density of concentration 1 / 0.09.
    kappa = 1 / 0.09
    assert float(draws.points[:, 2, 2].mean()) == pytest.approx(1 / math.tanh(kappa) - 1 / kappa, abs=0.03)
    assert torch.allclose(draws.points[:, :3, 3], torch.tensor([0.0, 0, 1]))


def test_a_known_coordinate_of_a_position_gives_the_ratio_of_joint_and_marginal() -> None:
    # As above; the height alone is known: orientations whose axis has that height, positions normal about the axis.
    def field(x: Tensor, t: Tensor) -> Tensor:
        return torch.nn.functional.pad(x[..., :3, 2:3], (3, 0, 0, 1))

    flow, height = rfm.Flow(SE3(), field, RigidMotionSource(SE3(), Uniform(SO3()), 0.3)), 0.8
    draws = flow.posterior(
        None,
        600,
        known=Slice.of_position([math.nan, math.nan, height]),
        method=Tempering(particles=600, moves=6),
        solver=FixedStep(steps=2),
        generator=torch.Generator().manual_seed(0),
    )
    SE3().check_point(draws.points, tol=1e-4)
    assert torch.allclose(draws.points[:, 2, 3], torch.tensor(height))
    # The joint density of cosine c and height over the marginal of the height, by quadrature; c is uniform.
    c = (torch.arange(4000, dtype=torch.float64) + 0.5) / 2000 - 1
    joint = (-((height - c) ** 2) / 2 / 0.09).exp() / math.sqrt(2 * math.pi * 0.09)
    mean = float((joint * c).sum() / joint.sum())
    spread = float((joint * (c - mean) ** 2).sum() / joint.sum()) ** 0.5
    found = draws.points[:, 2, 2].double()
    error = spread / math.sqrt(min(draws.effective_sample_size, 600))
    assert float(found.mean()) == pytest.approx(mean, abs=4.5 * error)
    assert float(found.std()) == pytest.approx(spread, rel=0.2)
    # The evidence is the marginal density of the height.
    assert draws.log_evidence == pytest.approx(float(joint.mean().log()), abs=0.15)
    # What is free of the position follows the axis.
    off = (draws.points[:, :2, 3] - draws.points[:, :2, 2]).double()
    assert float(off.std()) == pytest.approx(0.3, rel=0.15)


def test_orientations_that_are_narrow_on_a_slice_are_found() -> None:
    # A millionth of all rotations: no draw of a uniform source would be near.
    turned = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    source = RigidMotionSource(SE3(), IsotropicGaussianSO3(turned, 0.02), 1.0)
    flow = rfm.Flow(SE3(), lambda x, t: torch.zeros_like(x), source)
    draws = flow.posterior(
        None,
        200,
        known=Slice.of_position([0.5, 0.0, 0.0]),
        method=Importance(1000),
        solver=FixedStep(steps=1),
        generator=torch.Generator().manual_seed(0),
    )
    assert draws.effective_sample_size > 100
    angles = SO3().dist(draws.points[:, :3, :3], turned)
    assert float(angles.square().mean().sqrt()) == pytest.approx(0.02 * math.sqrt(3), rel=0.2)
    # The evidence is the density of the position.
    assert draws.log_evidence == pytest.approx(-(0.5**2) / 2 - 1.5 * math.log(2 * math.pi), abs=0.15)


@pytest.mark.parametrize("space", [Euclidean(3), FlatTorus(3)], ids=str)
def test_known_entries_stand_in_their_places(space: Euclidean | FlatTorus) -> None:
    known = Slice.of_entries(space, [math.nan, 0.5, math.nan])
    x = torch.tensor([[1.0, 9.0, 2.0], [3.0, 9.0, -1.0]])
    assert torch.equal(known.join(known.free(x)), torch.tensor([[1.0, 0.5, 2.0], [3.0, 0.5, -1.0]]))
    assert type(known.manifold) is type(space)
    assert known.manifold.dim == 2
    known.check(space)


def test_copies_of_a_power_are_held_in_their_places() -> None:
    power = Power(FlatTorus(1), 3)
    flow = rfm.Flow(power, lambda x, t: torch.zeros_like(x), PowerSource(power, Uniform(FlatTorus(1))))
    near = Measurement(operators.Operator(lambda x: x[..., 2, 0] - x[..., 1, 0], 2 * math.pi), 0.5, 0.1)
    draws = flow.posterior(
        near, 300, known=Slice.of_copies(power, {1: [1.0]}), generator=torch.Generator().manual_seed(0)
    )
    assert torch.allclose(draws.points[:, 1], torch.tensor(1.0))
    assert float(draws.points[:, 2].mean()) == pytest.approx(1.5, abs=0.05)


def test_slices_are_not_guided_and_need_something_known() -> None:
    product = Product(FlatTorus(1), Euclidean(1))
    flow, known = tied(product), Slice.of_factors(product, {1: [0.0]})
    with pytest.raises(ValueError, match="guides a flow"):
        flow.posterior(None, 10, known=known, method=Guided([]), solver=FixedStep(steps=2))
    with pytest.raises(ValueError, match="nothing is given"):
        flow.posterior(None, 10)
    with pytest.raises(ValueError, match="no part of"):
        flow.posterior(None, 10, known=Slice.of_position([0.0, 0, 0]))
    assert Chains().chains > 0
