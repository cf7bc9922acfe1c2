"""geoopt: its manifolds as ours, and ours where it expects one of its own.

    from manifolds.interop.geoopt import from_geoopt, to_geoopt

    manifold = from_geoopt(geoopt.PoincareBall(c=0.5), event_shape=(3,))
    parameter = geoopt.ManifoldParameter(torch.eye(3), manifold=to_geoopt(SO3()))

Where both libraries have a manifold, use ours: `check_manifold(from_geoopt(...))` says what the other's formulas lose
(the distance of a point to itself, short logarithms, antipodes).
"""

import math
from collections.abc import Callable, Sequence
from functools import singledispatch
from typing import Any, NoReturn

import torch
from torch import Tensor

from manifolds.base import Manifold
from manifolds.composed.power import Power
from manifolds.composed.product import Product
from manifolds.composed.scaled import Scaled
from manifolds.interop.as_geoopt import Sizes, ToGeoopt, geoopt
from manifolds.interop.shooting import shoot_at
from manifolds.numerics import log_frames_volume, log_sphere_area
from manifolds.tangent_spaces import projector


def from_geoopt(manifold: Any, event_shape: Sequence[int], dim: int | None = None) -> Manifold:
    """Return a geoopt manifold as one of ours.

    Products become a `Product` of what their factors become. Axes of ``event_shape`` beyond those that the manifold
    counts as its own are independent copies, as in geoopt: ``from_geoopt(geoopt.Sphere(), (5, 3))`` is a `Power`.

    Args:
        manifold: an instance of a geoopt manifold; its parameters and buffers move with the result.
        event_shape: shape of one point, which geoopt manifolds do not know.
        dim: intrinsic dimension; by default the rank of its ``proju``.

    Raises:
        ValueError: if it is no geoopt manifold, if the shape does not fit, or where it has no geodesics to offer.
    """
    if not isinstance(manifold, geoopt.Manifold):
        raise ValueError(
            f"from_geoopt: takes an instance of a geoopt manifold, got {manifold!r}; pass geoopt.Sphere(), say"
        )
    shape = tuple(int(n) for n in event_shape)
    if isinstance(manifold, ToGeoopt) and shape == tuple(manifold.manifold.event_shape):
        return manifold.manifold
    fits, reason = manifold._check_shape(shape, "event_shape") if shape else (False, "it is empty")
    if not fits:
        raise ValueError(f"from_geoopt: points of {manifold} cannot have event_shape {shape}: {reason}")
    copies = shape[: len(shape) - manifold.ndim] if manifold.ndim else ()
    adapted = adapt(manifold, shape[len(copies) :], dim)
    for k in reversed(copies):
        adapted = Power(adapted, k)
    return adapted


def to_geoopt(manifold: Manifold) -> Any:
    """Return one of our manifolds as a geoopt manifold, for its parameters, optimisers and samplers.

    Args:
        manifold: the manifold; it is held, not copied.
    """
    if not isinstance(manifold, Manifold):
        raise ValueError(f"to_geoopt: takes an instance of manifolds.Manifold, got {manifold!r}; pass Sphere(2), say")
    return manifold.foreign if type(manifold) is FromGeoopt else ToGeoopt(manifold)


