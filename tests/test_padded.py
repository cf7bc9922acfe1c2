"""Products of which points have some factors: each point keeps the laws of the product of its own."""

import functools
import itertools
import math

import pytest
import torch
from product_maps import check_maps
from random_fields import points, wavy_field
from torch import Tensor

import rfm
from manifolds import SE3, SO3, Euclidean, FlatTorus, Manifold, Padded, Power, Product, Sphere
from manifolds.testing import check_manifold
from rfm.integrators import FixedStep
from rfm.sources import PaddedSource, PowerSource, ProductSource, Uniform, default_source

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

ROBOTS = Padded(SE3(2.0), Euclidean(1), FlatTorus(3))
FAMILIES = [ROBOTS, Padded(Sphere(2), FlatTorus(2), weights=(4.0, 0.5)), Padded(SO3())]
EACH = pytest.mark.parametrize("m", FAMILIES, ids=str)


def some(m: Padded, there: tuple[bool, ...], count: int, seed: int = 0) -> tuple[Tensor, Tensor, Product]:
    """Return points with some factors, the same of the product of those alone, and that product."""
    own: list[Manifold] = [f for f, here in zip(m.factors, there, strict=True) if here]  # type: ignore[misc]
    product = Product(*own, weights=[w for w, here in zip(m.weights, there, strict=True) if here])
    parts = [points(f, count, seed=seed + i) for i, f in enumerate(own)]
    drawn = iter(parts)
    return m.join(*(next(drawn) if here else None for here in there)), product.join(*parts), product


def left(m: Padded, u: Tensor, there: tuple[bool, ...]) -> Tensor:
    """Return what points or vectors have of the factors that are there."""
    return torch.cat([p.flatten(1) for p, here in zip(m.split(u), there, strict=True) if here], dim=-1)


def subsets(m: Padded) -> list[tuple[bool, ...]]:
    return [own for own in itertools.product((True, False), repeat=len(m.factors)) if any(own)]


@pytest.mark.slow
def test_laws_without_padding() -> None:
    m = FAMILIES[1]
    x = some(m, (True,) * len(m.factors), 8)[0]
    check_manifold(m, dtypes=(torch.float64,), points=x).raise_if_failed()


@EACH
def test_every_map_is_that_of_the_product_of_what_is_there(m: Padded) -> None:
    for own in subsets(m):
        (x, a, product), (y, b, _) = some(m, own, 5), some(m, own, 5, 50)
        end = check_maps(m, product, functools.partial(left, m, there=own), (x, a), (y, b))
        assert m.there(end).tolist() == [list(own)] * 5


@EACH
def test_networks_see_zeros_and_marks_for_padding(m: Padded) -> None:
    for own in subsets(m):
        e = m.embed(some(m, own, 3)[0])
        assert e.shape == (3, m.embed_dim)
        assert e[:, -len(own) :].tolist() == [[float(here) for here in own]] * 3
        sizes = [f.embed_dim for f in m.factors]
        for part, here in zip(e[:, : -len(own)].split(sizes, -1), own, strict=True):  # type: ignore[arg-type]
            assert bool(part.any()) is here


def test_divergence_and_density_are_those_of_what_is_there() -> None:
    """By quadrature over the torus of each set of factors, of a flow with another field on each."""
    m = Padded(FlatTorus(1), FlatTorus(1))
    source = PaddedSource(m, ProductSource(m.full, [Uniform(f) for f in m.factors]))  # type: ignore[arg-type]
    flow, n = rfm.Flow(m, wavy_field(m, size=0.8), source), 16
    angle = (torch.arange(n, dtype=torch.float64) + 0.5) * (2 * math.pi / n) - math.pi
    for own in subsets(m):
        grid = torch.cartesian_prod(*[angle] * sum(own)).reshape(-1, sum(own))
        columns = iter(grid.split(1, -1))
        x = m.join(*(next(columns) if here else None for here in own))
        log_p = flow.log_prob(x, solver=FixedStep(steps=20))
        assert float(log_p.std()) > 0.01
        assert float(log_p.exp().sum()) * (2 * math.pi / n) ** sum(own) == pytest.approx(1.0, abs=1e-4)


def test_source_draws_what_points_have() -> None:
    x = torch.cat([some(ROBOTS, own, 50)[0] for own in subsets(ROBOTS)])
    source = default_source(ROBOTS, x)
    assert isinstance(source, PaddedSource)
    beside = source.beside(x, torch.Generator().manual_seed(1))
    ROBOTS.check_point(beside)
    assert torch.equal(ROBOTS.there(beside), ROBOTS.there(x))
    assert ROBOTS.dist(beside, x).isfinite().all()
    assert bool(ROBOTS.there(source.sample(3)).all())
    # The normal part is fitted to the points that have it, not to padding.
    gripper = ROBOTS.split(x)[1][ROBOTS.there(x)[:, 1]]
    drawn = ROBOTS.split(source.sample(20_000, torch.Generator().manual_seed(2), torch.float64))[1]
    assert float(drawn.std() / gripper.std()) == pytest.approx(1, abs=0.05)
    everything = tuple([True] * 3)
    a, b, product = some(ROBOTS, everything, 4)
    torch.testing.assert_close(source.log_prob(a), ProductSource(product, source.full.sources).log_prob(b))
    assert isinstance(default_source(Power(ROBOTS, 2), torch.stack([x, x], 1)), PowerSource)


def test_between_points_of_other_factors_there_is_no_way() -> None:
    x, y = some(ROBOTS, (True, False, False), 1)[0], some(ROBOTS, (True, True, False), 1)[0]
    assert ROBOTS.dist(x, y).isinf().all()
    assert ROBOTS.logmap(x, y).isnan().all()
    fewer = ROBOTS.limited(y, torch.tensor([True, False, True]))
    assert ROBOTS.there(fewer).tolist() == [[True, False, False]]
    for parts, found in (((None, None, None), "at least one part"), ((torch.eye(4),), "for each of 3")):
        with pytest.raises(ValueError, match=found):
            ROBOTS.join(*parts)
    with pytest.raises(ValueError, match="full must be a ProductSource"):
        PaddedSource(ROBOTS, Uniform(FlatTorus(1)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="lives on Padded"):
        PaddedSource(FlatTorus(1), Uniform(FlatTorus(1)))  # type: ignore[arg-type]
