"""What a moving picture shows: particles on their way from the source to the data, with their field and density."""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import numpy as np
import torch
from torch import Tensor

from manifolds import SE3, SO3, Euclidean, FlatTorus, Manifold, Quotient, Sphere
from manifolds.arguments import check_instance, integer
from manifolds.rotations import rotvec_from_matrix
from rfm.datasets.cartesian import Cartesian
from rfm.datasets.coordinates import Coordinates
from rfm.flow import Flow
from rfm.flow.progress import counting_bar
from rfm.plotting.layouts import SOLVER
from rfm.plotting.maps import log_density_grid
from rfm.plotting.orientations import smallest_rotation_vectors
from rfm.plotting.panels import Array, Limits, robust_limits
from rfm.plotting.views import WORLD, places

_ARROWS = 80
"""Of the particles, so many carry an arrow."""
_AHEAD = 0.12
"""How far ahead an arrow reaches, in the flow's time: where the particle would be, if its velocity stayed."""

_GOLDEN = (math.sqrt(5) - 1) / 2
"""Multiples of it are spread evenly over a turn, however many are taken."""

Grid = tuple[Array, Array, Array]
"""Coordinates of columns and rows, and the log-density where they cross, ``(rows, columns)``."""


@dataclass(frozen=True)
class Motion:
    """Particles of a flow at some times.

    Args:
        flow: without its refinement, whose sources stand at several times.
        times: of the frames.
        points: the particles, ``(frames, n, *event_shape)``.
        arrows: where the first of them would be a little later if they kept their velocity,
            ``(frames, m, *event_shape)``.
        densities: log-densities of the particles at each time in a grid of the scene; empty where none are drawn.
        scene: how points appear.
        title: stands above everything.
    """

    flow: Flow
    times: tuple[float, ...]
    points: Tensor
    arrows: Tensor
    densities: tuple[Grid, ...]
    scene: "Scene"
    title: str | None = None


@dataclass(frozen=True)
class Scene:
    """How points of a manifold appear, on a plane or in space.

    Args:
        place: coordinates of points on the page, ``(n, 2)`` or ``(n, 3)``.
        names: of the page's axes; empty where they have none, as on a map.
        limits: of the axes; empty where they are given.
        grid: from a log-density, of points ``(n, *event_shape)``, to its grid on the page; None where it is not drawn.
        kind: how it is drawn: ``map``, ``plane`` or ``space``.
        earth: whether coastlines are drawn on a map.
        turn: the width of the page where its sides are one, in its own units; 0 where they are not.
    """

    place: Callable[[Tensor], Array]
    names: tuple[str, ...] = ()
    limits: tuple[Limits, ...] = ()
    grid: Callable[[Callable[[Array], Array]], Grid] | None = None
    kind: str = "space"
    earth: bool = False
    turn: float = 0.0


