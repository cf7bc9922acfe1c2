from pathlib import Path

import numpy as np

import rfm
from manifolds import FlatTorus, Sphere
from rfm.datasets import read_observations
from rfm.networks import VelocityField

numbers = np.random.default_rng(0)
storm = np.repeat(np.arange(12), 10)
north = numbers.uniform(-40, 40, 12)[storm] + 0.1 * np.tile(np.arange(10), 12)
east = numbers.uniform(-170, 170, 12)[storm] + 0.2 * np.tile(np.arange(10), 12)

# --8<-- [start:frame]
frame = {  # or a DataFrame, an xarray.Dataset, an Arrow table, a file's name
    "decimalLatitude": north,
    "decimalLongitude": east,
    "month": 1 + storm,
    "storm_id": [f"S{number}" for number in storm],
}
found = read_observations(frame, Sphere(2), condition=["month:12"], groups=["storm_id"])
# --8<-- [end:frame]
assert found.coordinates.columns == ("decimalLatitude", "decimalLongitude")
size = {"width": 16, "depth": 1, "features": 16, "max_frequency": 4.0}
field = VelocityField(Sphere(2), **size, condition_dim=2, condition_labels=(0, 0))
options = {"field": field, "steps": 20, "progress": False}

# --8<-- [start:fit]
flow = rfm.fit(found.points, Sphere(2), **found.arguments, **options)
may = flow.sample(100, condition={"month": 5})
# --8<-- [end:fit]
latitude, longitude = Sphere.to_degrees(may)
assert float(latitude.abs().max()) <= 90

directions = np.degrees(numbers.vonmises(0.5, 4.0, 1500)) % 360

# --8<-- [start:ties]
reported = {"wind_direction": np.rint(directions / 10) * 10 % 360}  # as reports round them
wind = read_observations(reported, FlatTorus(1))
assert wind.rounding is not None
assert wind.rounding.steps == (10.0,)
# --8<-- [end:ties]
assert len(np.unique(wind.points)) == 1500

# --8<-- [start:skip]
Path("stations.csv").write_text("lat,lon\n51.5,-0.1\nNA,2.4\n48.9,2.4\n148.9,2.4\n")
stations = read_observations("stations.csv", Sphere(2), skip_bad_rows=True)
print(stations.skipped.describe(len(stations.points)))
# --8<-- [end:skip]
assert len(stations.points) == 2
