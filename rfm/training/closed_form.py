"""Manifolds on which a flow of points without conditions needs no training: its field is known in closed form."""

import time
from functools import singledispatch
from typing import NamedTuple

from torch import Tensor, nn

from manifolds import Manifold, Mesh
from rfm.flow import Flow
from rfm.paths import MoserVelocity
from rfm.sources import MeshDensity, Source, Uniform


class Split(NamedTuple):
    """Points to fit a density to, and to choose its smoothness by."""

    train: Tensor
    """``(n, *event_shape)``."""
    weights: Tensor | None
    validation: Tensor | None
    """``(m, *event_shape)``; None where none are held out."""
    validation_weights: Tensor | None


@singledispatch
def closed_form_field(manifold: Manifold, source: Source, points: Split) -> nn.Module | None:
    """Return the field that `rfm.fit` takes on a manifold without training; None where a network has to learn it.

    On a `manifolds.Mesh` it is `rfm.paths.MoserVelocity` towards a `rfm.sources.MeshDensity` of the points: what is
    learnt is that density, by the heat kernel, and the flow from the source follows from it exactly.

    A generic function: give your own manifold one with ``closed_form_field.register(MyManifold)``.

    Args:
        manifold: of the points.
        source: the distribution at time 0.
        points: training and validation points.
    """
    return None


@closed_form_field.register
def _(manifold: Mesh, source: Source, points: Split) -> nn.Module | None:
    if not isinstance(source, Uniform | MeshDensity):
        return None
    target = MeshDensity.fit(
        manifold,
        points.train,
        points.validation,
        sample_weights=points.weights,
        validation_weights=points.validation_weights,
        subdivisions=source.subdivisions if isinstance(source, MeshDensity) else None,
    )
    return MoserVelocity(source, target)


def closed_form_flow(manifold: Manifold, source: Source, points: Split) -> Flow | None:
    """Return the flow of `closed_form_field`, with one record in its history; None where a network has to learn it."""
    began = time.perf_counter()
    field = closed_form_field(manifold, source, points)
    if field is None:
        return None
    flow = Flow(manifold, field, source).eval()
    record = {"step": 0.0, "seconds": time.perf_counter() - began}
    if points.validation is not None:
        log_p, w = flow.log_prob(points.validation).double(), points.validation_weights
        mean = log_p.mean() if w is None else (log_p * w).sum() / w.sum()
        record["validation_nll"] = -float(mean)
    flow.history = [record]
    flow.stopped = "the field is known in closed form, nothing was trained"
    return flow
