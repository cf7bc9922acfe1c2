"""The exact velocity, density and score of a path to finitely many data points: the field that memorises them."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from manifolds.arguments import check_instance, integer
from manifolds.numerics.constants import Constants
from manifolds.numerics.precision import at_least_float32
from rfm.arrays import points_of, tensor_of
from rfm.field import Field
from rfm.paths.conditional import ConditionalPath
from rfm.sources import Source
from rfm.sources.base import check_same_manifold

_NOWHERE = 1e12
"""What a path that does not pass is less likely by, and less so the farther off it started: the nearest one is left."""


class MarginalVelocity(Constants, Field):
    """The minimum of the flow matching loss over all fields, for the empirical distribution of some data points.

    ``v(x, t) = sum_i w_i p_t(x | x_i) u_t(x | x_i) / p_t(x)`` with ``p_t(x) = sum_i w_i p_t(x | x_i)``: the mean of the
    conditional velocities over the data points that ``x`` may be on its way to. Lipman et al., Flow Matching for
    Generative Modeling, 2022, arXiv:2210.02747, equation 8, for a source that is independent of the data: with
    couplings the minimum is another one.

    **Exact** are velocity, density and score, up to rounding, at all times before 1. At time 1 the density is a sum of
    point masses, and the field NaN: sample and score at a time before. Where no path passes (near the data's antipodes,
    on a compact manifold with a uniform source) the density is 0, its score 0, and the velocity that to the nearest
    data point.

    On Euclidean and hyperbolic spaces, on positive definite matrices and on spheres from two dimensions on, the field
    is continuous, and `rfm.Flow.log_prob` of its flow agrees with `log_prob`. Where the density of the source does not
    vanish at the cut locus as seen from a data point, as on circles, tori and SO(3), the field jumps as paths to that
    point set in: the flow still carries the source to the data, but a divergence does not see the jumps. Take
    `log_prob` there, which solves nothing.

    Args:
        path: a `GeodesicPath`, `AffinePath` or `GaussianPath`.
        data: points ``(n, *event_shape)``.
        source: the distribution at time 0; by default that of the path, which `GaussianPath` has.
        weights: of the data points ``(n)``, not negative; equal by default.
        chunk_size: pairs of a point and a data point that are held in memory together, at least one data point each.
    """

    data: Tensor
    log_weights: Tensor

    def __init__(
        self,
        path: ConditionalPath,
        data: Any,
        source: Source | None = None,
        *,
        weights: Any = None,
        chunk_size: int = 2**18,
    ) -> None:
        super().__init__()
        where = "marginal_velocity"
        check_instance(where, "path", path, ConditionalPath, "GeodesicPath(manifold)")
        if source is None:
            source = path.source
        if source is None:
            raise ValueError(f"{where}: {type(path).__name__} starts from any source; pass the one that x_0 comes from")
        check_instance(where, "source", source, Source, "Uniform(manifold)")
        check_same_manifold(where, "the source", source.manifold, path.manifold)
        points = points_of(where, path.manifold, data).detach()
        if points.ndim != 1 + len(path.manifold.event_shape) or len(points) == 0:
            raise ValueError(
                f"{where}: data must be points of shape (n, {', '.join(map(str, path.manifold.event_shape))}), at "
                f"least one, got {tuple(points.shape)}; flatten their batch"
            )
        path.manifold.check_point(points, tol=1e-3)
        self.path, self.manifold, self.source = path, path.manifold, source
        self.chunk_size = integer(where, "chunk_size", chunk_size)
        # Raises where the path has no closed form, once and for all.
        path.given_data(source, points[:1], points[:1], points.new_full((1,), 0.5))
        log_weights = _log_weights(where, weights, points)
        kept = log_weights > -math.inf
        self.constant("data", path.manifold.projx(points.double())[kept])
        self.constant("log_weights", log_weights[kept])

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the velocity at points ``x`` ``(*batch, *event_shape)`` and times ``t`` ``(*batch)``, or one time."""
        return self._sums(x, t).velocity

    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the log-density of ``x_t``, in nats with respect to the Riemannian volume ``(*batch)``."""
        return self._sums(x, t).log_prob

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the gradient of `log_prob` in the metric, tangent at ``x``, ``(*batch, *event_shape)``."""
        m, axis = self.manifold, x.ndim - len(self.manifold.event_shape)
        x = x.to(at_least_float32(x.dtype)).contiguous()
        basis = m.tangent_basis(x)

        def along(e: Tensor) -> Tensor:
            slope: Tensor = torch.func.jvp(lambda y: self.log_prob(y, t), (x,), (e,))[1]
            return slope

        # Forward mode: memory stays that of one chunk, and data points too far off to count have no NaN derivatives.
        slopes = torch.func.vmap(along, in_dims=axis)(basis)
        return (m.lift(slopes.movedim(0, -1).to(x.dtype)) * basis).sum(axis)

    def sample(self, shape: tuple[int, ...], t: float, generator: torch.Generator | None = None) -> Tensor:
        """Return draws of ``x_t`` in float64 ``(*shape, *event_shape)``: of points on paths, which solves nothing."""
        size = torch.Size(shape)
        x_0 = self.source.sample(shape, generator=generator, dtype=torch.float64, device=self.data.device)
        rows = torch.multinomial(self.log_weights.exp(), size.numel(), replacement=True, generator=generator)
        x_1 = self.data[rows].reshape(x_0.shape)
        return self.path.sample(x_0, x_1, torch.full(size, t, dtype=torch.float64, device=x_0.device)).x_t

    def _sums(self, x: Tensor, t: Tensor) -> "_Sums":
        m, rank = self.manifold, len(self.manifold.event_shape)
        x = x.to(at_least_float32(x.dtype))
        t = t.to(x).expand(m.batch_shape(x))[..., None]
        x, sums = x.unsqueeze(-1 - rank), None
        for data, log_weights in self._chunks(x):
            given = self.path.given_data(self.source, x, data.to(x), t)
            log_p = torch.where(given.log_prob == -math.inf, -_NOWHERE * (1 + given.excess), given.log_prob)
            own = _Sums.of(log_p + log_weights.to(x), given.velocity, rank)
            sums = own if sums is None else sums.joined_with(own, m)
        assert sums is not None
        return sums

    def _chunks(self, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield data points with their weights, as many at a time as fit with the points ``x``."""
        count = max(1, self.chunk_size // max(1, self.manifold.batch_shape(x).numel()))
        yield from zip(self.data.split(count), self.log_weights.split(count), strict=True)


class _Sums(NamedTuple):
    """Sums over data points, relative to their largest term: exponentials of the terms themselves would overflow."""

    top: Tensor
    """The largest log-density ``(*batch)``."""
    total: Tensor
    """Sum of the densities over ``exp(top)``."""
    moment: Tensor
    """Sum of the velocities times the densities over ``exp(top)``."""

    @classmethod
    def of(cls, log_p: Tensor, velocity: Tensor, rank: int) -> "_Sums":
        # A constant for derivatives: it cancels.
        top = log_p.detach().amax(-1)
        share = torch.exp(log_p - top[..., None])
        return cls(top, share.sum(-1), (share[(..., *(None,) * rank)] * velocity).sum(-1 - rank))

    def joined_with(self, other: "_Sums", manifold: Any) -> "_Sums":
        top = torch.maximum(self.top, other.top)
        a, b = torch.exp(self.top - top), torch.exp(other.top - top)
        return _Sums(
            top,
            a * self.total + b * other.total,
            manifold.lift(a) * self.moment + manifold.lift(b) * other.moment,
        )

    @property
    def velocity(self) -> Tensor:
        return self.moment / self.total[(..., *(None,) * (self.moment.ndim - self.total.ndim))]

    @property
    def log_prob(self) -> Tensor:
        log_p = self.top + torch.log(self.total)
        return torch.where(log_p > -_NOWHERE / 2, log_p, -math.inf)


def marginal_velocity(
    path: ConditionalPath,
    data: Any,
    source: Source | None = None,
    *,
    weights: Any = None,
    chunk_size: int = 2**18,
) -> MarginalVelocity:
    """Return the field that flow matching on these data points would learn, were it learnt perfectly.

    The minimum of the loss over all fields, in closed form, with density and score of its marginals; its flow ends at
    the data points and nowhere else. Where a trained field departs from it is what the network generalises.

    Args:
        path: a `GeodesicPath`, `AffinePath` or `GaussianPath`.
        data: points ``(n, *event_shape)``.
        source: the distribution at time 0, independent of the data; by default that of the path, which `GaussianPath`
            has.
        weights: of the data points ``(n)``, not negative; equal by default.
        chunk_size: pairs of a point and a data point that are held in memory together.

    Raises:
        ValueError: if the path has no density given a data point in closed form, or arguments do not fit.
    """
    return MarginalVelocity(path, data, source, weights=weights, chunk_size=chunk_size)


def _log_weights(where: str, weights: Any, points: Tensor) -> Tensor:
    """Return the logarithms of shares that add up to 1, ``(n)`` in float64."""
    n = len(points)
    if weights is None:
        return torch.full((n,), -math.log(n), dtype=torch.float64, device=points.device)
    given = tensor_of(where, "weights", weights).detach().to(points.device, torch.float64)
    if given.shape != (n,) or not bool((given >= 0).all()) or not 0 < float(given.sum()) < math.inf:
        raise ValueError(
            f"{where}: weights must be one number for each of the {n} data points, not negative and not all 0, got "
            f"shape {tuple(given.shape)}; leave them out for equal weights"
        )
    return torch.log(given / given.sum())
