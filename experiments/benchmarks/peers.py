"""The same maps in other libraries, adapted to our conventions; each library is imported only on request."""

import importlib
import importlib.metadata
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.benchmarks.subjects import Map
from manifolds.rotations import hat, vee

Maps = dict[str, Map]
Map1 = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Peer:
    """A library.

    Attributes:
        name: what its column is headed.
        distribution: what it is installed as.
        module: what is imported to see whether it is there.
        maps: by the name of a subject, what makes its maps.
        gradients: whether its gradients are ordinary ones.
    """

    name: str
    distribution: str
    module: str
    maps: dict[str, Callable[[], Maps]]
    gradients: bool = True

    @property
    def version(self) -> str:
        """Its version, or "not installed"."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                importlib.import_module(self.module)
            return importlib.metadata.version(self.distribution)
        except ImportError:
            return "not installed"


def _methods(manifold: object, names: tuple[str, ...] = ("exp", "log", "dist")) -> Maps:
    methods = {"exp": "expmap", "log": "logmap", "dist": "dist"}
    return {name: getattr(manifold, methods[name]) for name in names}


def _geoopt(name: str, *arguments: object, only: tuple[str, ...] = ("exp", "log", "dist"), **options: object) -> Maps:
    geoopt = importlib.import_module("geoopt")
    with warnings.catch_warnings():
        # It warns that one metric is not complete.
        warnings.simplefilter("ignore")
        return _methods(getattr(geoopt, name)(*arguments, **options), only)


def _flow_matching(name: str, *names: str) -> Maps:
    return _methods(getattr(importlib.import_module("flow_matching.utils.manifolds"), name)(), names)


def _of_group(exp: Map1, log: Map1) -> Maps:
    """Return the left-translated maps of a rotation vector's exponential and a rotation matrix's logarithm."""
    return {
        "exp": lambda x, u: x @ exp(vee(x.mT @ u)),
        "log": lambda x, y: x @ hat(log(x.mT @ y)),
    }


def _pytorch3d_so3() -> Maps:
    t = importlib.import_module("pytorch3d.transforms")
    return _of_group(t.so3_exp_map, t.so3_log_map) | {"dist": lambda x, y: t.so3_relative_angle(x, y)}


def _roma_so3() -> Maps:
    roma = importlib.import_module("roma")
    return _of_group(roma.rotvec_to_rotmat, roma.rotmat_to_rotvec) | {"dist": roma.rotmat_geodesic_distance}


def _pypose_so3() -> Maps:
    pypose = importlib.import_module("pypose")

    def log(r: Tensor) -> Tensor:
        return pypose.mat2SO3(r, check=False).Log().tensor()

    maps = _of_group(lambda omega: pypose.so3(omega).Exp().matrix(), log)
    return maps | {"dist": lambda x, y: log(x.mT @ y).norm(dim=-1)}


def _inverse(x: Tensor) -> Tensor:
    r = x[:, :3, :3].mT
    return _stacked(r, -(r @ x[:, :3, 3:])[..., 0], 1.0)


def _stacked(turn: Tensor, way: Tensor, corner: float) -> Tensor:
    top = torch.cat([turn, way[..., None]], dim=-1)
    bottom = torch.tensor([0.0, 0.0, 0.0, corner], dtype=top.dtype).expand(len(top), 1, 4)
    return torch.cat([top, bottom], dim=-2)


def _of_motions(exp: Map1, log: Map1) -> Maps:
    """The same for twists: displacement, then rotation vector."""

    def twist(x: Tensor, u: Tensor) -> Tensor:
        r = x[:, :3, :3].mT
        return torch.cat([(r @ u[:, :3, 3:])[..., 0], vee(r @ u[:, :3, :3])], dim=-1)

    def logarithm(x: Tensor, y: Tensor) -> Tensor:
        xi = log(_inverse(x) @ y)
        return x @ _stacked(hat(xi[:, 3:]), xi[:, :3], 0.0)

    return {"exp": lambda x, u: x @ exp(twist(x, u)), "log": logarithm}


def _pytorch3d_se3() -> Maps:
    # It multiplies row vectors: its matrices are the transposes.
    t = importlib.import_module("pytorch3d.transforms")
    return _of_motions(lambda xi: t.se3_exp_map(xi).mT, lambda m: t.se3_log_map(m.mT))


def _pypose_se3() -> Maps:
    pypose = importlib.import_module("pypose")
    return _of_motions(
        lambda xi: pypose.se3(xi).Exp().matrix(), lambda m: pypose.mat2SE3(m, check=False).Log().tensor()
    )


PEERS = (
    Peer(
        "geoopt",
        "geoopt",
        "geoopt",
        {
            "Euclidean(3)": lambda: _geoopt("Euclidean", ndim=1),
            "Sphere(2)": lambda: _geoopt("Sphere"),
            "Hyperboloid(2)": lambda: _geoopt("Lorentz"),
            "PoincareBall(2)": lambda: _geoopt("PoincareBall"),
            "SPD(3)": lambda: _geoopt("SymmetricPositiveDefinite"),
            "LogEuclideanSPD(3)": lambda: _geoopt("SymmetricPositiveDefinite", "LEM", only=("dist",)),
        },
    ),
    Peer(
        "flow_matching",
        "flow_matching",
        "flow_matching.utils.manifolds",
        {
            "Euclidean(3)": lambda: _flow_matching("Euclidean", "exp", "log"),
            "FlatTorus(2)": lambda: _flow_matching("FlatTorus", "exp", "log"),
            "Sphere(2)": lambda: _flow_matching("Sphere", "exp", "log", "dist"),
        },
    ),
    Peer(
        "pytorch3d",
        "easypytorch3d",
        "pytorch3d.transforms",
        {"SO3()": _pytorch3d_so3, "SE3(), screw motion": _pytorch3d_se3},
    ),
    Peer("roma", "roma", "roma", {"SO3()": _roma_so3}),
    # Its gradients are with respect to perturbations of its own Lie types, not of the numbers that hold them.
    Peer("pypose", "pypose", "pypose", {"SO3()": _pypose_so3, "SE3(), screw motion": _pypose_se3}, gradients=False),
)
