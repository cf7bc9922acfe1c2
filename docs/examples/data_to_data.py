"""From data to data: start points, pairs, reflow and the measures of a flow."""

import torch

import rfm
from manifolds import Sphere
from rfm.couplings import OptimalTransport
from rfm.metrics import flow_measures, path_measures
from rfm.networks import VelocityField
from rfm.paths import GeodesicPath
from rfm.sources import VonMisesFisher

sphere = Sphere(2)
generator = torch.Generator().manual_seed(0)
before = VonMisesFisher(sphere, torch.tensor([0.0, 0.0, 1.0]), 20.0).sample((300,), generator)
after = VonMisesFisher(sphere, torch.tensor([0.0, 1.0, 0.0]), 20.0).sample((300,), generator)
field = VelocityField(sphere, width=32, depth=1, features=32, max_frequency=8.0)
quick = {"field": field, "steps": 100, "batch_size": 128, "device": "cpu", "progress": False}

# --8<-- [start:fit]
flow = rfm.fit(after, sphere, start=before, coupling=OptimalTransport(sphere), **quick)
moved = flow.transport(before)  # your own start points
drawn = flow.sample(100)  # from start points drawn with replacement
# --8<-- [end:fit]
assert moved.shape == (300, 3)
assert drawn.shape == (100, 3)

# --8<-- [start:history]
record = flow.history[-1]
print(f"loss of pairs held out {record['validation_loss']:.3f}, squared MMD {record['validation_mmd2']:.4f}")
# --8<-- [end:history]

# --8<-- [start:pairs]
flow = rfm.fit(after, sphere, start=before, pairs=True, **quick)  # row i of both belong together
# --8<-- [end:pairs]

# --8<-- [start:weights]
mass_before, mass_after = torch.rand(300), torch.rand(300)
flow = rfm.fit(after, sphere, start=before, start_weights=mass_before, weights=mass_after, **quick)
# --8<-- [end:weights]

# --8<-- [start:measures]
measured = flow_measures(flow, 200, generator=torch.Generator().manual_seed(0))
print(f"energy {measured.energy.mean:.3f}, of which not straight {measured.straightness.mean:.3f}")
for name, coupling in {"independent": rfm.couplings.Independent(), "transport": OptimalTransport(sphere)}.items():
    paths = path_measures(GeodesicPath(sphere), before, after, coupling=coupling)
    print(f"{name}: energy {paths.energy.mean:.3f}, least possible {paths.wasserstein_squared:.3f}")
# --8<-- [end:measures]

# --8<-- [start:reflow]
flow = rfm.fit(after, sphere, **quick)  # from the uniform distribution, with a density
made = rfm.reflow(flow, 300, rounds=1, steps=60, batch_size=128, device="cpu", progress=False)
for measured in made.measures:
    print(f"straightness {measured.straightness.mean:.4f}")
log_p = made.flow.log_prob(after)  # exact: the source is as before
# --8<-- [end:reflow]
assert log_p.shape == (300,)
