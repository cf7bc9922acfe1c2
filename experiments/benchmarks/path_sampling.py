"""Position and velocity on geodesic paths, beside flow_matching's ``GeodesicProbPath``."""

import torch
from torch import Tensor

from experiments.benchmarks.harness import Row, in_turns
from manifolds import FlatTorus, Manifold, Sphere
from rfm import GeodesicPath

_BATCH = 16_384


def rows(turns: int = 25) -> list[Row]:
    """Time path samples on the sphere and the torus; none where flow_matching is not installed."""
    try:
        from flow_matching.utils import manifolds as theirs
    except ImportError:
        print("flow_matching is not installed (extra: bench): path sampling not measured")
        return []
    return [_row(Sphere(2), theirs.Sphere(), turns), _row(FlatTorus(2), theirs.FlatTorus(), turns)]


def _row(manifold: Manifold, theirs: object, turns: int) -> Row:
    from flow_matching.path import GeodesicProbPath
    from flow_matching.path.scheduler import CondOTScheduler

    generator = torch.Generator().manual_seed(0)
    x_0 = manifold.random_uniform(_BATCH, generator=generator)
    x_1 = manifold.random_uniform(_BATCH, generator=generator)
    t = torch.rand(_BATCH, generator=generator)
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
