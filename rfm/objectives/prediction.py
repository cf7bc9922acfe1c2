"""The regressions of networks that predict score, noise or end point."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rfm.networks import PredictedVelocity
from rfm.objectives.regression import Distance, check_distance, check_shape, draw, reduced
from rfm.paths import AffinePath
from rfm.paths.times import TimeSampler


def prediction_loss(
    field: PredictedVelocity,
    x_0: Tensor,
    x_1: Tensor,
    t: Tensor | None = None,
    reduction: str = "mean",
    *,
    distance: Distance = "tangent",
    times: TimeSampler | None = None,
    weight: Callable[[Tensor], Tensor] | None = None,
    generator: torch.Generator | None = None,
    **condition: Any,
) -> Tensor:
    """Return the squared error of what a network predicts, along the path that its field is of.

    ============ ======================================================================================
    prediction   loss of a pair
    ============ ======================================================================================
    "noise"      ``|prediction - noise|^2``: the simple loss of DDPM, Ho et al., 2020, arXiv:2006.11239
    "score"      ``|sigma prediction + noise|^2``: denoising score matching with the weight ``sigma^2``, Vincent,
                 2011, doi:10.1162/NECO_a_00142; Song et al., 2020, arXiv:2011.13456, equation 7
    "end point"  ``|prediction - x_1|^2``; on a curved space that of `rfm.endpoint_loss`
    ============ ======================================================================================

    In flat space they differ by factors of time alone: with ``weight`` any one of them is any other.

    Args:
        field: network, path and what is predicted.
        x_0: draws from the source ``(*batch, *event_shape)``.
        x_1: data points, the same shape.
        t: as in `rfm.flow_matching_loss`, as for those that follow.
        reduction: "mean", "sum" or "none".
        distance: of end points on a curved space, "tangent" or "geodesic".
        times: how to draw times.
        weight: from times to factors of each sample's loss.
        generator: source of randomness for the times.
        condition: passed on to the network.

    Raises:
        ValueError: as for `rfm.endpoint_loss`.
    """
    check_distance("prediction_loss", distance)
    path, manifold = field.path, field.manifold
    sample = draw("prediction_loss", path, x_0, x_1, t, reduction, times, generator)
    out = field.predicted(sample.x_t, sample.t, **condition)
    check_shape("prediction_loss: the network", out, sample.x_t.shape)
    if not isinstance(path, AffinePath):
        if distance == "geodesic":
            squared = manifold.squared_dist(manifold.expmap(sample.x_t, out), sample.x_1)
            return reduced(squared, sample.t, weight, reduction)
        residual = out - manifold.logmap(sample.x_t, sample.x_1)
    elif field.predicts == "end point":
        residual = out - sample.x_1
    else:
        noise = sample.x_0 / path.schedule.source_scale
        if field.predicts == "noise":
            residual = out - noise
        else:
            residual = manifold.lift(path.schedule(sample.t).sigma) * out + noise
    return reduced(manifold.inner(sample.x_t, residual, residual), sample.t, weight, reduction)
