import math

import torch

import rfm
from manifolds import SO3, Sphere

# --8<-- [start:integral]
sphere = Sphere(2)
field = rfm.networks.VelocityField(sphere, width=32, depth=1, features=16, max_frequency=4.0)
torch.nn.init.normal_(field.last.weight, std=0.05, generator=torch.Generator().manual_seed(0))
flow = rfm.Flow(sphere, field)

x = sphere.random_uniform(500, generator=torch.Generator().manual_seed(1))
share = flow.log_prob(x).exp() * sphere.volume  # p(x) / uniform density
print(f"integral: {float(share.mean()):.4f} +- {float(share.std()) / math.sqrt(len(x)):.4f}")
# --8<-- [end:integral]
assert abs(float(share.mean()) - 1) < 5 * float(share.std()) / math.sqrt(len(x))

# --8<-- [start:units]
earth_radius_km = 6371.0088
nats_per_steradian = flow.log_prob(x)
nats_per_km2 = nats_per_steradian - 2 * math.log(earth_radius_km)
bits_per_steradian = nats_per_steradian / math.log(2)
# --8<-- [end:units]

# --8<-- [start:rotations]
# Papers that give rotations the total volume pi^2 print numbers that are log 8 = 2.08 larger than ours.
rotations = SO3()
uniform = -math.log(rotations.volume)  # -log(8 pi^2) = -4.37
in_total_volume_pi2 = uniform + math.log(8)  # -2.29
# --8<-- [end:rotations]
assert round(in_total_volume_pi2, 2) == -2.29

# --8<-- [start:many]
samples, log_p = flow.sample(2000, return_log_prob=True, batch_size=500, progress=True)
# --8<-- [end:many]
torch.testing.assert_close(flow.log_prob(samples), log_p, atol=1e-3, rtol=0)

# --8<-- [start:hutchinson]
estimate = flow.log_prob(x[:10], estimator=rfm.Hutchinson(probes=8, generator=torch.Generator().manual_seed(0)))
for value, error in zip(estimate.log_prob, estimate.standard_error, strict=True):
    print(f"{value:.2f} +- {error:.2f} nats")
# --8<-- [end:hutchinson]
assert bool(estimate.standard_error.isfinite().all())

# --8<-- [start:training]
refined = rfm.fit(
    samples,
    sphere,
    field=flow.field,  # goes on from here, in place
    objective=rfm.MaximumLikelihood(),
    steps=4,
    batch_size=64,
)
print(refined.stopped)
# --8<-- [end:training]
assert refined.history[0]["step"] == 0
