"""The density of a flow on a grid."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from manifolds import Manifold
from manifolds.arguments import check_instance, integer, number, positive
from rfm.datasets.coordinates import Coordinates
from rfm.datasets.geographic import LatitudeLongitude
from rfm.flow import Flow
from rfm.flow.progress import counting_bar
from rfm.grids.axes import Array, Grid, Unit
from rfm.grids.manifold_grids import GridRequest, Limits, grid_of
from rfm.integrators import Adaptive, Method

SOLVER = Adaptive(atol=1e-4, rtol=1e-4)
"""Errors of a ten-thousandth of a nat are below those of cells."""
_BATCH = 4096
_CELLS = (20_000, 80_000)
"""How many cells a grid has by default: first, and where the integral over these is not near 1."""
_CLOSE = 0.01
_DRAWS, _MARGIN = 1000, 0.15
_HALVINGS = 60
_TINY = 1e-300
_FLOOR = -1e4


@dataclass(frozen=True)
class DensityGrid:
    """A density at the centres of the cells of a grid.

    Args:
        grid: the cells.
        log_density: in nats with respect to the Riemannian volume, of the grid's shape.
        title: what it is a density of.
        units: in which densities are written; the grid's by default.
    """

    grid: Grid
    log_density: Array
    title: str = ""
    units: tuple[Unit, ...] = ()

    def __post_init__(self) -> None:
        if self.log_density.shape != self.grid.shape or np.isnan(self.log_density).any():
            raise ValueError(
                f"DensityGrid: log_density must have the grid's shape {self.grid.shape} and no NaN, got "
                f"{self.log_density.shape} with {int(np.isnan(self.log_density).sum())} NaN"
            )
        if not self.units:
            object.__setattr__(self, "units", self.grid.units)

    @property
    def masses(self) -> Array:
        """The probability of each cell, by the density at its centre, of the grid's shape."""
        return np.exp(self.log_density) * self.grid.volumes

    @property
    def integral(self) -> float:
        """The sum of the cells' probabilities: 1 where cells are fine enough; in a window, its probability."""
        return float(self.masses.sum())

    def density(self, unit: Unit) -> Array:
        """Return the density in a unit, of the grid's shape."""
        return np.exp(self.log_density) * unit.factor

    @property
    def region_probabilities(self) -> Array:
        """For each cell the probability of the smallest region of cells that holds it, of the grid's shape.

        The cells below 0.9 are the highest-density region of 90 %. Probabilities are relative to `integral`.
        """
        order = np.argsort(-self.log_density, axis=None, kind="stable")
        masses = self.masses.ravel()[order]
        found = np.empty(len(order))
        # The middle of a cell's own mass, so that a region's border runs between cells.
        found[order] = (np.cumsum(masses) - masses / 2) / masses.sum()
        return found.reshape(self.grid.shape)

    def level(self, probability: float) -> float:
        """Return the log-density at the border of the smallest region of cells that holds a probability, nats.

        Args:
            probability: above 0 and below 1, relative to `integral`.
        """
        p = number("DensityGrid.level", "probability", probability)
        if not 0 < p < 1:
            raise ValueError(f"DensityGrid.level: probability must be above 0 and below 1, got {p}; for 90 % pass 0.9")
        # Log-densities vary within a cell, as if evenly by half of what they do from neighbour to neighbour. A level
        # would else jump from one row of cells to the next where a row is all alike.
        own, masses = np.maximum(self.log_density, _FLOOR), self.masses / self.integral
        slopes = np.gradient(own) if own.ndim > 1 else [np.gradient(own)]
        spread = np.maximum(sum(np.abs(slope) for slope in slopes) / 2, 1e-12)
        low, high = float((own - spread).min()), float((own + spread).max())
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            above = np.clip((own + spread - middle) / (2 * spread), 0, 1)
            low, high = (middle, high) if float((masses * above).sum()) > p else (low, middle)
        return (low + high) / 2

    def coarsened(self, count: int) -> "DensityGrid":
        """Return it on cells of ``count`` by ``count`` of these, with the means of their densities.

        Args:
            count: cells along each axis that become one; divides their numbers.
        """
        shape = [n for size in self.grid.shape for n in (size // count, count)]
        axes = tuple(axis.coarsened(count) for axis in self.grid.axes)
        grid = replace(self.grid, axes=axes)
        masses = self.masses.reshape(shape).sum(tuple(range(1, 2 * len(axes), 2)))
        # A mass of zero is one below the smallest number.
        return replace(self, grid=grid, log_density=np.log(np.maximum(masses, _TINY) / grid.volumes))

    def with_rate(self, events_per_year: float) -> "DensityGrid":
        """Return it with the expected number of events per square kilometre and year as one more unit.

        Args:
            events_per_year: of all events.

        Raises:
            ValueError: the grid is not one of the earth.
        """
        rate = positive("DensityGrid.with_rate", "events_per_year", events_per_year)
        own = next((unit for unit in self.units if unit.name == "density_per_km2"), None)
        if own is None:
            raise ValueError("DensityGrid.with_rate: rates are per square kilometre, of grids of the earth alone")
        title = "expected number of events per square kilometre and year"
        return replace(self, units=(*self.units, Unit("events_per_km2_year", "km-2 year-1", own.factor * rate, title)))

    def describe(self) -> str:
        """Return its size and its integral in a line."""
        axes = self.grid.axes
        cells = " x ".join(f"{len(axis)} {axis.name}" for axis in axes)
        steps = " x ".join(dict.fromkeys(f"{axis.step:.4g}" for axis in axes))
        unit = "" if axes[0].unit == "1" else " degrees"
        if not self.grid.complete:
            window = ", ".join(f"{axis.name} {axis.edges[0]:.4g} to {axis.edges[-1]:.4g}" for axis in axes)
            return f"{cells} cells of {steps}{unit} in the window {window}, which holds {self.integral:.4f} of the mass"
        text = f"{cells} cells of {steps}{unit}; the integral over them is {self.integral:.4f}"
        if abs(self.integral - 1) > _CLOSE:
            text += ", and should be 1: the density varies within cells; choose a finer resolution, or average"
        return text


def cell_count(manifold: Manifold, resolution: float | None = None) -> int:
    """Return how many cells a grid has, before it is computed; about, for a window of Euclidean space.

    Args:
        manifold: of the grid.
        resolution: see `density_grid`.

    Raises:
        ValueError: the manifold has no grid, or not one of this resolution.
    """
    for own in (None, resolution):
        request = GridRequest(own, _CELLS[0], (), lambda: [(0.0, 1.0)] * manifold.dim, earth=False)
        grid = grid_of(manifold, request)
        if not grid.complete:
            return _CELLS[0]
    return grid.size


def on_earth(coordinates: Coordinates) -> bool:
    """Return whether coordinates are latitudes and longitudes of the earth."""
    return coordinates.kind == LatitudeLongitude.kind


def density_grid(
    flow: Flow,
    *,
    resolution: float | None = None,
    average: int = 1,
    limits: Limits | None = None,
    coordinates: Coordinates | None = None,
    condition: Tensor | Mapping[str, Any] | None = None,
    solver: Method | None = None,
    batch_size: int = _BATCH,
    progress: bool | Callable[[int], Any] = False,
) -> DensityGrid:
    """Return the density of a flow on a grid of its manifold.

    Cells of latitude and longitude on ``Sphere(2)``, of angles on flat tori and ``Sphere(1)``, of Bunge's Euler angles
    on `SO3` (the orientation distribution function; modulo a crystal's symmetry only the part that is not repeated by
    its axes along and across z), a window of Euclidean space. Of at most three dimensions.

    Args:
        flow: a flow with a density.
        resolution: the width of cells in degrees, a divisor of 90; in Euclidean space in its unit of length. By default
            about 20,000 cells or, where the integral over these is farther than 1 % from 1, 80,000.
        average: points along each axis of a cell, whose mean is its density; 1 takes the density at its centre. For
            densities with peaks narrower than cells.
        limits: a pair for each coordinate of Euclidean space; those of 1000 draws with a margin by default.
        coordinates: name the axes. On ``Sphere(2)``, others than `rfm.datasets.LatitudeLongitude` mean that it is not
            the earth.
        condition: one condition, as `rfm.Flow.log_prob` takes it.
        solver: how to integrate; adaptive to 1e-4 by default.
        batch_size: points computed together, which bounds memory.
        progress: show on stderr how many cells are done; or a function that is called with their number each time.

    Raises:
        ValueError: the manifold has no grid, the flow no density, or an argument is not as said.
    """
    check_instance("density_grid", "flow", flow, Flow, "rfm.fit(points, manifold)")
    if resolution is not None:
        resolution = positive("density_grid", "resolution", resolution)
    flow.source.check_density("density_grid")
    names = () if coordinates is None else coordinates.names
    earth = coordinates is None or on_earth(coordinates)
    solver = SOLVER if solver is None else solver
    average = integer("density_grid", "average", average)
    if average > 1 and resolution is None:
        raise ValueError("density_grid: average is the number of points in cells of a given size; give resolution too")
    found: DensityGrid | None = None
    for cells in _CELLS:
        request = GridRequest(resolution, cells, names, lambda: _window(flow, limits, condition), earth, average)
        grid = grid_of(flow.manifold, request)
        if limits is not None and grid.complete:
            raise ValueError(
                f"density_grid: limits are of a window of Euclidean space, not of {flow.manifold}; leave them out"
            )
        with counting_bar(progress, "grid", grid.size, "cells") as advance:
            options: dict[str, Any] = {"condition": condition, "batch_size": batch_size, "progress": advance}
            scores = flow.log_prob(grid.points, solver=solver, **options)
        found = DensityGrid(grid, scores.detach().cpu().double().numpy().reshape(grid.shape))
        if resolution is not None or not grid.complete or abs(found.integral - 1) <= _CLOSE:
            break
    assert found is not None
    return found if average == 1 else found.coarsened(average)


def _window(flow: Flow, limits: Limits | None, condition: Tensor | Mapping[str, Any] | None) -> Limits:
    """Return the limits of each coordinate, checked, or found from draws."""
    if limits is None:
        generator = torch.Generator(flow._dtype_and_device()[1]).manual_seed(0)
        x = flow.sample(_DRAWS, condition=condition, generator=generator).detach().cpu().double().numpy()
        low, high = x.min(0), x.max(0)
        margin = _MARGIN * (high - low)
        return list(zip((low - margin).tolist(), (high + margin).tolist(), strict=True))
    pairs = [_pair(pair) for pair in limits]
    if len(pairs) != flow.manifold.dim:
        raise ValueError(
            f"density_grid: limits must be {flow.manifold.dim} pairs, one for each coordinate, got {len(pairs)}"
        )
    return pairs


def _pair(pair: Sequence[float]) -> tuple[float, float]:
    low, high = (number("density_grid", "limits", value) for value in pair)
    if not low < high:
        raise ValueError(f"density_grid: limits must ascend, got {low:g} and {high:g}; give the smaller one first")
    return low, high
