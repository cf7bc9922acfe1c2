"""The grids of manifolds of one to three dimensions that have usual coordinates."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import singledispatch

import numpy as np
import torch
from torch import Tensor

from manifolds import SO3, Bounded, Ellipsoid, Euclidean, FlatTorus, Manifold, Quotient, Sphere
from manifolds.rotations import matrix_from_euler
from rfm.datasets.crystal_symmetry import crystal_rotations
from rfm.grids.axes import Array, Axis, Grid, Unit, as_tensor, equal_cells
from rfm.grids.geography import geography_of

Limits = Sequence[tuple[float, float]]

_DEGREES = (30.0, 15.0, 10.0, 7.5, 6.0, 5.0, 4.5, 3.0, 2.0, 1.5, 1.0, 0.5, 0.25, 0.1)
"""Resolutions to choose from: whole numbers of cells make 90 degrees."""
_MOST_CELLS = 50_000_000


@dataclass(frozen=True)
class GridRequest:
    """What a grid is to be like.

    Args:
        resolution: the width of cells, in degrees, or on Euclidean space in the unit of length; None for the finest
            with at most ``cells`` cells.
        cells: see ``resolution``.
        names: of the coordinates, where the manifold gives them none.
        limits: of each coordinate on Euclidean space, found by calling.
        earth: whether a sphere is the earth.
        average: into how many parts each cell is cut along each axis.
    """

    resolution: float | None
    cells: int
    names: tuple[str, ...]
    limits: Callable[[], Limits]
    earth: bool
    average: int = 1

    def counts(self, spans: Sequence[float]) -> list[int]:
        """Return into how many cells of the resolution each span of degrees is cut.

        Raises:
            ValueError: the resolution does not divide a span.
        """
        if self.resolution is None:
            return self._finest([[round(span / step) for span in spans] for step in _DEGREES])
        counts = [round(span / self.resolution) for span in spans]
        for span, count in zip(spans, counts, strict=True):
            if count < 1 or abs(count * self.resolution - span) > 1e-6 * span:
                raise ValueError(
                    f"density_grid: {span:g} degrees are no whole number of cells of {self.resolution:g} degrees; "
                    "choose a resolution that divides 90, such as 2, 1 or 0.5"
                )
        return _bounded([count * self.average for count in counts])

    def counts_in_window(self, limits: Limits) -> list[int]:
        """Return the number of cells along each coordinate of a window."""
        if self.resolution is None:
            return [max(2, int(self.cells ** (1 / len(limits))))] * len(limits)
        counts = [max(1, math.ceil((high - low) / self.resolution - 1e-9)) for low, high in limits]
        return _bounded([count * self.average for count in counts])

    def _finest(self, choices: list[list[int]]) -> list[int]:
        """Return the most of several numbers of cells that are within bounds, the fewest where none is."""
        return max((c for c in choices if math.prod(c) <= self.cells), key=math.prod, default=choices[0])


def _bounded(counts: list[int]) -> list[int]:
    if math.prod(counts) > _MOST_CELLS:
        raise ValueError(
            f"density_grid: the resolution makes {' x '.join(f'{n:,}' for n in counts)} cells; choose a coarser one, "
            f"at most {_MOST_CELLS:,} cells"
        )
    return counts


@singledispatch
def grid_of(manifold: Manifold, request: GridRequest) -> Grid:
    """Return the grid of a manifold; a generic function of its class.

    Raises:
        ValueError: the manifold has no coordinates here that a grid could have.
    """
    raise ValueError(
        f"density_grid: {manifold} has {manifold.dim} dimensions and no usual coordinates for a grid; grids are for "
        "Sphere(1), Sphere(2), Ellipsoid, FlatTorus and Euclidean of up to three dimensions, SO3, and their quotients; "
        "elsewhere call flow.log_prob at points of your own"
    )


@grid_of.register
def _(manifold: Quotient, request: GridRequest) -> Grid:
    """A class has the same density at all its points: rotations of crystals keep one part of Euler's angles."""
    grid = grid_of(manifold.m, request)
    rotations = crystal_rotations(manifold)
    return grid if rotations is None else _euler_grid(request, *_reduction(rotations))


@grid_of.register
def _(manifold: Bounded, request: GridRequest) -> Grid:
    """One of all that the set is a part of: outside the density is 0."""
    return grid_of(manifold.m, request)


@grid_of.register
def _(manifold: Sphere, request: GridRequest) -> Grid:
    if manifold.n == 1:
        return replace(_angle_grid(1, request), place=_on_circle)
    if manifold.n != 2:
        return grid_of.dispatch(Manifold)(manifold, request)
    return _geographic_grid(manifold, request)


@grid_of.register
def _(manifold: Ellipsoid, request: GridRequest) -> Grid:
    return _geographic_grid(manifold, request)


@grid_of.register
def _(manifold: FlatTorus, request: GridRequest) -> Grid:
    if manifold.n > 3:
        return grid_of.dispatch(Manifold)(manifold, request)
    return _angle_grid(manifold.n, request)


@grid_of.register
def _(manifold: Euclidean, request: GridRequest) -> Grid:
    if manifold.n > 3:
        return grid_of.dispatch(Manifold)(manifold, request)
    names, limits = _names(request.names, manifold.n, "x"), request.limits()
    counts = request.counts_in_window(limits)
    axes = [equal_cells(name, *own, n, "1") for name, own, n in zip(names, limits, counts, strict=True)]
    power = "" if manifold.n == 1 else f" to the power {manifold.n}"
    unit = Unit("density", "1", 1.0, f"probability density per unit of length{power}")
    return Grid(tuple(axes), as_tensor, (unit,), complete=False)


