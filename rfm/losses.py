"""The regression that trains a velocity field."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rfm.paths import GeodesicPath


def flow_matching_loss(
    field: Callable[..., Tensor],
    path: GeodesicPath,
    x_0: Tensor,
    x_1: Tensor,
    t: Tensor | None = None,
    reduction: str = "mean",
    *,
    generator: torch.Generator | None = None,
    **condition: Any,
) -> Tensor:
    """Return the squared distance in the metric between the field and the velocity of the conditional path.

    Chen & Lipman, Flow Matching on General Geometries, 2023, arXiv:2302.03660, equation 7.

    Args:
        field: ``field(x, t, **condition)``, tangent at ``x``.
        path: the conditional path.
        x_0: draws from the source ``(*batch, *event_shape)``.
        x_1: data points, the same shape.
        t: times ``(*batch)``; drawn uniformly from [0, 1) when None.
        reduction: "mean" over the batch, "sum", or "none" for one value per sample ``(*batch)``. The squared length
            is a sum over the dimensions of the tangent space, never an average.
        generator: source of randomness for ``t``.
        condition: passed on to the field.

    Raises:
        ValueError: if ``reduction`` is none of the three.
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'flow_matching_loss: reduction must be "mean", "sum" or "none", got {reduction!r}')
    if t is None:
        batch = torch.broadcast_shapes(path.manifold.batch_shape(x_0), path.manifold.batch_shape(x_1))
        t = torch.rand(batch, generator=generator, dtype=x_1.dtype, device=x_1.device)
    sample = path.sample(x_0, x_1, t)
    residual = field(sample.x_t, sample.t, **condition) - sample.dx_t
    loss = path.manifold.inner(sample.x_t, residual, residual)
    if reduction == "none":
        return loss
    return loss.mean() if reduction == "mean" else loss.sum()
