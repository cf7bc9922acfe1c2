"""The distribution of given points: draws, weights, saving, and that it has no density."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from manifold_zoo import ZOO
from random_fields import points, wavy_field

import rfm
from manifolds import Euclidean, FlatTorus, Manifold, Power, Product, Sphere
from rfm.likelihood import log_prob
from rfm.networks import VelocityField
from rfm.objectives import MaximumLikelihood
from rfm.sources import Empirical, KernelMixture, PowerSource, ProductSource, Uniform

EACH = pytest.mark.parametrize("make", [make for _, make in ZOO], ids=[name for name, _ in ZOO])


@EACH
def test_draws_are_given_points(make: Callable[[], Manifold]) -> None:
    manifold = make()
    x = points(manifold, 5, seed=1)
    source = Empirical(manifold, x)
    drawn = source.sample((4, 50), torch.Generator().manual_seed(0), torch.float64)
    assert drawn.shape == (4, 50, *manifold.event_shape)
    same = (drawn.flatten(0, 1)[:, None] == x).flatten(2).all(-1)
    assert bool((same.sum(1) == 1).all())
    assert bool((same.sum(0) > 20).all())
    manifold.check_point(source.sample((7,), torch.Generator().manual_seed(0), torch.float32))


def test_weights_are_probabilities() -> None:
    plane = Euclidean(1)
    x = torch.arange(4.0, dtype=torch.float64)[:, None]
    weights = torch.tensor([0.0, 3.0, 1.0, 0.0])
    drawn = Empirical(plane, x, weights).sample((20000,), torch.Generator().manual_seed(0))[:, 0]
    counts = torch.bincount(drawn.long(), minlength=4)
    assert counts[0] == counts[3] == 0
    # Four standard errors of a share of 3/4.
    assert abs(float(counts[1]) / 20000 - 0.75) < 4 * (0.75 * 0.25 / 20000) ** 0.5


@pytest.mark.parametrize(
    ("x", "weights", "message"),
    [
        (torch.zeros(3, 2), None, r"shape \(n, 3\)"),
        (torch.ones(3, 3), None, "off it by"),
        (torch.empty(0, 3), None, "at least 1"),
        (torch.eye(3), torch.tensor([1.0, -1.0, 1.0]), "none negative"),
        (torch.eye(3), torch.zeros(3), "not all zero"),
        (torch.eye(3), torch.ones(2), r"got shape \(2,\)"),
    ],
)
def test_what_is_no_distribution_is_refused(x: torch.Tensor, weights: torch.Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Empirical(Sphere(2), x, weights)


def test_no_density_is_said_before_anything_is_solved() -> None:
    sphere = Sphere(2)
    source = Empirical(sphere, torch.eye(3))

    def field(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        raise AssertionError("no solve is needed to know that there is no density")

    flow = rfm.Flow(sphere, field, source)
    for ask in (
        lambda: source.log_prob(torch.eye(3)),
        lambda: flow.log_prob(torch.eye(3)),
        lambda: flow.sample(3, return_log_prob=True),
        lambda: log_prob(field, source, torch.eye(3)),
        lambda: MaximumLikelihood().check(sphere, source, torch.eye(3)),
        lambda: KernelMixture(sphere, torch.eye(3), torch.ones(1), torch.tensor([0.9, 0.1]), source),
    ):
        with pytest.raises(ValueError, match="consists of given points, which have no density"):
            ask()


def test_products_have_a_density_only_if_all_parts_have() -> None:
    sphere, torus = Sphere(2), FlatTorus(1)
    product, power = Product(sphere, torus), Power(sphere, 2)
    given, free = Empirical(sphere, torch.eye(3)), Uniform(torus)
    assert not ProductSource(product, [given, free]).has_density
    assert ProductSource(product, [Uniform(sphere), free]).has_density
    assert not PowerSource(power, given).has_density
    assert PowerSource(power, Uniform(sphere)).has_density


@pytest.mark.parametrize("count", [3, 300])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_saved_flow_holds_its_start_points(tmp_path: Path, count: int, weighted: bool) -> None:
    sphere = Sphere(2)
    x = points(sphere, count, seed=2)
    weights = torch.rand(count, generator=torch.Generator().manual_seed(0)) if weighted else None
    network = VelocityField(sphere, width=8, depth=1, features=4, max_frequency=4.0)
    flow = rfm.Flow(sphere, network, Empirical(sphere, x, weights))
    flow.save(tmp_path)
    again = rfm.Flow.load(tmp_path)
    draw, same = (f.sample(20, generator=torch.Generator().manual_seed(3)) for f in (flow, again))
    assert torch.equal(draw, same)
    assert isinstance(again.source, Empirical)
    assert torch.equal(again.source.points, x)


@EACH
def test_transport_is_the_end_of_the_trajectory(make: Callable[[], Manifold]) -> None:
    manifold = make()
    x = points(manifold, 6, seed=1)
    flow = rfm.Flow(manifold, wavy_field(manifold), Empirical(manifold, x))
    found = flow.transport(x.reshape(2, 3, *manifold.event_shape), batch_size=4)
    assert found.shape == (2, 3, *manifold.event_shape)
    expected = flow.trajectory(x, (0.0, 1.0))[-1]
    assert float(manifold.dist(found.flatten(0, 1), expected).max()) < 1e-5
