import torch

import rfm
from manifolds import Sphere
from rfm.integrators import Jumps
from rfm.likelihood import jump_log_prob
from rfm.metrics import importance_weights
from rfm.networks import VelocityField
from rfm.objectives import Semigroup

sphere, generator = Sphere(2), torch.Generator().manual_seed(0)
points = sphere.projx(torch.tensor([0.0, 0.0, 1.0]) + 0.9 * torch.randn(400, 3, generator=generator))
torch.manual_seed(0)
field = VelocityField(sphere, width=16, depth=1, features=16, max_frequency=2.0)
flow = rfm.fit(points, sphere, field=field, refine=False, steps=200, batch_size=64, progress=False)

# --8<-- [start:distil]
few = rfm.distil(flow, objective=Semigroup(invertibility=0.3), points=500, steps=300, batch_size=64, progress=False)
x = few.sample(1000, steps=1, generator=generator)  # one evaluation each
log_p = few.log_prob(points, steps=1)  # the density of these samples
of_the_equation = few.log_prob(points)  # and that of the equation, as ever
# --8<-- [end:distil]

# --8<-- [start:report]
found = jump_log_prob(few.field, few.source, points, Jumps(2), check=False)
print(f"inverted to {float(found.residual.max()):.1e} in {float(found.evaluations.mean()):.0f} evaluations")
# --8<-- [end:report]
# --8<-- [start:weights]
x, log_q = few.sample(1000, steps=1, return_log_prob=True, generator=generator)
weights = importance_weights(few.log_prob(x), log_q)
height = weights.mean(x[:, 2])  # under the equation's density, with its standard error
print(f"{height.mean:.3f} ± {height.standard_error:.3f}, from as much as {weights.effective_size:.0f} draws of it")
# --8<-- [end:weights]
assert abs(height.mean - float(points[:, 2].mean())) < 0.2
assert x.shape == (1000, 3)
assert float((log_p - of_the_equation).abs().mean()) < 0.5
assert bool(found.log_prob.isfinite().all())
