"""The maps whose speed is compared: arguments, our functions, and those of other libraries for the same thing."""

import functools
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.benchmarks.peers import PEERS
from experiments.benchmarks.subjects import Map
from manifolds import SE3, SO3, SPD, FlatTorus, Hyperboloid, Manifold, PoincareBall, Sphere
from manifolds.rotations import matrix_from_rotvec, matrix_from_wxyz, rotvec_from_matrix, wxyz_from_matrix

Function = Callable[..., Tensor]


@dataclass(frozen=True)
class Job:
    """One map: what it is called with, who has it, and whose answers fail the accuracy table."""

    name: str
    arguments: tuple[Tensor, ...]
    ours: Function
    others: dict[str, Function]
    wrong: tuple[str, ...] = ()
    same: Callable[[Tensor, Tensor], Tensor] = torch.sub
    goal: float = 1.0
    """What the compiled map's time should be at most, as a multiple of the fastest peer's."""


# Whose values fail the rule of docs/benchmarks/accuracy.md in float32 (exp, log and dist, not their derivatives); those
# of geomstats, which the table leaves out, were assessed in the same way.
_WRONG: dict[str, dict[str, tuple[str, ...]]] = {
    "Sphere(2)": {"log": ("geoopt", "flow_matching"), "dist": ("geoopt", "flow_matching", "geomstats")},
    "Hyperboloid(2)": dict.fromkeys(("exp", "log", "dist"), ("geoopt", "geomstats")),
    "PoincareBall(2)": dict.fromkeys(("exp", "log", "dist"), ("geoopt", "geomstats")),
    "SO3()": {"dist": ("pytorch3d", "roma")},
    "SPD(3)": {"log": ("geoopt", "geomstats")},
}


