"""Products of several numbers of factors in one batch: each point keeps the laws of its own product."""

import functools
import math

import pytest
import torch
from product_maps import check_maps
from random_fields import normal, points, wavy_field
from torch import Tensor, nn

import rfm
from manifolds import SE3, SPD, FlatTorus, Manifold, Power, Product, Ragged, Sphere
from manifolds.testing import check_manifold
from rfm.integrators import FixedStep
from rfm.networks import VelocityField
from rfm.sources import RaggedSource, RigidMotionSource, Uniform

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

DOCKING = Ragged(SE3(2.0), FlatTorus(1), 3)
FAMILIES = [DOCKING, Ragged(FlatTorus(2), Sphere(2), 2), Ragged(SPD(2), SE3(), 2)]


def drawn(m: Ragged, k: int, count: int, seed: int = 0) -> tuple[Tensor, Tensor, Product | Manifold]:
    """Return points with k copies, the same of the product that they are points of, and the product."""
    head, copies = points(m.head, count, seed=seed), points(m.one, count, k, seed=seed + 5)
    product = Product(m.head, Power(m.one, k)) if k else Product(m.head)
    return m.pack(head, copies), product.join(head, copies) if k else product.join(head), product


def shortened(m: Ragged, u: Tensor, k: int) -> Tensor:
    """Return what the first copies have of points or vectors."""
    size = m.head.event_shape.numel() + k * m.one.event_shape.numel()
    return u[..., :size]


@pytest.mark.parametrize(
    "m", [pytest.param(DOCKING, marks=pytest.mark.slow), Ragged(FlatTorus(2), Sphere(2), 2)], ids=str
)
def test_laws_without_padding(m: Ragged) -> None:
    x = drawn(m, m.most, 8)[0]
    check_manifold(m, dtypes=(torch.float64,), points=x).raise_if_failed()


@pytest.mark.parametrize("m", FAMILIES, ids=str)
def test_every_map_is_that_of_the_product_without_the_padding(m: Ragged) -> None:
    for k in range(m.most + 1):
        (x, a, product), (y, b, _) = drawn(m, k, 5), drawn(m, k, 5, 50)
        check_maps(m, product, functools.partial(shortened, m, k=k), (x, a), (y, b))


@pytest.mark.parametrize("m", FAMILIES, ids=str)
def test_divergence_is_that_of_the_product(m: Ragged) -> None:
    field = wavy_field(m)
    for k in range(m.most + 1):
        x, a, product = drawn(m, k, 4)

        def restricted(b: Tensor, t: Tensor, k: int = k) -> Tensor:
            parts = (b[..., : m.head.event_shape.numel()], b[..., m.head.event_shape.numel() :])
            head, copies = (
                parts[0].unflatten(-1, m.head.event_shape),
                parts[1].reshape(*b.shape[:-1], k, *m.one.event_shape),
            )
            return shortened(m, field(m.pack(head, copies), t), k)

        t = torch.full((4,), 0.3, dtype=torch.float64)
        found, expected = rfm.divergence(field, m, x, t)[1], rfm.divergence(restricted, product, a, t)[1]
        torch.testing.assert_close(found, expected, atol=1e-8, rtol=0)


def test_between_points_of_different_products_there_is_no_way() -> None:
    x, y = drawn(DOCKING, 1, 1)[0], drawn(DOCKING, 2, 1)[0]
    assert DOCKING.dist(x, y).isinf().all()
    assert DOCKING.logmap(x, y).isnan().all()


def test_padding_is_checked() -> None:
    x = drawn(DOCKING, 1, 2)[0]
    x[0, 17] = 0.5
    with pytest.raises(ValueError, match="Ragged"):
        DOCKING.check_point(x)
    with pytest.raises(ValueError, match="at most 3"):
        DOCKING.pack(torch.eye(4), torch.zeros(4, 1))
    head, copies, there = DOCKING.unpack(DOCKING.projx(x))
    assert there.sum(-1).tolist() == [1, 1]
    assert copies.shape == (2, 3, 1)
    assert head.shape == (2, 4, 4)


