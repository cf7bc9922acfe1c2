"""The manifolds whose maps are measured, and the arguments they are measured at."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from experiments.benchmarks.pairs import COMPACT, FLAT, HYPERBOLIC, MATRICES, POSES, Pairs
from experiments.benchmarks.truth import (
    ScrewTruth,
    Truth,
    truth_of,
)
from manifolds import (
    SE3,
    SO3,
    SPD,
    Euclidean,
    FlatTorus,
    Hyperboloid,
    LogEuclideanSPD,
    Manifold,
    PoincareBall,
    Power,
    Product,
    Sphere,
)

Map = Callable[[Tensor, Tensor], Tensor]
"""A computed map of ``(x, u)`` (exp) or ``(x, y)`` (the others), batched over the first axis."""

SMALL = (0.0, *(10.0**-k for k in range(8, 0, -1)), 1.0)
HALF_TURN = (*SMALL, *(math.pi - 10.0**-k for k in range(1, 9)), math.pi)


@dataclass(frozen=True)
class Subject:
    """A manifold and where it is tried.

    Attributes:
        name: what the tables call it.
        manifold: the manifold.
        separations: distances of points, from base points inside the domain.
        pairs: pairs of points from the whole domain, by name.
        screw: whether SE(3)'s group exponential and logarithm are meant.
    """

    name: str
    manifold: Manifold
    separations: tuple[float, ...]
    pairs: Mapping[str, Pairs] = field(default_factory=dict)
    screw: bool = False

    @property
    def places(self) -> tuple[float | str, ...]:
        """The separations, and the names of the pairs."""
        return (*self.separations, *self.pairs)

    @property
    def truth(self) -> Truth:
        """The exact maps."""
        return ScrewTruth(1.0) if self.screw else truth_of(self.manifold)

    @property
    def maps(self) -> dict[str, Map]:
        """Our maps by name."""
        m = self.manifold
        if self.screw:
            assert isinstance(m, SE3)
            return {"exp": m.screw_expmap, "log": m.screw_logmap}
        return {"exp": m.expmap, "log": m.logmap, "dist": m.dist}


SUBJECTS = (
    Subject("Euclidean(3)", Euclidean(3), (*SMALL, 10.0), FLAT),
    Subject("FlatTorus(2)", FlatTorus(2), HALF_TURN, COMPACT),
    Subject("Sphere(2)", Sphere(2), HALF_TURN, COMPACT),
    Subject("Sphere(7)", Sphere(7), (), COMPACT),
    Subject("Hyperboloid(2)", Hyperboloid(2), (*SMALL, 10.0), HYPERBOLIC),
    Subject("Hyperboloid(3, 4)", Hyperboloid(3, 4.0), (), HYPERBOLIC),
    Subject("PoincareBall(2)", PoincareBall(2), (*SMALL, 10.0), HYPERBOLIC),
    Subject("PoincareBall(3, 4)", PoincareBall(3, 4.0), (), HYPERBOLIC),
    Subject("SO3()", SO3(), HALF_TURN, COMPACT),
    Subject("SE3()", SE3(), HALF_TURN, POSES),
    Subject("SE3(), screw motion", SE3(), HALF_TURN, POSES, screw=True),
    Subject("SPD(2)", SPD(2), (), MATRICES),
    Subject("SPD(3)", SPD(3), (*SMALL, 6.0), MATRICES),
    Subject("SPD(4)", SPD(4), (), MATRICES),
    Subject("LogEuclideanSPD(2)", LogEuclideanSPD(2), (), MATRICES),
    Subject("LogEuclideanSPD(3)", LogEuclideanSPD(3), (*SMALL, 6.0), MATRICES),
    Subject("Product(Sphere(2), FlatTorus(1))", Product(Sphere(2), FlatTorus(1), weights=(1.0, 0.25)), HALF_TURN),
    Subject("Power(Sphere(2), 2)", Power(Sphere(2), 2), HALF_TURN, COMPACT),
)


def label(separation: float | str) -> str:
    """Return a short name: ``1e-8``, ``1``, ``pi - 1e-8``, ``pi``; that of pairs is theirs."""
    if isinstance(separation, str):
        return separation
    if separation == math.pi:
        return "pi"
    if 3 < separation < math.pi or separation == math.pi - 0.1:
        return f"pi-{math.pi - separation:.0e}".replace("e-0", "e-")
    return f"{separation:.0e}".replace("e-0", "e-") if 0 < separation < 1 else f"{separation:g}"


# Arguments.


@dataclass(frozen=True)
class Arguments:
    """Rounded arguments ``(n, *event_shape)``, and vectors in double precision to differentiate along."""

    x: Tensor
    y: Tensor
    u: Tensor
    along_x: Tensor
    along_y: Tensor
    along_u: Tensor


def draw(subject: Subject, separation: float | str, count: int, dtype: torch.dtype, seed: int) -> Arguments:
    """Return random base points, and points and tangent vectors at the given separation from them, or the pairs."""
    m = subject.manifold
    generator = torch.Generator().manual_seed(seed)
    if isinstance(separation, str):
        x, y, u = subject.pairs[separation](m, count, dtype, generator)
    else:
        x = _base_points(m, separation, count, generator)
        u = separation * _directions(m, x, separation, generator)
        y = x.clone() if separation == 0 else m.expmap(x, u)
        if isinstance(m, Sphere) and separation == math.pi:
            y = -x
    along_x, along_y, along_u = (_directions(m, p, 1.0, generator) for p in (x, y, x))
    return Arguments(x.to(dtype), y.to(dtype), u.to(dtype), along_x, along_y, along_u)


def _base_points(m: Manifold, separation: float, count: int, generator: torch.Generator) -> Tensor:
    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    match m:
        case Product():
            factors = [f for f in m.factors if isinstance(f, Manifold)]
            return m.join(*(_base_points(f, separation, count, generator) for f in factors))
        case Power():
            return torch.stack([_base_points(m.m, separation, count, generator) for _ in range(m.k)], dim=1)
        case Sphere() | FlatTorus() | SO3():
            return m.random_uniform(count, generator=generator, dtype=torch.float64)
        case SE3():
            x = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
            x[:, :3, :3] = m.rotations.random_uniform(count, generator=generator, dtype=torch.float64)
            x[:, :3, 3] = normal(count, 3)
            return x
        case Hyperboloid() | PoincareBall():
            # In turn near the origin and far out; a long way starts at radius 5 and leads back past the origin.
            radius = torch.where(torch.arange(count) % 2 == 0, 1.0, 8.0)[:, None] if separation <= 1 else 5.0
            v = normal(count, m.n)
            v = radius * v / v.norm(dim=-1, keepdim=True)
            ball = torch.tanh(v.norm(dim=-1, keepdim=True) / 2) * v / v.norm(dim=-1, keepdim=True)
            return PoincareBall(m.n).to_hyperboloid(ball) if isinstance(m, Hyperboloid) else ball
        case SPD() | LogEuclideanSPD():
            # In turn well and badly conditioned: the logarithms of the eigenvalues spread over 2 or 10.
            spread = torch.where(torch.arange(count) % 2 == 0, 1.0, 5.0 if separation <= 1 else 1.0)[:, None]
            basis = torch.linalg.qr(normal(count, m.n, m.n)).Q
            d = spread * torch.linspace(-1, 1, m.n, dtype=torch.float64)
            x = basis * torch.exp(d)[:, None, :] @ basis.mT
            return (x + x.mT) / 2
    return normal(count, *m.event_shape)


def _directions(m: Manifold, x: Tensor, separation: float, generator: torch.Generator) -> Tensor:
    """Return random tangent vectors of length one; in products, in each factor; in tori, in the first angle."""
    if isinstance(m, Product):
        factors = [f for f in m.factors if isinstance(f, Manifold)]
        return m.join(*(_directions(f, a, separation, generator) for f, a in zip(factors, m.split(x), strict=True)))
    if isinstance(m, Power):
        return torch.stack([_directions(m.m, a, separation, generator) for a in x.unbind(1)], dim=1)
    if isinstance(m, FlatTorus):
        u = 2 * torch.rand(x.shape, generator=generator, dtype=torch.float64) - 1
        u[:, 0] = torch.sign(u[:, 0])
        return u
    if isinstance(m, SE3):
        turn = _directions(m.rotations, x[:, :3, :3], separation, generator)
        way = torch.randn(len(x), 3, 1, generator=generator, dtype=torch.float64)
        way = way / way.norm(dim=1, keepdim=True)
        return torch.nn.functional.pad(torch.cat([turn, way], dim=-1), (0, 0, 0, 1))
    coefficients = torch.randn(len(x), m.dim, generator=generator, dtype=torch.float64)
    basis = m.tangent_basis(x)
    if isinstance(m, Hyperboloid | PoincareBall) and separation > 1:
        origin = torch.zeros_like(x)
        if isinstance(m, Hyperboloid):
            origin[..., 0] = 1
        home = m.logmap(x, origin)
        inward = m.inner(x[:, None], home[:, None], basis)
        coefficients = inward / inward.norm(dim=-1, keepdim=True) + 0.02 * coefficients
    coefficients = coefficients / coefficients.norm(dim=-1, keepdim=True)
    return (m.lift(coefficients) * basis).sum(1)
