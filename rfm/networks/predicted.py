"""A network that predicts score, noise or end point, as the velocity field that follows from it."""

import math
from collections.abc import Callable
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from manifolds import Manifold
from manifolds.arguments import check_instance, positive
from rfm.field import Field, as_field
from rfm.networks.precision import in_precision_of_weights
from rfm.paths import AffinePath, ConditionalPath, GeodesicPath

__all__ = ["PredictedVelocity", "Prediction"]

Prediction = Literal["velocity", "score", "noise", "end point"]
"""What a network may predict: see `PredictedVelocity`."""


class PredictedVelocity(nn.Module, Field):
    """The velocity ``a(t) x + b(t) network(x, t)`` of a network that predicts something else.

    ============ ==================================== =======================================================
    prediction   path                                 the network's output
    ============ ==================================== =======================================================
    "score"      `rfm.paths.GaussianPath`             the gradient of the log-density at time t
    "noise"      `rfm.paths.AffinePath`, `GaussianPath` the mean of the unit noise, ``x_0 / source_scale``
    "end point"  `rfm.paths.AffinePath`, `GaussianPath` the mean of ``x_1``
    "end point"  `rfm.paths.GeodesicPath`             the end point ``exp_x(u)`` by its logarithm u, tangent at x
    ============ ==================================== =======================================================

    Where the velocity does not follow from the prediction at an end of time (`rfm.paths.conversions` says where), it is
    held at its formula of a time ``margin`` away: at the data that is an exponential approach to the predicted end
    point, and the flow's density is exact for what is drawn.

    Args:
        network: ``network(x, t, **condition)``, of the shape of ``x``; tangent at ``x`` where the space is curved.
        path: that it is trained on.
        predicts: "score", "noise" or "end point".
        margin: shortest time to an end of time where the conversion is singular.

    Raises:
        ValueError: for a path on which the prediction does not say the velocity.
    """

    def __init__(
        self, network: Callable[..., Tensor], path: ConditionalPath, predicts: Prediction, margin: float = 1e-3
    ) -> None:
        super().__init__()
        check_predicts("PredictedVelocity", path, predicts)
        self.network, self.path, self.predicts = network, path, predicts
        self.margin = positive("PredictedVelocity", "margin", margin)
        inner = as_field(network)
        self.condition_dim, self.condition_labels = inner.condition_dim, inner.condition_labels
        self.needs_condition, self.reads_unknown = inner.needs_condition, inner.reads_unknown
        low, high = (self._is_regular(t) for t in (0.0, 1.0))
        self._low, self._high = 0.0 if low else self.margin, 1.0 if high else 1 - self.margin

    @property
    def manifold(self) -> Manifold:
        """Where the points live."""
        return self.path.manifold

    @in_precision_of_weights
    def forward(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        """Return the velocity at ``x``; arguments as for the network."""
        s = self._held(t)
        return self._velocity(x, s, self.network(x, s, **condition))

    def predicted(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        """Return what the network predicts at ``x``, ``(*batch, *event_shape)``."""
        return self.network(x, t, **condition)

    def endpoint(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        """Return the end point that follows from what the network predicts, ``(*batch, *event_shape)``."""
        out = self.network(x, t, **condition)
        lift = self.manifold.lift
        if isinstance(self.path, GeodesicPath):
            return self.manifold.expmap(x, out)
        if self.predicts == "end point":
            return out
        at = cast(AffinePath, self.path).schedule(t)
        noise = out if self.predicts == "noise" else -lift(at.sigma) * out
        return (x - lift(at.sigma) * noise) / lift(torch.where(at.alpha == 0, math.nan, at.alpha))

    def pushforward(self, x: Tensor, t: Tensor, tangents: Tensor, **condition: Any) -> tuple[Tensor, Tensor] | None:
        s = self._held(t)
        known = as_field(self.network).pushforward(x, s, tangents, **condition)
        if known is None:
            return None
        a, b = self._coefficients(s)
        axis = x.ndim - len(self.manifold.event_shape)

        def along_all(c: Tensor) -> Tensor:
            return self.manifold.lift(c).unsqueeze(axis) if c.ndim else c

        u, du = known
        moved = along_all(b) * du
        return self._velocity(x, s, u), moved if a is None else moved + along_all(a) * tangents

    def encoded(self, condition: Tensor) -> tuple[Callable[..., Tensor], Tensor]:
        network, own = as_field(self.network).encoded(condition)
        return PredictedVelocity(network, self.path, self.predicts, self.margin), own

    def without_and_with(self, x: Tensor, t: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        s = self._held(t)
        free, held = as_field(self.network).without_and_with(x, s, condition)
        return self._velocity(x, s, free), self._velocity(x, s, held)

    def _held(self, t: Tensor) -> Tensor:
        """Return times within those at which the conversion is regular."""
        return t if self._low == 0 and self._high == 1 else t.clamp(self._low, self._high)

    def _velocity(self, x: Tensor, t: Tensor, out: Tensor) -> Tensor:
        a, b = self._coefficients(t)
        velocity = self.manifold.lift(b) * out
        return velocity if a is None else velocity + self.manifold.lift(a) * x

    def _coefficients(self, t: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return ``a``, None for zero, and ``b`` of the velocity ``a x + b out``, of the shape of ``t``."""
        if isinstance(self.path, GeodesicPath):
            kappa, d_kappa = (1 - t, -torch.ones_like(t)) if self.path.kappa is None else self.path.kappa(t)
            return None, -d_kappa / kappa
        schedule = cast(AffinePath, self.path).schedule
        if self.predicts == "score":
            return schedule.probability_flow(t)
        alpha, sigma, d_alpha, d_sigma = schedule(t)
        if self.predicts == "noise":
            f = schedule.probability_flow(t)[0]
            return f, d_sigma - sigma * f
        rate = d_sigma / sigma
        return rate, d_alpha - alpha * rate

    def _is_regular(self, t: float) -> bool:
        """Return whether the velocity follows from the prediction at a time."""
        a, b = self._coefficients(torch.tensor(t, dtype=torch.float64))
        return bool(b.isfinite()) and (a is None or bool(a.isfinite()))

    def extra_repr(self) -> str:
        return f"predicts={self.predicts!r}"


def check_predicts(owner: str, path: ConditionalPath, predicts: str) -> None:
    """Raise ValueError unless a prediction says the velocity on a path."""
    check_instance(owner, "path", path, ConditionalPath, "GaussianPath(Euclidean(2), VariancePreserving())")
    known = get_args(Prediction)
    if predicts not in known:
        raise ValueError(f"{owner}: predicts must be one of {', '.join(map(repr, known))}, got {predicts!r}")
    if predicts == "velocity":
        return
    if predicts == "score" and path.source is None:
        raise ValueError(
            f"{owner}: the score says the velocity where the noise is Gaussian, {type(path).__name__} presumes no "
            "source; pass path=GaussianPath(manifold, schedule)"
        )
    if not isinstance(path, AffinePath) and not (predicts == "end point" and isinstance(path, GeodesicPath)):
        raise ValueError(
            f"{owner}: {predicts} does not say the velocity of a {type(path).__name__}; take a GaussianPath in flat "
            'space, or predicts="end point" along a GeodesicPath'
        )