@grid_of.register
def _(manifold: SO3, request: GridRequest) -> Grid:
    return _euler_grid(request, 360.0, 180.0, 1)


def _geographic_grid(manifold: Sphere | Ellipsoid, request: GridRequest) -> Grid:
    own = geography_of(manifold)
    rows, columns = request.counts((180.0, 360.0))
    edges = np.linspace(-90, 90, rows + 1)
    names = {"standard_name": "latitude", "axis": "Y", "long_name": "latitude"}
    latitude = Axis("lat", edges, own.bands(edges), "degrees_north", None, names)
    longitude = equal_cells("lon", -180, 180, columns, "degrees_east", math.pi / 180, 360.0)
    longitude = replace(longitude, attributes={"standard_name": "longitude", "axis": "X", "long_name": "longitude"})
    sphere = manifold.same_as(Sphere(2))
    units = [
        Unit("density_per_steradian", "sr-1", 1.0, "probability density per steradian")
        if sphere
        else Unit("density", "1", 1.0, "probability density per square of the unit of length")
    ]
    earth = request.earth and own.kilometres is not None
    if earth and own.kilometres is not None:
        title = "probability density per square kilometre"
        units.insert(0, Unit("density_per_km2", "km-2", own.kilometres**-2, title))
    return Grid((latitude, longitude), lambda x: own.points(x[:, 0], x[:, 1]), tuple(units), earth=earth)


def _angle_grid(n: int, request: GridRequest) -> Grid:
    names = _names(request.names, n, "angle_")
    counts = request.counts([360.0] * n)
    axes = [
        equal_cells(name, -180, 180, count, "degrees", math.pi / 180, 360.0)
        for name, count in zip(names, counts, strict=True)
    ]
    power = "" if n == 1 else str(n)
    words = {1: "", 2: "square ", 3: "cubic "}[n]
    units = (
        Unit(f"density_per_degree{power}", f"degree-{n}", (math.pi / 180) ** n, f"density per {words}degree"),
        Unit(f"density_per_radian{power}", f"rad-{n}", 1.0, f"density per {words}radian"),
    )
    return Grid(tuple(axes), lambda degrees: as_tensor(np.radians(degrees)), units)


def _euler_grid(request: GridRequest, turn: float, tilt: float, multiplicity: int) -> Grid:
    """Return a grid of Bunge's angles, whose volume is ``sin(Phi) dphi1 dPhi dphi2``.

    Args:
        request: what it is to be like.
        turn: the range of phi2 in degrees.
        tilt: the range of Phi in degrees.
        multiplicity: how many such parts there are.
    """
    first, second, third = request.counts((360.0, tilt, turn))
    edges = np.linspace(0, tilt, second + 1)
    # Half the difference of squares of sines keeps the digits that cosines near 1 lose.
    measures = 2 * np.diff(np.sin(np.radians(edges) / 2) ** 2)
    axes = (
        replace(equal_cells("phi1", 0, 360, first, "degrees", math.pi / 180, 360.0), attributes=_bunge("phi1")),
        Axis("Phi", edges, measures, "degrees", None, _bunge("Phi")),
        replace(equal_cells("phi2", 0, turn, third, "degrees", math.pi / 180, turn), attributes=_bunge("phi2")),
    )
    units = (
        Unit("multiples_of_uniform", "1", 8 * math.pi**2, "orientation density in multiples of the uniform one"),
        Unit("density", "1", 1.0, "orientation density, with a total volume of 8 pi^2"),
    )
    return Grid(axes, _rotations, units, multiplicity)


def _bunge(name: str) -> Mapping[str, str]:
    return {"long_name": f"Euler angle {name} in Bunge's convention"}


def _reduction(rotations: Tensor) -> tuple[float, float, int]:
    """Return the ranges of phi2 and Phi that a crystal's rotations leave, and how many such parts there are.

    An axis of n-fold symmetry along the crystal's z shortens phi2, one that turns z over shortens Phi. What is left
    holds each orientation once or, for cubic crystals, whose threefold axes no box of angles respects, three times.
    """
    z = rotations.double() @ torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    along = int((z[:, 2] > 1 - 1e-6).sum())
    over = bool((z[:, 2] < -1 + 1e-6).any())
    return 360.0 / along, 90.0 if over else 180.0, along * (2 if over else 1)


def _rotations(degrees: Array) -> Tensor:
    return matrix_from_euler(as_tensor(np.radians(degrees)), "zxz", "intrinsic")


def _on_circle(degrees: Array) -> Tensor:
    angle = as_tensor(np.radians(degrees[:, 0]))
    return torch.stack([angle.cos(), angle.sin()], dim=-1)


def _names(names: Sequence[str], n: int, usual: str) -> list[str]:
    """Return names that files take: letters, digits and underscores, each once."""
    own = [re.sub(r"\W+", "_", name).strip("_") for name in names]
    fits = len(own) == n and all(own) and len(set(own)) == n and not any(name[0].isdigit() for name in own)
    return own if fits else [f"{usual}{i + 1}" for i in range(n)]
