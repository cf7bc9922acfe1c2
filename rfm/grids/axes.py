"""A grid: axes of coordinates, the points at the centres of its cells, and the cells' volumes."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Axis:
    """One coordinate of a grid.

    Args:
        name: of the coordinate; letters, digits and underscores.
        edges: of the cells, ascending, ``(n + 1,)``, in ``unit``.
        measures: the factor of each cell's volume that this coordinate has, ``(n,)``.
        unit: as the CF conventions write it.
        period: after how much values repeat, in ``unit``; None where they do not.
        attributes: further attributes of the CF conventions.
    """

    name: str
    edges: Array
    measures: Array
    unit: str
    period: float | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)

    def coarsened(self, count: int) -> "Axis":
        """Return the axis with ``count`` cells each, which divides their number, as one."""
        return replace(self, edges=self.edges[::count], measures=self.measures.reshape(-1, count).sum(1))

    @property
    def centres(self) -> Array:
        """The middle of each cell, ``(n,)``."""
        return (self.edges[:-1] + self.edges[1:]) / 2

    @property
    def step(self) -> float:
        """The width of a cell."""
        return float(self.edges[1] - self.edges[0])

    def __len__(self) -> int:
        return len(self.edges) - 1


@dataclass(frozen=True)
class Unit:
    """A unit in which a density is given.

    Args:
        name: of the variable.
        unit: as the CF conventions write it.
        factor: by which a density with respect to the Riemannian volume is multiplied.
        title: in words.
    """

    name: str
    unit: str
    factor: float
    title: str


@dataclass(frozen=True)
class Grid:
    """The cells of a grid on a manifold.

    Args:
        axes: the coordinates, slowest first.
        place: from coordinates ``(n, len(axes))`` in the axes' units to points ``(n, *event_shape)``, float64.
        units: of densities, the first the most usual one.
        multiplicity: how many copies of the grid make up the manifold, where a symmetry makes them alike.
        complete: whether the cells cover the manifold; else the grid is a window.
        earth: whether latitudes and longitudes are those of the earth.
    """

    axes: tuple[Axis, ...]
    place: Callable[[Array], Tensor]
    units: tuple[Unit, ...]
    multiplicity: int = 1
    complete: bool = True
    earth: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """How many cells there are along each axis."""
        return tuple(len(axis) for axis in self.axes)

    @property
    def size(self) -> int:
        """How many cells there are."""
        return math.prod(self.shape)

    @property
    def coordinates(self) -> Array:
        """The centres of all cells in the axes' units, ``(size, len(axes))``, the last axis fastest."""
        mesh = np.meshgrid(*(axis.centres for axis in self.axes), indexing="ij")
        return np.stack([values.ravel() for values in mesh], axis=1)

    @property
    def points(self) -> Tensor:
        """The centres of all cells as points, ``(size, *event_shape)``."""
        return self.place(self.coordinates)

    @property
    def volumes(self) -> Array:
        """The Riemannian volume of each cell and of those that a symmetry makes alike, of shape `shape`."""
        return self.multiplicity * reduce(np.multiply.outer, [axis.measures for axis in self.axes])


def equal_cells(
    name: str, low: float, high: float, count: int, unit: str, scale: float = 1.0, period: float | None = None
) -> Axis:
    """Return an axis of equal cells, whose volume is their width times ``scale``."""
    edges = np.linspace(low, high, count + 1)
    return Axis(name, edges, np.diff(edges) * scale, unit, period)


def as_tensor(values: Array) -> Tensor:
    """Return an array as a tensor of its own memory."""
    return torch.from_numpy(np.ascontiguousarray(values))
