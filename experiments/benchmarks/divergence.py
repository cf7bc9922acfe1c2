"""Exact divergence of a velocity network, beside the recipe of the reference implementations.

The recipe differentiates the ambient field ``v(projx(x))`` point by point, ``vmap(trace(jacrev))``: one derivative per
ambient coordinate (riemannian-fm's ``div_fn``, read as a recipe, not run).
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

import rfm
from experiments.benchmarks.harness import Row, in_turns
from experiments.benchmarks.users_networks import NETWORKS
from manifolds import SE3, SO3, FlatTorus, Manifold, Sphere
from rfm.networks import VelocityField
from rfm.sources import RigidMotionSource, Source, Uniform

_SIZES = ((64, 2048), (256, 256), (256, 2048), (512, 2048))


def rows(turns: int = 15) -> Iterator[Row]:
    """Time `rfm.divergence` on the sphere for networks of several widths, and on three more manifolds."""
    sphere, rotations, motions, torus = Sphere(2), SO3(), SE3(), FlatTorus(7)
    for width, batch in _SIZES:
        yield _row(Uniform(sphere), width, batch, 0.5, turns)
    yield _row(Uniform(rotations), 256, 1024, 0.4, turns)
    yield _row(RigidMotionSource(motions, Uniform(rotations), 1.0), 256, 1024, 0.45, turns)
    yield _row(Uniform(torus), 256, 1024, 1.0, turns)
    for manifold, batch, goal in ((sphere, 2048, 0.55), (rotations, 1024, 0.4)):
        for name, make in NETWORKS.items():
            yield _beside_recipe(Uniform(manifold), make(manifold), batch, goal, turns, f"a user's {name}")


def _row(source: Source, width: int, batch: int, goal: float, turns: int) -> Row:
    field = VelocityField(source.manifold, width=width, features=width)
    torch.nn.init.normal_(field.last.weight, std=0.05, generator=torch.Generator().manual_seed(0))
    return _beside_recipe(source, field, batch, goal, turns, f"width {width}")


@torch.no_grad()
def _beside_recipe(
    source: Source, field: Callable[..., Tensor], batch: int, goal: float, turns: int, network: str
) -> Row:
    manifold: Manifold = source.manifold
    generator = torch.Generator().manual_seed(0)
    x = source.sample((batch,), generator=generator, dtype=torch.float32)
    t = torch.rand(batch, generator=generator)
    size = x[0].numel()

    def recipe() -> Tensor:
        def one(y: Tensor, s: Tensor) -> Tensor:
            return torch.func.jacrev(lambda z: field(manifold.projx(z)[None], s[None])[0])(y)

        return torch.func.vmap(one)(x, t).reshape(batch, size, size).diagonal(dim1=-2, dim2=-1).sum(-1)

    def ours() -> Tensor:
        return rfm.divergence(field, manifold, x, t)[1]

    reference = recipe()
    difference = float((ours() - reference).abs().max() / reference.abs().max())
    what = f"divergence on {manifold}, {batch} points, {network}, beside vmap(trace(jacrev))"
    return Row(what, *in_turns(ours, recipe, turns), goal, difference, "relative difference")