def test_density_of_all_numbers_of_copies_sums_to_one() -> None:
    """By quadrature over the torus of each number of copies."""
    m = Ragged(FlatTorus(1), FlatTorus(1), 2)
    source = RaggedSource(m, Uniform(m.head), Uniform(m.one), torch.tensor([1.0, 2.0, 1.0]))
    flow = rfm.Flow(m, wavy_field(m, size=0.5), source)
    n, masses = 16, []
    angle = (torch.arange(n, dtype=torch.float64) + 0.5) * (2 * math.pi / n) - math.pi
    for k in range(3):
        grid = torch.cartesian_prod(*[angle] * (k + 1)).reshape(-1, k + 1)
        log_p = flow.log_prob(m.pack(grid[:, :1], grid[:, 1:, None]), solver=FixedStep(steps=20))
        assert float(log_p.std()) > 0.05
        masses.append(float(log_p.exp().sum()) * (2 * math.pi / n) ** (k + 1))
    assert masses == pytest.approx([0.25, 0.5, 0.25], abs=1e-4)


def test_source() -> None:
    m = DOCKING
    source = RaggedSource(m, RigidMotionSource(m.head, Uniform(m.head.rotations), 1.0), Uniform(m.one), [0, 1, 0, 3])
    x = source.sample(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    m.check_point(x)
    counts = torch.bincount(m.unpack(x)[2].sum(-1), minlength=4) / 4000
    assert counts.tolist() == pytest.approx([0, 0.25, 0, 0.75], abs=0.04)
    beside = source.beside(x, torch.Generator().manual_seed(1))
    assert torch.equal(m.unpack(beside)[2], m.unpack(x)[2])
    assert m.dist(beside, x).isfinite().all()
    for bad in ([1.0, 1.0], [0.0] * 4, [-1.0, 1.0, 1.0, 1.0]):
        with pytest.raises(ValueError, match="probabilities"):
            RaggedSource(m, source.head, source.one, torch.tensor(bad))


def test_fit_stream() -> None:
    """Docking poses of several numbers of torsions: likelihood far above the source's, samples where the data are."""
    m = Ragged(FlatTorus(1), FlatTorus(1), 3)
    generator = torch.Generator().manual_seed(0)
    there = torch.arange(3) < torch.randint(1, 4, (600, 1), generator=generator)
    angle = 0.3 * normal(600, 1, seed=1, dtype=torch.float32) + 1
    # Torsions follow the head, the second the other way round.
    sign = torch.tensor([1.0, -1.0, 1.0])
    torsions = (sign * angle + 0.2 * normal(600, 3, seed=2, dtype=torch.float32))[..., None]
    data = m.pack(m.head.projx(angle), m.head.projx(torsions), there)
    source = RaggedSource(m, Uniform(m.head), Uniform(m.one), torch.bincount(there.sum(-1), minlength=4))
    torch.manual_seed(0)
    flow = rfm.Flow(m, VelocityField(m), source)

    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        x_1 = data[torch.randint(500, (128,), generator=generator)]
        return source.beside(x_1, generator), x_1, torch.rand(128, generator=generator), {}

    def validate(field: nn.Module) -> float:
        solver = FixedStep(steps=10)
        return -float(rfm.Flow(m, field, source).log_prob(data[500:], solver=solver).mean())

    few = rfm.Training(validations=2)
    rfm.fit_stream(draw, flow, validate=validate, steps=200, training=few, progress=False, device="cpu")
    gain = flow.log_prob(data[500:]).mean() - source.log_prob(data[500:]).mean()
    assert float(gain) > 1.5
    _, copies, there = m.unpack(flow.sample(300, generator=generator))
    assert float((copies[there[:, 1]][:, 1] + 1).abs().median()) < 0.6
    assert bool((copies[~there] == 0).all())
