import math

import torch
from cylinder import Cylinder
from cylinder_source import UniformTimesNormal
from torch import Tensor

from manifolds import Kernel
from rfm.sources import KernelMixture


# --8<-- [start:kernel]
class VonMisesTimesNormal(Kernel):
    def log_normaliser(self, concentration: Tensor) -> Tensor:
        angle = torch.log(2 * math.pi * torch.special.i0e(concentration))
        return angle + torch.log(2 * math.pi / concentration) / 2


class SmoothCylinder(Cylinder):
    @property
    def kernel(self) -> Kernel:
        return VonMisesTimesNormal(self)


# --8<-- [end:kernel]

m = SmoothCylinder()
winds = UniformTimesNormal(m, 0.0, 1.0)
points = winds.sample((60,), torch.Generator().manual_seed(0), torch.float64)
density = KernelMixture.mixture(m, points[:40], points[40:], background=winds)
x = winds.sample((4000,), torch.Generator().manual_seed(1), torch.float64)
ratio = (density.log_prob(x) - winds.log_prob(x)).exp()
assert abs(float(ratio.mean()) - 1) < 5 * float(ratio.std()) / math.sqrt(len(x)), ratio.mean()
