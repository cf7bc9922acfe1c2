"""Earthquakes under the sea and floods on land: polygons out of the packaged coastlines."""

import time
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import shapely
import torch
from torch import Tensor

import rfm
from experiments.borders.mechanisms import SOLVER
from experiments.borders.on_triangles import closed_form_on
from experiments.borders.triangles import triangles
from manifolds import Bounded, Manifold, Sphere
from rfm import datasets
from rfm.datasets import Split, group_split
from rfm.networks import VelocityField
from rfm.plotting import coastlines
from rfm.regions import Polygon
from rfm.sources import KernelMixture, Source, Truncated

IN_THE_SEA = (-30.0, 0.0)
"""Longitude and latitude of a place in the Atlantic."""
SIMPLIFIED = 1.5
"""Degrees by which coasts may move: fewer corners, less time."""
BOW = 5e-3
"""Radians by which arcs may be off their edges, 30 kilometres: as coarse."""
CLOSED_FORM = "heat kernel, closed form"
LEAST = 60.0
"""Square degrees of islands that are left."""


class Catalogue(NamedTuple):
    """Points on one side of the coast, and their split."""

    name: str
    manifold: Bounded
    polygon: Any
    """In degrees, as shapely's."""
    points: Tensor
    """Inside, ``(n, 3)``."""
    outside: int
    """How many were left out."""
    split: Split


@cache
def sea() -> Any:
    """Return the connected sea in degrees, as a polygon of shapely's, with simplified coasts."""
    frame = shapely.box(-180, -90, 180, 90)
    lines = shapely.union_all([shapely.LineString(line) for line in coastlines()] + [frame.boundary])
    faces = shapely.get_parts(shapely.polygonize(shapely.get_parts(shapely.node(lines)).tolist()))
    own = next(face for face in faces if face.contains(shapely.Point(IN_THE_SEA)))
    land = shapely.difference(frame, own)
    kept = [part for part in shapely.get_parts(land) if part.area > LEAST]
    return shapely.difference(frame, shapely.simplify(shapely.union_all(kept), SIMPLIFIED))


def land() -> Any:
    """Return what is not sea, in degrees."""
    return shapely.difference(shapely.box(-180, -90, 180, 90), sea())


def americas() -> Any:
    """Return the mainland of the Americas, in degrees."""
    return next(part for part in shapely.get_parts(land()) if part.contains(shapely.Point(-60, -10)))


def catalogue(name: str, dataset: str, polygon: Any, seed: int = 0) -> Catalogue:
    """Return the points of a published data set on one side of the coast."""
    region = Polygon.from_geojson(shapely.geometry.mapping(polygon))
    m = Bounded(Sphere(2), region.constraint(BOW))
    x = datasets.load(dataset).points.double()
    inside = m.constraint.contains(x)
    points = x[inside]
    return Catalogue(name, m, polygon, points, int((~inside).sum()), group_split(points, seed))


class Row(NamedTuple):
    """A model of a catalogue."""

    model: str
    nll: float
    """Of the test points, nats."""
    error: float
    """Standard error of that."""
    inside: float
    """Share of the samples on the right side."""
    seconds: float
    """Of the fit."""


def measure(own: Catalogue, model: str, steps: int, samples: int) -> tuple[Row, Callable[[int, int], Tensor]]:
    """Fit a model, and return its row and what draws from it.

    Args:
        own: the catalogue.
        model: "bounded flow", "flow on the sphere, conditioned", "flow on the sphere", "kernel density" or that in
            closed form.
        steps: of training.
        samples: how many are drawn to count those inside.
    """
    started = time.process_time()
    train, held, test = (own.points[rows] for rows in own.split)
    held_rows = torch.arange(len(train), len(train) + len(held))
    bounded = model == "bounded flow"
    m: Manifold = own.manifold if bounded else own.manifold.m
    source: Source | None = None
    if model == CLOSED_FORM:
        fitted = closed_form_on(triangles(own.manifold, 3000), torch.cat([train, held]), 0, held_rows)
        return _row(own, model, fitted.log_prob(test), fitted.sample, time.process_time() - started, samples // 10)
    if model == "kernel density":
        kernel = KernelMixture.mixture(m, train, held)
        truncated = Truncated(own.manifold, kernel)
        seconds = time.process_time() - started
        return _row(own, model, truncated.log_prob(test), _draws(truncated.sample), seconds, samples)
    torch.manual_seed(0)
    flow = rfm.fit(
        torch.cat([train, held]),
        m,
        field=VelocityField(m, width=96, depth=2, features=192, max_frequency=32.0),
        validation=held_rows,
        source=source,
        refine=False,
        steps=steps,
        batch_size=256,
        progress=False,
        training=rfm.Training(validations=3),
    )
    seconds = time.process_time() - started

    def draw(count: int, seed: int) -> Tensor:
        return flow.sample(count, generator=torch.Generator().manual_seed(seed), solver=SOLVER)

    log_p = flow.log_prob(test, solver=SOLVER).double()
    if model != "flow on the sphere, conditioned":
        return _row(own, model, log_p, draw, seconds, samples)
    contains = own.manifold.constraint.contains
    mass = float(contains(draw(2**13, 99)).double().mean())

    def conditioned(count: int, seed: int) -> Tensor:
        x = draw(int(1.1 * count / mass) + 50, seed)
        return x[contains(x)][:count]

    return _row(own, model, log_p - float(np.log(mass)), conditioned, seconds, samples)


def _draws(sample: Callable[..., Tensor]) -> Callable[[int, int], Tensor]:
    return lambda count, seed: sample((count,), torch.Generator().manual_seed(seed))


def _row(
    own: Catalogue, model: str, log_p: Tensor, draw: Callable[[int, int], Tensor], seconds: float, samples: int
) -> tuple[Row, Callable[[int, int], Tensor]]:
    x = draw(samples, 1)
    inside = own.manifold.constraint.contains(x).double()
    error = float(log_p.std()) / len(log_p) ** 0.5
    return Row(model, -float(log_p.mean()), error, float(inside.mean()), seconds), draw
