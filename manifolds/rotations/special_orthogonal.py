"""The group of rotations of space."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from manifolds.base import Manifold
from manifolds.coordinates import Coordinates
from manifolds.kernel import Kernel
from manifolds.lie_group import LieGroup
from manifolds.numerics import differentiated, horner, sinc_defect_of_root, sinc_of_root
from manifolds.rotations import matrix_from_wxyz
from manifolds.rotations import rotation_rows as rows
from manifolds.rotations.nearest_rotation import nearest_rotation, nearest_rotation_jvp
from manifolds.rotations.rotation_entries import (
    Matrix,
    Vector,
    added,
    angle_of_quaternion,
    components,
    cross,
    dot,
    entries,
    exponential,
    logarithm,
    matrix,
    moved,
    orthonormalised,
    relative_quaternion,
    rodrigues,
    skew_of_product,
    times_hat,
    transported,
    turn_less_identity,
    vector,
)


class SO3(Manifold):
    """The rotation group SO(3) with the bi-invariant metric ``<U, V> = tr(U' V) / 2``.

    Points are rotation matrices ``(3, 3)`` with determinant +1. Tangent vectors at ``x`` are ambient, ``x hat(omega)``
    with ``omega`` the angular velocity in the body's frame; their length is ``|omega|``. ``dist`` is the angle of
    ``x' y``, in [0, pi] radians; the volume is 8 pi^2. `embed` gives the nine entries.

    At angle pi, the cut locus, ``logmap`` takes of the two shortest geodesics the one that turns about the axis whose
    largest component, in the frame of ``x``, is positive; the gradient of ``dist`` is that of this geodesic's length,
    and 0 at coincidence.
    `manifolds.rotations` converts to and from quaternions, rotation vectors, six numbers and Euler angles.

    References:
        Sola, Deray, Atchuthan, A micro Lie theory for state estimation in robotics, 2018, arXiv:1812.01537, appendix B.
    """

    volume = 8 * math.pi**2
    injectivity_radius = math.pi

    @property
    def other_forms(self) -> Mapping[tuple[int, ...], str]:
        return {
            (4,): "quaternions become matrices with manifolds.rotations.matrix_from_wxyz, or matrix_from_xyzw if the "
            "real part is last",
            (3,): "rotation vectors become matrices with manifolds.rotations.matrix_from_rotvec, Euler angles in "
            "radians with matrix_from_euler",
            (6,): "six numbers become matrices with manifolds.rotations.matrix_from_6d",
        }

    def __init__(self) -> None:
        super().__init__(3, (3, 3))

    # Projections.

    def projx(self, x: Tensor) -> Tensor:
        """Return the nearest rotation, determinant +1, of any matrix; the identity for the zero matrix.

        Where several are nearest (a reflection, rank one) it is one of them. The error is a few units of rounding
        times the condition number, ``s_1 / (s_2 + s_3)`` with singular values of which the last has the sign of the
        determinant, while that is below 5,000; beyond, it may be a rotation that is not the nearest. Matrices of any
        scale will do.

        Method: FOAM, which writes the nearest rotation as a cubic in ``x``, given ``s_1 + s_2 + s_3``, the largest
        root of a quartic. Its error grows with the square of the condition number, so a step of Newton's method on the
        group follows. It has the right derivatives; the SVD's own derivative is NaN at a rotation.

        References:
            Markley, Attitude determination using vector observations: a fast optimal matrix algorithm, 1993, Journal of
            the Astronautical Sciences 41(2), 261-280.
        """
        return matrix(nearest_rotation(entries(x)))

    def projx_jvp(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        y, dy = nearest_rotation_jvp(entries(x), entries(v))
        return matrix(y), matrix(dy)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        if rows.few(x, x.shape[:-2], u.shape[:-2]):
            return rows.times_hat(x, rows.skew_of_product(x, u))
        p = entries(x)
        return matrix(times_hat(p, skew_of_product(p, entries(u))))

    # Metric.

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return (u * v).sum((-2, -1)) / 2

    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        if differentiated(x) or differentiated(y):
            return angle_of_quaternion(*relative_quaternion(entries(x), entries(y)))
        return _angle(x, y - x)

    # Geodesics.

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        if rows.few(x, x.shape[:-2], u.shape[:-2]):
            return rows.exponential(x, rows.skew_of_product(x, u))
        p = entries(x)
        return matrix(exponential(p, skew_of_product(p, entries(u, copy=False))))

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        p = entries(x)
        return matrix(times_hat(p, logarithm(p, entries(y))))

    def shoot(self, x: Tensor, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        p = entries(x)
        return _shoot(p, skew_of_product(p, entries(u)), t)

    def geodesic(self, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        p = entries(x)
        return _shoot(p, logarithm(p, entries(y)), t)

    def expmap_jvp(self, x: Tensor, u: Tensor, dx: Tensor, du: Tensor) -> tuple[Tensor, Tensor]:
        """In the body's frame, ``exp(-omega) alpha + J(omega) beta``, with J the right Jacobian of Sola, appendix B."""
        p, change = entries(x), entries(dx)
        omega, alpha = skew_of_product(p, entries(u)), skew_of_product(p, change)
        # Half of what dx does to x' u: the rest of du is how the angular velocity itself changes.
        half = cross(alpha, omega)
        beta = [b - h / 2 for b, h in zip(skew_of_product(p, entries(du)), half, strict=True)]
        sinc, versine = rodrigues(omega)
        defect = sinc_defect_of_root(dot(omega, omega))
        once = [sinc * h - versine * c for h, c in zip(half, cross(omega, beta), strict=True)]
        inner = [defect * c - versine * h for h, c in zip(half, cross(omega, beta), strict=True)]
        twice = cross(omega, inner)
        velocity = [a + b + c + d for a, b, c, d in zip(alpha, beta, once, twice, strict=True)]
        y = exponential(p, omega)
        return matrix(y), matrix(times_hat(y, velocity))

    def transp(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        """Carry ``u`` along the geodesic of ``logmap(x, y)`` (parallel transport, an isometry).

        Seen in the body's frame the vector turns by *minus half* the angle of ``x' y``; left translation, which keeps
        it constant there, is not parallel transport.
        """
        return matrix(transported(entries(x), entries(y), entries(u)))

    # Bases and volume.

    def tangent_basis(self, x: Tensor) -> Tensor:
        """Return ``x hat(e_i)`` for the three coordinate axes: the left-invariant frame."""
        axes = torch.eye(3, dtype=x.dtype, device=x.device)
        return torch.linalg.cross(*torch.broadcast_tensors(x[..., None, :, :], axes[:, None, :]))

    def divergence_frame(self, x: Tensor) -> tuple[Tensor, Tensor]:
        basis = self.tangent_basis(x)
        return basis, basis / 2

    def log_volume_derivative(self, x: Tensor, u: Tensor) -> Tensor:
        return torch.zeros_like((x * u)[..., 0, 0])

    def log_det_expmap(self, x: Tensor, u: Tensor) -> Tensor:
        quarter = self.inner(x, u, u) / 4
        return 2 * torch.log(torch.abs(sinc_of_root(quarter))) + torch.zeros_like(x[..., 0, 0])

    def random_uniform(
        self,
        *shape: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Return Haar-distributed rotations: normal quaternions are uniform in direction on the 3-sphere."""
        q = torch.randn(*shape, 4, generator=generator, dtype=dtype, device=device)
        return matrix_from_wxyz(q)

    @property
    def kernel(self) -> Kernel:
        """Isotropic matrix Fisher densities."""
        return _MatrixFisher(self)

    @property
    def lie_group(self) -> LieGroup:
        """Products of rotations; algebra elements are angular velocities ``omega`` in the body's frame."""
        return _Rotations()

    # Coordinates for networks.

    @property
    def coordinates(self) -> Coordinates:
        """With the derivatives in closed form."""
        return _Turns(self)


class _Turns(Coordinates):
    def tangent_from_vector_jvp(self, x: Tensor, w: Tensor, v: Tensor, dw: Tensor) -> tuple[Tensor, Tensor]:
        if rows.few(v, v.shape[:-2], dw.shape[:-1]):
            w, dw = w.unflatten(-1, (3, 3)), dw.unflatten(-1, (3, 3))
            turn = rows.skew_of_product(x, w)
            d_turn = rows.skew_of_product(v, w) + rows.skew_of_product(x, dw)
            return rows.times_hat(x, turn), rows.times_hat(v, turn) + rows.times_hat(x, d_turn)
        p, dp, w_, dw_ = entries(x), entries(v), entries(w.unflatten(-1, (3, 3))), entries(dw.unflatten(-1, (3, 3)))
        omega = skew_of_product(p, w_)
        change = [a + b for a, b in zip(skew_of_product(dp, w_), skew_of_product(p, dw_), strict=True)]
        return matrix(times_hat(p, omega)), matrix(added(times_hat(dp, omega), times_hat(p, change)))


class _MatrixFisher(Kernel):
    manifold: SO3

    def log_normaliser(self, concentration: Tensor) -> Tensor:
        """The integral of ``exp(-2 k (1 - cos(angle)))``: 8 pi^2 exp(-z) (I_0(z) - I_1(z)) with z = 2 k.

        By Weyl's integral formula the angle has
        density (1 - cos(angle)) / pi.
        """
        z = 2 * concentration
        # For large z the difference cancels, and its asymptotic series is exact; at 25 its last term is below 1e-16.
        large = z > 25
        q = 1 / torch.where(large, z, 25.0)
        tail = torch.log(horner(q, _BESSEL_DIFFERENCE)) + 1.5 * torch.log(q) - math.log(2 * math.pi) / 2
        moderate = torch.where(large, 1.0, z)
        body = torch.log(torch.special.i0e(moderate) - torch.special.i1e(moderate))
        return math.log(self.manifold.volume) + torch.where(large, tail, body)

    def sample(self, x: Tensor, concentration: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw from isotropic matrix Fisher distributions with modes ``x``.

        The quaternion of ``x' y`` has a Bingham distribution, density ``exp(-4 k |imaginary|^2)`` on the 3-sphere.
        """
        batch = torch.broadcast_shapes(x.shape[:-2], concentration.shape)
        q = _draw_bingham(4 * concentration.double().expand(batch).flatten(), generator).reshape(*batch, 4).to(x.dtype)
        real, *imaginary = components(q)
        scale = 2 / torch.addcmul(dot(imaginary, imaginary), real, real)
        return matrix(orthonormalised(moved(entries(x), turn_less_identity(scale * real, scale, imaginary))))


class _Rotations(LieGroup):
    """The group SO(3). Its metric is bi-invariant, so the group's exponential is ``expmap``."""

    def to_algebra(self, x: Tensor, u: Tensor) -> Tensor:
        if rows.few(x, x.shape[:-2], u.shape[:-2]):
            return rows.skew_of_product(x, u)
        return vector(skew_of_product(entries(x), entries(u)))

    def from_algebra(self, x: Tensor, a: Tensor) -> Tensor:
        if rows.few(x, x.shape[:-2], a.shape[:-1]):
            return rows.times_hat(x, a)
        return matrix(times_hat(entries(x), components(a)))

    def translate(self, x: Tensor, a: Tensor) -> Tensor:
        if rows.few(x, x.shape[:-2], a.shape[:-1]):
            return rows.exponential(x, a)
        return matrix(exponential(entries(x), components(a)))

    def bracket(self, a: Tensor, b: Tensor) -> Tensor:
        if rows.few(a, a.shape[:-1], b.shape[:-1]):
            return rows.cross(a, b)
        return vector(cross(components(a), components(b)))


# Parts. Vectors omega are tangent vectors in the body's frame.


def _shoot(x: Matrix, omega: Vector, t: Tensor) -> tuple[Tensor, Tensor]:
    x_t = exponential(x, [t * c for c in omega])
    return matrix(x_t), matrix(times_hat(x_t, omega))


def _angle(x: Tensor, step: Tensor) -> Tensor:
    """Return the angle between rotations ``x`` and ``x + step``, several times faster than through the quaternion.

    Its sine is the length of the skew part of ``x' step``, and ``1 - cos`` a quarter of ``|step|^2``: both are right to
    rounding at every angle, but not the derivative near pi, where the direction of the skew part is rounding.
    """
    (a, b, c), (p, q, r) = x.unbind(-1), step.unbind(-1)
    double = torch.stack([(b * r - c * q).sum(-1), (c * p - a * r).sum(-1), (a * q - b * p).sum(-1)])
    return torch.atan2(torch.sqrt((double * double).sum(0)) / 2, 1 - (step * step).sum((-2, -1)) / 4)


def _draw_bingham(rate: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return quaternions ``(m, 4)`` of any length whose direction has density ``exp(-rate |imaginary|^2)`` on S^3.

    Rejection from an angular central Gaussian; about half of the proposals or more are accepted at every rate.

    References:
        Kent, Ganeiber, Mardia: A new unified approach for the simulation of a wide class of directional distributions,
        2018, doi:10.1080/10618600.2017.1390468 (arXiv:1310.8110), section 3 with q = 4 and b the root of their
        equation for the best envelope, ``1 / b + 3 / (b + 2 rate) = 1``.
    """
    q = torch.empty(len(rate), 4, dtype=rate.dtype, device=rate.device)
    missing = torch.arange(len(rate), device=rate.device)
    while len(missing):
        r = rate[missing]
        root = torch.sqrt((r - 2) ** 2 + 2 * r)
        # Two forms of one root, neither of which cancels where it is used.
        b = torch.where(r < 2, 2 - r + root, 2 * r / torch.where(r < 2, 1.0, r - 2 + root))
        normal = torch.randn(len(r), 4, generator=generator, dtype=r.dtype, device=r.device)
        proposal = torch.cat([normal[:, :1], normal[:, 1:] * torch.rsqrt(1 + 2 * r / b)[:, None]], dim=-1)
        square = proposal * proposal
        excess = r * square[:, 1:].sum(-1) / square.sum(-1)
        log_ratio = 2 * torch.log1p(2 * excess / b) - excess + (4 - b) / 2 - 2 * torch.log(4 / b)
        u = torch.rand(len(r), generator=generator, dtype=r.dtype, device=r.device)
        accepted = torch.log(u) <= log_ratio
        q[missing[accepted]] = proposal[accepted]
        missing = missing[~accepted]
    return q


def _bessel_difference_coefficients(count: int) -> tuple[float, ...]:
    """Return c_k of ``exp(-z) (I_0(z) - I_1(z)) sqrt(2 pi z) = sum_k c_k z^-(k + 1)`` (DLMF 10.40.1)."""
    terms = []
    a_0 = a_1 = 1.0
    for k in range(1, count + 1):
        odd = (2 * k - 1) ** 2
        a_0, a_1 = -a_0 * (0 - odd) / (8 * k), -a_1 * (4 - odd) / (8 * k)
        terms.append(a_0 - a_1)
    return tuple(terms)


_BESSEL_DIFFERENCE = _bessel_difference_coefficients(20)
