"""A part of a manifold with a border."""

import torch
from torch import Tensor

from manifolds.arguments import check_instance, positive
from manifolds.base import Manifold
from manifolds.checks import check_deviation, check_shape
from manifolds.composed.composite import Derived
from manifolds.constraints.constraint import Constraint
from manifolds.coordinates import Coordinates
from manifolds.numerics import tolerance

_ROUNDINGS = 32
"""Units of rounding beyond the border that count as on it; what is brought back ends twice as far inside."""


class Bounded(Derived):
    """The points of a manifold that satisfy a constraint: ``Bounded(Sphere(2), SphericalPolygon(coast))``.

    Points, tangent vectors, metric and geodesics are those of ``m``; the volume is that of the set, and the uniform
    distribution is on it. A point outside is no point: `check_point` refuses it, `excludes` says so, and a flow's
    density there is 0.

    **Flows stay inside.** `tangent_from_vector`, through which networks write velocities, damps the component normal to
    the border, to zero on it (`manifolds.constraints.constraint.Constraint.damped`). A flow of such velocities maps the
    set to itself, one to one, so that its density is exact and integrates to 1 on the set. A field of your own has to
    do the same; a step that ends outside is made again with a smaller length.

    **Geodesics** are those of ``m``. Where the set is ``convex``, shortest ones between its points stay inside. In
    others they may cross the border, and paths are to be `rfm.paths.default_path`'s. `expmap` goes on beyond the
    border, at the distance `distance_to_border` at the earliest.

    There is no smoothing ``kernel``: that of ``m`` would leak over the border.

    Args:
        m: the manifold.
        constraint: the set, such as `Box`, `Ball`, `Polytope` and `PlanarPolygon` of Euclidean space, `JointLimits` of
            a torus, `SphericalPolygon` and `Cap` of a sphere.
        layer: distance from a wall at which the normal component of a velocity is half of what the network says; by
            default it follows the size of the set.
    """

    def __init__(self, m: Manifold, constraint: Constraint, layer: float | None = None) -> None:
        check_instance("Bounded", "m", m, Manifold, "Sphere(2)")
        check_instance("Bounded", "constraint", constraint, Constraint, "Box([0.0, 0.0], [1.0, 1.0])")
        constraint.check_manifold(m)
        super().__init__(m)
        self.constraint = constraint
        self.layer = None if layer is None else positive("Bounded", "layer", layer, "it is a length")
        self.volume = constraint.volume
        # Inside, geodesics end at the border, so that no radius holds everywhere.
        self.injectivity_radius = None
        self._coordinates = _Damped(self, m.coordinates)

    @property
    def unbounded(self) -> Manifold:
        return self.m.unbounded

    @property
    def convex(self) -> bool:
        """Whether shortest geodesics between points of the set stay in it."""
        return self.constraint.convex

    # Projections.

    def projx(self, x: Tensor) -> Tensor:
        """Return the nearest point of ``m``, or, where that is outside, the nearest of the set."""
        y = self.m.projx(x)
        inside = self.constraint.contains(y)
        plain = not (torch._C._are_functorch_transforms_active() or torch.compiler.is_compiling())
        if plain and bool(inside.all()):
            return y
        return torch.where(self.lift(inside), y, self.m.projx(self.constraint.nearest(y, 2 * self._rounding(y))))

    def projx_jvp(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self.projx(x), self.m.projx_jvp(x, v)[1]

    def outside(self, x: Tensor) -> Tensor:
        """Return whether points are farther over the border than by rounding."""
        beyond = self.constraint.depth(self.m.projx(x)) < -self._rounding(x)
        own = self.m.outside(x)
        return beyond if own is None else beyond | own

    def excludes(self, x: Tensor) -> Tensor:
        # Points are mostly of float32, which a table or a cast to float64 does not undo.
        y = self.m.projx(x)
        out = self.constraint.depth(y) < -max(self._rounding(y), self._rounding(y.float()))
        own = self.m.excludes(x)
        return out if own is None else out | own

    def distance_to_border(self, x: Tensor) -> Tensor:
        own, depth = self.m.distance_to_border(x), self.constraint.depth(x).clamp(min=0)
        return depth if own is None else torch.minimum(own, depth)

    # Metric and geodesics.

    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        return self.constraint.dist(self.m, x, y)

    def squared_dist(self, x: Tensor, y: Tensor) -> Tensor:
        return Manifold.squared_dist(self, x, y)

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        return self.constraint.logmap(self.m, x, y)

    def geodesic(self, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.m.shoot(x, self.logmap(x, y), t)

    # Bases and volume.

    @property
    def lie_group(self) -> None:
        """None: products of points may leave the set."""
        return None

    def random_uniform(
        self,
        *shape: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        if self.volume is None:
            return super().random_uniform(*shape, generator=generator, dtype=dtype, device=device)
        dtype = torch.get_default_dtype() if dtype is None else dtype
        size = torch.Size(shape)
        own = torch.device(torch.get_default_device() if device is None else device)
        x = self.constraint.random_uniform(size.numel(), generator, own)
        return self.projx(x.to(dtype)).reshape(*size, *self.event_shape)

    # Checks, for the borders.

    def check_point(self, x: Tensor, tol: float | None = None) -> None:
        """Raise ValueError unless every entry is a point of ``m``, and within the set."""
        check_shape(self, "points", x)
        self.m.check_point(x, tol=tol)
        over = (-self.constraint.depth(self.m.projx(x))).clamp(min=0)
        bound = max(tolerance(x.dtype), self._rounding(x)) if tol is None else tol
        check_deviation(self, over, x, bound, "points", "outside by", "leave them out, or widen the set")

    def extra_repr(self) -> str:
        layer = "" if self.layer is None else f", layer={self.layer:g}"
        return f"{self.m!r}, {self.constraint!r}{layer}"

    def _rounding(self, x: Tensor) -> float:
        """Return a length that is next to nothing in the dtype of ``x``."""
        return _ROUNDINGS * torch.finfo(x.dtype).eps * max(1.0, self.constraint.reach)


class _Damped(Coordinates):
    """The coordinates of ``m``, with tangent vectors whose normal component vanishes on the border."""

    manifold: Bounded

    def __init__(self, manifold: Bounded, one: Coordinates) -> None:
        super().__init__(manifold)
        self.one = one

    @property
    def embed_dim(self) -> int:
        return self.one.embed_dim

    @property
    def field_dim(self) -> int:
        return self.one.field_dim

    def embed(self, x: Tensor) -> Tensor:
        return self.one.embed(x)

    def embed_jvp(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self.one.embed_jvp(x, v)

    def tangent_from_vector(self, x: Tensor, w: Tensor) -> Tensor:
        u = self.one.tangent_from_vector(x, w)
        constraint = self.manifold.constraint
        return constraint.damped(x, u, constraint.layer if self.manifold.layer is None else self.manifold.layer)
