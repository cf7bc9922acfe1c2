"""Manifolds that are wrong in one way each, and the law that should be named first.

``BROKEN`` lists triples of a name, a function that makes the manifold, and the name of that law. Most are a unit sphere
written as a user would, with nothing but what the contract requires.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from manifolds import Coordinates, Euclidean, FlatTorus, Manifold, Sphere
from manifolds.numerics import cos_of_root, safe_norm, sinc_of_root


class PlainSphere(Manifold):
    """The sphere S^2 by the required methods alone, and right."""

    injectivity_radius = math.pi
    volume = 4 * math.pi

    def __init__(self) -> None:
        super().__init__(2, (3,))

    def projx(self, x: Tensor) -> Tensor:
        return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return u - (x * u).sum(-1, keepdim=True) * x

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        q = (u * u).sum(-1, keepdim=True)
        return self.projx(cos_of_root(q) * x + sinc_of_root(q) * u)

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        return Sphere(2).logmap(x, y)

    def random_uniform(self, *shape: int, generator=None, dtype=None, device=None) -> Tensor:  # type: ignore[no-untyped-def]
        return self.projx(torch.randn(*shape, 3, generator=generator, dtype=dtype, device=device))


class PlainBall(Manifold):
    """The Poincare disc by the required methods alone, and right."""

    injectivity_radius = math.inf

    def __init__(self) -> None:
        super().__init__(2, (2,))

    def projx(self, x: Tensor) -> Tensor:
        norm = safe_norm(x, keepdim=True)
        bound = 1 - 1e-3
        return torch.where(norm > bound, x * (bound / torch.where(norm > bound, norm, 1.0)), x)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return u.expand(torch.broadcast_shapes(x.shape, u.shape))

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return self.scale(x) ** 2 * (u * v).sum(-1)

    def scale(self, x: Tensor) -> Tensor:
        return 2 / (1 - (x * x).sum(-1))

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        xy, xx, yy = ((a * b).sum(-1, keepdim=True) for a, b in ((x, y), (x, x), (y, y)))
        return ((1 + 2 * xy + yy) * x + (1 - xx) * y) / (1 + 2 * xy + xx * yy)

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        a = self.scale(x)[..., None] * u / 2
        q = (a * a).sum(-1, keepdim=True)
        small = q < 1e-4
        root = torch.sqrt(torch.where(small, 1.0, q))
        factor = torch.where(small, 1 - q / 3 + 2 * q * q / 15, torch.tanh(root) / root)
        return self.add(x, factor * a)

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        d = self.add(-x, y)
        q = (d * d).sum(-1, keepdim=True)
        small = q < 1e-4
        root = torch.sqrt(torch.where(small, 0.25, q))
        factor = torch.where(small, 1 + q / 3 + q * q / 5, torch.atanh(root) / root)
        return 2 / self.scale(x)[..., None] * factor * d


RIGHT: list[tuple[str, Callable[[], Manifold]]] = [("PlainSphere", PlainSphere), ("PlainBall", PlainBall)]
BROKEN: list[tuple[str, Callable[[], Manifold], str]] = []


def wrong(law: str) -> Callable[[type[Manifold]], type[Manifold]]:
    """Add a class to ``BROKEN`` with the law that it breaks first."""

    def add(cls: type[Manifold]) -> type[Manifold]:
        BROKEN.append((cls.__name__, cls, law))
        return cls

    return add


# Structure.


@wrong("methods run")
class NoLogarithm(PlainSphere):
    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        raise NotImplementedError("later")


@wrong("methods run")
class SumsOverTheBatch(PlainSphere):
    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return (u * v).sum()


@wrong("dtype is kept")
class PromotesToDouble(PlainSphere):
    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return super().expmap(x, u) * torch.ones(3, dtype=torch.float64)


@wrong("batch shapes broadcast")
class SqueezesTheBatch(PlainSphere):
    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        return Sphere(2).dist(x, y).squeeze()


@wrong("batch shapes broadcast")
class MixesTheBatch(PlainSphere):
    def projx(self, x: Tensor) -> Tensor:
        # Needs exactly one batch axis to work.
        return x / torch.linalg.vector_norm(x, dim=1, keepdim=True)


@wrong("random draws use the generator only")
class DrawsFromGlobalState(PlainSphere):
    def random_uniform(self, *shape: int, generator=None, dtype=None, device=None) -> Tensor:  # type: ignore[no-untyped-def]
        return self.projx(torch.randn(*shape, 3, dtype=dtype, device=device))


@wrong("methods work under torch.func")
class ReadsAValue(PlainSphere):
    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        far = Sphere(2).dist(x, y)
        return far if far.numel() == 0 or far.max().item() >= 0 else -far


@wrong("device is kept")
class ConstantsOnTheProcessor(PlainSphere):
    def embed(self, x: Tensor) -> Tensor:
        return x * torch.ones(3, dtype=x.dtype, device="cpu")


# Projections and the metric at a point.


@wrong("projx brings points onto the manifold")
class ProjectionIsTheIdentity(PlainSphere):
    def projx(self, x: Tensor) -> Tensor:
        return x

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return Sphere(2).expmap(x, u)

    def random_uniform(self, *shape: int, generator=None, dtype=None, device=None) -> Tensor:  # type: ignore[no-untyped-def]
        return Sphere(2).random_uniform(*shape, generator=generator, dtype=dtype, device=device)


@wrong("projx is idempotent")
class ProjectsHalfway(ProjectionIsTheIdentity):  # type: ignore[valid-type, misc]
    def projx(self, x: Tensor) -> Tensor:
        return (x + x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)) / 2


@wrong("projx is idempotent")
class WrapsToTheWrongEnd(FlatTorus):
    def __init__(self) -> None:
        super().__init__(2)

    def projx(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x - 1e-3, x)


@wrong("proju is a linear projection")
class TangentProjectionTwiceTooFar(PlainSphere):
    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return u - 2 * (x * u).sum(-1, keepdim=True) * x


@wrong("proju is orthogonal")
class TangentProjectionIsOblique(PlainSphere):
    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        slant = super().proju(x, torch.ones_like(x))
        return u - (x * u).sum(-1, keepdim=True) * (x + 0.3 * slant)


@wrong("inner is an inner product")
class AsymmetricInner(PlainBall):
    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return super().inner(x, u, v) + 0.1 * (u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0])


@wrong("tangent_basis is orthonormal")
class BasisIgnoresTheMetric(PlainBall):
    def tangent_basis(self, x: Tensor) -> Tensor:
        return torch.eye(2, dtype=x.dtype, device=x.device).expand(*x.shape[:-1], 2, 2)


# The exponential map and the metric along it.


@wrong("expmap of zero is the point")
class ExpIgnoresItsBasePoint(PlainSphere):
    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        pole = torch.eye(1, 3, dtype=x.dtype, device=x.device)[0]
        q = (u * u).sum(-1, keepdim=True)
        return self.projx(cos_of_root(q) * pole.expand_as(x) + sinc_of_root(q) * self.proju(pole, u))


@wrong("expmap stays on the manifold")
class ExpIsAStraightLine(PlainSphere):
    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return x + u

    def projx(self, x: Tensor) -> Tensor:
        return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)


@wrong("derivative of expmap at zero is the identity")
class ExpGoesTwiceAsFar(PlainSphere):
    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return super().expmap(x, 2 * u)


@wrong("geodesics continue")
class ExpIsARetraction(PlainSphere):
    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return self.projx(x + u)


@wrong("velocity is the derivative of position")
class VelocityIsScaled(PlainSphere):
    def shoot(self, x: Tensor, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        x_t, dx_t = Sphere(2).shoot(x, u, t)
        return x_t, dx_t * (1 + 0.1 * t[..., None])


@wrong("acceleration of geodesics is normal")
class DefaultInnerOfACurvedChart(PlainBall):
    # A Euclidean length is up to a thousand times a hyperbolic one in this disc: keep within its float64 domain.
    injectivity_radius = 2e-3

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        raise AssertionError("replaced below")


DefaultInnerOfACurvedChart.inner = Manifold.inner  # type: ignore[method-assign]


@wrong("geodesics have constant speed")
class InnerIsNotTheMetricOfExp(PlainSphere):
    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return (1 + x[..., 0] ** 2) * (u * v).sum(-1)


@wrong("Gauss's lemma")
class InnerAgreesOnSpeedsOnly(PlainSphere):
    """The group exponential of unit quaternions with a metric that is only left-invariant has this fault too."""

    def __init__(self) -> None:
        Manifold.__init__(self, 3, (4,))
        self.volume = None  # type: ignore[assignment]

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        # A left-invariant metric on unit quaternions: the imaginary parts of conj(x) u, weighted.
        weights = torch.tensor([1.0, 1.0, 3.0], dtype=x.dtype, device=x.device)
        return (weights * _body(x, u) * _body(x, v)).sum(-1)

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        return Sphere(3).logmap(x, y)

    random_uniform = Manifold.random_uniform


def _body(x: Tensor, u: Tensor) -> Tensor:
    """Return the imaginary part of conj(x) u."""
    a, b = x[..., :1], x[..., 1:]
    c, d = u[..., :1], u[..., 1:]
    return a * d - c * b - torch.linalg.cross(*torch.broadcast_tensors(b, d))


# The logarithm and distance.


@wrong("logmap inverts expmap")
class LogIsScaled(PlainSphere):
    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        return 1.1 * super().logmap(x, y)


@wrong("logmap keeps its digits near the point")
class LogWithAcos(PlainSphere):
    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        cos = (x * y).sum(-1, keepdim=True).clamp(-1 + 1e-7, 1 - 1e-7)
        angle = torch.acos(cos)
        return angle / torch.sin(angle) * self.proju(x, y)


@wrong("expmap of logmap arrives")
class LogWithAsin(PlainSphere):
    injectivity_radius = math.pi / 2

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        near = (x * y).sum(-1, keepdim=True) > 0
        return Sphere(2).logmap(x, torch.where(near, y, y - 2 * (x * y).sum(-1, keepdim=True) * x))


@wrong("logmap reaches the cut locus")
class LogIsZeroAtTheAntipode(PlainSphere):
    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        s = x + y
        return torch.where((s * s).sum(-1, keepdim=True) < 1e-12, torch.zeros_like(s), Sphere(2).logmap(x, y))


@wrong("geodesic joins its ends")
class GeodesicRunsBackwards(PlainSphere):
    def geodesic(self, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        x_t, dx_t = super().geodesic(x, y, 1 - t)
        return x_t, -dx_t


@wrong("distance is the norm of the logarithm")
class DistanceIsTheChord(PlainSphere):
    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        return safe_norm(y - x)


@wrong("distance keeps its digits near the point")
class DistanceWithAcos(PlainSphere):
    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.acos((x * y).sum(-1).clamp(-1, 1))


@wrong("distance is the norm of the logarithm")
class DistanceIsAsymmetric(PlainSphere):
    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        return Sphere(2).dist(x, y) * (1 + 0.01 * (x - y)[..., 0])


@wrong("triangle inequality")
class GoesTheLongWayRound(FlatTorus):
    injectivity_radius = 0.5

    def __init__(self) -> None:
        super().__init__(1)

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        short = super().logmap(x, y)
        long = short - 2 * math.pi * torch.sign(short)
        return torch.where(short.abs() > 1, long, short)


@wrong("transport leads from tangent space to tangent space")
class TransportDoesNothing(PlainSphere):
    def transp(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        return u + torch.zeros_like(x + y)


@wrong("transport is isometric")
class TransportShortens(PlainSphere):
    def transp(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        return self.proju(y, u)


# Derivatives.


@wrong("derivatives are finite at hard places")
class GradientIsNotANumberAtCoincidence(PlainSphere):
    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        d, s = y - x, y + x
        return 2 * torch.atan2(torch.sqrt((d * d).sum(-1)), torch.sqrt((s * s).sum(-1)))


@wrong("derivatives are right")
class DetachesANorm(PlainSphere):
    def projx(self, x: Tensor) -> Tensor:
        return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)

    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        return Sphere(2).dist(x.detach(), y)


@wrong("second derivatives are right")
class VolumeIsRightToFirstOrder(PlainSphere):
    def log_det_expmap(self, x: Tensor, u: Tensor) -> Tensor:
        q = (u * u).sum(-1) + torch.zeros_like(x[..., 0])
        fixed = q.detach()
        zero = fixed == 0
        a = torch.where(zero, 1.0, fixed).sqrt()
        slope = torch.where(zero, -1 / 6, (1 / torch.tan(a) - 1 / a) / (2 * a))
        return torch.log(sinc_of_root(fixed)) + slope * (q - fixed)


# The embedding.


@wrong("embed is smooth along geodesics")
class EmbedJumpsAtTheSeam(FlatTorus):
    def __init__(self) -> None:
        super().__init__(2)

    def embed(self, x: Tensor) -> Tensor:
        return x

    @property
    def embed_dim(self) -> int:
        return 2


@wrong("embed is injective")
class EmbedForgetsACoordinate(PlainSphere):
    def embed(self, x: Tensor) -> Tensor:
        return torch.cat([x[..., :1], x[..., 1:2], 0 * x[..., 2:]], dim=-1)


@wrong("embed is injective")
class EmbedIdentifiesAntipodes(PlainSphere):
    def embed(self, x: Tensor) -> Tensor:
        return (x[..., :, None] * x[..., None, :]).flatten(-2)

    @property
    def embed_dim(self) -> int:
        return 9


class _StillProjection(Coordinates):
    def tangent_from_vector_jvp(self, x: Tensor, w: Tensor, v: Tensor, dw: Tensor) -> tuple[Tensor, Tensor]:
        return self.manifold.proju(x, w), self.manifold.proju(x, dw)


@wrong("coordinates for networks differentiate as said")
class TangentForgetsThatTheProjectionMoves(PlainSphere):
    @property
    def coordinates(self) -> Coordinates:
        return _StillProjection(self)


# Volume.


@wrong("the uniform density is normalised")
class VolumeOfTheBall(PlainSphere):
    volume = 4 / 3 * math.pi


@wrong("random draws are points")
class DrawsOffTheManifold(PlainSphere):
    def random_uniform(self, *shape: int, generator=None, dtype=None, device=None) -> Tensor:  # type: ignore[no-untyped-def]
        return torch.randn(*shape, 3, generator=generator, dtype=dtype, device=device)


@wrong("random_uniform is uniform")
class NormalisedCube(PlainSphere):
    def random_uniform(self, *shape: int, generator=None, dtype=None, device=None) -> Tensor:  # type: ignore[no-untyped-def]
        return self.projx(2 * torch.rand(*shape, 3, generator=generator, dtype=dtype, device=device) - 1)


@wrong("log_det_expmap is the volume that expmap stretches")
class LogDetWithOneFactorTooMany(PlainSphere):
    def log_det_expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return 2 * torch.log(sinc_of_root((u * u).sum(-1)).abs()) + 0 * x[..., 0]


@wrong("divergence is that of the metric")
class DivergenceIgnoresTheMetric(PlainBall):
    def log_volume_derivative(self, x: Tensor, u: Tensor) -> Tensor:
        return 0 * (x * u).sum(-1)


@wrong("check_point and check_tangent tell good from bad")
class CheckAcceptsAnything(PlainSphere):
    def check_point(self, x: Tensor, tol: float | None = None) -> None:
        return None


@wrong("shoot follows expmap")
class ShootIgnoresTime(Euclidean):
    def __init__(self) -> None:
        super().__init__(2)

    def shoot(self, x: Tensor, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        x_t = x + u + 0 * self.lift(t)
        return x_t, 0 * u + 0 * x_t


@wrong("differentials of exp and log are right")
class JumpsAsIfFlat(PlainSphere):
    def expmap_jvp(self, x: Tensor, u: Tensor, dx: Tensor, du: Tensor) -> tuple[Tensor, Tensor]:
        y = self.expmap(x, u)
        return y, self.proju(y, dx + du)


@wrong("differentials of exp and log are right")
class LogHoldsTheTangentSpace(PlainSphere):
    def logmap_jvp(self, x: Tensor, y: Tensor, dx: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
        u, du = super().logmap_jvp(x, y, dx, dy)
        return u, self.proju(x, du)
