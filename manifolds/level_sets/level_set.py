"""A manifold that is known by its equation alone."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from manifolds.arguments import integer, positive
from manifolds.base import Manifold
from manifolds.level_sets import runge_kutta
from manifolds.level_sets.collocation import Collocation
from manifolds.level_sets.constraint import Constraint, lift, reflected_axes
from manifolds.level_sets.level_set_sampling import RandomLines, chain, landed
from manifolds.level_sets.path_shortening import short_polyline
from manifolds.numerics import size, tolerance
from manifolds.numerics.blocks import in_blocks
from manifolds.numerics.linear_algebra import log_abs_det
from manifolds.tangent_spaces import euclidean_basis

_SEGMENTS = 16
_LANDING_ROUNDS = 10
_NEAREST_ROUNDS = 4
_SOLVED = 10.0
_RESOLVED = 1e-3
_MISSED = 1e-3
_CLAIMED = 0.9
_CHAIN_STEPS = 100
_HELD_VECTORS = 40  # while a geodesic is followed
_DEAD_ZONE = 8
"""Units of epsilon: what projx leaves as it is, because F itself is not known better."""


class Logarithm(NamedTuple):
    """What a solver found, sample by sample."""

    u: Tensor
    """Initial velocity of the curve found ``(*batch, n)``; a logarithm only where ``converged``."""
    converged: Tensor
    """Whether the curve is a geodesic to the solver's accuracy, ``(*batch)``."""


