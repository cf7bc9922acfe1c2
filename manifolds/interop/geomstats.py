"""geomstats: its manifolds as ours.

    os.environ["GEOMSTATS_BACKEND"] = "pytorch"   # before geomstats is first imported
    from geomstats.geometry.pre_shape import PreShapeSpace
    from manifolds.interop.geomstats import from_geomstats

    manifold = from_geomstats(PreShapeSpace(4, 2))

**float64, on the CPU.** geomstats makes its own tensors in one dtype on one device. Whatever comes in is computed
there in float64 and goes back in its own dtype and on its own device. Importing geomstats with the pytorch backend
sets torch's default dtype to float64; the adapter does not depend on that, so it may be set back.

**Logarithms** that geomstats iterates for (Stiefel) are wrong for distant points, without a word; the checker says so.

**Derivatives.** Methods work under `torch.func` although geomstats branches on values. What geomstats itself cannot
differentiate raises: logarithms that go through scipy (SO(3), Grassmann, Stiefel), which training and likelihoods do
not differentiate. Exponential maps must be differentiable: the velocity of a geodesic is the derivative of ``expmap``.

Where both libraries have a manifold, use ours: it is exact to rounding, in any dtype, on any device.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from manifolds.base import Manifold
from manifolds.checks import check_deviation, check_shape
from manifolds.composed.product import Product
from manifolds.interop.transformable import apply_to_rows

try:
    import geomstats.backend
    import geomstats.geometry.manifold
except (ImportError, AttributeError) as error:
    raise ImportError(
        "manifolds.interop.geomstats: geomstats cannot be imported "
        f"({type(error).__name__}: {error}); pip install 'riemannian-flow-matching[geomstats]', "
        "which keeps numpy below 2.4"
    ) from error


def from_geomstats(space: Any, volume: float | None = None) -> Manifold:
    """Return a geomstats space, with the metric that it is equipped with, as one of our manifolds.

    A product whose points are its factors' points one after another becomes a `Product` of what the factors become.

    Args:
        space: an equipped space of real points, whose points are single tensors.
        volume: its total volume, if it is compact and isotropic noise projected to it is uniform, as on spheres,
            Stiefel and Grassmann manifolds and SO(n); gives ``random_uniform`` and a default source.

    Raises:
        ValueError: if geomstats runs on another backend than pytorch, or the space has no metric, no single tensor for
            a point, or a metric whose geodesics cannot be computed or differentiated.
    """
    if geomstats.backend.__name__ != "geomstats.pytorch":
        raise ValueError(
            f"from_geomstats: geomstats was imported with its {geomstats.backend.__name__.rpartition('.')[2]} backend, "
            'pytorch is required; set os.environ["GEOMSTATS_BACKEND"] = "pytorch" before the first import of geomstats'
        )
    if not isinstance(space, geomstats.geometry.manifold.Manifold) or not hasattr(space, "metric"):
        raise ValueError(
            f"from_geomstats: takes an instance of a geomstats manifold equipped with a metric, got {space!r}; "
            "pass Hypersphere(2), say, or call equip_with_metric"
        )
    total = getattr(space.metric, "_total_space", None)
    if total is not None and type(total) is type(space):
        raise ValueError(
            f"from_geomstats: the points of {_name(space)} are classes, each standing for an orbit, and geomstats has "
            "no smooth map that is the same all over an orbit; networks would learn a field that is not one of the "
            "quotient: use manifolds.Quotient, or the total space"
        )
    factors = _factors(space)
    if factors:
        return Product(*(from_geomstats(factor) for factor in factors))
    adapted = FromGeomstats(space, volume)
    adapted.check_geodesics()
    return adapted


class FromGeomstats(Manifold):
    """A geomstats space as one of our manifolds; made by `from_geomstats`.

    ``injectivity_radius`` is stated only where geomstats says that it is infinite: its finite values are not always
    those of the metric.

    Args:
        space: the equipped space.
        volume: its total volume, where projected isotropic noise is uniform.
    """

    def __init__(self, space: Any, volume: float | None = None) -> None:
        super().__init__(space.dim, space.shape)
        self.space = space
        self.volume = volume
        with _double_by_default():
            self.injectivity_radius = _injectivity_radius(space)

    # Projections.

    def projx(self, x: Tensor) -> Tensor:
        return self._call(self.space.projection, self.event_shape, x)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return self._call(lambda x, u: self.space.to_tangent(u, x), self.event_shape, x, u)

    # Metric.

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return self._call(lambda x, u, v: self.space.metric.inner_product(u, v, x), (), x, u, v)

    # Geodesics.

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return self._call(lambda x, u: self.space.metric.exp(u, x), self.event_shape, x, u)

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        return self._call(lambda x, y: self.space.metric.log(y, x), self.event_shape, x, y)

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

    def check_geodesics(self) -> None:
        """Raise ValueError unless geodesics can be computed and differentiated, at two points that geomstats draws."""
        with torch.random.fork_rng(devices=[]), _double_by_default():
            torch.manual_seed(0)
            points = self.space.random_point(2)
        if not isinstance(points, Tensor) or points.shape != (2, *self.event_shape) or not points.is_floating_point():
            raise ValueError(
                f"from_geomstats: points of {self} must be real tensors of shape {tuple(self.event_shape)}; use "
                "coordinates in which they are"
            )
        x, y = points.double()
        try:
            u = self.logmap(x, y)
            self.inner(x, u, self.proju(x, u))
            _, dx = self.shoot(x, u, torch.tensor(0.5, dtype=torch.float64))
            finite = bool(u.isfinite().all() and dx.isfinite().all())
        # What spaces without closed forms raise, each its own way; the error names it, and keeps it as its cause.
        except (RuntimeError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(
                f"from_geomstats: {self} has no geodesics to offer: geomstats raises {type(error).__name__} "
                f"({str(error).splitlines()[0] if str(error) else 'no message'}) in exp, its derivative, log, "
                "inner_product or to_tangent; equip the space with a metric that has them in closed form"
            ) from error
        if not finite:
            raise ValueError(
                f"from_geomstats: {self}: the geodesic between two random points is not finite; equip the space with "
                "another metric"
            )

    def check_point(self, x: Tensor, tol: float | None = None) -> None:
        check_shape(self, "points", x)
        if not bool(x.isfinite().all()):
            # geomstats's projections raise errors of linear algebra.
            bad = ~x.isfinite().flatten(x.ndim - len(self.event_shape)).all(-1)
            check_deviation(self, torch.where(bad, math.inf, 0.0), x, tol, "points", "", "")
        super().check_point(x, tol)

    def extra_repr(self) -> str:
        return _name(self.space)

    def _call(self, function: Callable[..., Tensor], shape: tuple[int, ...], *tensors: Tensor) -> Tensor:
        """Call geomstats with one batch axis, in float64, and give the result the batch shape and dtype of the input.

        Args:
            function: from tensors ``(n, *event_shape)`` to one ``(n, *shape)``.
            shape: see ``function``.
            tensors: points or vectors.
        """
        like, batch = tensors[0], torch.broadcast_shapes(*(self.batch_shape(a) for a in tensors))
        rows = [
            a.expand((*batch, *self.event_shape)).reshape((-1, *self.event_shape)).to("cpu", torch.float64).contiguous()
            for a in tensors
        ]
        dtype = torch.result_type(like, tensors[-1])
        if not math.prod(batch):
            return like.new_zeros((*batch, *shape), dtype=dtype)

        def in_double(*rows: Tensor) -> Tensor:
            # Some of geomstats's logarithms are found by its own use of autograd.
            with _double_by_default(), torch.enable_grad():
                # geomstats drops the batch axis of some results when it has length one.
                return function(*rows).reshape((len(rows[0]), *shape))

        return apply_to_rows(in_double, *rows).reshape((*batch, *shape)).to(like.device, dtype)


def _factors(space: Any) -> list[Any]:
    """Return the factors of a product with concatenated points and the sum of their metrics; else none."""
    factors = list(getattr(space, "factors", ()))
    metrics = list(getattr(space.metric, "factors", ()))
    plain = type(space.metric).__name__ == "ProductRiemannianMetric" and len(space.shape) == 1
    same = len(metrics) == len(factors) and all(m is f.metric for m, f in zip(metrics, factors, strict=True))
    return factors if plain and same else []


def _injectivity_radius(space: Any) -> float | None:
    try:
        radius = float(space.metric.injectivity_radius())
    # Not every metric has the method, some ask for a point or answer with one number a point; not known is safe.
    except (TypeError, ValueError, RuntimeError, AttributeError):
        return None
    return radius if math.isinf(radius) else None


def _name(space: Any) -> str:
    shape = ", ".join(map(str, space.shape))
    return f"{type(space).__name__} of points ({shape}) with {type(space.metric).__name__}"


@contextmanager
def _double_by_default() -> Iterator[None]:
    """Make the constants that geomstats creates float64, whatever torch's default dtype is outside."""
    outside = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(outside)
