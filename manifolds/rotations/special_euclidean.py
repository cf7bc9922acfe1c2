"""Rigid motions of space."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from manifolds.arguments import positive
from manifolds.base import Manifold
from manifolds.coordinates import Coordinates
from manifolds.kernel import Kernel
from manifolds.lie_group import LieGroup
from manifolds.numerics import contiguous, differentiated, horner, pick, safe_sqrt
from manifolds.rotations import rotation_rows as rows
from manifolds.rotations.nearest_rotation import nearest_rotation, nearest_rotation_jvp
from manifolds.rotations.rotation_entries import (
    Matrix,
    Vector,
    angle_of_quaternion,
    components,
    cross,
    dot,
    entries,
    exponential,
    logarithm,
    moved,
    orthonormalised,
    product,
    relative_quaternion,
    rodrigues,
    skew_of_product,
    times_hat,
    transported,
    transposed,
    turn_less_identity,
    turned,
    vector,
)
from manifolds.rotations.special_orthogonal import SO3


class SE3(Manifold):
    """Rigid motions (poses) with the left-invariant product metric ``|omega|^2 + |v|^2 / length^2``.

    Points are matrices ``[[R, p], [0, 1]]``, shape ``(4, 4)``, which take body coordinates to world coordinates.
    Tangent vectors are ambient, ``[[R hat(omega), dp], [0, 0]]``: ``omega`` is the angular velocity in the body's
    frame, ``dp`` the velocity of the position in the world's frame, whose length ``|v|`` is the same in both.

    As a Riemannian manifold this is SO(3) x R^3. In a geodesic the position moves on a straight line at constant speed
    while the body turns about a fixed axis. It is not the screw motion, the one-parameter subgroup of the group, in
    which the position spirals: that is `screw_expmap` and `screw_logmap`. The two agree where ``omega`` and ``v`` are
    parallel or one of them is zero. SE(3) has no bi-invariant Riemannian metric, so they cannot agree always.

    Densities are with respect to ``dR dp / length^3``, ``dR`` of total mass 8 pi^2; the volume is infinite. Cut locus
    and conventions at angle pi are those of `SO3`. Distances are invariant under ``compose(a, .)``, not under
    ``compose(., a)``.

    Args:
        length: the distance that counts as much as a turn by one radian, in the units of the positions.

    References:
        Park, Distance metrics on the rigid-body motions, 1995, doi:10.1115/1.2826116.
        Sola, Deray, Atchuthan, A micro Lie theory for state estimation in robotics, 2018, arXiv:1812.01537, appendix D
        (the screw motion).
    """

    injectivity_radius = math.pi

    @property
    def other_forms(self) -> Mapping[tuple[int, ...], str]:
        return {
            (7,): "fill matrices (n, 4, 4) with the position and manifolds.rotations.matrix_from_xyzw of a quaternion, "
            "or matrix_from_wxyz if its real part is first",
            (6,): "fill matrices (n, 4, 4) with the position and manifolds.rotations.matrix_from_rotvec of a rotation "
            "vector, or matrix_from_euler of Euler angles",
            (3, 4): "append the row 0, 0, 0, 1 to each",
            (12,): "reshape them to (n, 3, 4) and append the row 0, 0, 0, 1 to each",
        }

    def __init__(self, length: float = 1.0) -> None:
        super().__init__(6, (4, 4))
        self.length = positive("SE3", "length", length, "give it in units of the positions")
        self.rotations = SO3()

    # Projections.

    def projx(self, x: Tensor) -> Tensor:
        """Return the pose with the nearest rotation and the same position."""
        return _point(nearest_rotation(entries(x)), _position(x))

    def projx_jvp(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        y, dy = nearest_rotation_jvp(entries(x), entries(v))
        return _point(y, _position(x)), _tangent(dy, _position(v))

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        if rows.few(x, x.shape[:-2], u.shape[:-2]):
            return _ambient(self.rotations.proju(_matrix(x), _matrix(u)), _vector(u))
        r = entries(x)
        return _tangent(times_hat(r, skew_of_product(r, entries(u))), _position(u))

    # Metric.

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        turn = self.rotations.inner(_matrix(x), _matrix(u), _matrix(v))
        return turn + (_vector(u) * _vector(v)).sum(-1) / self.length**2

    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        way = _way(x, y)
        return safe_sqrt(self._squared_angle(x, y) + dot(way, way) / self.length**2)

    def _squared_angle(self, x: Tensor, y: Tensor) -> Tensor:
        if differentiated(x) or differentiated(y):
            return self.rotations.squared_dist(_matrix(x), _matrix(y))
        angle = angle_of_quaternion(*relative_quaternion(entries(x), entries(y)))
        return angle * angle

    # Geodesics.

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        if rows.few(x, x.shape[:-2], u.shape[:-2]):
            return _pose(self.rotations.expmap(_matrix(x), _matrix(u)), _vector(x) + _vector(u))
        r = entries(x)
        return _point(exponential(r, skew_of_product(r, entries(u))), _sum(_position(x), _position(u)))

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        r = entries(x)
        return _tangent(times_hat(r, logarithm(r, entries(y))), _way(x, y))

    def shoot(self, x: Tensor, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        r = entries(x)
        return _shoot(x, r, skew_of_product(r, entries(u)), _position(u), t)

    def geodesic(self, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        r = entries(x)
        return _shoot(x, r, logarithm(r, entries(y)), _way(x, y), t)

    def transp(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        """Carry ``u`` along the geodesic of ``logmap(x, y)`` (parallel transport): ``dp`` stays, see `SO3.transp`."""
        return _tangent(transported(entries(x), entries(y), entries(u)), _position(u))

    # Bases and volume.

    def tangent_basis(self, x: Tensor) -> Tensor:
        """Return three turns about the body's axes, then three displacements by ``length`` along the world's."""
        turns = self.rotations.tangent_basis(_matrix(x))
        axes = torch.eye(3, dtype=x.dtype, device=x.device).expand(*turns.shape[:-2], 3)
        zero = torch.zeros_like(axes)
        return torch.cat([_ambient(turns, zero), _ambient(torch.zeros_like(turns), self.length * axes)], dim=-3)

    def divergence_frame(self, x: Tensor) -> tuple[Tensor, Tensor]:
        basis = self.tangent_basis(x)
        dual = torch.cat([basis[..., :3, :, :] / 2, basis[..., 3:, :, :] / self.length**2], dim=-3)
        return basis, dual

    def log_volume_derivative(self, x: Tensor, u: Tensor) -> Tensor:
        return torch.zeros_like((x * u)[..., 0, 0])

    def log_det_expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return self.rotations.log_det_expmap(_matrix(x), _matrix(u))

    @property
    def kernel(self) -> Kernel:
        """That of `SO3` for the rotation, and normal densities of variance ``length^2 / concentration``."""
        return _RotationsAndPositions(self)

    # Group operations.

    @property
    def lie_group(self) -> LieGroup:
        """Products of motions; algebra elements are ``(omega, R' dp)``, both velocities in the body's frame."""
        return _Motions(self)

    def identity(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Tensor:
        """Return the pose that moves nothing, ``(4, 4)``."""
        return torch.eye(4, dtype=dtype, device=device)

    def compose(self, x: Tensor, y: Tensor) -> Tensor:
        """Return ``x y``: the motion ``y``, then ``x``."""
        r = entries(x)
        return _point(product(r, entries(y)), _sum(turned(r, _position(y)), _position(x)))

    def inverse(self, x: Tensor) -> Tensor:
        """Return the inverse motion."""
        back = transposed(entries(x))
        return _point(back, [-c for c in turned(back, _position(x))])

    def act(self, x: Tensor, points: Tensor) -> Tensor:
        """Return ``R a + p`` for points ``a`` of space, ``(*batch, 3)``, broadcasting with poses ``(*batch, 4, 4)``."""
        return vector(_sum(turned(entries(x), components(points)), _position(x)))

    def screw_expmap(self, x: Tensor, u: Tensor) -> Tensor:
        """Return ``x Exp(x^-1 u)``, the group exponential: where the screw motion with initial velocity ``u`` is at 1.

        Its velocity is constant in the body's frame. It is not a geodesic, unless ``omega`` and ``v`` are parallel: it
        has the rotation of ``expmap(x, u)`` and another position, ``p + V(R omega) dp``.
        """
        r, way = entries(x), _position(u)
        body = skew_of_product(r, entries(u))
        omega = turned(r, body)
        q = dot(omega, omega)
        once = cross(omega, way)
        a, b = rodrigues(body)
        bend = zip(once, cross(omega, once), strict=True)
        spiral = [torch.addcmul(b * c, _sine_defect(q), d) for c, d in bend]
        p = _sum(_position(x), _sum(way, spiral))
        return _point(orthonormalised(moved(r, turn_less_identity(a, b, body))), p)

    def screw_logmap(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the velocity at ``x`` of the screw motion that reaches ``y`` at time 1: ``x Log(x^-1 y)``.

        It inverts `screw_expmap` and turns by at most pi; at pi it has the axis that ``logmap`` has.
        """
        r, way = entries(x), _way(x, y)
        body = logarithm(r, entries(y))
        omega = turned(r, body)
        once = cross(omega, way)
        defect = _cotangent_defect(dot(omega, omega))
        bend = zip(way, once, cross(omega, once), strict=True)
        return _tangent(times_hat(r, body), [w - a / 2 + defect * b for w, a, b in bend])

    # Coordinates for networks.

    def embed(self, x: Tensor) -> Tensor:
        """Return the nine entries of the rotation and the position divided by ``length``."""
        return torch.cat([_matrix(x).flatten(-2), _vector(x) / self.length], dim=-1)

    @property
    def embed_dim(self) -> int:
        return 12

    @property
    def embed_is_linear(self) -> bool:
        return type(self).embed is SE3.embed

    @property
    def coordinates(self) -> Coordinates:
        """With the derivatives in closed form."""
        return _TurnsAndMoves(self)

    def extra_repr(self) -> str:
        return f"length={self.length:g}"


class _TurnsAndMoves(Coordinates):
    manifold: SE3

    def tangent_from_vector_jvp(self, x: Tensor, w: Tensor, v: Tensor, dw: Tensor) -> tuple[Tensor, Tensor]:
        w, dw = w.unflatten(-1, (4, 4)), dw.unflatten(-1, (4, 4))
        u, du = self.manifold.rotations.coordinates.tangent_from_vector_jvp(
            _matrix(x), _matrix(w).flatten(-2), _matrix(v), _matrix(dw).flatten(-2)
        )
        return _ambient(u, _vector(w)), _ambient(du, _vector(dw))


class _RotationsAndPositions(Kernel):
    manifold: SE3

    def log_normaliser(self, concentration: Tensor) -> Tensor:
        """The integral on SO(3) times the Gaussian one in ``p / length``."""
        gaussian = 1.5 * torch.log(2 * math.pi / concentration)
        return self.manifold.rotations.kernel.log_normaliser(concentration) + gaussian

    def sample(self, x: Tensor, concentration: Tensor, generator: torch.Generator | None = None) -> Tensor:
        rotation = self.manifold.rotations.kernel.sample(_matrix(x), concentration, generator)
        normal = torch.randn(*rotation.shape[:-1], generator=generator, dtype=x.dtype, device=x.device)
        step = self.manifold.length * torch.rsqrt(concentration).to(x.dtype)
        return _point(entries(rotation), _sum(_position(x), [step * c for c in components(normal)]))


class _Motions(LieGroup):
    """The group SE(3), whose exponential is the screw motion."""

    def __init__(self, poses: SE3) -> None:
        self.poses = poses

    def to_algebra(self, x: Tensor, u: Tensor) -> Tensor:
        if rows.few(x, x.shape[:-2], u.shape[:-2]):
            turn = rows.skew_of_product(_matrix(x), _matrix(u))
            return torch.cat([turn, rows.turned(_matrix(x).mT, _vector(u))], dim=-1)
        r = entries(x)
        return vector([*skew_of_product(r, entries(u)), *turned(transposed(r), _position(u))])

    def from_algebra(self, x: Tensor, a: Tensor) -> Tensor:
        if rows.few(x, x.shape[:-2], a.shape[:-1]):
            return _ambient(rows.times_hat(_matrix(x), a[..., :3]), rows.turned(_matrix(x), a[..., 3:]))
        r, c = entries(x), components(a)
        return _tangent(times_hat(r, c[:3]), turned(r, c[3:]))

    def translate(self, x: Tensor, a: Tensor) -> Tensor:
        return self.poses.screw_expmap(x, self.from_algebra(x, a))

    def bracket(self, a: Tensor, b: Tensor) -> Tensor:
        if rows.few(a, a.shape[:-1], b.shape[:-1]):
            turn, other = a[..., :3], b[..., :3]
            way = rows.cross(turn, b[..., 3:]) - rows.cross(other, a[..., 3:])
            return torch.cat([rows.cross(turn, other), way], dim=-1)
        p, q = components(a), components(b)
        there, back = cross(p[:3], q[3:]), cross(q[:3], p[3:])
        return vector([*cross(p[:3], q[:3]), *(c - d for c, d in zip(there, back, strict=True))])


def _matrix(x: Tensor) -> Tensor:
    return x[..., :3, :3]


def _vector(x: Tensor) -> Tensor:
    return x[..., :3, 3]


def _ambient(matrix: Tensor, vector: Tensor) -> Tensor:
    """Return ``[[matrix, vector], [0, 0]]`` from tensors."""
    batch = torch.broadcast_shapes(matrix.shape[:-2], vector.shape[:-1])
    top = torch.cat([matrix.expand(*batch, 3, 3), vector[..., None].expand(*batch, 3, 1)], dim=-1)
    return torch.nn.functional.pad(top, (0, 0, 0, 1))


def _pose(matrix: Tensor, vector: Tensor) -> Tensor:
    """Return ``[[matrix, vector], [0, 1]]`` from tensors."""
    x = _ambient(matrix, vector)
    return x + torch.nn.functional.pad(x.new_ones(1, 1), (3, 0, 3, 0))


# Entry by entry; see `manifolds.rotations.rotation_entries`.


def _position(x: Tensor) -> Vector:
    return contiguous([x[..., i, 3] for i in range(3)])


def _way(x: Tensor, y: Tensor) -> Vector:
    return [b - a for a, b in zip(_position(x), _position(y), strict=True)]


def _sum(a: Vector, b: Vector) -> Vector:
    return [p + q for p, q in zip(a, b, strict=True)]


def _tangent(turn: Matrix, way: Vector) -> Tensor:
    """Return ``[[turn, way], [0, 0]]``."""
    return _assembled(turn, way, 0.0)


def _point(turn: Matrix, way: Vector) -> Tensor:
    """Return ``[[turn, way], [0, 1]]``."""
    return _assembled(turn, way, 1.0)


def _assembled(turn: Matrix, way: Vector, corner: float) -> Tensor:
    zero, last = torch.zeros_like(way[0]), torch.full_like(way[0], corner)
    top = [entry for row, c in zip(turn, way, strict=True) for entry in (*row, c)]
    return vector([*top, zero, zero, zero, last]).unflatten(-1, (4, 4))


def _shoot(x: Tensor, r: Matrix, omega: Vector, way: Vector, t: Tensor) -> tuple[Tensor, Tensor]:
    r_t = exponential(r, [t * c for c in omega])
    x_t = _point(r_t, [torch.addcmul(p, t, c) for p, c in zip(_position(x), way, strict=True)])
    return x_t, _tangent(times_hat(r_t, omega), way)


# Coefficients of the screw motion.


def _sine_defect(q: Tensor) -> Tensor:
    """Return ``(a - sin(a)) / a^3`` at ``a = sqrt(q)``, smooth at 0."""
    inner, outer = q.clamp(max=_BOUND), q.clamp(min=_BOUND)
    a = torch.sqrt(outer)
    far = (a - torch.sin(a)) / (outer * a)
    return pick(far, horner(inner, _SINE_DEFECT, _BOUND), (q < _BOUND).to(q.dtype))


def _cotangent_defect(q: Tensor) -> Tensor:
    """Return ``(1 - (a/2) cot(a/2)) / a^2`` at ``a = sqrt(q)`` for ``q`` up to pi^2, smooth at 0."""
    inner, outer = q.clamp(max=_BOUND), q.clamp(min=_BOUND)
    half = torch.sqrt(outer) / 2
    far = (1 - half * torch.cos(half) / torch.sin(half)) / outer
    return pick(far, horner(inner, _COTANGENT_DEFECT, _BOUND), (q < _BOUND).to(q.dtype))


_BOUND = 0.1
_SINE_DEFECT = tuple((-1) ** k / math.factorial(2 * k + 3) for k in range(7))
# |B_2k| / (2k)! with Bernoulli numbers B_2k.
_COTANGENT_DEFECT = (1 / 12, 1 / 720, 1 / 30240, 1 / 1209600, 1 / 47900160, 691 / 1307674368000, 1 / 74724249600)
