"""Files that hold densities on grids: netCDF, GeoTIFF, CSV, by the ending of the name."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rfm.datasets import write_table
from rfm.grids.density_grid import DensityGrid
from rfm.grids.xarray_datasets import to_xarray
from rfm.records.descriptions import write_atomically
from rfm.records.packages import optional_package


def write_grid(density: DensityGrid, path: str | os.PathLike[str]) -> None:
    """Write a density on a grid to a file, completely or not at all; an existing one is replaced.

    Args:
        density: what `rfm.grids.density_grid` returned.
        path: ``.nc`` for netCDF by the CF conventions, which xarray, QGIS and GMT read; ``.tif`` for GeoTIFF in
            EPSG:4326, north up, of the earth alone; ``.csv`` for a row for each cell.

    Raises:
        ValueError: for another ending, or a GeoTIFF of what is no map of the earth.
        MissingPackageError: xarray with h5netcdf, or rasterio is not installed.
    """
    file = Path(path)
    check_ending(file, density.grid.earth)
    _WRITERS[file.suffix.lower()](density, file)


def check_ending(path: Path, earth: bool) -> None:
    """Raise ValueError unless a file's name ends as one that `write_grid` writes, of the earth or of something else."""
    if path.suffix.lower() not in _WRITERS:
        raise ValueError(
            f"write_grid: {path.name!r} ends in none of {', '.join(_WRITERS)}; choose netCDF, GeoTIFF or a table"
        )
    if not earth and path.suffix.lower() not in (".nc", ".csv"):
        raise ValueError(
            f"write_grid: {path.name!r} is to be a GeoTIFF, which holds maps of the earth; choose .nc or .csv here"
        )


def _write_netcdf(density: DensityGrid, path: Path) -> None:
    optional_package("h5netcdf", "geo", "a netCDF file")
    dataset = to_xarray(density)
    compressed = {"zlib": True, "complevel": 4}
    encoding: dict[Any, dict[str, Any]] = {
        name: compressed for name, variable in dataset.data_vars.items() if variable.ndim == len(density.grid.axes)
    }
    # Coordinates have no gaps, and a fill value would be one.
    encoding |= {name: {"_FillValue": None} for name in dataset.coords}
    write_atomically(path, lambda file: dataset.to_netcdf(file, engine="h5netcdf", encoding=encoding))


def _write_geotiff(density: DensityGrid, path: Path) -> None:
    rasterio = optional_package("rasterio", "geo", "a GeoTIFF file")
    latitude, longitude = density.grid.axes
    bands = [(unit.name, density.density(unit)) for unit in density.units]
    bands += [("log_density", density.log_density), ("highest_density_probability", density.region_probabilities)]
    transform = rasterio.Affine(longitude.step, 0.0, -180.0, 0.0, -latitude.step, 90.0)
    profile = {
        "driver": "GTiff",
        "height": len(latitude),
        "width": len(longitude),
        "count": len(bands),
        "dtype": "float64",
        "crs": "EPSG:4326",
        "transform": transform,
        "compress": "deflate",
    }

    def write(file: Path) -> None:
        with rasterio.open(file, "w", **profile) as raster:
            raster.update_tags(title=density.title, integral_over_cells=density.integral)
            for number, (name, values) in enumerate(bands, start=1):
                # A picture's first row is its northern one.
                raster.write(np.flipud(values), number)
                raster.set_band_description(number, name)

    write_atomically(path, write)


def _write_csv(density: DensityGrid, path: Path) -> None:
    names = [axis.name for axis in density.grid.axes]
    columns = [*density.grid.coordinates.T]
    for unit in density.units:
        names.append(unit.name)
        columns.append(density.density(unit).ravel())
    names += ["log_density", "highest_density_probability", "cell_probability"]
    columns += [values.ravel() for values in (density.log_density, density.region_probabilities, density.masses)]
    write_table(path, names, np.stack(columns, axis=1))


_WRITERS: dict[str, Callable[[DensityGrid, Path], None]] = {
    ".nc": _write_netcdf,
    ".tif": _write_geotiff,
    ".tiff": _write_geotiff,
    ".csv": _write_csv,
}
