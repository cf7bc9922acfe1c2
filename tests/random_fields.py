"""Random points, tangent vectors and smooth velocity fields, never zero, on any built-in manifold."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from manifolds import (
    SPD,
    Correlation,
    LogEuclideanSPD,
    Manifold,
    Mesh,
    PoincareBall,
    Power,
    Product,
    Quotient,
    Scaled,
    Simplex,
)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    draw = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return draw.to(dtype)


def points(m: Manifold, *shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return points well inside the documented domain."""
    if isinstance(m, Product):
        parts = [points(f, *shape, seed=seed + 17 * i, dtype=dtype) for i, f in enumerate(m.factors)]
        return m.projx(m.join(*parts))
    if isinstance(m, Power):
        return m.projx(points(m.m, *shape, m.k, seed=seed, dtype=dtype))
    if isinstance(m, Quotient | Scaled):
        return points(m.m, *shape, seed=seed, dtype=dtype)
    if isinstance(m, Mesh):
        # Inside the faces, where derivatives exist: the nearest to a point outside is mostly on an edge.
        return m.random_uniform(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    x = normal(*shape, *m.event_shape, seed=seed)
    if isinstance(m, SPD | LogEuclideanSPD):
        x = torch.linalg.matrix_exp(0.3 * (x + x.mT))
    if isinstance(m, Correlation):
        x = m.from_flat(0.6 * normal(*shape, m.dim, seed=seed))
    if isinstance(m, Simplex):
        x = torch.softmax(0.6 * x, dim=-1)
    if isinstance(m, PoincareBall):
        x = 0.6 * x / torch.sqrt(m.curvature * (1 + (x * x).sum(-1, keepdim=True)))
    return m.projx(x.to(dtype))


def tangents(m: Manifold, x: Tensor, seed: int = 1) -> Tensor:
    return m.proju(x, normal(*x.shape, seed=seed, dtype=x.dtype))


def wavy_field(m: Manifold, seed: int = 0, size: float = 1.0) -> Callable[..., Tensor]:
    """Return ``field(x, t)``, a smooth function of ``embed(x)`` and time, at most as fast as ``size``.

    Speed is measured in the metric: a bounded ambient velocity would leave a ball or a cone in finite time.
    """
    inner = normal(m.embed_dim, 12, seed=seed) / math.sqrt(m.embed_dim)
    outer = normal(12, m.field_dim, seed=seed + 1) * (2 / math.sqrt(12))
    phase = 3 * normal(12, seed=seed + 2)
    speed = 2 * normal(12, seed=seed + 3)

    def field(x: Tensor, t: Tensor, shift: Tensor | None = None) -> Tensor:
        wave = m.embed(x) @ inner.to(x) + phase.to(x) + t[..., None] * speed.to(x)
        if shift is not None:
            wave = wave + shift[..., None]
        u = m.tangent_from_vector(x, torch.sin(wave) @ outer.to(x))
        return size * u / m.lift(torch.sqrt(1 + m.inner(x, u, u)))

    return field
