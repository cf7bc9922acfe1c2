"""Densities on grids: values with units and coordinates that other programs read.

`density_grid` evaluates a flow at the centres of the cells of a grid, `to_xarray` gives it names and units, and
`write_grid` writes netCDF, GeoTIFF or CSV.
"""

from rfm.grids.axes import Axis, Grid, Unit
from rfm.grids.density_grid import DensityGrid, cell_count, density_grid, on_earth
from rfm.grids.files import check_ending, write_grid
from rfm.grids.geography import Geography, geography_of
from rfm.grids.xarray_datasets import to_xarray

__all__ = [
    "Axis",
    "DensityGrid",
    "Geography",
    "Grid",
    "Unit",
    "cell_count",
    "check_ending",
    "density_grid",
    "geography_of",
    "on_earth",
    "to_xarray",
    "write_grid",
]
