"""Few rotations are taken row by row and many entry by entry: to the same results, and by the same laws."""

from collections.abc import Callable

import pytest
import torch
from random_fields import normal, points, tangents
from torch import Tensor

from manifolds import SE3, SO3, Manifold
from manifolds.rotations import rotation_rows
from manifolds.testing import check_manifold
from rfm.networks import VelocityField

MANIFOLDS: list[Manifold] = [SO3(), SE3(2.0)]
EVERY = pytest.mark.parametrize("m", MANIFOLDS, ids=repr)


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """What makes any number of rotations count as many."""
    return lambda: monkeypatch.setattr(rotation_rows, "FEW", -1)


def maps(m: Manifold) -> dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]]:
    group = m.lie_group
    assert group is not None
    x, size = points(m, 5), 3 if isinstance(m, SO3) else 6
    u, a, b = tangents(m, x), normal(5, size, seed=2), normal(5, size, seed=3)
    w, dw = normal(5, m.field_dim, seed=4), normal(2, 5, m.field_dim, seed=5)
    v = torch.stack([tangents(m, x, seed=6), tangents(m, x, seed=7)])
    return {
        "proju": (m.proju, (x, normal(*x.shape, seed=8))),
        "expmap": (m.expmap, (x, u)),
        "tangent_from_vector_jvp": (
            lambda *given: torch.stack(m.coordinates.tangent_from_vector_jvp(*given)[1:]),
            (x, w, v, dw),
        ),
        "to_algebra": (group.to_algebra, (x, u)),
        "from_algebra": (group.from_algebra, (x, a)),
        "translate": (group.translate, (x, a)),
        "bracket": (group.bracket, (a, b)),
    }


@EVERY
def test_few_and_many_agree(m: Manifold, many: Callable[[], None]) -> None:
    few = {name: function(*given) for name, (function, given) in maps(m).items()}
    slopes = {name: torch.func.jvp(function, given, given)[1] for name, (function, given) in maps(m).items()}
    many()
    for name, (function, given) in maps(m).items():
        torch.testing.assert_close(few[name], function(*given), rtol=1e-13, atol=1e-13, msg=name)
        slope = torch.func.jvp(function, given, given)[1]
        torch.testing.assert_close(slopes[name], slope, rtol=1e-12, atol=1e-12, msg=name)


@EVERY
@pytest.mark.parametrize("batches", [((), ()), ((0,), (0,)), ((4, 1), (1, 3)), ((3,), ()), ((), (2, 3))], ids=str)
def test_batches_broadcast_alike(
    m: Manifold, batches: tuple[tuple[int, ...], tuple[int, ...]], many: Callable[[], None]
) -> None:
    x, y = (points(m, *batch, seed=i) for i, batch in enumerate(batches))
    u = y - m.projx(y + 0.1)
    few = m.proju(x, u), m.expmap(x, m.proju(x, u))
    many()
    for a, b in zip(few, (m.proju(x, u), m.expmap(x, m.proju(x, u))), strict=True):
        assert a.shape == torch.broadcast_shapes(x.shape, y.shape)
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@EVERY
def test_dtypes_are_promoted_alike(m: Manifold, many: Callable[[], None]) -> None:
    x, u = points(m, 4, dtype=torch.float32), tangents(m, points(m, 4))
    few = m.expmap(x, u), m.proju(x, u.bfloat16())
    many()
    for a, b in zip(few, (m.expmap(x, u), m.proju(x, u.bfloat16())), strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@EVERY
def test_networks_work_under_autocast(m: Manifold) -> None:
    field = VelocityField(m, width=16, depth=1, features=16)
    torch.nn.init.ones_(field.last.weight)
    x, t = points(m, 4, dtype=torch.float32), torch.rand(4)
    with torch.autocast("cpu", torch.bfloat16):
        u = field(x, t)
    assert bool(u.isfinite().all())
    torch.testing.assert_close(u.float(), field(x, t), rtol=0.1, atol=0.1)


def test_the_number_of_a_product_of_batches_counts() -> None:
    x = torch.zeros(0)
    assert rotation_rows.few(x, torch.Size((100, 1)), torch.Size((1, 10)))
    assert not rotation_rows.few(x, torch.Size((100, 1)), torch.Size((1, 100)))


@pytest.mark.slow
@EVERY
def test_laws_of_many(m: Manifold, many: Callable[[], None]) -> None:
    many()
    check_manifold(m).raise_if_failed()
