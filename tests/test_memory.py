"""The law of memory: no map of a manifold, save a basis of tangent vectors, takes more than six times its arguments.

It is a law of large batches: maps that hold more go through the batch in blocks, which add a constant.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from manifold_zoo import ZOO
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from manifolds import Ellipsoid, LevelSet, Manifold, Stiefel
from manifolds.numerics import blocks

BATCH = 512
# Few steps: what they hold is given back before the next.
FEW = {"steps": 2, "nodes": 4, "rounds": 1}
SOLVED = [
    pytest.param(lambda: Ellipsoid((1.1, 1.0, 0.9), **FEW), id="Ellipsoid"),
    pytest.param(lambda: LevelSet(dented_sphere, 3, curvature=2.0, **FEW), id="LevelSet", marks=pytest.mark.slow),
]


def dented_sphere(x: Tensor) -> Tensor:
    return x.square().sum(-1) + 0.3 * x[..., 0] * x[..., 1] * x[..., 2] - 1


class LiveBytes(TorchDispatchMode):
    """Records the largest number of bytes that tensors made inside it hold at one time, views counted once."""

    def __init__(self, arguments: tuple[Tensor, ...]) -> None:
        super().__init__()
        # Of storages: what a graph has saved lives on when its tensor is gone.
        self._held = {a.untyped_storage()._cdata: (StorageWeakRef(a.untyped_storage()), 0) for a in arguments}
        self._total = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for t in tree_leaves(result):
            if isinstance(t, Tensor) and not t._is_zerotensor():
                storage = t.untyped_storage()
                known = self._held.get(storage._cdata)
                if known is None or known[0].expired():
                    self._held[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
                    self._total += storage.nbytes()
        if self._total > self.peak:
            # What has been freed is only now looked for.
            self._held = {key: held for key, held in self._held.items() if not held[0].expired()}
            self._total = sum(held for _, held in self._held.values())
            self.peak = max(self.peak, self._total)
        return result


def peak(call: Callable[..., object], *arguments: Tensor) -> int:
    """Return the peak of what a call allocates."""
    with torch.no_grad(), LiveBytes(arguments) as live:
        call(*arguments)
    return live.peak


def ratio(call: Callable[..., object], *arguments: Tensor) -> float:
    """Return by how much the peak grows with the batch, in multiples of the arguments."""
    whole = tuple(a.contiguous() for a in arguments)
    half = tuple(a[: len(a) // 2].contiguous() for a in arguments)
    return (peak(call, *whole) - peak(call, *half)) / sum(a.nbytes - b.nbytes for a, b in zip(whole, half, strict=True))


def test_the_measure_counts_what_is_alive_at_once_and_views_once() -> None:
    x = torch.zeros(1000)
    assert ratio(lambda x: x + 1, x) == 1
    assert ratio(lambda x: (x + 1) + 1, x) == 2
    assert ratio(lambda x: ((x + 1) + 1) + 1, x) == 2
    assert ratio(lambda x: (x + 1)[::2].unsqueeze(0).sum(0), x) == 1.5
    assert ratio(lambda x: x.view(10, -1), x) == 0
    assert ratio(lambda x: torch.cat([a + 1 for a in x.split(100)]), x) == 2


def arguments(manifold: Manifold) -> dict[str, tuple[Tensor, ...]]:
    """Return arguments of each map, made from coefficients in a basis."""
    generator = torch.Generator().manual_seed(0)
    n = len(manifold.event_shape)

    def near(x: Tensor) -> tuple[Tensor, Tensor]:
        coefficients = 0.3 * torch.randn(*manifold.batch_shape(x), manifold.dim, generator=generator)
        u = (manifold.lift(coefficients) * manifold.tangent_basis(x)).sum(-1 - n)
        return u, manifold.expmap(x, u)

    x = manifold.projx(torch.randn(BATCH, *manifold.event_shape, generator=generator))
    u, y = near(x)
    v, _ = near(x)
    t = torch.rand(BATCH, generator=generator)
    w = torch.randn(BATCH, manifold.field_dim, generator=generator)
    return {
        "projx": (x,),
        "proju": (x, u),
        "inner": (x, u, v),
        "norm": (x, u),
        "dist": (x, y),
        "expmap": (x, u),
        "logmap": (x, y),
        "shoot": (x, u, t),
        "geodesic": (x, y, t),
        "transp": (x, y, u),
        "embed": (x,),
        "tangent_from_vector": (x, w),
    }


@pytest.mark.parametrize("make", [*(pytest.param(make, id=name) for name, make in ZOO), *SOLVED])
def test_maps_take_at_most_six_times_their_arguments(
    make: Callable[[], Manifold], monkeypatch: pytest.MonkeyPatch
) -> None:
    # So small that half the batch is more than a block, of every map.
    monkeypatch.setattr(blocks, "BLOCK", 1 << 14)
    manifold = make()
    found = {what: ratio(getattr(manifold, what), *given) for what, given in arguments(manifold).items()}
    assert {what: round(r, 1) for what, r in found.items() if r > 6} == {}


@pytest.mark.parametrize(
    "make",
    [lambda: Ellipsoid((1.1, 1.0, 0.9), steps=4, nodes=8, rounds=4), lambda: Stiefel(4, 2)],
    ids=["Ellipsoid", "Stiefel"],
)
def test_blocks_change_nothing(make: Callable[[], Manifold], monkeypatch: pytest.MonkeyPatch) -> None:
    manifold = make()
    generator = torch.Generator().manual_seed(0)
    x, y = (manifold.random_uniform(2, *b, generator=generator, dtype=torch.float64) for b in ((1,), (2,)))
    t = torch.rand(2, generator=generator, dtype=torch.float64)
    # So near that few steps are enough.
    y = manifold.projx(x + 0.3 * y)

    def maps(y: Tensor) -> list[Tensor]:
        u = manifold.proju(x, y)
        return [manifold.projx(y), manifold.expmap(x, u), manifold.logmap(x, y), *manifold.geodesic(x, y, t)]

    def slopes(y: Tensor) -> list[Tensor]:
        return [*torch.func.jvp(maps, (y,), (y.roll(1, 0),))[1], *torch.func.vmap(maps)(y)]

    whole = maps(y) + slopes(y)
    monkeypatch.setattr(blocks, "BLOCK", 1)
    for a, b in zip(whole, maps(y) + slopes(y), strict=True):
        assert a.isfinite().all()
        assert a.shape == b.shape
        assert torch.allclose(a, b, rtol=0, atol=1e-11)
