import torch

from manifolds import Sphere
from rfm import metrics
from rfm.sources import VonMisesFisher

sphere = Sphere(2)
generator = torch.Generator().manual_seed(0)
source = VonMisesFisher(sphere, torch.tensor([0.0, 0.0, 1.0]), 3.0)
real, other_real = source.sample((2, 400), generator=generator)
generated = VonMisesFisher(sphere, torch.tensor([0.0, 0.6, 0.8]), 3.0).sample((400,), generator=generator)

# --8<-- [start:discrepancy]
kernel = metrics.AmbientGaussianKernel(sphere, scale=metrics.median_distance(sphere, real, other_real))
for name, sample in (("generated", generated), ("real again", other_real)):
    low, high = metrics.maximum_mean_discrepancy(real, sample, kernel).interval_95
    print(f"{name}: squared discrepancy between {low:.4f} and {high:.4f}")
# --8<-- [end:discrepancy]

# --8<-- [start:rest]
distance = metrics.wasserstein_distance(sphere, real, generated, order=2)
accuracy = metrics.classifier_two_sample(sphere, real, generated)
covered = metrics.coverage(sphere, real, generated, neighbours=5)
for estimate in (distance, accuracy, covered):
    print(f"{estimate.mean:.3f} +- {estimate.standard_error:.3f}")
# --8<-- [end:rest]
assert metrics.maximum_mean_discrepancy(real, generated, kernel).interval_95[0] > 0
assert 0.5 < accuracy.mean < 1
