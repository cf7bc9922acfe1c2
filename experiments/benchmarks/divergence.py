"""Exact divergence of a velocity network, beside the recipe of the reference implementations.

The recipe differentiates the ambient field ``v(projx(x))`` point by point, ``vmap(trace(jacrev))``: one derivative per
ambient coordinate (riemannian-fm's ``div_fn``, read as a recipe, not run).
"""

import torch
from torch import Tensor

import rfm
from experiments.benchmarks.harness import Row, in_turns
from manifolds import Sphere
from rfm.networks import VelocityField


def rows(turns: int = 25) -> list[Row]:
    """Time `rfm.divergence` on the sphere for networks of several widths."""
    return [_row(width, batch, turns) for width, batch in ((64, 2048), (256, 256), (256, 2048), (512, 2048))]


@torch.no_grad()
def _row(width: int, batch: int, turns: int) -> Row:
    sphere = Sphere(2)
    generator = torch.Generator().manual_seed(0)
    field = VelocityField(sphere, width=width, features=width)
    torch.nn.init.normal_(field.last.weight, std=0.05, generator=generator)
    x = sphere.random_uniform(batch, generator=generator)
    t = torch.rand(batch, generator=generator)

    def recipe() -> Tensor:
        def one(y: Tensor, s: Tensor) -> Tensor:
            return torch.func.jacrev(lambda z: field(sphere.projx(z)[None], s[None])[0])(y)

        return torch.func.vmap(one)(x, t).diagonal(dim1=-2, dim2=-1).sum(-1)

    def ours() -> Tensor:
        return rfm.divergence(field, sphere, x, t)[1]

    reference = recipe()
    difference = float((ours() - reference).abs().max() / reference.abs().max())
    what = f"divergence on S^2, {batch} points, width {width}, beside vmap(trace(jacrev))"
    return Row(what, *in_turns(ours, recipe, turns), 0.55, difference, "relative difference")
