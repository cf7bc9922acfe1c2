"""The regressions that train a velocity field, or a network that predicts the end point."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from manifolds.arguments import check_instance
from manifolds.numerics.precision import at_least_float32
from rfm.arrays import points_of, tensor_of
from rfm.paths import ConditionalPath, PathSample
from rfm.paths.times import TimeSampler, UniformTimes

_REDUCTIONS = ("mean", "sum", "none")

Distance = Literal["tangent", "geodesic"]
"""Of end points: between their logarithms at the point on the way, or along the geodesic between them."""


def flow_matching_loss(
    field: Callable[..., Tensor],
    path: ConditionalPath,
    x_0: Tensor,
    x_1: Tensor,
    t: Tensor | None = None,
    reduction: str = "mean",
    *,
    times: TimeSampler | None = None,
    weight: Callable[[Tensor], Tensor] | None = None,
    generator: torch.Generator | None = None,
    **condition: Any,
) -> Tensor:
    """Return the squared distance in the metric between the field and the velocity of the conditional path.

    Its gradient, in expectation, is that of the regression on the marginal velocity.

    Chen & Lipman, Flow Matching on General Geometries, 2023, arXiv:2302.03660, equation 7.

    Args:
        field: ``field(x, t, **condition)``, tangent at ``x``.
        path: the conditional path.
        x_0: draws from the source ``(*batch, *event_shape)``.
        x_1: data points, the same shape.
        t: times ``(*batch)``; drawn from ``times`` when None.
        reduction: "mean" over the batch, "sum", or "none" for one value per sample ``(*batch)``. The squared length
            is a sum over the dimensions of the tangent space, never an average.
        times: how to draw times; uniformly from (0, 1) when None.
        weight: from times to factors of each sample's loss, for example ``times.importance_weight``; "mean" divides by
            the number of samples, not by the sum of the weights.
        generator: source of randomness for the times.
        condition: passed on to the field.

    Raises:
        ValueError: if ``reduction`` is none of the three, or both ``t`` and ``times`` are given.
    """
    sample = draw("flow_matching_loss", path, x_0, x_1, t, reduction, times, generator)
    u = field(sample.x_t, sample.t, **condition)
    check_shape("flow_matching_loss: the field", u, sample.x_t.shape)
    residual = u - sample.dx_t
    return reduced(path.manifold.inner(sample.x_t, residual, residual), sample.t, weight, reduction)


def endpoint_loss(
    predictor: Callable[..., Tensor],
    path: ConditionalPath,
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
    """Return the squared distance between predicted and true end point, as seen from the point on the way.

    That is ``|log_x(prediction) - log_x(x_1)|^2`` at ``x = x_t``: in flat space ``|prediction - x_1|^2``. On curved
    spaces it differs from the squared geodesic distance, and is the default because its minimiser gives the marginal
    velocity by `rfm.paths.conversions.velocity_from_endpoint`. On a `GeodesicPath` it is the flow matching loss of that
    velocity, times ``(kappa / kappa')^2``.

    The "geodesic" distance ``d(prediction, x_1)^2`` carries the spread of geodesics from ``x_t`` (their Jacobi fields),
    which no loss of velocities sees (Zaghen et al., Riemannian Variational Flow Matching, 2025, arXiv:2502.12981). Its
    minimiser is the Fréchet mean of ``x_1`` given ``x_t``, whose logarithm is the mean logarithm in flat space alone:
    elsewhere the flow of that velocity does not end exactly at the data.

    Args:
        predictor: ``predictor(x, t, **condition)``, a point of the manifold.
        path: the conditional path.
        x_0: draws from the source ``(*batch, *event_shape)``.
        x_1: data points, the same shape.
        t: as in `flow_matching_loss`.
        reduction: as in `flow_matching_loss`.
        distance: "tangent" or "geodesic", as said above.
        times: as in `flow_matching_loss`.
        weight: as in `flow_matching_loss`.
        generator: as in `flow_matching_loss`.
        condition: passed on to the predictor.

    Raises:
        ValueError: if ``reduction`` is none of the three, ``distance`` none of the two, or both ``t`` and ``times`` are
            given.
    """
    check_distance("endpoint_loss", distance)
    sample = draw("endpoint_loss", path, x_0, x_1, t, reduction, times, generator)
    manifold, x_t = path.manifold, sample.x_t
    end = predictor(x_t, sample.t, **condition)
    check_shape("endpoint_loss: the predictor", end, x_t.shape)
    if distance == "geodesic":
        return reduced(manifold.squared_dist(end, x_1), sample.t, weight, reduction)
    residual = manifold.logmap(x_t, end) - manifold.logmap(x_t, x_1)
    return reduced(manifold.inner(x_t, residual, residual), sample.t, weight, reduction)


def draw(
    owner: str,
    path: ConditionalPath,
    x_0: Tensor,
    x_1: Tensor,
    t: Tensor | None,
    reduction: str,
    times: TimeSampler | None,
    generator: torch.Generator | None,
) -> PathSample:
    """Return points on conditional paths, at given times or at times that are drawn."""
    if reduction not in _REDUCTIONS:
        raise ValueError(f'{owner}: reduction must be "mean", "sum" or "none", got {reduction!r}')
    check_instance(owner, "path", path, ConditionalPath, "GeodesicPath(manifold)")
    x_0, x_1 = points_of(owner, path.manifold, x_0), points_of(owner, path.manifold, x_1)
    if t is None:
        batch = torch.broadcast_shapes(path.manifold.batch_shape(x_0), path.manifold.batch_shape(x_1))
        sampler = UniformTimes() if times is None else times
        t = sampler.sample(batch, generator=generator, dtype=at_least_float32(x_1.dtype), device=x_1.device)
    elif times is not None:
        raise ValueError(f"{owner}: got both t and times; pass the times themselves, or how to draw them")
    elif hasattr(t, "__len__"):  # a bare number is refused by the path
        t = tensor_of(owner, "t", t, None if isinstance(t, Tensor) else at_least_float32(x_1.dtype))
    return path.sample(x_0, x_1, t)


def check_distance(owner: str, distance: str) -> None:
    """Raise ValueError unless it is one of the two."""
    if distance not in get_args(Distance):
        raise ValueError(f'{owner}: distance must be "tangent" or "geodesic", got {distance!r}')


def reduced(loss: Tensor, t: Tensor, weight: Callable[[Tensor], Tensor] | None, reduction: str) -> Tensor:
    """Return the losses ``(*batch)`` weighted by their times and reduced."""
    if weight is not None:
        factors = weight(t)
        check_shape("loss: weight", factors, t.shape)
        loss = factors * loss
    if reduction == "none":
        return loss
    return loss.mean() if reduction == "mean" else loss.sum()


def check_shape(what: str, values: Tensor, shape: torch.Size) -> None:
    """Raise ValueError for another shape."""
    if values.shape != shape:
        raise ValueError(f"{what} must return shape {tuple(shape)}, got {tuple(values.shape)}; nothing is broadcast")
