"""The law of memory: no map of a manifold, save a basis of tangent vectors, takes more than six times its arguments."""

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from manifold_zoo import ZOO
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from manifolds import Manifold, stiefel

BATCH = 512


class LiveBytes(TorchDispatchMode):
    """Records the largest number of bytes that tensors made inside it hold at one time, views counted once."""

    def __init__(self, arguments: tuple[Tensor, ...]) -> None:
        super().__init__()
        self._given = {a.untyped_storage().data_ptr() for a in arguments}
        self._alive: list[weakref.ref[Tensor]] = []
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self._alive += [weakref.ref(t) for t in tree_leaves(result) if isinstance(t, Tensor)]
        self._alive = [r for r in self._alive if r() is not None]
        storages = [t.untyped_storage() for t in (r() for r in self._alive) if t is not None]
        held = {s.data_ptr(): s.nbytes() for s in storages if s.data_ptr() not in self._given}
        self.peak = max(self.peak, sum(held.values()))
        return result


def ratio(call: Callable[..., object], *arguments: Tensor) -> float:
    """Return the peak of what a call allocates, in multiples of its arguments."""
    arguments = tuple(a.contiguous() for a in arguments)
    with torch.no_grad(), LiveBytes(arguments) as live:
        call(*arguments)
    return live.peak / sum(a.nbytes for a in arguments)


def test_the_measure_counts_what_is_alive_at_once_and_views_once() -> None:
    x = torch.zeros(1000)
    assert ratio(lambda x: x + 1, x) == 1
    assert ratio(lambda x: (x + 1) + 1, x) == 2
    assert ratio(lambda x: ((x + 1) + 1) + 1, x) == 2
    assert ratio(lambda x: (x + 1)[::2].unsqueeze(0).sum(0), x) == 1.5
    assert ratio(lambda x: x.view(10, 100), x) == 0


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


@pytest.mark.parametrize(("name", "make"), ZOO, ids=[name for name, _ in ZOO])
def test_maps_take_at_most_six_times_their_arguments(
    name: str, make: Callable[[], Manifold], monkeypatch: pytest.MonkeyPatch
) -> None:
    # In proportion to the batch, so small that the test is fast: the solver's own memory is that of a block.
    monkeypatch.setattr(stiefel, "_BLOCK", BATCH // 16)
    manifold = make()
    found = {what: ratio(getattr(manifold, what), *given) for what, given in arguments(manifold).items()}
    assert {what: round(r, 1) for what, r in found.items() if r > 6} == {}