class LevelSet(Manifold):
    """The points of R^n where F(x) = 0, for one equation or several, with the metric induced by R^n.

    Everything follows from F and its derivatives: the nearest point by Newton's method on Lagrange's conditions,
    tangent spaces from the Jacobian J, geodesics from ``x'' = -J^+ D^2 F(x', x')`` by Runge-Kutta steps of order
    eight, each put back on the set with its speed kept, logarithms by collocation and one round of shooting. J must
    have full rank on the set. All solvers take a fixed number of steps. ``torch.compile`` captures projections and
    geodesics from a velocity; logarithms only where the constraint has derivatives in closed form (a
    `manifolds.level_sets.constraint.Constraint`, as in `Ellipsoid`), since torch 2.13 cannot trace a third derivative
    through its own reverse mode.

    **Accuracy.** A geodesic that turns by an angle a in space (its length times its curvature) is integrated to a
    relative error of about ``2e-10 (16 a / (pi steps))^8``, besides rounding, and more where its curvature varies
    fast; ``solver_accuracy`` measures it. Where ``logmap`` converges, the geodesic so integrated arrives. Where it does
    not for long geodesics, more ``nodes`` resolve them.

    **Failure.** ``projx`` and ``logmap`` return NaN for the samples where Newton's method did not converge, and
    `solve_logmap` says which those are. ``geodesic``, so that training can go on, returns there a curve that joins
    the two points near the set but is not a geodesic.

    **Minimal.** The logarithm is that of a geodesic which joins the points, found by shortening a path between them. It
    is the shortest one up to ``logmap_radius``, 0.9 times pi divided by the greatest curvature of geodesics in space.
    (The sectional curvature is at most the square of that by Gauss's equation, and a closed geodesic turns by 2 pi or
    more by Fenchel's theorem; Klingenberg's lemma then bounds the injectivity radius by pi over the curvature. So any
    geodesic that is found and is shorter than this bound is the shortest.) On a set of several components, a logarithm
    from one to another does not converge.

    Args:
        constraint: F, of points ``(*batch, n)``; returns ``(*batch)``, or ``(*batch, k)`` for k equations. It is
            written in PyTorch, without Python branches on values, and three times differentiable, so that derivatives
            of its maps exist: for a length write ``torch.sqrt`` of squares and for a product its factors, since
            PyTorch (2.13) cannot differentiate ``torch.linalg.norm`` often enough, nor ``torch.prod`` at zeros.
        n: dimension of the ambient space.
        radius: of a ball about the origin that holds the set, which is then compact: it has a volume and uniform draws.
            None for a set of infinite volume, or where these are not wanted.
        curvature: a bound on the curvature of geodesics as curves in space. None takes 1.25 times the greatest at a
            thousand points, and does not state an injectivity radius.
        volume: where it is known. Otherwise it is estimated at construction, with `volume_standard_error`.
        steps: Runge-Kutta steps for one geodesic.
        nodes: collocation nodes for one logarithm; more resolve geodesics that turn more.
        rounds: Newton steps for one logarithm.
        crossings: how many times a line may meet a hypersurface; raise it if a message says so.

    Raises:
        ValueError: if the constraint returns a wrong shape, or no point of the set is found.

    References:
        Hairer, Lubich & Wanner, Geometric Numerical Integration, 2006, doi:10.1007/3-540-30666-8, section IV.4.
        Klingenberg, Contributions to Riemannian geometry in the large, 1959, doi:10.2307/1970029.
    """

    def __init__(
        self,
        constraint: Callable[[Tensor], Tensor],
        n: int,
        *,
        radius: float | None = None,
        curvature: float | None = None,
        volume: float | None = None,
        steps: int = 16,
        nodes: int = 16,
        rounds: int = 8,
        crossings: int = 8,
    ) -> None:
        n = integer("LevelSet", "n", n)
        equations = constraint if isinstance(constraint, Constraint) else Constraint(constraint, n)
        super().__init__(n - equations.count, (n,))
        counts = {"steps": (steps, 1), "nodes": (nodes, 4), "rounds": (rounds, 1), "crossings": (crossings, 1)}
        self.steps, self.nodes, self.rounds, self.crossings = (
            integer("LevelSet", name, value, least) for name, (value, least) in counts.items()
        )
        sizes = {"radius": radius, "curvature": curvature, "volume": volume}
        self.constraint, self.n = constraint, n
        self.radius, self.curvature, volume = (
            None if given is None else positive("LevelSet", name, given) for name, given in sizes.items()
        )
        self._equations = equations
        self._collocation = Collocation(self.nodes, _SEGMENTS)
        self.volume_standard_error: float | None = None
        self._start: Tensor | None = None
        self._describe(volume)

    def _describe(self, volume: float | None) -> None:
        """Set volume, its standard error and the radius up to which logarithms are minimal."""
        generator = torch.Generator().manual_seed(0)
        if volume is not None:
            self.volume, self.volume_standard_error = volume, 0.0
        elif self.radius is not None and self._equations.count == 1:
            self.volume, self.volume_standard_error = self.estimate_volume(generator=generator)
        if self.curvature is not None:
            self.injectivity_radius = math.pi / self.curvature
            self.logmap_radius = _CLAIMED * self.injectivity_radius
        else:
            most = float(self.greatest_curvature(self._some_points(1024, generator)).max())
            self.logmap_radius = _CLAIMED * math.pi / (1.25 * most) if most > 1e-12 else math.inf

    @property
    def solver_accuracy(self) -> float:  # type: ignore[override]
        """Relative error of the solved maps up to ``logmap_radius``: the geodesics' with steps half as long."""
        x = self._some_points(16, torch.Generator().manual_seed(0))
        length = min(self.logmap_radius, math.pi * float(torch.linalg.vector_norm(x, dim=-1).max()))
        u = length * self.tangent_basis(x)[..., 0, :]
        once, t = self.expmap(x, u), x.new_full((), 0.5)
        x_t, dx_t = self.shoot(x, u, t)
        twice = self.expmap(x_t, t * dx_t)
        return float(torch.linalg.vector_norm(once - twice, dim=-1).max()) / length

    # Projections.

    def projx(self, x: Tensor) -> Tensor:
        """Return the nearest point of the set: far from it, where Newton's method finds no nearest one, a near one.

        NaN where it finds none at all. Points that lie on the set to rounding stay as they are, bit for bit.
        """
        return in_blocks(self._nearest, x.shape[:-1], 10 * self.n**2, x)[0]

    def _nearest(self, x: Tensor) -> tuple[Tensor]:
        fixed = x.detach()
        landed = self._equations.land(fixed, _LANDING_ROUNDS)
        y = landed
        for _ in range(_NEAREST_ROUNDS):
            y = y + self._equations.nearest_step(fixed, y)
        slack = self._slack(fixed)
        last = torch.linalg.vector_norm(self._equations.nearest_step(fixed, y), dim=-1)
        further = torch.linalg.vector_norm(y - fixed, dim=-1) - torch.linalg.vector_norm(landed - fixed, dim=-1)
        nearest = ((last <= slack) & (further <= slack))[..., None]
        on = torch.linalg.vector_norm(self._equations.newton_step(landed), dim=-1) <= slack
        start = torch.where(nearest, y, landed).detach()
        # Two steps from the solution, differentiated: Newton's method doubles the order to which derivatives are right.
        target = torch.where(nearest, x, start)
        y = start
        for _ in range(2):
            y = y + self._equations.nearest_step(target, y)
        moved = torch.linalg.vector_norm(y.detach() - fixed, dim=-1)
        still = (moved <= _DEAD_ZONE * torch.finfo(x.dtype).eps * self._size(fixed))[..., None]
        along = torch.where(nearest, torch.zeros_like(x), self.proju(start, x - fixed))
        y = torch.where(still, fixed + (y - y.detach()), y) + along
        return (torch.where(on[..., None], y, math.nan),)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        jacobian = self._equations.jacobian(x)[1]
        return u - lift(jacobian, (jacobian * u[..., None, :]).sum(-1))

    # Geodesics.

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        x, u = self._together(x, u)
        return in_blocks(self._follow, x.shape[:-1], _HELD_VECTORS * self.n, x, u)[0]

    def shoot(self, x: Tensor, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        x, u, t = self._together(x, u, t=t)
        return in_blocks(self._shoot, t.shape, _HELD_VECTORS * self.n, x, u, t)

    def _shoot(self, x: Tensor, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        y, v = self._follow(x, t[..., None] * u)
        # The velocity of unit time, divided by t. At t = 0, its first two terms.
        still = t.abs()[..., None] <= torch.finfo(t.dtype).tiny
        start = u + t[..., None] * self._equations.acceleration(x, u)
        return y, torch.where(still, start, v / torch.where(still, 1.0, t[..., None]))

    def _follow(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return position and velocity at time 1 of the geodesic from ``x`` with velocity ``v``."""
        speed2 = v.square().sum(-1, keepdim=True)
        for _ in range(self.steps):
            x, v = runge_kutta.step(self._equations.acceleration, x, v, 1 / self.steps)
            # Back to the set along its normal, as long and as fast as before.
            x = x + self._equations.newton_step(x)
            v = self.proju(x, v)
            own2 = v.square().sum(-1, keepdim=True)
            moving = torch.minimum(own2, speed2) > torch.finfo(v.dtype).tiny
            v = v * torch.sqrt(torch.where(moving, speed2, 1.0) / torch.where(moving, own2, 1.0))
        return x, v

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the initial velocity of a geodesic from ``x`` to ``y``; NaN where none was found."""
        u, converged = self.solve_logmap(x, y)
        return torch.where(converged[..., None], u, math.nan)

    def solve_logmap(self, x: Tensor, y: Tensor) -> Logarithm:
        """Return the initial velocity of a curve from ``x`` to ``y``, and whether that is a geodesic which arrives.

        The geodesic is followed once, and must come within a thousandth of its length of ``y``; that error is then
        corrected, which leaves about its square.
        """
        x, y = self._together(x, y)
        return Logarithm(*in_blocks(self._solve, x.shape[:-1], self._held, x, y))

    def _solve(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        w, converged = self._connect(x.detach(), y.detach())
        u = self.proju(x, self._collocation.start(x, y, w)).detach()
        # Shooting: where the integrated geodesic misses y, the curve is sought to a point as far on the other side.
        miss = self.expmap(x.detach(), u) - y.detach()
        length = torch.linalg.vector_norm(u, dim=-1)
        missed = torch.linalg.vector_norm(miss, dim=-1)
        converged = converged & (missed <= _MISSED * length + self._slack(x))
        # Not the rounding of the point itself: the logarithm of x at x is 0.
        significant = missed > _DEAD_ZONE * torch.finfo(x.dtype).eps * self._size(x.detach())
        aim = y - torch.where((converged & significant)[..., None], miss, 0.0)
        w = self._refined(x, aim, w, converged)
        return self.proju(x, self._collocation.start(x, aim, w)), converged

    def geodesic(self, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return position and velocity at time ``t``; where no geodesic was found, of another curve from x to y."""
        x, y, t = self._together(x, y, t=t)
        return in_blocks(self._join, t.shape, self._held, x, y, t)

    def _join(self, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        w, converged = self._connect(x.detach(), y.detach())
        w = self._refined(x, y, w, converged)
        x_t, dx_t = self._collocation.at(x, y, w, t)
        for _ in range(2):
            x_t = x_t + self._equations.newton_step(x_t)
        return x_t, self.proju(x_t, dx_t)

    def transp(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        """Carry ``u`` along the geodesic to ``y`` that `logmap` finds (parallel transport); NaN where it finds none."""
        x, y, u = self._together(x, y, u)
        return in_blocks(self._carry, x.shape[:-1], self._held, x, y, u)[0]

    def _carry(self, x: Tensor, y: Tensor, u: Tensor) -> tuple[Tensor]:
        w, converged = self._connect(x.detach(), y.detach())
        w = self._refined(x, y, w, converged)
        carried = self._collocation.transport(self._equations.bend, x, y, w, u)
        return (torch.where(converged[..., None], self.proju(y, carried), math.nan),)

    @property
    def _held(self) -> int:
        """Numbers that the search for one geodesic holds: some matrices of a row for each component at each node."""
        return 6 * (self.nodes * self.n) ** 2

    def _connect(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the acceleration of a curve from ``x`` to ``y``, and whether it is a geodesic."""
        rule, equations = self._collocation, self._equations
        start = rule.fit(x, y, self._path(x, y))
        w = rule.solve(equations.acceleration, equations.acceleration_slopes, x, y, start, self.rounds)
        return w, self._is_geodesic(x, y, w)

    def _refined(self, x: Tensor, y: Tensor, w: Tensor, converged: Tensor) -> Tensor:
        """Return ``w`` with its derivatives: as in projx, from two Newton steps. Samples that failed keep theirs."""
        known = converged[..., None]
        # Those take part at coincident ends, where nothing is singular.
        start, end = torch.where(known, x, x.detach()), torch.where(known, y, x.detach())
        refined = torch.where(known[..., None], w, 0.0)
        for _ in range(2):
            refined = refined + self._collocation.newton_step(self._equations.acceleration_slopes, start, end, refined)
        return torch.where(known[..., None], refined, w)

    def _is_geodesic(self, x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        """Return whether the equation holds at the nodes, and the curve is on the set between them, ``(*batch)``."""
        rule = self._collocation
        residual = torch.linalg.vector_norm(rule.residual(self._equations.acceleration, x, y, w), dim=-1).amax(-1)
        velocity = rule.curve(x, y, w)[1]
        length = torch.linalg.vector_norm(velocity, dim=-1).amax(-1)
        off = self._equations.newton_step(rule.curve_between(x, y, w))
        off = torch.linalg.vector_norm(off, dim=-1).amax(-1)
        slack = self._slack(x)
        solved = residual <= _SOLVED * torch.finfo(x.dtype).eps ** 0.5 * length + slack
        return solved & (off <= _RESOLVED * length + slack)

    def _path(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the inner points of a short polyline on the set from ``x`` to ``y``, ``(*batch, segments - 1, n)``."""
        return short_polyline(self._equations, x, y, _SEGMENTS)

    def _together(self, *points: Tensor, t: Tensor | None = None) -> tuple[Tensor, ...]:
        """Give points, vectors and times the same batch shape, with memory of their own for forward mode."""
        shapes = [x.shape[:-1] for x in points]
        batch = torch.broadcast_shapes(*shapes, () if t is None else t.shape)
        together = tuple(x.expand(*batch, self.n).contiguous() for x in points)
        return together if t is None else (*together, t.expand(batch).contiguous())

    # Bases and volume.

    def tangent_basis(self, x: Tensor) -> Tensor:
        """Return, for one equation, the reflection of the other axes that takes the first axis to the normal."""
        if self._equations.count > 1:
            return super().tangent_basis(x)
        return reflected_axes(self._equations.jacobian(x)[1][..., 0, :])

    def log_det_expmap(self, x: Tensor, u: Tensor) -> Tensor:
        x, u = self._together(x, u)
        columns = self.tangent_basis(x).movedim(-2, 0)
        many = (x.expand(columns.shape).contiguous(), u.expand(columns.shape).contiguous())
        y, moved = torch.func.jvp(lambda w: self.expmap(many[0], w), (many[1],), (columns.contiguous(),))[:2]
        matrix = self.tangent_basis(y[0]) @ moved.movedim(0, -1)
        return log_abs_det(matrix)

    def random_uniform(
        self,
        *shape: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Return uniform points: crossings of random lines for one equation, ends of Metropolis chains for several.

        Crossings are exactly uniform, chains of 100 steps nearly so; either way draws are independent.
        """
        if self.radius is None:
            return super().random_uniform(*shape, generator=generator, dtype=dtype, device=device)
        count = math.prod(shape)
        if self._equations.count == 1:
            points = self._lines().points(count, (generator, device))
        else:
            ambient = torch.randn(count, self.n, generator=generator, dtype=torch.float64, device=device)
            points = landed(self._equations, self.radius / 2 * ambient)
            scale = self.logmap_radius / (2 * math.pi * math.sqrt(self.dim))
            for state in chain(self._equations, points, scale, _CHAIN_STEPS, (generator, device)):
                points = state
        return self.projx(points.to(dtype or torch.get_default_dtype())).reshape(*shape, self.n)

    def estimate_volume(
        self, lines: int = 65536, generator: torch.Generator | None = None, device: torch.device | str | None = None
    ) -> tuple[float, float]:
        """Return an estimate of the volume from random lines, and its standard error.

        Raises:
            ValueError: for several equations, or without a radius.
        """
        if self.radius is None or self._equations.count > 1:
            raise ValueError(
                f"{self}: the volume is estimated for one equation and a stated radius; state radius= or volume="
            )
        return self._lines().area(lines, (generator, device))

    def _lines(self) -> RandomLines:
        assert self.radius is not None
        return RandomLines(lambda x: self._equations.value(x)[..., 0], self.n, self.radius, self.crossings)

    def greatest_curvature(self, x: Tensor) -> Tensor:
        """Return a bound on the curvature in space of geodesics through ``x`` ``(*batch)``, sharp for one equation."""
        forms = self._equations.second_fundamental_forms(x, euclidean_basis(self, x))
        return torch.linalg.eigvalsh(forms).abs().amax(-1).square().sum(-1).sqrt()

    def _some_points(self, count: int, generator: torch.Generator) -> Tensor:
        """Return points of the set in float64, for estimates."""
        scale = torch.logspace(-1, 1, count, dtype=torch.float64)[:, None] if self.radius is None else self.radius / 2
        ambient = scale * torch.randn(count, self.n, generator=generator, dtype=torch.float64)
        points = self.projx(ambient)
        points = points[points.isfinite().all(-1)]
        if not len(points):
            raise ValueError(
                f"{self}: no point with constraint(x) = 0 was found near the origin; correct the constraint, or state "
                "curvature="
            )
        return points

    def _slack(self, x: Tensor) -> Tensor:
        """Return how far off rounding alone may leave a point, as in `check_point`."""
        return tolerance(x.dtype) * self._size(x)

    def _size(self, x: Tensor) -> Tensor:
        return size(x.detach().unbind(-1)).clamp(min=1.0)

    def extra_repr(self) -> str:
        name = getattr(self.constraint, "__qualname__", type(self.constraint).__name__)
        return f"{name}, {self.n}"