class FromGeoopt(Manifold):
    """A geoopt manifold as one of ours; made by `from_geoopt`.

    ``dist`` is the length of ``logmap``, not geoopt's own, which is not 0 at coincident points. Where geoopt has no
    ``logmap`` it is found by shooting with ``expmap``: right up to ``logmap_radius``, a connecting geodesic beyond it,
    and NaN where the search fails. ``transp`` is geoopt's, which need not be parallel transport.

    For a geoopt manifold whose ``expmap`` is only a retraction, subclass this and write ``expmap``.

    Args:
        foreign: the geoopt manifold.
        event_shape: shape of one point.
        dim: intrinsic dimension; by default the rank of ``proju``.
        volume: total volume, of a compact manifold on which projected isotropic noise is uniform, as on a sphere.
        injectivity_radius: see `Manifold`.
        isometric: whether geoopt's ``transp`` keeps inner products; some are projections.
    """

    def __init__(
        self,
        foreign: Any,
        event_shape: Sequence[int],
        dim: int | None = None,
        *,
        volume: float | None = None,
        injectivity_radius: float | None = None,
        isometric: bool = False,
    ) -> None:
        super().__init__(dim or 1, event_shape)
        self.foreign, self.isometric = foreign, isometric
        self.volume, self.injectivity_radius = volume, injectivity_radius
        self.has_logmap = type(foreign).logmap is not geoopt.Manifold.logmap
        if not self.has_logmap:
            self.logmap_radius = _SHOOTING_RADIUS
        self.dim = dim or self._rank()

    # Projections.

    def projx(self, x: Tensor) -> Tensor:
        return self.foreign.projx(x)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return self._call(self.foreign.proju, x, u)

    # Metric.

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        # With keepdim: without it some of geoopt's broadcast the batch against itself.
        return self._call(lambda *a: self.foreign.inner(*a, keepdim=True), x, u, v).sum(self._event_axes)

    # Geodesics.

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return self._call(self.foreign.expmap, x, u)

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        if self.has_logmap:
            return self._call(self.foreign.logmap, x, y)
        u, converged = shoot_at(self, x, y)
        return torch.where(self.lift(converged), u, math.nan)

    def transp(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        if type(self.foreign).transp is geoopt.Manifold.transp:
            return self.proju(y, u)
        return self._call(self.foreign.transp, x, y, u)

    @property
    def transp_is_isometric(self) -> bool:
        """Whether geoopt's is known to be."""
        return self.isometric

    # Bases and volume.

    def random_uniform(
        self,
        *shape: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        if self.volume is None:
            return super().random_uniform(*shape, generator=generator, dtype=dtype, device=device)
        return self.projx(torch.randn(*shape, *self.event_shape, generator=generator, dtype=dtype, device=device))

    def extra_repr(self) -> str:
        return f"{self.foreign!r}, event_shape={tuple(self.event_shape)}, dim={self.dim}"

    def _call(self, method: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        """Call geoopt, which does not broadcast everywhere and fails on empty batches."""
        tensors = tuple(torch.broadcast_tensors(*tensors))
        return method(*tensors) if tensors[0].numel() else tensors[0].clone()

    def _rank(self) -> int:
        """Return the rank of ``proju`` at a point, in the dtype of the manifold's own numbers."""
        own = next(iter((*self.foreign.buffers(), *self.foreign.parameters())), torch.empty((), dtype=torch.float64))
        ambient = torch.randn(self.event_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        with torch.no_grad():
            point = self.projx(0.3 * ambient.to(own))
            return int(torch.linalg.matrix_rank(projector(self, point), rtol=1e-3))


class StereographicSphere(FromGeoopt):
    """geoopt's stereographic model of a sphere, ``k > 0``; ``embed`` gives the point on the sphere, not the chart's.

    Args:
        foreign: the geoopt manifold.
        event_shape: shape of one point.
    """

    def __init__(self, foreign: Any, event_shape: Sequence[int]) -> None:
        radius, n = float(foreign.k) ** -0.5, math.prod(event_shape)
        volume = math.exp(log_sphere_area(n)) * radius**n
        super().__init__(foreign, event_shape, n, volume=volume, injectivity_radius=math.pi * radius, isometric=True)

    def random_uniform(
        self,
        *shape: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        y = torch.randn(*shape, self.dim + 1, generator=generator, dtype=dtype, device=device)
        y = y / torch.linalg.vector_norm(y, dim=-1, keepdim=True)
        return y[..., 1:] / (1 + y[..., :1]) * self.foreign.k.to(y).rsqrt()

    def embed(self, x: Tensor) -> Tensor:
        z = self.foreign.k.to(x).sqrt() * x
        q = (z * z).sum(-1, keepdim=True)
        return torch.cat([1 - q, 2 * z], dim=-1) / (1 + q)

    @property
    def embed_dim(self) -> int:
        return self.dim + 1


class CanonicalStiefel(FromGeoopt):
    """geoopt's Stiefel manifold with the canonical metric, with the exponential map that geoopt lacks.

    geoopt's ``expmap`` there is the Cayley retraction, and its ``proju`` turns gradients into Riemannian ones but
    changes tangent vectors. Here they are the exponential map and the orthogonal projection.

    References:
        Edelman, Arias, Smith, The geometry of algorithms with orthogonality constraints, 1998, arXiv:physics/9806030,
        section 2.4.
    """

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        a = x.mT @ u
        return u - x @ (a + a.mT) / 2

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        # The horizontal rotation of the ambient space whose velocity at x is u.
        s = u @ x.mT
        return torch.linalg.matrix_exp(s - s.mT - x @ (x.mT @ s)) @ x


class LearnableScale(Scaled):
    """A manifold with all lengths multiplied by the parameter of a ``geoopt.Scaled``; no volume or radius is stated.

    Args:
        m: the manifold.
        foreign: the ``geoopt.Scaled``.
    """

    def __init__(self, m: Manifold, foreign: Any) -> None:
        super().__init__(m, float(foreign.scale))
        self.foreign = foreign
        self.volume = self.injectivity_radius = None

    @property
    def metric_is_induced(self) -> bool:
        """False: the scale may come to be any."""
        return False

    @property
    def kernel(self) -> None:
        """None: its normaliser would move with the scale."""
        return None

    def extra_repr(self) -> str:
        return f"{self.m!r}, scale={float(self.foreign.scale):g}"

    def _scale(self, x: Tensor) -> Tensor:
        scale: Tensor = self.foreign.scale.to(x)
        return scale


# What is known of geoopt's classes, and what it lacks.


@singledispatch
def adapt(manifold: Any, event_shape: Sizes, dim: int | None) -> Manifold:
    """Return a geoopt manifold as one of ours, for points with its own axes alone.

    A generic function: ``adapt.register(MyGeooptManifold)`` adds facts that `FromGeoopt` cannot find out.

    Args:
        manifold: the geoopt manifold.
        event_shape: shape of one point.
        dim: intrinsic dimension, None where it is to be found out.
    """
    return FromGeoopt(manifold, event_shape, dim)


@adapt.register(geoopt.Euclidean)
@adapt.register(geoopt.Lorentz)
def _(manifold: Any, event_shape: Sizes, dim: int | None) -> Manifold:
    return FromGeoopt(manifold, event_shape, dim, injectivity_radius=math.inf, isometric=True)


@adapt.register
def _(manifold: geoopt.Sphere, event_shape: Sizes, dim: int | None) -> Manifold:
    dim = dim or FromGeoopt(manifold, event_shape).dim
    return FromGeoopt(manifold, event_shape, dim, volume=math.exp(log_sphere_area(dim)), injectivity_radius=math.pi)


@adapt.register
def _(manifold: geoopt.Stereographic, event_shape: Sizes, dim: int | None) -> Manifold:
    if manifold.k.requires_grad:
        return FromGeoopt(manifold, event_shape, dim, isometric=True)
    if float(manifold.k) > 0:
        return StereographicSphere(manifold, event_shape)
    return FromGeoopt(manifold, event_shape, dim, injectivity_radius=math.inf, isometric=True)


@adapt.register
def _(manifold: geoopt.SymmetricPositiveDefinite, event_shape: Sizes, dim: int | None) -> Manifold:
    if manifold.default_metric.value != "AIM":
        _refuse(
            manifold,
            "only its dist is that of this metric; its geodesics and inner products are the affine-invariant ones",
            'take default_metric="AIM", or manifolds.LogEuclideanSPD',
        )
    return FromGeoopt(manifold, event_shape, dim, injectivity_radius=math.inf, isometric=True)


@adapt.register
def _(manifold: geoopt.EuclideanStiefel, event_shape: Sizes, dim: int | None) -> Manifold:
    _, p = event_shape
    volume = _stiefel_volume(event_shape)
    return FromGeoopt(manifold, event_shape, dim, volume=volume and volume * 2 ** (p * (p - 1) / 4))


@adapt.register
def _(manifold: geoopt.CanonicalStiefel, event_shape: Sizes, dim: int | None) -> Manifold:
    return CanonicalStiefel(manifold, event_shape, dim, volume=_stiefel_volume(event_shape))


@adapt.register
def _(manifold: geoopt.ProductManifold, event_shape: Sizes, dim: int | None) -> Manifold:
    factors = zip(manifold.manifolds, manifold.shapes, strict=True)
    return Product(*(from_geoopt(factor, shape or (1,)) for factor, shape in factors))


@adapt.register
def _(manifold: geoopt.Scaled, event_shape: Sizes, dim: int | None) -> Manifold:
    base = adapt(manifold.base, event_shape, dim)
    return LearnableScale(base, manifold) if manifold.scale.requires_grad else Scaled(base, float(manifold.scale))


@adapt.register
def _(manifold: geoopt.BirkhoffPolytope, event_shape: Sizes, dim: int | None) -> NoReturn:
    _refuse(manifold, "its expmap is a retraction", "subclass FromGeoopt and write expmap")


@adapt.register(geoopt.UpperHalf)
@adapt.register(geoopt.BoundedDomain)
def _(manifold: Any, event_shape: Sizes, dim: int | None) -> NoReturn:
    _refuse(manifold, "it has no expmap, and its points are complex", "use geomstats, whose Siegel space has geodesics")


def _refuse(manifold: Any, finding: str, remedy: str) -> NoReturn:
    raise ValueError(f"from_geoopt: {manifold} has no geodesics to offer: {finding}; {remedy}")


def _stiefel_volume(event_shape: Sizes) -> float | None:
    """Return the volume in the canonical metric; None for square matrices, which fall into two components."""
    n, p = event_shape
    return None if n == p else math.exp(log_frames_volume(n, p))


_SHOOTING_RADIUS = 1.0
