"""Mazes: from one corner to the opposite one, round all walls."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import shapely
import torch
from torch import Tensor

import rfm
from experiments.borders.mechanisms import SOLVER
from manifolds import Bounded, Euclidean, PlanarPolygon
from rfm.networks import VelocityField
from rfm.sources import Truncated, WrappedNormal

SPREAD = 0.35
"""Of the start and the end, in units of the mean width of a passage."""


class Maze(NamedTuple):
    """What a flow did in a maze."""

    name: str
    edges: int
    inside_samples: float
    inside_ways: float
    """Share of points along trajectories that lie inside."""
    arrived: float
    """Share of the samples within three spreads of the end."""
    nll: float
    """Of other draws of the target, nats."""
    entropy: float
    """Of the target, by draws: what no NLL can be below."""
    seconds: float


def border(path: Path) -> PlanarPolygon:
    """Return the border of a planar mesh in an .obj file: the edges of one face, in rings."""
    rows = [line.split() for line in path.read_text().splitlines()]
    vertices = np.array([[float(value) for value in row[1:3]] for row in rows if row[:1] == ["v"]])
    faces = np.array([[int(word.partition("/")[0]) - 1 for word in row[1:4]] for row in rows if row[:1] == ["f"]])
    merged = shapely.union_all(shapely.polygons(vertices[faces]))
    polygon = shapely.simplify(shapely.geometry.polygon.orient(shapely.get_parts(merged)[0]), 1e-9)
    polygon = shapely.geometry.polygon.orient(polygon)
    return PlanarPolygon([np.asarray(ring.coords) for ring in (polygon.exterior, *polygon.interiors)])


def room(path: Path) -> Bounded:
    """Return the inside of a maze."""
    return Bounded(Euclidean(2), border(path))


def ends(m: Bounded) -> tuple[Tensor, Tensor, float]:
    """Return the places where a maze begins and ends, opposite each other, and the spread about them."""
    constraint: Any = m.constraint
    x = m.random_uniform(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # In the middle of a passage: deep inside.
    width = float(constraint.depth(x).quantile(0.99))
    x = x[constraint.depth(x) > 0.7 * width]
    low, high = x.amin(0), x.amax(0)
    # From top left to bottom right, as its doors are.
    first = x[((x - torch.stack([low[0], high[1]])) ** 2).sum(1).argmin()]
    last = x[((x - torch.stack([high[0], low[1]])) ** 2).sum(1).argmin()]
    return first, last, SPREAD * width


def measure(name: str, path: Path, steps: int, draws: int) -> tuple[Maze, Bounded, Tensor]:
    """Fit a flow from one end to the other; return what it did, the maze, and some trajectories ``(t, n, 2)``."""
    started = time.process_time()
    m = room(path)
    start, end, spread = ends(m)
    source, target = (Truncated(m, WrappedNormal(m.m, place, spread)) for place in (start, end))
    data = target.sample((2000,), torch.Generator().manual_seed(1), torch.float64)
    torch.manual_seed(0)
    flow = rfm.fit(
        data,
        m,
        source=source,
        field=VelocityField(
            m,
            width=128,
            depth=2,
            features=192,
            max_frequency=24.0,
            offset=((start + end) / 2).tolist(),
            scale=float((end - start).abs().max()) / 2,
        ),
        refine=False,
        steps=steps,
        batch_size=256,
        progress=False,
        training=rfm.Training(validations=2),
    )
    seconds = time.process_time() - started
    x_0 = source.sample((draws,), torch.Generator().manual_seed(2))
    ways = flow.trajectory(x_0, torch.linspace(0, 1, 41).tolist(), solver=SOLVER)
    inside = m.constraint.contains(ways)
    test = target.sample((200,), torch.Generator().manual_seed(3))
    far = (ways[-1] - end.float()).norm(dim=-1) < 3 * spread + 1e-6
    return (
        Maze(
            name,
            len(m.constraint.starts),  # type: ignore[arg-type]
            float(inside[-1].double().mean()),
            float(inside.double().mean()),
            float(far.double().mean()),
            -float(flow.log_prob(test, solver=SOLVER).mean()),
            -float(target.log_prob(test).mean()),
            seconds,
        ),
        m,
        ways,
    )
