"""The first questions about points on a curved space: their mean, how far they spread, and in which directions."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from manifolds import Manifold
from manifolds.arguments import check_instance
from manifolds.numerics.precision import in_full_precision
from rfm.arrays import points_of, tensor_of

_STARTS = 8
"""Descents from as many points far from each other: on a closed space the sum of squares may have several minima."""
_FIRST_ROWS = 2000
"""Points that the descents see; the best is then continued on all."""
_STEPS = 500
_CHUNK = 2**16


@dataclass(frozen=True)
class FrechetMean:
    """The point from which points are least far, by the mean of squared distances.

    Args:
        point: ``(*event_shape)``, in the precision of the points.
        variance: the mean of squared distances to it (Fréchet variance), in the squared unit of the metric.
        runner_up: the least variance at another local minimum that was found; None if every descent ended at
            ``point``. Close to ``variance``, it says that the data have no one centre.
    """

    point: Tensor
    variance: float
    runner_up: float | None

    @property
    def standard_deviation(self) -> float:
        """The root of the variance, in the unit of the metric."""
        return self.variance**0.5


@dataclass(frozen=True)
class PrincipalGeodesics:
    """The directions in which points spread most, as geodesics through their mean.

    Args:
        manifold: where the points lie.
        mean: where the geodesics meet, ``(*event_shape)``.
        directions: unit tangent vectors at ``mean``, orthogonal to each other, ``(dim, *event_shape)``, widest first;
            each with its largest coordinate positive, for the sign is free.
        standard_deviations: of the points' logarithms along each, ``(dim,)``; their squares sum to the variance.
    """

    manifold: Manifold
    mean: Tensor
    directions: Tensor
    standard_deviations: Tensor

    @property
    def explained(self) -> Tensor:
        """The share of each direction in the variance, ``(dim,)``; zeros where all points are one."""
        squares = self.standard_deviations.square()
        return squares / squares.sum().clamp(min=torch.finfo(squares.dtype).tiny)

    def geodesic(self, index: int, distances: Tensor) -> Tensor:
        """Return the points at signed distances from the mean along one direction, ``(*distances, *event_shape)``."""
        s = distances.reshape(*distances.shape, *(1,) * len(self.manifold.event_shape)).to(self.mean)
        return self.manifold.expmap(self.mean, s * self.directions[index])


@in_full_precision
def frechet_mean(manifold: Manifold, points: Any, weights: Any = None) -> FrechetMean:
    """Return the Fréchet mean of points: the least weighted sum of squared distances.

    Gradient descent (Karcher's iteration: to the mean of the logarithms, with shorter steps where that does not
    descend), from several points far from each other. In a space of non-positive curvature, or for points within half
    the convexity radius of each other, the mean is unique; elsewhere it is the best minimum found, with the next best
    beside it.

    Args:
        manifold: where the points lie.
        points: ``(n, *event_shape)``.
        weights: ``(n,)``, non-negative with a positive sum; equal by default.

    Raises:
        ValueError: for points that are none, weights that are not as said, or a descent that does not end.

    References:
        Fréchet, Les éléments aléatoires de nature quelconque dans un espace distancié, 1948; Karcher, Riemannian
        center of mass and mollifier smoothing, 1977; Afsari, Tron, Vidal, On the convergence of gradient descent for
        finding the Riemannian center of mass, 2013, doi:10.1137/12086282X.
    """
    x, w, dtype = _checked("frechet_mean", manifold, points, weights)
    few, own = _first_rows(x, w)
    found, variance = _descend(manifold, _starts(manifold, few), few, own)
    best = int(variance.argmin())
    apart = manifold.dist(found, found[best]) > 1e-3 * variance[best].sqrt() + 1e-6
    point, least = _descend(manifold, found[best, None], x, w)
    others = variance[apart]
    runner_up = None
    if len(others):  # on all points, as the best is
        index = int(torch.where(apart, variance, torch.inf).argmin())
        runner_up = float(_descend(manifold, found[index, None], x, w)[1])
    return FrechetMean(point[0].to(dtype), float(least), runner_up)


@in_full_precision
def principal_geodesics(
    manifold: Manifold, points: Any, weights: Any = None, mean: Tensor | None = None
) -> PrincipalGeodesics:
    """Return the directions in which points spread, by the eigenvectors of the covariance of their logarithms.

    Args:
        manifold: where the points lie.
        points: ``(n, *event_shape)``.
        weights: ``(n,)``, non-negative with a positive sum; equal by default.
        mean: where to take logarithms, ``(*event_shape)``; the Fréchet mean by default.

    Raises:
        ValueError: as `frechet_mean`.

    References:
        Fletcher, Lu, Pizer, Joshi, Principal geodesic analysis for the study of nonlinear statistics of shape, 2004,
        doi:10.1109/TMI.2004.831793, algorithm 2.
    """
    x, w, dtype = _checked("principal_geodesics", manifold, points, weights)
    if mean is None:
        centre = frechet_mean(manifold, x, w).point
    else:
        centre = points_of("principal_geodesics: mean", manifold, mean).detach().to(x)
    basis = manifold.tangent_basis(centre)
    covariance = x.new_zeros(manifold.dim, manifold.dim)
    for part, share in zip(x.split(_CHUNK), w.split(_CHUNK), strict=True):
        logs = manifold.logmap(centre, part)
        along = manifold.inner(centre, logs.unsqueeze(1), basis)
        covariance += along.mT @ (share[:, None] * along)
    squares, vectors = torch.linalg.eigh(covariance)
    directions = torch.tensordot(vectors.flip(1).mT, basis, dims=1)
    flat = directions.flatten(1)
    sign = flat.gather(1, flat.abs().argmax(1, keepdim=True)).sign()
    directions = directions * sign.reshape(-1, *(1,) * len(manifold.event_shape))
    deviations = squares.flip(0).clamp(min=0).sqrt()
    return PrincipalGeodesics(manifold, centre.to(dtype), directions.to(dtype), deviations.to(dtype))


def _checked(owner: str, manifold: Manifold, points: Any, weights: Any) -> tuple[Tensor, Tensor, torch.dtype]:
    """Return points and weights that sum to one, in float64, and the precision they came in."""
    check_instance(owner, "manifold", manifold, Manifold, "Sphere(2)")
    own = points_of(owner, manifold, points).detach()
    if own.ndim != 1 + len(manifold.event_shape) or not len(own):
        shape = ", ".join(["n", *map(str, manifold.event_shape)])
        raise ValueError(f"{owner}: points must have shape ({shape}) with n at least 1, got {tuple(own.shape)}")
    try:
        manifold.check_point(own, tol=1e-3)
    except ValueError as error:
        raise ValueError(f"{owner}: the points are none of {manifold}; {error}") from None
    x = own.double()
    w = x.new_ones(len(x)) if weights is None else tensor_of(owner, "weights", weights).detach().to(x)
    if w.shape != (len(x),) or not bool(w.isfinite().all()) or bool((w < 0).any()) or not float(w.sum()) > 0:
        raise ValueError(
            f"{owner}: weights must be {len(x)} finite numbers, none negative, with a positive sum, got "
            f"{tuple(w.shape)} from {float(w.min()) if w.numel() else 0:g}; leave them out for equal ones"
        )
    return manifold.projx(x), w / w.sum(), own.dtype


def _first_rows(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    if len(x) <= _FIRST_ROWS:
        return x, w
    # Without replacement, by weight: tables are often sorted. An order of its own, alike in every call.
    chosen = torch.multinomial(w.cpu(), _FIRST_ROWS, generator=torch.Generator().manual_seed(0)).to(x.device)
    if not bool((w[chosen] > 0).all()):  # fewer points than that have any weight
        return x[w > 0], w[w > 0]
    return x[chosen], w.new_full((_FIRST_ROWS,), 1 / _FIRST_ROWS)


def _starts(manifold: Manifold, x: Tensor) -> Tensor:
    """Return points far from each other: each the farthest from those before it."""
    rows = [0]
    nearest = manifold.dist(x, x[0])
    while len(rows) < min(_STARTS, len(x)):
        rows.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, manifold.dist(x, x[rows[-1]]))
    return x[rows]


def _descend(manifold: Manifold, mean: Tensor, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Return the ends of descents from ``(k, *event_shape)``, and the variances there, ``(k,)``."""
    axes = (...,) + (None,) * len(manifold.event_shape)
    gradient, variance = _gradient(manifold, mean, x, w)
    step = torch.ones_like(variance)
    rounding = 64 * torch.finfo(x.dtype).eps
    for _ in range(_STEPS):
        size = manifold.norm(mean, gradient)
        moving = size > 1e-9 * variance.sqrt() + rounding
        if not bool(moving.any()):
            return mean, variance
        # Twice the expected decrease is the squared norm; below its rounding error a step cannot be assessed.
        proposal = manifold.projx(manifold.expmap(mean, step[axes] * gradient))
        ahead, lower = _gradient(manifold, proposal, x, w)
        better = moving & (lower <= variance - 0.5 * step * size.square() + rounding * variance)
        mean = torch.where(better[axes], proposal, mean)
        gradient = torch.where(better[axes], ahead, gradient)
        variance = torch.where(better, lower, variance)
        step = torch.where(better, (2 * step).clamp(max=1), step / 2)
        if bool((moving & (step < 1e-6)).any()):
            break
    size = manifold.norm(mean, gradient)
    if bool((size <= 1e-5 * variance.sqrt() + rounding).all()):
        return mean, variance
    raise ValueError(
        f"frechet_mean: the descent on {manifold} did not end: a mean logarithm of length {float(size.max()):.2g} is "
        "left; are its logmap and expmap right? see manifolds.testing.check_manifold"
    )


def _gradient(manifold: Manifold, mean: Tensor, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean logarithms ``(k, *event_shape)``, which is where the sum of squares falls, and the variances."""
    total, variance = torch.zeros_like(mean), mean.new_zeros(len(mean))
    for part, share in zip(x.split(_CHUNK // len(mean)), w.split(_CHUNK // len(mean)), strict=True):
        logs = manifold.logmap(mean.unsqueeze(1), part)
        total += torch.tensordot(logs.movedim(1, -1), share, dims=1)
        variance += manifold.inner(mean.unsqueeze(1), logs, logs) @ share
    return total, variance
