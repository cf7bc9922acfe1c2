"""Exact divergence of a velocity network, beside the recipe of the reference implementations.

The recipe differentiates the ambient field ``v(projx(x))`` point by point, ``vmap(trace(jacrev))``: one derivative per
ambient coordinate (riemannian-fm's ``div_fn``, read as a recipe, not run).
"""

from collections.abc import Iterator

import torch
from torch import Tensor

import rfm
from experiments.benchmarks.harness import Row, in_turns
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


@torch.no_grad()
def _row(source: Source, width: int, batch: int, goal: float, turns: int) -> Row:
    manifold: Manifold = source.manifold
    generator = torch.Generator().manual_seed(0)
    field = VelocityField(manifold, width=width, features=width)
    torch.nn.init.normal_(field.last.weight, std=0.05, generator=generator)
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
    what = f"divergence on {manifold}, {batch} points, width {width}, beside vmap(trace(jacrev))"
    return Row(what, *in_turns(ours, recipe, turns), goal, difference, "relative difference")
