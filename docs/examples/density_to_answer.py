import math
import tempfile
from pathlib import Path

import numpy as np
import torch

import rfm
from manifolds import Sphere
from rfm import grids, regions
from rfm.datasets import EARTH_RADIUS_KM
from rfm.sources import VonMisesFisher

folder = Path(tempfile.mkdtemp())
centre = Sphere.from_degrees(torch.tensor(36.0), torch.tensor(140.0))
points = VonMisesFisher(Sphere(2), centre, 30.0).sample((400,), torch.Generator().manual_seed(0))
new_points = VonMisesFisher(Sphere(2), centre, 30.0).sample((200,), torch.Generator().manual_seed(1))
flow = rfm.Flow(Sphere(2), lambda x, t: torch.zeros_like(x), VonMisesFisher(Sphere(2), centre, 30.0))

# --8<-- [start:grid]
density = grids.density_grid(flow, resolution=2)
print(density.describe())  # 90 lat x 180 lon cells of 2 degrees; the integral over them is 1.0000
dataset = grids.to_xarray(density)
tokyo = dataset.density_per_km2.sel(lat=35.7, lon=139.7, method="nearest")
mask = dataset.highest_density_probability < 0.9  # the cells of the smallest region that holds 90 %
grids.write_grid(density, folder / "density.nc")
# --8<-- [end:grid]
assert abs(density.integral - 1) < 1e-3
assert 1e-8 < float(tokyo) < 1e-6
assert abs(float(density.masses[mask.values].sum()) - 0.9) < 0.01

# --8<-- [start:probability]
found = regions.probability(flow, regions.LatitudeLongitudeBox(south=30, north=40, west=135, east=145))
print(found.value, found.interval_95, found.share.mean)

within_300_km = regions.Ball(Sphere(2), centre, 300 / EARTH_RADIUS_KM)
pacific = regions.Polygon([[[[140, -60], [290, -60], [290, 60], [140, 60], [140, -60]]]])  # longitudes go on beyond 180
print(regions.probability(flow, within_300_km).value, regions.probability(flow, pacific).value)
# --8<-- [end:probability]
truth = -math.expm1(-30 * (1 - math.cos(300 / EARTH_RADIUS_KM)))
assert abs(regions.probability(flow, within_300_km).value / truth - 1) < 1e-3

# --8<-- [start:rate]
rate = regions.Rate(events=len(points), years=50)
per_year, low, high = rate.expected(found.value, found.interval_95)
one_in_ten, least, most = rate.at_least_one(found.value, 10, found.interval_95)
# --8<-- [end:rate]
assert low < per_year < high
assert least < one_in_ten <= most

# --8<-- [start:regions]
smallest = regions.HighestDensity(flow)
print(smallest.level(0.9).log_density, smallest.level(0.9).interval_95)  # nats per steradian
inside = smallest.contains(new_points, 0.9)

calibration = regions.coverage(flow, new_points)
print(calibration.describe())

regions.write_geojson(regions.outlines(density, [0.5, 0.9]), folder / "regions.geojson")
# --8<-- [end:regions]
assert abs(float(inside.double().mean()) - 0.9) < 0.08
assert "chance" in calibration.describe()
assert np.isfinite(smallest.level(0.9).interval_95).all()