def motion_of(
    flow: Flow,
    *,
    count: int = 600,
    frames: int = 31,
    evaluations: int = 1000,
    condition: Tensor | Mapping[str, Any] | None = None,
    coordinates: Coordinates | None = None,
    title: str | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Motion:
    """Return particles of a flow on their way from the source to time 1.

    Of a refined flow the flow alone is shown, `Flow.base`: its samples start at several times, and have no one way.

    Args:
        flow: the flow.
        count: of particles.
        frames: of times from that of the source to 1, evenly spaced.
        evaluations: about how often to evaluate the log-density for each frame, where it is drawn, on ``Sphere(2)`` and
            in the plane; 0 leaves it out.
        condition: one condition for all particles, as `Flow.sample` takes it.
        coordinates: names the axes; `Cartesian` ones say that the sphere is not the earth.
        title: stands above everything.
        seed: of the particles.
        progress: show on stderr how far the densities are.

    Raises:
        ValueError: an argument is not as said.
    """
    check_instance("motion_of", "flow", flow, Flow, "Flow(manifold, field)")
    count, frames = integer("motion_of", "count", count), integer("motion_of", "frames", frames, 2)
    flow = flow.base
    dtype, device = flow._dtype_and_device()
    generator = torch.Generator(device).manual_seed(seed)
    times = tuple(float(t) for t in np.linspace(flow.start, 1, frames))
    start = flow.source.sample((count,), generator=generator, dtype=dtype, device=device)
    points = flow.trajectory(start, times, condition=condition, solver=SOLVER)
    some = points[:, : min(_ARROWS, count)]
    ahead = torch.stack(
        [
            flow.manifold.expmap(x, _AHEAD * flow.velocity(x, t, condition=condition))
            for x, t in zip(some, times, strict=True)
        ]
    )
    scene = scene_of(flow.manifold, points[-1], coordinates, evaluations)
    densities: list[Grid] = []
    if scene.grid is not None and evaluations and flow.source.has_density:
        with counting_bar(progress, "densities", frames, "frames") as counted:
            for t in times:
                densities.append(scene.grid(functools.partial(_log_density, flow, t, condition)))
                counted(1)
    return Motion(flow, times, points, ahead, tuple(densities), scene, title)


def _log_density(flow: Flow, t: float, condition: Tensor | Mapping[str, Any] | None, x: Array) -> Array:
    points = flow.manifold.projx(torch.from_numpy(x)).float()
    values = flow.log_prob(points, time=t, solver=SOLVER, condition=condition)
    return values.double().cpu().numpy()


# One scene for each kind of manifold.


@singledispatch
def scene_of(manifold: Manifold, points: Tensor, coordinates: Coordinates | None, evaluations: int) -> Scene:
    """Return how points of a manifold appear in a moving picture.

    Args:
        manifold: the manifold.
        points: particles at time 1, ``(n, *event_shape)``, which the axes are to hold.
        coordinates: names the axes.
        evaluations: about how many cells the grid of a density has.
    """
    k = min(3, manifold.embed_dim)
    if k == 1:
        return _spread_out(lambda x: manifold.embed(x)[:, 0], points, "embedding coordinate 1")
    names = tuple(f"embedding coordinate {i + 1}" for i in range(k))
    return _scene(lambda x: manifold.embed(x)[..., :k].double().cpu().numpy(), points, names)


@scene_of.register
def _(manifold: Sphere, points: Tensor, coordinates: Coordinates | None, evaluations: int) -> Scene:
    if manifold.dim != 2:
        return scene_of.dispatch(Manifold)(manifold, points, coordinates, evaluations)

    def place(x: Tensor) -> Array:
        return np.stack(WORLD.page(*places(x.double().cpu().numpy())), axis=1)

    def grid(log_density: Callable[[Array], Array]) -> Grid:
        return log_density_grid(log_density, evaluations)

    earth = coordinates is None or coordinates.kind != Cartesian.kind
    return Scene(place, grid=grid, kind="map", earth=earth, turn=2 * math.pi)


@scene_of.register
def _(manifold: FlatTorus, points: Tensor, coordinates: Coordinates | None, evaluations: int) -> Scene:
    if manifold.n == 1:
        circle = scene_of.dispatch(Manifold)(manifold, points, coordinates, evaluations)
        return Scene(circle.place, ("cosine", "sine"), ((-1.2, 1.2), (-1.2, 1.2)), kind="plane")
    names = _names(coordinates, manifold.n, "angle ")
    limits: tuple[Limits, ...] = ((-180.0, 180.0), (-180.0, 180.0))
    grid = functools.partial(_plane_grid, limits, math.pi / 180, evaluations) if manifold.n == 2 else None

    def place(x: Tensor) -> Array:
        return torch.rad2deg(x[:, :2]).double().cpu().numpy()

    labels = tuple(f"{name} (degrees)" for name in names[:2])
    return Scene(place, labels, limits, grid, "plane", turn=360.0)


@scene_of.register
def _(manifold: Euclidean, points: Tensor, coordinates: Coordinates | None, evaluations: int) -> Scene:
    names = _names(coordinates, manifold.n, "x")
    if manifold.n == 1:
        return _spread_out(lambda x: x[:, 0], points, names[0])
    k = min(3, manifold.n)
    scene = _scene(lambda x: x[:, :k].double().cpu().numpy(), points, names[:k])
    if manifold.n > 2:
        return scene
    grid = functools.partial(_plane_grid, scene.limits, 1.0, evaluations)
    return Scene(scene.place, scene.names, scene.limits, grid, "plane")


@scene_of.register
def _(manifold: SO3, points: Tensor, coordinates: Coordinates | None, evaluations: int) -> Scene:
    return _rotation_vectors(lambda x: rotvec_from_matrix(x.double()))


@scene_of.register
def _(manifold: Quotient, points: Tensor, coordinates: Coordinates | None, evaluations: int) -> Scene:
    if not isinstance(manifold.m, SO3):
        return scene_of.dispatch(Manifold)(manifold, points, coordinates, evaluations)

    return _rotation_vectors(functools.partial(smallest_rotation_vectors, group=manifold.group))


@scene_of.register
def _(manifold: SE3, points: Tensor, coordinates: Coordinates | None, evaluations: int) -> Scene:
    return _scene(lambda x: x[:, :3, 3].double().cpu().numpy(), points, ("x", "y", "z"))


def _names(coordinates: Coordinates | None, n: int, usual: str) -> tuple[str, ...]:
    fits = coordinates is not None and len(coordinates.names) == n
    assert coordinates is not None or not fits
    return tuple(coordinates.names) if coordinates is not None and fits else tuple(f"{usual}{i + 1}" for i in range(n))


def _scene(place: Callable[[Tensor], Array], points: Tensor, names: tuple[str, ...]) -> Scene:
    """Return a scene whose axes hold the particles at time 1."""
    limits = tuple(robust_limits(values) for values in place(points).T)
    return Scene(place, names, limits, kind="plane" if len(names) == 2 else "space")


def _spread_out(coordinate: Callable[[Tensor], Tensor], points: Tensor, name: str) -> Scene:
    """Return a scene of a line, whose particles stand above each other, each at a height of its own."""

    def place(x: Tensor) -> Array:
        values = coordinate(x).double().cpu().numpy()
        return np.stack([values, np.arange(len(values)) * _GOLDEN % 1], axis=1)

    return Scene(place, (name, "particles"), (robust_limits(place(points)[:, 0]), (-0.02, 1.02)), kind="plane")


def _rotation_vectors(vectors: Callable[[Tensor], Tensor]) -> Scene:
    names = tuple(f"rotation vector, {axis} (degrees)" for axis in "xyz")

    def place(x: Tensor) -> Array:
        return vectors(x).rad2deg().cpu().numpy()

    return Scene(place, names, ((-180.0, 180.0),) * 3, turn=360.0)


def _plane_grid(
    limits: tuple[Limits, ...], unit: float, evaluations: int, log_density: Callable[[Array], Array]
) -> Grid:
    n = max(2, math.isqrt(evaluations))
    x, y = (low + (np.arange(n) + 0.5) * (high - low) / n for low, high in limits)
    points = unit * np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    return x, y, log_density(points).reshape(n, n)
