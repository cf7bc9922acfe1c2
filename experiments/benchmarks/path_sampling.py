"""Position and velocity on geodesic paths: beside flow_matching, and beside a derivative taken by machine."""

from collections.abc import Iterator

import torch
from torch import Tensor

from experiments.benchmarks.harness import Row, in_turns
from manifolds import (
    SE3,
    SO3,
    SPD,
    Euclidean,
    FlatTorus,
    Hyperboloid,
    LogEuclideanSPD,
    Manifold,
    PoincareBall,
    Power,
    Product,
    Sphere,
)
from rfm import GeodesicPath
from rfm.sources import RigidMotionSource, Source, Uniform, WrappedNormal

_BATCH = 16_384
_SLOW_BATCH = 2_048
"""For spectral manifolds, whose eigenvalue problems take most of the time on both sides."""


def rows(turns: int = 25) -> Iterator[Row]:
    """Time path samples on the sphere and the torus beside flow_matching's, where it is installed."""
    try:
        from flow_matching.utils import manifolds as theirs
    except ImportError:
        print("flow_matching is not installed (extra: bench): path sampling not measured beside it")
    else:
        yield _beside_peer(Sphere(2), theirs.Sphere(), turns)
        yield _beside_peer(FlatTorus(2), theirs.FlatTorus(), turns)
    for manifold, source in _closed_forms():
        yield _beside_derivative(manifold, source, turns)


def _beside_peer(manifold: Manifold, theirs: object, turns: int) -> Row:
    from flow_matching.path import GeodesicProbPath
    from flow_matching.path.scheduler import CondOTScheduler

    x_0, x_1, t = _pairs(Uniform(manifold), _BATCH)
    path, peer = GeodesicPath(manifold), GeodesicProbPath(CondOTScheduler(), theirs)

    def ours() -> Tensor:
        return path.sample(x_0, x_1, t).dx_t

    def other() -> Tensor:
        velocity: Tensor = peer.sample(t=t, x_0=x_0, x_1=x_1).dx_t
        return velocity

    # The peer's logarithm is wrong near the antipode and at coincidence: compare the median point.
    difference = float((ours() - other()).norm(dim=-1).median())
    what = f"path sample on {manifold}, {_BATCH:,} pairs, beside flow_matching"
    return Row(what, *in_turns(ours, other, turns), 0.2, difference, "median difference of velocities")


def _beside_derivative(manifold: Manifold, source: Source, turns: int) -> Row:
    """Time `GeodesicPath` beside ``vmap(jvp)`` of ``expmap(x_0, t logmap(x_0, x_1))`` with our maps."""
    spectral = isinstance(manifold, SPD | LogEuclideanSPD)
    x_0, x_1, t = _pairs(source, _SLOW_BATCH if spectral else _BATCH)
    path = GeodesicPath(manifold)

    def ours() -> Tensor:
        return path.sample(x_0, x_1, t).dx_t

    def one(a: Tensor, b: Tensor, s: Tensor) -> Tensor:
        velocity: Tensor = torch.func.jvp(
            lambda r: manifold.expmap(a, r * manifold.logmap(a, b)), (s,), (torch.ones_like(s),)
        )[1]
        return velocity

    def other() -> Tensor:
        return torch.func.vmap(one)(x_0, x_1, t)

    difference = float((ours() - other()).flatten(1).norm(dim=-1).median())
    what = f"path sample on {manifold}, {len(x_0):,} pairs, beside vmap(jvp)"
    # The eigenvalue problem of each pair, alike on both sides, cannot be saved.
    return Row(what, *in_turns(ours, other, turns), 0.2, difference, "median difference of velocities")


def _pairs(source: Source, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x_0, x_1 = (source.sample((batch,), generator=generator, dtype=torch.float32) for _ in range(2))
    return x_0, x_1, torch.rand(batch, generator=generator)


def _closed_forms() -> Iterator[tuple[Manifold, Source]]:
    """Yield every built-in manifold with closed-form geodesics, and a source of points on it."""
    product = Product(Sphere(2), FlatTorus(2))
    for compact in (Sphere(2), FlatTorus(7), SO3(), product, Power(SO3(), 4)):
        yield compact, Uniform(compact)
    motions = SE3()
    yield motions, RigidMotionSource(motions, Uniform(SO3()), 1.0)
    for hadamard in (Euclidean(3), Hyperboloid(2), PoincareBall(2), SPD(3), LogEuclideanSPD(3)):
        yield hadamard, WrappedNormal(hadamard, _origin(hadamard), 0.5)


def _origin(manifold: Manifold) -> Tensor:
    if isinstance(manifold, SPD | LogEuclideanSPD):
        return torch.eye(3, dtype=torch.float64)
    return manifold.projx(torch.zeros(manifold.event_shape, dtype=torch.float64))
