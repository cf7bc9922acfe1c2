"""The contract of a manifold.

**Shapes.** A point is an ambient tensor ``(*batch, *event_shape)``, a tangent vector at it has the same shape, scalars
and times are ``(*batch)``. Everything broadcasts over batch shapes; dtype and device follow the inputs; a random draw
takes a ``generator`` and never touches global random state.

**Precision.** Public methods compute in float32 or more: with autocast off, and from float16 or bfloat16 by way of
float32, to which dtype the result is rounded in the end (`manifolds.numerics.precision`). A subclass need not know of
it.

**Required.** A subclass calls ``super().__init__(dim, event_shape)`` and writes four methods: ``projx``, ``proju``,
``expmap``, ``logmap``. It writes ``inner`` too, unless its metric is the one induced by the ambient space.

**Free.** ``norm``, ``angle``, ``dist``, ``shoot``, ``geodesic``, ``transp``, ``tangent_basis``,
``riemannian_gradient``, ``embed``, the checks, and what a divergence needs (``divergence_frame``,
``log_volume_derivative``, ``coordinates``) or the Jacobian of a step (``projx_jvp``) or of a jump (``expmap_jvp``,
``logmap_jvp``). The defaults are right for every
manifold that keeps the contract; the built-in manifolds override them where a closed form is more accurate or faster.

**Structures** besides geometry are objects, each with its own product, power and quotient: ``coordinates`` (how
networks read points and write tangent vectors, with derivatives), ``kernel``, ``lie_group``, ``spectrum``.

**Optional facts.** ``volume`` and ``random_uniform`` where the manifold is compact; ``injectivity_radius``; ``kernel``
where ``embed`` is homogeneous; ``lie_group`` where points multiply. Without them a default source, baseline or
integrator that needs them is refused, with a sentence that names them. A manifold with a border in its ambient space,
such as an open ball or cone, says what is beyond it in ``outside``, and where that is at a finite distance, as on a
simplex, how far it is in ``distance_to_border``.

**Guarded.** The default ``inner`` claims that geodesics have normal acceleration (``proju(x_t, acceleration) == 0``);
an overridden one claims constant speed and Gauss's lemma. `manifolds.testing.check_manifold` tests these claims.

**Not checked.** Methods do not verify that ``x`` is on the manifold or ``u`` tangent: they run in inner loops. Call
`check_point` and `check_tangent` where data enters.

The contract in one place, hence longer than other files.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from manifolds.arguments import integer
from manifolds.checks import check_deviation, check_shape, relative_size
from manifolds.coordinates import Coordinates, jvp_along_all
from manifolds.differentials import differential
from manifolds.identity import same
from manifolds.kernel import Kernel
from manifolds.lie_group import LieGroup
from manifolds.numerics import differentiated, safe_sqrt
from manifolds.numerics.linear_algebra import log_abs_det
from manifolds.numerics.precision import FullPrecisionModule
from manifolds.spectrum import Spectrum
from manifolds.tangent_spaces import euclidean_basis, gram, log_volume_density


class Manifold(FullPrecisionModule):
    """A Riemannian manifold embedded in a vector space of tensors of shape ``event_shape``.

    Args:
        dim: intrinsic dimension.
        event_shape: shape of one point in the ambient space.
    """

    volume: float | None = None
    """Total Riemannian volume; None where it is infinite or unknown."""

    injectivity_radius: float | None = None
    """Every geodesic shorter than this is minimal and unique; ``math.inf`` is allowed, None means not stated."""

    logmap_radius: float = math.inf
    """Distance up to which ``logmap`` is claimed to be right; finite where a solver finds it."""

    solver_accuracy: float = 0.0
    """Relative error of the maps, besides rounding, for lengths up to ``logmap_radius``; 0 for closed forms."""

    points_are_classes: bool = False
    """Whether different tensors may stand for one point (orbits, subspaces)."""

    points_per_class: int = 1
    """How many points of the ambient manifold stand for one class where densities refer to the full volume."""

    in_any_precision = FullPrecisionModule.in_any_precision | {
        *("batch_shape", "check_point", "check_tangent", "lift", "same_as")
    }

    has_kinks: bool = False
    """Whether tangent spaces jump, as at the edges of a polyhedron: projected steps over them fall short."""

    def __init__(self, dim: int, event_shape: Sequence[int]) -> None:
        super().__init__()
        self.dim = integer(type(self).__name__, "dim", dim, None)
        self.event_shape = torch.Size(event_shape)
        if self.dim < 1 or not self.event_shape:
            raise ValueError(
                f"{type(self).__name__}: dim must be at least 1 and event_shape must not be empty, got dim {dim} and "
                f"event_shape {tuple(event_shape)}; a number is a point of shape (1,)"
            )

    # Required.

    def projx(self, x: Tensor) -> Tensor:
        """Return the point of the manifold nearest to ``x``, for ambient ``x`` near the manifold.

        Idempotent, and differentiable with the right derivative at points already on the manifold.
        """
        raise TypeError(f"{type(self).__name__} does not define projx(x)")

    def outside(self, x: Tensor) -> Tensor | None:
        """Return whether the ambient ``x`` lies where ``projx`` only repairs it, beyond the border of an open domain.

        A step that ends there has left the manifold, and has to be made again with a smaller length.

        Returns:
            Booleans ``(*batch)``; None where there is no such border, as on a sphere.
        """
        return None

    def excludes(self, x: Tensor) -> Tensor | None:
        """Return whether ``x`` lies where every density on the manifold is 0, beyond the border of a bounded set.

        Returns:
            Booleans ``(*batch)``; None where there is no such place: points that are none are refused.
        """
        return None

    def distance_to_border(self, x: Tensor) -> Tensor | None:
        """Return how far every geodesic from ``x`` stays inside, where the manifold ends at a finite distance.

        Returns:
            Lengths ``(*batch)``; None where geodesics go on for ever, as on a sphere.
        """
        return None

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """Return the projection of the ambient vector ``u`` to the tangent space at ``x``."""
        raise TypeError(f"{type(self).__name__} does not define proju(x, u)")

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        """Return where the geodesic from ``x`` with initial velocity ``u`` is at time 1."""
        raise TypeError(f"{type(self).__name__} does not define expmap(x, u)")

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the initial velocity at ``x`` of a shortest geodesic that reaches ``y`` at time 1.

        At the cut locus it is one of the shortest, always the same one: ``expmap(x, logmap(x, y)) == y`` there too.
        """
        raise TypeError(f"{type(self).__name__} does not define logmap(x, y)")

    # Metric.

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Return the Riemannian inner product of tangent vectors ``u`` and ``v`` at ``x``, shape ``(*batch)``."""
        return (u * v).sum(self._event_axes)

    def norm(self, x: Tensor, u: Tensor) -> Tensor:
        """Return the Riemannian length of ``u`` at ``x``, shape ``(*batch)``; its derivative at ``u = 0`` is 0."""
        return safe_sqrt(self.inner(x, u, u))

    def angle(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Return the angle between tangent vectors ``u`` and ``v`` at ``x``, in radians from 0 to pi, ``(*batch)``.

        Accurate near 0 and pi too, where the arc cosine loses half of the digits; its derivative there is 0. NaN where
        a vector is zero.

        Kahan, How futile are mindless assessments of roundoff in floating-point computation?, 2006, section 12.
        """
        # By the largest entry first: squares of small and large vectors leave the range of numbers.
        a, b = (w / w.abs().amax(self._event_axes, keepdim=True) for w in (u, v))
        a, b = a / self.lift(self.norm(x, a)), b / self.lift(self.norm(x, b))
        return 2 * torch.atan2(self.norm(x, a - b), self.norm(x, a + b))

    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the geodesic distance between ``x`` and ``y``, shape ``(*batch)``; its derivative at 0 is 0."""
        return self.norm(x, self.logmap(x, y))

    def squared_dist(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the square of `dist`, shape ``(*batch)``, with first and second derivatives right at 0 too.

        ``dist`` has a kink there, and says that its derivative is 0: the square of it would have no curvature.
        """
        distance = self.dist(x, y)
        if not (differentiated(x) or differentiated(y)):
            return distance * distance
        apart = distance > 0
        # Only where the points coincide: at the cut locus the derivatives of a logarithm are not finite.
        near_x = torch.where(self.lift(apart), x, y)
        u = self.logmap(x, near_x)
        return torch.where(apart, distance * distance, self.inner(x, u, u))

    # Geodesics.

    def shoot(self, x: Tensor, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Follow the geodesic from ``x`` with initial velocity ``u``.

        Args:
            x: start points ``(*batch, *event_shape)``.
            u: initial velocities, the same shape.
            t: times ``(*batch)``.

        Returns:
            The position ``x_t`` and the velocity ``dx_t`` at time ``t``.
        """
        # Contiguous: forward mode refuses a tensor whose entries share memory.
        t = t.expand(torch.broadcast_shapes(t.shape, self.batch_shape(x), self.batch_shape(u))).contiguous()
        x_t, dx_t = torch.func.jvp(lambda s: self.expmap(x, self.lift(s) * u), (t,), (torch.ones_like(t),))[:2]
        return x_t, dx_t

    def geodesic(self, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return position and velocity at time ``t`` of the geodesic that leaves ``x`` at 0 and reaches ``y`` at 1."""
        return self.shoot(x, self.logmap(x, y), t)

    def expmap_jvp(self, x: Tensor, u: Tensor, dx: Tensor, du: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``expmap(x, u)`` and how it moves when the point and the vector do: the differential of exp.

        Args:
            x: points ``(*batch, *event_shape)``.
            u: tangent vectors at ``x``, the same shape.
            dx: changes of the points, tangent at ``x``; further directions are further axes before those of ``x``.
            du: changes of the vectors, likewise, as ambient derivatives: of a vector field along a curve, say. What
                keeps the vector tangent while its point moves is added, or replaced: only the tangent part counts.

        Returns:
            The points, and tangent vectors there ``(*directions, *batch, *event_shape)``.
        """
        y, dy = differential(lambda p, w: self.expmap(p, self.proju(p, w)), x, u, dx, du)
        return y, self.proju(y, dy)

    def logmap_jvp(self, x: Tensor, y: Tensor, dx: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``logmap(x, y)`` and how it changes when both points move: the differential of log.

        Args:
            x: points ``(*batch, *event_shape)``.
            y: the points that are looked for, the same shape.
            dx: changes of ``x``, tangent there; further directions are further axes before those of ``x``.
            dy: changes of ``y``, tangent there, likewise.

        Returns:
            The tangent vectors at ``x``, and their ambient derivatives ``(*directions, *batch, *event_shape)``. These
            are tangent where ``dx`` is 0; else they also have what keeps the vector tangent while ``x`` moves.
        """
        return differential(self.logmap, x, y, dx, dy)

    def pull_back(self, x: Tensor, u: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """Return the change of ``u``, tangent at ``x``, with which ``y = expmap(x, u)`` moves with velocity ``v``.

        The inverse of the differential of ``expmap(x, .)`` at ``u``; by default the derivative of the logarithm, which
        is that of the same geodesic up to the cut locus.
        """
        # Contiguous: forward mode refuses a tensor whose entries share memory.
        return torch.func.jvp(lambda z: self.logmap(x, z), (y.contiguous(),), (v.contiguous(),))[1]

    def transp(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        """Carry the tangent vector ``u`` from ``x`` to ``y``.

        The default projects to the tangent space at ``y``. That is not parallel transport: it shortens vectors.
        """
        return self.proju(y, u)

    # Bases, volume and what a divergence or a Jacobian needs.

    def tangent_basis(self, x: Tensor) -> Tensor:
        """Return a basis of the tangent space at ``x``, orthonormal in `inner`: ``(*batch, dim, *event_shape)``.

        No basis can be continuous on every manifold (not on a sphere, for one), so do not learn its coefficients.
        """
        basis = euclidean_basis(self, x)
        if self.metric_is_induced:
            return basis
        lower = torch.linalg.cholesky(gram(self, x, basis))
        return torch.linalg.solve_triangular(lower, basis.flatten(-len(self.event_shape)), upper=False).reshape(
            basis.shape
        )

    def riemannian_gradient(self, x: Tensor, covector: Tensor) -> Tensor:
        """Return the gradient at ``x`` of a function whose derivatives by the ambient coordinates are ``covector``.

        The tangent vector whose `inner` product with each ``u`` is the derivative along ``u``. Only derivatives along
        the manifold count: it does not matter how the function was extended beyond it.
        """
        basis = self.tangent_basis(x)
        axes = self._event_axes
        along = (covector.unsqueeze(axes[0] - 1) * basis).sum(axes)
        return (self.lift(along) * basis).sum(axes[0] - 1)

    def divergence_frame(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return vectors ``e_i`` and covectors ``w_i``, each ``(*batch, dim, *event_shape)``.

        They are such that the divergence of a tangent field ``v`` at ``x`` is ``sum_i <w_i, Dv(x) e_i>``, with the
        ambient derivative and the plain sum over coordinates, plus `log_volume_derivative` along ``v``.
        """
        basis = self.tangent_basis(x) if self.metric_is_induced else euclidean_basis(self, x)
        return basis, basis

    def divergence_probes(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return tangent vectors and covectors for ambient noise, all ``(*batch, k, *event_shape)``.

        With ``P`` the sum of ``e_i w_i'`` over `divergence_frame` they are ``P z`` and ``P' z``. ``P`` projects to the
        tangent space and is the same for every choice of frame: noise that stays fixed gives probes that are smooth in
        ``x``, although no frame is. Where ``E[z z']`` is the identity, the expectation of ``<P' z, Dv(x) P z>`` is the
        sum that `divergence_frame` stands for.
        """
        rank = len(self.event_shape)
        vectors, covectors = (frame.flatten(-rank) for frame in self.divergence_frame(x))
        z = noise.flatten(-rank)
        probes = (z @ covectors.mT) @ vectors, (z @ vectors.mT) @ covectors
        return probes[0].reshape(noise.shape), probes[1].reshape(noise.shape)

    def log_volume_derivative(self, x: Tensor, u: Tensor) -> Tensor:
        """Return the derivative along ``u`` of the log-density of the Riemannian volume, shape ``(*batch)``.

        The density is taken with respect to the measure whose divergence `divergence_frame` computes: by default the
        one induced by the ambient space. It is zero while the metric is the induced one.
        """
        if self.metric_is_induced:
            return torch.zeros_like((x * u).sum(self._event_axes))
        x, u = _broadcast(x, u)
        return torch.func.jvp(lambda y: log_volume_density(self, y), (x,), (u,))[1]

    @property
    def metric_is_induced(self) -> bool:
        """Whether the metric is that of the ambient space, that is, `inner` is not overridden."""
        return type(self).inner is Manifold.inner

    @property
    def transp_is_isometric(self) -> bool:
        """Whether `transp` keeps inner products: the default, a projection, does not."""
        return type(self).transp is not Manifold.transp

    def log_det_expmap(self, x: Tensor, u: Tensor) -> Tensor:
        """Return ``log |det d(exp_x)_u|`` in orthonormal bases, shape ``(*batch)``.

        It is what a density on the tangent space at ``x`` changes by when ``expmap`` carries it to the manifold.
        """
        x, u = _broadcast(x, u)
        # The directions go first in a batch: mapped over them, the compiler cannot trace batches of unknown size.
        directions = self.tangent_basis(x).movedim(-1 - len(self.event_shape), 0).contiguous()
        x, u = (a.expand(directions.shape).contiguous() for a in (x, u))
        y, columns = torch.func.jvp(lambda w: self.expmap(x, w), (u,), (directions,))[:2]
        basis = self.tangent_basis(y[0]).movedim(-1 - len(self.event_shape), 0)
        matrix = self.inner(y[0], columns[:, None], basis[None]).movedim((0, 1), (-2, -1))
        return log_abs_det(matrix)

    @property
    def lie_group(self) -> LieGroup | None:
        """How points multiply, where they do: what Runge-Kutta-Munthe-Kaas methods need. None where they do not."""
        return None

    @property
    def kernel(self) -> Kernel | None:
        """Densities about a point, of any width; None where the manifold has no smoothing kernel."""
        return None

    @property
    def unbounded(self) -> "Manifold":
        """The manifold that this one is a bounded part of, on which kernels smooth; by default itself."""
        return self

    @property
    def spectrum(self) -> Spectrum | None:
        """The eigenfunctions of the Laplacian, for distances by them; None where they are not known here."""
        return None

    def random_uniform(
        self,
        *shape: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Return points uniform in the Riemannian volume, ``(*shape, *event_shape)``."""
        raise ValueError(
            f"{self} has no uniform distribution here: its volume is infinite, or random_uniform is not written; "
            "pass a source"
        )

    def projx_jvp(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``projx(x)`` and its derivatives along ambient vectors, ``(k, *batch, *event_shape)`` too."""
        return jvp_along_all(self.projx, x, v)

    # Coordinates for networks.

    def embed(self, x: Tensor) -> Tensor:
        """Return a smooth injective map of points to vectors, ``(*batch, embed_dim)``: what networks read."""
        return x.flatten(-len(self.event_shape))

    @property
    def embed_dim(self) -> int:
        """Length of the vectors that `embed` returns."""
        return math.prod(self.event_shape)

    def tangent_from_vector(self, x: Tensor, w: Tensor) -> Tensor:
        """Return the tangent vector at ``x`` that a network means by ``w``, ``(*batch, field_dim)``.

        The default reads an ambient vector and projects it. Manifolds whose points are classes override it, so that the
        vector turns with the representative.
        """
        return self.proju(x, w.reshape(*w.shape[:-1], *self.event_shape))

    @property
    def field_dim(self) -> int:
        """Length of the vectors that `tangent_from_vector` reads."""
        return math.prod(self.event_shape)

    @property
    def embed_is_linear(self) -> bool:
        """Whether `embed` is linear: the default, which flattens, is."""
        return type(self).embed is Manifold.embed

    @property
    def coordinates(self) -> Coordinates:
        """`embed` and `tangent_from_vector` with their derivatives, by default by differentiating them."""
        return Coordinates(self)

    # Checks, for the borders.

    def check_point(self, x: Tensor, tol: float | None = None) -> None:
        """Raise ValueError unless every entry of ``x`` is a point of the manifold.

        Args:
            x: points ``(*batch, *event_shape)``.
            tol: largest distance from ``projx(x)`` allowed, relative to ``max(1, |x|)``; by default 100 units of
                rounding (`manifolds.numerics.tolerance`).
        """
        check_shape(self, "points", x)
        deviation = relative_size(self, self._off(x), x)
        check_deviation(self, deviation, x, tol, "points", "off it by", self._off_remedy)

    def check_tangent(self, x: Tensor, u: Tensor, tol: float | None = None) -> None:
        """Raise ValueError unless every entry of ``u`` is tangent at ``x``.

        Args:
            x: points ``(*batch, *event_shape)``.
            u: vectors, the same shape.
            tol: largest distance from ``proju(x, u)`` allowed, relative to ``max(1, |u|)``.
        """
        check_shape(self, "tangent vectors", u)
        deviation = relative_size(self, self.proju(x, u) - u, u)
        check_deviation(self, deviation, u, tol, "tangent vectors", "normal by", "project them with proju(x, u)")

    # Shapes.

    def batch_shape(self, x: Tensor) -> torch.Size:
        """Return the batch shape of points or tangent vectors ``x``."""
        return x.shape[: x.ndim - len(self.event_shape)]

    def lift(self, s: Tensor) -> Tensor:
        """Append axes of length one to scalars ``(*batch)``, so that they multiply points."""
        return s[(..., *(None,) * len(self.event_shape))]

    @property
    def _event_axes(self) -> tuple[int, ...]:
        return tuple(range(-len(self.event_shape), 0))

    @property
    def other_forms(self) -> Mapping[tuple[int, ...], str]:
        """What to do with points in another usual form, by the shape of one such point."""
        return {}

    def _off(self, x: Tensor) -> Tensor:
        """Return by how much the coordinates miss the manifold, for `check_point`."""
        return self.projx(x) - x

    @property
    def _off_remedy(self) -> str:
        return f"project them with {type(self).__name__}.projx"

    def same_as(self, other: "Manifold") -> bool:
        """Return whether the other is the same manifold: of the same class, made with the same arguments.

        What a constructor keeps of its arguments, buffers included, is compared by value, so a manifold that was loaded
        from a file, copied or moved to another device is the same.
        """
        return self is other or same(self, other)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"{self} is not a function; call one of its methods, such as expmap(x, u)")


def _broadcast(x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Give both the same batch shape, with memory of their own, as forward-mode derivatives need it."""
    x, u = torch.broadcast_tensors(x, u)
    return x.contiguous(), u.contiguous()
