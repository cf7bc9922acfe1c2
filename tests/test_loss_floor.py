"""The floor of the loss: what is left of it at the exact marginal velocity, and what a field has above."""

import pytest
import torch
from random_fields import points, wavy_field
from torch import Tensor

import rfm
from manifolds import SO3, Euclidean, FlatTorus, Hyperboloid, Manifold, Product, Sphere, Stiefel
from rfm import Flow, FlowMatching, GaussianPath, GeodesicPath, Training, marginal_velocity
from rfm.couplings import OptimalTransport
from rfm.objectives import MaximumLikelihood
from rfm.paths.times import UniformTimes
from rfm.sources import Empirical, Source, default_source

SPACES = [Euclidean(2), Sphere(2), FlatTorus(2), SO3(), Hyperboloid(2), Product(Sphere(2), Euclidean(1))]


def draws(m: Manifold, source: Source, data: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    x_0 = source.sample((n,), generator=g, dtype=torch.float64)
    return x_0, data[torch.randint(len(data), (n,), generator=g)], 0.9 * torch.rand(n, generator=g).double()


@pytest.mark.parametrize("m", SPACES, ids=str)
def test_the_loss_is_its_floor_and_what_lies_above(m: Manifold) -> None:
    """In expectation: Pythagoras, since what is above is orthogonal to what crossing paths leave."""
    data, n = points(m, 5), 4000
    source = default_source(m, data)
    objective, field = FlowMatching(), wavy_field(m, size=0.5)
    x_0, x_1, t = draws(m, source, data, n)
    found = objective.floor(field, source, data, None, x_0, x_1, t)
    assert found is not None
    loss = rfm.flow_matching_loss(field, GeodesicPath(m), x_0, x_1, t, reduction="none")
    gap = loss - found.least - found.above
    assert float(gap.mean().abs()) < 4 * float(gap.std()) / n**0.5
    assert float(found.above.min()) >= 0
    assert float(found.least.mean()) > 0
    exact = objective.floor(marginal_velocity(GeodesicPath(m), data, source), source, data, None, x_0, x_1, t)
    assert exact is not None
    assert float(exact.above.abs().max()) < 1e-12


def test_on_a_plane_with_one_datum_there_is_none_to_fall_below() -> None:
    m = Euclidean(2)
    data = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    source = default_source(m, data + torch.randn(9, 2, generator=torch.Generator().manual_seed(0)))
    found = FlowMatching().floor(lambda x, t: 0 * x, source, data, None, *draws(m, source, data, 100))
    assert found is not None
    torch.testing.assert_close(found.least, torch.zeros(100).double(), atol=1e-9, rtol=0)


def test_weights_of_points_and_of_times_count() -> None:
    m, data = Sphere(2), points(Sphere(2), 3)
    source = default_source(m, data)
    x_0, x_1, t = draws(m, source, data[:1], 50)
    weights = torch.tensor([1.0, 0.0, 0.0])
    alone = FlowMatching().floor(wavy_field(m), source, data[:1], None, x_0, x_1, t)
    same = FlowMatching(weight=lambda t: 3 * t).floor(wavy_field(m), source, data, weights, x_0, x_1, t)
    assert alone is not None
    assert same is not None
    torch.testing.assert_close(same.above, 3 * t * alone.above)


def test_fit_notes_it() -> None:
    m = Euclidean(2)
    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    objective = FlowMatching(GaussianPath(m), UniformTimes())
    training = Training(floor=True, patience=99)
    flow = rfm.fit(x, m, steps=150, refine=False, progress=False, objective=objective, training=training)
    last = flow.history[-1]
    assert last["loss_floor"] > 0 < last["loss_above_floor"]
    # The loss is a moving average over batches; both are means over draws.
    assert last["loss"] == pytest.approx(last["loss_floor"] + last["loss_above_floor"], rel=0.3)
    assert "loss_floor" not in flow.history[0]


def test_where_it_is_not_known_fit_says_why() -> None:
    m = Euclidean(2)
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    asked = Training(floor=True)
    for options, message in (
        ({"condition": x[:, 0]}, "with conditions or pairs"),
        ({"coupling": OptimalTransport(m)}, "OptimalTransport makes pairs"),
        ({"objective": MaximumLikelihood()}, "MaximumLikelihood has none"),
        ({"start": x + 1}, "from Empirical"),
        ({"start": x + 1, "pairs": True}, "with conditions or pairs"),
    ):
        with pytest.raises(ValueError, match=message) as refused:
            rfm.fit(x, m, steps=2, progress=False, training=asked, **options)
        assert "\n" not in str(refused.value)
    assert not FlowMatching().has_floor(Empirical(m, x))
    solved = Stiefel(4, 2)
    assert not FlowMatching().has_floor(
        Flow(solved, lambda x, t: 0 * x, default_source(solved, points(solved, 9))).source
    )