def _inputs(manifold: Manifold, count: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return random points x and y and the tangent vectors log(x, y), float32."""
    generator = torch.Generator().manual_seed(0)
    dtype = torch.float32

    def normal(*shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=generator)

    def point() -> Tensor:
        match manifold:
            case SE3():
                x = torch.eye(4).repeat(count, 1, 1)
                x[:, :3, :3] = manifold.rotations.random_uniform(count, generator=generator, dtype=dtype)
                x[:, :3, 3] = normal(3)
                return x
            case SPD():
                a = normal(manifold.n, manifold.n)
                return a @ a.mT + torch.eye(manifold.n)
            case Hyperboloid():
                return manifold.projx(normal(manifold.n + 1))
            case PoincareBall():
                v = normal(manifold.n)
                return v / (1 + torch.sqrt(1 + (v * v).sum(-1, keepdim=True)))
            case _:
                return manifold.random_uniform(count, generator=generator, dtype=dtype)

    x, y = point(), point()
    u = manifold.screw_logmap(x, y) if isinstance(manifold, SE3) else manifold.logmap(x, y)
    return x.to(device), y.to(device), u.to(device)


def names() -> list[str]:
    """Return the names of all maps, in the order of the page."""
    of_manifolds = [f"{name} {what}" for name, manifold in _MANIFOLDS.items() for what in _ours(manifold)]
    return of_manifolds + list(_CONVERSIONS)


def jobs(count: int, device: str, selected: Container[str]) -> Iterator[Job]:
    """Yield the selected maps, by their names, with ``count`` points each."""
    for name, manifold in _MANIFOLDS.items():
        # Drawing their arguments takes seconds, too.
        if any(f"{name} {what}" in selected for what in _ours(manifold)):
            yield from (job for job in _maps(name, manifold, count, device) if job.name in selected)
    if any(name in selected for name in _CONVERSIONS):
        yield from (job for job in _conversions(count, device) if job.name in selected)


def _ours(manifold: Manifold) -> dict[str, Map]:
    if isinstance(manifold, SE3):
        return {"exp": manifold.screw_expmap, "log": manifold.screw_logmap}
    return {"exp": manifold.expmap, "log": manifold.logmap, "dist": manifold.dist}


def _maps(name: str, manifold: Manifold, count: int, device: str) -> Iterator[Job]:
    x, y, u = _inputs(manifold, count, device)
    theirs = {peer.name: peer.maps[name]() for peer in PEERS if name in peer.maps and _there(peer.module)}
    theirs |= {"geomstats": _geomstats(name)} if name in _GEOMSTATS and _there("geomstats") else {}
    for what, function in _ours(manifold).items():
        yield Job(
            f"{name} {what}",
            (x, u if what == "exp" else y),
            function,
            {library: maps[what] for library, maps in theirs.items() if what in maps},
            _WRONG.get(name, {}).get(what, ()),
            (lambda a, b: FlatTorus(2).logmap(a, b)) if isinstance(manifold, FlatTorus) else torch.sub,
            0.5 if isinstance(manifold, SO3) and what != "dist" else 1.0,
        )


def _conversions(count: int, device: str) -> Iterator[Job]:
    generator = torch.Generator().manual_seed(0)
    x = SO3().random_uniform(count, generator=generator, dtype=torch.float32).to(device)
    omega, q = rotvec_from_matrix(x), wxyz_from_matrix(x)
    others: dict[str, dict[str, Function]] = {}
    if _there("pytorch3d.transforms"):
        t = importlib.import_module("pytorch3d.transforms")
        others["pytorch3d"] = {
            "exp": t.so3_exp_map,
            "log": t.so3_log_map,
            "to matrix": t.quaternion_to_matrix,
            "from matrix": t.matrix_to_quaternion,
        }
    if _there("roma"):
        import roma

        others["roma"] = {
            "exp": roma.rotvec_to_rotmat,
            "log": roma.rotmat_to_rotvec,
            "to matrix": lambda q: roma.unitquat_to_rotmat(q.roll(-1, -1)),
            "from matrix": lambda x: roma.rotmat_to_unitquat(x).roll(1, -1),
        }
    if _there("pypose"):
        import pypose

        others["pypose"] = {
            "exp": lambda v: pypose.so3(v).Exp().matrix(),
            "log": lambda x: pypose.mat2SO3(x, check=False).Log().tensor(),
            "to matrix": lambda q: pypose.SO3(q.roll(-1, -1)).matrix(),
            "from matrix": lambda x: pypose.mat2SO3(x, check=False).tensor().roll(1, -1),
        }
    arguments = {"exp": omega, "log": x, "to matrix": q, "from matrix": x}
    for title, (name, ours) in _CONVERSIONS.items():
        functions = {library: maps[name] for library, maps in others.items()}
        same = _up_to_sign if name == "from matrix" else torch.sub
        yield Job(title, (arguments[name],), ours, functions, (), same, 0.5 if name in ("exp", "log") else 1.0)


def _up_to_sign(p: Tensor, q: Tensor) -> Tensor:
    return torch.minimum((p - q).abs().amax(-1), (p + q).abs().amax(-1))


_CONVERSIONS: dict[str, tuple[str, Function]] = {
    "rotation vector to matrix": ("exp", matrix_from_rotvec),
    "matrix to rotation vector": ("log", rotvec_from_matrix),
    "quaternion to matrix": ("to matrix", matrix_from_wxyz),
    "matrix to quaternion": ("from matrix", wxyz_from_matrix),
}

_MANIFOLDS: dict[str, Manifold] = {
    "SO3()": SO3(),
    "SE3(), screw motion": SE3(),
    "Sphere(2)": Sphere(2),
    "FlatTorus(2)": FlatTorus(2),
    "Hyperboloid(2)": Hyperboloid(2),
    "PoincareBall(2)": PoincareBall(2),
    "SPD(3)": SPD(3),
}

_GEOMSTATS = {
    "Sphere(2)": lambda g: g.hypersphere.Hypersphere(2),
    "Hyperboloid(2)": lambda g: g.hyperboloid.Hyperboloid(2),
    "PoincareBall(2)": lambda g: g.poincare_ball.PoincareBall(2),
    "SPD(3)": lambda g: g.spd_matrices.SPDMatrices(3),
}


@functools.cache
def _there(module: str) -> bool:
    """Return whether a library can be imported; geomstats with its PyTorch backend."""
    os.environ.setdefault("GEOMSTATS_BACKEND", "pytorch")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(module)
    except ImportError:
        return False
    finally:
        # geomstats makes float64 the default of the whole process.
        torch.set_default_dtype(torch.float32)
    return True


def _geomstats(name: str) -> dict[str, Map]:
    for part in ("hypersphere", "hyperboloid", "poincare_ball", "spd_matrices"):
        _there(f"geomstats.geometry.{part}")
    metric = _GEOMSTATS[name](sys.modules["geomstats.geometry"]).metric
    return {
        "exp": lambda x, u: metric.exp(u, x),
        "log": lambda x, y: metric.log(y, x),
        "dist": lambda x, y: metric.dist(x, y),
    }
