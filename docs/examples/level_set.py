import math

import torch
from torch import Tensor

import rfm
from manifolds import WGS84_AXES, Ellipsoid, LevelSet
from rfm.networks import VelocityField


# --8<-- [start:torus]
def torus(x: Tensor) -> Tensor:
    """A tube of radius 1 around a circle of radius 2: zero on its surface."""
    return (torch.sqrt(x[..., 0] ** 2 + x[..., 1] ** 2) - 2) ** 2 + x[..., 2] ** 2 - 1


surface = LevelSet(torus, 3, radius=3.1, curvature=1.0)
print(f"area {surface.volume:.2f} +- {surface.volume_standard_error:.2f}")
# --8<-- [end:torus]

# --8<-- [start:status]
generator = torch.Generator().manual_seed(0)
x, y = surface.random_uniform(2, 8, generator=generator, dtype=torch.float64)
u, converged = surface.solve_logmap(x, y)  # logmap has NaN where converged is False
minimal = converged & (surface.norm(x, u) < surface.logmap_radius)
# --8<-- [end:status]

# --8<-- [start:fit]
points = surface.projx(torch.tensor([3.0, 0.0, 0.0]) + 0.4 * torch.randn(200, 3, generator=generator))
# A small network and few steps, to be done in seconds: leave out field= and steps= for a real fit.
field = VelocityField(surface, width=32, depth=2, features=32, max_frequency=4.0)
flow = rfm.fit(points, surface, field=field, steps=5, batch_size=16, progress=False)
# --8<-- [end:fit]

# --8<-- [start:earth]
earth = Ellipsoid(WGS84_AXES)  # metres
london = earth.from_geodetic(torch.tensor(51.4779, dtype=torch.float64), torch.tensor(-0.0015, dtype=torch.float64))
tokyo = earth.from_geodetic(torch.tensor(35.6586, dtype=torch.float64), torch.tensor(139.7454, dtype=torch.float64))
print(f"{float(earth.dist(london, tokyo)) / 1000:.1f} km")
latitude, longitude = earth.to_geodetic(earth.geodesic(london, tokyo, torch.tensor(0.5, dtype=torch.float64))[0])
# --8<-- [end:earth]

# --8<-- [start:earth_fit]
unit_earth = Ellipsoid([a / WGS84_AXES[0] for a in WGS84_AXES], nodes=16)  # lengths in equatorial radii
# --8<-- [end:earth_fit]

assert abs(surface.volume - 8 * math.pi**2) < 5 * surface.volume_standard_error
assert flow.log_prob(points[:4]).isfinite().all()
assert abs(float(earth.dist(london, tokyo)) - 9.59e6) < 2e4
assert float(latitude) > 60 > float(latitude) - 20
assert abs(unit_earth.volume - 4 * math.pi) < 0.05
assert bool(minimal.any())
