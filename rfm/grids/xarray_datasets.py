"""Densities on grids as xarray datasets, with the names, units and bounds of the CF conventions."""

from typing import TYPE_CHECKING, Any

import numpy as np

from rfm.datasets import EARTH_RADIUS_KM
from rfm.grids.density_grid import DensityGrid
from rfm.records.packages import optional_package

if TYPE_CHECKING:
    from xarray import Dataset

_WGS84 = {
    "grid_mapping_name": "latitude_longitude",
    "longitude_of_prime_meridian": 0.0,
    "semi_major_axis": 6378137.0,
    "inverse_flattening": 298.257223563,
    "horizontal_datum_name": "WGS84",
    "long_name": "latitude and longitude, EPSG:4326",
}
_AREA = f"areas are those of a sphere of the mean radius {EARTH_RADIUS_KM} km"


def to_xarray(density: DensityGrid) -> "Dataset":
    """Return a density on a grid as an `xarray.Dataset` by the CF conventions.

    Its variables are the density in each unit, ``log_density`` in nats, ``highest_density_probability`` (the
    probability of the smallest region that holds a cell: below 0.9 is the region of 90 %) and the bounds of the cells.

    Args:
        density: what `rfm.grids.density_grid` returned.

    Raises:
        MissingPackageError: xarray is not installed.

    References:
        Eaton et al., NetCDF Climate and Forecast (CF) Metadata Conventions, version 1.8, 2020.
    """
    xarray = optional_package("xarray", "geo", "a dataset with named axes")
    grid = density.grid
    names = [axis.name for axis in grid.axes]
    coordinates: dict[str, Any] = {}
    variables: dict[str, Any] = {}
    for axis in grid.axes:
        attributes = {"units": axis.unit, "bounds": f"{axis.name}_bnds", **axis.attributes}
        coordinates[axis.name] = (axis.name, axis.centres, attributes)
        variables[f"{axis.name}_bnds"] = ((axis.name, "bnds"), np.stack([axis.edges[:-1], axis.edges[1:]], axis=1))
    shared: dict[str, Any] = {"grid_mapping": "crs"} if grid.earth else {}
    if grid.earth:
        variables["crs"] = ((), np.int32(0), _WGS84)
    for unit in density.units:
        comment = {"comment": _AREA} if "km-2" in unit.unit else {}
        variables[unit.name] = (
            names,
            density.density(unit),
            {"units": unit.unit, "long_name": unit.title, **comment, **shared},
        )
    measure = {"units": "1", "long_name": "log-density in nats, with respect to the Riemannian volume"}
    variables["log_density"] = (names, density.log_density, measure | shared)
    variables["highest_density_probability"] = (
        names,
        density.region_probabilities,
        {"units": "1", "long_name": "probability of the smallest region that holds the cell"} | shared,
    )
    about: dict[str, Any] = {
        "Conventions": "CF-1.8",
        "title": density.title or "probability density",
        "source": "riemannian flow matching (rfm)",
        "integral_over_cells": density.integral,
    }
    return xarray.Dataset(variables, coordinates, about)
